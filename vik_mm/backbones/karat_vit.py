"""Vision transformer with Kolmogorov-Arnold attention, softmax attention, or a token mixer of ViK.

Shape letters: ``B`` images, ``C`` channels, ``H`` and ``W`` in pixels of the image, ``N`` tokens.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.models.utils import build_norm_layer, resize_pos_embed
from mmpretrain.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vik_mm.attention import KArAt, TokenAttention, build_operator
from vik_mm.errors import BadInputError
from vik_mm.mixers import log_resampled_mixers

from .arguments import check_arch, check_at_least, check_frozen_stages, check_out_indices, check_rates
from .loading import PretrainedBackbone
from .mixer_as_attention import MapMixer, is_mixer
from .shared_blocks import LayerParts, assign_blocks, refuse_shared_batch_norm
from .token_slimming import TokenSlimming, check_slimming, count_slimmed_tokens

ARCHS = {
    name: dict(embed_dims=64 * heads, num_layers=12, num_heads=heads, feedforward_channels=256 * heads)
    for name, heads in dict(tiny=3, small=6, base=12).items()
}


@MODELS.register_module()
class ViTKArAt(PretrainedBackbone, VisionTransformer):
    """Vision transformer of DeiT's layout whose attention is a choice.

    Patch and position embedding, class token, feed-forward networks, freezing and layer-wise decay are those of
    MMPretrain's ``VisionTransformer``, and names of parameters too: its checkpoints of the same layout load, but for
    the operators. Images of any size are taken: position embedding and operators are resampled along the tokens.

    Args:
        arch (str | dict): 'tiny', 'small' or 'base', DeiT's, or a dict with ``embed_dims``, ``num_layers``,
            ``num_heads`` and ``feedforward_channels``. Defaults to 'tiny'.
        img_size (int | tuple[int, int]): Image size, or height and width, in pixels, that positions and operators are
            made for. Defaults to 224.
        patch_size (int): Side of a patch in pixels. Defaults to 16.
        in_channels (int): Channels of the image. Defaults to 3.
        attn_cfg (dict): ``dict(type='KArAt', ...)`` with options of :class:`vik_mm.attention.KArAt` and ``universal``,
            whether all blocks share one operator (GnU) instead of having their own (GnB);
            ``dict(type='Softmax')``; or a token mixer of ViK, which mixes the grid as a map, the class token becoming
            the mean of the mixed map. Defaults to ``dict(type='KArAt')``, the paper's G3B.
        out_indices (int | Sequence[int]): Blocks to return, negative from the end; for ``out_type='pyramid'`` levels,
            0 to 3. Defaults to -1.
        out_type (str): 'cls_token' ``[B, C]``; 'raw' ``[B, N, C]``; 'featmap' ``[B, C, H / P, W / P]``; 'avg_featmap'
            ``[B, C]``; or 'pyramid': maps of strides 4, 8, 16 and 32 with ``C / 4``, ``C / 2``, ``C`` and ``C``
            channels, made of the last map by transposed convolutions and pooling, for whatever takes a hierarchy.
            Defaults to 'cls_token'.
        with_cls_token (bool): Whether there is a class token. Defaults to True.
        window_size (int): Side of attention windows in tokens; 0 is attention over the whole grid. Needs
            ``with_cls_token=False``. Defaults to 0.
        global_indices (Sequence[int]): Blocks that attend over the whole grid all the same. Defaults to ().
        drop_rate (float): Dropout of embeddings, projections and feed-forward networks. Defaults to 0.
        attn_drop_rate (float): Dropout of attention weights; with KArAt it makes the map of weights. Defaults to 0.
        drop_path_rate (float): Stochastic depth of the last block, rising linearly from 0. Defaults to 0.
        qkv_bias (bool): Whether queries, keys and values have a bias. Defaults to True.
        layer_scale_init_value (float): Start value of layer scale; 0 leaves it out. Defaults to 0.
        norm_cfg (dict): Config of all norms. Defaults to ``dict(type='LN', eps=1e-6)``.
        final_norm (bool): Whether the last block is followed by a norm. Defaults to True.
        frozen_stages (int): ``k > 0`` freezes the embeddings and the first ``k`` blocks. Defaults to -1.
        with_cp (bool): Whether to trade time for memory by activation checkpointing of each block. Defaults to False.
        init_cfg (dict | list[dict], optional): Initialization config of MMEngine. Defaults to None.
        share_blocks (int, optional): Number of blocks; each serves several of the ``num_layers`` layers in a row. Where
            the number does not divide the layers, the first blocks serve one layer more. Layer scales and stochastic
            depth stay each layer's own. ``out_indices`` and ``global_indices`` then count layers, ``frozen_stages``
            counts blocks. None gives each layer its own block. Defaults to None.
        phases (Sequence[int], optional): How many layers each block serves, in the place of ``share_blocks``, such as
            ``(7, 5)``. Defaults to None.
        slim_after (Sequence[int]): Layers that are followed by token slimming, for classification: the layers after
            them have fewer tokens, which lie on no grid. It needs softmax attention. Defaults to ().
        keep_ratio (float): Share of the patches at ``img_size`` that the first slimming leaves; each one more leaves
            that share of the one before. Images of all sizes are slimmed to these numbers. Defaults to 0.5.

    Shape:
        - Input: ``[B, in_channels, H, W]``, sides at least ``patch_size``; what the patches leave over is padded.
        - Output: a tuple for ``out_indices``, shaped as ``out_type`` says.

    Raises:
        BadTypeError: If ``attn_cfg`` has an option that its type does not know.
        BadInputError: If an argument has a value that makes no sense; the message names those that do.

    Source:
        arXiv 2503.10632; arXiv 2203.16527 (ViTDet) for windows and the pyramid; arXiv 2512.19941 (Raptor) for shared
        blocks, where layer scales are in the place of its factors of depth; arXiv 2111.12624 (SiT) for token slimming,
        without its distillation.
    """

    arch_settings = ARCHS
    OUT_TYPES = VisionTransformer.OUT_TYPES | {'pyramid'}
    layers: Any  # the blocks, of MMPretrain's type without type hints

    def __init__(
        self,
        arch: str | dict = 'tiny',
        img_size: int | tuple[int, int] = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        attn_cfg: dict = dict(type='KArAt'),
        out_indices: int | Sequence[int] = -1,
        out_type: str = 'cls_token',
        with_cls_token: bool = True,
        window_size: int = 0,
        global_indices: Sequence[int] = (),
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        qkv_bias: bool = True,
        layer_scale_init_value: float = 0.0,
        norm_cfg: dict = dict(type='LN', eps=1e-6),
        final_norm: bool = True,
        frozen_stages: int = -1,
        with_cp: bool = False,
        init_cfg=None,
        share_blocks: int | None = None,
        phases: Sequence[int] | None = None,
        slim_after: Sequence[int] = (),
        keep_ratio: float = 0.5,
    ):
        arch = _check_arch(arch)
        block_of_layer = assign_blocks(arch['num_layers'], share_blocks, phases)
        is_pyramid = out_type == 'pyramid'
        if is_pyramid and out_indices == -1:
            out_indices = range(4)
        out_indices = check_out_indices(out_indices, 4 if is_pyramid else arch['num_layers'], rising=True)
        check_rates(drop_rate=drop_rate, attn_drop_rate=attn_drop_rate, drop_path_rate=drop_path_rate)
        check_frozen_stages(frozen_stages, block_of_layer[-1] + 1)
        if out_type not in self.OUT_TYPES:
            raise BadInputError(f'out_type={out_type!r} is unknown; choose one of {sorted(self.OUT_TYPES)}')
        if out_type == 'cls_token' and not with_cls_token:
            raise BadInputError("out_type='cls_token' needs with_cls_token=True")
        _check_window(window_size, global_indices, with_cls_token, arch['num_layers'])
        _check_patches(img_size, patch_size)
        super().__init__(
            arch=arch,
            img_size=img_size,
            patch_size=patch_size,
            in_channels=in_channels,
            out_indices=[arch['num_layers'] - 1] if is_pyramid else list(out_indices),
            drop_rate=drop_rate,
            drop_path_rate=drop_path_rate,
            qkv_bias=qkv_bias,
            norm_cfg=norm_cfg,
            final_norm=final_norm,
            out_type='featmap' if is_pyramid else out_type,
            with_cls_token=with_cls_token,
            frozen_stages=-1,  # the blocks' attention is not there yet
            layer_scale_init_value=layer_scale_init_value,
            patch_cfg=dict(padding='corner'),
            init_cfg=init_cfg,
        )
        self.with_cp, self.frozen_stages = with_cp, frozen_stages
        self.pyramid = _Pyramid(self.embed_dims, patch_size, out_indices) if is_pyramid else None
        self.operator: KArAt | None = None
        self.block_of_layer = block_of_layer
        self.layer_parts = self._share_blocks() if share_blocks is not None or phases is not None else None
        self._build_attention(attn_cfg, window_size, set(global_indices), attn_drop_rate)
        check_slimming(slim_after, attn_cfg, window_size, out_type, self.out_indices)
        left = count_slimmed_tokens(slim_after, keep_ratio, self.num_layers, math.prod(self.patch_resolution))
        self.slimming = nn.ModuleDict({str(i): TokenSlimming(self.embed_dims, count) for i, count in left.items()})
        if self.layer_parts is not None:
            refuse_shared_batch_norm(self.layers)
        if frozen_stages > 0:
            self._freeze_stages()
        self.register_load_state_dict_post_hook(log_resampled_mixers)

    def _share_blocks(self) -> nn.ModuleList:
        """Keep the first block of each phase, and give each layer's own parts."""
        parts = [
            LayerParts(layer.attn.gamma1, layer.attn.out_drop, layer.ffn.gamma2, layer.ffn.dropout_layer)
            for layer in self.layers
        ]
        self.layers = nn.ModuleList(self.layers[first] for first in self._first_layers())
        for layer in self.layers:
            layer.attn.gamma1, layer.attn.out_drop = nn.Identity(), nn.Identity()
            layer.ffn.gamma2, layer.ffn.dropout_layer, layer.ffn.add_identity = nn.Identity(), nn.Identity(), False
        return nn.ModuleList(parts)

    def _first_layers(self) -> list[int]:
        return [self.block_of_layer.index(block) for block in range(self.block_of_layer[-1] + 1)]

    def _build_attention(self, attn_cfg: dict, window_size: int, global_indices: set[int], attn_drop_rate: float):
        settings: Any = self.arch_settings  # of this arch, which MMPretrain's transformer has looked up
        heads, grid, prefix = settings['num_heads'], self.patch_resolution, self.num_extra_tokens
        mixes_maps = is_mixer(attn_cfg)
        if mixes_maps and window_size:
            raise BadInputError(
                f'window_size={window_size} is for attention; a token mixer mixes the whole map: set it to 0'
            )
        universal = attn_cfg.get('universal', False) and not mixes_maps
        windowed = [window_size > 0 and i not in global_indices for i in range(self.num_layers)]
        first_layers = self._first_layers()
        if any(windowed[i] != windowed[first_layers[block]] for i, block in enumerate(self.block_of_layer)):
            raise BadInputError(
                f'global_indices={tuple(sorted(global_indices))} must hold all layers of a shared block or none; the '
                f'blocks of the layers are {self.block_of_layer}'
            )
        windowed = [windowed[first] for first in first_layers]
        grids = [(window_size, window_size) if inside else tuple(grid) for inside in windowed]
        if universal:
            if len(set(grids)) > 1:
                raise BadInputError(
                    f'a universal operator serves blocks of one grid of tokens, these have {sorted(set(grids))}: let '
                    f"img_size be {window_size} patches, so that global blocks resample the windows' operator, or set "
                    'universal=False'
                )
            self.operator = build_operator(attn_cfg, heads, grids[0], prefix)
        for layer, inside, token_grid in zip(self.layers, windowed, grids):
            given = layer.attn
            if mixes_maps:
                layer.attn = MapMixer(attn_cfg, self.embed_dims, grid, prefix, given.out_drop)
                continue
            layer.attn = TokenAttention(
                operator=None if universal else build_operator(attn_cfg, heads, token_grid, prefix),
                window_size=window_size if inside else 0,
                recompute=not self.with_cp,
                embed_dims=self.embed_dims,
                num_heads=heads,
                attn_drop=attn_drop_rate,
                proj_drop=given.proj_drop.p,
                qkv_bias=given.qkv.bias is not None,
            )
            layer.attn.out_drop, layer.attn.gamma1 = given.out_drop, given.gamma1

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the outputs of ``out_indices``.

        Args:
            x (Tensor): ``[B, in_channels, H, W]``.

        Returns:
            tuple[Tensor, ...]: As ``out_type`` says.
        """
        x, grid = self.patch_embed(x)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        x = x + resize_pos_embed(
            self.pos_embed, self.patch_resolution, grid, self.interpolate_mode, self.num_extra_tokens
        )
        x = self.pre_norm(self.drop_after_pos(x))
        outs = []
        for i in range(self.num_layers):
            if self.with_cp and torch.is_grad_enabled():
                x = checkpoint(self._layer, i, x, grid, use_reentrant=False)
            else:
                x = self._layer(i, x, grid)
            if i == self.num_layers - 1 and self.final_norm:
                x = self.ln1(x)
            if i in self.out_indices:
                outs.append(self._format_output(x, grid))
            if str(i) in self.slimming:
                x = self._slim(i, x)
                grid = (1, x.shape[1] - self.num_extra_tokens)
        return self.pyramid(outs[-1]) if self.pyramid is not None else tuple(outs)

    def _layer(self, i: int, x: Tensor, grid: tuple[int, int]) -> Tensor:
        block = self.layers[self.block_of_layer[i]]
        if self.layer_parts is None:
            x = x + block.attn(block.ln1(x), grid, self.operator)
            return block.ffn(block.ln2(x), identity=x)
        own: Any = self.layer_parts[i]
        x = x + own.attn(block.attn(block.ln1(x), grid, self.operator))
        return x + own.ffn(block.ffn(block.ln2(x)))

    def _slim(self, i: int, x: Tensor) -> Tensor:
        prefix, tokens = x.tensor_split([self.num_extra_tokens], dim=1)
        return torch.cat([prefix, self.slimming[str(i)](tokens)], dim=1)

    def get_layer_depth(self, param_name: str, prefix: str = '') -> tuple[int, int]:
        """Give a parameter's depth, for layer-wise learning-rate decay.

        Args:
            param_name (str): Name of the parameter in the whole model.
            prefix (str): What precedes the backbone's own names, e.g. ``'backbone.'``. Defaults to ''.

        Returns:
            tuple[int, int]: The parameter's depth and the number of depths, as MMPretrain's transformer gives them. A
            shared block has the depth of its first layer.
        """
        name = param_name.removeprefix(prefix)
        if param_name.startswith(prefix) and name.startswith(('layers.', 'layer_parts.', 'slimming.')):
            kind, number = name.split('.')[:2]
            layer = self.block_of_layer.index(int(number)) if kind == 'layers' else int(number)
            return layer + 1, self.num_layers + 2
        return super().get_layer_depth(param_name, prefix)

    def _freeze_stages(self):
        super()._freeze_stages()
        for block, parts in zip(self.block_of_layer, self.layer_parts or ()):
            if block < self.frozen_stages:
                parts.eval()
                parts.requires_grad_(False)
        for layer, slimming in self.slimming.items():
            if self.block_of_layer[int(layer)] < self.frozen_stages:
                slimming.requires_grad_(False)

    def train(self, mode: bool = True) -> 'ViTKArAt':
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        if mode and self.frozen_stages > 0:
            self._freeze_stages()
        return self


class _Pyramid(nn.Module):
    """Maps of several strides from one map, as ViTDet makes them: ``C / 4``, ``C / 2``, ``C`` and ``C`` channels.

    Args:
        channels (int): ``C``.
        stride (int): Pixels of a step of the map: the patch side.
        levels (Sequence[int]): Which of the strides 4, 8, 16 and 32 to make.
    """

    def __init__(self, channels: int, stride: int, levels: Sequence[int]):
        super().__init__()
        if stride != 16:
            raise BadInputError(f"out_type='pyramid' is made for patch_size=16, got {stride}")

        if channels % 4:
            raise BadInputError(f"out_type='pyramid' needs embed_dims of a multiple of 4, got {channels}")

        def up(factor):
            return nn.ConvTranspose2d(channels // factor, channels // factor // 2, 2, stride=2)

        makers = (
            lambda: nn.Sequential(
                up(1), build_norm_layer(dict(type='LN2d', eps=1e-6), channels // 2), nn.GELU(), up(2)
            ),
            lambda: up(1),
            nn.Identity,
            lambda: nn.MaxPool2d(2, ceil_mode=True),
        )
        self.levels = nn.ModuleList(makers[level]() for level in levels)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Map ``[B, C, H / 16, W / 16]`` to a map of each level."""
        return tuple(level(x) for level in self.levels)


def _check_arch(arch) -> dict[str, int]:
    arch = check_arch(arch.removeprefix('deit-') if isinstance(arch, str) else arch, ARCHS)
    if any(not isinstance(v, int) or v < 1 for v in arch.values()) or arch['embed_dims'] % arch['num_heads']:
        raise BadInputError(f'arch={arch!r} needs positive integers, and embed_dims a multiple of num_heads')
    return arch


def _check_window(window_size: int, global_indices: Sequence[int], with_cls_token: bool, num_layers: int) -> None:
    if check_at_least('window_size', window_size, 0) and with_cls_token:
        raise BadInputError(f'window_size={window_size} needs with_cls_token=False')
    if any(not isinstance(i, int) or not 0 <= i < num_layers for i in global_indices):
        raise BadInputError(f'global_indices={tuple(global_indices)} must be blocks from 0 to {num_layers - 1}')


def _check_patches(img_size: int | Sequence[int], patch_size: int) -> None:
    check_at_least('patch_size', patch_size, 1)
    for side in img_size if isinstance(img_size, (list, tuple)) else [img_size]:
        if not isinstance(side, int) or side < patch_size:
            raise BadInputError(f'img_size={img_size!r} must be at least patch_size={patch_size}, in pixels')
