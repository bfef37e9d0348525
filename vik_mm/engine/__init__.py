"""What training and testing need around MMEngine's Runner."""

from .balance_loss_hook import BalanceLossHook
from .checkpoint import (
    check_checkpoint_file,
    load_checkpoints_as_data,
    load_runner_weights,
    load_weights,
    read_checkpoint,
    unwrap_state_dict,
    write_safetensors,
)
from .checkpoint_hook import AtomicCheckpointHook
from .compile_hook import CompileHook, add_compilation
from .cpu_amp import CpuAmpOptimWrapper
from .data_check import check_datasets, describe_layouts
from .launch import (
    add_sanity_checks,
    fit_to_machine,
    init_distributed,
    load_config,
    make_work_dir,
    resolve_resume,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .nonfinite_loss_hook import NonFiniteLossHook
from .progress_hook import ProgressHook
from .resumable import make_resumable
from .safe_config import end_safe_config, read_safe_config
from .sanity_check_hook import SanityCheckHook
from .schedule_check import fit_schedules
from .sharded_strategy import ShardedStrategy, check_sharding
from .stop_signal import TrainingStopped

__all__ = [
    'AtomicCheckpointHook',
    'BalanceLossHook',
    'CompileHook',
    'CpuAmpOptimWrapper',
    'LayerDecayOptimWrapperConstructor',
    'NonFiniteLossHook',
    'ProgressHook',
    'SanityCheckHook',
    'ShardedStrategy',
    'TrainingStopped',
    'add_compilation',
    'add_sanity_checks',
    'check_checkpoint_file',
    'check_datasets',
    'check_sharding',
    'describe_layouts',
    'end_safe_config',
    'fit_schedules',
    'fit_to_machine',
    'init_distributed',
    'load_checkpoints_as_data',
    'load_config',
    'load_runner_weights',
    'load_weights',
    'make_resumable',
    'make_work_dir',
    'read_checkpoint',
    'read_safe_config',
    'resolve_resume',
    'unwrap_state_dict',
    'write_safetensors',
]
