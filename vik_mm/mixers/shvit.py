"""Single-head self-attention on part of the channels, the token mixer of SHViT.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``p`` channels that attend.
"""

import torch
import torch.nn.functional as F
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced

from .base import TokenMixer
from .convolutions import ConvNorm
from .heads import check_pairs

ALIGNMENT = 8  # channels; what the fused kernels of attention want
FEW_PIXELS = 2048  # CPUs are faster with the map of all pairs up to here


@MODELS.register_module()
class SingleHeadAttention(TokenMixer):
    """One head of attention among all pixels, on the first channels; the others pass, and all are mixed at the end.

    Its cost grows with the square of the pixels. There is no position in it: the release's block has a depthwise
    convolution before it, and no attention in its first stage, whose stride is 16.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused; the mixer is the same at every size.
        partial_dims (int, optional): ``p``. None is ``3 C / 14``, rounded down, and at least 1. Defaults to None.
        qk_dims (int): Channels of queries and keys. Defaults to 16.
        max_tokens (int): Maps of more pixels are refused. Defaults to 16384.
        norm_cfg (dict): Config of the norms. ``ViK(ignore_padding=True)`` takes no batch norm, but
            ``dict(type='GN', num_groups=1)``. Defaults to ``dict(type='BN')``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``. Batch norm asks for more than one pixel in training.

    Raises:
        BadInputError: If there are not as many channels as ``partial_dims``, ``qk_dims`` is less than 1, or a map has
            too many pixels.

    Source:
        arXiv 2401.16456; ``SHSA`` of ``model/shvit.py`` (ysj9909/SHViT, commit 6a729cc, MIT). Its last batch norm
        starts at weight 0; here at 1, as the block's layer scale starts the branch small.
    """

    original_names = ((r'^qkv\.conv\.', 'qkv.c.'), (r'^proj\.conv\.', 'proj.1.c.'), (r'^proj\.bn\.', 'proj.1.bn.'))

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        partial_dims: int | None = None,
        qk_dims: int = 16,
        max_tokens: int = 16384,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        partial_dims = max(1, 3 * embed_dims // 14) if partial_dims is None else partial_dims
        if not 1 <= partial_dims <= embed_dims:
            raise BadInputError(f'partial_dims={partial_dims} must be from 1 to the {embed_dims} channels')
        if qk_dims < 1:
            raise BadInputError(f'qk_dims={qk_dims} must be at least 1')
        self.partial_dims, self.qk_dims, self.max_tokens = partial_dims, qk_dims, max_tokens
        self.pre_norm = nn.GroupNorm(1, partial_dims)
        self.qkv = ConvNorm(partial_dims, 2 * qk_dims + partial_dims, norm_cfg=norm_cfg)
        self.proj = ConvNorm(embed_dims, embed_dims, norm_cfg=norm_cfg)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        height, width = x.shape[2:]
        check_pairs(self, height * width, height * width, self.max_tokens)
        attended, passed = x.split([self.partial_dims, self.embed_dims - self.partial_dims], dim=1)
        qkv = self.qkv(self.pre_norm(attended)).flatten(2)
        y = self._attend(*qkv.split([self.qk_dims, self.qk_dims, self.partial_dims], dim=1))
        y = y.unflatten(2, (height, width))
        return self.proj(F.relu(torch.cat([y, passed], dim=1)))

    def _attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Let ``q`` and ``k`` ``[B, qk_dims, N]`` mix the pixels of ``v`` ``[B, p, N]``."""
        scale = self.qk_dims**-0.5
        if not is_traced() and not q.is_cuda and q.shape[2] <= FEW_PIXELS:
            scores = (q * scale).transpose(1, 2) @ k
            return v @ scores.softmax(2).to(v.dtype).transpose(1, 2)
        # The kernels that never hold the map of all pairs take heads of one width; zeros change nothing.
        widest = -(-max(self.qk_dims, self.partial_dims) // ALIGNMENT) * ALIGNMENT
        q, k, v = (F.pad(part.transpose(1, 2)[:, None], (0, widest - part.shape[1])) for part in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, scale=scale)[:, 0, :, : self.partial_dims]
        return y.transpose(1, 2)
