"""The plus-shaped convolution as the grouped convolution that it is: the truth the other backends are tested against.

Shape letters: ``B`` images, ``C`` channels.
"""

import torch.nn.functional as F
from torch import Tensor


def plus_conv2d_reference(x: Tensor, taps: Tensor, bias: Tensor) -> Tensor:
    """Convolve every channel of every image with its own 3x3 kernel, whose corners are zero.

    See :func:`vik_mm.ops.plus_conv2d` for arguments and result.
    """
    taps = taps.to(x.dtype)
    kernel = F.pad(taps[:, :, 0, :, None], (1, 1)) + F.pad(taps[:, :, 1, None, :], (0, 0, 1, 1))  # [B, C, 3, 3]
    channels = x.shape[0] * x.shape[1]
    x_as_one = x.reshape(1, channels, *x.shape[2:])
    out = F.conv2d(x_as_one, kernel.view(channels, 1, 3, 3), bias.to(x.dtype).flatten(), padding=1, groups=channels)
    return out.view_as(x)
