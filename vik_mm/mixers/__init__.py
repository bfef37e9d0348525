"""Token mixers: ``[B, C, H, W] -> [B, C, H, W]``, registered in MMPretrain, chosen by ``ViK(token_mixer=...)``."""

from .agent import AgentAttention
from .base import TokenMixer, build_token_mixer
from .efficientvit_msra import CascadedGroupAttention
from .gaam import GaussianAdaptiveAttention
from .metaformer import Identity, Pooling
from .minimal import MinimalAttention
from .moh import MixtureOfHeadAttention
from .multipatch_rbfkan import MultiPatchRBFKAN
from .neighborhood import NeighborhoodAttention
from .self_attention import SelfAttention
from .shvit import SingleHeadAttention
from .ulsam import SubspaceAttention

__all__ = [
    'AgentAttention',
    'CascadedGroupAttention',
    'GaussianAdaptiveAttention',
    'Identity',
    'MinimalAttention',
    'MixtureOfHeadAttention',
    'MultiPatchRBFKAN',
    'NeighborhoodAttention',
    'Pooling',
    'SelfAttention',
    'SingleHeadAttention',
    'SubspaceAttention',
    'TokenMixer',
    'build_token_mixer',
]
