"""What training and testing need around MMEngine's Runner."""

from .checkpoint import check_checkpoint_file, read_checkpoint, unwrap_state_dict
from .compile_hook import CompileHook, add_compilation
from .cpu_amp import CpuAmpOptimWrapper
from .data_check import check_datasets, describe_layouts
from .launch import (
    add_launch_arguments,
    add_sanity_checks,
    fit_to_machine,
    init_distributed,
    load_config,
    resolve_resume,
)
from .layer_decay import LayerDecayOptimWrapperConstructor
from .progress_hook import ProgressHook
from .sanity_check_hook import SanityCheckHook

__all__ = [
    'CompileHook',
    'CpuAmpOptimWrapper',
    'LayerDecayOptimWrapperConstructor',
    'ProgressHook',
    'SanityCheckHook',
    'add_compilation',
    'add_launch_arguments',
    'add_sanity_checks',
    'check_checkpoint_file',
    'check_datasets',
    'describe_layouts',
    'fit_to_machine',
    'init_distributed',
    'load_config',
    'read_checkpoint',
    'resolve_resume',
    'unwrap_state_dict',
]
