"""Whether the schedules of learning rate and momentum fit the length of a run."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.logging import print_log
from mmengine.optim.scheduler.param_scheduler import INF
from mmengine.runner import EpochBasedTrainLoop, FlexibleRunner, IterBasedTrainLoop, Runner

from vik_mm.errors import BadInputError

# A warm-up that is longer than the first share of the run becomes at most the second.
_LONGEST, _SHORTENED = 0.5, 0.1
# Of schedulers, what a config sets; `base_values` are learning rates.
_SETTINGS = (
    *('begin', 'end', 'T_max', 'total_iters', 'milestones', 'step_size', 'gamma', 'power', 'eta_min', 'base_values'),
    *('factor', 'start_factor', 'end_factor'),
)
_FEWEST = 2  # steps of a warm-up


@dataclass(frozen=True)
class RunLength:
    """How long a run is.

    Args:
        iterations (int): Of the whole run.
        epoch_length (int): Iterations of an epoch.
        is_by_epoch (bool): Whether the run counts epochs; only then schedules by epoch are stepped. Defaults to True.
    """

    iterations: int
    epoch_length: int
    is_by_epoch: bool = True


def fit_schedules(runner: Runner | FlexibleRunner, loop: EpochBasedTrainLoop | IterBasedTrainLoop) -> None:
    """Fit the schedules of a runner to the length of its run, before the runner builds them.

    A warm-up that takes more than half of the run becomes shorter, and what begins at its end follows. Whatever else
    does not fit stays as it is, and the log says so. Schedules that fit do not change. All of it follows from the
    config and the length of the data, so that a resumed run has the same schedules.

    Args:
        runner (Runner): Its ``param_schedulers`` are changed.
        loop (EpochBasedTrainLoop | IterBasedTrainLoop): Its training loop, which MMEngine's runners build first.

    Raises:
        BadInputError: If a schedule begins after the end of the run, ends before it begins, or has times that are no
            numbers.
    """
    schedulers = runner.param_schedulers
    if isinstance(loop, EpochBasedTrainLoop) and not len(loop.dataloader):
        raise BadInputError(
            f'{len(loop.dataloader.dataset)} samples make no batch: lower train_dataloader.batch_size, or set '
            'train_dataloader.drop_last=False'
        )
    if not schedulers or not len(loop.dataloader):
        return
    run = RunLength(loop.max_iters, len(loop.dataloader), isinstance(loop, EpochBasedTrainLoop))
    if isinstance(schedulers, Mapping) and 'type' not in schedulers:  # of several optimizers
        found = {name: fit(each, run, f'param_scheduler.{name}') for name, each in schedulers.items()}
        runner.param_schedulers = {name: fitted for name, (fitted, _) in found.items()}
        messages = [message for _, each in found.values() for message in each]
    else:
        runner.param_schedulers, messages = fit(schedulers, run)
    for message in messages:
        print_log(message, logger='current', level=logging.WARNING)


def warn_of_kept_schedules(runner: Runner | FlexibleRunner, checkpoint: Mapping[str, Any]) -> None:
    """Say which settings of schedules a resumed run has from its checkpoint, and not from its config.

    Args:
        runner (Runner): Its schedules have been built from the config.
        checkpoint (Mapping): What it resumes from.
    """
    own, saved = runner.param_schedulers, checkpoint.get('param_schedulers')
    if not isinstance(own, list) or not isinstance(saved, list):
        return
    for number, (scheduler, before) in enumerate(zip(own, saved)):
        now = scheduler.state_dict()
        others = [
            f'{name}={_short(before[name])} (not {_short(now[name])})'
            for name in _SETTINGS
            if name in before and name in now and before[name] != now[name]
        ]
        if others:
            print_log(
                f'param_scheduler.{number} ({type(scheduler).__name__}) goes on as the checkpoint has it: '
                f'{", ".join(others)}. For a schedule of the config start a new run from the weights: no --resume, '
                '--cfg-options load_from=FILE',
                logger='current',
                level=logging.WARNING,
            )


def _short(value: Any) -> str:
    values = sorted(set(value)) if isinstance(value, (list, Mapping)) else [value]
    return ', '.join('the end' if each == INF else f'{each:.4g}' for each in values)


def fit(schedulers: Any, run: RunLength, place: str = 'param_scheduler') -> tuple[list, list[str]]:
    """Fit the schedules of one optimizer to the length of a run.

    Args:
        schedulers (list | dict): Config of a scheduler, or of several; built ones stay as they are.
        run (RunLength): The run.
        place (str): Where they stand in the config. Defaults to 'param_scheduler'.

    Returns:
        tuple[list, list[str]]: The fitted configs, and what to say.

    Raises:
        BadInputError: If a schedule begins after the end of the run, ends before it begins, or has times that are no
            numbers.
    """
    is_list = isinstance(schedulers, (list, tuple))
    schedulers = list(schedulers) if is_list else [schedulers]
    places = [f'{place}.{number}' if is_list else place for number in range(len(schedulers))]
    configs = {number: each for number, each in enumerate(schedulers) if isinstance(each, Mapping)}
    schedules = {number: _Schedule(each, run, places[number]) for number, each in configs.items()}
    messages = []
    for number, schedule in list(schedules.items()):
        if schedule.is_warm_up and schedule.is_stepped and not schedule.is_good_warm_up:
            shorter, end, message = _shorten(schedule, list(schedules.values()))
            messages.append(message)
            schedules = {other: each.moved(schedule.end, end) for other, each in schedules.items()}
            schedules[number] = shorter
    for schedule in schedules.values():
        schedule.refuse_what_cannot_be_built()
        messages += schedule.misfits()
    messages += _early_ends(list(schedules.values()), run)
    fitted = [schedules[number].config if number in schedules else each for number, each in enumerate(schedulers)]
    return fitted, messages


class _Schedule:
    """A scheduler's config, its times in iterations.

    Args:
        config (Mapping): As the Runner takes it.
        run (RunLength): The run.
        place (str): Where it stands in the config.
    """

    def __init__(self, config: Mapping, run: RunLength, place: str):
        self.config, self.run, self.place = dict(config), run, place
        self.kind = str(getattr(config.get('type'), '__name__', config.get('type'))).rpartition('.')[2]
        self.name = f'{place} ({self.kind})'
        for key in ('begin', 'end', 'T_max', 'total_steps', 'start_factor', 'end_factor', 'factor'):
            if not isinstance(config.get(key, 0), (int, float)) and (config[key] is not None or 'factor' in key):
                raise BadInputError(f'{place}.{key}={config[key]!r} must be a number')
        for key in ('milestones', 'periods'):
            times = config.get(key, [])
            if not isinstance(times, (list, tuple)) or not all(isinstance(each, (int, float)) for each in times):
                raise BadInputError(f'{place}.{key}={times!r} must be a list of numbers')
        self.is_by_epoch = config.get('by_epoch', True)
        self.is_converted = bool(config.get('convert_to_iter_based'))
        self.unit = run.epoch_length if self.is_by_epoch else 1
        # Only the first kind of loop counts epochs.
        self.is_stepped = run.is_by_epoch or self.is_converted or not self.is_by_epoch
        self.begin: float = (config.get('begin') or 0) * self.unit
        end = config.get('end')
        self.end: float = math.inf if end is None or end >= INF else end * self.unit
        self.ends = self.end < math.inf

    @property
    def is_warm_up(self) -> bool:
        """Whether this begins the run with less than what follows."""
        if self.begin or not self.ends:
            return False
        if self.kind.startswith('Linear'):
            return self.config.get('start_factor', 1 / 3) < self.config.get('end_factor', 1)
        if self.kind.startswith('Constant'):
            return self.config.get('factor', 1 / 3) < 1
        return self.kind.startswith('QuadraticWarmup')

    @property
    def is_good_warm_up(self) -> bool:
        """Whether this takes no more than half of the run, and comes to its end."""
        steps = self.end / self.unit if self.is_by_epoch and not self.is_converted else self.end
        # MMEngine's rise from the second step on; with one, the rate would stay at what it begins with.
        return self.end <= _LONGEST * self.run.iterations and steps >= _FEWEST

    def by_iteration(self, end: int, **options) -> '_Schedule':
        """Make another that counts iterations, from 0 to ``end``."""
        config = {key: value for key, value in self.config.items() if key != 'convert_to_iter_based'}
        return _Schedule({**config, 'by_epoch': False, 'begin': 0, 'end': end, **options}, self.run, self.place)

    def moved(self, before: float, after: int) -> '_Schedule':
        """Make another that begins at ``after``, if this one begins at ``before``."""
        if not self.begin or self.begin != before:
            return self
        begin: float = after // self.unit
        if self.is_converted and after % self.unit:
            # MMEngine multiplies by the length of an epoch and cuts off what is behind the point.
            begin = (after + 0.5) / self.unit
        return _Schedule({**self.config, 'begin': begin}, self.run, self.place)

    def refuse_what_cannot_be_built(self) -> None:
        """Raise what MMEngine would, and say what to do."""
        begin, end = self.config.get('begin') or 0, self.config.get('end')
        if end is not None and end <= begin:
            raise BadInputError(f'{self.name} begins at {begin} and ends at {end}; its end must be larger')
        # MMEngine takes a run by iteration for one epoch.
        last = self.unit if self.is_by_epoch and not self.run.is_by_epoch else self.run.iterations
        if end is None and self.begin >= last:
            raise BadInputError(
                f'{self.name} begins at {self.say(self.begin)}, and the run ends at {self.say(last)}; train longer, or '
                f'set {self.place}.begin to less'
            )

    def say(self, iterations: float) -> str:
        """Say a time in the scheduler's own unit."""
        return f'{"epoch" if self.is_by_epoch else "iteration"} {_number(iterations / self.unit)}'

    def misfits(self) -> Iterator[str]:
        """Say what does not fit the run."""
        run_ends = self.say(self.run.iterations)
        last, remedy = self._last()
        if not self.is_stepped:
            yield (
                f'{self.name} counts epochs and the run counts iterations: it is never stepped; set '
                f'{self.place}.by_epoch=False and its times in iterations'
            )
        elif self.begin >= self.run.iterations:
            yield f'{self.name} begins at {self.say(self.begin)} and the run ends at {run_ends}: it changes nothing'
        elif last is not None and last > self.run.iterations:
            yield (
                f'{self.name} goes on to {self.say(last)} and the run ends at {run_ends}: it does not come to its end; '
                f'set {remedy}'
            )

    def _last(self) -> tuple[float | None, str]:
        """Find when the last change comes, where the config says it, and how to have it at the end of the run."""
        config, place = self.config, self.place
        ends = _number(self.run.iterations / self.unit)
        if self.kind.startswith('MultiStep'):
            return self.begin + max(config.get('milestones') or [0]) * self.unit, f'{place}.milestones to less'
        if self.kind.startswith(('Step', 'Exponential')):
            return None, ''
        if self.kind.startswith('CosineRestart'):
            return self.begin + sum(config.get('periods') or [0]) * self.unit, f'{place}.periods to less'
        for key in ('T_max', 'total_steps'):
            if config.get(key) is not None:
                also = f' {place}.end={ends}' if self.ends else ''
                lasts = _number((self.run.iterations - self.begin) / self.unit)
                return self.begin + config[key] * self.unit, f'{place}.{key}={lasts}{also}'
        return (self.end if self.ends else None), f'{place}.end={ends}'


def _shorten(warm_up: _Schedule, schedules: list[_Schedule]) -> tuple[_Schedule, int, str]:
    """Fit a warm-up to the run, and say when it ends.

    It stays in the list where it changes nothing, since a checkpoint knows its schedulers by their order.
    """
    run, whole, name = warm_up.run, warm_up.end, warm_up.name
    is_too_long = whole > _LONGEST * run.iterations
    ends = [each.end for each in schedules if each.ends and not each.is_warm_up]
    share = min([_SHORTENED, *(whole / end for end in ends if end > whole)])
    end = max(round(share * run.iterations), _FEWEST) if is_too_long else int(whole)
    if end < _FEWEST or end > _LONGEST * run.iterations:
        factors = {'Linear': dict(start_factor=warm_up.config.get('end_factor', 1.0)), 'Constant': dict(factor=1.0)}
        options = next((each for kind, each in factors.items() if warm_up.kind.startswith(kind)), {})
        # With these, the only step gives the whole rate.
        why = f'it has {_number(whole)} iterations and the run {run.iterations}'
        if not is_too_long:
            why = 'one of a single step would not come to its end'
        message = f'{name}: the warm-up is left out: {why}'
        return warm_up.by_iteration(1, **options), 0, message
    if is_too_long:
        message = f'{name}: warm-up shortened from {_number(whole)} to {end} iterations: the run has {run.iterations}'
    else:
        message = f'{name}: a warm-up of one step would not come to its end; it takes {end} iterations instead'
    return warm_up.by_iteration(end), end, message


def _early_ends(schedules: list[_Schedule], run: RunLength) -> Iterator[str]:
    """Say that the last schedule of the learning rate ends long before the run does."""
    later = [
        each
        for each in schedules
        if each.is_stepped and not each.is_warm_up and not each.kind.endswith('Momentum')
        if each.config.get('param_name', 'lr') == 'lr'
    ]
    if later and all(each.end <= _LONGEST * run.iterations for each in later):
        last = max(later, key=lambda each: each.end)
        yield (
            f'{last.name} ends at {last.say(last.end)} and the run at {last.say(run.iterations)}: the learning rate '
            f'stays as it is then; set {last.place}.end={_number(run.iterations / last.unit)}'
        )


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else f'{float(value):.4g}'
