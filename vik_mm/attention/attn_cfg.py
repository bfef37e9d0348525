"""Softmax or a learnable operator, chosen by ``attn_cfg``."""

import inspect

from vik_mm.errors import BadInputError, BadTypeError

from .karat import KArAt

# Arguments of KArAt that the surrounding transformer knows.
_FROM_THE_BLOCK = {'self', 'num_heads', 'token_grid', 'num_prefix_tokens'}


def check_attention(attn_cfg: dict) -> None:
    """Refuse what is no config of an attention.

    Raises:
        BadTypeError: If it is no dict with a ``type``, or has an option that its type does not know.
        BadInputError: If the type is unknown.
    """
    if not isinstance(attn_cfg, dict) or 'type' not in attn_cfg:
        raise BadTypeError(f"attn_cfg must be a dict with a type, such as dict(type='KArAt'), got {attn_cfg!r}")
    options, kind = set(attn_cfg) - {'type'}, attn_cfg['type']
    if kind not in ('Softmax', 'KArAt'):
        raise BadInputError(f"attn_cfg type {kind!r} is unknown; choose 'Softmax' or 'KArAt'")
    of_karat = set(inspect.signature(KArAt.__init__).parameters) - _FROM_THE_BLOCK | {'universal'}
    allowed = of_karat if kind == 'KArAt' else set()
    if unknown := sorted(options - allowed):
        raise BadTypeError(f'{kind} attention has no option {unknown}; it takes {sorted(allowed)}')


def build_operator(attn_cfg: dict, num_heads: int, token_grid: tuple[int, int], num_prefix_tokens: int) -> KArAt | None:
    """Build the operator that takes the place of softmax, or give None for softmax."""
    if attn_cfg['type'] == 'Softmax':
        return None
    options = {key: value for key, value in attn_cfg.items() if key not in ('type', 'universal')}
    return KArAt(num_heads, token_grid, num_prefix_tokens, **options)
