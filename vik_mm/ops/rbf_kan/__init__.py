"""Linear map of learned Gaussian features, the operator at the heart of ViK."""

import math
from functools import partial

from torch import Tensor

from vik_mm.ops.backends import HAS_TRITON, Backend, autocast_dtype, choose, is_traced, why_no_triton
from vik_mm.ops.first_contact import find_obstacle, wave
from vik_mm.ops.flops import register_flops

from .chunked import patch_rbf_kan_chunked, rbf_kan_chunked
from .reference import patch_rbf_kan_reference, rbf_kan_reference

BACKENDS = {
    'reference': (rbf_kan_reference, patch_rbf_kan_reference),
    'chunked': (rbf_kan_chunked, patch_rbf_kan_chunked),
}
if HAS_TRITON:
    from .triton import patch_rbf_kan_triton, rbf_kan_triton

    BACKENDS['triton'] = (rbf_kan_triton, patch_rbf_kan_triton)
# A Triton program holds whole rows of a tile; more columns would not fit its registers.
MAX_TRITON_FEATURES = 128


def _count_flops(x_shape, scale_shape, shift_shape, table_shape, *rest) -> int:
    """Each row, or each patch of a map, times the table; the last argument is the patch side, which rows lack."""
    side = rest[-1] if rest else 0
    num_rows = math.prod(x_shape[:2]) * math.prod(-(-n // side) for n in x_shape[2:]) if side else x_shape[0]
    return 2 * num_rows * math.prod(table_shape)


for _name in ('rbf_kan', 'patch_rbf_kan'):
    register_flops(_name, _count_flops)


def rbf_kan_backend(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor, backend: str | None = None) -> Backend:
    """Tell which backend :func:`rbf_kan` runs on these tensors, and why.

    Args:
        x (Tensor): As for :func:`rbf_kan`, like the next three.
        centers (Tensor): See above.
        widths (Tensor): See above.
        weight (Tensor): See above.
        backend (str, optional): The backend asked for; None leaves the choice to this function. Defaults to None.

    Returns:
        Backend: ``(name, reason)``.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
        RuntimeError: If the backend asked for cannot run on these tensors.
    """
    _check(x, centers, widths, weight)
    if x.shape[-1] != centers.shape[0]:
        raise ValueError(f'x has {x.shape[-1]} features in its last dimension, centers are for {centers.shape[0]}')
    return _choose(x, centers, weight.shape[1], backend)


def rbf_kan(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor, backend: str | None = None) -> Tensor:
    r"""Map Gaussian features of each input linearly.

    .. math:: y_o = \sum_{f,g} w_{(f,g),o} \exp(-\tfrac12 ((x_f - \mu_{fg}) / \sigma_{fg})^2)

    Args:
        x (Tensor): ``[..., F]``, any floating dtype.
        centers (Tensor): ``[F, G]``, in units of ``x``.
        widths (Tensor): ``[F, G]``, standard deviations in units of ``x``; positive.
        weight (Tensor): ``[F * G, O]``, the Gaussians of one feature lying together.
        backend (str, optional): ``'reference'``, ``'chunked'`` or ``'triton'``; None chooses. Defaults to None.

    Returns:
        Tensor: ``[..., O]`` in the dtype of ``x``, under autocast in autocast's. Of float16 and bfloat16 the Gaussians
        are computed, and sums taken, in float32; 'chunked' multiplies in float32 too, 'triton' in the dtype of ``x``.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
        RuntimeError: If the backend asked for cannot run on these tensors.

    Source:
        arXiv 2601.21541; ``RBFLinear`` of the authors' ``vik.py``.
    """
    name = rbf_kan_backend(x, centers, widths, weight, backend).name
    return BACKENDS[name][0](x.to(autocast_dtype(x)), centers, widths, weight)


def patch_rbf_kan(
    x: Tensor,
    centers: Tensor,
    widths: Tensor,
    weight: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    patch_size: int,
    backend: str | None = None,
) -> Tensor:
    r"""Apply a Kolmogorov-Arnold layer to each patch of a map, and add the patch itself.

    .. math::
        y_o = x_o + \beta_o + \sum_f v_{of}\,\mathrm{SiLU}(x_f)
              + \sum_{f,g} w_{(f,g),o} \exp(-\tfrac12 ((x_f - \mu_{fg}) / \sigma_{fg})^2)

    where ``x`` are the pixels of a patch, read row by row. One pass over the map: patches are not copied out first.

    Args:
        x (Tensor): ``[B, C, H, W]``, any floating dtype; where the patch side does not divide ``H`` or ``W``, zeros
            follow right and below, and what is computed there is dropped.
        centers (Tensor): ``[F, G]``, ``F = P * P``, in units of ``x``.
        widths (Tensor): ``[F, G]``, standard deviations in units of ``x``; positive.
        weight (Tensor): ``[F * G, F]``, the Gaussians of one pixel lying together.
        base_weight (Tensor): ``v``, ``[F, F]``.
        base_bias (Tensor): ``beta``, ``[F]``.
        patch_size (int): ``P``, in pixels.
        backend (str, optional): As for :func:`rbf_kan`. Defaults to None.

    Returns:
        Tensor: ``[B, C, H, W]``, contiguous, in the dtype that :func:`rbf_kan` gives.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
        RuntimeError: If the backend asked for cannot run on these tensors.

    Source:
        arXiv 2601.21541; ``RBFKANLayer`` and the patch step of ``MultiPatchRBFKAN`` of the authors' ``vik.py``.
    """
    _check(x, centers, widths, weight)
    num_in = patch_size**2
    if x.ndim != 4 or centers.shape[0] != num_in:
        raise ValueError(
            f'patches of {patch_size}x{patch_size} pixels of a map [B, C, H, W] take centers [{num_in}, G], got x '
            f'{tuple(x.shape)} and centers {tuple(centers.shape)}'
        )
    if weight.shape[1] != num_in or base_weight.shape != (num_in, num_in) or base_bias.shape != (num_in,):
        raise ValueError(
            f'a patch maps to a patch: weight must be [{weight.shape[0]}, {num_in}], base_weight [{num_in}, {num_in}], '
            f'base_bias [{num_in}], got {tuple(weight.shape)}, {tuple(base_weight.shape)}, {tuple(base_bias.shape)}'
        )
    name = _choose(x, centers, num_in, backend, patch_size).name
    return BACKENDS[name][1](x.to(autocast_dtype(x)), centers, widths, weight, base_weight, base_bias, patch_size)


def _check(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor):
    if not x.is_floating_point():
        raise TypeError(f'rbf_kan takes floating-point x, got {x.dtype}')
    if centers.ndim != 2 or widths.shape != centers.shape:
        raise ValueError(
            f'centers and widths must both be [F, G], got {tuple(centers.shape)} and {tuple(widths.shape)}'
        )
    if weight.ndim != 2 or weight.shape[0] != centers.numel():
        raise ValueError(f'weight must be [F * G, O] = [{centers.numel()}, O], got {tuple(weight.shape)}')


def _choose(x: Tensor, centers: Tensor, num_out: int, backend: str | None, patch_size: int = 0) -> Backend:
    num_in, num_grids = centers.shape
    obstacle = why_no_triton(x)
    if obstacle is None and max(num_in, num_out) > MAX_TRITON_FEATURES:
        obstacle = f'the kernels take at most {MAX_TRITON_FEATURES} features, these are {num_in} in and {num_out} out'
    if patch_size:
        check = partial(_check_patches, x, patch_size, num_grids)
    else:
        check = partial(_check_rows, x, (num_in, num_grids, num_out))
    return choose(x, backend, obstacle, check)


def _check_rows(x: Tensor, sizes: tuple[int, int, int]) -> str | None:
    plain, kernels = BACKENDS['reference'][0], BACKENDS['triton'][0]
    return find_obstacle('rbf_kan', x, autocast_dtype(x), sizes, _example_rows, plain, kernels)


def _check_patches(x: Tensor, patch_size: int, num_grids: int) -> str | None:
    # A question about the sizes would bind a traced graph to the answer; cut maps are the harder case.
    is_whole = not is_traced() and x.shape[2] % patch_size == 0 and x.shape[3] % patch_size == 0
    sizes = (patch_size, num_grids, is_whole)
    plain, kernels = BACKENDS['reference'][1], BACKENDS['triton'][1]
    return find_obstacle('patch_rbf_kan', x, autocast_dtype(x), sizes, _example_patches, plain, kernels)


def _example_rows(num_in: int, num_grids: int, num_out: int) -> list[Tensor]:
    """Rows of more than one tile, the last one not full."""
    gaussians = [wave(num_in, num_grids, scale=2.0), wave(num_in, num_grids, scale=0.2, offset=0.6)]
    return [wave(70, num_in, scale=1.5), *gaussians, wave(num_in * num_grids, num_out)]


def _example_patches(patch_size: int, num_grids: int, is_whole: bool) -> list[Tensor | int]:
    """Maps of 16 patches each."""
    num_in, side = patch_size**2, 4 * patch_size - (not is_whole)
    _, *parameters = _example_rows(num_in, num_grids, num_in)
    return [wave(1, 5, side, side, scale=1.5), *parameters, wave(num_in, num_in), wave(num_in), patch_size]
