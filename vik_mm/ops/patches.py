"""From a map to its patches and back.

Shape letters: ``P`` patch side.
"""

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
