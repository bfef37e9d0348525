"""Modules without a registry; torch and :mod:`vik_mm.ops` are all they know."""

from .conv_mlp import ConvMLP
from .layer_scale import LayerScale
from .rbf_kan import RBFKANLayer

__all__ = ['ConvMLP', 'LayerScale', 'RBFKANLayer']
