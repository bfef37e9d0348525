"""What of the mm packages computes sizes in a way that tracers take for constants, or other runtimes do not know."""

import sys
from typing import Any

import torch.nn.functional as F
from mmcv.cnn.bricks.transformer import AdaptivePadding
from mmpretrain.models.utils import ShiftWindowMSA
from torch import Tensor, nn

from vik_mm.ops import average_to_grid


def trace_sizes(model: nn.Module) -> None:
    """Replace modules whose traces hold for only one image size.

    These are MMSegmentation's ``Upsample`` and MMCV's ``AdaptivePadding`` of patches, which round sizes to Python
    integers, Swin's joining of windows, which does so with the batch, and ``AdaptiveAvgPool2d`` to squares of pixels,
    as UPerNet's pyramid has it, which ONNX knows for fixed sizes.

    Args:
        model (nn.Module): Changed in place; its answers stay.
    """
    # Where MMSegmentation has made the model, its modules are imported.
    upsample = getattr(sys.modules.get('mmseg.models.utils.wrappers'), 'Upsample', None)
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if upsample is not None and type(child) is upsample and not child.size:
                options: dict[str, Any]
                options = dict(scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners)
                module.register_module(name, nn.Upsample(**options))
            elif type(child) is nn.AdaptiveAvgPool2d and isinstance(child.output_size, int):
                module.register_module(name, _AveragePool(child.output_size))
            elif isinstance(child, AdaptivePadding) and child.padding == 'corner' and child.kernel_size == child.stride:
                module.register_module(name, _Padding(child.stride))
            elif isinstance(child, ShiftWindowMSA):
                child.window_reverse = _join_windows


class _Padding(nn.Module):
    """``AdaptivePadding`` of patches that do not overlap: zeros right and below, ``[B, C, H, W]`` of any size."""

    def __init__(self, stride: tuple[int, int]):
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, (0, -x.shape[3] % self.stride[1], 0, -x.shape[2] % self.stride[0]))


def _join_windows(windows: Tensor, height: int, width: int, side: int) -> Tensor:
    """Map windows ``[B I J, S, S, C]`` to ``[B, H, W, C]``."""
    windows = windows.view(-1, height // side, width // side, side, side, windows.shape[-1])
    return windows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


class _AveragePool(nn.Module):
    """``AdaptiveAvgPool2d`` to ``count`` x ``count`` pixels; ``[B, C, H, W]`` of any size, in a trace too."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        return average_to_grid(x, (self.count, self.count))
