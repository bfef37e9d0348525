"""Mixture-of-head attention: each pixel weighs the heads, and keeps only some of them.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d = C / h``, ``s`` shared heads, ``E = h - s``
routed ones, ``P`` pooled keys, ``H0`` and ``W0`` height and width of the native grid.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import average_to_grid, is_traced
from vik_mm.ops.backends import compute_dtype

from .base import TokenMixer
from .convolutions import pointwise, truncate_start_values, zero_bias
from .head_gates import HeadGates
from .heads import check_pairs, count_heads, join_heads, split_heads

WINDOW = 3  # side of the local window, in pixels
TAPS = WINDOW**2
BIAS_DIMS = 512  # hidden channels of the network that gives the position bias


@MODELS.register_module()
class MixtureOfHeadAttention(TokenMixer):
    """Cosine attention whose heads are weighed by each pixel before they are projected.

    Some heads are shared: all pixels keep them. Of the others, the routed ones, each pixel keeps ``routed_heads``. All
    heads are computed, so that no time is saved. The attention itself is that of TransNeXt. With ``sr_ratio=1`` all
    pixels attend to all, and the cost grows with the square of the pixels. Else each pixel attends to the 3 x 3 pixels
    around it and to a pooled map; with ``pool_size`` the cost is then linear in pixels.

    In training, :attr:`balance_loss` holds the loss of the last pass that spreads pixels over the routed heads. A
    model learns from it where ``custom_hooks`` has :class:`vik_mm.engine.hooks.BalanceLossHook`.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Native grid: height and width of the map at the backbone's ``img_size``. Relative
            positions are measured in it.
        head_dims (int): ``d``. Defaults to 16.
        shared_heads (int, optional): ``s``; 0 routes all. None is ``max(1, h // 4)``. Defaults to None.
        routed_heads (int, optional): Heads that each pixel keeps of the ``E``; 0 needs all heads to be shared. None is
            ``max(1, h // 2)``, and at most ``E``. Defaults to None.
        sr_ratio (int, optional): Pixels per side of a cell of the pooled map; 1 attends to all pixels. None is
            ``max(1, min(grid_size) // 7)``: set it to carry a checkpoint to another ``img_size``. Defaults to None.
        pool_size (int, optional): Cells per side of the pooled map for every size, instead of ``H // sr_ratio`` and
            ``W // sr_ratio``. Defaults to None.
        qkv_bias (bool): Whether queries, keys and values have a bias. Defaults to True.
        max_tokens (int): Maps with more pairs of pixels and keys than attention among so many pixels has are refused.
            Defaults to 16384.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If heads do not suit the channels or each other, an option is out of its range, a map is too
            large, or a checkpoint is of the other kind of attention.

    Source:
        arXiv 2410.11842; ``Attention`` and ``AggregatedAttention`` of ``MoH-ViT`` (SkyworkAI/MoH, commit 2cefd57,
        Apache-2.0). The release ties masks and coordinates to one size; here they follow from the map at hand. It
        collects the balance loss in a list of the class, which grows where nobody empties it. It cannot be built with
        one shared head and no routed one. The authors keep weight decay from ``query_embedding``, ``local_bias``,
        ``cpb`` and ``temperature``.
    """

    original_names = (
        (r'^cpb\.0\.', 'cpb_fc1.'),
        (r'^cpb\.2\.', 'cpb_fc2.'),
        (r'^gates\.routed\.', 'wg.'),
        (r'^gates\.kinds\.', 'wg_0.'),
        (r'^gates\.shared\.', 'wg_1.'),
        (r'^pool\.', 'sr.'),
        (r'^pool_norm\.', 'norm.'),
        (r'^local_bias$', 'relative_pos_bias_local'),
        (r'^local_tokens$', 'learnable_tokens'),
        (r'^local_weights$', 'learnable_bias'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 16,
        shared_heads: int | None = None,
        routed_heads: int | None = None,
        sr_ratio: int | None = None,
        pool_size: int | None = None,
        qkv_bias: bool = True,
        max_tokens: int = 16384,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        heads = self.num_heads = count_heads(embed_dims, head_dims)
        self.sr_ratio = max(1, min(grid_size) // 7) if sr_ratio is None else sr_ratio
        if self.sr_ratio < 1 or (pool_size is not None and pool_size < 1):
            raise BadInputError(f'sr_ratio={sr_ratio} and pool_size={pool_size} must be at least 1')
        self.pool_size, self.max_tokens = pool_size, max_tokens
        self.gates = HeadGates(embed_dims, heads, shared_heads, routed_heads)
        self.query_embedding = nn.Parameter(torch.empty(heads, 1, head_dims))
        # The softplus of it is 1 / 0.24.
        self.temperature = nn.Parameter(torch.full((heads, 1, 1), math.log(math.expm1(1 / 0.24))))
        self.cpb = nn.Sequential(nn.Linear(2, BIAS_DIMS), nn.ReLU(), nn.Linear(BIAS_DIMS, heads))
        self.proj = pointwise(embed_dims, embed_dims)
        nn.init.trunc_normal_(self.query_embedding, std=0.02)
        truncate_start_values(self.cpb)
        if self.sr_ratio == 1:
            self.qkv = pointwise(embed_dims, 3 * embed_dims, bias=qkv_bias)
        else:
            self.q = pointwise(embed_dims, embed_dims, bias=qkv_bias)
            self.kv = pointwise(embed_dims, 2 * embed_dims, bias=qkv_bias)
            self.pool = nn.Conv2d(embed_dims, embed_dims, 1)
            self.pool_norm = nn.LayerNorm(embed_dims)
            self.local_bias = nn.Parameter(torch.empty(heads, TAPS))
            self.local_tokens = nn.Parameter(torch.empty(heads, head_dims, TAPS))
            self.local_weights = nn.Parameter(torch.zeros(heads, 1, TAPS))
            nn.init.normal_(self.pool.weight, std=math.sqrt(2 / embed_dims))
            zero_bias(self.pool)
            nn.init.trunc_normal_(self.local_bias, std=0.0004)
            nn.init.trunc_normal_(self.local_tokens, std=0.02)
        self._register_load_state_dict_pre_hook(self._check_kind)

    @property
    def balance_loss(self) -> Tensor | None:
        """Loss of the last pass in training, a number with its gradient; None without one, or without routed heads."""
        return self.gates.balance_loss

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        y = self._attend_to_all(x) if self.sr_ratio == 1 else self._attend_to_window_and_pool(x)  # [B, h, N, d]
        gates = self.gates(x)  # [B, h, N, 1]; None of a single head
        return self.proj(join_heads(y if gates is None else y * gates, x.shape[2:]))

    def _attend_to_all(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        check_pairs(self, height * width, height * width, self.max_tokens, 'or set sr_ratio=2 and pool_size=7; ')
        q, k, v = (split_heads(part, self.num_heads) for part in self.qkv(x).chunk(3, dim=1))
        q = self._scale(F.normalize(q, dim=3), _count_like(x, height, width).log())
        grids = [_doubled_positions(side, side, x.device) for side in (height, width)]
        bias = self._position_bias(*((2 * _arange(side, x), grid) for side, grid in zip((height, width), grids)))
        return F.scaled_dot_product_attention(q, F.normalize(k, dim=3), v, attn_mask=bias[None].to(q.dtype), scale=1)

    def _attend_to_window_and_pool(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        # Numbers, or symbols where a tracer runs.
        cells: list[Any] = [self.pool_size or torch.sym_max(1, side // self.sr_ratio) for side in (height, width)]
        if self.pool_size:
            cells = [torch.sym_min(cell, side) for cell, side in zip(cells, (height, width))]
        check_pairs(self, height * width, cells[0] * cells[1], self.max_tokens, 'or set pool_size=7; ')

        pooled = average_to_grid(F.gelu(self.pool(x)), (cells[0], cells[1]))
        pooled = self.pool_norm(pooled.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        pooled_k, pooled_v = (split_heads(part, self.num_heads) for part in self.kv(pooled).chunk(2, dim=1))
        k, v = (part.unflatten(1, (self.num_heads, -1)) for part in self.kv(x).chunk(2, dim=1))  # [B, h, d, H, W]
        unit_q = F.normalize(self.q(x).unflatten(1, (self.num_heads, -1)), dim=2)

        inside = _taps_inside(height, width, x.device)  # [TAPS, H, W]
        seen = inside.sum(0) + _count_like(x, *cells)  # [H, W], keys of each pixel
        flat_q = unit_q.flatten(3).transpose(2, 3)  # [B, h, N, d]
        q = self._scale(flat_q, seen.log().view(-1, 1))
        map_q = q.transpose(2, 3).unflatten(3, (height, width))
        local = torch.stack([(map_q * tap).sum(2) for tap in _taps(F.normalize(k, dim=2))], dim=4)  # [B, h, H, W, TAPS]
        local = local.flatten(2, 3) + self.local_bias[:, None]
        local = local.masked_fill(~inside.permute(1, 2, 0).flatten(0, 1), float('-inf'))
        positions = (
            (2 * _arange(side, x), _doubled_positions(side, cell, x.device))
            for side, cell in zip((height, width), cells)
        )
        far = q @ F.normalize(pooled_k, dim=3).transpose(2, 3) + self._position_bias(*positions)
        weights = torch.cat([local, far], dim=3).softmax(3).to(v.dtype)
        local, far = weights.split([TAPS, weights.shape[3] - TAPS], dim=3)
        local = local + flat_q @ self.local_tokens + self.local_weights
        local = local.transpose(2, 3).unflatten(3, (height, width))[:, :, :, None]  # [B, h, TAPS, 1, H, W]
        near = sum(local[:, :, number] * tap for number, tap in enumerate(_taps(v)))  # [B, h, d, H, W]
        return near.flatten(3).transpose(2, 3) + far @ pooled_v

    def _scale(self, q: Tensor, log_keys: Tensor) -> Tensor:
        """Give queries ``[B, h, N, d]`` of length 1 their embedding, and the temperature that suits so many keys."""
        return (q + self.query_embedding) * F.softplus(self.temperature) * log_keys.to(q.dtype)

    def _position_bias(self, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
        """Compute the bias of each pixel and key, ``[h, N, P]``.

        Both axes have positions of pixels and of keys, in half pixels. Many pairs have the same offset: each is
        computed once.
        """
        steps, places = zip(*(_distinct_offsets(*axis) for axis in (rows, columns)))
        weight: Any = self.cpb[0].weight
        row_steps, column_steps = (
            step.to(compute_dtype(weight)) * (4 / max(1, side - 1)) for step, side in zip(steps, self.grid_size)
        )  # in eighths of the native grid
        offsets = torch.stack(torch.broadcast_tensors(row_steps[:, None], column_steps), dim=2)
        table = self.cpb((offsets.sign() * (offsets.abs() + 1).log2() / 3).to(weight.dtype)).permute(2, 0, 1)
        down, across = places
        bias = table.flatten(1)[:, down[:, None, :, None] * steps[1].shape[0] + across[None, :, None, :]]
        return bias.flatten(3).flatten(1, 2)  # of [h, H, W, rows of keys, columns of keys]

    def _check_kind(self, state_dict, prefix, *_):
        """Refuse a checkpoint of the other attention by a sentence instead of a list of tensors."""
        other, kind = ('kv', 'more than 1') if self.sr_ratio == 1 else ('qkv', '1')
        if f'{prefix}{other}.weight' in state_dict:
            raise BadInputError(
                f'{prefix or "the state dict"} was made with an sr_ratio of {kind}, this mixer has {self.sr_ratio}. '
                'sr_ratio=None follows img_size; set sr_ratio to what the checkpoint was made with'
            )


def _arange(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, device=like.device)


def _count_like(x: Tensor, height: int, width: int) -> Tensor:
    """Give the number of cells as a tensor: traced sizes have no logarithm."""
    rows, columns = (x.new_ones(side, dtype=compute_dtype(x)).sum() for side in (height, width))
    return rows * columns


def _doubled_positions(length: int, cells: int, device: torch.device) -> Tensor:
    """Twice the mean position of the pixels that adaptive pooling averages in each cell, ``[cells]``; integers."""
    cell = torch.arange(cells, device=device)
    return cell * length // cells + ((cell + 1) * length + cells - 1) // cells - 1


def _distinct_offsets(pixels: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
    """Give the distinct offsets, and which of them each pair of pixel and key has, ``[L, keys]``."""
    offsets = pixels[:, None] - keys
    if not is_traced():
        return offsets.unique(return_inverse=True)
    # As many as the values at hand make is no number for a graph: all that there may be.
    most = 2 * pixels.shape[0] - 2
    return torch.arange(-most, most + 1, device=pixels.device), offsets + most


def _taps(x: Tensor) -> list[Tensor]:
    """Give the map as each pixel of the window sees it, zero outside, ``TAPS`` views of ``[..., H, W]``."""
    height, width = x.shape[-2:]
    x = F.pad(x, (WINDOW // 2,) * 4)
    return [x[..., row : row + height, column : column + width] for row in range(WINDOW) for column in range(WINDOW)]


def _taps_inside(height: int, width: int, device: torch.device) -> Tensor:
    """Tell which pixels of the window lie in the map, ``[TAPS, H, W]``."""
    ones = torch.ones(height, width, dtype=torch.bool, device=device)
    return torch.stack(_taps(ones))
