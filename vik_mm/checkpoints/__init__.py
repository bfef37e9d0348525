"""Checkpoints as files: reading them as data, writing them whole, and the names of the authors' release."""

from .atomic_files import write_files_atomically
from .reading import (
    check_checkpoint_file,
    load_checkpoints_as_data,
    load_runner_weights,
    load_weights,
    read_checkpoint,
    unwrap_state_dict,
    write_safetensors,
)

__all__ = [
    'check_checkpoint_file',
    'load_checkpoints_as_data',
    'load_runner_weights',
    'load_weights',
    'read_checkpoint',
    'unwrap_state_dict',
    'write_files_atomically',
    'write_safetensors',
]
