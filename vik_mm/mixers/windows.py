"""Attention among groups of a map's pixels: windows of neighbours, and grids spread over the whole map.

Shape letters: ``B`` images, ``C`` channels, ``h`` heads, ``d`` channels of a head, ``I`` and ``J`` groups down and
across, ``S`` and ``T`` rows and columns of a group, ``K`` values of a pixel.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import crop_map, is_traced

from .convolutions import truncate_start_values


class WindowAttention(nn.Module):
    """Multi-head softmax attention among the pixels of each group.

    Where ``window_size`` does not divide a side, the map is filled up right and below, and the answer is cropped.

    Args:
        embed_dims (int): Channels ``C``.
        num_heads (int): ``h``; divides ``C``.
        window_size (int): Rows and columns of a group, in pixels. Defaults to 7.
        spread (bool): Whether a group is a grid of pixels at equal distances over the whole map, instead of a window of
            neighbours. Defaults to False.
        position_bias (bool): Whether scores get a learned bias for the place of the key less that of the query in their
            group. Defaults to False.
        mask_padding (bool): Whether padding is hidden from the pixels. Otherwise it takes part as zeros, whose keys and
            values are the biases of the projection. Defaults to False.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(
        self,
        embed_dims: int,
        num_heads: int,
        window_size: int = 7,
        spread: bool = False,
        position_bias: bool = False,
        mask_padding: bool = False,
    ):
        super().__init__()
        self.num_heads, self.window_size = num_heads, window_size
        self.spread, self.mask_padding = spread, mask_padding
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        places = 2 * window_size - 1
        self.position_bias = nn.Parameter(torch.empty(num_heads, places, places)) if position_bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the start values: truncated normal of 0.02, biases of projections zero."""
        truncate_start_values(self.qkv, self.proj)
        if self.position_bias is not None:
            nn.init.trunc_normal_(self.position_bias, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        batch, _, height, width = x.shape
        side = self._group_side(height, width)
        x, inside = fill_up(x.permute(0, 2, 3, 1), side)
        groups = split_windows(x, side, self.spread)  # [B, I, J, S, T, C]
        qkv = self.qkv(groups.flatten(3, 4).flatten(0, 2)).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()  # [B I J, h, S T, d]
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=self._score_bias(q, side, inside, batch))
        answer = self.proj(answer.transpose(1, 2).flatten(2)).view(groups.shape)
        return crop_map(merge_windows(answer, self.spread), height, width, dim=1).permute(0, 3, 1, 2)

    def _group_side(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of a group; those of a smaller map where its padding would be hidden anyway."""
        if not self.mask_padding or is_traced():
            return self.window_size, self.window_size
        return min(height, self.window_size), min(width, self.window_size)

    def _score_bias(self, q: Tensor, side: tuple[int, int], inside: Tensor | None, batch: int) -> Tensor | None:
        """What is added to the scores: ``[1 or B I J, h or 1, S T or 1, S T]``, or None."""
        bias = None
        if self.position_bias is not None:
            bias = relative_bias(self.position_bias, side)[None].to(q.dtype)
        if inside is None or not self.mask_padding:
            return bias
        keys = split_windows(inside[None, ..., None], side, self.spread).flatten(3).flatten(0, 2)[:, None, None]
        mask = keys if bias is None else bias.masked_fill(~keys, float('-inf'))  # [I J, ...]
        return mask[None].expand(batch, *mask.shape).flatten(0, 1)


def check_window_size(window_size: int) -> None:
    """Refuse sides of windows that are no positive integers.

    Args:
        window_size (int): In pixels.

    Raises:
        BadInputError: If it is less than 1, or no integer.
    """
    if not isinstance(window_size, int) or window_size < 1:
        raise BadInputError(f'window_size={window_size!r} must be an integer of at least 1, in pixels')


def split_windows(x: Tensor, side: tuple[int, int], spread: bool = False) -> Tensor:
    """Cut a map into groups of pixels.

    Args:
        x (Tensor): ``[B, I S, J T, K]``.
        side (tuple[int, int]): ``S`` and ``T``.
        spread (bool): Whether a group is a grid of pixels, ``I`` rows and ``J`` columns apart, instead of a window of
            neighbours. Defaults to False.

    Returns:
        Tensor: ``[B, I, J, S, T, K]``.
    """
    batch, height, width, values = x.shape
    down, across = height // side[0], width // side[1]
    if spread:
        return x.reshape(batch, side[0], down, side[1], across, values).permute(0, 2, 4, 1, 3, 5)
    return x.reshape(batch, down, side[0], across, side[1], values).transpose(2, 3)


def merge_windows(groups: Tensor, spread: bool = False) -> Tensor:
    """Put groups of pixels back where :func:`split_windows` cut them.

    Args:
        groups (Tensor): ``[B, I, J, S, T, K]``.
        spread (bool): As it was there. Defaults to False.

    Returns:
        Tensor: ``[B, I S, J T, K]``.
    """
    x = groups.permute(0, 3, 1, 4, 2, 5) if spread else groups.transpose(2, 3)
    return x.flatten(3, 4).flatten(1, 2)


def relative_bias(table: Tensor, side: Sequence[int]) -> Tensor:
    """Look up the bias of each pair of pixels of a group.

    Args:
        table (Tensor): ``[h, 2 P - 1, 2 Q - 1]``, by rows and columns of the key less those of the query; 0 is in the
            middle.
        side (Sequence[int]): ``S <= P`` and ``T <= Q``.

    Returns:
        Tensor: ``[h, S T, S T]``, queries by keys.
    """
    offsets = []
    for length, count in zip(table.shape[1:], side):
        place = torch.arange(count, device=table.device)
        offsets.append(place - place[:, None] + length // 2)
    bias = table[:, offsets[0][:, None, :, None], offsets[1][None, :, None, :]]  # [h, S, T, S, T]
    return bias.flatten(3, 4).flatten(1, 2)


def fill_up(x: Tensor, side: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Zero-pad a map right and below, so that windows of ``side`` cover it.

    Args:
        x (Tensor): ``[B, H, W, K]``.
        side (tuple[int, int]): Rows and columns of a window.

    Returns:
        tuple[Tensor, Tensor | None]: ``[B, H', W', K]``, and ``[H', W']``, true on the map; None without padding.
    """
    height, width = x.shape[1:3]
    # Not ``-height % side``, which PyTorch's compiler cannot take of a size that varies.
    filled = [(length + count - 1) // count * count for length, count in zip((height, width), side)]
    if not is_traced() and filled == [height, width]:
        return x, None
    x = F.pad(x, (0, 0, 0, filled[1] - width, 0, filled[0] - height))
    rows, columns = (torch.arange(length, device=x.device) for length in filled)
    return x, (rows < height)[:, None] & (columns < width)
