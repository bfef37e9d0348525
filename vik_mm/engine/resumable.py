"""Training that goes on, after any interruption, as if there had been none.

MMEngine restores weights, optimizer, schedulers and averages. What is random it does not: a run that goes on sees other
crops, another mixup, other dropout, and in the middle of an epoch the wrong images. Here nothing random has a past.
Iteration ``i`` starts from seeds made of the run's seed and ``i``, the ``k``-th sample of a process from seeds made of
the run's seed, the process and ``k``; so there is no random state to restore, and it does not matter how many workers
load the data.
"""

import os
import random
import signal
import threading
from collections.abc import Iterator

import numpy as np
import torch
from mmengine.config import Config
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS, FUNCTIONS, LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.runner.utils import calc_dynamic_intervals
from torch import distributed
from torch.utils.data import BatchSampler

from .checkpoint_hook import AtomicCheckpointHook

_ITERATION, _SAMPLE = 0, 1  # kinds of seeds
_STOP = 'vik_mm/stop'  # in the store that the processes share
_VALIDATED = 'resumable/validated'  # in the message hub: the last iteration after which a validation came to its end


def make_resumable(cfg: Config) -> None:
    """Put the loops, samplers and checkpoints of this module into a config in the place of MMEngine's.

    Args:
        cfg (Config): Changed in place. A loop of another type stays as it is, all else with it, and the log says so.
            Checkpoint hooks and worker functions of other types stay too; without :class:`AtomicCheckpointHook`,
            SIGTERM ends the run without a checkpoint of that moment.
    """
    loop = cfg.get('train_cfg')
    if not loop or not cfg.get('train_dataloader'):
        return
    by_epoch = loop.pop('by_epoch', None)
    kind = loop.get('type') or ('EpochBasedTrainLoop' if by_epoch in (True, None) else 'IterBasedTrainLoop')
    ours = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
    if kind not in ours:
        print_log(f'{kind} is not one of MMEngine: after --resume it will draw other random numbers', logger='current')
        return
    loop.type = ours[kind]
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    cfg.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook'))
    hook = cfg.default_hooks['checkpoint']
    if hook and hook.get('type') == 'CheckpointHook':
        hook.type = 'AtomicCheckpointHook'
    loader = cfg.train_dataloader
    loader.setdefault('worker_init_fn', dict(type='outlive_sigterm'))
    loader.batch_sampler = dict(
        type='ResumableBatchSampler', drop_last=loader.pop('drop_last', False), batches=loader.get('batch_sampler')
    )


class _Draw(int):
    """The index of a sample, and from which seed its augmentation starts."""

    seed: tuple[int, ...]

    def __reduce__(self):
        return _draw, (int(self), self.seed)


def _draw(index: int, seed: tuple[int, ...]) -> _Draw:
    draw = _Draw(index)
    draw.seed = seed
    return draw


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(BatchSampler):
    """Batches that can begin in the middle, each index with a seed of its own.

    Args:
        sampler (Sampler): Of indices.
        batch_size (int): Samples of a batch.
        drop_last (bool): Whether an incomplete last batch is left out. Defaults to False.
        batches (dict, optional): Config of the batch sampler that does the work; None for PyTorch's.
            Defaults to None.
    """

    def __init__(self, sampler, batch_size: int, drop_last: bool = False, batches: dict | None = None):
        super().__init__(sampler, batch_size, drop_last)
        options = dict(sampler=sampler, batch_size=batch_size)
        if batches:
            self.batches = DATA_SAMPLERS.build(batches, default_args=options)
        else:
            self.batches = BatchSampler(**options, drop_last=drop_last)
        self.seed, self._skip, self._is_endless = 0, 0, False
        sampler.dataset.__getitems__ = _SeededItems(sampler.dataset)

    def start(self, seed: int, skip: int = 0, is_endless: bool = False) -> None:
        """Say how to go on.

        Args:
            seed (int): The run's.
            skip (int): Batches that the next pass leaves out, having been trained. Defaults to 0.
            is_endless (bool): Whether one pass follows the other, a new order each. Defaults to False.
        """
        self.seed, self._skip, self._is_endless = seed, skip, is_endless

    def __iter__(self) -> Iterator[list[_Draw]]:
        skip, self._skip = self._skip, 0
        epoch, position = getattr(self.sampler, 'epoch', 0), 0
        while True:
            for batch in self.batches:
                if skip:
                    skip -= 1
                else:
                    yield [
                        _draw(index, (_SAMPLE, self.seed, get_rank(), epoch, position + i))
                        for i, index in enumerate(batch)
                    ]
                position += len(batch)
            if not self._is_endless:
                return
            epoch, position = epoch + 1, 0
            if hasattr(self.sampler, 'set_epoch'):
                self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)


class _SeededItems:
    """A data set's samples, each from its own seed; PyTorch's loaders ask for batches by the name ``__getitems__``."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, draws: list[_Draw]) -> list:
        return [self._item(draw) for draw in draws]

    def _item(self, draw: _Draw):
        _seed_all(draw.seed)
        return self.dataset[int(draw)]


def _seed_all(key: tuple[int, ...]) -> None:
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


@FUNCTIONS.register_module()
def outlive_sigterm(worker_id: int) -> None:
    """Let a loader's process go on after SIGTERM, which batch systems send to all, until its parent sends one."""

    def wait():
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(0)

    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=wait, daemon=True).start()


class TrainingStopped(Exception):
    """A run has been told to stop and has saved itself."""


class _StopSignal:
    """Whether SIGTERM has come, agreed upon by all processes."""

    def __init__(self):
        self.is_set = False
        self._before = None
        # Of its own, on the CPU: no waiting for the GPU.
        self._group = distributed.new_group(backend='gloo') if get_world_size() > 1 else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._receive)
        return self

    def __exit__(self, *_):
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _receive(self, *_):
        self.is_set = True

    def is_set_anywhere(self) -> bool:
        """Agree; all processes must call it."""
        if self._group is None:
            return self.is_set
        flag = torch.tensor(int(self.is_set))
        distributed.all_reduce(flag, op=distributed.ReduceOp.MAX, group=self._group)
        return bool(flag)

    def is_known(self) -> bool:
        """Look whether any process has been told to stop, without waiting for the others."""
        if self._group is None:
            return self.is_set
        store = distributed.distributed_c10d._get_default_store()
        if self.is_set:
            store.set(_STOP, '1')
        return self.is_set or store.check([_STOP])


class _StopHook(Hook):
    """Stops a validation, and notes down those that come to their end, before the checkpoint that holds their score."""

    priority = 'VERY_HIGH'

    def __init__(self, stop: _StopSignal):
        self.stop = stop

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        loader = runner.val_dataloader
        if len(loader.dataset) < get_world_size():
            return  # a process without a batch would not come to agree
        # Each process comes to agree once: after its last batch, or as soon as it hears of a stop.
        if (self.stop.is_known() or batch_idx + 1 == len(loader)) and self.stop.is_set_anywhere():
            raise _ValidationStopped

    def after_val_epoch(self, runner, metrics=None):
        runner.message_hub.update_info(_VALIDATED, runner.iter)


class _ValidationStopped(Exception):
    pass


class _Resumable:
    """What both loops share. ``_iter`` counts complete iterations, ``_epoch`` complete epochs."""

    _stop: _StopSignal

    def run(self) -> torch.nn.Module:
        """Train to the end, or to the end of the step in which SIGTERM comes.

        Returns:
            torch.nn.Module: The model.

        Raises:
            TrainingStopped: If SIGTERM has come; the run has been saved.
        """
        with _StopSignal() as self._stop:
            self.runner.register_hook(_StopHook(self._stop))
            self.runner.call_hook('before_train')
            self._train()
            self.runner.call_hook('after_train')
        return self.runner.model

    def _iterate(self, batch_idx: int, data_batch) -> None:
        rank = get_rank() if self.runner._randomness_cfg.get('diff_rank_seed') else 0
        _seed_all((_ITERATION, self.runner.seed, rank, self._iter))
        self.runner.call_hook('before_train_iter', batch_idx=batch_idx, data_batch=data_batch)
        outputs = self.runner.model.train_step(data_batch, optim_wrapper=self.runner.optim_wrapper)
        self.runner.call_hook('after_train_iter', batch_idx=batch_idx, data_batch=data_batch, outputs=outputs)
        self._iter += 1
        # Gradients that are still being accumulated would be lost.
        every = getattr(self.runner.optim_wrapper, '_accumulative_counts', 1)
        if self._iter % every == 0 or self._iter == self._max_iters:
            self._stop_if_told()

    def _validate_if_due(self, count: int, last: int) -> None:
        loop, hub = self.runner.val_loop, self.runner.message_hub
        self._decide_current_val_interval()
        if loop is None or count < self.val_begin or (count % self.val_interval and count != last):
            return
        # After --resume: a checkpoint is written before the validation that follows it, which may have been cut short.
        if hub.runtime_info.get(_VALIDATED) == self._iter:
            return
        try:
            loop.run()
        except _ValidationStopped:
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):  # it has put the averages in the weights' place
                    hook.after_val_epoch(self.runner)
        self._stop_if_told()

    def _stop_if_told(self) -> None:
        if not self._stop.is_set_anywhere():
            return
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        path = hooks[0].save_interrupted(self.runner, self._epoch, self._iter) if hooks else None
        raise TrainingStopped(f'stopped after iteration {self._iter} of {self._max_iters}, saved as {path}')


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can be taken up again anywhere; arguments are that one's."""

    def _train(self):
        if self._iter and self._iter == self._epoch * len(self.dataloader):
            self._validate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due(self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        start = self._iter - self._epoch * len(self.dataloader)
        self.dataloader.batch_sampler.start(self.runner.seed, skip=start)
        for batch_idx, data_batch in enumerate(self.dataloader, start):
            self._iterate(batch_idx, data_batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """MMEngine's loop over iterations, which goes on with the images that follow those it has seen.

    Args:
        runner (Runner): The runner.
        dataloader (DataLoader | dict): The training data.
        max_iters (int): Iterations.
        val_begin (int): The first iteration after which to validate. Defaults to 1.
        val_interval (int): Iterations from one validation to the next. Defaults to 1000.
        dynamic_intervals (list[tuple[int, int]], optional): Iterations from which other intervals are valid, and these.
            Defaults to None.
    """

    # The parent's constructor would already start loading in some versions.
    def __init__(
        self,
        runner,
        dataloader,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ):
        BaseLoop.__init__(self, runner, dataloader)
        if max_iters != int(max_iters) or max_iters < 1:
            raise ValueError(f'max_iters={max_iters} must be a positive integer')
        self._max_iters, self._max_epochs = int(max_iters), 1
        self._epoch = self._iter = 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.stop_training = False
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)

    def _train(self):
        # The whole training is one epoch.
        self.runner.call_hook('before_train_epoch')
        if self._iter:
            self._validate_if_due(self._iter, self._max_iters)
        self.dataloader.batch_sampler.start(self.runner.seed, skip=self._iter, is_endless=True)
        batches = iter(self.dataloader) if self._iter < self._max_iters else None
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self._iterate(self._iter, next(batches))
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
