"""Deformable attention, the token mixer of DAT++.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d = C / h``, ``g`` groups of ``C / g``
channels, ``n`` samples on a grid of ``Hk`` and ``Wk``.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.models.utils import LayerNorm2d
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .convolutions import check_divides, check_odd
from .heads import check_pairs, count_heads, join_heads, split_heads


@MODELS.register_module()
class DeformableAttention(TokenMixer):
    """Attention of all pixels to samples of the map at points that the queries move.

    Points start on a regular grid, one for ``stride`` x ``stride`` pixels; a small network of the queries moves them,
    for each group of channels. Scores get a bias sampled from a learned table of displacements. Points and table are
    relative to the map, so that every size runs. For one ``stride`` the cost grows with the square of the pixels.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Native grid: height and width of the map at the backbone's ``img_size``.
        head_dims (int): Channels of a head. Defaults to 32.
        num_groups (int, optional): ``g``, groups of channels that sample at points of their own; it divides the heads.
            None is the largest such number up to half of the heads. Defaults to None.
        stride (int, optional): Pixels from a point to the next. None is the largest power of two up to a seventh of the
            native grid's shorter side, at least 1, which gives 7 x 7 points at 224 pixels. Defaults to None.
        offset_kernel (int, optional): Side of the depthwise convolution that moves points, in pixels, odd. None is
            ``2 * log2(stride) + 3``, as the authors have it. Defaults to None.
        offset_range (float, optional): How far a point may go, in steps of the grid. None is any distance, and points
            beyond the map come back to its edge. Defaults to None.
        max_tokens (int): Maps with more pairs of pixels and samples than attention among so many pixels has are
            refused. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, an option is out of its range, or a map is too large.

    Source:
        arXiv 2309.01430; ``DAttentionBaseline`` in ``models/dat_blocks.py`` of LeapLabTHU/DAT (commit 32173fc,
        Apache-2.0). As there, the points' grid is divided by ``Hk - 1`` though it starts half a step from the edge, and
        so lies half a step off the middle. Axes of one pixel or one point, no numbers there, stand at the middle here.
        Checkpoints of another native grid: the table is resampled as the authors do; where ``offset_kernel`` follows
        the grid, the kernel is resampled too and keeps its sum. The authors give the table no weight decay:
        ``paramwise_cfg=dict(custom_keys={'bias_table': dict(decay_mult=0.0)})``.
    """

    original_names = (
        (r'^offset_depthwise\.', 'conv_offset.0.'),
        (r'^offset_norm\.', 'conv_offset.1.norm.'),
        (r'^offset_pointwise\.', 'conv_offset.3.'),
        (r'^bias_table$', 'rpe_table'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        num_groups: int | None = None,
        stride: int | None = None,
        offset_kernel: int | None = None,
        offset_range: float | None = None,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        heads = count_heads(embed_dims, head_dims)
        if num_groups is None:
            num_groups = max((g for g in range(1, heads // 2 + 1) if heads % g == 0), default=1)
        check_divides('num_groups', num_groups, heads, 'heads')
        if stride is None:
            stride = 2 ** max(0, (min(grid_size) // 7).bit_length() - 1)
        if stride < 1:
            raise BadInputError(f'stride={stride} must be at least 1')
        if offset_kernel is None:
            offset_kernel = 2 * (stride.bit_length() - 1) + 3
        check_odd('offset_kernel', offset_kernel)
        if offset_range is not None and not offset_range >= 0:
            raise BadInputError(f'offset_range={offset_range} must be 0 or more, or None for any distance')
        self.num_heads, self.num_groups, self.stride = heads, num_groups, stride
        self.offset_range, self.max_tokens = offset_range, max_tokens
        width = embed_dims // num_groups
        self.proj_q = nn.Conv2d(embed_dims, embed_dims, 1)
        self.proj_k = nn.Conv2d(embed_dims, embed_dims, 1)
        self.proj_v = nn.Conv2d(embed_dims, embed_dims, 1)
        self.proj_out = nn.Conv2d(embed_dims, embed_dims, 1)
        self.offset_depthwise = nn.Conv2d(width, width, offset_kernel, stride, offset_kernel // 2, groups=width)
        self.offset_norm = LayerNorm2d(width, eps=1e-5)
        self.offset_act = nn.GELU()
        self.offset_pointwise = nn.Conv2d(width, 2, 1, bias=False)
        self.bias_table = nn.Parameter(torch.empty(heads, 2 * grid_size[0] - 1, 2 * grid_size[1] - 1))
        nn.init.trunc_normal_(self.bias_table, std=0.01)
        self._register_load_state_dict_pre_hook(self._resample_state_dict)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        q = self.proj_q(x)
        points = self.sample_points(q)
        samples = self.sample(x, points)
        check_pairs(self, size[0] * size[1], samples.shape[3], self.max_tokens)
        q, k, v = (split_heads(part, self.num_heads) for part in (q, self.proj_k(samples), self.proj_v(samples)))
        bias = self.position_bias(points, size).to(q.dtype)
        return self.proj_out(join_heads(F.scaled_dot_product_attention(q, k, v, attn_mask=bias), size))

    def sample_points(self, q: Tensor) -> Tensor:
        """Give the points that the queries ask for, (y, x) from -1 to 1; ``[B, C, H, W] -> [B g, n, 2]``."""
        q = q.unflatten(1, (self.num_groups, -1)).flatten(0, 1)
        moves = self.offset_pointwise(self.offset_act(self.offset_norm(self.offset_depthwise(q))))
        # Half precision has steps of a tenth of a pixel on large maps.
        moves = moves.to(torch.promote_types(moves.dtype, torch.float32)).permute(0, 2, 3, 1)  # [B g, Hk, Wk, 2]
        axes = [torch.arange(length, device=q.device, dtype=moves.dtype) for length in moves.shape[1:3]]
        lasts = [axis[-1] for axis in axes]
        grid = [(2 * axis + 1 - last) / last.clamp(min=1) * (last > 0) for axis, last in zip(axes, lasts)]
        points = torch.stack(torch.meshgrid(*grid, indexing='ij'), dim=-1)
        if self.offset_range is None:
            points = (points + moves).clamp(-1, 1)
        else:
            steps = torch.stack([last.clamp(min=1) for last in lasts])
            points = points + moves.tanh() * self.offset_range / steps
        return points.flatten(1, 2)

    def sample(self, x: Tensor, points: Tensor) -> Tensor:
        """Sample each group's channels at its points, ``[B, C, H, W], [B g, n, 2] -> [B, C, 1, n]``."""
        groups = x.unflatten(1, (self.num_groups, -1)).flatten(0, 1)
        samples = _sample(groups, points[:, None])
        return samples.unflatten(0, (-1, self.num_groups)).flatten(1, 2).to(x.dtype)

    def position_bias(self, points: Tensor, size: Sequence[int]) -> Tensor:
        """Sample the table at the displacements of pixels from points, ``[B g, n, 2] -> [B, h, N, n]``."""
        axes = [torch.arange(length, device=points.device, dtype=points.dtype) for length in size]
        grid = [(2 * axis - axis[-1]) / axis[-1].clamp(min=1) for axis in axes]
        pixels = torch.stack(torch.meshgrid(*grid, indexing='ij'), dim=-1).flatten(0, 1)  # [N, 2]
        displacements = (pixels[:, None] - points[:, None]) / 2  # [B g, N, n, 2]
        tables = self.bias_table.unflatten(0, (self.num_groups, -1))  # [g, h / g, 2 H0 - 1, 2 W0 - 1]
        images = points.shape[0] // self.num_groups
        bias = _sample(tables.expand(images, -1, -1, -1, -1).flatten(0, 1), displacements)
        return bias.unflatten(0, (-1, self.num_groups)).flatten(1, 2)

    def _resample_state_dict(self, state_dict, prefix, *_):
        """Resample what a checkpoint of another native grid has for that grid."""
        resampled = []
        for name in ('bias_table', 'offset_depthwise.weight'):
            own, found = self.get_parameter(name), state_dict.get(prefix + name)
            if found is None or found.shape == own.shape or found.shape[:-2] != own.shape[:-2]:
                continue  # another width or other heads are no other size: load_state_dict says so
            value = _bicubic(found, own.shape[-2:])
            if name != 'bias_table':
                value = value * (found.shape[-1] / own.shape[-1]) ** 2
                value = value + (found.sum((2, 3), True) - value.sum((2, 3), True)) / own[0, 0].numel()
            state_dict[prefix + name] = value
            resampled.append(f'{name} from {tuple(found.shape[-2:])} to {tuple(own.shape[-2:])}')
        if resampled:
            self.resampled_from = ', '.join(resampled)


def _sample(maps: Tensor, points: Tensor) -> Tensor:
    """Sample maps linearly at points (y, x), ``[B, c, H, W], [B, m, n, 2] -> [B, c, m, n]``, zero beyond the map."""
    return F.grid_sample(maps.to(points.dtype), points.flip(-1), mode='bilinear', align_corners=True)


def _bicubic(maps: Tensor, size: tuple[int, int]) -> Tensor:
    wide = maps.double().flatten(0, -3)[None]
    resized = F.interpolate(wide, tuple(size), mode='bicubic', align_corners=False)[0]
    return resized.view(*maps.shape[:-2], *size).to(maps.dtype)
