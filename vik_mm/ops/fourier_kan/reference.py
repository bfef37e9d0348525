"""The Fourier KAN operator written as its formula: the truth the other backends are tested against.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``F`` in features, ``G`` frequencies, ``O`` out
features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BASE_ACTIVATIONS = {'silu': F.silu, 'identity': lambda x: x}


def fourier_kan_reference(x: Tensor, weight: Tensor, base_weight: Tensor | None, base_activation: str) -> Tensor:
    """Evaluate the operator with its whole basis in memory, ``2 G`` times the size of ``x``.

    See :func:`vik_mm.ops.fourier_kan` for arguments and result.
    """
    frequencies = torch.arange(1, weight.shape[1] // 2 + 1, device=x.device, dtype=x.dtype)
    angles = x.unsqueeze(-2) * frequencies[:, None]  # [B, H, T, G, F]
    basis = torch.cat([angles.cos(), angles.sin()], dim=-2)
    out = torch.einsum('bhtkf,hkfo->bhto', basis, weight.to(x.dtype))
    if base_weight is not None:
        out = out + BASE_ACTIVATIONS[base_activation](x) @ base_weight.to(x.dtype)
    return out
