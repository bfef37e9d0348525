"""Bi-level routing attention, the token mixer of BiFormer.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d = C / h``, ``S`` regions per side of the
native grid, ``R`` regions of this map, ``L`` pixels of a region, ``T`` regions that a region attends to.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import crop_map, is_traced
from vik_mm.ops.backends import compute_dtype, without_autocast

from .base import TokenMixer
from .convolutions import check_odd
from .heads import check_pairs, count_heads, join_heads, split_heads


@MODELS.register_module()
class BiLevelRoutingAttention(TokenMixer):
    """Attention of each region's pixels to the pixels of the regions that suit it best.

    Regions are chosen by the products of mean queries and mean keys; pixels then attend inside of the chosen regions. A
    depthwise convolution of the values is added. No gradient passes through the choice.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Native grid: height and width of the map at the backbone's ``img_size``.
        head_dims (int): Channels of a head. Defaults to 32.
        num_regions (int): ``S``. Defaults to 7.
        topk (int, optional): ``T``, never more than there are regions. None is as many regions as have about 64 pixels
            on the native grid, which gives the authors' numbers 1, 4, 16 and all at 224 pixels. Defaults to None.
        region (str): What another map size keeps of the native grid: 'size' keeps the pixels of a region, and the cost
            grows linearly with the pixels; 'count' keeps the ``S`` regions per side, as the authors do, and the cost
            grows with the square of the pixels. The two agree on the native grid. Defaults to 'size'.
        local_kernel (int): Side of the depthwise convolution in pixels, odd. Defaults to 5.
        max_tokens (int): Maps with more pairs of pixels to compare than attention among so many pixels has are refused.
            Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, an option is out of its range, or a map is too large.

    Source:
        arXiv 2303.08810; ``nchwBRA`` in ``ops/bra_nchw.py`` of rayleizhu/BiFormer (commit 1697bbb, MIT). As there, the
        scale of the scores is ``C ** -0.5``, not ``d ** -0.5``. It differs where regions do not divide the map: the
        authors pad, and let the padding take part in the softmax (their older module also in the means of regions).
        Here regions are rounded up, means are over real pixels, and padding gets no weight. The authors' last stage has
        an attention class of its own, with all pixels and the scale ``d ** -0.5``.
    """

    original_names = ((r'^qkv\.', 'qkv_linear.'), (r'^proj\.', 'output_linear.'))

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        num_regions: int = 7,
        topk: int | None = None,
        region: str = 'size',
        local_kernel: int = 5,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if num_regions < 1:
            raise BadInputError(f'num_regions={num_regions} must be at least 1')
        if topk is not None and topk < 1:
            raise BadInputError(f'topk={topk} must be at least 1, or None for the regions of about 64 pixels')
        if region not in ('size', 'count'):
            raise BadInputError(f"region={region!r} is unknown; choose 'size' or 'count'")
        check_odd('local_kernel', local_kernel)
        self.num_heads = count_heads(embed_dims, head_dims)
        self.num_regions, self.region, self.max_tokens = num_regions, region, max_tokens
        rows, columns = self.region_size(grid_size)
        self.topk = topk or min(max(1, round(64 / (rows * columns))), num_regions**2)
        self.qkv = nn.Conv2d(embed_dims, 3 * embed_dims, 1)
        self.lepe = nn.Conv2d(embed_dims, embed_dims, local_kernel, padding=local_kernel // 2, groups=embed_dims)
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        qkv = self.qkv(x)
        return self.proj(self.attend(qkv) + self.lepe(qkv[:, 2 * self.embed_dims :]))

    def region_size(self, size: Sequence[int]) -> tuple[int, int]:
        """Give height and width of a region, in pixels, on a map of height and width ``size``."""
        rows, columns = size if self.region == 'count' else self.grid_size
        return _ceil_div(rows, self.num_regions), _ceil_div(columns, self.num_regions)

    def attend(self, qkv: Tensor) -> Tensor:
        """Attend inside of the chosen regions, ``[B, 3 C, H, W] -> [B, C, H, W]``."""
        size = qkv.shape[2:]
        rows, columns = self.region_size(size)
        down, across = _ceil_div(size[0], rows), _ceil_div(size[1], columns)
        # Each of these regions has a real pixel: those that S would ask for beyond the map are left out.
        regions = down * across
        topk = _at_most(self.topk, regions)
        check_pairs(self, size[0] * size[1], topk * rows * columns, self.max_tokens)
        scale = self.embed_dims**-0.5
        if not is_traced() and topk == regions:
            q, k, v = (split_heads(part, self.num_heads) for part in qkv.chunk(3, dim=1))
            return join_heads(F.scaled_dot_product_attention(q, k, v, scale=scale), size)

        padded = F.pad(qkv, (0, across * columns - size[1], 0, down * rows - size[0]))
        cut = padded.unflatten(3, (across, columns)).unflatten(2, (down, rows))  # [B, 3 C, down, rows, across, columns]
        cut = cut.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)  # [B, R, L, 3 C]
        is_real = _is_real(size, (down, across), (rows, columns), qkv.device)  # [R, L]
        chosen = self.route(cut, is_real, topk)  # [B, R, T]

        batch, channels = cut.shape[0], self.embed_dims
        first = torch.arange(batch, device=cut.device)[:, None, None] * regions
        kv = cut[..., channels:].flatten(0, 1).index_select(0, (chosen + first).flatten())  # [B R T, L, 2 C]
        kv = kv.view(batch * regions, topk * rows * columns, 2, self.num_heads, -1)
        k, v = kv.permute(2, 0, 3, 1, 4)  # [B R, h, T L, d]
        q = cut[..., :channels].flatten(0, 1).unflatten(2, (self.num_heads, -1)).transpose(1, 2)  # [B R, h, L, d]
        mask = None
        if is_traced() or down * rows != size[0] or across * columns != size[1]:
            mask = is_real[chosen].flatten(2).flatten(0, 1)[:, None, None]  # [B R, 1, 1, T L]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)

        out = out.transpose(1, 2).flatten(2).view(batch, down, across, rows, columns, channels)
        out = out.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)
        return crop_map(out, *size)

    def route(self, cut: Tensor, is_real: Tensor, topk: int) -> Tensor:
        """Choose regions for each region.

        Args:
            cut (Tensor): Queries, keys and values of the regions' pixels, zero where there is no pixel,
                ``[B, R, L, 3 C]``.
            is_real (Tensor): Where there is a pixel, ``[R, L]``.
            topk (int): ``T``.

        Returns:
            Tensor: Numbers of regions, ``[B, R, T]``.
        """
        channels = self.embed_dims
        # Close regions change places in half precision.
        with without_autocast(cut):
            means = cut[..., : 2 * channels].detach().sum(2, dtype=compute_dtype(cut)) / is_real.sum(1, keepdim=True)
            affinity = means[..., :channels] @ means[..., channels:].transpose(1, 2)
        return affinity.topk(topk, dim=2, sorted=False).indices


def _ceil_div(length: int, part: int) -> int:
    return (length + part - 1) // part


def _at_most(count: int, limit: Any) -> Any:
    """Give the lesser of a number and a size, which tracers know by a symbol or a tensor."""
    return limit.clamp(max=count) if isinstance(limit, Tensor) else torch.sym_min(count, limit)


def _is_real(size, regions, region_size, device) -> Tensor:
    """Tell which pixels of the regions the map has, ``[R, L]``."""
    inside = [
        torch.arange(count * length, device=device).unflatten(0, (count, length)) < side
        for side, count, length in zip(size, regions, region_size)
    ]
    return (inside[0][:, None, :, None] & inside[1][None, :, None, :]).flatten(2).flatten(0, 1)
