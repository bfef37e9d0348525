"""NPRF: attention by random features of normalized queries and keys, weighed by relative position.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d`` channels of a head, ``m`` features.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_exported, is_traced
from vik_mm.ops.backends import compute_dtype, without_autocast

from .base import TokenMixer
from .convolutions import truncate_start_values
from .heads import check_pairs, count_heads
from .windows import relative_bias

BACKENDS = ('dense', 'fft')


@MODELS.register_module()
class NPRFAttention(TokenMixer):
    r"""Kernelized attention with a learned weight for each offset of the key from the query.

    .. math:: z_i = \frac{\sum_j e^{b_{j-i}} \phi(q_i)\cdot\phi(k_j)\, v_j}{\sum_j e^{b_{j-i}} \phi(q_i)\cdot\phi(k_j)},
        \quad \phi(x) = \exp(W x / \lVert x \rVert)

    The random directions ``W`` are drawn once and kept in the state dict. Two forms give the same answer: 'dense'
    makes the weights of all pairs of pixels, with time and memory that grow with ``N^2``, and 'fft' sees a correlation
    over offsets in the sums, with time that grows with ``m C N log N`` and memory with ``m C N``. In float32 the 'fft'
    form resolves weights down to a millionth of the largest one.

    With ``backend=None`` an exported program has the 'dense' form. ``backend='fft'`` cannot be exported for maps of any
    size, because a graph fixes the lengths of its transforms.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map that the biases ``b`` belong to. On a map of another
            size they are resized linearly, with offset 0 in the middle: offsets scale with the map.
        head_dims (int): Channels of a head. Defaults to 32.
        num_features (int): ``m``, random directions of a head. Defaults to 32.
        backend (str, optional): 'dense' or 'fft'; None takes 'dense' for up to :attr:`dense_tokens` pixels and 'fft'
            for more. Defaults to None.
        max_tokens (int): The most pixels that the 'dense' form takes. Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, ``num_features`` is less than 1, ``backend`` is unknown,
            or the map has more pixels than the 'dense' form takes.

    Source:
        arXiv 2106.12566, sections 3.2 and 3.3; written from its formulas. The number of features, and what another size
        of map does, are this project's.
    """

    original_names = ()
    dense_tokens = 3136
    """The most pixels of a map that ``backend=None`` takes the 'dense' form for."""

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        num_features: int = 32,
        backend: str | None = None,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if not isinstance(num_features, int) or num_features < 1:
            raise BadInputError(f'num_features={num_features!r} must be an integer of at least 1')
        if backend is not None and backend not in BACKENDS:
            raise BadInputError(f'backend={backend!r} is unknown; choose one of {list(BACKENDS)}, or None')
        self.num_heads = count_heads(embed_dims, head_dims)
        self.backend, self.max_tokens = backend, max_tokens
        self.rel_bias = nn.Parameter(torch.zeros(self.num_heads, *(2 * side - 1 for side in grid_size)))
        self.register_buffer('features', torch.randn(self.num_heads, num_features, head_dims))
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)
        truncate_start_values(self.qkv, self.proj)
        self._register_load_state_dict_pre_hook(self._resize_loaded_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        attend = self._attend_fft if self.choose_backend(size) == 'fft' else self._attend_dense
        qkv = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).to(compute_dtype(x)).unbind()  # [B, h, N, d]
        with without_autocast(x):  # half precision has neither the range of sums over all pixels nor their transforms
            answer = attend(self._features_of(q), self._features_of(k), v, size)
        answer = answer.to(qkv.dtype).transpose(1, 2).flatten(2)
        return self.proj(answer).transpose(1, 2).unflatten(2, size)

    def choose_backend(self, size: Sequence[int]) -> str:
        """Give the form that a map of height and width ``size`` is computed in, 'dense' or 'fft'."""
        if self.backend is not None:
            return self.backend
        return 'dense' if is_exported() or size[0] * size[1] <= self.dense_tokens else 'fft'

    def _features_of(self, x: Tensor) -> Tensor:
        """Compute ``phi``, ``[B, h, N, d] -> [B, h, N, m]``."""
        # The length of what phi takes is 1, so that its factor exp(-|x|^2 / 2) / sqrt(m) cancels in the ratio.
        return (F.normalize(x, dim=-1) @ self.features.to(x.dtype).transpose(1, 2)).exp()

    def _position_weights(self, size: Sequence[int], dtype: torch.dtype) -> Tensor:
        """Compute ``exp(b)`` of all offsets on a map of ``size``, ``[h, 2 H - 1, 2 W - 1]``."""
        bias = resize_offsets(self.rel_bias.to(dtype), size)
        # A common factor cancels in the ratio; this one keeps exp from overflowing.
        return (bias - bias.detach().amax((1, 2), keepdim=True)).exp()

    def _attend_dense(self, q: Tensor, k: Tensor, v: Tensor, size: Sequence[int]) -> Tensor:
        """Attend with all pairs' weights; features ``[B, h, N, m]``, values and answer ``[B, h, N, d]``."""
        check_pairs(self, q.shape[2], q.shape[2], self.max_tokens, "or set backend='fft'; ")
        weights = (q @ k.transpose(2, 3)) * relative_bias(self._position_weights(size, q.dtype), size)
        return (weights @ v) / weights.sum(dim=-1, keepdim=True)

    def _attend_fft(self, q: Tensor, k: Tensor, v: Tensor, size: Sequence[int]) -> Tensor:
        """Attend with sums over offsets; features ``[B, h, N, m]``, values and answer ``[B, h, N, d]``."""
        height, width = size
        padded = [_fast_length(2 * side - 1) for side in size]  # so that no sum goes around the map
        weights = self._position_weights(size, q.dtype)
        weights = F.pad(weights, (0, padded[1] - weights.shape[2], 0, padded[0] - weights.shape[1]))
        weights = torch.fft.rfft2(weights.roll((1 - height, 1 - width), (1, 2))).conj()[:, None, None]
        v = torch.cat([v, v.new_ones(1).expand(*v.shape[:3], 1)], dim=3).transpose(2, 3)  # [B, h, d + 1, N]

        answer: Any = 0  # a tensor from the first features on
        # A few features at a time: the maps of all of them would not fit a cache, and large ones not the memory.
        for some_q, some_k in zip(q.split(4, dim=3), k.split(4, dim=3)):
            maps = (some_k.transpose(2, 3)[:, :, :, None] * v[:, :, None]).unflatten(4, size)  # [B, h, 4, d + 1, H, W]
            sums = torch.fft.irfft2(torch.fft.rfft2(maps, padded) * weights, padded)[..., :height, :width]
            answer = answer + (sums.flatten(4) * some_q.transpose(2, 3)[:, :, :, None]).sum(dim=2)
        return (answer[:, :, :-1] / answer[:, :, -1:]).transpose(2, 3)

    def _resize_loaded_bias(self, state_dict, prefix, *_):
        """Resize the biases of a checkpoint made for another grid."""
        found = state_dict.get(prefix + 'rel_bias')
        if found is None or found.shape == self.rel_bias.shape or found.ndim != 3:
            return
        if found.shape[0] != self.num_heads or any(count % 2 == 0 for count in found.shape[1:]):
            return  # other heads, or no table of offsets: load_state_dict says so
        state_dict[prefix + 'rel_bias'] = resize_offsets(found, self.grid_size)
        old = tuple((count + 1) // 2 for count in found.shape[1:])
        self.resampled_from = f'rel_bias from a grid of {old} to {tuple(self.grid_size)}'


def resize_offsets(table: Tensor, size: Sequence[int]) -> Tensor:
    """Resize a table of offsets linearly to a map of another size; offset 0 stays, and offsets scale with the map.

    Args:
        table (Tensor): ``[h, 2 h' - 1, 2 w' - 1]``, offset 0 in the middle.
        size (Sequence[int]): ``H`` and ``W``.

    Returns:
        Tensor: ``[h, 2 H - 1, 2 W - 1]``; a side of 1 takes the middle itself.
    """
    if not is_traced() and all(count == 2 * side - 1 for count, side in zip(table.shape[1:], size)):
        return table
    down, across = (_interpolation(count, side, table) for count, side in zip(table.shape[1:], size))
    return down @ table @ across.t()


def _interpolation(count: int, side: int, table: Tensor) -> Tensor:
    """Weights of ``count`` old offsets in each of the ``2 side - 1`` new ones."""
    middle = count // 2
    new = torch.arange(2 * side - 1, device=table.device, dtype=table.dtype)[:, None]
    last = new[-1:] / 2  # side - 1
    place = (new - last) * (middle / last.clamp(min=1)) + middle  # a side of 1 has offset 0 only
    return (1 - (place - torch.arange(count, device=table.device, dtype=table.dtype)).abs()).clamp(min=0)


def _fast_length(length: int) -> int:
    """Give the next length that has no prime factors but 2, 3 and 5, which transforms are fast for."""
    while True:
        rest = length
        for factor in (2, 3, 5):
            while rest % factor == 0:
                rest //= factor
        if rest == 1:
            return length
        length += 1
