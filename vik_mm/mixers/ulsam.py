"""Ultra-lightweight subspace attention: one attention map for each group of channels.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``g`` subspaces of ``m = C / g`` channels.
"""

import torch.nn.functional as F
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .base import TokenMixer
from .convolutions import check_divides, truncate_start_values


@MODELS.register_module()
class SubspaceAttention(TokenMixer):
    """Weighs the pixels of each group of channels by a map that sums to 1 over the pixels, and adds the input.

    .. code-block:: text

        t = maxpool3x3(ReLU(BN(depthwise_1x1(x_group))))
        A = softmax over pixels of ReLU(BN(conv_1x1(t)))       one map for the group
        y = x_group + A * x_group

    Pixels meet in the max pooling and in the sum of the softmax only. The weights are about ``1 / N``, so that the
    mixer is near the identity on large maps; ``rescale`` takes that back.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused; the mixer is the same at every size.
        num_subspaces (int): ``g``. Defaults to 4.
        residual (bool): Whether to add the input, as the paper does; the block adds it once more. Defaults to True.
        rescale (bool): Whether to multiply the maps by ``N``, so that their mean is 1 at every size. Defaults to False.
        norm_cfg (dict): Config of the norms. ``ViK(ignore_padding=True)`` takes no batch norm, but
            ``dict(type='GN', num_groups=1)``. Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``. Batch norm asks for more than one pixel in training.

    Raises:
        BadInputError: If ``num_subspaces`` does not divide ``C``.

    Source:
        arXiv 2006.15102, section 3. The release (Nandan91/ULSAM, commit 9a07d68) has a batch norm momentum of 0.9,
        which keeps little more than the last batch's statistics in PyTorch; here it is 0.1. The release has no
        licence: this is written from the paper. Groups are layers of their own there, and one grouped layer here.
    """

    original_names = (
        (r'^depthwise\.', 'subspaces.*.conv_dws.'),
        (r'^depthwise_norm\.', 'subspaces.*.bn_dws.'),
        (r'^pointwise\.', 'subspaces.*.conv_point.'),
        (r'^pointwise_norm\.', 'subspaces.*.bn_point.'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        num_subspaces: int = 4,
        residual: bool = True,
        rescale: bool = False,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_divides('num_subspaces', num_subspaces, embed_dims)
        self.num_subspaces, self.residual, self.rescale = num_subspaces, residual, rescale
        self.depthwise = nn.Conv2d(embed_dims, embed_dims, 1, groups=embed_dims)
        self.depthwise_norm = build_norm_layer(norm_cfg, embed_dims)
        self.pointwise = nn.Conv2d(embed_dims, num_subspaces, 1, groups=num_subspaces)
        self.pointwise_norm = build_norm_layer(norm_cfg, num_subspaces)
        truncate_start_values(self.depthwise, self.pointwise)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        t = F.relu(self.depthwise_norm(self.depthwise(x)))
        t = F.max_pool2d(t, 3, stride=1, padding=1)
        t = F.relu(self.pointwise_norm(self.pointwise(t)))
        maps = t.flatten(2).softmax(2).view_as(t)  # [B, g, H, W]
        if self.rescale:
            maps = maps * (x.shape[2] * x.shape[3])
        groups = x.unflatten(1, (self.num_subspaces, -1))  # [B, g, m, H, W]
        weighed = (groups * maps.to(x.dtype)[:, :, None]).flatten(1, 2)
        return x + weighed if self.residual else weighed
