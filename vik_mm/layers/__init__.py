"""Modules without a registry; they import only torch and :mod:`vik_mm.ops`."""

from .conv_mlp import ConvMLP
from .layer_scale import LayerScale
from .rbf_kan import RBFKANLayer

__all__ = ['ConvMLP', 'LayerScale', 'RBFKANLayer']
