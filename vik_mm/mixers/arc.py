"""Adaptive rotated convolution, the token mixer of ARC.

Shape letters: ``B`` images, ``C`` channels, ``n`` kernels, ``K`` side of a kernel.
"""

import math

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced

from .base import TokenMixer
from .convolutions import check_divides, check_odd


class Router(nn.Module):
    """Reads off an image by which angle each kernel turns, and how much it counts.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        num_kernels (int): ``n``.
        max_angle (float): Bound of the angles, in degrees.
        drop_rate (float): Dropout of the image's summary in training.

    Shape:
        - Input: ``[B, C, H, W]``.
        - Output: two of ``[B, n]``: angles in radians, and weights from 0 to 1.
    """

    def __init__(self, embed_dims: int, num_kernels: int, max_angle: float, drop_rate: float):
        super().__init__()
        self.max_angle = math.radians(max_angle)
        self.depthwise = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims, bias=False)
        self.norm = nn.LayerNorm(embed_dims)
        self.act = nn.ReLU()
        self.dropout = nn.Dropout(drop_rate)
        self.weigh = nn.Linear(embed_dims, num_kernels)
        self.turn = nn.Linear(embed_dims, num_kernels, bias=False)
        for layer in (self.depthwise, self.weigh, self.turn):
            nn.init.trunc_normal_(layer.weight, std=0.02)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Give angles and weights of ``[B, C, H, W]``."""
        normed = self.norm(self.depthwise(x).permute(0, 2, 3, 1))  # [B, H, W, C]
        summary = self.act(normed).mean((1, 2))
        angles = self.max_angle * F.softsign(self.turn(self.dropout(summary)))
        return angles, self.weigh(self.dropout(summary)).sigmoid()


@MODELS.register_module()
class AdaptiveRotatedConv(TokenMixer):
    """Convolution whose kernel is, for each image, a sum of learned kernels turned by angles that the image asks for.

    Angles and weights come from a mean over the image: another crop, or padding beside it, changes them.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the layer is the same at every size.
        num_kernels (int): ``n``. Defaults to 4.
        kernel_size (int): ``K``, in pixels, odd. Defaults to 3, the authors' only one.
        groups (int, optional): Groups of channels that a kernel mixes; 1 mixes all, as the authors do, and has
            ``9 n C ** 2`` parameters. None is ``C``, a depthwise convolution. Defaults to None.
        max_angle (float): Bound of the angles, in degrees. Defaults to 40.
        drop_rate (float): Dropout of the image's summary, before angles and weights are read off it in training.
            Defaults to 0.2.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Raises:
        BadInputError: If an option is out of its range, or ``groups`` does not divide ``C``.

    Source:
        arXiv 2303.07820; ``mmdet/models/backbones/modules`` of LeapLabTHU/ARC (commit 382fcdb, Apache-2.0). Turned
        kernels are sampled linearly from the kernel with its edge continued, which for 3x3 and up to 45 degrees are the
        authors' matrices, and takes larger kernels and angles. There is no bias: the authors take the argument and do
        not use it.
    """

    original_names = (
        (r'^router\.depthwise\.', 'rounting_func.dwc.'),
        (r'^router\.norm\.', 'rounting_func.norm.norm.'),
        (r'^router\.weigh\.', 'rounting_func.fc_alpha.'),
        (r'^router\.turn\.', 'rounting_func.fc_theta.'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        num_kernels: int = 4,
        kernel_size: int = 3,
        groups: int | None = None,
        max_angle: float = 40.0,
        drop_rate: float = 0.2,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        groups = embed_dims if groups is None else groups
        if num_kernels < 1:
            raise BadInputError(f'num_kernels={num_kernels} must be at least 1')
        check_odd('kernel_size', kernel_size)
        check_divides('groups', groups, embed_dims)
        if not 0 <= drop_rate < 1:
            raise BadInputError(f'drop_rate={drop_rate} must be in [0, 1)')
        if not 0 <= max_angle <= 180:
            raise BadInputError(f'max_angle={max_angle} must be from 0 to 180 degrees')
        self.kernel_size, self.groups = kernel_size, groups
        self.weight = nn.Parameter(torch.empty(num_kernels, embed_dims, embed_dims // groups, kernel_size, kernel_size))
        # As Kaiming's rule in the authors' code reads the five axes: the kernels stand where outputs are expected.
        nn.init.normal_(self.weight, std=(2 / (num_kernels * embed_dims // groups * kernel_size**2)) ** 0.5)
        self.router = Router(embed_dims, num_kernels, max_angle, drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        return _conv_by_image(x, self.turned_kernels(*self.router(x)), self.groups)

    def turned_kernels(self, angles: Tensor, weights: Tensor) -> Tensor:
        """Add up the turned kernels of each image, two of ``[B, n] -> [B, C, C / groups, K, K]``."""
        turns = kernel_rotation(angles, self.kernel_size) * weights[:, :, None, None]  # [B, n, K K, K K]
        kernels = self.weight.flatten(3).flatten(1, 2).transpose(1, 2).flatten(0, 1)  # [n K K, C C / groups]
        turned = turns.transpose(1, 2).flatten(2) @ kernels  # [B, K K, C C / groups]
        return turned.transpose(1, 2).reshape(-1, *self.weight.shape[1:])


def kernel_rotation(angles: Tensor, kernel_size: int) -> Tensor:
    """Give the linear maps that turn kernels about their centre.

    A tap of the turned kernel is read off the kernel, linearly between its taps, where the tap comes to lie; beyond the
    edge, at the edge.

    Args:
        angles (Tensor): In radians, ``[...]``.
        kernel_size (int): ``K``, odd.

    Returns:
        Tensor: ``[..., K K, K K]``, from taps of the kernel (last axis) to taps of the turned one.
    """
    reach = kernel_size // 2
    taps = torch.arange(-reach, reach + 1, device=angles.device, dtype=angles.dtype)
    row, column = taps.repeat_interleave(kernel_size), taps.repeat(kernel_size)  # [K K]
    cos, sin = angles[..., None].cos(), angles[..., None].sin()
    at_column = (column * cos - row * sin).clamp(-reach, reach)  # [..., K K]
    at_row = (column * sin + row * cos).clamp(-reach, reach)
    near_column = (1 - (at_column[..., None] - column).abs()).clamp(min=0)
    near_row = (1 - (at_row[..., None] - row).abs()).clamp(min=0)
    return near_row * near_column


def _conv_by_image(x: Tensor, kernels: Tensor, groups: int) -> Tensor:
    """Convolve each image with its own kernel, ``[B, C, H, W], [B, C, C / groups, K, K] -> [B, C, H, W]``."""
    side = kernels.shape[-1]
    if not is_traced():
        joined = F.conv2d(x.flatten(0, 1)[None], kernels.flatten(0, 1), padding=side // 2, groups=x.shape[0] * groups)
        return joined[0].unflatten(0, x.shape[:2])
    # No format for exported models has convolutions whose groups depend on the batch.
    height, width = x.shape[2:]
    padded = F.pad(x.unflatten(1, (groups, -1)), (side // 2,) * 4)
    shifted = [padded[..., i : i + height, j : j + width] for i in range(side) for j in range(side)]
    windows = torch.stack(shifted, dim=3).flatten(4)  # [B, groups, C / groups, K K, N]
    kernels = kernels.unflatten(1, (groups, -1)).flatten(3)  # [B, groups, C / groups, C K K / groups]
    return (kernels @ windows.flatten(2, 3)).flatten(1, 2).unflatten(2, (height, width))
