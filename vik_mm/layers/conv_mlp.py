"""The MLP of a block, on feature maps."""

from torch import Tensor, nn


class ConvMLP(nn.Module):
    """Two 1x1 convolutions with an activation between, applied to each pixel.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two convolutions.
        act (nn.Module): The activation.
        drop_rate (float): Dropout after each convolution. Defaults to 0.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Source:
        ``Mlp`` of the authors' ``vik.py``: truncated normal weights of standard deviation 0.02, zero bias.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, act: nn.Module, drop_rate: float = 0.0):
        super().__init__()
        self.fc1 = nn.Conv2d(embed_dims, hidden_dims, 1)
        self.act = act
        self.fc2 = nn.Conv2d(hidden_dims, embed_dims, 1)
        self.drop = nn.Dropout(drop_rate)
        for conv in (self.fc1, self.fc2):
            nn.init.trunc_normal_(conv.weight, std=0.02)
            nn.init.zeros_(conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``."""
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))
