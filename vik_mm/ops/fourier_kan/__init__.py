"""Linear map of Fourier features, head by head: the operator at the heart of Kolmogorov-Arnold attention."""

import math
from functools import partial

from torch import Tensor

from vik_mm.ops.backends import HAS_TRITON, Backend, autocast_dtype, choose, why_no_triton
from vik_mm.ops.first_contact import find_obstacle, wave
from vik_mm.ops.flops import register_flops

from .chunked import fourier_kan_chunked
from .reference import fourier_kan_reference

BACKENDS = {'reference': fourier_kan_reference, 'chunked': fourier_kan_chunked}
if HAS_TRITON:
    from .triton import MAX_OUT_FEATURES, fourier_kan_triton

    BACKENDS['triton'] = fourier_kan_triton


def _count_flops(x_shape, table_shape, *_) -> int:
    """Each row of a head times the head's table."""
    num_images, _, num_rows, _ = x_shape
    return 2 * num_images * num_rows * math.prod(table_shape)


register_flops('fourier_kan', _count_flops)


def fourier_kan_backend(x: Tensor, weight: Tensor, backend: str | None = None) -> Backend:
    """Tell which backend :func:`fourier_kan` runs on these tensors, and why; see :func:`vik_mm.ops.rbf_kan_backend`.

    Args:
        x (Tensor): ``[B, H, T, F]``.
        weight (Tensor): ``[H, 2 * G, F, O]``.
        backend (str, optional): The backend asked for; None leaves the choice to this function. Defaults to None.

    Returns:
        Backend: ``(name, reason)``.
    """
    obstacle = why_no_triton(x)
    if obstacle is None and weight.shape[3] > MAX_OUT_FEATURES:
        obstacle = f'the kernels give at most {MAX_OUT_FEATURES} features, these are {weight.shape[3]}'
    return choose(x, backend, obstacle, partial(_check, x, tuple(weight.shape[1:])))


def _check(x: Tensor, sizes: tuple[int, ...]) -> str | None:
    plain, kernels = BACKENDS['reference'], BACKENDS['triton']
    return find_obstacle('fourier_kan', x, autocast_dtype(x), sizes, _example, plain, kernels)


def _example(num_waves: int, num_in: int, num_out: int) -> list[Tensor]:
    """Two heads, rows of more than one tile, the last one not full."""
    return [wave(2, 2, 35, num_in, scale=3.0), wave(2, num_waves, num_in, num_out)]


def fourier_kan(x: Tensor, weight: Tensor, backend: str | None = None) -> Tensor:
    r"""Map cosines and sines of each input's multiples linearly, with weights of each head.

    .. math:: y_o = \sum_f \sum_{m=1}^{G} a_{mfo} \cos(m x_f) + b_{mfo} \sin(m x_f)

    Args:
        x (Tensor): ``[B, H, T, F]``: images, heads, rows of a head, in features; any floating dtype, in radians.
        weight (Tensor): ``[H, 2 * G, F, O]``, the ``G`` cosines before the sines.
        backend (str, optional): ``'reference'``, ``'chunked'`` or ``'triton'``; None chooses. Defaults to None.

    Returns:
        Tensor: ``[B, H, T, O]`` in the dtype of ``x``, under autocast in autocast's. Of float16 and bfloat16 waves are
        computed, and sums taken, in float32; 'chunked' multiplies in float32 too, 'triton' in the dtype of ``x``.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
        RuntimeError: If the backend asked for cannot run on these tensors.

    Source:
        arXiv 2503.10632, section 3.
    """
    if not x.is_floating_point():
        raise TypeError(f'fourier_kan takes floating-point x, got {x.dtype}')
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[0] != x.shape[1] or weight.shape[2] != x.shape[3]:
        raise ValueError(
            f'fourier_kan takes x [B, H, T, F] and weight [H, 2 * G, F, O], got {tuple(x.shape)} and '
            f'{tuple(weight.shape)}'
        )
    if weight.shape[1] < 2 or weight.shape[1] % 2:
        raise ValueError(f'weight needs as many sines as cosines, at least one each, got {weight.shape[1]} waves')
    return BACKENDS[fourier_kan_backend(x, weight, backend).name](x.to(autocast_dtype(x)), weight)
