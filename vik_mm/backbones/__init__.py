"""Backbones, registered in MMPretrain."""

from .duoformer import DuoFormer
from .karat_convit import ConViTKArAt
from .karat_swin import SwinKArAt
from .karat_vit import ViTKArAt
from .vik import ViK

__all__ = ['ConViTKArAt', 'DuoFormer', 'SwinKArAt', 'ViK', 'ViTKArAt']
