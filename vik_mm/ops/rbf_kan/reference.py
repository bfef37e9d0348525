"""The RBF-KAN operator written as its formula: the truth the other backends are tested against.

Shape letters: ``F`` in features, ``G`` Gaussians per feature, ``O`` out features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from vik_mm.ops.patches import merge_patches, pad_to_multiple, split_patches


def rbf_kan_reference(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator with its whole basis in memory, ``G`` times the size of ``x``.

    See :func:`vik_mm.ops.rbf_kan` for arguments and result.
    """
    basis = torch.exp(-0.5 * ((x.unsqueeze(-1) - centers) / widths).square())  # [..., F, G]
    return (basis.flatten(-2) @ weight).to(x.dtype)


def patch_rbf_kan_reference(
    x: Tensor,
    centers: Tensor,
    widths: Tensor,
    weight: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    patch_size: int,
) -> Tensor:
    """Cut the map into patches, add operator and base branch to each, and join them again.

    See :func:`vik_mm.ops.patch_rbf_kan` for arguments and result.
    """
    height, width = x.shape[-2:]
    patches = split_patches(pad_to_multiple(x, patch_size), patch_size)
    base = F.linear(F.silu(patches), base_weight, base_bias)
    patches = patches + rbf_kan_reference(patches, centers, widths, weight) + base
    return merge_patches(patches, patch_size)[..., :height, :width]
