"""Hooks, registered in MMEngine."""

from .checkpoint_hook import AtomicCheckpointHook
from .compile_hook import CompileHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .progress_hook import ProgressHook
from .sanity_check_hook import SanityCheckHook

__all__ = [
    'AtomicCheckpointHook',
    'CompileHook',
    'NonFiniteLossHook',
    'ProgressHook',
    'SanityCheckHook',
]
