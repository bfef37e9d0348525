"""Files that are there whole or not at all, also for MMEngine, whose backend writes into the file itself."""

import logging
import os
from collections.abc import Iterable

from mmengine.fileio import LocalBackend
from mmengine.logging import print_log

from vik_mm.compat.replacing import write_local_files_with
from vik_mm_cli import files
from vik_mm_cli.files import UNFINISHED, remove_unfinished

from .digests import ARCHIVE, sign_archive

__all__ = ['UNFINISHED', 'AtomicLocalBackend', 'remove_unfinished', 'write_atomically', 'write_files_atomically']


def write_atomically(content: bytes | Iterable[bytes | memoryview], path: str | os.PathLike) -> None:
    """Write a file as :func:`vik_mm_cli.files.write_atomically` does; warnings go to the log of the run.

    Args:
        content (bytes | Iterable[bytes | memoryview]): What the file holds, whole or in pieces.
        path (str | PathLike): Its name; a file that has it stays whole until the new one is.

    Raises:
        OSError: If it cannot be written; nothing is left behind.
    """
    files.write_atomically(content, path, warn=_warn)


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
    write_local_files_with(AtomicLocalBackend)


def _warn(text: str) -> None:
    print_log(text, logger='current', level=logging.WARNING)
