import pytest
import torch
import torch.nn.functional as F

from vik_mm.ops import average_to_grid, spread_to_size

SIZES = [(7, 7), (14, 21), (15, 9), (5, 30), (3, 4), (1, 1), (7, 8)]


@pytest.mark.parametrize('size', SIZES, ids=str)
@pytest.mark.parametrize('function', [average_to_grid, spread_to_size], ids=lambda f: f.__name__)
def test_compiled_values_and_gradients_are_the_eager_ones(function, size):
    """Compilers see matrix products instead of PyTorch's functions."""
    torch._dynamo.reset()
    torch.manual_seed(0)
    shapes = ((2, 3, *size), (7, 7)) if function is average_to_grid else ((2, 3, 7, 7), size)
    inputs = [torch.randn(shapes[0], dtype=torch.float64).requires_grad_() for _ in range(2)]
    inputs[1].data.copy_(inputs[0])
    answers = [f(x, shapes[1]) for f, x in zip((function, torch.compile(function, backend='eager')), inputs)]
    torch.testing.assert_close(answers[1], answers[0])
    direction = torch.randn_like(answers[0])
    for answer in answers:
        (answer * direction).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad)


def test_average_is_that_of_adaptive_pooling():
    x = torch.randn(2, 3, 16, 9)
    assert torch.equal(average_to_grid(x, (7, 7)), F.adaptive_avg_pool2d(x, (7, 7)))


def test_nothing_is_done_to_a_map_of_the_size_asked_for():
    x = torch.randn(1, 2, 7, 7)
    assert average_to_grid(x, (7, 7)) is x
    assert spread_to_size(x, (7, 7)) is x


def test_a_constant_stays_constant():
    x = torch.full((1, 1, 20, 33), 3.0)
    torch.testing.assert_close(spread_to_size(average_to_grid(x, (7, 7)), (20, 33)), x)


@pytest.mark.parametrize('size', [(3, 4), (3, 9), (14, 14)], ids=str)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_goes_both_ways_on_cpus(dtype, size):
    x = torch.randn(1, 2, 7, 7).to(dtype)
    answer = spread_to_size(x, size)
    assert answer.dtype == dtype
    torch.testing.assert_close(answer.float(), spread_to_size(x.float(), size), rtol=1e-2, atol=1e-2)
