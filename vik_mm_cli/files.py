"""Files that are there whole or not at all, and locks, on whatever file system there is."""

import errno
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

# Of files that a killed process was writing.
UNFINISHED = '.unfinished'


def _numbers(*names: str) -> set[int]:
    return {getattr(errno, name) for name in names if hasattr(errno, name)}


# What file systems answer that know no such operation (SMB, FUSE, some network disks). All else is a failure: a disk
# that is full or broken says so here.
_UNKNOWN = _numbers('EINVAL', 'ENOTSUP', 'EOPNOTSUPP', 'ENOSYS', 'ENOTTY')
_REFUSALS = _UNKNOWN | _numbers('EPERM', 'EACCES')
_NO_LOCKS = _UNKNOWN | _numbers('ENOLCK', 'EPERM')
_NO_LINKS = _REFUSALS | _numbers('EMLINK', 'EXDEV')
_HELD = _numbers('EACCES', 'EAGAIN', 'EWOULDBLOCK')
_log = logging.getLogger(__name__)
_refused: set[str] = set()  # what has been warned of


def write_atomically(
    content: bytes | Iterable[bytes | memoryview], path: str | os.PathLike, warn: Callable[[str], None] = _log.warning
) -> None:
    """Write a file under another name, bring it to the disk, and only then give it its name.

    Where the file system refuses to bring files to the disk at once (fsync) or to set their mode (chmod), the file is
    written without, and the first refusal in this process is warned of.

    Args:
        content (bytes | Iterable[bytes]): What the file holds, whole or in pieces.
        path (str | PathLike): Its name; a file that has it stays whole until the new one is. Its folder is made.
        warn (Callable): Takes the warning. Defaults to the logger of this module.

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
            _unless_refused('fsync', path.parent, lambda: os.fsync(file.fileno()), warn)
        # mkstemp's files are for their owner only.
        _unless_refused('chmod', path.parent, lambda: os.chmod(name, 0o666 & ~_umask()), warn)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    # The name too must be on the disk; where folders cannot be opened, the system has to see to it.
    if hasattr(os, 'O_DIRECTORY'):
        _unless_refused('fsync of folders', path.parent, lambda: _sync_folder(path.parent), warn)


def link_atomically(source: str | os.PathLike, path: str | os.PathLike) -> None:
    """Give a file a second name, or make a copy where the file system knows no links.

    Args:
        source (str | PathLike): The file.
        path (str | PathLike): Its second name; a file that has it stays whole until the new one is.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    path = Path(path)
    folder = tempfile.mkdtemp(UNFINISHED, f'.{path.name}.', path.parent)
    name = os.path.join(folder, path.name)
    try:
        try:
            os.link(source, name)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            shutil.copyfile(source, name)
        os.replace(name, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_unfinished(folder: str | os.PathLike) -> None:
    """Remove what killed processes left half-written in a folder."""
    for path in Path(folder).glob(f'.*{UNFINISHED}'):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def try_lock(handle: int, is_own: bool = False, is_shared: bool = False) -> bool | None:
    """Lock an open file.

    Args:
        handle (int): The file's number; it is open for writing, or for a shared lock for reading.
        is_own (bool): Whether the lock is the process's own and ends with it. Otherwise it is also of the processes
            that get the open file, and ends with the last of them. A file takes only one of these kinds.
            Defaults to False.
        is_shared (bool): Whether others may have such a lock too. Defaults to False.

    Returns:
        bool | None: Whether it is locked; False if another has the lock, None where there are no locks: nobody is kept
        out.

    Raises:
        OSError: If locking fails in another way.
    """
    if fcntl is None:
        return None
    try:
        lock = fcntl.lockf if is_own else fcntl.flock
        lock(handle, (fcntl.LOCK_SH if is_shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def _unless_refused(what: str, folder: Path, do: Callable[[], None], warn: Callable[[str], None]) -> None:
    try:
        do()
    except OSError as error:
        if error.errno not in _REFUSALS:
            raise
        if what not in _refused:
            _refused.add(what)
            consequence = 'a power cut may lose the newest file' if 'fsync' in what else 'files keep the mode they got'
            warn(f'the file system of {folder} refuses {what} ({error.strerror}): going on without; {consequence}')


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
