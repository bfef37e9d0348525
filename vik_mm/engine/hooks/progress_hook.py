"""Progress bar of a training run."""

import atexit
import logging
import sys

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.registry import HOOKS
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@HOOKS.register_module()
class ProgressHook(Hook):
    """Show iterations, loss, metrics and remaining time in one live line.

    The bar appears only in a terminal; logs that go to a file or a pipe stay as they are.
    """

    priority = 'VERY_LOW'

    def __init__(self):
        self._progress: Progress | None = None
        self._metrics = ''

    def before_train(self, runner):
        """Start the bar."""
        console = Console()
        if not (is_main_process() and console.is_terminal):
            return
        columns = (
            TextColumn('epoch {task.fields[epoch]}'),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn('loss {task.fields[loss]:.3f}{task.fields[metrics]}'),
            TimeElapsedColumn(),
            TextColumn('left'),
            TimeRemainingColumn(),
        )
        self._progress = Progress(*columns, console=console)
        self._progress.start()
        atexit.register(self._progress.stop)  # an interrupted run must leave the terminal as it was
        self._let_log_pass(runner)
        self._task = self._progress.add_task(
            '', total=runner.max_iters, completed=runner.iter, epoch=self._epoch(runner), loss=0.0, metrics=''
        )

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Move the bar."""
        if self._progress is not None:
            loss = outputs['loss'].item() if outputs and 'loss' in outputs else 0.0
            self._progress.update(
                self._task, completed=runner.iter + 1, epoch=self._epoch(runner), loss=loss, metrics=self._metrics
            )

    def after_val_epoch(self, runner, metrics=None):
        """Put the newest metrics beside the bar."""
        self._metrics = ''.join(f'  {name} {value:.2f}' for name, value in (metrics or {}).items())

    def after_train(self, runner):
        """Stop the bar."""
        if self._progress is not None:
            self._progress.stop()
            self._let_log_pass(runner)

    @staticmethod
    def _epoch(runner) -> str:
        return f'{min(runner.epoch + 1, runner.max_epochs)}/{runner.max_epochs}' if runner.max_epochs else '1'

    @staticmethod
    def _let_log_pass(runner):
        """Send log lines through the standard output of the moment, which the live bar moves out of the way of."""
        for handler in runner.logger.handlers:
            if isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler):
                handler.setStream(sys.stdout)
