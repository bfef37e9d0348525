"""Functions on tensors; torch is all they know."""

from .backends import is_exported, is_traced, reference_operators
from .fourier_kan import fourier_kan, fourier_kan_backend
from .narrow_linear import linear
from .patches import crop_map, merge_patches, pad_to_multiple, split_patches
from .plus_conv import plus_conv2d, plus_conv2d_backend
from .rbf_kan import patch_rbf_kan, rbf_kan, rbf_kan_backend
from .resize import average_to_grid, spread_to_size

__all__ = [
    'average_to_grid',
    'crop_map',
    'fourier_kan',
    'fourier_kan_backend',
    'is_exported',
    'is_traced',
    'linear',
    'merge_patches',
    'pad_to_multiple',
    'patch_rbf_kan',
    'plus_conv2d',
    'plus_conv2d_backend',
    'rbf_kan',
    'rbf_kan_backend',
    'split_patches',
    'reference_operators',
    'spread_to_size',
]
