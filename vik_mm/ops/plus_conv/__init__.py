"""Depthwise convolution with a plus-shaped 3x3 kernel for each image: ViK's axis step in one pass over the map."""

import math
from functools import partial

from torch import Tensor

from vik_mm.ops.backends import HAS_TRITON, Backend, choose, why_no_triton
from vik_mm.ops.first_contact import find_obstacle, wave
from vik_mm.ops.flops import register_flops

from .chunked import plus_conv2d_chunked
from .reference import plus_conv2d_reference

BACKENDS = {'reference': plus_conv2d_reference, 'chunked': plus_conv2d_chunked}
if HAS_TRITON:
    from .triton import plus_conv2d_triton

    BACKENDS['triton'] = plus_conv2d_triton


def _count_flops(x_shape, *_) -> int:
    """Three taps along each axis, as the formula has it."""
    return 2 * 6 * math.prod(x_shape)


register_flops('plus_conv2d', _count_flops)


def plus_conv2d_backend(x: Tensor, backend: str | None = None) -> Backend:
    """Tell which backend :func:`plus_conv2d` runs on ``x``, and why; see :func:`vik_mm.ops.rbf_kan_backend`."""
    return choose(x, backend, why_no_triton(x), partial(_check, x))


def _check(x: Tensor) -> str | None:
    plain, kernels = BACKENDS['reference'], BACKENDS['triton']
    return find_obstacle('plus_conv2d', x, x.dtype, (), _example, plain, kernels)


def _example() -> list[Tensor]:
    """Maps of more pixels than a program takes."""
    return [wave(2, 2, 37, 33), wave(2, 2, 2, 3), wave(2, 2)]


def plus_conv2d(x: Tensor, taps: Tensor, bias: Tensor, backend: str | None = None) -> Tensor:
    r"""Weigh each pixel and its four neighbours, with weights of each channel of each image.

    .. math:: y_{h,w} = \beta + \sum_{k=-1}^{1} (u_k x_{h+k,w} + v_k x_{h,w+k})

    Pixels outside of the map count as zero.

    Args:
        x (Tensor): ``[B, C, H, W]``, any floating dtype.
        taps (Tensor): ``[B, C, 2, 3]``: ``u`` (above, centre, below) and ``v`` (left, centre, right).
        bias (Tensor): ``beta``, ``[B, C]``.
        backend (str, optional): ``'reference'``, ``'chunked'`` or ``'triton'``; None chooses. Defaults to None.

    Returns:
        Tensor: ``[B, C, H, W]``, contiguous, in the dtype of ``x``, computed in float32 at least.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
        RuntimeError: If the backend asked for cannot run on ``x``.

    Source:
        arXiv 2601.21541, the axis step. The release computes two depthwise convolutions, multiplies each with a weight
        of the image, and adds them; a blend of two convolutions is the convolution with the blend of their kernels.
    """
    if not x.is_floating_point():
        raise TypeError(f'plus_conv2d takes floating-point x, got {x.dtype}')
    if x.ndim != 4 or taps.shape != (*x.shape[:2], 2, 3) or bias.shape != x.shape[:2]:
        raise ValueError(
            f'plus_conv2d takes x [B, C, H, W], taps [B, C, 2, 3] and bias [B, C], got {tuple(x.shape)}, '
            f'{tuple(taps.shape)} and {tuple(bias.shape)}'
        )
    return BACKENDS[plus_conv2d_backend(x, backend).name](x, taps, bias)
