"""Swin transformer with Kolmogorov-Arnold attention in its windows, or a token mixer of ViK in their place."""

from mmpretrain.models.backbones import SwinTransformer
from mmpretrain.models.backbones.swin_transformer import SwinBlock
from mmpretrain.models.utils import WindowMSA
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.attention import KArAt, build_operator
from vik_mm.errors import BadInputError
from vik_mm.mixers import log_resampled_mixers

from .loading import PretrainedBackbone
from .mixer_as_attention import MapMixer, is_mixer


class KArAtWindowMSA(nn.Module):
    """Window attention of Swin with a learnable operator in the place of softmax.

    Pairs of pixels that a shifted window brings together without their being neighbours are masked: their scores count
    as zero, and their weights are zero.

    Args:
        attention (WindowMSA): Swin's own; its projections and position bias are taken over, with their names.
        operator (KArAt): The operator.

    Shape:
        - Input and output: ``[windows, N, C]``.
    """

    relative_position_index: Tensor

    def __init__(self, attention: WindowMSA, operator: KArAt):
        super().__init__()
        self.qkv, self.proj = attention.qkv, attention.proj
        self.attn_drop, self.proj_drop = attention.attn_drop, attention.proj_drop
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.relative_position_bias_table = attention.relative_position_bias_table
        self.register_buffer('relative_position_index', attention.relative_position_index)
        self.operator = operator
        nn.init.trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Mix windows.

        Args:
            x (Tensor): ``[windows, N, C]``.
            mask (Tensor, optional): ``[windows of an image, N, N]``, negative where a pair is masked. Defaults to None.

        Returns:
            Tensor: ``[windows, N, C]``.
        """
        num_tokens = x.shape[1]
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()]
        scores = (q * self.scale) @ k.transpose(-1, -2) + bias.view(num_tokens, num_tokens, -1).permute(2, 0, 1)
        if mask is None:
            weights = self.operator(scores)
        else:
            masked = (mask < 0).unsqueeze(1).repeat(x.shape[0] // mask.shape[0], 1, 1, 1)
            weights = self.operator(scores.masked_fill(masked, 0)).masked_fill(masked, 0)
        x = (self.attn_drop(weights) @ v).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(x))


@MODELS.register_module()
class SwinKArAt(PretrainedBackbone, SwinTransformer):
    """Swin transformer whose attention is a choice.

    Args:
        attn_cfg (dict): ``dict(type='KArAt', ...)`` with options of :class:`vik_mm.attention.KArAt`, an operator for
            each block on its windows; ``dict(type='Softmax')``, Swin as it is; or a token mixer of ViK, which mixes the
            whole map in the place of window attention and its shift. Defaults to ``dict(type='KArAt')``.
        **kwargs: Arguments of ``mmpretrain.models.backbones.SwinTransformer``.

    Raises:
        TypeError: If an argument is unknown to Swin, or an option to the attention.
        ValueError: If an option has a value that makes no sense, or a universal operator is asked for: the stages have
            different numbers of heads.

    Source:
        arXiv 2503.10632.
    """

    block_classes = (SwinBlock,)  # what is gathered at a time where the model is divided among processes

    def __init__(self, attn_cfg: dict = dict(type='KArAt'), **kwargs):
        mixes_maps = is_mixer(attn_cfg)
        if attn_cfg.get('universal') and not mixes_maps:
            raise BadInputError("a universal operator serves blocks of as many heads, and Swin's stages differ in them")
        super().__init__(**kwargs)
        grid = self.patch_resolution
        for stage in self.stages:
            for block in stage.blocks:
                attention = block.attn.w_msa
                if mixes_maps:
                    block.attn = MapMixer(attn_cfg, attention.embed_dims, grid, 0, block.attn.drop)
                elif operator := build_operator(attn_cfg, attention.num_heads, attention.window_size, 0):
                    block.attn.w_msa = KArAtWindowMSA(attention, operator)
            grid = tuple(-(-side // 2) for side in grid)
        self.register_load_state_dict_post_hook(log_resampled_mixers)

    def train(self, mode: bool = True) -> 'SwinKArAt':
        """Set training mode; frozen parts stay in evaluation mode."""
        super().train(mode)
        return self
