"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .agent import AgentAttention
from .arc import AdaptiveRotatedConv
from .base import TokenMixer, build_token_mixer
from .biformer import BiLevelRoutingAttention
from .casvit import ConvAdditiveAttention
from .datpp import DeformableAttention
from .davit import DaViTAttention
from .efficientvit_msra import CascadedGroupAttention
from .fibottention import Fibottention
from .gaam import GaussianAdaptiveAttention
from .l2vit import L2ViTGlobalAttention, L2ViTWindowAttention
from .life import LIFEAttention
from .lrnet import LocalRelation
from .maxvit import MaxViTAttention
from .metaformer import Identity, Pooling
from .minimal import MinimalAttention
from .moh import MixtureOfHeadAttention
from .multipatch_rbfkan import MultiPatchRBFKAN
from .neighborhood import NeighborhoodAttention
from .nprf import NPRFAttention
from .polyphase import PolyphaseAnchoring
from .resampled import log_resampled_mixers
from .riformer import RIFormerAffine, fold_affine
from .self_attention import SelfAttention
from .shvit import SingleHeadAttention
from .smt import ScaleAwareModulation, SMTAttention
from .ulsam import SubspaceAttention

__all__ = [
    'AdaptiveRotatedConv',
    'AgentAttention',
    'BiLevelRoutingAttention',
    'CascadedGroupAttention',
    'ConvAdditiveAttention',
    'DaViTAttention',
    'DeformableAttention',
    'Fibottention',
    'GaussianAdaptiveAttention',
    'Identity',
    'L2ViTGlobalAttention',
    'L2ViTWindowAttention',
    'LIFEAttention',
    'LocalRelation',
    'MaxViTAttention',
    'MinimalAttention',
    'MixtureOfHeadAttention',
    'MultiPatchRBFKAN',
    'NPRFAttention',
    'NeighborhoodAttention',
    'PolyphaseAnchoring',
    'Pooling',
    'RIFormerAffine',
    'SMTAttention',
    'ScaleAwareModulation',
    'SelfAttention',
    'SingleHeadAttention',
    'SubspaceAttention',
    'TokenMixer',
    'build_token_mixer',
    'fold_affine',
    'log_resampled_mixers',
]
