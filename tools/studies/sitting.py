"""One sitting of a run: a process that trains until it ends, fails, or is told to save itself and stop."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from .logs import last_line, read_progress, read_scalars, read_tail
from .runs import PUBLISH, Run, WorkDir, lock, now, write_json

# What tools/train.py writes when it has been told to stop, before it ends with exit code 0.
STOPPED = 'carry on with --resume'
_HEARTBEAT = 10  # seconds
_LOOK = 1  # seconds from one look at what a run has logged to the next
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None
_PR_SET_PDEATHSIG = 1


def _before_exec() -> None:
    """Tie the process to this one, in the process, before it becomes the training."""
    # Slurm warns all processes of a task with this signal; the task's own process then stops the training well.
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if _LIBC is not None:  # a runner that is killed leaves nothing behind that trains on
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


class Child:
    """A process whose output goes to a log and whose peak memory is known at its end.

    Args:
        command (list[str]): The program and its arguments.
        log (Path): Its output is appended here.
        environment (dict[str, str]): More variables of its environment.
        handle (int, optional): A lock that it holds as long as it lives.
    """

    def __init__(self, command: list[str], log: Path, environment: dict[str, str], handle: int | None = None):
        self.log = log
        with log.open('ab') as file:
            self.log_start = file.tell()
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **environment},
                pass_fds=() if handle is None else (handle,),
                start_new_session=True,  # Ctrl-C must not reach it, it would end without saving
                preexec_fn=_before_exec,
            )
        self.peak_mib = 0.0

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        """Whether its exit code is known."""
        return self._process.returncode is not None

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal; None as long as it runs."""
        if not self.has_ended:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)
                unit = 2**20 if sys.platform == 'darwin' else 2**10
                self.peak_mib = usage.ru_maxrss / unit
        return self._process.returncode

    def signal(self, number: int) -> None:
        """Send a signal, if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it with all that it has started."""
        if self.poll() is None:
            os.killpg(self.pid, signal.SIGKILL)


class Sitting:
    """Trains a run until it ends, fails or stops, and records what came out.

    Args:
        run (Run): The run; its work dir is made.
        threads (int): Threads of the training.
        machine (dict): What :func:`machine` returns.
        gpu (int, optional): The GPU it may use; None leaves this to the environment.
        command (list[str], optional): What trains; None for ``tools/train.py``.

    Raises:
        BlockingIOError: If another process trains this run.
    """

    kind = 'training'

    def __init__(self, run: Run, threads: int, machine: dict, gpu: int | None = None, command: list[str] | None = None):
        self.run, self.threads, self.machine, self.command = run, threads, machine, command or run.command()
        handle = lock(run.folder / '.lock')
        if handle is None:
            raise BlockingIOError(f'{run} is being trained by another process')
        try:
            self._commit = run.begin(self.command)
            numbers = {name: str(threads) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
            device = {} if gpu is None else dict(CUDA_VISIBLE_DEVICES=str(gpu))
            self._child = Child(self.command, run.log, {**numbers, **device, 'PYTHONUNBUFFERED': '1'}, handle)
        finally:
            os.close(handle)  # the child holds the lock
        self.start = time.time()
        self.log_start = self._child.log_start
        self._earlier = run.sittings
        self._before = sum(sitting['end'] - sitting['start'] for sitting in self._earlier)
        self._beat = self._looked = 0.0
        self._given_up: str | None = None
        self._is_told = self._has_figures = False
        self._note()

    @property
    def has_history(self) -> bool:
        """Whether there was a sitting before."""
        return bool(self._earlier)

    @property
    def seconds(self) -> float:
        """Wall time of the run so far."""
        return self._before + time.time() - self.start

    def stop(self) -> None:
        """Have it save itself and end."""
        self._is_told = True
        self._child.signal(signal.SIGTERM)

    def stop_and_wait(self) -> None:
        """Have it save itself and wait until it has ended; for signal handlers, which may interrupt :meth:`poll`."""
        if self._child.has_ended:
            return
        os.kill(self._child.pid, signal.SIGTERM)
        # Whoever polls shall still find it.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, self._child.pid, os.WEXITED | os.WNOWAIT)

    def kill(self) -> None:
        """End it at once; what it did since its last checkpoint is lost."""
        self._is_told = True
        self._child.kill()

    def poll(self) -> str | None:
        """Look how it is; at its end, record that.

        Returns:
            str | None: 'done', 'failed' or 'stopped'; None as long as it runs.
        """
        code = self._child.poll()
        if code is None:
            if time.time() - self._beat > _HEARTBEAT:
                self._note()
            if not self._is_told and time.time() - self._looked > _LOOK:
                self._look()
            return None
        self._note()
        if self._given_up:
            self.run.fail(self._given_up)
            return 'failed'
        if self._is_stopped(code):
            return 'stopped'
        if code:
            self.run.fail(self._reason(code))
            return 'failed'
        scalars = read_scalars(self.run.folder)
        if reason := self._missing_figure(scalars):
            self.run.fail(reason)
            return 'failed'
        self._record(scalars)
        return 'done'

    def _look(self) -> None:
        """Stop a run that cannot come to a good end."""
        self._looked = time.time()
        limit = self.run.study.timeout
        if limit is not None and self.seconds > limit:
            self._give_up(f'not at its end after {limit / 60:g} min; raise the timeout and use --retry')
        elif not self._has_figures:
            scalars = read_scalars(self.run.folder)
            if scalars.validation:
                self._has_figures = True
                if reason := self._missing_figure(scalars):
                    self._give_up(reason)

    def _give_up(self, reason: str) -> None:
        self._given_up = reason
        self.stop()

    def _missing_figure(self, scalars) -> str | None:
        names = scalars.names()
        for figure in self.run.study.figures:
            if figure.name not in names:
                return f'the figure {figure.name} is not logged; logged: {", ".join(names) or "none"}'
        return None

    def _is_stopped(self, code: int) -> bool:
        if code == 0:
            # The name of the last checkpoint does not tell: a run that is stopped in its last validation and goes on
            # comes to its end without another.
            return STOPPED in read_tail(self._child.log, self._child.log_start)
        # SIGTERM came before the training could take it, so there is nothing to save; or it was killed on order.
        return self._is_told and code in (-signal.SIGTERM, -signal.SIGKILL)

    def _reason(self, code: int) -> str:
        line = last_line(self._child.log, self._child.log_start)
        if code < 0:
            name = signal.Signals(-code).name
            hint = ', maybe for want of memory' if name == 'SIGKILL' else ''
            return f'killed by {name}{hint}; its last line: {line}'
        return line

    def _note(self) -> None:
        """Write down how long it has run, also for the case that this process is killed."""
        self._beat = time.time()
        peak = self._child.peak_mib or _peak_so_far(self._child.pid)
        this = dict(start=self.start, end=self._beat, peak_mib=peak, pid=self._child.pid, commit=self._commit)
        write_json(self.run.folder / 'sittings.json', [*self._earlier, this])

    def _record(self, scalars) -> None:
        run = self.run
        figures = {}
        for figure in run.study.figures:
            step, value = scalars.read(figure, run.study.which)
            figures[figure.name] = dict(value=value, step=step)
        epochs, iterations = self._length(scalars)
        sittings = run.sittings
        gpu = [values['memory'] for values in scalars.training.values() if 'memory' in values]
        write_json(
            run.folder / 'run.json',
            dict(
                **dict(study=run.study.name, row=run.row.name, **run.settings),
                **dict(which=run.study.which, figures=figures, epochs=epochs, iterations=iterations),
                **dict(seconds=run.seconds, sittings=len(sittings), threads=self.threads),
                peak_mib=max(sitting['peak_mib'] or 0 for sitting in sittings) or None,
                gpu_peak_mib=max(gpu, default=None),
                **self.machine,
                commit=', '.join(dict.fromkeys(sitting['commit'] for sitting in sittings)),
                **dict(host=socket.gethostname(), command=self.command, date=now()),
            ),
        )

    def _length(self, scalars) -> tuple[int, int]:
        """Count epochs and iterations; epochs are 0 where the run counts iterations."""
        # The last iterations may be in no scalars, they are logged at intervals; the log of an epoch knows its length.
        progress = read_progress(self.run.log, 0, None)
        if progress and progress.epoch:
            return progress.epoch, progress.epoch * progress.epoch_length
        return 0, max([*scalars.training, *scalars.validation])


class Publishing:
    """Makes the file to hand out of a run that is done, by ``publish.py``.

    Args:
        run (WorkDir): The run.
        command (list[str], optional): What publishes; None for ``publish.py``.
    """

    kind = 'publishing'

    def __init__(self, run: WorkDir, command: list[str] | None = None):
        self.run = run
        target = run.folder / 'published'
        command = command or [sys.executable, str(PUBLISH), str(run.checkpoint()), str(target)]
        self._child = Child(command, run.folder / 'publish.log', {})
        self._is_told = False

    def stop(self) -> None:
        """End it; it will be started again."""
        self._is_told = True
        self._child.signal(signal.SIGTERM)

    kill = stop

    def poll(self) -> str | None:
        """Look how it is: 'done', 'failed' or 'stopped'; None as long as it runs."""
        code = self._child.poll()
        if code is None:
            return None
        if code == 0 and self.run.published():
            return 'done'
        return 'stopped' if self._is_told else 'failed'

    @property
    def failure(self) -> str:
        """Why it failed."""
        return f'publishing failed: {last_line(self._child.log, self._child.log_start)}'


def machine(environment: dict[str, str] | None = None) -> dict:
    """Describe this machine, in a process of its own."""
    return probe([], [], environment)['machine']


def probe(commands: list[list[str]], figures: list[str], environment: dict[str, str] | None = None) -> dict:
    """Look at configs and at this machine; see ``probe.py``.

    Args:
        commands (list[list[str]]): Arguments of ``tools/train.py``.
        figures (list[str]): Figures that they have to log.
        environment (dict[str, str], optional): More variables of the environment.

    Returns:
        dict: ``machine`` and ``configs``.

    Raises:
        RuntimeError: If this failed as a whole.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, 'answer.json')
        done = subprocess.run(
            [sys.executable, str(Path(__file__).with_name('probe.py')), str(answer)],
            input=json.dumps(dict(commands=commands, figures=figures)),
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise RuntimeError(f'the configs could not be looked at:\n{done.stderr}')
        return json.loads(answer.read_text())


def _peak_so_far(pid: int) -> float | None:
    """Read a process's peak memory in MiB; None where the system does not tell."""
    try:
        lines = Path(f'/proc/{pid}/status').read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM')), None)
