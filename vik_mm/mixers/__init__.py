"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .base import TokenMixer, build_token_mixer
from .davit import DaViTAttention
from .l2vit import L2ViTGlobalAttention, L2ViTWindowAttention
from .maxvit import MaxViTAttention
from .metaformer import Identity, Pooling
from .multipatch_rbfkan import MultiPatchRBFKAN
from .nprf import NPRFAttention
from .polyphase import PolyphaseAnchoring
from .resampled import log_resampled_mixers
from .self_attention import SelfAttention
from .smt import ScaleAwareModulation, SMTAttention

__all__ = [
    'DaViTAttention',
    'Identity',
    'L2ViTGlobalAttention',
    'L2ViTWindowAttention',
    'MaxViTAttention',
    'MultiPatchRBFKAN',
    'NPRFAttention',
    'PolyphaseAnchoring',
    'Pooling',
    'SMTAttention',
    'ScaleAwareModulation',
    'SelfAttention',
    'TokenMixer',
    'build_token_mixer',
    'log_resampled_mixers',
]
