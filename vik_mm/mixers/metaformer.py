"""The mixers of PoolFormer's comparison: what the macro design reaches with next to no mixing."""

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .base import TokenMixer
from .convolutions import check_odd


@MODELS.register_module()
class Pooling(TokenMixer):
    """Average over a window, less the pixel itself, which the block's shortcut brings back.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused by pooling, which is the same at every size.
        pool_size (int): Side of the window, odd. Defaults to 3.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``pool_size`` is not a positive odd number.

    Source:
        arXiv 2111.11418, section 3.2.
    """

    def __init__(self, embed_dims: int, grid_size: tuple[int, int], pool_size: int = 3, init_cfg=None):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_odd('pool_size', pool_size)
        self.pool = nn.AvgPool2d(pool_size, stride=1, padding=pool_size // 2, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        return self.pool(x) - x


@MODELS.register_module()
class Identity(TokenMixer):
    """No mixing at all: pixels meet in the stem and in the down-sampling convolutions, and only there.

    Source:
        arXiv 2210.13452, IdentityFormer.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x``, ``[B, C, H, W]``."""
        return x
