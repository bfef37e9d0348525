"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .arc import AdaptiveRotatedConv
from .base import TokenMixer, build_token_mixer
from .biformer import BiLevelRoutingAttention
from .casvit import ConvAdditiveAttention
from .datpp import DeformableAttention
from .fibottention import Fibottention
from .life import LIFEAttention
from .lrnet import LocalRelation
from .metaformer import Identity, Pooling
from .multipatch_rbfkan import MultiPatchRBFKAN
from .riformer import RIFormerAffine, fold_affine
from .self_attention import SelfAttention

__all__ = [
    'AdaptiveRotatedConv',
    'BiLevelRoutingAttention',
    'ConvAdditiveAttention',
    'DeformableAttention',
    'Fibottention',
    'Identity',
    'LIFEAttention',
    'LocalRelation',
    'MultiPatchRBFKAN',
    'Pooling',
    'RIFormerAffine',
    'SelfAttention',
    'TokenMixer',
    'build_token_mixer',
    'fold_affine',
]
