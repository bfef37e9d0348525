"""Hooks, registered in MMEngine."""

from .balance_loss_hook import BalanceLossHook
from .checkpoint_hook import AtomicCheckpointHook
from .compile_hook import CompileHook
from .early_stopping_hook import ResumableEarlyStoppingHook
from .nonfinite_loss_hook import NonFiniteLossHook
from .progress_hook import ProgressHook
from .sanity_check_hook import SanityCheckHook
from .time_limit_hook import TimeLimitHook
from .val_loss_hook import ValLossHook

__all__ = [
    'AtomicCheckpointHook',
    'BalanceLossHook',
    'CompileHook',
    'NonFiniteLossHook',
    'ProgressHook',
    'ResumableEarlyStoppingHook',
    'SanityCheckHook',
    'TimeLimitHook',
    'ValLossHook',
]
