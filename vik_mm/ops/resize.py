"""A map to a fixed grid and back, for the global step.

Both are written twice: with PyTorch's functions, and for compilers and tracers as products with a matrix for each axis.
The functions branch on the sizes at hand, or are compiled for them, so that each size of a multi-scale training would
be compiled anew; the matrices are made of the sizes by arithmetic, and one graph serves all.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import compute_dtype, is_traced


def average_to_grid(x: Tensor, grid_size: tuple[int, int]) -> Tensor:
    """Average a map over the cells of a grid; cells that pixels do not fill evenly overlap.

    Args:
        x (Tensor): ``[B, C, H, W]``.
        grid_size (tuple[int, int]): Cells along height and width.

    Returns:
        Tensor: ``[B, C, *grid_size]``, as of :func:`torch.nn.functional.adaptive_avg_pool2d`; ``x`` itself where it has
        that size.
    """
    if is_traced():
        return _along_axes(x, *(_averages(x, axis, cells) for axis, cells in zip((2, 3), grid_size)))
    if tuple(x.shape[2:]) == tuple(grid_size):
        return x
    return F.adaptive_avg_pool2d(x, grid_size)


def spread_to_size(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a map linearly along each axis; where one shrinks, pixels are averaged instead of skipped.

    Args:
        x (Tensor): ``[B, C, h, w]``.
        size (tuple[int, int]): ``H`` and ``W``.

    Returns:
        Tensor: ``[B, C, H, W]``, as of :func:`torch.nn.functional.interpolate`, bilinear with ``align_corners=False``
        and, where an axis shrinks, ``antialias``; ``x`` itself where it has that size.
    """
    if is_traced():
        return _along_axes(x, *(_tents(x, axis, pixels) for axis, pixels in zip((2, 3), size)))
    if tuple(x.shape[2:]) == tuple(size):
        return x
    if size[0] >= x.shape[2] and size[1] >= x.shape[3]:
        return F.interpolate(x, size, mode='bilinear', align_corners=False)
    # Where an axis shrinks, plain bilinear sampling would skip pixels. CPUs average only in float32.
    wide = x.to(compute_dtype(x))
    return F.interpolate(wide, size, mode='bilinear', align_corners=False, antialias=True).to(x.dtype)


def _along_axes(x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """``[B, C, H, W], [H', H], [W', W] -> [B, C, H', W']``."""
    return down.to(x.dtype) @ (x @ across.to(x.dtype).t())


def _averages(x: Tensor, axis: int, cells: int) -> Tensor:
    """Weights of an axis's pixels in each cell, ``[cells, pixels]``."""
    pixels = x.shape[axis]
    cell, pixel = torch.arange(cells, device=x.device)[:, None], torch.arange(pixels, device=x.device)
    first, end = cell * pixels // cells, ((cell + 1) * pixels + cells - 1) // cells
    inside = (pixel >= first) & (pixel < end)
    return inside.to(compute_dtype(x)) / (end - first)


def _tents(x: Tensor, axis: int, size: int) -> Tensor:
    """Weights of an axis's pixels in each of ``size`` new ones, ``[size, pixels]``."""
    pixels, dtype = x.shape[axis], compute_dtype(x)
    new = torch.arange(size, device=x.device, dtype=dtype)[:, None]
    old = torch.arange(pixels, device=x.device, dtype=dtype)
    scale = pixels / size
    distance = (old + 0.5 - (new + 0.5) * scale).abs()
    weights = (1 - torch.minimum(distance, distance / scale)).clamp(min=0)  # a tent as wide as the coarser pixels
    return weights / weights.sum(1, keepdim=True)
