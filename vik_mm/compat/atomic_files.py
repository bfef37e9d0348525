"""Files that are there whole or not at all, also for MMEngine, whose backend writes into the file itself."""

import errno
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.logging import print_log

from .digests import ARCHIVE, sign_archive

# Of files that a killed process was writing.
UNFINISHED = '.unfinished'
# What file systems answer that know no such operation (SMB, FUSE, some network disks). All else is a failure: a disk
# that is full or broken says so here.
_REFUSALS = {
    getattr(errno, name)
    for name in ('EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'EPERM', 'EACCES', 'ENOSYS', 'ENOTTY')
    if hasattr(errno, name)
}
_refused: set[str] = set()  # what has been warned of


def write_atomically(content: bytes | Iterable[bytes], path: str | os.PathLike) -> None:
    """Write a file under another name, bring it to the disk, and only then give it its name.

    Where the file system refuses to bring files to the disk at once (fsync) or to set their mode (chmod), the file is
    written without, and the first refusal is logged as a warning.

    Args:
        content (bytes | Iterable[bytes]): What the file holds, whole or in pieces.
        path (str | PathLike): Its name; a file that has it stays whole until the new one is.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(UNFINISHED, f'.{path.name}.', path.parent)
    try:
        with os.fdopen(handle, 'wb') as file:
            for piece in [content] if isinstance(content, bytes) else content:
                file.write(piece)
            file.flush()
            _unless_refused('fsync', path.parent, lambda: os.fsync(file.fileno()))
        # mkstemp's files are for their owner only.
        _unless_refused('chmod', path.parent, lambda: os.chmod(name, 0o666 & ~_umask()))
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    # The name too must be on the disk; where folders cannot be opened, the system has to see to it.
    if hasattr(os, 'O_DIRECTORY'):
        _unless_refused('fsync of folders', path.parent, lambda: _sync_folder(path.parent))


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes left half-written in a folder."""
    for path in Path(folder).glob(f'.*{UNFINISHED}'):
        path.unlink(missing_ok=True)


class AtomicLocalBackend(LocalBackend):
    """MMEngine's backend for local files, whose files appear whole or not at all, checkpoints with a digest inside."""

    def put(self, obj: bytes, filepath) -> None:
        """Write bytes; see :func:`write_atomically`. What ``torch.save`` made gets a digest; see ``digests``."""
        is_checkpoint = str(filepath).endswith('.pth') and obj.startswith(ARCHIVE)
        write_atomically(sign_archive(obj) if is_checkpoint else obj, filepath)

    def put_text(self, obj: str, filepath, encoding: str = 'utf-8') -> None:
        """Write text; see :func:`write_atomically`."""
        write_atomically(obj.encode(encoding), filepath)


def write_files_atomically() -> None:
    """Have MMEngine write its checkpoints, and all else that goes through its file backends, this way."""
    register_backend('local', AtomicLocalBackend, force=True, prefixes='')


def _unless_refused(what: str, folder: Path, do: Callable[[], None]) -> None:
    try:
        do()
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        if what not in _refused:
            _refused.add(what)
            consequence = 'a power cut may lose the newest file' if 'fsync' in what else 'files keep the mode they got'
            print_log(
                f'the file system of {folder} refuses {what} ({error.strerror}): going on without; {consequence}',
                logger='current',
                level=logging.WARNING,
            )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
