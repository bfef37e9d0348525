"""SMT's mixers: scale-aware modulation for large maps, and attention with a local branch for small ones.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d`` channels of a head, ``K`` scales.
"""

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .convolutions import check_divides, zero_bias
from .heads import check_pairs, count_heads


@MODELS.register_module()
class ScaleAwareModulation(TokenMixer):
    """Convolutions of several sizes, joined channel by channel, which modulate a linear map of the input.

    .. code-block:: text

        s -> head_convs: K heads of C / K channels, depthwise, sides 3, 5, 7, 9, ...
          -> join:       the K channels of one number in all heads -> K * expand_ratio hidden ones
          -> M = modulator(GELU(norm(join)))
        y = proj(M * value(x)),  s = scales(x)

    The cost is linear in pixels. SMT has it in the first stages, and :class:`SMTAttention` in the last.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the mixer takes every size.
        num_scales (int): ``K``; divides ``C``. Defaults to 4.
        expand_ratio (int): Hidden channels of the join over ``C``. Defaults to 2.
        norm_cfg (dict): Config of the norm. Batch norm refuses a single value for each channel in training, and with
            one or two images on a GPU ``dict(type='SyncBN')`` is the better choice. Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``num_scales`` does not divide ``C``, or an option is less than 1.

    Source:
        arXiv 2307.08579, section 3.1; ``Attention`` with ``ca_attention=1`` of AFeng-x/SMT. Its linear maps have a
        bias, as in all released models.
    """

    original_names = (
        (r'^head_convs\.0\.', 'local_conv_1.'),
        (r'^head_convs\.1\.', 'local_conv_2.'),
        (r'^head_convs\.2\.', 'local_conv_3.'),
        (r'^head_convs\.3\.', 'local_conv_4.'),
        (r'^value\.', 'v.'),
        (r'^scales\.', 's.'),
        (r'^join\.', 'proj0.'),
        (r'^norm\.', 'bn.'),
        (r'^modulator\.', 'proj1.'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        num_scales: int = 4,
        expand_ratio: int = 2,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_divides('num_scales', num_scales, embed_dims, 'channels of each stage')
        if not isinstance(expand_ratio, int) or expand_ratio < 1:
            raise BadInputError(f'expand_ratio={expand_ratio!r} must be an integer of at least 1')
        self.num_scales = num_scales
        width, hidden_dims = embed_dims // num_scales, embed_dims * expand_ratio
        self.value = nn.Linear(embed_dims, embed_dims)
        self.scales = nn.Linear(embed_dims, embed_dims)
        self.head_convs = nn.ModuleList(
            nn.Conv2d(width, width, 3 + 2 * i, padding=1 + i, groups=width) for i in range(num_scales)
        )
        self.join = nn.Conv2d(embed_dims, hidden_dims, 1, groups=width)
        self.norm = build_norm_layer(norm_cfg, hidden_dims)
        self.act = nn.GELU()
        self.modulator = nn.Conv2d(hidden_dims, embed_dims, 1)
        self.proj = nn.Linear(embed_dims, embed_dims)
        _set_start_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        tokens = x.permute(0, 2, 3, 1)
        heads = self.scales(tokens).permute(0, 3, 1, 2).chunk(self.num_scales, dim=1)
        heads = [conv(head) for conv, head in zip(self.head_convs, heads)]
        joined = torch.stack(heads, dim=2).flatten(1, 2)  # channel a of head i is channel K a + i
        modulator = self.modulator(self.act(self.norm(self.join(joined))))
        return self.proj(modulator.permute(0, 2, 3, 1) * self.value(tokens)).permute(0, 3, 1, 2)


@MODELS.register_module()
class SMTAttention(TokenMixer):
    """Self-attention among all pixels, beside a convolution of the values.

    .. code-block:: text

        y = proj(softmax(Q K^T / sqrt(d)) V + depthwise_3x3(V))

    The cost grows with the square of the pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the mixer takes every size.
        head_dims (int): Channels of a head. Defaults to 32.
        max_tokens (int): The most pixels of a map; larger ones are refused. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, ``H W`` at most ``max_tokens``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, or the map has more than ``max_tokens`` pixels.

    Source:
        arXiv 2307.08579, section 3.2; ``Attention`` with ``ca_attention=0`` of AFeng-x/SMT. Its linear maps have a
        bias, as in all released models.
    """

    original_names = ()

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.num_heads = count_heads(embed_dims, head_dims)
        self.max_tokens = max_tokens
        self.q = nn.Linear(embed_dims, embed_dims)
        self.kv = nn.Linear(embed_dims, 2 * embed_dims)
        self.local_conv = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        _set_start_values(self)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size, tokens = x.shape[2:], x.flatten(2).transpose(1, 2)
        check_pairs(self, tokens.shape[1], tokens.shape[1], self.max_tokens)
        q = self.q(tokens).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # [B, h, N, d]
        k, v = self.kv(tokens).chunk(2, dim=2)
        local = self.local_conv(v.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        k, v = (part.unflatten(2, (self.num_heads, -1)).transpose(1, 2) for part in (k, v))
        answer = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(answer + local).transpose(1, 2).unflatten(2, size)


def _set_start_values(module: nn.Module) -> None:
    """Set linear maps to truncated normal of 0.02, convolutions to He's of their fan-out, biases to 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            zero_bias(layer)
        elif isinstance(layer, nn.Conv2d):
            fan_out = layer.kernel_size[0] * layer.kernel_size[1] * layer.out_channels // layer.groups
            nn.init.normal_(layer.weight, std=(2 / fan_out) ** 0.5)
            zero_bias(layer)
