"""Checkpoints that no fault takes away."""

import logging
import math
from pathlib import Path

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from vik_mm.compat.atomic_files import remove_unfinished, write_atomically
from vik_mm.errors import BadInputError

# Written when a run is told to stop; gone when the next regular checkpoint is there.
INTERRUPTED = 'interrupted.pth'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's hook, which never is without a whole checkpoint.

    A new checkpoint is on the disk, under its name, before ``last_checkpoint`` names it and before the oldest one is
    removed. While losses are not finite nothing is saved: the weights are most likely lost, and the last good
    checkpoint must not make room for them. Arguments are those of MMEngine's ``CheckpointHook``.
    ``tools/train.py`` puts it in that one's place.

    Raises:
        BadInputError: When a run starts, if the work dir cannot be written to; later, if a checkpoint cannot be.
    """

    _counts: dict | None = None  # of the checkpoint that is being written

    def before_train(self, runner):
        """Find out whether checkpoints can be written, now rather than after the first epoch."""
        super().before_train(runner)
        self._is_finite = True
        if is_main_process() and '://' not in str(self.out_dir):
            try:
                remove_unfinished(self.out_dir)
                write_atomically(b'', probe := Path(self.out_dir, '.probe'))
                probe.unlink()
            except OSError as error:
                raise BadInputError(
                    f'checkpoints cannot be written to {self.out_dir} ({error.strerror}); choose another --work-dir'
                ) from error

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Save where an iteration is due."""
        if outputs and 'loss' in outputs:
            self._is_finite = math.isfinite(outputs['loss'].item())
        super().after_train_iter(runner, batch_idx, data_batch, outputs)

    def save_interrupted(self, runner, epoch: int, iteration: int) -> str | None:
        """Save a run that has been told to stop, in the middle of an epoch as it may be.

        Args:
            runner (Runner): The runner.
            epoch (int): Epochs that are complete.
            iteration (int): Iterations that are complete.

        Returns:
            str | None: The file to resume from; None where losses were not finite and there is none.
        """
        if not self._is_finite_everywhere():
            return self.last_ckpt
        self._write(runner, INTERRUPTED, dict(epoch=epoch, iter=iteration))
        return self._path(INTERRUPTED)

    def _save_checkpoint_with_step(self, runner, step, meta):
        if not self._is_finite_everywhere():
            print_log(
                f'no checkpoint at {step}: the loss is not finite; {self.last_ckpt or "none"} stays the last',
                logger='current',
                level=logging.WARNING,
            )
            return
        outdated = [INTERRUPTED]
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids[0]))
            self.keep_ckpt_ids.append(step)  # of limited length
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            for path in map(self._path, outdated):
                if self.file_backend.isdir(path):  # of sharded training
                    self.file_backend.rmtree(path)
                elif self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def before_save_checkpoint(self, runner, checkpoint):
        """Put the counts right: MMEngine's FlexibleRunner takes the epoch for a complete one."""
        checkpoint['meta'].update(self._counts or {})

    def _write(self, runner, name: str, meta: dict) -> None:
        self._counts = dict(meta)
        last, self.last_ckpt = self.last_ckpt, self._path(name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        try:
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=self.by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_atomically(self.last_ckpt.encode(), Path(runner.work_dir, 'last_checkpoint'))
        except OSError as error:
            raise BadInputError(
                f'the checkpoint {self.last_ckpt} could not be written ({error.strerror or error}); the one before, '
                f'{last or "none yet"}, is intact: make room, and carry on with --resume'
            ) from error
        finally:
            self._counts = None

    def _path(self, name: str) -> str:
        return str(self.file_backend.join_path(self.out_dir, name))

    def _is_finite_everywhere(self) -> bool:
        flag = torch.tensor(float(self._is_finite))
        all_reduce(flag, 'min')
        return bool(flag)
