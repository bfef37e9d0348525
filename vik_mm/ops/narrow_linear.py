"""The matrix product of narrow matrices on CPUs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from .backends import is_traced

HAS_ONEDNN = torch.backends.mkldnn.is_available()
# Convolutions of a single image go to oneDNN from this number of values up.
SMALL = 20480


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Map the last dimension of ``x`` as :func:`torch.nn.functional.linear` does, faster for float32 on CPUs.

    There, PyTorch hands matrix products to MKL or another BLAS, and convolutions to oneDNN; for outputs as narrow as
    49 columns oneDNN is up to twice as fast (``benchmarks/``). Rows of a matrix are the pixels of an image in
    channels-last layout, so that the 1x1 convolution copies nothing.

    Args:
        x (Tensor): ``[..., K]``.
        weight (Tensor): ``[O, K]``.
        bias (Tensor, optional): ``[O]``. Defaults to None.

    Returns:
        Tensor: ``[..., O]``.
    """
    on_cpu = HAS_ONEDNN and x.device.type == 'cpu' and x.dtype == torch.float32
    if is_traced() or not on_cpu or x.numel() <= SMALL:
        return F.linear(x, weight, bias)
    rows = x.reshape(1, 1, -1, x.shape[-1]).permute(0, 3, 1, 2)  # [1, K, 1, rows]
    return F.conv2d(rows, weight[:, :, None, None], bias).permute(0, 2, 3, 1).reshape(*x.shape[:-1], -1)
