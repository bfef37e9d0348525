"""Fibottention: each head attends to pixels at its own Fibonacci-like distances.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels in raster order, ``h`` heads, ``d = C / h``, ``M`` distances.
"""

import math
import random
from functools import lru_cache

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_exported, is_traced

from .base import TokenMixer
from .heads import check_pairs, count_heads, join_heads, split_heads
from .shifts import shifted_products, shifted_sum

# Maps of fewer pixels are faster as one dense product under a mask (measured on a CPU).
DENSE_TOKENS = 128
# A sequence of so many terms reaches beyond every map.
_TERMS = 48


@MODELS.register_module()
class Fibottention(TokenMixer):
    """Attention of pixels whose distance in raster order is in a sequence of the head, a row of the Wythoff array.

    A head's sequence ends at its window, which grows from head to head up to a third of the pixels. Windows depend on
    the number of pixels, and what stands at a distance depends on the map's width: the pattern is another at each size.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: no parameter depends on the size.
        head_dims (int): Channels of a head. Defaults to 32.
        qkv_bias (bool): Whether queries, keys and values have a bias. Defaults to True.
        min_window (int): Window of the first head, in pixels of raster order. Defaults to 5.
        modified (bool): Whether sequences start two terms earlier, as the authors have it for video and robots.
            Defaults to False.
        masking (str): 'exclude' leaves all other pairs out, and the cost grows as ``N log N``. 'multiply' is the
            released code: it sets their scores to 0, so that they keep weight, and the cost grows with the square of
            the pixels. Defaults to 'exclude'.
        depth_id (int): Seed of the order in which heads take the sequences, which only renames heads; the released
            code gives each block its number. Defaults to 0.
        max_tokens (int): Maps of more pixels are refused with ``masking='multiply'``. Defaults to 4096.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, an option is out of its range, or a map is too large.

    Source:
        arXiv 2406.19391; ``fibottention.py`` and ``image_classification/vision_transformer.py`` of
        Charlotte-CharMLab/Fibottention (commit adf9919, CC-BY-4.0). There, masks are multiplied with the scores, are
        shared by all blocks, and are not applied at all where timm fuses attention. Here, distances beyond the map
        are dropped, and a pixel without any partner attends to itself. An exported model computes the dense form.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        qkv_bias: bool = True,
        min_window: int = 5,
        modified: bool = False,
        masking: str = 'exclude',
        depth_id: int = 0,
        max_tokens: int = 4096,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if masking not in ('exclude', 'multiply'):
            raise BadInputError(f"masking={masking!r} is unknown; choose 'exclude' or 'multiply'")
        if min_window < 1:
            raise BadInputError(f'min_window={min_window} must be at least 1')
        self.num_heads = count_heads(embed_dims, head_dims)
        self.min_window, self.modified, self.masking = min_window, modified, masking
        self.depth_id, self.max_tokens = depth_id, max_tokens
        self.qkv = nn.Conv2d(embed_dims, 3 * embed_dims, 1, bias=qkv_bias)
        self.proj = nn.Conv2d(embed_dims, embed_dims, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        q, k, v = self.qkv(x).chunk(3, dim=1)
        num_tokens = x.shape[2] * x.shape[3]
        if self.masking == 'multiply':
            check_pairs(self, num_tokens, num_tokens, self.max_tokens)
        elif not _serves_all_sizes() and num_tokens > DENSE_TOKENS:
            offsets = self.offsets(num_tokens)
            if all(2 * row[0] <= num_tokens for row in offsets):  # each pixel has a partner
                return self.proj(_attend_sparsely(q, k, v, offsets))
        q, k, v = (split_heads(part, self.num_heads) for part in (q, k, v))
        mask = self.dense_mask(num_tokens, x.device)
        if self.masking == 'exclude':
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        else:
            scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
            out = (scores * mask).softmax(dim=3) @ v
        return self.proj(join_heads(out, x.shape[2:]))

    def offsets(self, num_tokens: int) -> tuple[tuple[int, ...], ...]:
        """Give the distances of each head on a map of so many pixels; see :func:`wythoff_offsets`."""
        rows = wythoff_offsets(self.num_heads, num_tokens, self.min_window, self.modified)
        return tuple(rows[row] for row in head_order(self.num_heads, self.depth_id))

    def dense_mask(self, num_tokens: int, device: torch.device) -> Tensor:
        """Tell which pairs of pixels each head takes, ``[h, N, N]``.

        It says the same as :meth:`offsets`, by operators, so that a traced model takes every size.
        """
        order = head_order(self.num_heads, self.depth_id)
        terms = torch.tensor([_sequence(row + 1, self.modified) for row in order], device=device)  # [h, M]
        numbers = torch.arange(num_tokens, device=device)
        third = torch.div(numbers[-1] + 1, 3, rounding_mode='floor').double()
        row = torch.tensor(order, device=device, dtype=torch.float64)
        if self.num_heads > 1:
            window = self.min_window + ((third - self.min_window) / (self.num_heads - 1) * row).trunc()
        else:
            window = third + row
        is_taken = terms <= window[:, None]
        is_taken[:, 0] = True
        allowed = ((terms[:, :, None] == numbers) & is_taken[:, :, None]).any(1)  # [h, N]
        distance = (numbers[:, None] - numbers).abs()
        mask = allowed[:, distance]
        if self.masking == 'exclude':
            mask = mask | ~mask.any(2, keepdim=True) & (distance == 0)
        return mask


def wythoff_offsets(
    num_heads: int, num_tokens: int, min_window: int = 5, modified: bool = False
) -> tuple[tuple[int, ...], ...]:
    """Give the distances of each row of the Wythoff array that fall into its window.

    The first distance of a row is given even where it is larger than the window, or than the map.

    Args:
        num_heads (int): Rows.
        num_tokens (int): ``N``, which sets the windows: linearly from ``min_window`` to ``N / 3``.
        min_window (int): Window of the first row. Defaults to 5.
        modified (bool): Whether rows start two terms earlier. Defaults to False.

    Returns:
        tuple[tuple[int, ...], ...]: A rising sequence for each row.
    """
    third = num_tokens // 3
    rows = []
    for row in range(num_heads):
        # In this order of operations, which rounds as the authors' code does.
        grown = min_window + math.trunc((third - min_window) / (num_heads - 1) * row) if num_heads > 1 else third
        first, *others = _sequence(row + 1, modified)
        rows.append((first, *(term for term in others if term <= grown)))
    return tuple(rows)


@lru_cache
def head_order(num_heads: int, depth_id: int) -> tuple[int, ...]:
    """Give the row that each head takes, by a generator of its own that ``depth_id`` seeds."""
    order = list(range(num_heads))
    random.Random(depth_id).shuffle(order)
    return tuple(order)


@lru_cache
def _sequence(row: int, modified: bool) -> tuple[int, ...]:
    """Give the first terms of a row of the Wythoff array, counted from 1."""
    golden = (1 + math.sqrt(5)) / 2
    start = math.floor(row * golden)
    a, b = math.floor(start * golden), math.floor(start * golden**2)
    if modified:
        a, b = 2 * a - b, b - a
    terms = [a, b]
    while len(terms) < _TERMS:
        terms.append(terms[-1] + terms[-2])
    return tuple(terms)


def _serves_all_sizes() -> bool:
    """Tell whether one graph is being made for all sizes; a compiler makes others as it meets them."""
    tells_export = hasattr(torch.compiler, 'is_exporting')  # from PyTorch 2.7 on
    return is_exported() or is_traced() and not tells_export


def _attend_sparsely(q: Tensor, k: Tensor, v: Tensor, offsets: tuple[tuple[int, ...], ...]) -> Tensor:
    """Attend at the distances of each head, through shifted views of the map; ``[B, C, H, W]`` all."""
    heads = (part.flatten(2).unflatten(1, (len(offsets), -1)).unsqueeze(3).split(1, dim=1) for part in (q, k, v))
    outs = [_attend_at_distances(*head) for head in zip(*heads, offsets)]
    return torch.cat(outs, dim=1).view(q.shape)


def _attend_at_distances(q: Tensor, k: Tensor, v: Tensor, distances: tuple[int, ...]) -> Tensor:
    """Attend to pixels before and after each pixel; all are maps of one row, ``[B, 1, d, 1, N]``."""
    num_tokens = q.shape[4]
    steps = sorted({sign * distance for distance in distances if distance < num_tokens for sign in (-1, 1)})
    margin = steps[-1]
    shifts = [(0, margin + step) for step in steps]
    scores = shifted_products(q * q.shape[2] ** -0.5, F.pad(k, (margin, margin)), shifts)  # [B, 1, M, 1, N]
    partner = torch.arange(num_tokens, device=q.device) + torch.tensor(steps, device=q.device)[:, None, None]
    weights = scores.masked_fill((partner < 0) | (partner >= num_tokens), -torch.inf).softmax(dim=2)
    return shifted_sum(weights, F.pad(v, (margin, margin)), shifts)
