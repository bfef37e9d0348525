"""Modules without a registry; they import only torch, :mod:`vik_mm.ops` and the errors."""

from .layer_scale import LayerScale, add_residual
from .originals import load_original, original_name
from .rbf_kan import RBFKANLayer, add_to_patches

__all__ = ['LayerScale', 'RBFKANLayer', 'add_residual', 'add_to_patches', 'load_original', 'original_name']
