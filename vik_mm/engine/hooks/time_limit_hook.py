"""A limit of time for a training."""

import logging
import time

import torch
from mmengine.dist import broadcast
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from vik_mm.errors import BadInputError

_FIRST = 3  # iterations that are not typical: compilation, filling of caches
_MEASURED = 20  # from them on the pace is told
_SPARE = 1.2  # times what a validation is known to take


@HOOKS.register_module()
class TimeLimitHook(Hook):
    """End a training in time, with its state saved, and with a last validation.

    The time counts from the start of this process's training on: a resumed run has all of it again. Schedules are not
    changed; after the first iterations the log says how many iterations will fit, and what to do where that are too few
    for the schedule to come to its end.

    Args:
        seconds (float): The limit.

    Raises:
        BadInputError: If the limit is not above 0, or, when training starts, if its loop is not one of this project's.
    """

    priority = 'VERY_LOW'

    def __init__(self, seconds: float):
        if not seconds > 0:
            raise BadInputError(f'TimeLimitHook: seconds={seconds} must be above 0')
        self.seconds = seconds
        self._validation = 0.0

    def before_train(self, runner):
        """Start the clock."""
        if not hasattr(runner.train_loop, 'end_early'):
            raise BadInputError(
                f'a time limit needs ResumableEpochLoop or ResumableIterLoop in train_cfg.type, which is '
                f'{type(runner.train_loop).__name__}'
            )
        self._start = self._begin = time.monotonic()
        self._count, self._is_told = 0, False

    def before_val(self, runner):
        """Measure validations."""
        self._validation_start = time.monotonic()

    def after_val(self, runner):
        """Measure validations; they do not count for the pace of training."""
        self._validation = max(self._validation, time.monotonic() - self._validation_start)
        self._begin += time.monotonic() - self._validation_start

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """End the training where another iteration and a validation would take too long."""
        now = time.monotonic()
        self._count += 1
        if self._count == _FIRST:
            self._begin = now
        pace = (now - self._begin) / max(1, self._count - _FIRST)
        if self._count == _FIRST + _MEASURED and not self._is_told:
            self._tell(runner, pace)
        left = self.seconds - (now - self._start) - _SPARE * self._validation - 2 * pace
        # The clock of the first process decides for all.
        is_over = torch.tensor(float(left <= 0))
        broadcast(is_over)
        if is_over:
            runner.train_loop.end_early(f'the time of {self.seconds:.0f} s is used up')

    def _tell(self, runner, pace: float) -> None:
        self._is_told = True
        fitting = int((self.seconds - (time.monotonic() - self._start)) / pace) if pace > 0 else runner.max_iters
        rest = runner.max_iters - runner.iter - 1
        if fitting >= rest:
            return
        share = fitting / rest
        advice = (
            f'--epochs {max(1, int(share * runner.max_epochs))}' if runner.max_epochs > 1 else 'a smaller max_iters'
        )
        print_log(
            f'time limit: at {pace:.2f} s an iteration about {fitting} of {rest} iterations fit, without validations. '
            f'Training ends then, before the schedule of the learning rate does; {advice} would fit the schedule to '
            'the time',
            logger='current',
            level=logging.WARNING,
        )
