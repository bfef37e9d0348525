"""From a map to its patches and back.

Shape letters: ``P`` patch side.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import is_traced


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Zero-pad ``x`` right and below until ``multiple`` divides both sides.

    Args:
        x (Tensor): ``[..., H, W]``.
        multiple (int): In pixels.

    Returns:
        Tensor: ``[..., H', W']``; ``x`` itself where nothing is missing.
    """
    height, width = x.shape[-2:]
    # Not ``-height % multiple``, which PyTorch's compiler cannot take of a size that varies.
    below = (height + multiple - 1) // multiple * multiple - height
    right = (width + multiple - 1) // multiple * multiple - width
    if is_traced():  # a question about the sizes would bind the graph to the answer
        return F.pad(x, (0, right, 0, below))
    return F.pad(x, (0, right, 0, below)) if below or right else x


def split_patches(x: Tensor, patch_size: int) -> Tensor:
    """Cut a map into patches, each read row by row.

    Args:
        x (Tensor): ``[..., H, W]``, ``H`` and ``W`` multiples of ``patch_size``.
        patch_size (int): ``P``, in pixels.

    Returns:
        Tensor: ``[..., H / P, W / P, P * P]``.
    """
    *lead, height, width = x.shape
    down, across = height // patch_size, width // patch_size
    x = x.reshape(*lead, down, patch_size, across, patch_size).transpose(-3, -2)
    return x.reshape(*lead, down, across, patch_size**2)


def merge_patches(patches: Tensor, patch_size: int) -> Tensor:
    """Put patches back where :func:`split_patches` cut them.

    Args:
        patches (Tensor): ``[..., H / P, W / P, P * P]``.
        patch_size (int): ``P``, in pixels.

    Returns:
        Tensor: ``[..., H, W]``.
    """
    *lead, down, across, _ = patches.shape
    x = patches.reshape(*lead, down, across, patch_size, patch_size).transpose(-3, -2)
    return x.reshape(*lead, down * patch_size, across * patch_size)


def crop_map(x: Tensor, height: int, width: int, dim: int = -2) -> Tensor:
    """Cut a map to its first rows and columns.

    Args:
        x (Tensor): A map of at least that size.
        height (int): Rows to keep.
        width (int): Columns to keep.
        dim (int): Dimension of the rows; that of the columns follows it. Defaults to -2.

    Returns:
        Tensor: The same map with ``height`` rows and ``width`` columns.
    """
    if not is_traced():
        return x.narrow(dim, 0, height).narrow(dim + 1, 0, width)
    # A view would bind the graph to whether there is something to cut off.
    rows, columns = (torch.arange(length, device=x.device) for length in (height, width))
    return x.index_select(dim, rows).index_select(dim + 1, columns)
