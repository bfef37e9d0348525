"""Modules without a registry; they import only torch and :mod:`vik_mm.ops`."""

from .conv_mlp import ConvMLP
from .layer_scale import LayerScale, add_residual
from .rbf_kan import RBFKANLayer, add_to_patches

__all__ = ['ConvMLP', 'LayerScale', 'RBFKANLayer', 'add_residual', 'add_to_patches']
