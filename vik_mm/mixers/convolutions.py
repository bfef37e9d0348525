"""Convolutions and linear maps as several papers have them: their start values, and what their options may be."""

from mmpretrain.models.utils import build_norm_layer
from torch import Tensor, nn

from vik_mm.errors import BadInputError


def pointwise(in_dims: int, out_dims: int, bias: bool = True) -> nn.Conv2d:
    """Make a 1x1 convolution, which maps the channels of each pixel as a linear layer does.

    Args:
        in_dims (int): Channels of the input.
        out_dims (int): Channels of the output.
        bias (bool): Whether it has a bias, which starts at 0. Defaults to True.

    Returns:
        nn.Conv2d: The layer; its weights are of a truncated normal distribution of standard deviation 0.02.
    """
    conv = nn.Conv2d(in_dims, out_dims, 1, bias=bias)
    truncate_start_values(conv)
    return conv


def truncate_start_values(*modules: nn.Module) -> None:
    """Set all convolutions and linear maps to a truncated normal distribution of 0.02, their biases to 0.

    Args:
        modules (nn.Module): Layers, or what holds them, changed in place.
    """
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, (nn.Linear, nn.Conv2d)):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                zero_bias(layer)


def zero_bias(layer: nn.Conv2d | nn.Linear) -> None:
    """Set the bias of a layer to 0, where it has one.

    Args:
        layer (nn.Conv2d | nn.Linear): The layer, changed in place.
    """
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def check_odd(name: str, value: int) -> None:
    """Refuse sides of windows and kernels that have no middle pixel.

    Args:
        name (str): Of the option, for the message.
        value (int): In pixels.

    Raises:
        BadInputError: If it is no positive odd integer.
    """
    if not isinstance(value, int) or value < 1 or value % 2 == 0:
        raise BadInputError(f'{name}={value!r} must be a positive odd number')


def check_divides(name: str, value: int, count: int, things: str = 'channels') -> None:
    """Refuse a number of groups that does not divide what it groups.

    Args:
        name (str): Of the option, for the message.
        value (int): Its value.
        count (int): How many things are grouped.
        things (str): What they are. Defaults to 'channels'.

    Raises:
        BadInputError: If it is no positive integer that divides ``count``.
    """
    if not isinstance(value, int) or value < 1 or count % value:
        raise BadInputError(f'{name}={value!r} must divide the {count} {things}')


class ConvNorm(nn.Module):
    """Convolution without a bias, then a norm.

    The norm's weight starts at 1. Several papers let it start at 0 in the last layer of a branch, which the
    block's layer scale does here.

    Args:
        in_dims (int): Channels of the input.
        out_dims (int): Channels of the output.
        kernel_size (int): In pixels; maps keep their size if it is odd. Defaults to 1.
        groups (int): Groups of channels that are computed apart. Defaults to 1.
        norm_cfg (dict): Config of the norm. Defaults to ``dict(type='BN')``.

    Shape:
        - Input: ``[B, in_dims, H, W]``.
        - Output: ``[B, out_dims, H, W]``.
    """

    def __init__(
        self,
        in_dims: int,
        out_dims: int,
        kernel_size: int = 1,
        groups: int = 1,
        norm_cfg: dict = dict(type='BN'),
    ):
        super().__init__()
        padding = kernel_size // 2
        self.conv = nn.Conv2d(in_dims, out_dims, kernel_size, padding=padding, groups=groups, bias=False)
        self.bn = build_norm_layer(norm_cfg, out_dims)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_dims, H, W]`` to ``[B, out_dims, H, W]``."""
        return self.bn(self.conv(x))
