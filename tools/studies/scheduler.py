"""Train what is missing of a study, some runs at a time, on this machine."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .logs import Progress, read_progress
from .runs import Run
from .sitting import Publishing, Sitting


@dataclass
class Options:
    """How runs are started.

    Args:
        jobs (int): Runs at a time.
        threads (int): Threads of a run.
        gpus (tuple[int, ...]): GPUs to spread the runs over; empty leaves the choice to the runs.
        machine (dict): What ``probe.py`` says about this machine.
        pause_file (Path): As long as it exists, nothing runs.
        command (Callable[[Run], list[str]], optional): What trains a run; None for ``tools/train.py``.
        tick (float): Seconds from one look at the processes to the next.
    """

    jobs: int
    threads: int
    gpus: tuple[int, ...]
    machine: dict
    pause_file: Path
    command: Callable[[Run], list[str]] | None = None
    tick: float = 0.5


class Scheduler:
    """Trains runs, as many at a time as it may, until none is left.

    Runs save themselves and stop when the pause file appears, and when this process is told to stop (SIGTERM, Ctrl-C);
    told twice, they are killed. The failure of one is recorded, and the others go on.

    Args:
        runs (list[Run]): All runs of the study, in the order in which they start; those that are done or have failed
            are left out.
        options (Options): How to start them.
        display (Display): What shows the state and tells the events.
    """

    def __init__(self, runs: list[Run], options: Options, display):
        self.runs, self.options, self.display = runs, options, display
        self.waiting = [run for run in runs if not run.is_done and run.failure is None]
        self.running: dict[int, Sitting | Publishing] = {}
        self.is_paused = False
        self.times_told = self._times_obeyed = 0
        self._unpublished: dict[Path, str] = {}
        self._is_occupied: set[Run] = set()
        self._named: set[Run] = set()

    def run(self) -> bool:
        """Train.

        Returns:
            bool: Whether it came to its end; False if it was told to stop.
        """
        with self._signals(), self.display:
            while True:
                self._collect()
                if self.times_told:
                    self._stop()
                    if not self.running:
                        return False
                elif not self._look_for_pause():
                    self._fill()
                    if not self.running and not self._is_occupied:
                        break
                self.display.update(self)
                time.sleep(self.options.tick)
        for run in self.waiting:
            needs = ', '.join(str(need.reference) for need in run.needs() if not need.is_ready)
            self.display.tell(f'not started: {run}, needs {needs}')
        return True

    def sitting(self, run: Run) -> Sitting | None:
        """Find a run's sitting; None if it does not run."""
        return next((s for s in self.running.values() if s.kind == 'training' and s.run is run), None)

    def progress(self, sitting: Sitting) -> Progress | None:
        """Read how far a running run is."""
        return read_progress(sitting.run.log, sitting.log_start, sitting.run.max_epochs)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._hear) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for sitting in self.running.values():  # after a fault in here
                sitting.stop()
            for number, handler in before.items():
                signal.signal(number, handler)

    def _hear(self, _number: int, _frame) -> None:
        self.times_told += 1  # the rest is not for a signal handler

    def _stop(self) -> None:
        """Have the runs save themselves, or kill them where that has been asked for again."""
        if self.times_told == self._times_obeyed:
            return
        for sitting in self.running.values():
            if self.times_told == 1:
                sitting.stop()
            else:
                sitting.kill()
        if self._times_obeyed == 0:
            self.display.tell(f'told to stop: {len(self.running)} runs save themselves; once more kills them')
        self._times_obeyed = self.times_told

    def _look_for_pause(self) -> bool:
        is_paused = self.options.pause_file.exists()
        if is_paused and not self.is_paused:
            for sitting in self.running.values():
                sitting.stop()
            self.display.tell(f'paused: runs save themselves; goes on without {self.options.pause_file}')
        elif self.is_paused and not is_paused:
            self.display.tell('goes on')
        self.is_paused = is_paused
        return is_paused

    def _fill(self) -> None:
        self._is_occupied.clear()
        for slot in range(self.options.jobs):
            if slot not in self.running and (started := self._start_next(slot)):
                self.running[slot] = started

    def _start_next(self, slot: int) -> Sitting | Publishing | None:
        for run in list(self.waiting):
            needs = run.needs()
            for need in needs:
                if need.is_done and not need.is_ready and need.folder not in self._unpublished:
                    if any(s.run.folder == need.folder for s in self.running.values()):
                        continue
                    self.display.tell(f'publishing {need.folder}')
                    return Publishing(need)
            if run in self._is_occupied or not all(need.is_ready for need in needs):
                continue
            gpus = self.options.gpus
            try:
                sitting = Sitting(
                    run,
                    self.options.threads,
                    self.options.machine,
                    gpus[slot % len(gpus)] if gpus else None,
                    self.options.command and self.options.command(run),
                )
            except BlockingIOError:  # what an earlier runner left behind, and is saving itself
                self._is_occupied.add(run)
                if run not in self._named:
                    self._named.add(run)
                    self.display.tell(f'waits for another process that trains {run}')
                continue
            self.waiting.remove(run)
            self.display.tell(f'{"goes on" if sitting.has_history else "started"}: {run}')
            return sitting
        return None

    def _collect(self) -> None:
        for slot, sitting in list(self.running.items()):
            outcome = sitting.poll()
            if outcome is None:
                continue
            del self.running[slot]
            if sitting.kind == 'publishing':
                if outcome == 'failed':
                    self._unpublished[sitting.run.folder] = sitting.failure
                    self.display.tell(f'failed: {sitting.run.folder}: {sitting.failure}')
                continue
            run = sitting.run
            if outcome == 'failed':
                self.display.tell(f'failed: {run}: {run.failure} ({run.log})')
            elif outcome == 'stopped':
                self.display.tell(f'stopped: {run}')
                if self.is_paused:  # what somebody else has stopped is left for the next time
                    self.waiting.insert(0, run)
            else:
                self.display.tell(f'done: {run}: {summary(run)}')


def summary(run: Run) -> str:
    """Write a finished run's figures and time in one line."""
    result = run.result
    values = ', '.join(f'{name} {figure["value"]:.4g}' for name, figure in result['figures'].items())
    return f'{values}; {result["seconds"] / 60:.1f} min'
