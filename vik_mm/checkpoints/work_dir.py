"""The folder of a training: one training at a time writes into it, and the newest of its checkpoints is found."""

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from vik_mm.checkpoints.reading import check_digest, read_meta
from vik_mm.errors import BadInputError
from vik_mm_cli.files import try_lock

LOCK = 'training.lock'
RECORD = 'last_checkpoint'
_SECONDS_TO_PASS = 2  # in which another may look whether the folder is locked
_held: dict[str, int] = {}  # locks of this process: the system counts them by process


def make_writable(work_dir: str | os.PathLike) -> None:
    """Make a folder.

    Args:
        work_dir (str | PathLike): The folder.

    Raises:
        BadInputError: If it cannot be made, or not be written to.
    """
    try:
        os.makedirs(work_dir, exist_ok=True)
        tempfile.TemporaryFile(dir=os.fspath(work_dir)).close()
    except OSError as error:
        raise BadInputError(
            f'the work dir {work_dir} cannot be written to ({error.strerror}); choose another --work-dir'
        ) from error


def refuse_if_locked(work_dir: str | os.PathLike) -> None:
    """Make sure that no other training is writing into a folder.

    Args:
        work_dir (str | PathLike): The folder.

    Raises:
        BadInputError: If one is, with its machine and number.
    """
    path = Path(work_dir, LOCK).resolve()
    if str(path) in _held:
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        holder = _try_lock(handle, path, is_shared=True)
    finally:
        os.close(handle)
    if holder:
        raise _refusal(path, holder)


@contextlib.contextmanager
def lock_work_dir(work_dir: str | os.PathLike) -> Iterator[None]:
    """Let no other training write into a folder meanwhile.

    The system takes the lock back when the process ends, however it does. Where the file system knows no locks, the
    lock file says which process has it, and that of a process that is gone counts for nothing. All processes of a
    training call this; the first one locks.

    Args:
        work_dir (str | PathLike): The folder.

    Raises:
        BadInputError: If another training is writing into it, in all processes.
    """
    path, refusal = Path(work_dir, LOCK).resolve(), ['']
    is_mine = is_main_process() and str(path) not in _held
    if is_mine:
        try:
            _held[str(path)] = _acquire(path)
        except BadInputError as error:
            refusal = [str(error)]
        except OSError as error:  # the other processes wait for an answer
            refusal = [f'{path} cannot be written ({error.strerror}); delete it, or choose another --work-dir']
    broadcast_object_list(refusal)
    if refusal[0]:
        raise BadInputError(refusal[0])
    try:
        yield
    finally:
        if is_mine:
            path.unlink(missing_ok=True)
            os.close(_held.pop(str(path)))


def _acquire(path: Path) -> int:
    until = time.monotonic() + _SECONDS_TO_PASS
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        holder = _try_lock(handle, path)
        # The file may have been removed, by the one that had the lock, between opening and locking it.
        is_current = path.exists() and os.path.samestat(os.fstat(handle), path.stat())
        if holder is None and is_current:
            break
        os.close(handle)
        if holder is not None and time.monotonic() > until:
            raise _refusal(path, holder)
        time.sleep(0.05)
    try:
        os.ftruncate(handle, 0)
        os.write(handle, json.dumps(_myself()).encode())
    except OSError:
        os.close(handle)
        raise
    return handle


def _try_lock(handle: int, path: Path, is_shared: bool = False) -> dict[str, Any] | None:
    """Lock an open file; returns who has it where that cannot be done."""
    content = _read_holder(handle)
    # The process's own: its children, who may live a little longer, do not have it.
    is_locked = try_lock(handle, is_own=True, is_shared=is_shared)
    if is_locked is not None:
        return None if is_locked else content
    print_log(f'the file system of {path.parent} has no locks', logger='current')
    return content if content and not _is_gone(content) else None


def _read_holder(handle: int) -> dict[str, Any]:
    os.lseek(handle, 0, os.SEEK_SET)
    try:
        content = json.loads(os.read(handle, 4096))
    except ValueError:
        content = {}
    os.lseek(handle, 0, os.SEEK_SET)
    return content if isinstance(content, dict) else {}


def _myself() -> dict[str, Any]:
    pid = os.getpid()
    return dict(host=socket.gethostname(), pid=pid, started=_started(pid), since=time.strftime('%Y-%m-%d %H:%M:%S'))


def _started(pid: int) -> str | None:
    """Say when a process began, to tell it from one that has its number later; None where that is not known."""
    try:
        boot = Path('/proc/sys/kernel/random/boot_id').read_text().strip()
        return f'{boot} {Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]}'
    except (OSError, IndexError):
        return None


def _is_gone(holder: dict[str, Any]) -> bool:
    pid = holder.get('pid')
    if holder.get('host') != socket.gethostname() or not isinstance(pid, int):
        return False
    if holder.get('started') and Path('/proc/self/stat').exists():
        return _started(pid) != holder['started']
    try:
        if os.name == 'posix':
            os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is there, and somebody else's
        return False
    return False


def _refusal(path: Path, holder: dict[str, Any]) -> BadInputError:
    who = f'process {holder.get("pid")} on {holder.get("host")}, since {holder.get("since")}' if holder else 'unknown'
    return BadInputError(
        f'another training writes into {path.parent} ({who}): wait for it, stop it, or choose another --work-dir; if '
        f'there is no such process any more, delete {path}'
    )


def list_checkpoints(folders: Iterable[Path]) -> list[Path]:
    """List what may be a checkpoint of a training.

    Args:
        folders (Iterable[Path]): Where to look; not in folders below.

    Returns:
        list[Path]: Files, and folders of sharded trainings, that end in ``.pth``.
    """
    return [path for folder in folders for path in sorted(Path(folder).glob('*.pth')) if not path.name.startswith('.')]


def newest_checkpoint(work_dir: str | os.PathLike, more: Iterable[Path] = ()) -> Path | None:
    """Find the newest sound checkpoint of the training that wrote last into a work dir.

    ``last_checkpoint`` is only a hint: it may be missing or damaged, or name a place that the work dir was moved from.

    Args:
        work_dir (str | PathLike): The work dir.
        more (Iterable[Path]): Other folders that checkpoints go to. Defaults to ().

    Returns:
        Path | None: The checkpoint; None where there is none at all.

    Raises:
        BadInputError: If there are checkpoints, and none can be resumed from.
        FileNotFoundError: If ``last_checkpoint`` names the only one, elsewhere.
    """
    work_dir, folders = Path(work_dir), [Path(work_dir), *more]
    files = list_checkpoints(folders)
    hint = _read_record(work_dir)
    if not files:
        if hint is None:
            return None
        raise FileNotFoundError(
            f'{work_dir / RECORD} names {hint} as the newest checkpoint, which is not in the work dir; name one with '
            f'--resume FILE, or delete {work_dir / RECORD} to start fresh'
        )
    resumable = {path: meta for path in files if path.is_file() and (meta := read_meta(path))}
    resumable = {path: meta for path, meta in resumable.items() if not path.name.startswith('best_')}
    # Another training may have written into the folder before: the record, or else the clock, says whose turn it is.
    by_time = sorted(resumable, key=lambda path: path.stat().st_mtime, reverse=True)
    first = [path for path in resumable if hint is not None and path.name == hint.name] or by_time
    runs = dict.fromkeys(_run(resumable[path]) for path in (*first[:1], *by_time))
    order = {run: -k for k, run in enumerate(runs)}
    newest_first = sorted(
        resumable, key=lambda path: (order[_run(resumable[path])], *_age(path, resumable[path])), reverse=True
    )
    for path in newest_first:
        try:
            check_digest(path)
        except BadInputError as error:
            print_log(str(error), logger='current')
            continue
        if hint is None or hint.name != path.name:
            reason = f'names {hint.name}' if hint is not None else 'is missing or damaged'
            print_log(f'{work_dir / RECORD} {reason}: {path} is the newest sound checkpoint', logger='current')
        return path
    names = ', '.join(path.name for path in files[:5]) + (', ...' if len(files) > 5 else '')
    divided = (
        '; folders of divided trainings need strategy.state_dict_cfg="full"' if any(map(Path.is_dir, files)) else ''
    )
    raise BadInputError(
        f'{work_dir} holds checkpoints ({names}), and none of them can be resumed from: they are damaged, or hold '
        f'weights only{divided}. Choose another --work-dir, move them away, or name one with --resume FILE'
    )


def _read_record(work_dir: Path) -> Path | None:
    try:
        text = (work_dir / RECORD).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(text) if text and text.isprintable() and len(text) < 4096 else None


def _run(meta: dict[str, Any]) -> str:
    data = meta.get('data')
    return str(data.get('run')) if isinstance(data, dict) else ''


def _age(path: Path, meta: dict[str, Any]) -> tuple:
    """Order checkpoints of one training; iterations may have been of another size between, what is seen was not."""
    data = meta.get('data') or {}
    place = data.get('seen', 0) * data.get('num_processes', 1), meta['iter']
    return max(meta['epoch'], data.get('passes', 0)), *place, path.stat().st_mtime
