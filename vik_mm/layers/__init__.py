"""Modules without a registry; torch, :mod:`vik_mm.ops` and the errors are all they know."""

from .conv_mlp import ConvMLP
from .layer_scale import LayerScale
from .originals import load_original, original_name
from .rbf_kan import RBFKANLayer

__all__ = ['ConvMLP', 'LayerScale', 'RBFKANLayer', 'load_original', 'original_name']
