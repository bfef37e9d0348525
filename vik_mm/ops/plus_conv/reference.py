"""The plus-shaped convolution as its formula has it: the truth the other backends are tested against.

Shape letters: ``B`` images, ``C`` channels.
"""

import torch.nn.functional as F
from torch import Tensor


def plus_conv2d_reference(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Add up the map and its neighbours, each times its weight; see :func:`vik_mm.ops.plus_conv2d`."""
    height, width = x.shape[2:]
    taps = taps.to(x.dtype)[..., None, None]  # [B, C, 2, 3, 1, 1]
    padded = F.pad(x, (1, 1, 1, 1))
    out = bias.to(x.dtype)[..., None, None]
    for k in range(3):
        out = out + taps[:, :, 0, k] * padded[:, :, k : k + height, 1 : width + 1]
        out = out + taps[:, :, 1, k] * padded[:, :, 1 : height + 1, k : k + width]
    return out.contiguous()
