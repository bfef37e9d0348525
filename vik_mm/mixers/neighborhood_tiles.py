"""How one axis of a map is cut into tiles of queries, each with the keys that its queries see.

Shape letters: ``L`` pixels of the axis, ``k`` kernel, ``D`` dilation, ``T`` tiles, ``q`` queries and ``u`` keys
of a tile.
"""

import torch
from torch import Tensor

from vik_mm.ops import is_traced

TILE = 8  # queries of a tile on each axis, at most: 64 of a square tile share 14 x 14 keys of a 7 x 7 kernel


class AxisTiles:
    """Index tables of one axis; all of them are made by arithmetic on its length, so that traces hold for any.

    Pixel ``i`` is member ``t = i // D`` of the group ``r = i % D``, which has ``L_r`` members. It sees the members
    ``s ... s + k - 1`` of its group, ``s = clamp(t - k // 2, 0, L_r - k)``, or all of a group that has less than ``k``.
    A tile holds consecutive members of one group.

    Args:
        length (int): ``L``.
        kernel (int): ``k``.
        dilation (int): ``D``, at most ``max(1, L // k)``.
        device (torch.device): Where the tables are to be.

    Attributes:
        queries (Tensor): Pixels of the queries, ``[T, q]``; tiles at a group's end repeat its last pixel.
        keys (Tensor): Pixels of the keys, ``[T, u]``.
        mask (Tensor): Whether a query sees a key, ``[T, q, u]``.
        offsets (Tensor): Row of a table of ``2 k - 1`` relative positions for each pair, ``[T, q, u]``; of pairs that
            do not see each other it is any.
        places (Tensor): Where in the flattened ``queries`` each pixel is, ``[L]``.
    """

    def __init__(self, length: int, kernel: int, dilation: int, device: torch.device):
        members = (length + dilation - 1) // dilation  # of the largest group
        tiles = (members + TILE - 1) // TILE  # of each group
        # Equal tiles waste the fewest queries; traced sizes keep the tile's, which is then a number in the graph.
        tile = TILE if is_traced() else (members + tiles - 1) // tiles
        union = tile + kernel - 1 if is_traced() else min(tile + kernel - 1, members)

        def count(number: int) -> Tensor:
            return torch.arange(number, device=device)

        number = count(dilation * tiles)[:, None]  # [T, 1]
        group = number // tiles
        first = (number - group * tiles) * tile  # no remainders, which ONNX does not take of traced sizes
        last = (length - group + dilation - 1) // dilation - 1  # the group's last member
        latest = (last + 1 - kernel).clamp(min=0)  # where the last window of the group starts
        query = torch.minimum(first + count(tile), last)  # [T, q]
        start = torch.minimum((query - kernel // 2).clamp(min=0), latest)[:, :, None]
        key = torch.minimum((first - kernel // 2).clamp(min=0), latest) + count(union)  # [T, u]

        self.mask = (key[:, None] >= start) & (key[:, None] < start + kernel) & (key <= last)[:, None]
        key = torch.minimum(key, last)
        self.offsets = (key[:, None] - query[:, :, None] + kernel - 1).clamp(0, 2 * kernel - 2)
        self.queries = query * dilation + group
        self.keys = key * dilation + group
        pixel = count(length)
        member = pixel // dilation
        self.places = (pixel - member * dilation) * (tiles * tile) + member
