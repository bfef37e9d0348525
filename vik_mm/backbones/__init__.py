"""Backbones, registered in MMPretrain."""

from .vik import ViK

__all__ = ['ViK']
