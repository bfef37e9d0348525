"""What MMEngine's Runner takes: hooks, optimizers, loops. Importing this registers them."""

from . import hooks, optimizers, runner

__all__ = ['hooks', 'optimizers', 'runner']
