"""What of the mm packages computes sizes in a way that tracers take for constants, or other runtimes do not know."""

import torch
from torch import Tensor, nn


def trace_sizes(model: nn.Module) -> None:
    """Replace modules whose traces hold for one image size alone.

    These are MMSegmentation's ``Upsample``, which rounds sizes to Python integers, and ``AdaptiveAvgPool2d`` to squares
    of pixels, as UPerNet's pyramid has it, which ONNX knows for fixed sizes.

    Args:
        model (nn.Module): Changed in place; its answers stay.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            # By name: MMSegmentation may not be installed.
            if type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg.') and not child.size:
                options = dict(scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners)
                module.register_module(name, nn.Upsample(**options))
            elif type(child) is nn.AdaptiveAvgPool2d and isinstance(child.output_size, int):
                module.register_module(name, _AveragePool(child.output_size))


class _AveragePool(nn.Module):
    """``AdaptiveAvgPool2d`` to ``count`` x ``count`` pixels as two matrix products; ``[B, C, H, W]`` of any size."""

    def __init__(self, count: int):
        super().__init__()
        self.count = count

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self._shares(x.shape[2], x), self._shares(x.shape[3], x)
        return rows @ x @ columns.T

    def _shares(self, length: int, x: Tensor) -> Tensor:
        """Weights ``[count, length]``: pixel ``i`` averages from ``floor(i L / n)`` to ``ceil((i + 1) L / n)``."""
        number = torch.arange(self.count, device=x.device)
        position = torch.arange(length, device=x.device)
        start = torch.div(number * length, self.count, rounding_mode='floor')
        stop = torch.div((number + 1) * length + self.count - 1, self.count, rounding_mode='floor')
        is_inside = (position >= start[:, None]) & (position < stop[:, None])
        return (is_inside / is_inside.sum(1, keepdim=True)).to(x.dtype)
