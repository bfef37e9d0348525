"""Recipes: configs that are written for a user's data, and switches that are written into any config."""

from .command import apply_switches, config_from_data, keep_config_file, say_weights
from .conveniences import add_tta, use_tta
from .training import prepare_training, train
from .writing import write_config

__all__ = [
    'add_tta',
    'apply_switches',
    'config_from_data',
    'keep_config_file',
    'prepare_training',
    'say_weights',
    'train',
    'use_tta',
    'write_config',
]
