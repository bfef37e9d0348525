"""Cascaded group attention in windows, the token mixer of EfficientViT (of Microsoft Research Asia, not of MIT).

Shape letters: ``B`` images, ``C`` channels, ``h`` heads of ``d = C / h`` channels, ``w`` side of a window.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import crop_map

from .base import TokenMixer
from .convolutions import ConvNorm, check_divides
from .windows import fill_up, merge_windows, split_windows


@MODELS.register_module()
class CascadedGroupAttention(TokenMixer):
    """Attention in windows, in which each head takes its own channels and the output of the head before it.

    The map is zero-padded right and below to whole windows, and cropped afterwards. As in the release, the padding
    takes part in the attention; ``mask_padding`` keeps it out.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``; windows are not larger.
        num_heads (int): ``h``. Defaults to 4.
        qk_dims (int): Channels of queries and keys in each head. Defaults to 16.
        window_size (int): ``w``, in pixels; the shorter side of ``grid_size`` if that is less. Defaults to 7.
        kernel_sizes (Sequence[int]): Side of the depthwise convolution of each head's queries, in pixels, odd; those
            behind the last head are unused. The release also has (7, 5, 3, 3). Defaults to (5, 5, 5, 5).
        mask_padding (bool): Whether pixels outside of the map get no weight in the softmax. Both are equal where
            windows divide the map. Defaults to False, as in the release.
        norm_cfg (dict): Config of the norms. ``ViK(ignore_padding=True)`` takes no batch norm, but
            ``dict(type='GN', num_groups=1)``. Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``. Batch norm asks for more than one pixel of all
          windows in training.

    Raises:
        BadInputError: If ``num_heads`` does not divide ``C``, there are fewer ``kernel_sizes`` than heads, or an option
            is out of its range.

    Source:
        arXiv 2305.07027; ``LocalWindowAttention`` of ``EfficientViT/classification/model/efficientvit.py``
        (microsoft/Cream, commit 4a13c40, MIT). The release, and timm's module after it, keep the gathered position
        bias in evaluation mode: weights that are loaded later are not seen, and a second backward pass fails. Here it
        is gathered in every pass. The release's last batch norm starts at weight 0; here at 1, as the block's layer
        scale starts the branch small. A checkpoint with another ``w`` has its bias resized bilinearly, with the offset
        0 and the largest one kept.
    """

    original_names = (
        (r'^position_bias$', 'attention_biases'),
        (r'^(qkvs|dws)\.(\d+)\.conv\.', r'\1.\2.c.'),
        (r'^proj\.conv\.', 'proj.1.c.'),
        (r'^proj\.bn\.', 'proj.1.bn.'),
        (r'^', 'attn.'),
    )
    original_unused = (r'attn\.attention_bias_idxs',)

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        num_heads: int = 4,
        qk_dims: int = 16,
        window_size: int = 7,
        kernel_sizes: Sequence[int] = (5, 5, 5, 5),
        mask_padding: bool = False,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        check_divides('num_heads', num_heads, embed_dims)
        if len(kernel_sizes) < num_heads or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise BadInputError(f'kernel_sizes={kernel_sizes} must be odd numbers, one for each of {num_heads} heads')
        if window_size < 1 or qk_dims < 1:
            raise BadInputError(f'window_size={window_size} and qk_dims={qk_dims} must be at least 1')
        self.num_heads, self.qk_dims, self.mask_padding = num_heads, qk_dims, mask_padding
        self.window_size = side = min(window_size, *grid_size)
        head_dims = embed_dims // num_heads
        self.qkvs = nn.ModuleList(
            ConvNorm(head_dims, 2 * qk_dims + head_dims, norm_cfg=norm_cfg) for _ in range(num_heads)
        )
        self.dws = nn.ModuleList(
            ConvNorm(qk_dims, qk_dims, size, groups=qk_dims, norm_cfg=norm_cfg) for size in kernel_sizes[:num_heads]
        )
        self.proj = ConvNorm(embed_dims, embed_dims, norm_cfg=norm_cfg)
        self.position_bias = nn.Parameter(torch.zeros(num_heads, side**2))
        distance = (torch.arange(side)[:, None] - torch.arange(side)).abs()  # [w, w]
        places = distance[:, None, :, None] * side + distance[None, :, None, :]
        self.register_buffer('bias_places', places.reshape(side**2, side**2), persistent=False)
        self._register_load_state_dict_pre_hook(self._resize_bias)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        height, width = x.shape[2:]
        side = self.window_size
        filled, inside = fill_up(x.permute(0, 2, 3, 1), (side, side))
        windows = split_windows(filled, (side, side))  # [B, I, J, w, w, C]
        y = self._attend(windows.flatten(0, 2).permute(0, 3, 1, 2), self._padding_mask(inside))
        y = merge_windows(y.permute(0, 2, 3, 1).reshape(windows.shape))
        return crop_map(y, height, width, dim=1).permute(0, 3, 1, 2)

    def _attend(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within windows ``[B', C, w, w]``; ``mask`` ``[B' / B, 1, w * w]`` is added to the scores."""
        bias = self.position_bias[:, self.bias_places]  # [h, w * w, w * w]
        if mask is not None:
            bias = (bias[:, None] + mask).repeat(1, windows.shape[0] // mask.shape[0], 1, 1)  # [h, B', w * w, w * w]
        outs: list[Tensor] = []
        for number, part in enumerate(windows.chunk(self.num_heads, dim=1)):
            qkv = self.qkvs[number](part + outs[-1] if outs else part)
            q, k, v = qkv.split([self.qk_dims, self.qk_dims, part.shape[1]], dim=1)
            q = self.dws[number](q) * self.qk_dims**-0.5
            scores = q.flatten(2).transpose(1, 2) @ k.flatten(2) + bias[number]
            outs.append((v.flatten(2) @ scores.softmax(2).to(v.dtype).transpose(1, 2)).view_as(v))
        return self.proj(F.relu(torch.cat(outs, dim=1)))

    def _padding_mask(self, inside: Tensor | None) -> Tensor | None:
        """Give 0 for pixels of the map and -inf for padding, ``[H', W'] -> [B' / B, 1, w * w]``; None hides none."""
        if inside is None or not self.mask_padding:
            return None
        side = self.window_size
        keys = split_windows(inside[None, ..., None], (side, side)).flatten(3).flatten(0, 2)[:, None]
        return torch.zeros(keys.shape, device=keys.device).masked_fill(~keys, float('-inf'))

    def _resize_bias(self, state_dict, prefix, *_):
        """Bring the bias of a checkpoint with windows of another size to this one's."""
        bias = state_dict.get(prefix + 'position_bias')
        side = self.window_size
        if bias is None or bias.ndim != 2 or bias.shape[1] == side**2:
            return
        old = round(bias.shape[1] ** 0.5)
        if old**2 == bias.shape[1]:
            resized = F.interpolate(bias.view(1, -1, old, old), (side, side), mode='bilinear', align_corners=True)
            state_dict[prefix + 'position_bias'] = resized.view(-1, side**2)
            self.resampled_from = f'position_bias from windows of {old} pixels to {side}'
