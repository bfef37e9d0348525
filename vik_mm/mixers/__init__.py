"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .arc import AdaptiveRotatedConv
from .base import TokenMixer, build_token_mixer
from .biformer import BiLevelRoutingAttention
from .casvit import ConvAdditiveAttention
from .datpp import DeformableAttention
from .davit import DaViTAttention
from .fibottention import Fibottention
from .l2vit import L2ViTGlobalAttention, L2ViTWindowAttention
from .life import LIFEAttention
from .lrnet import LocalRelation
from .maxvit import MaxViTAttention
from .metaformer import Identity, Pooling
from .multipatch_rbfkan import MultiPatchRBFKAN
from .nprf import NPRFAttention
from .polyphase import PolyphaseAnchoring
from .resampled import log_resampled_mixers
from .riformer import RIFormerAffine, fold_affine
from .self_attention import SelfAttention
from .smt import ScaleAwareModulation, SMTAttention

__all__ = [
    'AdaptiveRotatedConv',
    'BiLevelRoutingAttention',
    'ConvAdditiveAttention',
    'DaViTAttention',
    'DeformableAttention',
    'Fibottention',
    'Identity',
    'L2ViTGlobalAttention',
    'L2ViTWindowAttention',
    'LIFEAttention',
    'LocalRelation',
    'MaxViTAttention',
    'MultiPatchRBFKAN',
    'NPRFAttention',
    'PolyphaseAnchoring',
    'Pooling',
    'RIFormerAffine',
    'SMTAttention',
    'ScaleAwareModulation',
    'SelfAttention',
    'TokenMixer',
    'build_token_mixer',
    'fold_affine',
    'log_resampled_mixers',
]
