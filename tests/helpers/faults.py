"""Faults on order, for runs in processes of their own: the config names this module in custom_imports."""

import os
import signal
import subprocess
from pathlib import Path

import torch
from mmengine.dist import all_gather_object, get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class FaultHook(Hook):
    """Sends a signal to this process at a moment; with ``group``, to its children too, as batch systems do."""

    priority = 'LOWEST'

    def __init__(self, at: int, moment: str = 'iteration', signal_name: str = 'SIGKILL', group=False, rank=None):
        self.at, self.moment, self.group, self.rank = at, moment, group, rank
        self.signal = getattr(signal, signal_name)

    def _strike(self):
        if self.rank in (None, get_rank()):
            target = f'-{os.getpgrp()}' if self.group else str(os.getpid())
            subprocess.run(['kill', f'-{self.signal.value}', '--', target], start_new_session=True, check=True)

    def before_run(self, runner):
        if self.moment == 'start':
            self._strike()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.moment == 'iteration' and runner.iter + 1 == self.at:
            self._strike()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.moment == 'validation' and runner.iter == self.at:
            self._strike()

    def before_save_checkpoint(self, runner, checkpoint):
        # The file has been written, and has not come to the disk or to its name.
        # When an epoch is saved, its last iteration counts already; when an iteration is, that one does not.
        if self.moment == 'writing' and self.at in (runner.iter, runner.iter + 1):
            os.fsync = lambda handle: self._strike()


@HOOKS.register_module()
class NanHook(Hook):
    """Breaks a weight at an iteration, so that the loss is no number from then on."""

    def __init__(self, at: int):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.at:
            next(runner.model.parameters()).data.fill_(torch.nan)


@HOOKS.register_module()
class KillWorkerHook(Hook):
    """Kills a process of the data loader."""

    def __init__(self, at: int):
        self.at = at

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.at:
            import multiprocessing

            os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


@HOOKS.register_module()
class FullDiskHook(Hook):
    """Lets no file grow beyond a size from an iteration on: writing fails in the middle, as on a disk that is full."""

    def __init__(self, at: int, size: int):
        self.at, self.size = at, size

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter + 1 == self.at:
            import resource

            resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, resource.RLIM_INFINITY))


@HOOKS.register_module()
class SeenHook(Hook):
    """Keeps (epoch, image) of all that is trained on, in the checkpoints; may kill the process after iterations."""

    priority = 'LOWEST'

    def __init__(self, die_after: int | None = None, moment: str = 'iteration', signal_name: str = 'SIGKILL'):
        self.die_after, self.moment, self.signal = die_after, moment, getattr(signal, signal_name)
        self.seen, self.count = [], 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.count += 1
        mine = [Path(sample.img_path).name for sample in data_batch['data_samples']]
        self.seen += [(runner.epoch, name) for names in all_gather_object(mine) for name in names]

    def before_save_checkpoint(self, runner, checkpoint):
        checkpoint['meta']['seen_images'] = list(self.seen)
        if self.moment == 'writing' and self.count == self.die_after:
            os.fsync = lambda handle: os.kill(os.getpid(), self.signal)

    def after_load_checkpoint(self, runner, checkpoint):
        self.seen = list(checkpoint['meta'].get('seen_images', []))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if self.moment == 'iteration' and self.count == self.die_after:
            os.kill(os.getpid(), self.signal)
