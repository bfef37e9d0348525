"""Attention reduced to a minimum: queries and keys share one matrix, values may have none.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads.
"""

import math

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .convolutions import check_divides, pointwise
from .heads import check_pairs, join_heads, split_heads

SIMILARITIES = ('full', 'shared', 'cholesky', 'mirrored')


@MODELS.register_module()
class MinimalAttention(TokenMixer):
    r"""Attention by one similarity matrix between pixels, without projections that only rename channels.

    .. math:: Y = \mathrm{softmax}(X M X^\top / \sqrt{C})\, X

    Its cost grows with the square of the pixels. It knows no positions: permuted pixels give permuted outputs. Without
    ``value`` each output is a weighted mean of the input's pixels.

    The paper's model has no MLP in its blocks either, which is the backbone's part.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused; the mixer is the same at every size.
        similarity (str): How ``M`` is made. 'full': any ``C x C`` matrix. 'shared': ``W W^T``, keys that are the
            queries. 'cholesky': ``T T^T`` with ``T`` lower triangular. 'mirrored': symmetric, its lower triangle
            mirrored. 'shared' and 'cholesky' give positive semidefinite matrices. Defaults to 'full'.
        value (bool): Whether values and outputs are projected, as in the paper's 'symmetric' model.
            Defaults to False, as in its 'minimum'.
        num_heads (int): ``h``. More than one needs 'shared' and ``value``: for others the reduction does not pay.
            Defaults to 1.
        max_tokens (int): Maps of more pixels are refused. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If an option is unknown, heads do not go with the other options, or a map has too many pixels.

    Source:
        arXiv 2410.13732. There is no public code of the authors. The scale is that of Keras, ``1 / sqrt(key width)``;
        the weights start as there, too (Glorot's uniform distribution).
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        similarity: str = 'full',
        value: bool = False,
        num_heads: int = 1,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if similarity not in SIMILARITIES:
            raise BadInputError(f'similarity={similarity!r} is unknown; choose one of {SIMILARITIES}')
        check_divides('num_heads', num_heads, embed_dims)
        if num_heads > 1 and not (similarity == 'shared' and value):
            raise BadInputError(
                f"num_heads={num_heads} needs similarity='shared' and value=True: with a {similarity!r} matrix for "
                'each head, or without values, attention of several heads has more parameters than plain attention'
            )
        self.similarity, self.num_heads, self.max_tokens = similarity, num_heads, max_tokens
        is_triangle = similarity in ('cholesky', 'mirrored')
        shape = (embed_dims * (embed_dims + 1) // 2,) if is_triangle else (embed_dims, embed_dims)
        self.weight = nn.Parameter(torch.empty(shape))
        if is_triangle:
            number = torch.arange(embed_dims)
            row, column = torch.maximum(number[:, None], number), torch.minimum(number[:, None], number)
            self.register_buffer('places', row * (row + 1) // 2 + column, persistent=False)
        self.v = pointwise(embed_dims, embed_dims, bias=False) if value else None
        self.proj = pointwise(embed_dims, embed_dims, bias=False) if value else None
        limit = math.sqrt(3 / embed_dims)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -limit, limit)

    def factor(self) -> Tensor:
        """Give ``W`` of 'shared' or ``T`` of 'cholesky', ``[C, C]``, whose product with its transpose is ``M``."""
        return self.weight if self.similarity == 'shared' else self.weight[self.places].tril()

    def matrix(self) -> Tensor:
        """Give ``M``, ``[C, C]``."""
        if self.similarity == 'full':
            return self.weight
        if self.similarity == 'mirrored':
            return self.weight[self.places]
        factor = self.factor()
        return factor @ factor.t()

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        check_pairs(self, size[0] * size[1], size[0] * size[1], self.max_tokens)
        if self.similarity in ('shared', 'cholesky'):
            q = k = split_heads(F.conv2d(x, self.factor().t()[..., None, None]), self.num_heads)
        else:
            q, k = split_heads(F.conv2d(x, self.matrix().t()[..., None, None]), 1), split_heads(x, 1)
        v = x if self.v is None else self.v(x)
        y = join_heads(F.scaled_dot_product_attention(q, k, split_heads(v, self.num_heads)), size)
        return y if self.proj is None else self.proj(y)
