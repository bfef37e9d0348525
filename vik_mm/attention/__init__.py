"""Attention for token sequences, and the learnable operator of Kolmogorov-Arnold attention."""

from .attn_cfg import build_operator, check_attention
from .bases import BASES
from .karat import BASE_ACTIVATIONS, KArAt, resample_tokens
from .multihead import TokenAttention

__all__ = [
    'BASES',
    'BASE_ACTIVATIONS',
    'KArAt',
    'TokenAttention',
    'build_operator',
    'check_attention',
    'resample_tokens',
]
