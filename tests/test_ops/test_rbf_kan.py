import pytest
import torch

from vik_mm.ops import rbf_kan, rbf_kan_backend
from vik_mm.ops.rbf_kan import chunked

SHAPES = {
    'one-row': (1, 49, 8, 49),
    'prime-rows': (97, 49, 8, 49),
    'narrow': (33, 5, 3, 7),
    'empty': (0, 49, 8, 49),
}


def arguments(rows, num_in, num_grids, num_out, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    tensors = (
        draw(rows, num_in),
        torch.linspace(-2, 2, num_grids, dtype=torch.float64) + 0.1 * draw(num_in, num_grids),
        0.6 * (0.2 * draw(num_in, num_grids)).exp(),
        0.1 * draw(num_in * num_grids, num_out),
    )
    return [t.to(dtype).requires_grad_() for t in tensors]


def output_and_gradients(tensors, backend):
    out = rbf_kan(*tensors, backend=backend)
    seed = torch.linspace(-1, 1, out.numel(), dtype=torch.float64).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, seed)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(chunked, 'BLOCK_ELEMENTS', 10 * 8 * 49)  # several blocks, the last one not full


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('shape', SHAPES.values(), ids=SHAPES)
def test_chunked_gives_the_reference_values_and_gradients(shape, dtype):
    tensors = arguments(*shape, dtype=dtype)
    truth = output_and_gradients([t.detach().double().requires_grad_() for t in tensors], 'reference')
    plain = output_and_gradients(tensors, 'reference')
    ours = output_and_gradients(tensors, 'chunked')
    for true, expected, got in zip(truth, plain, ours):
        assert got.dtype == dtype
        assert got.shape == true.shape
        if true.numel():
            floor = 64 * torch.finfo(dtype).eps * true.abs().max()
            allowed = 2 * (expected.double() - true).abs().max() + floor
            assert (got.double() - true).abs().max() <= allowed


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
def test_gradients_agree_with_finite_differences(backend):
    tensors = arguments(12, 3, 4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda *t: rbf_kan(*t, backend=backend), tensors)


def test_chunked_operator_is_a_sound_torch_operator():
    x, centers, widths, weight = arguments(25, 4, 3, 5)
    scale, shift = (1 / widths).t().contiguous().detach(), (centers / widths).t().contiguous().detach()
    inputs = [t.detach().requires_grad_() for t in (x, scale, shift, weight)]
    torch.library.opcheck(chunked._forward, inputs)


def test_non_contiguous_input_gives_the_same():
    x, *rest = arguments(40, 49, 8, 49)
    wide = torch.zeros(49, 40)
    wide.copy_(x.detach().t())
    torch.testing.assert_close(rbf_kan(wide.t(), *rest), rbf_kan(x, *rest), rtol=0, atol=0)


def test_leading_dimensions_are_kept():
    x, *rest = arguments(24, 5, 3, 7)
    out = rbf_kan(x.view(2, 3, 4, 5), *rest)
    assert out.shape == (2, 3, 4, 7)
    torch.testing.assert_close(out.view(24, 7), rbf_kan(x, *rest), rtol=0, atol=0)


@pytest.mark.parametrize('backend', ['reference', 'chunked'])
def test_nan_passes_through_and_infinity_is_far_from_every_centre(backend):
    x, *rest = (t.detach() for t in arguments(3, 5, 3, 7))
    x[0, 0], x[1] = torch.nan, torch.inf
    out = rbf_kan(x, *rest, backend=backend)
    assert out[0].isnan().all()
    assert (out[1] == 0).all()
    assert out[2].isfinite().all()


def test_no_basis_is_kept_for_the_backward_pass():
    x, *rest = arguments(5000, 49, 8, 49)
    kept = 0

    def count(tensor):
        nonlocal kept
        kept += tensor.numel() if tensor.shape[:1] == (5000,) else 0
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda t: t):
        rbf_kan(x, *rest, backend='chunked')
    assert kept == x.numel()


def test_backend_choice_is_told_with_its_reason():
    tensors = arguments(2, 5, 3, 7)
    assert rbf_kan_backend(*tensors).name == 'chunked'
    name, reason = rbf_kan_backend(*tensors, backend='reference')
    assert name == 'reference'
    assert 'by name' in reason


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(backend='cuda'), ValueError, "'cuda' is unknown.*chunked.*reference"),
        (dict(x=torch.zeros(2, 4)), ValueError, 'x has 4 features'),
        (dict(x=torch.zeros(2, 5, dtype=torch.long)), TypeError, 'floating-point'),
        (dict(widths=torch.ones(5, 4)), ValueError, r'\[F, G\]'),
        (dict(weight=torch.ones(14, 7)), ValueError, r'\[15, O\]'),
    ],
    ids=['backend', 'features', 'dtype', 'widths', 'weight'],
)
def test_bad_arguments_are_named(change, error, text):
    x, centers, widths, weight = arguments(2, 5, 3, 7)
    given = dict(x=x, centers=centers, widths=widths, weight=weight) | change
    with pytest.raises(error, match=text):
        rbf_kan(**given)
