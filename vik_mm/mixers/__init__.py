"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .base import TokenMixer, build_token_mixer
from .metaformer import Identity, Pooling
from .multipatch_rbfkan import MultiPatchRBFKAN
from .resampled import log_resampled_mixers
from .self_attention import SelfAttention

__all__ = [
    'Identity',
    'MultiPatchRBFKAN',
    'Pooling',
    'SelfAttention',
    'TokenMixer',
    'build_token_mixer',
    'log_resampled_mixers',
]
