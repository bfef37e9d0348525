"""MaxViT's attention: among neighbours first, then among pixels spread over the whole map.

Shape letters: ``B`` images, ``C`` channels, ``P`` window side.
"""

from mmpretrain.models.utils import LayerNorm2d
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .heads import count_heads
from .windows import WindowAttention, check_window_size

PARTITIONS = ('both', 'block', 'grid')


@MODELS.register_module()
class MaxViTAttention(TokenMixer):
    """Attention in windows of neighbours, then in grids of pixels at equal distances over the whole map.

    .. code-block:: text

        a = block_attention(x)                 windows of P x P neighbours
        y = a + grid_attention(norm(x + a))    P x P pixels, H / P rows and W / P columns apart

    Both have a learned bias for each offset of the key from the query, in pixels of the window or in steps of the grid.
    Where ``P`` does not divide a side, the map is filled up right and below, and the padding is hidden from the pixels.
    The cost is linear in pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: windows and grids take every size.
        window_size (int): ``P``, in pixels, of windows and grids. The authors take 7 at 224 pixels, and the image's
            side over 32 at 384 and 512. Defaults to 7.
        head_dims (int): Channels of a head. Defaults to 32.
        partition (str): 'both', or one half, 'block' or 'grid'. Defaults to 'both'.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, ``window_size`` is less than 1, or ``partition`` is
            unknown.

    Source:
        arXiv 2204.01697, section 3.2; google-research/maxvit. The authors' block also has an MBConv and an MLP behind
        each attention, which are left out: the block around a mixer has its own. The authors refuse sides that ``P``
        does not divide.
    """

    original_names = ((r'position_bias$', 'rel_pos.relative_position_bias_table'),)

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        window_size: int = 7,
        head_dims: int = 32,
        partition: str = 'both',
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_window_size(window_size)
        if partition not in PARTITIONS:
            raise BadInputError(f'partition={partition!r} is unknown; choose one of {list(PARTITIONS)}')
        self.window_size, self.partition = window_size, partition
        heads = count_heads(embed_dims, head_dims)
        options = dict(position_bias=True, mask_padding=True)
        if partition != 'grid':
            self.attn_block = WindowAttention(embed_dims, heads, window_size, **options)
        if partition == 'both':
            self.norm = LayerNorm2d(embed_dims, eps=1e-5)
        if partition != 'block':
            self.attn_grid = WindowAttention(embed_dims, heads, window_size, spread=True, **options)
        for name, parameter in self.named_parameters():
            if name.endswith(('weight', 'position_bias')) and not name.startswith('norm'):
                nn.init.normal_(parameter, std=0.02)  # the authors' does not cut off its tails

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        if self.partition == 'block':
            return self.attn_block(x)
        if self.partition == 'grid':
            return self.attn_grid(x)
        near = self.attn_block(x)
        return near + self.attn_grid(self.norm(x + near))
