"""One switch for what mixes the tokens of a transformer's blocks: ``attn_cfg``.

``dict(type='Softmax')`` is softmax attention, ``dict(type='KArAt', ...)`` has a learnable operator in the place of
softmax, and any other type is a token mixer of ViK, such as ``dict(type='MultiPatchRBFKAN', patch_size=7)``.

Shape letters: ``B`` images, ``N`` tokens, ``C`` channels, ``H`` and ``W`` height and width of the tokens' grid.
"""

import inspect

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.attention import KArAt, check_attention
from vik_mm.errors import BadInputError
from vik_mm.mixers import TokenMixer, build_token_mixer
from vik_mm.parts import known_parts


def is_mixer(attn_cfg: dict) -> bool:
    """Tell whether an ``attn_cfg`` names a token mixer instead of an attention.

    Raises:
        BadTypeError: If it is no dict with a ``type``, or has an option that its type does not know.
        BadInputError: If the type is unknown.
    """
    if isinstance(attn_cfg, dict) and attn_cfg.get('type') not in (None, 'Softmax', 'KArAt'):
        kind = attn_cfg['type']
        mixer = MODELS.get(kind) if isinstance(kind, str) else kind
        if not (inspect.isclass(mixer) and issubclass(mixer, TokenMixer)):
            raise BadInputError(
                f"attn_cfg type {kind!r} is unknown; choose 'Softmax', 'KArAt' or one of the token mixers "
                f'{known_parts(TokenMixer)}'
            )
        return True
    check_attention(attn_cfg)
    return False


class MapMixer(nn.Module):
    """A token mixer of ViK among the tokens of a transformer.

    The tokens of the grid are mixed as a map. A class token takes part by its mean: it becomes the mean of the mixed
    map, and the map does not see it.

    Args:
        cfg (dict): Config of the mixer; see :func:`vik_mm.mixers.build_token_mixer`.
        embed_dims (int): ``C``.
        token_grid (tuple[int, int]): ``H`` and ``W`` at the backbone's ``img_size``.
        num_prefix_tokens (int): Class tokens before those of the grid. Defaults to 1.
        out_drop (nn.Module, optional): Drop path. Defaults to None.

    Shape:
        - Input and output: ``[B, N, C]``.
    """

    def __init__(
        self,
        cfg: dict,
        embed_dims: int,
        token_grid: tuple[int, int],
        num_prefix_tokens: int = 1,
        out_drop: nn.Module | None = None,
    ):
        super().__init__()
        height, width = token_grid
        self.token_grid, self.num_prefix_tokens = (height, width), num_prefix_tokens
        self.mixer = build_token_mixer(cfg, embed_dims, self.token_grid)
        self.out_drop = out_drop or nn.Identity()

    def forward(self, x: Tensor, token_grid: tuple[int, int] | None = None, operator: KArAt | None = None) -> Tensor:
        """Mix ``[B, N, C]``."""
        tokens = x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, token_grid or self.token_grid)
        mixed = self.mixer(tokens).flatten(2).transpose(1, 2)
        if self.num_prefix_tokens:
            summary = mixed.mean(1, keepdim=True).expand(-1, self.num_prefix_tokens, -1)
            mixed = torch.cat([summary, mixed], dim=1)
        return self.out_drop(mixed)
