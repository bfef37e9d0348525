"""Neighbourhood attention: each pixel attends to the pixels around it, also at a distance (dilated).

Shape letters: ``B`` images, ``C`` channels, ``h`` heads, ``d = C / h``, ``L`` pixels of an axis, ``k`` kernel.
"""

import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced

from .base import TokenMixer
from .convolutions import truncate_start_values
from .heads import count_heads
from .neighborhood_tiles import AxisTiles

BACKENDS = (None, 'natten', 'tiles')


@MODELS.register_module()
class NeighborhoodAttention(TokenMixer):
    """Attention of each pixel to a window of ``k x k`` pixels; its cost grows linearly with the pixels.

    At the border the window is shifted inward and keeps its ``k`` keys, so that no padding exists. With a dilation
    ``D`` the pixels of an axis fall into ``D`` interleaved groups, and windows lie inside of a group. Where a side is
    too short for both, the dilation shrinks to ``max(1, min(D, L // k))``, and a side of less than ``k`` pixels is
    attended to as a whole.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused; no parameter depends on it.
        kernel_size (int | tuple[int, int]): ``k``, of height and width; even ones reach one pixel farther to the left
            and above. Defaults to 7.
        dilation (int | tuple[int, int]): ``D``, of height and width. Defaults to 1.
        head_dims (int): ``d``. Defaults to 32.
        rel_pos_bias (bool): Whether a learned bias for each relative position is added to the scores, as in the papers;
            NATTEN has none since 0.20. Defaults to False.
        qkv_bias (bool): Whether queries, keys and values have a bias. Defaults to True.
        backend (str, optional): 'natten': kernels of the package natten, for CUDA. 'tiles': PyTorch's attention on
            overlapping tiles of the map, everywhere. None takes natten where it is installed and can run.
            Defaults to None.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, an option is out of its range, or natten is asked for by
            name and cannot run.

    Source:
        arXiv 2204.07143 (NAT), 2209.15001 (DiNAT); ``NeighborhoodAttention2D`` of SHI-Labs/NATTEN (commit 8c8729f, MIT;
        the bias: tag v0.14.6). NATTEN refuses sides of less than ``k * D`` pixels. NAT's old module zero-pads them and
        lets pixels attend to the padding, which this one does not.
    """

    original_names = ((r'^bias$', 'rpb'),)

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        kernel_size: int | tuple[int, int] = 7,
        dilation: int | tuple[int, int] = 1,
        head_dims: int = 32,
        rel_pos_bias: bool = False,
        qkv_bias: bool = True,
        backend: str | None = None,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.num_heads = count_heads(embed_dims, head_dims)
        self.kernel_size = _pair('kernel_size', kernel_size)
        self.dilation = _pair('dilation', dilation)
        if backend not in BACKENDS:
            raise BadInputError(f'backend={backend!r} is unknown; choose one of {BACKENDS}')
        self.backend = backend
        # The function, not the package: a model must be copied, and modules of Python cannot be.
        self.na2d: Any = None if backend == 'tiles' else _find_na2d(is_asked_for=backend == 'natten')
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims, bias=qkv_bias)
        self.proj = nn.Linear(embed_dims, embed_dims)
        self.bias = None
        if rel_pos_bias:
            self.bias = nn.Parameter(torch.empty(self.num_heads, *(2 * k - 1 for k in self.kernel_size)))
            nn.init.trunc_normal_(self.bias, std=0.02)
        truncate_start_values(self.qkv, self.proj)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        qkv = self.qkv(x.permute(0, 2, 3, 1))  # [B, H, W, 3 C]
        obstacle = self.why_no_natten(qkv)
        if obstacle is None:
            y = self._attend_by_natten(qkv)
        elif self.backend == 'natten':
            raise BadInputError(f"backend='natten' cannot run here: {obstacle}; backend=None takes one that can")
        else:
            y = self._attend_in_tiles(qkv)
        return self.proj(y).permute(0, 3, 1, 2)

    def why_no_natten(self, x: Tensor) -> str | None:
        """Say why the kernels of natten cannot compute a map.

        Args:
            x (Tensor): ``[B, H, W, ...]``, of the dtype of queries and keys.

        Returns:
            str | None: The reason; None where they can.
        """
        if self.na2d is None:
            return "the package natten, from 0.21 on, is not installed, or backend='tiles' was asked for"
        if is_traced():
            return 'the model is traced or compiled'
        if not x.is_cuda:
            return f'x is on {x.device}, and they train on CUDA only'
        if self.bias is not None:
            return 'they have no relative position bias'
        if x.dtype not in (torch.float32, torch.float16, torch.bfloat16):
            return f'they know float32, float16 and bfloat16, x is {x.dtype}'
        if (self.embed_dims // self.num_heads) % 8:
            return f'they need heads of a multiple of 8 channels, these have {self.embed_dims // self.num_heads}'
        for side, kernel, dilation in zip(x.shape[1:3], self.kernel_size, self._fit_dilation(x)):
            if min(side, kernel) < 2 or kernel * dilation > side:
                return f'a side of {side} pixels is too short for a kernel of {kernel}'
        return None

    def _fit_dilation(self, x: Tensor) -> tuple[Any, ...]:
        """Give the dilations that the sides of ``[B, H, W, ...]`` have room for; tracers know them by symbols."""
        sides = zip(x.shape[1:3], self.kernel_size, self.dilation)
        return tuple(
            1 if dilation == 1 else torch.sym_max(1, torch.sym_min(dilation, side // kernel))
            for side, kernel, dilation in sides
        )

    def _attend_by_natten(self, qkv: Tensor) -> Tensor:
        """Map ``[B, H, W, 3 C]`` to ``[B, H, W, C]``."""
        q, k, v = qkv.unflatten(3, (3, self.num_heads, -1)).unbind(3)  # [B, H, W, h, d]
        y = self.na2d(q, k, v, kernel_size=self.kernel_size, dilation=self._fit_dilation(qkv))
        return y.flatten(3)

    def _attend_in_tiles(self, qkv: Tensor) -> Tensor:
        """Map ``[B, H, W, 3 C]`` to ``[B, H, W, C]``.

        Neighbouring queries share most of their keys. A tile of queries therefore attends to the union of their
        windows, under a mask: keys and values are copied a few times instead of ``k x k`` times.
        """
        rows, columns = (
            AxisTiles(side, kernel, dilation, qkv.device)
            for side, kernel, dilation in zip(qkv.shape[1:3], self.kernel_size, self._fit_dilation(qkv))
        )
        q, kv = qkv.split([self.embed_dims, 2 * self.embed_dims], dim=3)
        (q,) = self._cut(q, rows.queries, columns.queries)  # [tiles, h, B, queries, d]
        k, v = self._cut(kv, rows.keys, columns.keys)
        mask = _outer(rows.mask, columns.mask).flatten(0, 1).flatten(1, 2).flatten(2)[:, None]  # [tiles, 1, q, keys]
        # Four dimensions, which the fused kernels of attention want: the mask is shared by what is in the second one.
        first = 1
        if self.bias is not None:
            bias = self.bias[:, rows.offsets][..., columns.offsets]  # [h, I, qi, ki, J, qj, kj]
            bias = bias.permute(1, 4, 0, 2, 5, 3, 6).flatten(0, 1).flatten(2, 3).flatten(3)  # [tiles, h, queries, keys]
            mask = bias.to(q.dtype).masked_fill(~mask, float('-inf')).flatten(0, 1)[:, None]
            first = 0
        joined = q.shape[first : first + 2]
        q, k, v = (part.flatten(first, first + 1) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask).unflatten(first, joined)
        # Back from tiles to rows and columns.
        y = y.unflatten(3, (rows.queries.shape[1], -1)).unflatten(0, (rows.queries.shape[0], -1))
        y = y.permute(3, 0, 4, 1, 5, 2, 6).flatten(1, 2).flatten(2, 3).flatten(3)  # of [I, J, h, B, i, j, d]
        return y.index_select(1, rows.places).index_select(2, columns.places)

    def _cut(self, x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        """Copy pixels into tiles, ``[B, H, W, parts C], [I, i], [J, j] -> [parts, I J, h, B, i j, d]``."""
        x = x.index_select(1, rows.flatten()).index_select(2, columns.flatten())
        x = x.unflatten(3, (-1, self.num_heads, self.embed_dims // self.num_heads))
        x = x.unflatten(2, columns.shape).unflatten(1, rows.shape)  # [B, I, i, J, j, parts, h, d]
        return x.permute(5, 1, 3, 6, 0, 2, 4, 7).flatten(5, 6).flatten(1, 2)


def _outer(rows: Tensor, columns: Tensor) -> Tensor:
    """Combine the masks of two axes, ``[I, i, a], [J, j, b] -> [I, J, i, j, a, b]``."""
    return rows[:, None, :, None, :, None] & columns[None, :, None, :, None, :]


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or not all(isinstance(side, int) and side >= 1 for side in pair):
        raise BadInputError(f'{name}={value!r} must be a positive integer, or two of them for height and width')
    return pair


def _find_na2d(is_asked_for: bool) -> Callable | None:
    """Give the attention of natten; None where the package is missing and nobody asked for it."""
    if importlib.util.find_spec('natten') is not None:
        import natten

        if hasattr(natten, 'na2d'):
            return natten.na2d
    if is_asked_for:
        raise BadInputError(
            "backend='natten' needs the package natten, from 0.21 on; pip install vik_mm[natten], or take "
            "backend='tiles', which gives the same values"
        )
    return None
