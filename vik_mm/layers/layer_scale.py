"""Layer scale for feature maps."""

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
