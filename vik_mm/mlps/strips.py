"""Pixels a strip at a time, so that what is wide inside a layer never exists for the whole map.

Shape letters: ``R`` rows, one for each pixel.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from vik_mm.ops import is_traced

# Values of a strip. On a CPU 8 MB of float32 stay in the last cache and cost the allocator no new pages; on other
# devices a strip must be large enough that the time of a kernel hides that of its launch.
STRIP_ELEMENTS = 2 * 1024 * 1024
DEVICE_STRIP_ELEMENTS = 16 * 1024 * 1024
# In training, fewer strips than these are kept: computing them again would cost more time than their memory does.
KEPT_STRIPS = 8


def strip_length(x: Tensor, width: int) -> int:
    """Give the rows of a strip, at least one.

    Args:
        x (Tensor): The map or the rows; only the device matters.
        width (int): Values that are computed inside a layer for each row.
    """
    return max(1, (STRIP_ELEMENTS if x.device.type == 'cpu' else DEVICE_STRIP_ELEMENTS) // width)


def map_strips(compute: Callable[[Tensor], Tensor], rows: Tensor, width: int) -> Tensor:
    """Apply a function of single rows, a strip at a time.

    In training each strip of a large map is computed again in the backward pass, so that autograd keeps its input only.
    Small maps, and all maps under a compiler or tracer, are computed at once as they are.

    Args:
        compute (Callable): Maps ``[r, I]`` to ``[r, O]``, each row by itself and without random numbers.
        rows (Tensor): ``[R, I]``.
        width (int): Values that ``compute`` makes for each row, besides input and output.

    Returns:
        Tensor: ``[R, O]``.
    """
    length = strip_length(rows, width)
    if is_traced() or rows.shape[0] <= length * (KEPT_STRIPS if torch.is_grad_enabled() else 1):
        return compute(rows)
    strips = rows.split(length)
    if torch.is_grad_enabled():
        return torch.cat([checkpoint(compute, s, use_reentrant=False, preserve_rng_state=False) for s in strips])
    return torch.cat([compute(strip) for strip in strips])
