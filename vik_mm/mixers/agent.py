"""Agent attention: a few agents gather from all pixels, and all pixels read from the agents.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``d = C / h``, ``n`` agents, ``H0`` and ``W0``
height and width of the native grid.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import average_to_grid, is_traced

from .base import TokenMixer
from .convolutions import pointwise
from .heads import count_heads, join_heads, split_heads

BIAS_SIDE = 7  # of the bias maps that are resized to the map


@MODELS.register_module()
class AgentAttention(TokenMixer):
    """Softmax attention in two steps, through averages of the queries; its cost grows linearly with the pixels.

    .. code-block:: text

        Ag = average of the queries over sqrt(n) x sqrt(n) cells        the agents
        V_A = softmax(Ag k^T / sqrt(d) + B1) v                          agents gather
        y = softmax(q Ag^T / sqrt(d) + B2) V_A                          pixels read
        out = proj(y + dwconv_3x3(v))

    The biases ``B1`` and ``B2`` are sums of a 7 x 7 map for each agent, resized to the map, and of a table for its rows
    and one for its columns, on the native grid and resized linearly for other maps. A checkpoint of another native grid
    has its tables resized in the same way.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): ``H0`` and ``W0``: height and width of the map at the backbone's ``img_size``.
        head_dims (int): ``d``. Defaults to 32.
        agents (int, optional): ``n``, a square number, the same for every map. None follows the authors' stages: 9 for
            a native grid from 56 pixels per side up, 16 from 28 up, else 49;
            a checkpoint with another number has its agents resized as a map. Defaults to 49.
        qkv_bias (bool): Whether queries, keys and values have a bias. Defaults to True.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``C``, or ``agents`` is no square number.

    Source:
        arXiv 2312.08874; the form of Agent-PVT with ``sr_ratio=1`` (LeapLabTHU/Agent-Attention, commit 207ce3e), whose
        classification code takes its native square grid only. The resizing is that of the authors' detection code.
        Agent-Swin passes a mask of shifted windows that its attention never reads; its windows are not offered here.
        The repository has no licence: this is written from a description.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        head_dims: int = 32,
        agents: int | None = 49,
        qkv_bias: bool = True,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        heads = count_heads(embed_dims, head_dims)
        follows_grid = agents is None
        if agents is None:
            agents = next((number for side, number in ((56, 9), (28, 16)) if min(grid_size) >= side), 49)
        if agents < 1 or math.isqrt(agents) ** 2 != agents:
            raise BadInputError(f'agents={agents} must be a square number, such as 9, 16, 25, 36 or 49')
        self.num_heads, self.agents, self.follows_grid = heads, agents, follows_grid
        self.q = pointwise(embed_dims, embed_dims, bias=qkv_bias)
        self.kv = pointwise(embed_dims, 2 * embed_dims, bias=qkv_bias)
        self.dwc = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        self.proj = pointwise(embed_dims, embed_dims)
        height, width = grid_size
        self.an_bias = nn.Parameter(torch.empty(heads, agents, BIAS_SIDE, BIAS_SIDE))
        self.na_bias = nn.Parameter(torch.empty(heads, agents, BIAS_SIDE, BIAS_SIDE))
        self.ah_bias = nn.Parameter(torch.empty(1, heads, agents, height, 1))
        self.aw_bias = nn.Parameter(torch.empty(1, heads, agents, 1, width))
        self.ha_bias = nn.Parameter(torch.empty(1, heads, height, 1, agents))
        self.wa_bias = nn.Parameter(torch.empty(1, heads, 1, width, agents))
        for bias in (self.an_bias, self.na_bias, self.ah_bias, self.aw_bias, self.ha_bias, self.wa_bias):
            nn.init.trunc_normal_(bias, std=0.02)
        self._register_load_state_dict_pre_hook(self._resize_tables)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        size = x.shape[2:]
        q = self.q(x)
        k, v = self.kv(x).chunk(2, dim=1)
        side = math.isqrt(self.agents)
        agents = split_heads(average_to_grid(q, (side, side)), self.num_heads)  # [B, h, n, d]
        to_agents, to_pixels = self._biases(size, q.dtype)
        gathered = F.scaled_dot_product_attention(
            agents, split_heads(k, self.num_heads), split_heads(v, self.num_heads), attn_mask=to_agents
        )
        y = F.scaled_dot_product_attention(split_heads(q, self.num_heads), agents, gathered, attn_mask=to_pixels)
        return self.proj(join_heads(y, size) + self.dwc(v))

    def _biases(self, size: Sequence[int], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Give ``B1`` ``[1, h, n, N]`` and ``B2`` ``[1, h, N, n]``."""
        height, width = size
        rows, columns = _resize(self.ah_bias, 3, height), _resize(self.aw_bias, 4, width)
        to_agents = _resize_map(self.an_bias, size) + rows + columns  # [1, h, n, H, W]
        rows, columns = _resize(self.ha_bias, 2, height), _resize(self.wa_bias, 3, width)
        to_pixels = _resize_map(self.na_bias, size).permute(0, 2, 3, 1) + rows + columns  # [1, h, H, W, n]
        return to_agents.flatten(3).to(dtype), to_pixels.flatten(2, 3).to(dtype)

    def _resize_tables(self, state_dict, prefix, *_):
        """Bring the tables of a checkpoint made for another native grid to this one."""
        resized = []
        if self.follows_grid:
            resized += self._resize_agents(state_dict, prefix)
        for name, dim in (('ah_bias', 3), ('aw_bias', 4), ('ha_bias', 2), ('wa_bias', 3)):
            table = state_dict.get(prefix + name)
            own = getattr(self, name)
            if table is not None and table.ndim == own.ndim and table.shape[dim] != own.shape[dim]:
                state_dict[prefix + name] = _resize(table, dim, own.shape[dim])
                resized.append(f'{name} from {table.shape[dim]} pixels to {own.shape[dim]}')
        if resized:
            self.resampled_from = ', '.join(resized)

    def _resize_agents(self, state_dict, prefix) -> list[str]:
        """Bring the tables of a checkpoint with another number of agents to this one's, and say what was done."""
        axes = dict(an_bias=1, na_bias=1, ah_bias=2, aw_bias=2, ha_bias=4, wa_bias=4)
        found = {name: state_dict.get(prefix + name) for name in axes}
        if any(table is None or table.ndim != getattr(self, name).ndim for name, table in found.items()):
            return []  # load_state_dict says what is missing
        theirs = found['an_bias'].shape[1]
        if theirs == self.agents or math.isqrt(theirs) ** 2 != theirs:
            return []
        for name, dim in axes.items():
            moved = found[name].movedim(dim, -1)
            maps = moved.reshape(1, -1, math.isqrt(theirs), math.isqrt(theirs))
            side = math.isqrt(self.agents)
            resized = F.interpolate(maps, (side, side), mode='bilinear', align_corners=False)
            state_dict[prefix + name] = resized.view(*moved.shape[:-1], self.agents).movedim(-1, dim)
        return [f'the biases from {theirs} agents to {self.agents}']


def _resize(table: Tensor, dim: int, length: int) -> Tensor:
    """Resize one axis linearly, between the centres of its cells."""
    if not is_traced() and table.shape[dim] == length:  # the question would bind a graph to the answer
        return table
    moved = table.movedim(dim, -1)
    resized = F.interpolate(moved.reshape(1, -1, moved.shape[-1]), length, mode='linear', align_corners=False)
    return resized.view(*moved.shape[:-1], length).movedim(-1, dim)


def _resize_map(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize ``[h, n, 7, 7]`` bilinearly to ``[h, n, H, W]``; smaller maps skip cells, as the authors' do."""
    return F.interpolate(maps, size, mode='bilinear', align_corners=False)
