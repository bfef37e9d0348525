"""One switch for what mixes the tokens of a transformer: ``attn_cfg``.

``dict(type='Softmax')`` is softmax attention, ``dict(type='KArAt', ...)`` has a learnable operator in the place of softmax,
and any other type is a token mixer of ViK, such as ``dict(type='MultiPatchRBFKAN', patch_size=7)``.
"""

import inspect

from vik_mm.mixers import TokenMixer
from mmpretrain.registry import MODELS

from .karat import KArAt

# Arguments of KArAt that the surrounding transformer knows.
_FROM_THE_BLOCK = {'self', 'num_heads', 'token_grid', 'num_prefix_tokens'}


def is_mixer(attn_cfg: dict) -> bool:
    """Tell whether an ``attn_cfg`` names a token mixer instead of an attention.

    Raises:
        TypeError: If it is no dict with a ``type``, or has an option that softmax or KArAt does not know.
        ValueError: If the type is unknown.
    """
    if not isinstance(attn_cfg, dict) or 'type' not in attn_cfg:
        raise TypeError(f"attn_cfg must be a dict with a type, such as dict(type='KArAt'), got {attn_cfg!r}")
    options, kind = set(attn_cfg) - {'type'}, attn_cfg['type']
    if kind in ('Softmax', 'KArAt'):
        known = set(inspect.signature(KArAt.__init__).parameters) - _FROM_THE_BLOCK | {'universal'}
        allowed = known if kind == 'KArAt' else set()
        if unknown := sorted(options - allowed):
            raise TypeError(f'{kind} attention has no option {unknown}; it takes {sorted(allowed)}')
        return False
    mixer = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (inspect.isclass(mixer) and issubclass(mixer, TokenMixer)):
        raise ValueError(f"attn_cfg type {kind!r} is unknown; choose 'Softmax', 'KArAt' or a registered token mixer")
    return True


def build_operator(attn_cfg: dict, num_heads: int, token_grid: tuple[int, int], num_prefix_tokens: int) -> KArAt | None:
    """Build the operator that takes the place of softmax, or give None for softmax."""
    if attn_cfg['type'] == 'Softmax':
        return None
    options = {key: value for key, value in attn_cfg.items() if key not in ('type', 'universal')}
    return KArAt(num_heads, token_grid, num_prefix_tokens, **options)
