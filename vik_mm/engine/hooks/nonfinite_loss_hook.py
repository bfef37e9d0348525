"""Ends a run whose loss is no number any more."""

import logging
import math
from collections import deque

from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from vik_mm.errors import BadInputError


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop when the loss is NaN or infinite several times in a row.

    Once may be an overflow that mixed precision skips. :class:`AtomicCheckpointHook` saves nothing meanwhile, so that
    the last checkpoint is a good one.

    Args:
        patience (int): How many losses in a row, at least 1. Defaults to 5.

    Raises:
        BadInputError: At the last of them, with the iteration and the files of the first batch.
        BadInputError: If ``patience`` is not a positive integer.
    """

    def __init__(self, patience: int = 5):
        if not isinstance(patience, int) or patience < 1:
            raise BadInputError(f'patience={patience!r} must be a positive integer')
        self.patience = patience
        self._batches: deque = deque()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Look at the loss."""
        if not outputs or 'loss' not in outputs:
            return
        loss = outputs['loss'].item()
        if math.isfinite(loss):
            self._batches.clear()
            return
        self._batches.append((runner.iter + 1, loss, _names(data_batch)))
        print_log(f'the loss of iteration {runner.iter + 1} is {loss}', logger='current', level=logging.ERROR)
        if len(self._batches) == self.patience:
            first, value, names = self._batches[0]
            raise BadInputError(
                f'the loss is not finite since iteration {first}, {self.patience} times in a row ({value}); that batch '
                f'was {names}. Look at these, lower the learning rate, or clip gradients (optim_wrapper.clip_grad), '
                'then carry on from the last checkpoint, which is good, with --resume'
            )


def _names(data_batch) -> str:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    infos = [getattr(sample, 'metainfo', {}) for sample in samples or []]
    names = [str(info.get('img_path', f'sample {info.get("sample_idx", "?")}')) for info in infos]
    return ', '.join(names) or 'of unknown files'
