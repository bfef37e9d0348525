"""A trained model, from pictures to predictions."""

from .loading import load
from .model import Model
from .results import Result
from .tiled_test import TiledTestLoop

__all__ = ['Model', 'Result', 'TiledTestLoop', 'load']
