"""L2ViT's mixers: linear attention over the whole map with local concentration, and window attention.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d`` channels of a head, ``P`` window side.
"""

import torch
from mmpretrain.models.utils import LayerNorm2d, build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops.backends import compute_dtype, without_autocast

from .base import TokenMixer
from .convolutions import truncate_start_values
from .davit import ConvPosition, DualAttentionBlock
from .heads import count_heads
from .windows import WindowAttention, check_window_size


class LinearGlobalAttention(nn.Module):
    r"""Attention with ``ReLU(Q) ReLU(K)^T`` for weights, in time and memory linear in pixels.

    .. math:: y_i = \tau_h\, q_i \sum_j k_j v_j^\top / \max(q_i \cdot \sum_j k_j, c)

    Args:
        embed_dims (int): Channels ``C``.
        num_heads (int): ``h``; divides ``C``.
        min_denominator (float): ``c``.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, num_heads: int, min_denominator: float):
        super().__init__()
        self.num_heads, self.min_denominator = num_heads, min_denominator
        self.temperature = nn.Parameter(torch.full((num_heads, 1, 1), (embed_dims // num_heads) ** -0.5))
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        qkv = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # [B, h, N, d]
        with without_autocast(x):  # float16 cannot hold a sum over all pixels
            q, k, v = q.relu().to(compute_dtype(x)), k.relu().to(compute_dtype(x)), v.to(compute_dtype(x))
            denominator = q @ k.sum(2)[..., None]  # [B, h, N, 1]
            answer = (q @ (k.transpose(2, 3) @ v)) / denominator.clamp(min=self.min_denominator)
            answer = answer * self.temperature
        answer = answer.to(qkv.dtype).transpose(1, 2).flatten(2)
        return self.proj(answer).transpose(1, 2).unflatten(2, size)


class LocalConcentration(nn.Module):
    """Two depthwise 7x7 convolutions around GELU and a norm: they sharpen what linear attention smears.

    Args:
        embed_dims (int): Channels ``C``.
        norm_cfg (dict): Config of the norm.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, norm_cfg: dict):
        super().__init__()
        self.conv1 = nn.Conv2d(embed_dims, embed_dims, 7, padding=3, groups=embed_dims)
        self.act = nn.GELU()
        self.bn = build_norm_layer(norm_cfg, embed_dims)
        self.conv2 = nn.Conv2d(embed_dims, embed_dims, 7, padding=3, groups=embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]``."""
        return self.conv2(self.bn(self.act(self.conv1(x))))


@MODELS.register_module()
class L2ViTGlobalAttention(TokenMixer):
    """Linear attention over the whole map, then local concentration.

    .. code-block:: text

        s = cpe(x);  s = s + linear_attention(norm1(s));  s = s + local_concentration(norm3(s));  y = s - x

    The cost is linear in pixels. The network has it in odd blocks, and :class:`L2ViTWindowAttention` in even ones.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the mixer takes every size.
        head_dims (int): Channels of a head. Defaults to 32.
        min_denominator (float): The least that attention's weights of a pixel are divided by. It does not depend on the
            size of the map: on small maps the weights sum to less than 1, on large ones it never acts.
            Defaults to 100, as released.
        norm_cfg (dict): Config of the norm inside local concentration. Batch norm refuses a single value for each
            channel in training, and with one or two images on a GPU ``dict(type='SyncBN')`` is the better choice.
            Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, or ``min_denominator`` is not positive.

    Source:
        arXiv 2501.16182, sections 3.2 and 3.3; ``LGABlock`` of ChuanyangZheng/L2ViT, whose MLP is left out: the block
        around a mixer has its own.
    """

    original_names = ()

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        min_denominator: float = 100.0,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if not min_denominator > 0:
            raise BadInputError(f'min_denominator={min_denominator} must be positive; released models have 100')
        self.cpe = nn.ModuleList([ConvPosition(embed_dims)])
        self.norm1 = LayerNorm2d(embed_dims, eps=1e-5)
        self.attn = LinearGlobalAttention(embed_dims, count_heads(embed_dims, head_dims), min_denominator)
        self.norm3 = LayerNorm2d(embed_dims, eps=1e-5)
        self.local_mp = LocalConcentration(embed_dims, norm_cfg)
        truncate_start_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        s = self.cpe[0](x)
        s = s + self.attn(self.norm1(s))
        return s + self.local_mp(self.norm3(s)) - x


@MODELS.register_module()
class L2ViTWindowAttention(TokenMixer):
    """Window attention between two convolutional positions: the spatial half of DaViT.

    Where ``P`` does not divide a side, windows are filled up with zeros that take part, as in the released model. The
    cost is linear in pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: windows take every size.
        window_size (int): ``P``, in pixels. Defaults to 7.
        head_dims (int): Channels of a head. Defaults to 32.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, or ``window_size`` is less than 1.

    Source:
        arXiv 2501.16182, section 3.1; ``LWABlock`` of ChuanyangZheng/L2ViT, whose MLP is left out.
    """

    original_names = ((r'^block\.', ''),)

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        window_size: int = 7,
        head_dims: int = 32,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_window_size(window_size)
        self.window_size = window_size
        attention = WindowAttention(embed_dims, count_heads(embed_dims, head_dims), window_size)
        self.block = DualAttentionBlock(embed_dims, attention)
        truncate_start_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        return self.block(x) - x
