"""DuoFormer: attention among the scales of each region of an image, then among the regions.

Shape letters: ``B`` images, ``C`` channels of a map, ``D`` channels of a token, ``R`` regions, ``H`` and ``W`` regions
down and across, ``S`` tokens of a region, ``h`` heads, ``N`` tokens of a sequence.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.mixers.windows import merge_windows, split_windows
from vik_mm.ops import crop_map, is_traced
from vik_mm.ops.backends import compute_dtype

from .loading import PretrainedBackbone

OUT_TYPES = ('cls_token', 'featmap')
SCALE_TOKENS = ('random', 'channel')


class MaskedAttention(nn.Module):
    """Multi-head self-attention among the tokens of a sequence, some of which are padding.

    Args:
        embed_dims (int): ``D``.
        num_heads (int): ``h``; divides ``D``.

    Shape:
        - Input and output: ``[B, N, D]``.
    """

    def __init__(self, embed_dims: int, num_heads: int):
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dims, 3 * embed_dims)
        self.proj = nn.Linear(embed_dims, embed_dims)

    def forward(self, x: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Mix ``[B, N, D]``; ``is_token``, ``[B, N]``, is false where nothing is to be seen."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        mask = None if is_token is None else is_token[:, None, None]
        answer = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(answer.transpose(1, 2).flatten(2))


class ScaleBlock(nn.Module):
    """Pre-norm transformer block among the tokens of one region.

    Args:
        embed_dims (int): ``D``.
        num_heads (int): ``h``.
        mlp_ratio (float): Hidden channels of the MLP over ``D``.

    Shape:
        - Input and output: ``[B R, S, D]``.
    """

    def __init__(self, embed_dims: int, num_heads: int, mlp_ratio: float):
        super().__init__()
        hidden_dims = int(embed_dims * mlp_ratio)
        self.norm1 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.attn = MaskedAttention(embed_dims, num_heads)
        self.norm2 = nn.LayerNorm(embed_dims, eps=1e-6)
        self.mlp = nn.Sequential(nn.Linear(embed_dims, hidden_dims), nn.GELU(), nn.Linear(hidden_dims, embed_dims))

    def forward(self, x: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Mix ``[B R, S, D]``; ``is_token``, ``[B R, S]``, is false where nothing is to be seen."""
        x = x + self.attn(self.norm1(x), is_token)
        return x + self.mlp(self.norm2(x))


class ChannelScaleToken(nn.Module):
    """The scale token of each region from the backbone's maps, brought to the size of the coarsest.

    Each map is halved by 3x3 convolutions until max-pooling halves it for the last time. The maps are concatenated, and
    four convolutions with norm and ReLU follow, the first of which goes to ``D`` channels.

    Args:
        in_channels (Sequence[int]): Channels of the maps, finest first.
        embed_dims (int): ``D``.
        norm_cfg (dict): Config of the norms.

    Shape:
        - Input: maps ``[B, C_i, k H, k W]`` with ``k`` = ..., 4, 2, 1.
        - Output: ``[B, D, H, W]``.
    """

    def __init__(self, in_channels: Sequence[int], embed_dims: int, norm_cfg: dict):
        super().__init__()
        halvings = range(len(in_channels) - 1, -1, -1)
        self.shrink = nn.ModuleList(
            nn.Sequential(
                *(nn.Conv2d(channels, channels, 3, stride=2, padding=1) for _ in range(count - 1)),
                nn.MaxPool2d(2) if count else nn.Identity(),
            )
            for channels, count in zip(in_channels, halvings)
        )
        widths = [sum(in_channels), *[embed_dims] * 4]
        self.fuse = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(old, new, 3, padding=1), build_norm_layer(norm_cfg, new), nn.ReLU())
                for old, new in zip(widths, widths[1:])
            )
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Compute ``[B, D, H, W]``."""
        return self.fuse(torch.cat([shrink(x) for shrink, x in zip(self.shrink, maps)], dim=1))


@MODELS.register_module()
class DuoFormer(PretrainedBackbone):
    """Transformer over the maps of a four-stage backbone: attention among scales, then among patches.

    .. code-block:: text

        maps of strides 4, 8, 16, 32 -> a 1x1 convolution each -> D channels
        a region: a pixel of the coarsest map and all finer pixels above it, 1 + 4 + 16 + 64 tokens, and a scale token
        scale blocks:  transformer blocks among the tokens of each region
        patch layers:  x = attention(x) among the scale tokens of all regions and a class token

    Patch layers have no norm, shortcut or MLP, as the authors want it. Images of any size are taken: maps are filled up
    to whole regions, and padding is hidden from the tokens. With ``S`` tokens a region, a scale block costs
    ``R S^2 D``, linear in pixels, and a patch layer ``R^2 D``.

    Args:
        backbone (dict): Config of the backbone that gives the maps, such as
            ``dict(type='ResNet', depth=50, out_indices=(0, 1, 2, 3))``: one map for each scale, finest first, each half
            as large as the one before.
        in_channels (Sequence[int]): Channels of its maps: 2, 3 or 4 of them, such as ``(256, 512, 1024, 2048)``.
        img_size (int | tuple[int, int]): Image size, or height and width, in pixels, that position embeddings belong
            to. Images of another size get them resized. Defaults to 224.
        out_stride (int): Pixels of the image for one of the coarsest map; with ``img_size`` it gives the grid of
            regions. Defaults to 32.
        embed_dims (int): ``D``. Defaults to 768.
        num_heads (int): ``h``. Defaults to 12.
        scale_depth (int): Scale blocks. Defaults to 12.
        patch_depth (int): Patch layers. Defaults to 12.
        mlp_ratio (float): Hidden channels of scale blocks' MLPs over ``D``. Defaults to 4.
        scale_token (str): 'random', one learned token for all regions; or 'channel', one for each region from the
            backbone's maps. Defaults to 'random'.
        norm_cfg (dict): Config of the norms of ``scale_token='channel'``. Defaults to ``dict(type='BN')``.
        out_type (str): 'cls_token', the class token ``[B, D]`` for a classification head; or 'featmap', a map
            ``[B, D, H_i, W_i]`` for each of the backbone's: tokens back in their places, with the region's answer of
            the patch layers added. The paper classifies only, and 'featmap' is this project's.
            Defaults to 'cls_token'.
        init_cfg (dict | list[dict], optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input: ``[B, 3, H, W]``, any size that the backbone takes.
        - Output: a tuple of the class token, or of maps, finest first.

    Raises:
        BadInputError: If an argument has a value that makes no sense, or the backbone's maps are not those that
            ``in_channels`` describes.

    Source:
        arXiv 2407.13920 and 2506.12982, written from their description; there is no released code that runs. Different
        on purpose: tokens of a region are row by row at all scales, two scales have 6 tokens, and the final norm's
        result is what is returned.
    """

    def __init__(
        self,
        backbone: dict,
        in_channels: Sequence[int],
        img_size: int | tuple[int, int] = 224,
        out_stride: int = 32,
        embed_dims: int = 768,
        num_heads: int = 12,
        scale_depth: int = 12,
        patch_depth: int = 12,
        mlp_ratio: float = 4,
        scale_token: str = 'random',
        norm_cfg: dict = dict(type='BN'),
        out_type: str = 'cls_token',
        init_cfg=None,
    ):
        super().__init__(init_cfg=init_cfg)
        _check_options(backbone, in_channels, embed_dims, num_heads, scale_depth, patch_depth, scale_token, out_type)
        height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
        self.in_channels, self.embed_dims, self.out_type = tuple(in_channels), embed_dims, out_type
        self.region_grid = (-(-height // out_stride), -(-width // out_stride))
        self.sides = tuple(2**i for i in range(len(in_channels) - 1, -1, -1))  # of a region, in pixels of each map
        num_tokens = 1 + sum(side**2 for side in self.sides)

        # A detector's or segmentor's registry would look for the type among its own.
        self.backbone = MODELS.build({**backbone, '_scope_': MODELS.scope})
        self.projections = nn.ModuleList(nn.Conv2d(channels, embed_dims, 1) for channels in in_channels)
        is_random = scale_token == 'random'
        self.scale_token = nn.Parameter(torch.empty(1, 1, 1, embed_dims)) if is_random else None
        self.channel_token: Any = None if is_random else ChannelScaleToken(in_channels, embed_dims, norm_cfg)
        self.scale_positions = nn.Parameter(torch.empty(1, 1, num_tokens, embed_dims))
        self.scale_blocks = nn.ModuleList(ScaleBlock(embed_dims, num_heads, mlp_ratio) for _ in range(scale_depth))
        self.class_token = nn.Parameter(torch.empty(1, 1, embed_dims))
        self.class_position = nn.Parameter(torch.empty(1, 1, embed_dims))
        # The shape carries the grid, so that a checkpoint tells by itself which size it was made for.
        self.patch_positions = nn.Parameter(torch.empty(1, embed_dims, *self.region_grid))
        self.patch_layers = nn.ModuleList(MaskedAttention(embed_dims, num_heads) for _ in range(patch_depth))
        self.norm = nn.LayerNorm(embed_dims, eps=1e-6)
        self._set_start_values()
        self._register_load_state_dict_pre_hook(self._resize_loaded_positions)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the class token, or the maps.

        Args:
            x (Tensor): ``[B, 3, H, W]``.

        Returns:
            tuple[Tensor, ...]: ``([B, D],)`` or ``[B, D, H_i, W_i]`` for each of the backbone's maps.
        """
        maps = self.backbone(x)
        self._check_maps(maps)
        rows, columns = (self._count_regions([x.shape[axis] for x in maps]) for axis in (2, 3))
        grid = (rows, columns)
        tokens, is_token = self.gather_regions(maps, grid)
        tokens = self.attend_scales(tokens, is_token)
        class_token, answer = self.attend_patches(tokens[:, :, 0], grid)
        if self.out_type == 'cls_token':
            return (self.norm(class_token),)
        return self.scatter_regions(self.norm(tokens + answer[:, :, None]), grid, [x.shape[2:] for x in maps])

    def gather_regions(self, maps: Sequence[Tensor], grid: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """Gather the tokens of each region: the scale token, then the maps' from coarse to fine, each row by row.

        Args:
            maps (Sequence[Tensor]): ``[B, C_i, H_i, W_i]``, finest first.
            grid (tuple[int, int]): ``H`` and ``W``.

        Returns:
            tuple[Tensor, Tensor | None]: Tokens ``[B, R, S, D]``, and ``[R, S]``, false for padding; None without.
        """
        parts, masks, padded_maps = [], [], []
        is_padded = is_traced()
        for x, side, projection in zip(maps, self.sides, self.projections):
            height, width = x.shape[2:]
            full = (grid[0] * side, grid[1] * side)
            padding = (0, full[1] - width, 0, full[0] - height)
            is_padded = is_padded or any(padding)
            padded_maps.append(F.pad(x, padding))
            tokens = F.pad(projection(x), padding).permute(0, 2, 3, 1)
            parts.append(split_windows(tokens, (side, side)).flatten(3, 4).flatten(1, 2))  # [B, R, side^2, D]
            rows, columns = (torch.arange(length, device=x.device) for length in full)
            inside = ((rows < height)[:, None] & (columns < width))[None, ..., None]
            masks.append(split_windows(inside, (side, side)).flatten(3).flatten(0, 2))  # [R, side^2]
        if self.scale_token is not None:
            scale_token = self.scale_token.to(parts[0].dtype).expand(*parts[0].shape[:2], 1, -1)
        else:
            scale_token = self.channel_token(padded_maps).flatten(2).transpose(1, 2)[:, :, None]
        masks.append(torch.ones_like(masks[-1][:, :1]))
        tokens = torch.cat([scale_token, *reversed(parts)], dim=2)
        return tokens, torch.cat(masks[::-1], dim=1) if is_padded else None

    def attend_scales(self, tokens: Tensor, is_token: Tensor | None = None) -> Tensor:
        """Mix the tokens of each region, ``[B, R, S, D]``; ``is_token``, ``[R, S]``, is false for padding."""
        batch = tokens.shape[0]
        if is_token is not None:
            is_token = is_token[None].expand(batch, -1, -1).flatten(0, 1)
        x = (tokens + self.scale_positions).flatten(0, 1)
        for block in self.scale_blocks:
            x = block(x, is_token)
        return x.unflatten(0, (batch, -1))

    def attend_patches(self, tokens: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mix the scale tokens of all regions, ``[B, R, D]``, with the class token.

        Args:
            tokens (Tensor): ``[B, R, D]``.
            grid (tuple[int, int]): ``H`` and ``W``.

        Returns:
            tuple[Tensor, Tensor]: The class token ``[B, D]``, and ``[B, R, D]``.
        """
        positions = _resize(self.patch_positions, grid).flatten(2).transpose(1, 2)
        class_token = (self.class_token + self.class_position).expand(tokens.shape[0], -1, -1)
        x = torch.cat([class_token.to(tokens.dtype), tokens + positions], dim=1)
        for layer in self.patch_layers:
            x = layer(x)
        return x[:, 0], x[:, 1:]

    def scatter_regions(
        self, tokens: Tensor, grid: tuple[int, int], sizes: Sequence[tuple[int, int]]
    ) -> tuple[Tensor, ...]:
        """Put tokens back where :meth:`gather_regions` took them.

        Args:
            tokens (Tensor): ``[B, R, S, D]``.
            grid (tuple[int, int]): ``H`` and ``W``.
            sizes (Sequence[tuple[int, int]]): Height and width of each map, finest first.

        Returns:
            tuple[Tensor, ...]: ``[B, D, H_i, W_i]``, finest first.
        """
        parts = tokens.split([1, *(side**2 for side in reversed(self.sides))], dim=2)[:0:-1]
        maps = []
        for part, side, (height, width) in zip(parts, self.sides, sizes):
            x = merge_windows(part.unflatten(1, grid).unflatten(3, (side, side)))  # [B, side H, side W, D]
            maps.append(crop_map(x, height, width, dim=1).permute(0, 3, 1, 2).contiguous())
        return tuple(maps)

    def train(self, mode: bool = True) -> 'DuoFormer':
        """Set training mode; what the backbone inside freezes stays in evaluation mode."""
        super().train(mode)
        return self

    def _count_regions(self, lengths: Sequence[int]) -> int:
        """Count the regions along an axis that hold all maps: backbones that round down have larger fine maps."""
        counts = [(length + side - 1) // side for length, side in zip(lengths, self.sides)]
        most = counts[-1]
        for count in counts[:-1]:
            most = torch.sym_max(most, count)
        if not is_traced() and most - min(counts) > 1:
            raise BadInputError(
                f'the maps of {type(self.backbone).__name__} have sides {list(lengths)}; each must be half as long as '
                'the one before: choose consecutive stages as out_indices, without dilation'
            )
        return most

    def _check_maps(self, maps: Sequence[Tensor]) -> None:
        channels = tuple(x.shape[1] for x in maps)
        if channels != self.in_channels:
            raise BadInputError(
                f'{type(self.backbone).__name__} gives maps of {channels} channels, and in_channels is '
                f'{self.in_channels}; set its out_indices, or in_channels, so that they agree'
            )

    def _set_start_values(self) -> None:
        for layer in [*self.scale_blocks.modules(), *self.patch_layers.modules()]:
            if isinstance(layer, nn.Linear):
                nn.init.trunc_normal_(layer.weight, std=0.02)
                nn.init.zeros_(layer.bias)
        projections: Any = self.projections
        for projection in projections:
            nn.init.kaiming_normal_(projection.weight)
            nn.init.zeros_(projection.bias)
        for positions in (self.scale_positions, self.class_position, self.patch_positions):
            nn.init.trunc_normal_(positions, std=0.036)
        for token in (self.scale_token, self.class_token):
            if token is not None:
                nn.init.normal_(token, std=0.036)

    def _resize_loaded_positions(self, state_dict, prefix, *_):
        """Resize the position embeddings of a checkpoint made at another image size."""
        found = state_dict.get(prefix + 'patch_positions')
        if found is None or found.ndim != 4 or found.shape == self.patch_positions.shape:
            return
        state_dict[prefix + 'patch_positions'] = _resize(found, self.region_grid)
        print_log(
            f'{prefix}patch_positions of the checkpoint was resized from {tuple(found.shape[2:])} regions to '
            f'{self.region_grid}',
            logger='current',
        )


def _resize(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Resize ``[1, D, h, w]`` bicubically to ``[1, D, *grid]``."""
    if not is_traced() and positions.shape[2:] == grid:
        return positions
    wide = positions.to(compute_dtype(positions))  # CPUs know this only in float32
    return F.interpolate(wide, grid, mode='bicubic', align_corners=False, antialias=True).to(positions.dtype)


def _check_options(backbone, in_channels, embed_dims, num_heads, scale_depth, patch_depth, scale_token, out_type):
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise BadInputError(f"backbone must be a dict with a type, such as dict(type='ResNet', ...), got {backbone!r}")
    kind = backbone['type']
    if isinstance(kind, str) and MODELS.get(kind) is None:
        raise BadInputError(
            f'backbone type {kind!r} is not registered in MMPretrain; choose one that is, such as ResNet or ViK, or '
            f"prefix the package, such as 'mmdet.ResNet'"
        )
    if isinstance(in_channels, int) or len(in_channels) not in (2, 3, 4):
        raise BadInputError(f'in_channels={in_channels!r} must list the channels of 2, 3 or 4 maps, finest first')
    if num_heads < 1 or embed_dims % num_heads:
        raise BadInputError(f'num_heads={num_heads} must divide embed_dims={embed_dims}')
    if min(scale_depth, patch_depth) < 0:
        raise BadInputError(f'scale_depth={scale_depth} and patch_depth={patch_depth} must not be negative')
    for name, value, known in (('scale_token', scale_token, SCALE_TOKENS), ('out_type', out_type, OUT_TYPES)):
        if value not in known:
            raise BadInputError(f'{name}={value!r} is unknown; choose one of {list(known)}')
