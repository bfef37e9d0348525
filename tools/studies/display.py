"""Show a study's state: a live table on a terminal, plain lines elsewhere."""

import statistics
import sys
import time

from .logs import read_scalars
from .runs import Run

_LINES = 300  # seconds between plain lines about the state
_TABLE = 2  # seconds between two looks at the logs for the table


class Display:
    """Tells what happens and how far a study is.

    Args:
        is_live (bool, optional): Whether to keep a table on the screen; None looks whether standard output is a
            terminal.
    """

    def __init__(self, is_live: bool | None = None):
        from rich.console import Console

        self.console = Console(highlight=False, soft_wrap=True)
        self.is_live = self.console.is_terminal if is_live is None else is_live
        self._live = None
        self._shown = time.monotonic()
        self._values: dict[Run, float] = {}
        self._times: dict[Run, float] = {}

    def __enter__(self):
        if self.is_live:
            from rich.live import Live

            # No thread of its own: processes are forked.
            self._live = Live(console=self.console, auto_refresh=False, transient=True)
            self._live.start()
            self._shown = 0.0
        return self

    def __exit__(self, *_):
        if self._live is not None:
            self._live.stop()
            self._live = None

    def tell(self, text: str) -> None:
        """Tell an event."""
        self.console.print(f'{time.strftime("%H:%M:%S")} {text}', markup=False)
        sys.stdout.flush()

    def update(self, scheduler) -> None:
        """Show the state, if it is time to."""
        if time.monotonic() - self._shown < (_TABLE if self._live else _LINES):
            return
        self._shown = time.monotonic()
        if self._live:
            self._live.update(self._table(scheduler), refresh=True)
        else:
            self.tell(self._line(scheduler))

    def _table(self, scheduler):
        from rich.console import Group
        from rich.table import Table

        study = scheduler.runs[0].study
        table = Table(title=f'study {study.name}', title_justify='left')
        table.add_column('row', overflow='fold')
        for name in ('done', 'failed', 'running'):
            table.add_column(name, justify='left' if name == 'running' else 'right')
        table.add_column(f'{study.figures[0].label}, so far', justify='right')
        for row in study.rows:
            runs = [run for run in scheduler.runs if run.row is row]
            if not runs:
                continue
            done = [run for run in runs if run.is_done]
            failed = sum(run.failure is not None for run in runs if not run.is_done)
            running = '\n'.join(filter(None, (self._running(scheduler, run) for run in runs)))
            values = [value for run in done if (value := self._value(run)) is not None]
            so_far = f'{statistics.fmean(values):.4g}' if values else ''
            table.add_row(row.label, f'{len(done)}/{len(runs)}', str(failed or ''), running, so_far)
        return Group(table, self._line(scheduler))

    def _running(self, scheduler, run: Run) -> str:
        sitting = scheduler.sitting(run)
        if sitting is None:
            return ''
        progress = scheduler.progress(sitting)
        if progress is None:
            return f'seed {run.seed}: starts'
        text = f'seed {run.seed}: {progress.share:.0%}, {progress.rate:.3g} it/s'
        if progress.share:
            text += f', {_duration(sitting.seconds * (1 / progress.share - 1))} left'
        read = read_scalars(run.folder).read(run.study.figures[0], run.study.which)
        return text + (f', at {read[1]:.4g}' if read else '')

    def _line(self, scheduler) -> str:
        runs = scheduler.runs
        done = sum(run.is_done for run in runs)
        failed = sum(run.failure is not None for run in runs if not run.is_done)
        parts = [f'{done} of {len(runs)} done', f'{len(scheduler.running)} running']
        if failed:
            parts.append(f'{failed} failed')
        if scheduler.is_paused:
            parts.append('paused')
        left = self._time_left(scheduler)
        return ', '.join(parts) + (f', about {_duration(left)} left' if left else '')

    def _time_left(self, scheduler) -> float | None:
        """Estimate, from the runs that are done and those that run, the time to the end."""
        known: dict[str, list[float]] = {}
        for run in scheduler.runs:
            if run.is_done:
                if run not in self._times:
                    self._times[run] = run.result['seconds']
                known.setdefault(run.row.name, []).append(self._times[run])
        left, rest = 0.0, [run.row.name for run in scheduler.waiting]
        for sitting in scheduler.running.values():
            if sitting.kind != 'training':
                continue
            progress = scheduler.progress(sitting)
            name = sitting.run.row.name
            if progress and progress.share:
                left += sitting.seconds * (1 / progress.share - 1)
                if name not in known:
                    known[name] = [sitting.seconds / progress.share]
            else:
                rest.append(name)
        if not known:
            return None
        everywhere = statistics.fmean(value for values in known.values() for value in values)
        left += sum(statistics.fmean(known[name]) if name in known else everywhere for name in rest)
        return left / scheduler.options.jobs

    def _value(self, run: Run) -> float | None:
        if run not in self._values:
            figure = run.study.figures[0]
            recorded = run.result['figures'].get(figure.name)
            if recorded is None:
                return None
            self._values[run] = recorded['value']
        return self._values[run]


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f'{seconds:.0f} s'
    if seconds < 5400:
        return f'{seconds / 60:.0f} min'
    return f'{seconds / 3600:.1f} h'
