"""DaViT's dual attention: among the pixels of windows, then among the channels of groups.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads or channel groups, ``d`` channels of one,
``P`` window side.
"""

from collections import OrderedDict
from collections.abc import Sequence

from mmpretrain.models.utils import LayerNorm2d
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops.backends import compute_dtype, without_autocast

from .base import TokenMixer
from .convolutions import truncate_start_values, zero_bias
from .heads import count_heads
from .windows import WindowAttention, check_window_size

SCALES = ('head', 'tokens')


class ConvPosition(nn.Module):
    """Positions from a convolution: ``x + depthwise_3x3(x)``, zero-padded.

    Args:
        embed_dims (int): Channels ``C``.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int):
        super().__init__()
        self.proj = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        nn.init.normal_(self.proj.weight, std=0.02)
        zero_bias(self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]``."""
        return x + self.proj(x)


class ChannelAttention(nn.Module):
    """Attention among the channels of each group, with a pixel's place as the feature.

    .. code-block:: text

        scale='head'     weights = softmax(K^T V / sqrt(d)),  answer = Q weights^T
        scale='tokens'   weights = softmax(Q^T K / sqrt(N)),  answer = V weights^T

    The scores are sums over all pixels. With 'head' they grow with the map, until softmax is as good as one channel;
    with 'tokens' they do not grow as fast. The cost is linear in pixels.

    Args:
        embed_dims (int): Channels ``C``.
        num_groups (int): ``h``; divides ``C``.
        scale (str): 'head' as in DaViT-Tiny to -Base, 'tokens' as in its large, huge and giant. Defaults to 'head'.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, num_groups: int, scale: str = 'head'):
        super().__init__()
        self.num_groups, self.scale = num_groups, scale
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        truncate_start_values(self.qkv, self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        qkv = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, self.num_groups, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # [B, h, N, d]
        left, right, mixed, length = (k, v, q, k.shape[3]) if self.scale == 'head' else (q, k, v, k.shape[2])
        with without_autocast(x):  # float16 cannot hold a sum over all pixels
            left, right = left.to(compute_dtype(x)) * length**-0.5, right.to(compute_dtype(x))
            weights = (left.transpose(2, 3) @ right).softmax(dim=-1)  # [B, h, d, d]
        answer = mixed @ weights.to(mixed.dtype).transpose(2, 3)
        return self.proj(answer.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, size)


class DualAttentionBlock(nn.Module):
    """Half of DaViT's block without its MLP: positions, attention with a shortcut, positions.

    .. code-block:: text

        s = cpe_1(x);  s = s + attention(norm(s));  y = cpe_2(s)

    Args:
        embed_dims (int): Channels ``C``.
        attention (nn.Module): ``[B, C, H, W] -> [B, C, H, W]``.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, attention: nn.Module):
        super().__init__()
        self.cpe = nn.ModuleList([ConvPosition(embed_dims), ConvPosition(embed_dims)])
        self.norm1 = LayerNorm2d(embed_dims, eps=1e-5)
        self.attn = attention

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]``."""
        x = self.cpe[0](x)
        x = x + self.attn(self.norm1(x))
        return self.cpe[1](x)


@MODELS.register_module()
class DaViTAttention(TokenMixer):
    """Window attention among pixels, then attention among channels, which sees the whole map.

    The mixer gives what its two blocks, which have shortcuts of their own, add to the input. Where ``P`` does not
    divide a side, windows are filled up with zeros that take part, as in all released models. The cost is linear in
    pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: windows and channel groups take every size.
        window_size (int): ``P``, in pixels. Defaults to 7.
        head_dims (int): Channels of a head, and of a channel group. Defaults to 32.
        order (Sequence[str]): 'spatial' and 'channel' in their order, or one of them.
            Defaults to ``('spatial', 'channel')``.
        scale (str): 'head' or 'tokens': see ``ChannelAttention``. At segmentation sizes
            'tokens' keeps the softmax from saturating. Defaults to 'head', as most released models have it.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, ``window_size`` is less than 1, or ``order`` or ``scale``
            is unknown.

    Source:
        arXiv 2204.03645, section 3; ``davit.py`` of dingmyu/davit, whose blocks have an MLP more. The block around a
        mixer has that.
    """

    original_names = ((r'^blocks\.', ''),)  # spatial.* and channel.*, and then the authors' names

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        window_size: int = 7,
        head_dims: int = 32,
        order: Sequence[str] = ('spatial', 'channel'),
        scale: str = 'head',
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_window_size(window_size)
        if isinstance(order, str) or not order or len(set(order)) < len(order) or set(order) - {'spatial', 'channel'}:
            raise BadInputError(f"order={order!r} must list 'spatial' and 'channel', each at most once")
        if scale not in SCALES:
            raise BadInputError(f'scale={scale!r} is unknown; choose one of {list(SCALES)}')
        heads = count_heads(embed_dims, head_dims)
        self.window_size = window_size
        attentions = dict(
            spatial=lambda: WindowAttention(embed_dims, heads, window_size),
            channel=lambda: ChannelAttention(embed_dims, heads, scale),
        )
        self.blocks = nn.Sequential(
            OrderedDict((name, DualAttentionBlock(embed_dims, attentions[name]())) for name in order)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        return self.blocks(x) - x
