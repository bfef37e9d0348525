"""The Fourier KAN operator written as its formula: the truth the other backends are tested against.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``F`` in features, ``G`` frequencies, ``O`` out
features.
"""

import torch
from torch import Tensor


def fourier_kan_reference(x: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator with its whole basis in memory, ``2 G`` times the size of ``x``.

    See :func:`vik_mm.ops.fourier_kan` for arguments and result.
    """
    frequencies = torch.arange(1, weight.shape[1] // 2 + 1, device=x.device, dtype=x.dtype)
    angles = x.unsqueeze(-2) * frequencies[:, None]  # [B, H, T, G, F]
    basis = torch.cat([angles.cos(), angles.sin()], dim=-2)
    return torch.einsum('bhtkf,hkfo->bhto', basis, weight.to(x.dtype))
