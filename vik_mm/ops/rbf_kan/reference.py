"""The RBF-KAN operator written as its formula: the truth the other backends are tested against.

Shape letters: ``F`` in features, ``G`` Gaussians per feature, ``O`` out features.
"""

import torch
from torch import Tensor


def rbf_kan_reference(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator with its whole basis in memory, ``G`` times the size of ``x``.

    See :func:`vik_mm.ops.rbf_kan` for arguments and result.
    """
    basis = torch.exp(-0.5 * ((x.unsqueeze(-1) - centers) / widths).square())  # [..., F, G]
    return (basis.flatten(-2) @ weight).to(x.dtype)
