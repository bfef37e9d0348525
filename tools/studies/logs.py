"""Read what a run has logged: figures, losses, how far it is."""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from .study import Figure

_STEP = re.compile(
    r'(?P<unit>Epoch|Iter)\(train\)\s+(?:\[\s*(?P<epoch>\d+)\])?\[\s*(?P<done>\d+)/(?P<total>\d+)\]'
    r'.*?\stime:\s+(?P<time>[\d.]+)'
)
_TAIL = 65536
_NO_FIGURES = ('step', 'time', 'data_time')


@dataclass
class Scalars:
    """What the sittings of a run logged, merged.

    Args:
        training (dict[int, dict]): Logged values by iteration.
        validation (dict[int, dict]): Figures by epoch or by iteration, as the run counts.
    """

    training: dict[int, dict] = field(default_factory=dict)
    validation: dict[int, dict] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Name the figures of the validations."""
        return list(dict.fromkeys(name for values in self.validation.values() for name in values))

    def curve(self, name: str) -> list[tuple[int, float]]:
        """Take one figure's values, in the order of the steps."""
        return [(step, values[name]) for step, values in sorted(self.validation.items()) if name in values]

    def read(self, figure: Figure, which: str) -> tuple[int, float] | None:
        """Read a figure.

        Args:
            figure (Figure): Which one.
            which (str): 'last' or 'best'.

        Returns:
            tuple[int, float] | None: The step and the value; of equally good ones the first. None if not logged.
        """
        curve = self.curve(figure.name)
        if not curve or which == 'last':
            return curve[-1] if curve else None
        sign = 1 if figure.higher_is_better else -1
        # A figure that is no number is the worst.
        return max(curve, key=lambda point: sign * point[1] if point[1] == point[1] else -float('inf'))

    def losses(self) -> list[tuple[int, float]]:
        """Take the training loss by iteration."""
        return [(step, values['loss']) for step, values in sorted(self.training.items()) if 'loss' in values]


def read_scalars(folder: Path) -> Scalars:
    """Read the scalars of all sittings; what a later one repeats after a kill takes the earlier one's place.

    Args:
        folder (Path): The run's work dir.

    Returns:
        Scalars: All values.
    """
    scalars = Scalars()
    for path in sorted(folder.glob('*/vis_data/scalars.json')):
        for line in path.read_text().splitlines():
            try:
                values = json.loads(line)
            except json.JSONDecodeError:
                continue  # the end of a sitting that was killed
            if 'iter' in values:
                scalars.training[values['iter']] = values
            elif 'step' in values:
                figures = {k: v for k, v in values.items() if k not in _NO_FIGURES and isinstance(v, (int, float))}
                scalars.validation.setdefault(values['step'], {}).update(figures)
    return scalars


@dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        share (float): Of its iterations, from 0 to 1.
        rate (float): Iterations a second, lately.
        epoch (int): The epoch that it is in, from 1; 0 where the run counts iterations.
        epoch_length (int): Iterations of an epoch; of the whole run where it counts iterations.
    """

    share: float
    rate: float
    epoch: int
    epoch_length: int


def read_progress(log: Path, start: int, max_epochs: int | None) -> Progress | None:
    """Read from a sitting's log how far the run is.

    Args:
        log (Path): What it wrote.
        start (int): Where in the file the sitting begins.
        max_epochs (int, optional): Epochs of the whole run, where it counts epochs and this is known.

    Returns:
        Progress | None: None before the first logged iteration.
    """
    matches = list(_STEP.finditer(read_tail(log, start)))
    if not matches:
        return None
    match = matches[-1]
    done, total, time = int(match['done']), int(match['total']), float(match['time'])
    share, epoch = done / total, 0
    if match['unit'] == 'Epoch':
        epoch = int(match['epoch'])
        share = (epoch - 1 + share) / max_epochs if max_epochs else 0.0
    return Progress(min(share, 1.0), 1 / time if time else 0.0, epoch, total)


def read_tail(log: Path, start: int = 0) -> str:
    """Read the end of a log, from ``start`` on at most."""
    with log.open('rb') as file:
        size = file.seek(0, 2)
        file.seek(max(start, size - _TAIL))
        return file.read().decode(errors='replace')


def last_line(log: Path, start: int = 0) -> str:
    """Read the last line with something in it."""
    # Progress bars end their lines with carriage returns.
    lines = [line.strip() for line in re.split(r'[\r\n]', read_tail(log, start))]
    return next((line for line in reversed(lines) if line), 'it wrote nothing')
