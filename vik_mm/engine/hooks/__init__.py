"""Hooks, registered in MMEngine."""

from .balance_loss_hook import BalanceLossHook
from .checkpoint_hook import AtomicCheckpointHook
from .compile_hook import CompileHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .progress_hook import ProgressHook
from .sanity_check_hook import SanityCheckHook

__all__ = [
    'AtomicCheckpointHook',
    'BalanceLossHook',
    'CompileHook',
    'NonFiniteLossHook',
    'ProgressHook',
    'SanityCheckHook',
]
