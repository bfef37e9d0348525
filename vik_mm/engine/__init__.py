"""What training and testing need around MMEngine's Runner."""

from .checkpoint import check_checkpoint_file, read_checkpoint, unwrap_state_dict
from .data_check import check_datasets
from .launch import fit_to_machine, init_distributed, load_config, resolve_resume

__all__ = [
    'check_checkpoint_file',
    'check_datasets',
    'fit_to_machine',
    'init_distributed',
    'load_config',
    'read_checkpoint',
    'resolve_resume',
    'unwrap_state_dict',
]
