import pytest
import torch

from vik_mm.mixers import shifts as module
from vik_mm.mixers.shifts import shifted_products, shifted_sum

SHIFTS = [(0, 0), (2, 1), (1, 3), (0, 3)]


@pytest.fixture
def maps():
    torch.manual_seed(0)

    def draw(*shape):
        return torch.randn(2, 3, *shape, dtype=torch.float64, requires_grad=True)

    return draw(2, 4, 5), draw(2, 6, 8), draw(len(SHIFTS), 4, 5)


def test_shifted_products_and_sums_have_the_gradients_of_their_values(maps):
    x, padded, weights = maps
    assert torch.autograd.gradcheck(lambda *args: shifted_products(*args, SHIFTS), (x, padded))
    assert torch.autograd.gradcheck(lambda *args: shifted_sum(*args, SHIFTS), (weights, padded))


def test_a_traced_model_computes_the_same(maps, monkeypatch):
    x, padded, weights = maps
    mine = shifted_products(x, padded, SHIFTS), shifted_sum(weights, padded, SHIFTS)
    monkeypatch.setattr(module, 'is_traced', lambda: True)
    theirs = shifted_products(x, padded, SHIFTS), shifted_sum(weights, padded, SHIFTS)
    for ours, other in zip(mine, theirs):
        torch.testing.assert_close(ours, other)


@pytest.mark.parametrize('function', [shifted_products, shifted_sum])
def test_only_gradients_that_are_asked_for_are_computed(maps, function):
    x, padded, weights = maps
    first = x if function is shifted_products else weights
    for asked, other in ((first, padded), (padded, first)):
        other.requires_grad_(False)
        function(first, padded, SHIFTS).sum().backward()
        assert asked.grad is not None
        assert other.grad is None
        other.requires_grad_(True)
        asked.grad = None


def test_a_softmax_of_another_dtype_takes_that_of_the_values():
    weights, padded = torch.randn(1, 1, len(SHIFTS), 4, 5), torch.randn(1, 1, 2, 6, 8).bfloat16()
    assert shifted_sum(weights, padded, SHIFTS).dtype == torch.bfloat16
