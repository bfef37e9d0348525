"""All backends of all operators: the same values and gradients, for every shape and dtype, and clear refusals."""

from typing import NamedTuple

import pytest
import torch

from vik_mm.ops import fourier_kan, patch_rbf_kan, plus_conv2d, plus_conv2d_backend, rbf_kan, rbf_kan_backend
from vik_mm.ops.fourier_kan import chunked as fourier_kan_chunked
from vik_mm.ops.plus_conv import chunked as plus_conv_chunked
from vik_mm.ops.rbf_kan import chunked as rbf_kan_chunked

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
BACKENDS = ['chunked', pytest.param('triton', marks=pytest.mark.triton)]


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


def gaussians(num_in, num_grids, num_out):
    centers = torch.linspace(-2, 2, num_grids, dtype=torch.float64) + 0.1 * draw(num_in, num_grids)
    return [centers, 0.6 * (0.2 * draw(num_in, num_grids)).exp(), 0.1 * draw(num_in * num_grids, num_out)]


def rows(count, num_in, num_grids, num_out):
    return [draw(count, num_in), *gaussians(num_in, num_grids, num_out)]


def patches(*shape, side=7, num_grids=8):
    num_in = side**2
    base = [0.1 * draw(num_in, num_in), 0.1 * draw(num_in)]
    return [draw(*shape), *gaussians(num_in, num_grids, num_in), *base, side]


def maps(*shape):
    return [draw(*shape), draw(*shape[:2], 2, 3), draw(*shape[:2])]


def attention(*shape, num_waves=3, num_out=12):
    return [draw(*shape), 0.2 * draw(shape[1], 2 * num_waves, shape[3], num_out)]


class Case(NamedTuple):
    operator: object
    arguments: object
    sizes: tuple
    options: dict = {}


CASES = {
    'rows-one': Case(rbf_kan, rows, (1, 49, 8, 49)),
    'rows-prime': Case(rbf_kan, rows, (97, 49, 8, 49)),
    'rows-narrow': Case(rbf_kan, rows, (33, 5, 3, 7)),
    'rows-empty': Case(rbf_kan, rows, (0, 49, 8, 49)),
    'patches-whole': Case(patch_rbf_kan, patches, (2, 3, 14, 21)),
    'patches-one-channel-in-parts': Case(patch_rbf_kan, patches, (1, 1, 42, 35)),
    'patches-cut-by-both-borders': Case(patch_rbf_kan, patches, (1, 2, 9, 15)),
    'patches-cut-in-parts': Case(patch_rbf_kan, patches, (1, 2, 40, 36)),
    'patches-larger-than-the-map': Case(patch_rbf_kan, patches, (2, 2, 3, 1)),
    'patches-of-3x3': Case(patch_rbf_kan, patches, (1, 2, 10, 6), dict(side=3, num_grids=5)),
    'patches-empty': Case(patch_rbf_kan, patches, (0, 2, 7, 7)),
    'plus-plain': Case(plus_conv2d, maps, (2, 3, 9, 14)),
    'plus-one-pixel': Case(plus_conv2d, maps, (2, 3, 1, 1)),
    'plus-one-row': Case(plus_conv2d, maps, (1, 2, 1, 5)),
    'plus-more-pixels-than-a-block': Case(plus_conv2d, maps, (1, 2, 40, 33)),
    'plus-empty': Case(plus_conv2d, maps, (0, 2, 4, 4)),
    'fourier-plain': Case(fourier_kan, attention, (2, 3, 17, 17)),
    'fourier-one-wave': Case(fourier_kan, attention, (2, 2, 5, 9), dict(num_waves=1, num_out=3)),
    'fourier-wide': Case(fourier_kan, attention, (1, 2, 7, 40)),
    'fourier-two-waves': Case(fourier_kan, attention, (3, 1, 4, 33), dict(num_waves=2)),
    'fourier-more-rows-than-a-block': Case(fourier_kan, attention, (1, 2, 150, 37), dict(num_waves=5)),
    'fourier-empty': Case(fourier_kan, attention, (0, 2, 4, 4)),
}

NOT_EMPTY = {name: case for name, case in CASES.items() if 0 not in case.sizes}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, the last one not full; memory that no kernel writes to holds NaN."""
    torch.manual_seed(0)
    monkeypatch.setattr(rbf_kan_chunked, 'BLOCK_ELEMENTS', 10 * 8 * 49)
    monkeypatch.setattr(plus_conv_chunked, 'BLOCK_ELEMENTS', 256)
    monkeypatch.setattr(fourier_kan_chunked, 'BLOCK_ELEMENTS', 10 * 6 * 37)
    monkeypatch.setattr(torch.utils.deterministic, 'fill_uninitialized_memory', True)
    torch.use_deterministic_algorithms(True, warn_only=True)  # fills torch.empty with NaN
    yield
    torch.use_deterministic_algorithms(False)


def build(case, dtype=torch.float64, device='cpu'):
    arguments = case.arguments(*case.sizes, **case.options)
    return [a.to(device, dtype).requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]


def output_and_gradients(case, arguments, backend):
    tensors = [a for a in arguments if isinstance(a, torch.Tensor)]
    out = case.operator(*arguments, backend=backend)
    seed = torch.linspace(-1, 1, out.numel(), dtype=torch.float64, device=out.device).view_as(out).to(out.dtype)
    return [out.detach(), *torch.autograd.grad(out, tensors, seed)]


def assert_at_most_twice_the_error_of_plain_torch(case, arguments, backend):
    exact = [a.detach().double().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    dtype = arguments[0].dtype
    truth = output_and_gradients(case, exact, 'reference')
    plain = output_and_gradients(case, arguments, 'reference')
    ours = output_and_gradients(case, arguments, backend)
    for true, expected, got in zip(truth, plain, ours):
        assert got.dtype == dtype
        assert got.shape == true.shape
        if true.numel():
            floor = 64 * torch.finfo(dtype).eps * true.abs().max()
            allowed = 2 * (expected.double() - true).abs().max() + floor
            assert (got.double() - true).abs().max() <= allowed


@pytest.mark.parametrize('dtype', DTYPES, ids=str)
@pytest.mark.parametrize('case', CASES.values(), ids=CASES)
@pytest.mark.parametrize('backend', BACKENDS)
def test_backend_gives_the_reference_values_and_gradients(backend, case, dtype):
    if backend == 'triton' and dtype == torch.float64:
        with pytest.raises(RuntimeError, match='float64'):
            case.operator(*build(case), backend='triton')
        return
    assert_at_most_twice_the_error_of_plain_torch(case, build(case, dtype), backend)


@pytest.mark.gpu
@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('case', NOT_EMPTY.values(), ids=NOT_EMPTY)
@pytest.mark.parametrize('backend', ['chunked', 'triton'])
def test_backend_gives_the_reference_values_and_gradients_on_a_gpu(backend, case, dtype):
    assert_at_most_twice_the_error_of_plain_torch(case, build(case, dtype, 'cuda'), backend)


@pytest.mark.gpu
def test_triton_gradients_are_the_same_bits_in_every_run():
    case = Case(patch_rbf_kan, patches, (8, 64, 56, 56))
    arguments = build(case, torch.float32, 'cuda')
    first, second = (output_and_gradients(case, arguments, 'triton') for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second))


GRADCHECKED = {
    'rows': Case(rbf_kan, rows, (12, 3, 4, 2)),
    'patches': Case(patch_rbf_kan, patches, (1, 2, 4, 3), dict(side=2, num_grids=3)),
    'plus': Case(plus_conv2d, maps, (1, 2, 3, 4)),
    'fourier': Case(fourier_kan, attention, (2, 2, 3, 4), dict(num_out=2)),
}


@pytest.mark.parametrize('case', GRADCHECKED.values(), ids=GRADCHECKED)
@pytest.mark.parametrize('backend', ['reference', 'chunked'])
def test_gradients_agree_with_finite_differences(backend, case):
    assert torch.autograd.gradcheck(lambda *a: case.operator(*a, backend=backend), build(case))


@pytest.mark.parametrize('name', ['rows-narrow', 'patches-of-3x3', 'plus-plain', 'fourier-wide'])
@pytest.mark.parametrize('backend', BACKENDS)
def test_operators_are_sound_torch_operators(backend, name):
    """PyTorch's own checks: schema, fake kernel, autograd registration, tracing with symbolic sizes."""
    called = []

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if function.namespace == 'vik_mm':
                called.append((function, args))
            return function(*args, **(kwargs or {}))

    with Spy():
        CASES[name].operator(*build(CASES[name], torch.float32), backend=backend)
    ((operator, args),) = called
    args = [a.detach().requires_grad_() if isinstance(a, torch.Tensor) else a for a in args]
    torch.library.opcheck(operator, args)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', ['patches-whole', 'patches-cut-by-both-borders', 'plus-plain', 'fourier-plain'])
def test_memory_layout_of_the_map_changes_nothing(name, backend):
    case = CASES[name]
    x, *rest = build(case, torch.float32)
    expected = case.operator(x, *rest, backend=backend)
    got = case.operator(x.contiguous(memory_format=torch.channels_last), *rest, backend=backend)
    assert got.is_contiguous()
    torch.testing.assert_close(got, expected, rtol=0, atol=0)
    transposed = case.operator(x.transpose(2, 3).contiguous().transpose(2, 3), *rest, backend=backend)
    torch.testing.assert_close(transposed, expected, rtol=0, atol=0)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', ['rows-prime', 'patches-whole', 'plus-plain', 'fourier-two-waves'])
def test_without_gradients_the_answer_is_the_same(name, backend):
    case = CASES[name]
    arguments = build(case, torch.float32)
    expected = case.operator(*arguments, backend=backend)
    with torch.no_grad():
        torch.testing.assert_close(case.operator(*arguments, backend=backend), expected, rtol=0, atol=0)


@pytest.mark.parametrize('backend', ['reference', *BACKENDS])
def test_patches_are_rows_with_base_branch_and_residual(backend):
    x, centers, widths, weight, base_weight, base_bias, _ = build(
        Case(patch_rbf_kan, patches, (2, 3, 7, 7)), torch.float32
    )
    rows_ = x.flatten(2)
    base = torch.nn.functional.linear(torch.nn.functional.silu(rows_), base_weight, base_bias)
    expected = rows_ + base + rbf_kan(rows_, centers, widths, weight, backend='reference')
    got = patch_rbf_kan(x, centers, widths, weight, base_weight, base_bias, 7, backend=backend)
    torch.testing.assert_close(got.flatten(2), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('backend', ['reference', *BACKENDS])
def test_nan_and_infinity_in_a_map_stay_in_their_patch(backend):
    arguments = build(Case(patch_rbf_kan, patches, (1, 1, 14, 7)), torch.float32)
    arguments[0].detach()[0, 0, 3, 3] = torch.nan
    out = patch_rbf_kan(*arguments, backend=backend)
    assert out[..., :7, :].isnan().all()
    assert out[..., 7:, :].isfinite().all()


@pytest.mark.parametrize('backend', ['reference', *BACKENDS])
def test_nan_of_a_pixel_reaches_only_its_neighbours(backend):
    x, taps, bias = build(Case(plus_conv2d, maps, (1, 1, 4, 5)), torch.float32)
    x.detach()[0, 0, 1, 2] = torch.nan
    out = plus_conv2d(x, taps, bias, backend=backend)
    near = torch.zeros(4, 5, dtype=torch.bool)
    near[[0, 1, 2, 1, 1], [2, 2, 2, 1, 3]] = True
    assert torch.equal(out[0, 0].isnan(), near)


@pytest.mark.parametrize('backend', BACKENDS)
@pytest.mark.parametrize('name', ['rows-prime', 'patches-whole', 'fourier-plain'])
def test_under_autocast_the_answer_has_its_dtype(name, backend):
    case = CASES[name]
    x, *rest = build(case, torch.float32)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        got = case.operator(x, *rest, backend=backend)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, case.operator(x.bfloat16(), *rest, backend=backend), rtol=0, atol=0)


def test_no_basis_is_kept_for_the_backward_pass():
    for case in (
        Case(rbf_kan, rows, (1000, 49, 8, 49)),
        Case(patch_rbf_kan, patches, (1, 20, 49, 49)),
        Case(fourier_kan, attention, (4, 2, 97, 97)),
    ):
        arguments = build(case, torch.float32)
        largest = 0

        def note(tensor):
            nonlocal largest
            largest = max(largest, tensor.numel())
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda t: t):
            case.operator(*arguments, backend='chunked')
        assert largest == arguments[0].numel()


def test_leading_dimensions_are_kept():
    x, *rest = build(Case(rbf_kan, rows, (24, 5, 3, 7)), torch.float32)
    out = rbf_kan(x.view(2, 3, 4, 5), *rest)
    assert out.shape == (2, 3, 4, 7)
    torch.testing.assert_close(out.view(24, 7), rbf_kan(x, *rest), rtol=0, atol=0)


@pytest.mark.parametrize('backend', ['reference', *BACKENDS])
def test_infinity_is_far_from_every_centre(backend):
    x, *rest = build(Case(rbf_kan, rows, (3, 5, 3, 7)), torch.float32)
    x = x.detach()
    x[0, 0], x[1] = torch.nan, torch.inf
    out = rbf_kan(x, *rest, backend=backend)
    assert out[0].isnan().all()
    assert (out[1] == 0).all()
    assert out[2].isfinite().all()


def test_the_choice_of_backend_is_told_with_its_reason(monkeypatch):
    tensors = build(CASES['rows-narrow'], torch.float32)
    assert rbf_kan_backend(*tensors) == ('chunked', 'the default on a CPU')
    assert plus_conv2d_backend(torch.zeros(1, 1, 2, 2)) == ('chunked', 'the default on a CPU')
    name, reason = rbf_kan_backend(*tensors, backend='reference')
    assert name == 'reference'
    assert 'by name' in reason


@pytest.mark.parametrize(
    ('setting', 'arguments', 'text'),
    [
        (dict(HAS_TRITON=False), rows(2, 5, 3, 7), 'Triton from 3.2 on is not installed.*backend=None'),
        (dict(INTERPRETS_TRITON=False), rows(2, 5, 3, 7), 'x is on cpu, the kernels need CUDA'),
        (dict(INTERPRETS_TRITON=True), rows(2, 5, 3, 7), 'x is torch.float64'),
        (dict(INTERPRETS_TRITON=True), [a.float() for a in rows(2, 144, 3, 7)], 'at most 128 features.*144 in'),
    ],
    ids=['no-triton', 'no-cuda', 'dtype', 'features'],
)
def test_a_backend_that_cannot_run_says_why(monkeypatch, setting, arguments, text):
    for name, value in (dict(HAS_TRITON=True) | setting).items():
        monkeypatch.setattr(f'vik_mm.ops.backends.{name}', value)
    with pytest.raises(RuntimeError, match=text):
        rbf_kan(*arguments, backend='triton')


@pytest.mark.parametrize(
    ('change', 'error', 'text'),
    [
        (dict(backend='cuda'), ValueError, "'cuda' is unknown.*chunked.*reference.*triton"),
        (dict(x=torch.zeros(2, 4)), ValueError, 'x has 4 features'),
        (dict(x=torch.zeros(2, 5, dtype=torch.long)), TypeError, 'floating-point'),
        (dict(widths=torch.ones(5, 4)), ValueError, r'\[F, G\]'),
        (dict(weight=torch.ones(14, 7)), ValueError, r'\[15, O\]'),
    ],
    ids=['backend', 'features', 'dtype', 'widths', 'weight'],
)
def test_bad_arguments_of_rbf_kan_are_named(change, error, text):
    x, centers, widths, weight = build(Case(rbf_kan, rows, (2, 5, 3, 7)), torch.float32)
    with pytest.raises(error, match=text):
        rbf_kan(**(dict(x=x, centers=centers, widths=widths, weight=weight) | change))


@pytest.mark.parametrize(
    ('position', 'value', 'error', 'text'),
    [
        (0, torch.zeros(2, 9, 9), ValueError, r'map \[B, C, H, W\]'),
        (6, 4, ValueError, r'4x4 pixels.*centers \[16, G\]'),
        (3, torch.zeros(392, 48), ValueError, r'weight must be \[392, 49\]'),
        (4, torch.zeros(49, 48), ValueError, r'base_weight \[49, 49\]'),
        (5, torch.zeros(48), ValueError, r'base_bias \[49\]'),
        (0, torch.zeros(1, 1, 7, 7, dtype=torch.long), TypeError, 'floating-point'),
    ],
    ids=['map', 'side', 'weight', 'base-weight', 'base-bias', 'dtype'],
)
def test_bad_arguments_of_patch_rbf_kan_are_named(position, value, error, text):
    arguments = build(CASES['patches-whole'], torch.float32)
    arguments[position] = value
    with pytest.raises(error, match=text):
        patch_rbf_kan(*arguments)


@pytest.mark.parametrize(
    ('position', 'value', 'error', 'text'),
    [
        (0, torch.zeros(3, 9, 14), ValueError, r'x \[B, C, H, W\]'),
        (0, torch.zeros(2, 3, 9, 14, dtype=torch.long), TypeError, 'floating-point'),
        (1, torch.zeros(2, 3, 5), ValueError, r'taps \[B, C, 2, 3\]'),
        (2, torch.zeros(3), ValueError, r'bias \[B, C\]'),
    ],
    ids=['map', 'dtype', 'taps', 'bias'],
)
def test_bad_arguments_of_plus_conv2d_are_named(position, value, error, text):
    arguments = build(CASES['plus-plain'], torch.float32)
    arguments[position] = value
    with pytest.raises(error, match=text):
        plus_conv2d(*arguments)


@pytest.mark.parametrize(
    ('position', 'value', 'error', 'text'),
    [
        (0, torch.zeros(7, 40), ValueError, r'x \[B, H, T, F\]'),
        (0, torch.zeros(1, 2, 7, 40, dtype=torch.long), TypeError, 'floating-point'),
        (1, torch.zeros(2, 6, 41, 12), ValueError, r'weight \[H, 2 \* G, F, O\]'),
        (1, torch.zeros(2, 5, 40, 12), ValueError, 'as many sines as cosines.*5 waves'),
    ],
    ids=['rows', 'dtype', 'weight', 'waves'],
)
def test_bad_arguments_of_fourier_kan_are_named(position, value, error, text):
    arguments = build(CASES['fourier-wide'], torch.float32)
    arguments[position] = value
    with pytest.raises(error, match=text):
        fourier_kan(*arguments)
