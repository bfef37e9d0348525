"""Data sets: the built-in shapes, and what MMPretrain's own need here."""

from .cifar import CIFAR10Subset

__all__ = ['CIFAR10Subset']
