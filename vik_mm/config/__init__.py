"""From a config file and a command line to the config that a Runner takes."""

from .loading import load_config
from .machine import fit_to_machine
from .safe import end_safe_config, read_safe_config
from .swap import swap_backbone

__all__ = ['end_safe_config', 'fit_to_machine', 'load_config', 'read_safe_config', 'swap_backbone']
