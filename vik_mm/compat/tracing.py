"""What of the mm packages computes sizes in a way that tracers take for constants."""

from torch import nn


def trace_sizes(model: nn.Module) -> None:
    """Put PyTorch's ``Upsample`` in the place of MMSegmentation's, which rounds sizes to Python integers.

    Args:
        model (nn.Module): Changed in place; its answers stay.
    """
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            # By name: MMSegmentation may not be installed.
            if type(child).__name__ == 'Upsample' and type(child).__module__.startswith('mmseg.') and not child.size:
                options = dict(scale_factor=child.scale_factor, mode=child.mode, align_corners=child.align_corners)
                module.register_module(name, nn.Upsample(**options))
