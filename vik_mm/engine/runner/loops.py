"""Training that goes on, after any interruption, as if there had been none.

MMEngine restores weights, optimizer, schedulers and averages. What is random it does not: a run that goes on sees other
crops, another mixup, other dropout, and in the middle of an epoch the wrong images. Here every random draw is reseeded.
Iteration ``i`` starts from seeds made of the run's seed and ``i``, the ``k``-th sample of a process from seeds made of
the run's seed, the process and ``k``; so there is no random state to restore, and it does not matter how many workers
load the data.
"""

import logging
import uuid
from pathlib import Path

import torch
from mmengine.dist import get_rank
from mmengine.hooks import EMAHook, Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, IterBasedTrainLoop, Runner
from mmengine.runner.utils import calc_dynamic_intervals

from vik_mm.checkpoints.misfit import describe_misfit, fitting_weights
from vik_mm.checkpoints.work_dir import lock_work_dir
from vik_mm.engine.hooks.checkpoint_hook import INTERRUPTED, AtomicCheckpointHook
from vik_mm.errors import BadInputError

from .data_position import Feed, Position, replay_schedules
from .samplers import ITERATION, make_batches_resumable, seed_all
from .schedules import fit_schedules, warn_of_kept_schedules
from .stop_signal import StopHook, StopSignal, TrainingStopped, ValidationStopped

# In the message hub: the last iteration after which a validation came to its end, and a name for the run.
_VALIDATED, _RUN = 'resumable/validated', 'resumable/run'
_RESUME_AS_BEFORE = (
    'resume with the batch size and the number of processes that it was made with, or start a new schedule from its '
    'weights: no --resume, --cfg-options load_from=FILE'
)


class _PositionHook(Hook):
    """Writes the place in the data into checkpoints, and finds it there."""

    priority = 'LOWEST'

    def __init__(self, loop: '_Resumable'):
        self.loop = loop

    def before_train(self, runner):
        if _RUN not in runner.message_hub.runtime_info:  # of a run that goes on, it has come from the checkpoint
            runner.message_hub.update_info(_RUN, uuid.uuid4().hex)

    def before_save_checkpoint(self, runner, checkpoint):
        meta = checkpoint['meta']
        position = self.loop.position_at(meta['epoch'], meta['iter'])
        run = runner.message_hub.get_info(_RUN)
        meta['data'] = dict(self.loop.feed.record(), **position._asdict(), run=run)

    def after_load_checkpoint(self, runner, checkpoint):
        if runner._resume:
            self.loop.restore(checkpoint)


class _FitHook(Hook):
    """Looks whether a checkpoint fits, and says what does not in a few words, where MMEngine lists all names."""

    priority = 'VERY_HIGH'

    def after_load_checkpoint(self, runner, checkpoint):
        if not isinstance(runner, Runner) or 'state_dict' not in checkpoint:
            return  # FlexibleRunner's model may be divided among the processes
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        weights = {name.removeprefix('module.'): value for name, value in checkpoint['state_dict'].items()}
        reason = describe_misfit(model, weights)
        if reason and runner._resume:
            raise BadInputError(f'the checkpoint does not fit the model, and cannot be resumed from: {reason}')
        if reason:
            print_log(f'of the weights in load_from, what fits is loaded: {reason}', 'current', logging.WARNING)
            checkpoint['state_dict'] = fitting_weights(model, checkpoint['state_dict'])


class _ValidatedHook(Hook):
    """Notes down validations that come to their end, before the checkpoint that holds their score."""

    priority = 'VERY_HIGH'

    def after_val_epoch(self, runner, metrics=None):
        runner.message_hub.update_info(_VALIDATED, runner.iter)


class _Resumable(BaseLoop):
    """What both loops share. ``_iter`` counts complete iterations, ``_epoch`` complete epochs."""

    _stop: StopSignal
    _early_end: str | None = None  # why the run ends before its schedule does

    @property
    def feed(self) -> Feed:
        """How samples come to the process."""
        return self.dataloader.batch_sampler.feed

    def _prepare(self) -> None:
        self._base = Position(), 0  # a place in the data, and the iteration that began there
        self.runner.register_hook(_PositionHook(self))
        self.runner.register_hook(_FitHook())
        self.runner.register_hook(_ValidatedHook())
        fit_schedules(self.runner, self)

    def run(self) -> torch.nn.Module:
        """Train to the end, or to the end of the step in which SIGTERM or Ctrl-C comes.

        Returns:
            torch.nn.Module: The model.

        Raises:
            TrainingStopped: If SIGTERM or Ctrl-C has come; the run has been saved.
            BadInputError: If another training is writing into the work dir.
        """
        with lock_work_dir(self.runner.work_dir), StopSignal() as self._stop:
            self.runner.register_hook(StopHook(self._stop))
            self.runner.call_hook('before_train')
            if self._iter >= self._max_iters:
                print_log(
                    f'nothing is left to train: the run ends after iteration {self._max_iters}, and the checkpoint is '
                    f'at iteration {self._iter}',
                    logger='current',
                    level=logging.WARNING,
                )
            self._train()
            self._end_early()
            self.runner.call_hook('after_train')
        return self.runner.model

    def end_early(self, reason: str) -> None:
        """Let the run end after this iteration: its state is saved, and a last validation follows.

        All processes must call it after the same iteration.

        Args:
            reason (str): For the log.
        """
        self._early_end = reason

    def _end_early(self) -> None:
        # A hook may ask for it in the last iteration, after which all of this is done anyway.
        if self._early_end is None or self._iter >= self._max_iters:
            return
        print_log(
            f'{self._early_end}: training ends after iteration {self._iter} of {self._max_iters}, {self._save()}; '
            '--resume goes on from there',
            logger='current',
            level=logging.WARNING,
        )
        if self.runner.val_loop is not None and self.runner.message_hub.runtime_info.get(_VALIDATED) != self._iter:
            self._validate()
            self._stop_if_told()

    def _save(self) -> str:
        hooks = [hook for hook in self.runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        return hooks[0].save_interrupted(self.runner, self._epoch, self._iter) if hooks else 'not saved'

    def _iterate(self, batch_idx: int, data_batch) -> None:
        rank = get_rank() if self.runner._randomness_cfg.get('diff_rank_seed') else 0
        seed_all((ITERATION, self.runner.seed, rank, self._iter))
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
        self._validate()
        self._stop_if_told()

    def _validate(self) -> None:
        try:
            self.runner.val_loop.run()
        except ValidationStopped:
            for hook in self.runner.hooks:
                if isinstance(hook, EMAHook):  # it has put the averages in the weights' place
                    hook.after_val_epoch(self.runner)

    def _stop_if_told(self) -> None:
        if not self._stop.is_set_anywhere():
            return
        raise TrainingStopped(
            f'stopped after iteration {self._iter} of {self._max_iters}, {self._save()}', self._stop.exit_code
        )


@LOOPS.register_module()
class ResumableEpochLoop(_Resumable, EpochBasedTrainLoop):
    """MMEngine's loop over epochs, which can be taken up again anywhere; arguments are that one's."""

    def __init__(self, runner, dataloader, *args, **kwargs):
        super().__init__(runner, make_batches_resumable(dataloader), *args, **kwargs)
        self._prepare()

    def position_at(self, epoch: int, iteration: int) -> Position:
        """Say where in the data an iteration ends.

        Args:
            epoch (int): Epochs that are complete by then.
            iteration (int): Iterations that are.

        Returns:
            Position: The place.
        """
        if epoch > self._epoch:
            return Position(epoch)
        start, first = self._base if self._base[0].passes == epoch else (Position(epoch), epoch * len(self.dataloader))
        return Position(epoch, int(min(start.seen + (iteration - first) * self.feed.batch_size, self._most())))

    def _most(self) -> float:
        batches = len(self.dataloader) * self.feed.batch_size
        return batches if self.feed.order is None else self.feed.per_process

    def restore(self, checkpoint: dict) -> None:
        """Take up the place that a checkpoint was made at, in terms of this run's batches.

        Args:
            checkpoint (dict): Its counts and schedules are changed in place where epochs have another length now.

        Raises:
            BadInputError: If that place cannot be taken up.
        """
        warn_of_kept_schedules(self.runner, checkpoint)
        meta, length = checkpoint['meta'], len(self.dataloader)
        epoch, count = meta['epoch'], meta['iter']
        if 'data' not in meta:
            self._restore_without_record(epoch, count)
            return
        before = {name: meta['data'][name] for name in self.feed.record()}
        if before == self.feed.record():
            self._take_up(Position(epoch, meta['data']['seen']), count)
            return
        seen = self.feed.convert(meta['data']['seen'], before)
        rest = int(self.feed.batches_from(seen)) if seen else length
        meta['iter'] = (epoch + 1) * length - rest
        print_log(
            f'{self.feed.describe_change(before)}: epoch {epoch + 1} goes on with {rest} of {length} iterations left; '
            f'what was iteration {count} counts as {meta["iter"]}',
            logger='current',
            level=logging.WARNING,
        )
        self._take_up(Position(epoch, seen), meta['iter'])
        info = checkpoint.get('message_hub', {}).get('runtime_info', {})
        if _VALIDATED in info:
            info[_VALIDATED] = meta['iter'] if info[_VALIDATED] == count else None
        replay_schedules(self.runner, checkpoint, epoch, length - rest, length)

    def _take_up(self, position: Position, count: int) -> None:
        done, length = count - position.passes * len(self.dataloader), len(self.dataloader)
        if not 0 <= done <= length:
            raise BadInputError(
                f'the checkpoint is at iteration {count} in epoch {position.passes + 1}, which an epoch of {length} '
                f'iterations has not: {_RESUME_AS_BEFORE}'
            )
        self._base = position, count

    def _restore_without_record(self, epoch: int, count: int) -> None:
        """Go by what MMEngine's checkpoints say, where that can be right."""
        length = len(self.dataloader)
        is_regular = Path(str(self.runner._load_from)).name != INTERRUPTED
        other = count // epoch if epoch and is_regular and count % epoch == 0 else length
        if other != length or not 0 <= count - epoch * length < length:
            raise BadInputError(
                f'the checkpoint is at iteration {count} after {epoch} epochs and does not say how long its epochs '
                f'were; here they have {length} iterations: {_RESUME_AS_BEFORE}'
            )
        self._take_up(Position(epoch, (count - epoch * length) * self.feed.batch_size), count)

    def _train(self):
        if self._iter and self._iter == self._epoch * len(self.dataloader):
            self._validate_if_due(self._epoch, self._max_epochs)
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            if self._early_end is not None and self._iter < self._max_iters:
                return
            self._validate_if_due(self._epoch, self._max_epochs)

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        position = self.position_at(self._epoch, self._iter)
        self.dataloader.batch_sampler.start(self.runner.seed, position)
        for batch_idx, data_batch in enumerate(self.dataloader, self._iter - self._epoch * len(self.dataloader)):
            self._iterate(batch_idx, data_batch)
            if self._early_end is not None and self._iter < self._max_iters:
                return  # in the middle of an epoch
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterLoop(_Resumable, IterBasedTrainLoop):
    """MMEngine's loop over iterations, which goes on with the images that follow those it has seen.

    Args:
        runner (Runner): The runner.
        dataloader (dict): Config of the loader of the training data.
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
        BaseLoop.__init__(self, runner, make_batches_resumable(dataloader))
        if max_iters != int(max_iters) or max_iters < 1:
            raise BadInputError(f'max_iters={max_iters} must be a positive integer')
        self._max_iters, self._max_epochs = int(max_iters), 1
        self._epoch = self._iter = 0
        self.val_begin, self.val_interval = val_begin, val_interval
        self.stop_training = False
        self.dynamic_milestones, self.dynamic_intervals = calc_dynamic_intervals(val_interval, dynamic_intervals)
        runner.visualizer.dataset_meta = getattr(self.dataloader.dataset, 'metainfo', None)
        self._prepare()

    def position_at(self, epoch: int, iteration: int) -> Position:
        """Say where in the data an iteration ends.

        Args:
            epoch (int): Not looked at.
            iteration (int): Iterations that are complete.

        Returns:
            Position: The place.
        """
        start, first = self._base
        return self.feed.advance(start, iteration - first)

    def restore(self, checkpoint: dict) -> None:
        """Take up the place that a checkpoint was made at; iterations and schedules keep their count.

        Args:
            checkpoint (dict): The checkpoint.

        Raises:
            BadInputError: If that place cannot be taken up.
        """
        warn_of_kept_schedules(self.runner, checkpoint)
        meta = checkpoint['meta']
        if 'data' not in meta:
            print_log(
                'the checkpoint does not say how large its batches were: going on as if they had been as large as now',
                logger='current',
                level=logging.WARNING,
            )
            return
        before = {name: meta['data'][name] for name in self.feed.record()}
        position = Position(meta['data']['passes'], self.feed.convert(meta['data']['seen'], before))
        if before != self.feed.record():
            print_log(
                f'{self.feed.describe_change(before)}: training goes on after the samples that were seen; max_iters '
                'and schedules still count iterations as before',
                logger='current',
                level=logging.WARNING,
            )
        self._base = position, meta['iter']

    def _train(self):
        # The whole training is one epoch.
        self.runner.call_hook('before_train_epoch')
        if self._iter:
            self._validate_if_due(self._iter, self._max_iters)
        self.dataloader.batch_sampler.start(self.runner.seed, self.position_at(0, self._iter), is_endless=True)
        batches = iter(self.dataloader) if self._iter < self._max_iters else iter(())
        while self._iter < self._max_iters and not self.stop_training:
            self.runner.model.train()
            self._iterate(self._iter, next(batches))
            if self._early_end is not None and self._iter < self._max_iters:
                break
            self._validate_if_due(self._iter, self._max_iters)
        self.runner.call_hook('after_train_epoch')
