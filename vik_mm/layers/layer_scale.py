"""Layer scale for feature maps, and the residual that it belongs to."""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """Learned factor per channel.

    Args:
        embed_dims (int): Channels ``C``.
        init_value (float): Start value of every factor. Defaults to 1e-5.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Source:
        arXiv 2103.17239, section 2.
    """

    def __init__(self, embed_dims: int, init_value: float = 1e-5):
        super().__init__()
        self.weight = nn.Parameter(torch.full((embed_dims,), float(init_value)))

    def forward(self, x: Tensor) -> Tensor:
        """Scale ``x``, ``[B, C, H, W]``."""
        return x * self.weight[:, None, None]


def add_residual(x: Tensor, branch: Tensor, layer_scale: nn.Module, drop_path: nn.Module) -> Tensor:
    """Compute ``x + drop_path(layer_scale(branch))`` in one pass over the map.

    Both modules multiply whole channels of a sample, so that one factor stands for both.

    Args:
        x (Tensor): ``[B, C, H, W]``, what the branch was computed of.
        branch (Tensor): ``[B, C, H, W]``.
        layer_scale (nn.Module): A :class:`LayerScale`, or ``nn.Identity``.
        drop_path (nn.Module): Stochastic depth, which in training multiplies each sample by a random factor; or
            ``nn.Identity``.

    Returns:
        Tensor: ``[B, C, H, W]``.
    """
    factor = layer_scale.weight[:, None, None] if isinstance(layer_scale, LayerScale) else x.new_ones(1)
    if drop_path.training and not isinstance(drop_path, nn.Identity):
        factor = factor * drop_path(x.new_ones(x.shape[0], 1, 1, 1))
    return torch.addcmul(x, branch, factor)
