"""The files of a user's folder: found once, looked up in any spelling, and known again by a digest."""

import hashlib
import json
import os
import unicodedata
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from vik_mm.errors import BadInputError

from .notes import Notes

if TYPE_CHECKING:
    from .class_files import ClassFile

# Endings of pictures that people have. Whether one can be read is found out by reading it.
IMAGE_ENDINGS = {
    '.avif', '.bmp', '.dib', '.gif', '.heic', '.jfif', '.jp2', '.jpe', '.jpeg', '.jpg', '.pbm', '.pgm', '.png', '.ppm',
    '.tif', '.tiff', '.webp',
}  # fmt: skip
# What systems and editors leave in folders; names that begin with a dot are left out too.
_LITTER = {'__macosx', '__pycache__', 'thumbs.db', 'desktop.ini'}


def fold(text: str) -> str:
    """Bring a name into the form in which names are compared.

    Case and the two ways of writing an accent (macOS takes them apart) make no difference.
    """
    return unicodedata.normalize('NFC', text).casefold()


class Listing:
    """All files below a folder, by their paths relative to it, with ``/`` on every system.

    Args:
        root (Path): The folder.
        notes (Notes): Takes what is left out.

    Raises:
        FileNotFoundError: If it does not exist.
        BadInputError: If it is no folder, or empty.
    """

    def __init__(self, root: Path, notes: Notes):
        if not root.exists():
            raise FileNotFoundError(f'{root} does not exist; name the folder that holds your data')
        if not root.is_dir():
            raise BadInputError(f'{root} is a file; name the folder that holds your data (unpack archives first)')
        self.root = root
        self.given_classes: ClassFile | None = None  # by the user, in place of those in the folder
        self._stats: dict[str, tuple[int, int, int]] = {}
        self._walk(notes)
        if not self._stats:
            raise BadInputError(f'{root} holds no files; name the folder that holds your data')
        self.files = sorted(self._stats)
        self.images = [name for name in self.files if ending(name) in IMAGE_ENDINGS]
        self.image_set = set(self.images)
        self._folded = {fold(name): name for name in reversed(self.files)}
        self._by_base: dict[str, list[str]] = defaultdict(list)
        self._by_stem: dict[str, list[str]] = defaultdict(list)
        for name in self.images:
            self._by_base[fold(PurePosixPath(name).name)].append(name)
            self._by_stem[fold(PurePosixPath(name).stem)].append(name)

    def _walk(self, notes: Notes) -> None:
        visited = set()
        for folder, folders, names in os.walk(self.root, followlinks=True):
            real = os.path.realpath(folder)
            if real in visited:  # a link to a folder above
                folders.clear()
                continue
            visited.add(real)
            folders[:] = sorted(name for name in folders if not _is_litter(name))
            below = Path(folder).relative_to(self.root)
            for name in names:
                if _is_litter(name):
                    continue
                relative = (below / name).as_posix()
                try:
                    relative.encode()
                    status = os.stat(os.path.join(folder, name))
                except UnicodeEncodeError:
                    notes.add('files whose names are not text in UTF-8, left out', ascii(relative))
                    continue
                except FileNotFoundError:
                    notes.add('links to files that do not exist, left out', relative)
                    continue
                if '\n' in relative or '\r' in relative:
                    notes.add('files with a line break in their names, left out', ascii(relative))
                    continue
                self._stats[relative] = status.st_size, status.st_mtime_ns, status.st_ctime_ns

    def path(self, name: str) -> Path:
        """Give the full path of a file."""
        return self.root / name

    def with_ending(self, *endings: str) -> list[str]:
        """List files by their endings, in any case."""
        return [name for name in self.files if ending(name) in endings]

    def find(self, name: str) -> str | None:
        """Find a file by its path, however it is spelled."""
        name = os.path.normpath(name).replace(os.sep, '/')
        return name if name in self._stats else self._folded.get(fold(name))

    def images_named(self, path: str) -> list[str]:
        """Find images by the end of a path, ``a/b.jpg``; the longest end that any image has decides."""
        parts = [part for part in fold(path.replace('\\', '/')).split('/') if part not in ('', '.', '..')]
        if not parts:
            return []
        found = self._by_base.get(parts[-1], [])
        for k in range(len(parts) - 2, -1, -1):
            tail = '/'.join(parts[k:])
            closer = [name for name in found if f'/{fold(name)}'.endswith(f'/{tail}')]
            if not closer:
                break
            found = closer
        return found

    def images_with_stem(self, stem: str) -> list[str]:
        """Find images by their name without its ending."""
        return self._by_stem.get(fold(stem), [])

    def digest(self, settings: dict) -> str:
        """Compute what tells this state of the folder, read with these settings, from any other.

        A file counts as changed when its size or one of its times is another; its content is not read for that.

        Args:
            settings (dict): What else decides about the result; JSON.

        Returns:
            str: 16 hexadecimal digits.
        """
        state = json.dumps([os.fspath(self.root), settings, sorted(self._stats.items())], sort_keys=True)
        return hashlib.sha256(state.encode()).hexdigest()[:16]


def ending(name: str) -> str:
    """Give the ending of a name, ``.jpg``, in lower case."""
    return os.path.splitext(name)[1].lower()


def _is_litter(name: str) -> bool:
    return name.startswith('.') or name.lower() in _LITTER
