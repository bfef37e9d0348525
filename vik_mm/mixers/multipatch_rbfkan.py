"""MultiPatch-RBFKAN, ViK's token mixer.

Shape letters: ``B`` images, ``C`` channels, ``P`` patch side, ``N`` pixels of the native grid, ``R`` rank.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.layers import RBFKANLayer, add_to_patches
from vik_mm.ops import average_to_grid, linear, plus_conv2d, spread_to_size

from .base import TokenMixer


@MODELS.register_module()
class MultiPatchRBFKAN(TokenMixer):
    """Patch-wise RBF-KAN, axis-wise separable mixing and a low-rank global map, each channel by itself.

    .. code-block:: text

        x -> patch_mix: y = patch + RBFKAN(patch)                         inside P x P patches
          -> axis_mix:  z = w_0 * dwconv_3x1(y) + w_1 * dwconv_1x3(y)     (w_0, w_1) = softmax(gate(mean(y)))
          -> global_mix: z + B A z                                        A: N -> R, B: R -> N

    Only the global map belongs to one size, the native grid. A map of another size is area-averaged to that grid, and
    the answer is resized back, so that the cost of the step stays linear in pixels. The other steps take any size;
    where ``P`` does not divide a side, patches are cut from the zero-padded map and the padding is cropped afterwards.
    The global map of a checkpoint made for another grid is resampled when it is loaded.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Native grid: height and width of the map at the backbone's ``img_size``.
        patch_size (int): ``P``, in pixels of the map. Defaults to 7.
        num_grids (int): Gaussians for each value of a patch. Defaults to 8.
        rank (int): Rank of the global map; it is never more than ``N``. Defaults to 64.
        axis_mix (bool): Whether to take the axis step; the paper's ablation without it has False. Defaults to True.
        global_mix (bool): Whether to take the global step; the paper's ablation without it has False.
            Defaults to True.
        global_zero_init (bool): Whether ``B`` of the global step starts at zero, so that the step adds nothing until it
            has learned something. The release starts it at random. Defaults to False.
        backend (str, optional): Backend of :func:`vik_mm.ops.rbf_kan`; None chooses. Defaults to None.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        ValueError: If ``patch_size`` or ``rank`` is less than 1, or ``num_grids`` less than 2.

    Source:
        arXiv 2601.21541; ``MultiPatchRBFKAN`` of the authors' ``vik.py``, which made the layers of the last two steps
        inside the first ``forward``. Here they exist from the start, with the values that the release gave them.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        patch_size: int = 7,
        num_grids: int = 8,
        rank: int = 64,
        axis_mix: bool = True,
        global_mix: bool = True,
        global_zero_init: bool = False,
        backend: str | None = None,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        if patch_size < 1:
            raise BadInputError(f'patch_size={patch_size} must be at least 1')
        if rank < 1:
            raise BadInputError(f'rank={rank} must be at least 1; global_mix=False leaves the global step out')
        self.patch_size = patch_size
        self.rank = rank
        self.use_axis_mix = axis_mix
        self.use_global_mix = global_mix
        self.rbf_kan = RBFKANLayer(patch_size**2, patch_size**2, num_grids=num_grids, backend=backend)
        if axis_mix:
            self.axis_h = nn.Conv2d(embed_dims, embed_dims, (3, 1), padding=(1, 0), groups=embed_dims)
            self.axis_w = nn.Conv2d(embed_dims, embed_dims, (1, 3), padding=(0, 1), groups=embed_dims)
            hidden_dims = max(8, embed_dims // 4)
            self.axis_gate = nn.Sequential(
                nn.Conv2d(embed_dims, hidden_dims, 1), nn.GELU(), nn.Conv2d(hidden_dims, 2, 1)
            )
        if global_mix:
            # The shapes carry the grid, so that a checkpoint tells by itself which size it was made for.
            rank = _effective_rank(rank, grid_size)
            self.global_in = nn.Parameter(torch.empty(rank, *grid_size))
            self.global_out = nn.Parameter(torch.empty(*grid_size, rank))
            for weight, fan_in in ((self.global_in, math.prod(grid_size)), (self.global_out, rank)):
                nn.init.uniform_(weight, -(fan_in**-0.5), fan_in**-0.5)
            if global_zero_init:
                nn.init.zeros_(self.global_out)
            self._register_load_state_dict_pre_hook(self._resample_state_dict)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        x = self.patch_mix(x)
        if self.use_axis_mix:
            x = self.axis_mix(x)
        if self.use_global_mix:
            x = self.global_mix(x)
        return x

    def patch_mix(self, x: Tensor) -> Tensor:
        """Mix inside each patch: ``patch + RBFKAN(patch)``, ``[B, C, H, W] -> [B, C, H, W]``."""
        return add_to_patches(x, self.rbf_kan, self.patch_size)

    def axis_mix(self, y: Tensor) -> Tensor:
        """Mix along columns and rows: ``w_0 * axis_h(y) + w_1 * axis_w(y)``, ``[B, C, H, W] -> [B, C, H, W]``."""
        w = _apply_to_vectors(self.axis_gate, y.mean((2, 3))).softmax(dim=1)  # [B, 2]
        return _blend_convs(y, w, self.axis_h, self.axis_w)

    def global_mix(self, z: Tensor) -> Tensor:
        """Mix all pixels through the low-rank map: ``z + B A z``, ``[B, C, H, W] -> [B, C, H, W]``."""
        grid = average_to_grid(z, self.grid_size)
        hidden = linear(grid.flatten(2), self.global_in.flatten(1))  # A: [B, C, N] -> [B, C, R]
        answer = linear(hidden, self.global_out.flatten(0, 1))  # B: [B, C, R] -> [B, C, N]
        height, width = z.shape[2:]
        return z + spread_to_size(answer.view(*z.shape[:2], *self.grid_size), (height, width))

    def _resample_state_dict(self, state_dict, prefix, *_):
        """Resample the global map of a checkpoint made for another grid."""
        names = [prefix + 'global_in', prefix + 'global_out']
        maps = [state_dict.get(name) for name in names]
        if any(each is None or each.ndim != 3 for each in maps) or maps[0].shape == self.global_in.shape:
            return
        old_grid = tuple(maps[0].shape[1:])
        if maps[0].shape[0] != _effective_rank(self.rank, old_grid) or maps[1].shape != (*old_grid, maps[0].shape[0]):
            return  # another rank, not another size: load_state_dict says so
        state_dict.update(zip(names, resample_global_maps(maps[0], maps[1], self.grid_size, self.rank)))
        self.resampled_from = f'the global map from a grid of {old_grid} to {tuple(self.grid_size)}'


def _apply_to_vectors(layers: nn.Sequential, x: Tensor) -> Tensor:
    """Apply 1x1 convolutions and activations to maps of one pixel, ``[B, C] -> [B, C']``."""
    for layer in layers:
        x = F.linear(x, layer.weight.flatten(1), layer.bias) if isinstance(layer, nn.Conv2d) else layer(x)
    return x


def _blend_convs(y: Tensor, w: Tensor, axis_h: Any, axis_w: Any) -> Tensor:
    """Compute ``w[:, 0] * axis_h(y) + w[:, 1] * axis_w(y)`` in one pass over the map.

    A blend of two convolutions is the convolution with the blend of their kernels, here a plus of five pixels for each
    image.

    Args:
        y (Tensor): ``[B, C, H, W]``.
        w (Tensor): ``[B, 2]``.
        axis_h (nn.Conv2d): Depthwise, 3 pixels of a column.
        axis_w (nn.Conv2d): Depthwise, 3 pixels of a row.

    Returns:
        Tensor: ``[B, C, H, W]``.
    """
    kernels = torch.stack([axis_h.weight.flatten(1), axis_w.weight.flatten(1)], dim=1)  # [C, 2, 3]
    bias = w @ torch.stack([axis_h.bias, axis_w.bias])
    return plus_conv2d(y, w[:, None, :, None] * kernels, bias)


def _effective_rank(rank: int, grid_size: tuple[int, int]) -> int:
    """Rank that a global map on ``grid_size`` has: no more than its pixels."""
    return min(rank, math.prod(grid_size))


def resample_global_maps(
    global_in: Tensor, global_out: Tensor, grid_size: tuple[int, int], rank: int
) -> tuple[Tensor, Tensor]:
    """Carry a global map over to another native grid.

    Both maps are resized bicubically. The input map is then scaled by the ratio of the grids' pixels, and its mean is
    set so that each rank's sum stays what it was: a constant image keeps its answer.

    Args:
        global_in (Tensor): ``[R, h, w]``.
        global_out (Tensor): ``[h, w, R]``.
        grid_size (tuple[int, int]): The grid to go to.
        rank (int): The rank asked for, before the grid's pixels bound it.

    Returns:
        tuple[Tensor, Tensor]: ``global_in`` and ``global_out`` of the new grid. A rank that the old grid's pixels had
        bounded is filled up with zero columns in ``global_out``, which leaves the answer as it is; one that the new
        grid bounds is cut by a singular value decomposition that keeps the whole map.
    """
    dtype = global_in.dtype
    old_sums = global_in.double().sum((1, 2), keepdim=True)
    area_ratio = math.prod(global_in.shape[1:]) / math.prod(grid_size)
    new_in = _bicubic(global_in.double(), grid_size) * area_ratio
    new_in = new_in + (old_sums - new_in.sum((1, 2), keepdim=True)) / math.prod(grid_size)
    new_out = _bicubic(global_out.double().permute(2, 0, 1), grid_size).permute(1, 2, 0)

    new_rank = _effective_rank(rank, grid_size)
    missing = new_rank - new_in.shape[0]
    if missing > 0:
        bound = math.prod(grid_size) ** -0.5
        generator = torch.Generator().manual_seed(0)  # loading a file must not move the global random state
        fresh = torch.empty(missing, *grid_size, dtype=torch.float64).uniform_(-bound, bound, generator=generator)
        new_in = torch.cat([new_in, fresh.to(new_in.device)])
        new_out = torch.cat([new_out, new_out.new_zeros(*grid_size, missing)], dim=2)
    elif missing < 0:
        left, scale, right = torch.linalg.svd(new_out.flatten(0, 1) @ new_in.flatten(1), full_matrices=False)
        root = scale[:new_rank].sqrt()
        new_in = (root[:, None] * right[:new_rank]).unflatten(1, grid_size)
        new_out = (left[:, :new_rank] * root).unflatten(0, grid_size)
    return new_in.to(dtype).contiguous(), new_out.to(dtype).contiguous()


def _bicubic(maps: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(maps[None], size, mode='bicubic', align_corners=False, antialias=True)[0]
