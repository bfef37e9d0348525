"""Attention over queries, keys and values of three scales, the token mixer of LIFE.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d = C / h``.
"""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .heads import check_pairs, count_heads, join_heads, split_heads


@MODELS.register_module()
class LIFEAttention(TokenMixer):
    """Attention among all pixels, a third of its channels made by a 1x1, a 3x3 and a 5x5 convolution each.

    The scales are a chain: the second is a depthwise separable convolution of the first, the third one of the second.
    Each gives queries, keys and values of a third of the channels. Where 3 does not divide ``C``, the second and third
    scale have ``floor(C / 3)`` channels and the first has the rest. The cost grows with the square of the pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map, at least 3.
        grid_size (tuple[int, int]): Unused: the layer is the same at every size.
        head_dims (int): Channels of a head. Defaults to 32.
        max_tokens (int): Maps of more pixels are refused. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, there are fewer than 3 channels, or a map is too large.

    Source:
        ``MultiscaleQKV`` in ``life/models/deit/ms_qkv.py`` of NeurAI-Lab/LIFE (commit 166b0ce, Apache-2.0), without its
        class token, for which one scale takes the place of three in the keys. The authors take only channels that 3
        divides and square maps.
    """

    original_names = (
        (r'^scale1\.', 'qkv.scale1.'),
        (r'^(depthwise|pointwise)([23])\.', r'qkv.scale\2.\1.'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if embed_dims < 3:
            raise BadInputError(f'embed_dims={embed_dims} must be at least 3, a channel for each scale')
        self.num_heads = count_heads(embed_dims, head_dims)
        self.max_tokens = max_tokens
        small = 3 * (embed_dims // 3)
        large = 3 * (embed_dims - 2 * (embed_dims // 3))
        self.scale1 = nn.Conv2d(embed_dims, large, 1)
        self.depthwise2 = nn.Conv2d(large, large, 3, padding=1, groups=large, bias=False)
        self.pointwise2 = nn.Conv2d(large, small, 1, bias=False)
        self.depthwise3 = nn.Conv2d(small, small, 5, padding=2, groups=small, bias=False)
        self.pointwise3 = nn.Conv2d(small, small, 1, bias=False)
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        check_pairs(self, size[0] * size[1], size[0] * size[1], self.max_tokens)
        first = self.scale1(x)
        second = self.pointwise2(self.depthwise2(first))
        third = self.pointwise3(self.depthwise3(second))
        parts = zip(*(scale.chunk(3, dim=1) for scale in (first, second, third)))
        q, k, v = (split_heads(torch.cat(scales, dim=1), self.num_heads) for scales in parts)
        return self.proj(join_heads(F.scaled_dot_product_attention(q, k, v), size))
