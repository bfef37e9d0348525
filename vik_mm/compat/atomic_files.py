"""Files that are there whole or not at all, also for MMEngine, whose backend writes into the file itself."""

import os
import tempfile
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

# Of files that a killed process was writing.
UNFINISHED = '.unfinished'


def write_atomically(content: bytes, path: str | os.PathLike) -> None:
    """Write a file under another name, bring it to the disk, and only then give it its name.

    Args:
        content (bytes): What the file holds.
        path (str | PathLike): Its name; a file that has it stays whole until the new one is.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(UNFINISHED, f'.{path.name}.', path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp's files are for their owner alone
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    # The name too must be on the disk; where folders cannot be opened, the system has to see to it.
    if hasattr(os, 'O_DIRECTORY'):
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes left half-written in a folder."""
    for path in Path(folder).glob(f'.*{UNFINISHED}'):
        path.unlink(missing_ok=True)


class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend for local files, whose files appear whole or not at all."""

    def put(self, obj: bytes, filepath) -> None:
        """Write bytes; see :func:`write_atomically`."""
        write_atomically(obj, filepath)

    def put_text(self, obj: str, filepath, encoding: str = 'utf-8') -> None:
        """Write text; see :func:`write_atomically`."""
        write_atomically(obj.encode(encoding), filepath)


def write_files_atomically() -> None:
    """Have MMEngine write its checkpoints, and all else that goes through its file backends, this way."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
