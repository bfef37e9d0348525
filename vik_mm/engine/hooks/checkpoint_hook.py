"""Checkpoints that no fault takes away."""

import logging
import math
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_reduce, is_main_process
from mmengine.hooks import CheckpointHook
from mmengine.logging import print_log
from mmengine.registry import HOOKS

from vik_mm.checkpoints.atomic_files import remove_unfinished, write_atomically
from vik_mm.checkpoints.work_dir import RECORD, list_checkpoints
from vik_mm.datasets.wording import enumerate_some
from vik_mm.errors import BadInputError

# Written when a run is told to stop; gone when the next regular checkpoint is there.
INTERRUPTED = 'interrupted.pth'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's hook, which never is without a whole checkpoint.

    A new checkpoint is on the disk, under its name, before ``last_checkpoint`` names it and before the oldest one, or
    the best one so far, is removed. Only files in this run's own folder are removed: the checkpoint of a folder that
    was copied names files of the original. While losses are not finite nothing is saved: the weights are most likely
    lost, and the last good checkpoint must not make room for them. Arguments are those of MMEngine's
    ``CheckpointHook``.

    Raises:
        BadInputError: When a run starts, if the work dir cannot be written to; later, if a checkpoint cannot be.
    """

    _counts: dict | None = None  # of the checkpoint that is being written
    _superseded: dict[str, str | None] = {}  # the best checkpoints before those that are being written, by score

    def before_train(self, runner):
        """Find out whether checkpoints can be written, now rather than after the first epoch."""
        super().before_train(runner)
        self._is_finite = True
        self._has_interrupted = runner._resume  # or else the file is of another run
        # A checkpoint of a folder that was copied names the best one of the original, which must not be touched.
        for key, path in (best := self._best()).items():
            if path:
                best[key] = self._path(Path(path).name)
                runner.message_hub.update_info(f'best_ckpt_{key}' if key else 'best_ckpt', best[key])
        self._set_best(best)
        if is_main_process() and not runner._resume and '://' not in str(self.out_dir):
            self._warn_of_others()
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

    def save_interrupted(self, runner, epoch: int, iteration: int) -> str:
        """Save a run that has been told to stop, in the middle of an epoch as it may be.

        Args:
            runner (Runner): The runner.
            epoch (int): Epochs that are complete.
            iteration (int): Iterations that are complete.

        Returns:
            str: What was saved, for the message that ends the run.
        """
        if not self._is_finite_everywhere():
            return f'not saved, since the loss is not finite; the last checkpoint is {self.last_ckpt or "none"}'
        self._write(runner, INTERRUPTED, dict(epoch=epoch, iter=iteration))
        self._has_interrupted = True
        return f'saved as {self._path(INTERRUPTED)}'

    def _save_checkpoint_with_step(self, runner, step, meta):
        if not self._is_finite_everywhere():
            print_log(
                f'no checkpoint at {step}: the loss is not finite; {self.last_ckpt or "none"} stays the last',
                logger='current',
                level=logging.WARNING,
            )
            return
        self._remove_superseded()
        outdated = [INTERRUPTED] if self._has_interrupted else []
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated.append(self.filename_tmpl.format(self.keep_ckpt_ids[0]))
            self.keep_ckpt_ids.append(step)  # of limited length
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        self._write(runner, self.filename_tmpl.format(step), meta)
        if is_main_process():
            self._remove(map(self._path, outdated))

    def _save_best_checkpoint(self, runner, metrics):
        if not self.save_best:
            return
        missing = [key for key in self.key_indicators if key != 'auto' and key not in metrics]
        if missing:
            # As a detector's that has found nothing yet: MMDetection gives no figures then.
            print_log(
                f'no best checkpoint after this validation: it has no {enumerate_some(missing, 3)}, only '
                f'{enumerate_some(sorted(metrics), 8) or "no figures"}',
                logger='current',
                level=logging.WARNING,
            )
            return
        self._superseded = self._best()
        # MMEngine removes the best one before it writes its successor, unless it knows of none.
        self._set_best(dict.fromkeys(self._superseded))
        try:
            super()._save_best_checkpoint(runner, metrics)
        except OSError as error:
            before = ', '.join(filter(None, self._superseded.values())) or 'none yet'
            raise BadInputError(
                f'the best checkpoint could not be written to {self.out_dir} ({error.strerror or error}); the one '
                f'before, {before}, is intact: make room, and carry on with --resume'
            ) from error
        self._remove_superseded()
        self._set_best({key: path or self._superseded[key] for key, path in self._best().items()})
        self._superseded = {}

    def _remove_superseded(self) -> None:
        """Remove the best checkpoints that have a successor by now."""
        if is_main_process():
            successors = self._best()
            self._remove(old for key, old in self._superseded.items() if old and successors[key] not in (None, old))

    def _best(self) -> dict[str, str | None]:
        """Give the path of the best checkpoint by the name of its score."""
        if not self.save_best:
            return {}
        return dict(self.best_ckpt_path_dict) if len(self.key_indicators) > 1 else {'': self.best_ckpt_path}

    def _set_best(self, paths: dict[str, str | None]) -> None:
        if not self.save_best:
            return
        if len(self.key_indicators) > 1:
            self.best_ckpt_path_dict = dict(paths)
        else:
            self.best_ckpt_path = paths['']

    def _warn_of_others(self) -> None:
        """Say that the folder holds another run's checkpoints, which files of the same names will replace."""
        names = [path.name for path in list_checkpoints([self.out_dir])]
        if names:
            print_log(
                f'{self.out_dir} holds checkpoints of another run ({enumerate_some(names, 3)}): this run '
                'starts fresh and replaces those of the same names. To resume that run, stop this one and use '
                '--resume',
                logger='current',
                level=logging.WARNING,
            )

    def _remove(self, paths) -> None:
        for path in paths:
            if self.file_backend.isdir(path):  # of sharded training
                self.file_backend.rmtree(path)
            elif self.file_backend.isfile(path):
                self.file_backend.remove(path)

    def before_save_checkpoint(self, runner, checkpoint):
        """Put the counts right: MMEngine's FlexibleRunner takes the epoch for a complete one."""
        checkpoint['meta'].update(self._counts or {})

    def _write(self, runner, name: str, meta: dict) -> None:
        self._counts = dict(meta)
        last: Any = self.last_ckpt
        self.last_ckpt: Any = self._path(name)
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
                write_atomically(self.last_ckpt.encode(), Path(runner.work_dir, RECORD))
        except SyntaxError as error:
            # MMEngine formats the config, and takes a second Ctrl-C meanwhile for a config that cannot be.
            if isinstance(error.__context__, KeyboardInterrupt):
                raise error.__context__ from None
            raise
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
