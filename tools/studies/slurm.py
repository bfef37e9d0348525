"""Train what is missing of a study as arrays of a Slurm cluster, through submitit.

A task is one run. Slurm says how many run at a time, and starts a task again that ran out of its time or was preempted:
the training saves itself before, and goes on.
"""

import os
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .errors import StudyError
from .runs import Run, read_json, write_json
from .sitting import Publishing, Sitting, machine

_TOOLS = Path(__file__).resolve().parents[1]
_TICK = 0.5  # seconds
_RESTARTS = 100  # of a task that ran out of its time
_PARAMETERS = ('partition', 'time', 'mem', 'gpus_per_node', 'cpus_per_task', 'qos', 'account', 'constraint', 'gres')
_NUMBERS = ('time', 'gpus_per_node', 'cpus_per_task')


class Task:
    """One run, as Slurm starts it.

    Args:
        run (Run): The run.
        threads (int): Threads of the training.
        is_published (bool): Whether other runs need its published file.
        command (list[str], optional): What trains; None for ``tools/train.py``.
    """

    def __init__(self, run: Run, threads: int, is_published: bool, command: list[str] | None = None):
        self.run, self.threads, self.is_published, self.command = run, threads, is_published, command
        self.folder = os.getcwd()  # what paths of the study are relative to
        self._sitting = None

    def __call__(self) -> str:
        """Train to the end; raises where this is not reached, so that tasks that need this one do not start."""
        os.chdir(self.folder)
        if not self.run.is_done:
            self._sitting = Sitting(self.run, self.threads, machine(), command=self.command)
            outcome = _wait(self._sitting)
            if outcome != 'done':
                raise RuntimeError(f'{outcome}: {self.run}: {self.run.failure or "it has saved itself"}')
        if self.is_published and self.run.published() is None:
            publish(self.run)
        return 'done'

    def checkpoint(self):
        """Have the training save itself; submitit calls this, before Slurm ends the task, to start it again."""
        from submitit.helpers import DelayedSubmission

        if self._sitting is not None:
            self._sitting.stop_and_wait()
        return DelayedSubmission(Task(self.run, self.threads, self.is_published, self.command))


def publish(run: Run) -> None:
    """Publish a run that is done.

    Raises:
        RuntimeError: If this fails.
    """
    publishing = Publishing(run)
    if _wait(publishing) != 'done':
        raise RuntimeError(f'{run.folder}: {publishing.failure}')


def read_parameters(given: list[str]) -> dict[str, str | int]:
    """Read ``KEY=VALUE`` of the command line.

    Args:
        given (list[str]): Such texts.

    Returns:
        dict[str, str | int]: Parameters of submitit's Slurm executor.

    Raises:
        StudyError: If there is no such parameter, or the value is none.
    """
    parameters = {}
    for text in given:
        key, mark, value = text.partition('=')
        if not mark or key not in _PARAMETERS:
            raise StudyError(f'--slurm {text}: write KEY=VALUE, with a key of {", ".join(_PARAMETERS)}')
        if key in _NUMBERS and not value.isdigit():
            raise StudyError(f'--slurm {text}: {key} must be a whole number{", of minutes" if key == "time" else ""}')
        parameters[key] = int(value) if key in _NUMBERS else value
    if 'time' not in parameters:
        raise StudyError('--slurm needs time=MINUTES, of a task; a run that takes longer saves itself and starts again')
    return parameters


def submit(
    runs: list[Run],
    jobs: int,
    threads: int,
    parameters: dict[str, str | int],
    command: Callable[[Run], list[str]] | None = None,
) -> list[str]:
    """Hand what is missing to Slurm: an array for the rows that need no other, then one for those that wait for it.

    Args:
        runs (list[Run]): All runs.
        jobs (int): Tasks at a time.
        threads (int): Threads of a run.
        parameters (dict[str, str | int]): Of :func:`read_parameters`.
        command (Callable[[Run], list[str]], optional): What trains a run; None for ``tools/train.py``.

    Returns:
        list[str]: The numbers of the arrays.

    Raises:
        StudyError: If submitit or Slurm is not there, or an array of this study is still at work.
    """
    try:
        import submitit
    except ImportError:
        raise StudyError("--slurm needs submitit: pip install 'vik_mm[slurm]'") from None
    if shutil.which('sbatch') is None or shutil.which('srun') is None:
        raise StudyError('--slurm needs sbatch and srun, which are not on this machine')
    folder = (runs[0].root / runs[0].study.name / 'slurm').absolute()
    record = folder / 'arrays.json'
    _check_queue(read_json(record) or [])
    published = {need.folder for run in runs for need in run.needs() if need.reference.kind == 'published'}
    arrays = []
    for wave in _waves([run for run in runs if not run.is_done and run.failure is None]):
        executor = submitit.SlurmExecutor(folder, max_num_timeout=_RESTARTS)
        executor.update_parameters(
            **{'cpus_per_task': threads, **parameters},
            job_name=runs[0].study.name,
            array_parallelism=jobs,
            # Where this module is, whatever the cluster does with the environment.
            setup=[f'export PYTHONPATH={shlex.quote(str(_TOOLS))}:$PYTHONPATH'],
            dependency=f'afterok:{arrays[-1]}' if arrays else None,
        )
        tasks = [Task(run, threads, run.folder in published, command and command(run)) for run in wave]
        submitted = executor.submit_array(tasks)
        arrays.append(submitted[0].job_id.split('_')[0])
        write_json(record, arrays)
    return arrays


def _waves(missing: list[Run]) -> list[list[Run]]:
    """Sort runs into those that can start at once, those that need these, and so on."""
    waves = []
    while missing:
        folders = {run.folder for run in missing}
        wave = [run for run in missing if not any(need.folder in folders for need in run.needs())]
        # What needs a failed run has no place.
        waves.append([run for run in wave if all(_is_coming(need, waves) for need in run.needs())])
        missing = [run for run in missing if run not in wave]
    return [wave for wave in waves if wave]


def _is_coming(need, waves: list[list[Run]]) -> bool:
    return need.is_done or any(run.folder == need.folder for wave in waves for run in wave)


def _check_queue(arrays: list[str]) -> None:
    for array in arrays:
        # squeue fails for numbers that it has forgotten.
        queue = subprocess.run(['squeue', '--noheader', '--jobs', array], capture_output=True, text=True)
        if queue.returncode == 0 and queue.stdout.strip():
            raise StudyError(f'array {array} of this study is still in the queue: wait for it, or scancel {array}')


def _wait(process: Sitting | Publishing) -> str:
    while (outcome := process.poll()) is None:
        time.sleep(_TICK)
    return outcome
