"""Attention as a token mixer of ViK, so that both families meet in one macro design.

Shape letters: ``B`` images, ``C`` channels.
"""

from mmpretrain.registry import MODELS
from torch import Tensor

from vik_mm.attention import TokenAttention, build_operator, check_attention
from vik_mm.errors import BadInputError

from .base import TokenMixer
from .heads import check_pairs, count_heads


@MODELS.register_module()
class SelfAttention(TokenMixer):
    """Multi-head self-attention among all pixels of a map; its cost grows with the square of the pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``.
        head_dims (int): Channels of a head. Defaults to 32.
        attn_cfg (dict): ``dict(type='Softmax')``, or ``dict(type='KArAt', ...)`` with options of
            :class:`vik_mm.attention.KArAt`. Defaults to ``dict(type='Softmax')``.
        max_tokens (int): Maps of more pixels are refused. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadTypeError: If ``attn_cfg`` has an option that its type does not know.
        BadInputError: If ``head_dims`` does not divide ``C``, or ``attn_cfg`` is wrong, or a map has too many
            pixels.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        attn_cfg: dict = dict(type='Softmax'),
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        heads = count_heads(embed_dims, head_dims)
        self.max_tokens = max_tokens
        check_attention(attn_cfg)
        if attn_cfg.get('universal'):
            raise BadInputError('a universal operator serves blocks of one grid, and the stages of ViK have several')
        operator = build_operator(attn_cfg, heads, grid_size, 0)
        self.attention = TokenAttention(operator=operator, embed_dims=embed_dims, num_heads=heads)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        pixels = x.shape[2] * x.shape[3]
        check_pairs(self, pixels, pixels, self.max_tokens)
        return self.attention(x.flatten(2).transpose(1, 2), x.shape[2:]).transpose(1, 2).unflatten(2, x.shape[2:])
