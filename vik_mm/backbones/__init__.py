"""Backbones, registered in MMPretrain."""

from .karat_vit import ViTKArAt
from .vik import ViK

__all__ = ['ViK', 'ViTKArAt']
