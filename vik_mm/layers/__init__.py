"""Modules without a registry; torch and :mod:`vik_mm.ops` are all they know."""

from .conv_mlp import ConvMLP
from .layer_scale import LayerScale
from .patches import merge_patches, pad_to_multiple, split_patches
from .rbf_kan import RBFKANLayer

__all__ = ['ConvMLP', 'LayerScale', 'RBFKANLayer', 'merge_patches', 'pad_to_multiple', 'split_patches']
