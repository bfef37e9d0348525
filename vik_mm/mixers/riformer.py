"""The affine map that RIFormer has in the place of a token mixer.

Shape letters: ``B`` images, ``C`` channels.
"""

import torch
from mmpretrain.models.backbones.riformer import Affine
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .base import TokenMixer
from .convolutions import truncate_start_values
from .metaformer import Identity


@MODELS.register_module()
class RIFormerAffine(TokenMixer):
    """``gamma * x + beta - x`` for each channel: no mixing, the lower bound of a comparison of mixers.

    After training, :func:`fold_affine` moves it into the norm before it.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the map is the same at every size.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``.

    Source:
        arXiv 2304.05659; wraps ``Affine`` of ``mmpretrain.models.backbones.riformer``, the authors' code. Start values
        are those of their training configs, ``gamma`` near 0 and ``beta`` 0, so that it starts near ``-x``; the class
        itself draws both from [-1, 1]. The paper trains by distillation from a model with a mixer.
    """

    original_names = ((r'^affine\.', ''),)

    def __init__(self, embed_dims: int, grid_size: tuple[int, int], init_cfg=None):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.affine = Affine(embed_dims)
        truncate_start_values(self.affine)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]``."""
        return self.affine(x)


@torch.no_grad()
def fold_affine(model: nn.Module) -> int:
    """Move each :class:`RIFormerAffine` of ViK's blocks into the norm before it, for faster prediction.

    ``norm1`` gets the weight ``a (gamma - 1)`` and the bias ``c (gamma - 1) + beta`` of its own ``a`` and ``c``; the
    mixer becomes :class:`vik_mm.mixers.Identity`. Answers stay the same up to rounding.

    Args:
        model (nn.Module): A model with blocks that have ``norm1`` and ``token_mixer``; changed in place. To load its
            checkpoint later, build it with ``token_mixer=dict(type='Identity')``.

    Returns:
        int: Blocks that were changed.

    Raises:
        BadInputError: If a norm has no weight and bias; nothing is changed then.
    """
    blocks = {
        name: block
        for name, block in model.named_modules()
        if isinstance(getattr(block, 'token_mixer', None), RIFormerAffine)
    }
    for name, block in blocks.items():
        if getattr(block.norm1, 'weight', None) is None or getattr(block.norm1, 'bias', None) is None:
            raise BadInputError(
                f'norm1 of {name or type(block).__name__} has no weight and bias to fold the mixer into'
            )
    for block in blocks.values():
        affine = block.token_mixer.affine.affine
        gamma = affine.weight.flatten()
        block.norm1.weight.mul_(gamma - 1)
        block.norm1.bias.mul_(gamma - 1).add_(affine.bias)
        block.token_mixer = Identity(block.token_mixer.embed_dims, block.token_mixer.grid_size)
    return len(blocks)
