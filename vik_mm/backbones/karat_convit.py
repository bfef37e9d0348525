"""ConViT with Kolmogorov-Arnold attention: its gated positional attention keeps the gate and the positions."""

from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.attention import KArAt, build_operator, check_attention
from vik_mm.errors import BadInputError, UnavailableError

from .loading import PretrainedBackbone


class GatedAttention(nn.Module):
    """Gated positional self-attention with a learnable operator on its content scores.

    Positions keep their softmax. The blend of both is not divided by its sum, as the original does, since the weights
    of a learnable operator may be negative.

    Args:
        attention (nn.Module): timm's ``GPSA``; its projections, positions and gate are taken over, with their names.
        operator (KArAt): The operator.

    Shape:
        - Input and output: ``[B, N, C]``.
    """

    def __init__(self, attention: Any, operator: KArAt):
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.qk, self.v, self.pos_proj, self.proj = attention.qk, attention.v, attention.pos_proj, attention.proj
        self.attn_drop, self.proj_drop = attention.attn_drop, attention.proj_drop
        self.gating_param = attention.gating_param
        self.register_buffer('positions', attention.get_rel_indices(operator.num_tokens), persistent=False)
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, N, C]``."""
        q, k = self.qk(x).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        v = self.v(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        content = self.operator((q * self.scale) @ k.transpose(-1, -2))
        position = self.pos_proj(self.positions).permute(0, 3, 1, 2).softmax(-1)
        gate = self.gating_param.sigmoid().view(1, -1, 1, 1)
        weights = self.attn_drop((1 - gate) * content + gate * position)
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


class PlainAttention(nn.Module):
    """Self-attention of timm's ConViT with a learnable operator in the place of softmax.

    Args:
        attention (nn.Module): timm's ``MHSA``; its projections are taken over, with their names.
        operator (KArAt): The operator.

    Shape:
        - Input and output: ``[B, N, C]``.
    """

    def __init__(self, attention: Any, operator: KArAt):
        super().__init__()
        self.num_heads, self.scale = attention.num_heads, attention.scale
        self.qkv, self.proj = attention.qkv, attention.proj
        self.attn_drop, self.proj_drop = attention.attn_drop, attention.proj_drop
        self.operator = operator

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, N, C]``."""
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        weights = self.attn_drop(self.operator((q * self.scale) @ k.transpose(-1, -2)))
        return self.proj_drop(self.proj((weights @ v).transpose(1, 2).flatten(2)))


@MODELS.register_module()
class ConViTKArAt(PretrainedBackbone):
    """ConViT of timm, for classification at one image size, whose attention is a choice.

    Args:
        model_name (str): timm's name. Defaults to 'convit_tiny'.
        img_size (int): Side of the images in pixels. Defaults to 224.
        attn_cfg (dict): ``dict(type='KArAt', ...)`` with options of :class:`vik_mm.attention.KArAt`, an operator for
            each block, or ``dict(type='Softmax')``, ConViT as it is. Defaults to ``dict(type='KArAt')``.
        drop_path_rate (float): Stochastic depth of the last block. Defaults to 0.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input: ``[B, 3, img_size, img_size]``.
        - Output: a tuple of the class token, ``[B, C]``.

    Raises:
        UnavailableError: If timm is not installed.
        BadInputError: If ``attn_cfg`` is wrong, or asks for a universal operator: ConViT's blocks before and behind the
            class token have different numbers of tokens.

    Source:
        arXiv 2503.10632; arXiv 2103.10697 (ConViT).
    """

    def __init__(
        self,
        model_name: str = 'convit_tiny',
        img_size: int = 224,
        attn_cfg: dict = dict(type='KArAt'),
        drop_path_rate: float = 0.0,
        init_cfg=None,
    ):
        super().__init__(init_cfg=init_cfg)
        try:
            import timm
        except ImportError as error:
            raise UnavailableError('ConViTKArAt is built on timm: pip install timm') from error
        check_attention(attn_cfg)
        if attn_cfg.get('universal'):
            raise BadInputError(
                'a universal operator serves blocks of as many tokens, and the class token joins ConViT on the way'
            )
        if not model_name.startswith('convit'):
            raise BadInputError(f"model_name={model_name!r} is no ConViT of timm, such as 'convit_tiny'")
        model: Any = timm.create_model(model_name, img_size=img_size, num_classes=0, drop_path_rate=drop_path_rate)
        grid, size = model.patch_embed.grid_size, model.patch_embed.img_size
        self.img_size, self.embed_dims = tuple(size), model.embed_dim
        for i, block in enumerate(model.blocks):
            is_gated = i < model.local_up_to_layer
            operator = build_operator(attn_cfg, block.attn.num_heads, grid, 0 if is_gated else 1)
            if operator is not None:
                block.attn = (GatedAttention if is_gated else PlainAttention)(block.attn, operator)
        self.block_classes = {type(block) for block in model.blocks}
        self.model: Any = model

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Compute the class token of ``[B, 3, H, W]``.

        Raises:
            BadInputError: If the images have another size than ``img_size``.
        """
        if tuple(x.shape[2:]) != self.img_size:
            raise BadInputError(f'this ConViT takes images of {self.img_size}, got {tuple(x.shape[2:])}; resize them')
        return (self.model.forward_features(x)[:, 0],)

    def train(self, mode: bool = True) -> 'ConViTKArAt':
        """Set training mode."""
        super().train(mode)
        return self
