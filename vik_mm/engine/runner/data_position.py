"""Where in its data a training is, whatever the size of its batches and the number of its processes.

MMEngine's samplers deal one order of the data set out to the processes in turn. If ``n`` processes have seen ``s``
samples each, these are the first ``n * s`` of that order. Any number of processes can go on after them, with batches of
any size.
"""

import math
import warnings
from typing import Any, NamedTuple

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.logging import print_log

from vik_mm.errors import BadInputError


class Position(NamedTuple):
    """A place in the data.

    Args:
        passes (int): Passes over the data set that are complete.
        seen (int): Samples of the running one that each process has been given; where batches are made by a batch
            sampler of the config, its batches times the batch size.
    """

    passes: int = 0
    seen: int = 0


class Feed:
    """How samples come to a process.

    Args:
        sampler (Sampler): Of indices.
        batch_size (int): Samples of a batch.
        drop_last (bool): Whether an incomplete last batch is left out.
        batches (BatchSampler, optional): What makes the batches, where the config names it.
    """

    def __init__(self, sampler, batch_size: int, drop_last: bool, batches=None):
        self.batch_size, self.drop_last, self.num_processes = batch_size, drop_last, get_world_size()
        self.num_samples = len(sampler.dataset)
        self.is_endless = type(sampler) is InfiniteSampler
        self.order = self._describe(sampler) if batches is None else None
        self.per_process = math.inf if self.is_endless else len(sampler)

    @staticmethod
    def _describe(sampler) -> str | None:
        """Name what the order depends on; None where it is not known how it is dealt out."""
        is_known = type(sampler) is InfiniteSampler or (type(sampler) is DefaultSampler and sampler.round_up)
        if not is_known:
            return None
        return f'{type(sampler).__name__}, ' + (f'shuffled by seed {sampler.seed}' if sampler.shuffle else 'in order')

    def record(self) -> dict[str, Any]:
        """Make what a checkpoint holds of it."""
        names = ('batch_size', 'num_processes', 'num_samples', 'drop_last', 'order')
        return {name: getattr(self, name) for name in names}

    def batches_from(self, seen: int) -> float:
        """Count the batches that remain of a pass."""
        share = (self.per_process - seen) / self.batch_size
        return share if share == math.inf else (math.floor if self.drop_last else math.ceil)(share)

    def advance(self, start: Position, batches: int) -> Position:
        """Go on from a place, pass after pass.

        Args:
            start (Position): The place.
            batches (int): How many to go.

        Returns:
            Position: Where that is.

        Raises:
            BadInputError: If a pass has no batch.
        """
        if self.order is None:
            return Position(0, start.seen + batches * self.batch_size)
        passes, seen = start
        left: float = batches
        while left >= (rest := self.batches_from(seen)):
            if not rest and not seen:
                raise BadInputError(
                    f'{self.num_samples} samples for {self.num_processes} processes make no batch of '
                    f'{self.batch_size}: lower train_dataloader.batch_size, or set drop_last=False'
                )
            passes, seen, left = passes + 1, 0, left - rest
        return Position(passes, seen + int(left) * self.batch_size)

    def convert(self, seen: int, before: dict[str, Any]) -> int:
        """Translate a place in a pass.

        Args:
            seen (int): Samples that each process had been given.
            before (dict): The record of the run that was.

        Returns:
            int: Samples of this run's process that have been seen.

        Raises:
            BadInputError: If some sample would be left out or come twice.
        """
        if not seen or before == self.record():
            return seen
        total = seen * before['num_processes']
        if self.order is None or self.order != before['order']:
            reason = 'the order of the samples is another, or depends on the size of the batches'
        elif self.num_samples != before['num_samples']:
            reason = f'the data set has {self.num_samples} samples now'
        elif total >= self.num_samples and not self.is_endless:
            return int(self.per_process)
        elif total % self.num_processes:
            reason = f'{total} samples are seen, which {self.num_processes} processes cannot have shared equally'
        else:
            return total // self.num_processes
        raise BadInputError(
            f'the checkpoint is from the middle of its data, and {reason}: some would be left out, or come twice. '
            f'Resume as before ({_words(before)}; now it is {_words(self.record())}), or from a checkpoint at the end '
            'of an epoch, or start a new schedule from its weights: no --resume, --cfg-options load_from=FILE'
        )

    def describe_change(self, before: dict[str, Any]) -> str:
        """Say what is another than before."""
        return f'the checkpoint was made with {_words(before)}, this run has {_words(self.record())}'


def _words(record: dict[str, Any]) -> str:
    processes = record['num_processes']
    return (
        f'{processes} {"process" if processes == 1 else "processes"} with batch_size={record["batch_size"]}, '
        f'{record["num_samples"]} samples, {record["order"] or "an order of its own"}'
    )


def replay_schedules(runner, checkpoint: dict[str, Any], epoch: int, in_epoch: int, epoch_length: int) -> None:
    """Bring schedules that count iterations to where they would be, had the run always had this epoch length.

    Args:
        runner (Runner): Its schedules have been built, and no step has been made.
        checkpoint (dict): Its schedules and the values that they set are changed in place.
        epoch (int): Epochs that are complete.
        in_epoch (int): Iterations of the next one that are.
        epoch_length (int): Iterations of an epoch.

    Raises:
        BadInputError: If the schedules cannot be brought there.
    """
    schedulers = runner.param_schedulers
    lists = schedulers.values() if isinstance(schedulers, dict) else [schedulers or []]
    if 'param_schedulers' not in checkpoint or all(each.by_epoch for each in sum(map(list, lists), [])):
        return
    state = checkpoint.get('optimizer')
    if isinstance(schedulers, dict) or any(getattr(each, 'need_val_args', False) for each in schedulers):
        raise BadInputError(
            'the epochs have another number of iterations than in the checkpoint, and the schedules depend on what '
            'happened, or belong to several optimizers: resume with the batch size and number of processes of before'
        )
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # there is no step of the optimizer between those of the schedules
        for number in range(epoch + 1):
            for _ in range(in_epoch if number == epoch else epoch_length):
                for each in schedulers:
                    if not each.by_epoch:
                        each.step()
            for each in schedulers if number < epoch else ():
                if each.by_epoch:
                    each.step()
    checkpoint['param_schedulers'] = [each.state_dict() for each in schedulers]
    names = {each.param_name for each in schedulers}
    names |= {f'initial_{name}' for name in names} | ({'betas'} if 'momentum' in names else set())
    if state is None:
        return
    wrapper = runner.optim_wrapper
    pairs = list(zip(state['param_groups'], wrapper.optimizer.param_groups))
    if state.get('base_param_settings') and getattr(wrapper, 'base_param_settings', None):
        pairs.append((state['base_param_settings'], wrapper.base_param_settings))
    for saved, own in pairs:
        saved.update({name: own[name] for name in names if name in own})
    print_log('schedules that count iterations were brought to their place in the data', logger='current')
