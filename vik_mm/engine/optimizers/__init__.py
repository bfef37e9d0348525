"""Optimizer wrappers and their constructors, registered in MMEngine."""

from .cpu_amp import CpuAmpOptimWrapper
from .layer_decay import LayerDecayOptimWrapperConstructor

__all__ = ['CpuAmpOptimWrapper', 'LayerDecayOptimWrapperConstructor']
