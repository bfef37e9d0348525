"""Attention for token sequences, and the learnable operator of Kolmogorov-Arnold attention."""

from .bases import BASES
from .build import build_operator, is_mixer
from .karat import BASE_ACTIVATIONS, KArAt, resample_tokens
from .multihead import MapMixer, TokenAttention, WindowAttention

__all__ = [
    'BASES',
    'BASE_ACTIVATIONS',
    'KArAt',
    'MapMixer',
    'TokenAttention',
    'WindowAttention',
    'build_operator',
    'is_mixer',
    'resample_tokens',
]
