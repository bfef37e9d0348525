"""How a training is told to stop: SIGTERM, as batch systems send it, a terminal that is closed, and Ctrl-C."""

import contextlib
import os
import signal
import threading
import time
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.registry import FUNCTIONS
from torch import distributed

_STOP = 'vik_mm/stop'  # in the store that the processes share
# What the processes agree upon; the greater number prevails.
_NO, _BY_SYSTEM, _BY_HAND = 0, 1, 2
_EXIT_CODES = {_BY_SYSTEM: 0, _BY_HAND: 128 + signal.SIGINT}
# torchrun hands on the Ctrl-C that the terminal has sent to all processes: one press arrives twice.
_SAME_PRESS_SECONDS = 5
_NOTICE = b'\nCtrl-C: the step is finished and saved first; a second Ctrl-C stops at once\n'


class TrainingStopped(Exception):
    """A run has been told to stop and has saved itself.

    Args:
        message (str): Where it stopped, and what it saved.
        exit_code (int): What the process ought to end with: 0 after SIGTERM, 130 after Ctrl-C. Defaults to 0.
    """

    def __init__(self, message: str, exit_code: int = 0):
        super().__init__(message)
        self.exit_code = exit_code


class ValidationStopped(Exception):
    """A validation has been left."""


class StopSignal:
    """Whether SIGTERM or Ctrl-C has come, agreed upon by all processes; a second Ctrl-C raises KeyboardInterrupt."""

    def __init__(self):
        self._level = _NO
        self._pressed_at = 0.0
        self._before = {}
        self._is_first = get_rank() == 0
        self._same_press = _SAME_PRESS_SECONDS if 'TORCHELASTIC_RUN_ID' in os.environ else 0
        # Of its own, on the CPU: no waiting for the GPU.
        # Any, as new_group may give the number of a group that this process is not in; all are in this one.
        self._group: Any = distributed.new_group(backend='gloo') if get_world_size() > 1 else None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            for name in ('SIGTERM', 'SIGHUP', 'SIGINT'):
                number = getattr(signal, name, None)  # Windows has no SIGHUP
                # What is ignored (nohup, jobs in the background of a script) stays ignored.
                if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _receive(self, number, _):
        if number != signal.SIGINT:
            self._level = max(self._level, _BY_SYSTEM)
        elif not self._pressed_at:
            self._level, self._pressed_at = _BY_HAND, time.monotonic()
            if self._is_first:
                with contextlib.suppress(OSError):  # the terminal may be gone
                    os.write(2, _NOTICE)  # print may be in the middle of something
        elif time.monotonic() - self._pressed_at >= self._same_press:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third one ends even what is stuck
            raise KeyboardInterrupt

    @property
    def exit_code(self) -> int:
        """What the process ought to end with."""
        return _EXIT_CODES[self._level]

    def is_set_anywhere(self) -> bool:
        """Agree; all processes must call it."""
        if self._group is not None:
            level = torch.tensor(self._level)
            distributed.all_reduce(level, op=distributed.ReduceOp.MAX, group=self._group)
            self._level = max(self._level, int(level))
        return self._level != _NO

    def is_known(self) -> bool:
        """Look whether any process has been told to stop, without waiting for the others."""
        if self._group is None:
            return self._level != _NO
        store = distributed.distributed_c10d._get_default_store()
        if self._level:
            store.set(_STOP, '1')
        return self._level != _NO or store.check([_STOP])


class StopHook(Hook):
    """Leaves a validation when the run is told to stop.

    Args:
        stop (StopSignal): The run's.

    Raises:
        ValidationStopped: In all processes.
    """

    priority = 'VERY_HIGH'

    def __init__(self, stop: StopSignal):
        self.stop = stop

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        """Look whether to stop."""
        loader = runner.val_dataloader
        if len(loader.dataset) < get_world_size():
            return  # a process without a batch would not come to agree
        # Each process comes to agree once: after its last batch, or as soon as it hears of a stop.
        if (self.stop.is_known() or batch_idx + 1 == len(loader)) and self.stop.is_set_anywhere():
            raise ValidationStopped


@FUNCTIONS.register_module()
def outlive_signals(worker_id: int) -> None:
    """Let a loader's process go on after the signals that reach all processes of a job.

    Batch systems send SIGTERM to all of them, a terminal its Ctrl-C, and SIGHUP when it is closed. The process ends
    with its parent, or when that sends SIGTERM.

    Args:
        worker_id (int): The process's number; not looked at.
    """

    def wait():
        while signal.sigwaitinfo([signal.SIGTERM]).si_pid != os.getppid():
            pass
        os._exit(0)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, 'SIGHUP'):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if hasattr(signal, 'sigwaitinfo'):  # not on macOS and Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
        threading.Thread(target=wait, daemon=True).start()
