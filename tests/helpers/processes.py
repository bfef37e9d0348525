"""Trainings in processes that can be killed, without the half minute that importing everything takes each time."""

import importlib.util
import multiprocessing
import os
import socket
import sys
from pathlib import Path

TOOLS = Path(__file__).parent.parent.parent / 'tools'


def context():
    """A server forks the processes, having imported what they need; it has used no threads by then."""
    ctx = multiprocessing.get_context('forkserver')
    ctx.set_forkserver_preload(['vik_mm', 'mmpretrain.models', 'mmpretrain.datasets', 'mmpretrain.evaluation'])
    return ctx


def train(log: str, arguments: list[str], environment: dict[str, str]) -> None:
    """Do what ``python tools/train.py`` does; runs in the process."""
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.environ.update(environment)
    os.chdir(Path(log).parent)
    sys.argv = ['train.py', *arguments]
    sys.stdout = sys.stderr = open(handle, 'w', buffering=1)  # noqa: SIM115  until the process ends
    import torch

    torch.set_num_threads(1)
    spec = importlib.util.spec_from_file_location('train_tool', TOOLS / 'train.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.main()


class Training:
    """A training in one process or several.

    Args:
        folder (Path): Where its log goes.
        arguments (list): Of ``tools/train.py``.
        num_processes (int): Ranks. Defaults to 1.
    """

    def __init__(self, folder: Path, arguments: list, num_processes: int = 1):
        self.logs = [folder / f'log_{rank}.txt' for rank in range(num_processes)]
        arguments = list(map(str, arguments)) + (['--launcher', 'pytorch'] if num_processes > 1 else [])
        # Of its own: loader processes of a run that was killed hold its port for some seconds.
        with socket.socket() as free:
            free.bind(('127.0.0.1', 0))
            port = str(free.getsockname()[1])
        self.processes = []
        for rank, log in enumerate(self.logs):
            log.unlink(missing_ok=True)
            environment = dict(
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE=str(num_processes),
                MASTER_ADDR='127.0.0.1',
                MASTER_PORT=port,
            )
            process = context().Process(target=train, args=(str(log), arguments, environment))
            process.start()
            self.processes.append(process)

    def wait(self, seconds: float = 120) -> list[int]:
        """Wait for the end; returns the exit codes, negative for signals."""
        try:
            for process in self.processes:
                process.join(seconds)
            codes = [process.exitcode for process in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        assert None not in codes, f'still running after {seconds} s:\n{self.text[-3000:]}'
        return codes

    @property
    def text(self) -> str:
        """What the processes wrote."""
        return '\n'.join(log.read_text() for log in self.logs if log.exists())
