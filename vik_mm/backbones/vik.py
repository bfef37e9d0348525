"""ViK, the Vision KAN backbone.

Shape letters: ``B`` images, ``C`` channels, ``H`` and ``W`` in pixels of the map at hand.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from vik_mm.errors import BadInputError
from vik_mm.layers import LayerScale, add_residual
from vik_mm.mixers import build_token_mixer, log_resampled_mixers
from vik_mm.mlps import build_mlp
from vik_mm.ops import pad_to_multiple

from . import arguments
from .loading import PretrainedBackbone, refuse_other_arch
from .own_extent import OwnExtents, refuse_batch_norm


class Stem(nn.Module):
    """Strided convolution from the image to the first map.

    The image is zero-padded right and below to a multiple of the stride first: the released stem drops pixels,
    33 rows giving 8.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels ``C`` of the map.
        kernel_size (int): In pixels. Defaults to 7.
        stride (int): In pixels. Defaults to 4.
        padding (int): Zeros on each side, in pixels. Defaults to 2.

    Shape:
        - Input: ``[B, in_channels, H, W]``.
        - Output: ``[B, C, ceil(H / stride), ceil(W / stride)]``.

    Raises:
        ValueError: If the three numbers do not give that output size.
    """

    def __init__(self, in_channels: int, embed_dims: int, kernel_size: int = 7, stride: int = 4, padding: int = 2):
        super().__init__()
        for name, value, least in (('kernel_size', kernel_size, 1), ('stride', stride, 1), ('padding', padding, 0)):
            arguments.check_at_least(f'stem.{name}', value, least)
        if not kernel_size - stride <= 2 * padding < kernel_size:
            raise BadInputError(
                f'stem=dict(kernel_size={kernel_size}, stride={stride}, padding={padding}) does not map H pixels to '
                'ceil(H / stride); choose kernel_size - stride <= 2 * padding < kernel_size'
            )
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, embed_dims, kernel_size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, C, ceil(H / stride), ceil(W / stride)]``."""
        return self.conv(pad_to_multiple(x, self.stride))


class ViKBlock(nn.Module):
    """Token mixer, then MLP: ``x + ls1 * mixer(norm1(x))``, then ``x + ls2 * mlp(norm2(x))``.

    Args:
        embed_dims (int): Channels ``C``.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``.
        token_mixer (dict): Config of the mixer.
        mlp_ratio (float): Hidden channels of the MLP over ``C``.
        norm_cfg (dict): Config of the two norms.
        act_cfg (dict): Config of the MLP's activation.
        drop_rate (float): Dropout inside the MLP.
        drop_path_rate (float): Probability that a sample skips a branch in training.
        layer_scale_init_value (float): Start value of layer scale; 0 leaves layer scale out.
        with_cp (bool): Whether to store only the input and compute the block again in the backward pass.
        mlp (dict): Config of the MLP.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        token_mixer: dict,
        mlp_ratio: float,
        norm_cfg: dict,
        act_cfg: dict,
        drop_rate: float,
        drop_path_rate: float,
        layer_scale_init_value: float,
        with_cp: bool,
        mlp: dict,
    ):
        super().__init__()

        def layer_scale():
            return LayerScale(embed_dims, layer_scale_init_value) if layer_scale_init_value > 0 else nn.Identity()

        self.with_cp = with_cp
        self.norm1 = build_norm_layer(norm_cfg, embed_dims)
        self.token_mixer = build_token_mixer(token_mixer, embed_dims, grid_size)
        self.layer_scale1 = layer_scale()
        self.norm2 = build_norm_layer(norm_cfg, embed_dims)
        self.mlp = build_mlp(mlp, embed_dims, int(embed_dims * mlp_ratio), act_cfg, drop_rate)
        self.layer_scale2 = layer_scale()
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``."""
        if self.with_cp and torch.is_grad_enabled():
            return checkpoint(self._forward, x, use_reentrant=False)
        return self._forward(x)

    def _forward(self, x: Tensor) -> Tensor:
        x = add_residual(x, self.token_mixer(self.norm1(x)), self.layer_scale1, self.drop_path)
        return add_residual(x, self.mlp(self.norm2(x)), self.layer_scale2, self.drop_path)


class ViKStage(nn.Module):
    """Down-sampling convolution, in all stages but the first, and a row of blocks.

    Args:
        in_dims (int, optional): Channels of the previous stage; None in the first stage.
        embed_dims (int): Channels ``C`` of this stage.
        blocks (Sequence[ViKBlock]): The blocks.

    Shape:
        - Input: ``[B, in_dims, H, W]``.
        - Output: ``[B, C, ceil(H / 2), ceil(W / 2)]``; ``[B, C, H, W]`` in the first stage.
    """

    def __init__(self, in_dims: int | None, embed_dims: int, blocks: Sequence[ViKBlock]):
        super().__init__()
        self.downsample = nn.Identity() if in_dims is None else nn.Conv2d(in_dims, embed_dims, 3, stride=2, padding=1)
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_dims, H, W]`` to this stage's map."""
        return self.blocks(self.downsample(x))


@MODELS.register_module()
class ViK(OwnExtents, PretrainedBackbone):
    """Vision KAN: a hierarchy of attention-free blocks around a Kolmogorov-Arnold token mixer.

    One class for classification, detection and segmentation: images of any size and aspect ratio from 32 pixels up,
    one map for each of ``out_indices``. Stages behind the last of them are not built.

    Args:
        arch (str | dict): A name in :attr:`arch_settings`, or a dict with ``depths`` and ``embed_dims``, a number for
            each stage. Defaults to 'small'.
        img_size (int | tuple[int, int]): Image size, or height and width, in pixels, that the global step's native
            grids are made for. Images of other sizes are taken all the same. Defaults to 224.
        in_channels (int): Channels of the image. Defaults to 3.
        token_mixer (dict | Sequence[dict]): Config of the token mixer, a type registered in MMPretrain; or one for each
            stage of ``arch``. Defaults to ``dict(type='MultiPatchRBFKAN', patch_size=7, num_grids=8, rank=64)``.
        mlp_ratio (float): Hidden channels of the MLP over the stage's channels. Defaults to 4.
        stem (dict): ``kernel_size``, ``stride`` and ``padding`` of the first convolution, in pixels.
            Defaults to ``dict(kernel_size=7, stride=4, padding=2)``.
        drop_rate (float): Dropout inside the MLP. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block; it rises linearly from 0 at the first.
            Defaults to 0.
        layer_scale_init_value (float): Start value of layer scale; 0 leaves layer scale out. Defaults to 1e-5.
        norm_cfg (dict): Config of all norms. Defaults to ``dict(type='GN', num_groups=1)``.
        act_cfg (dict): Config of the MLP's activation. Defaults to ``dict(type='GELU')``.
        out_indices (int | Sequence[int]): Stages to return, 0 the first, negative from the end, in this order; each
            has a norm ``norm{i}``. Defaults to (3,).
        frozen_stages (int): -1 freezes nothing, 0 the stem, ``k`` the stem and the first ``k`` stages with their
            output norms. Defaults to -1.
        norm_eval (bool): Whether batch norms stay in evaluation mode in training. Defaults to False.
        with_cp (bool): Whether to trade time for memory by activation checkpointing of each block.
            Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config of MMEngine, e.g.
            ``dict(type='Pretrained', checkpoint=..., prefix='backbone.')``. None keeps the release's start
            values, which the constructor sets. Defaults to None.
        ignore_padding (bool): Whether each image of a batch is computed at its own extent, which is read off the zeros
            that a data preprocessor pads with, instead of together with its padding. The maps of an image then do not
            depend on the other images of the batch; they are zero outside of its extent. Batches of images of one
            size are computed as without. An exported or traced model takes the whole input for content.
            Defaults to False, as in the release.
        mlp (dict): Config of the channel MLP, a type of :mod:`vik_mm.mlps` registered in MMPretrain.
            Defaults to ``dict(type='ConvMLP')``, as in the release.

    Shape:
        - Input: ``[B, in_channels, H, W]``, ``H`` and ``W`` at least 32.
        - Output: a tuple of ``[B, C_i, ceil(H / s_i), ceil(W / s_i)]`` for ``i`` in ``out_indices``, ``s_i`` the stem's
          stride times ``2 ** i``.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If an argument has a value that makes no sense; the message names those that do.

    Source:
        arXiv 2601.21541; ``vik.py`` of the authors' release (commit 52c02a6), which has 'small' and 'base'. 'tiny',
        'medium' and 'large' are this project's, the last two after PoolFormer-S36 and -M36.
    """

    block_classes = (ViKBlock,)  # what is gathered at a time where the model is divided among processes
    arch_settings = {
        'tiny': dict(depths=(2, 2, 4, 2), embed_dims=(32, 64, 160, 256)),
        'small': dict(depths=(2, 2, 6, 2), embed_dims=(64, 128, 320, 512)),
        'base': dict(depths=(4, 4, 12, 4), embed_dims=(64, 128, 320, 512)),
        'medium': dict(depths=(6, 6, 18, 6), embed_dims=(64, 128, 320, 512)),
        'large': dict(depths=(6, 6, 18, 6), embed_dims=(96, 192, 384, 768)),
    }

    def __init__(
        self,
        arch: str | dict = 'small',
        img_size: int | tuple[int, int] = 224,
        in_channels: int = 3,
        token_mixer: dict | Sequence[dict] = dict(type='MultiPatchRBFKAN', patch_size=7, num_grids=8, rank=64),
        mlp_ratio: float = 4,
        stem: dict = dict(kernel_size=7, stride=4, padding=2),
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale_init_value: float = 1e-5,
        norm_cfg: dict = dict(type='GN', num_groups=1),
        act_cfg: dict = dict(type='GELU'),
        out_indices: int | Sequence[int] = (3,),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        with_cp: bool = False,
        init_cfg=None,
        ignore_padding: bool = False,
        mlp: dict = dict(type='ConvMLP'),
    ):
        super().__init__(init_cfg=init_cfg)
        self.arch = arch
        self.depths, self.embed_dims = arguments.check_stages(**arguments.check_arch(arch, self.arch_settings))
        self.img_size = arguments.check_img_size(img_size)
        self.in_channels = arguments.check_at_least('in_channels', in_channels, 1)
        self.out_indices = arguments.check_out_indices(out_indices, len(self.depths))
        self.frozen_stages = arguments.check_frozen_stages(frozen_stages, max(self.out_indices) + 1)
        self.norm_eval, self.ignore_padding = norm_eval, ignore_padding
        mixers = arguments.check_one_for_each_stage('token_mixer', token_mixer, len(self.depths))
        arguments.check_rates(drop_rate=drop_rate, drop_path_rate=drop_path_rate)
        arguments.check_hidden_dims(mlp_ratio, self.embed_dims)
        arguments.check_layer_scale(layer_scale_init_value)
        arguments.check_configs(norm_cfg=norm_cfg, act_cfg=act_cfg)
        stem = arguments.check_options('stem', stem, ('kernel_size', 'stride', 'padding'))

        self.stem = Stem(in_channels, self.embed_dims[0], **stem)
        strides = [self.stem.stride * 2**i for i in range(len(self.depths))]
        block = dict(mlp_ratio=mlp_ratio, mlp=mlp, norm_cfg=norm_cfg, act_cfg=act_cfg, drop_rate=drop_rate)
        block.update(layer_scale_init_value=layer_scale_init_value, with_cp=with_cp)
        self.stages = self._build_stages(strides, mixers, drop_path_rate, block)
        for i in self.out_indices:
            self.add_module(f'norm{i}', build_norm_layer(norm_cfg, self.embed_dims[i]))
        self.out_strides = [strides[i] for i in self.out_indices]
        if ignore_padding:
            refuse_batch_norm(self)

        self._register_load_state_dict_pre_hook(refuse_other_arch, with_module=True)
        self.register_load_state_dict_post_hook(log_resampled_mixers)
        self._freeze()

    def _build_stages(self, strides, mixers, drop_path_rate: float, block: dict[str, Any]) -> nn.ModuleList:
        last = max(1, sum(self.depths) - 1)
        stages = nn.ModuleList()
        for i in range(max(self.out_indices) + 1):
            # Rounded up as the maps are: an image of the native size then always has the native grid.
            grid_size = tuple(-(-side // strides[i]) for side in self.img_size)
            first = sum(self.depths[:i])
            blocks = [
                ViKBlock(self.embed_dims[i], grid_size, mixers[i], drop_path_rate=drop_path_rate * k / last, **block)
                for k in range(first, first + self.depths[i])
            ]
            stages.append(ViKStage(self.embed_dims[i - 1] if i else None, self.embed_dims[i], blocks))
        return stages

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the maps of ``out_indices``.

        Args:
            x (Tensor): ``[B, in_channels, H, W]``.

        Returns:
            tuple[Tensor, ...]: ``[B, C_i, ceil(H / s_i), ceil(W / s_i)]`` for ``i`` in ``out_indices``.

        Raises:
            ValueError: If the number of dimensions or channels is wrong, or a side is less than 32.
        """
        arguments.check_images(x, self.in_channels)
        return self.compute_each_image(x, arguments.MIN_IMAGE_SIZE) if self.ignore_padding else self._compute_maps(x)

    def _compute_maps(self, x: Tensor) -> tuple[Tensor, ...]:
        x = self.stem(x)
        maps = {}
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in self.out_indices:
                maps[i] = getattr(self, f'norm{i}')(x)
        return tuple(maps[i] for i in self.out_indices)

    def train(self, mode: bool = True) -> 'ViK':
        """Set training mode; frozen parts, and batch norms under ``norm_eval``, stay in evaluation mode."""
        super().train(mode)
        if mode:
            for module in self._frozen_modules():
                module.eval()
            if self.norm_eval:
                for module in self.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Give a parameter's depth, for layer-wise learning-rate decay.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): What precedes the backbone's own names, e.g. ``'backbone.'``. Defaults to ''.

        Returns:
            tuple[int, int]: The parameter's depth and the number of depths. The stem has 0, block ``k`` of the whole
            network ``k + 1``, a down-sampling convolution the depth of the block behind it; output norms, and
            whatever lies outside the backbone, have the last.
        """
        num_layers = sum(self.depths) + 2
        if not param_name.startswith(prefix):
            return num_layers - 1, num_layers
        name = param_name[len(prefix) :]
        if name.startswith('stem.'):
            return 0, num_layers
        if match := re.match(r'stages\.(\d+)\.(?:downsample|blocks\.(\d+))\.', name):
            stage, block = int(match[1]), int(match[2] or 0)
            return sum(self.depths[:stage]) + block + 1, num_layers
        return num_layers - 1, num_layers

    def _frozen_modules(self) -> list[nn.Module]:
        if self.frozen_stages < 0:
            return []
        frozen = [self.stem, *self.stages[: self.frozen_stages]]
        return frozen + [getattr(self, f'norm{i}') for i in self.out_indices if i < self.frozen_stages]

    def _freeze(self):
        for module in self._frozen_modules():
            module.eval()
            module.requires_grad_(False)
