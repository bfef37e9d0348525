"""What a prediction run leaves: a line of JSON for each image as it comes, and one JSON file of all at the end."""

import contextlib
import errno
import json
import os
import signal
import traceback
from pathlib import Path
from typing import Any

from vik_mm.errors import BadInputError
from vik_mm_cli.files import remove_unfinished, try_lock, write_atomically

from .input_images import FIRST_BYTES, RESULT_LINES, name_for_json, readable

RESULTS = 'results.json'
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class PredictionFiles:
    """The files ``results.jsonl`` and ``results.json`` of a run.

    Each record is a line of ``results.jsonl`` once :meth:`add` returns. Leaving the context, however it is left, writes
    ``results.json``, the list of the same records, whole or not at all.

    ``num_predicted`` counts the records of :meth:`add`, ``failures`` lists name and reason of :meth:`add_error`,
    ``first_bug`` is the traceback of the first failure whose error is not made for users.

    Args:
        out (str | PathLike): Their folder; made where there is none. What an earlier run wrote there is replaced.

    Raises:
        BadInputError: If the folder cannot be written to, or another run is writing there.
    """

    def __init__(self, out: str | os.PathLike):
        self.out = Path(out)
        self.num_predicted = 0
        self.failures: list[tuple[str, str]] = []
        self.first_bug: str | None = None
        self._is_complete = False
        self._end = 0
        path = self.out / RESULT_LINES
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            if os.path.lexists(path) and (path.is_symlink() or not path.is_file()):
                raise BadInputError(f'{readable(path)} is no regular file; take it away, or choose another folder')
            self._lines = open(path, 'ab+', buffering=0)  # noqa: SIM115  until the context is left
        except OSError as error:
            raise BadInputError(f'the output folder {readable(out)} cannot be written to ({error.strerror})') from error
        if try_lock(self._lines.fileno()) is False:
            self._lines.close()
            raise BadInputError(
                f'another run is writing to the output folder {readable(out)}; choose another folder, or wait'
            )
        self._lines.truncate(0)
        remove_unfinished(self.out)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        try:
            self._lines.seek(0)
            lines = self._lines.read().splitlines()
            write_atomically(b'[\n' + b',\n'.join(lines) + b'\n]\n', self.out / RESULTS)
            self._is_complete = True
        finally:
            self._lines.close()

    @property
    def path(self) -> Path:
        """The file that holds all records."""
        return self.out / (RESULTS if self._is_complete else RESULT_LINES)

    def add(self, image: str | os.PathLike, record: dict[str, Any]) -> None:
        """Write the record of an image.

        Args:
            image (str | PathLike): The file.
            record (dict): What is known about it; ``image`` is put in front, see
                :func:`vik_mm.inference.input_images.name_for_json`.

        Raises:
            BadInputError: If a number of it is NaN or infinite; nothing is written.
            OSError: If it cannot be written; the lines before it stay whole.
        """
        self._write(image, record)
        self.num_predicted += 1

    def add_error(self, image: str | os.PathLike, error: Exception) -> None:
        """Write that an image failed, under ``error``; raises OSError as :meth:`add` does."""
        reason = describe_error(error)
        self._write(image, dict(error=reason))
        self.failures.append((readable(image), reason))
        if self.first_bug is None and not isinstance(error, (BadInputError, OSError)):
            # As text: the error itself holds on to the memory of all that failed.
            self.first_bug = ''.join(traceback.format_exception(error))

    def _write(self, image, record) -> None:
        record = {**name_for_json(image), **{key: value for key, value in record.items() if key != 'image'}}
        try:
            line = json.dumps(record, allow_nan=False).encode() + b'\n'
        except ValueError as error:
            raise BadInputError(f'the prediction cannot be written as JSON, look at the weights ({error})') from error
        assert line.startswith(FIRST_BYTES)  # a later search knows the folder by them
        try:
            rest = line
            while rest:
                rest = rest[self._lines.write(rest) :]
        except BaseException:
            self._lines.truncate(self._end)
            raise
        self._end += len(line)


class StopSignals:
    """Notes that the run is to stop, so that it ends between two images: Ctrl-C, SIGTERM, a terminal that is closed.

    A second one raises KeyboardInterrupt at once. Signals that are ignored (``nohup``) stay ignored.
    """

    def __init__(self):
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self):
        for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def exit_code(self) -> int:
        """What shells expect of a program that a signal has ended: 130 for Ctrl-C, 143 for SIGTERM."""
        return 128 + self.received if self.received else 0

    def _receive(self, number, _):
        is_second = self.received is not None
        self.received = number
        if is_second:
            raise KeyboardInterrupt
        message = f'\n{signal.Signals(number).name}: stopping after this image; a second one stops at once\n'
        with contextlib.suppress(OSError):  # the terminal may be gone
            os.write(2, message.encode())  # print() must not be called while it runs


def check_writable(out: str | os.PathLike) -> None:
    """Raise BadInputError where an output folder cannot be written to or made; writes nothing."""
    path = Path(os.path.abspath(out))
    folder = next(p for p in (path, *path.parents) if os.path.lexists(p))
    if not os.path.isdir(folder) or not os.access(folder, os.W_OK | os.X_OK):
        kind = 'cannot be written to' if os.path.isdir(folder) else 'is no folder'
        raise BadInputError(f'{readable(folder)} {kind}; choose another output folder')


def is_disk_full(error: BaseException) -> bool:
    """Tell whether an error means that nothing more can be written, of this image or of the next."""
    return isinstance(error, OSError) and error.errno in _FULL


def describe_error(error: BaseException) -> str:
    """One line for an error of one image: its type, where the message is not made for users, and its message."""
    message = readable(' '.join(str(error).split()))
    is_ours = isinstance(error, FileNotFoundError) and error.errno is None  # the system's own has a number
    if is_ours or isinstance(error, BadInputError):
        return message
    hint = ''
    if isinstance(error, MemoryError) or 'out of memory' in message.lower():
        hint = '; the picture needs more memory than there is: make it smaller, or try --device cpu'
    return f'{type(error).__name__}: {message}{hint}' if message else type(error).__name__ + hint
