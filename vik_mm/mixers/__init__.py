"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .base import TokenMixer, build_token_mixer
from .metaformer import Identity, Pooling
from .multipatch_rbfkan import MultiPatchRBFKAN

__all__ = ['Identity', 'MultiPatchRBFKAN', 'Pooling', 'TokenMixer', 'build_token_mixer']
