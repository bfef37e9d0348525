"""Vision KAN for dense prediction on MMEngine; importing this registers all there is."""

from . import datasets, engine, mixers  # noqa: F401  register
from .backbones import ViK
from .version import __version__

__all__ = ['ViK', '__version__']
