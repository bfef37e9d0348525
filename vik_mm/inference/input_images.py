"""The image files that a tool is given: which are read, which are left out, and the names that their outputs get."""

import hashlib
import os
import re
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from vik_mm.errors import BadInputError

ENDINGS = frozenset(
    {'.jpg', '.jpeg', '.jpe', '.png', '.bmp', '.tif', '.tiff', '.webp', '.jp2', '.ppm', '.pgm', '.pbm', '.pnm'}
)
# What the names of outputs end in.
OUTPUT_ENDINGS = {'picture': '.picture.png', 'label_map': '.labels.png'}
RESULT_LINES = 'results.jsonl'
# Every record of that file starts so; a folder that holds one has been written by a run.
FIRST_BYTES = b'{"image": '

# Names have 255 bytes on most file systems. This leaves room for a hash and for what outputs end in.
_MAX_BYTES = 200
_SHORT_BYTES = 180
_HASHED = re.compile(r'~[0-9a-f]{16}\Z')
_KINDS = (
    (stat.S_ISFIFO, 'a pipe'),
    (stat.S_ISSOCK, 'a socket'),
    (stat.S_ISCHR, 'a device'),
    (stat.S_ISBLK, 'a device'),
)


@dataclass(frozen=True)
class InputImage:
    """An image to predict on.

    Args:
        path (str): The file, as the user or the folder names it.
        output (str): What its outputs' names start with, below the output folder; '/' between folders.
    """

    path: str
    output: str


@dataclass
class InputImages:
    """What a search has found.

    Args:
        images (list[InputImage]): Regular files, in the order of the arguments and of their names.
        notes (list[str]): What was left out on purpose, a sentence each.
        errors (list[str]): What could not be searched, a sentence each.
    """

    images: list[InputImage] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def find_images(paths: Iterable[str | os.PathLike], out: str | os.PathLike | None = None) -> InputImages:
    """Find the images of files and folders, and give each a name for its outputs.

    Folders are searched with all that is below them. Only regular files and links to them are taken, and in folders
    only those with an image's ending. The output folder and folders that an earlier run has written are left out.

    The name of an output keeps the image's whole name, ending included, below the deepest folder that all arguments
    share: it does not depend on which other files there are. Names that are too long, or no UTF-8, end in a hash; so do
    names that differ from each other in case only, since some file systems take them for one.

    Args:
        paths (Iterable[str | PathLike]): Files and folders.
        out (str | PathLike, optional): Where outputs will go; need not be there yet. None where nothing is written.
            Defaults to None.

    Returns:
        InputImages: The images, each once, and what was left out.

    Raises:
        FileNotFoundError: If a path does not exist, or no image is found.
        BadInputError: If a path is neither a regular file nor a folder, a folder that was named cannot be read, an
            image lies in or below the output folder, or an output would have the name of an input.
    """
    arguments = [(os.fspath(path), _kind_of(path)) for path in paths]
    found = InputImages()
    search = _Search(None if out is None else _identity(out), found)
    files = []
    for path, kind in arguments:
        if kind == 'file':
            files.append((path, _absolute(path)))
            continue
        below = search.run(path)
        if not below:
            endings = ', '.join(sorted(ENDINGS))
            left_out = ''.join(f'; {note}' for note in [*search.summary(), *found.errors])
            raise FileNotFoundError(f'folder {readable(path)} holds no image ({endings}){left_out}')
        base = _absolute(path)
        files += [(os.path.join(path, name), os.path.join(base, name)) for name in below]
    found.notes += search.summary()
    folders = [_absolute(path) if kind == 'folder' else os.path.dirname(_absolute(path)) for path, kind in arguments]
    unique = {absolute: path for path, absolute in reversed(files)}
    files = [(unique.pop(absolute), absolute) for _, absolute in files if absolute in unique]
    outputs = _output_names([absolute for _, absolute in files], _common_folder(folders))
    found.images = [InputImage(path, output) for (path, _), output in zip(files, outputs)]
    if out is not None:
        _check_originals_are_safe(found.images, out)
    return found


def readable(path: str | os.PathLike) -> str:
    """Write a file's name so that it can be printed: what is no UTF-8, and what steers terminals, is escaped."""
    return ''.join(c if c.isprintable() else _escape(c) for c in os.fspath(path))


def name_for_json(path: str | os.PathLike) -> dict[str, str]:
    r"""Write a file's name into a record.

    Args:
        path (str | PathLike): The file.

    Returns:
        dict[str, str]: ``image``, the name. Of a name that is no UTF-8, the bytes at fault are written as ``\xe9``, and
        ``image_percent_encoded`` has all bytes, which :func:`urllib.parse.unquote_to_bytes` gives back.
    """
    name = os.fspath(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(name)
        return dict(image=raw.decode('utf-8', 'backslashreplace'), image_percent_encoded=quote(raw))
    return dict(image=name)


def is_regular_file(path: str | os.PathLike) -> bool:
    """Tell whether a path is a regular file, or a link to one; opening anything else may wait forever."""
    return stat.S_ISREG(os.stat(path).st_mode)


class _Search:
    """Searches folders, and counts what it leaves out."""

    def __init__(self, out: tuple[int, int] | None, found: InputImages):
        self.out, self.found = out, found
        self.endings: Counter[str] = Counter()
        self.others: list[str] = []
        self.links: list[str] = []

    def run(self, top: str) -> list[str]:
        """List the images below a folder by their names from there, in order."""
        names, waiting = [], ['']
        while waiting:
            folder = waiting.pop()
            path = os.path.join(top, folder) if folder else top
            try:
                with os.scandir(path) as listing:
                    entries = list(listing)
            except OSError as error:
                message = f'folder {readable(path)} cannot be read ({error.strerror})'
                if not folder:
                    raise BadInputError(message) from error
                self.found.errors.append(message)
                continue
            if folder and self._is_output(path, entries):
                continue
            for entry in entries:
                name = os.path.join(folder, entry.name)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(name)
                elif self._takes(entry):
                    names.append(name)
        return sorted(names, key=lambda name: name.split(os.sep))

    def summary(self) -> list[str]:
        """Say what was left out, a sentence each."""
        notes = []
        if self.endings:
            kinds = ', '.join(f'{count} {ending or "without one"}' for ending, count in self.endings.most_common())
            notes.append(f'files of other endings, left out: {sum(self.endings.values())} ({kinds})')
        for paths, kind in ((self.links, 'links to folders'), (self.others, 'not regular files')):
            if paths:
                notes.append(f'{kind}, left out: {len(paths)} ({_some(paths)})')
        return notes

    def _is_output(self, path: str, entries: list[os.DirEntry]) -> bool:
        if self.out and self.out == _identity(path):
            self.found.notes.append(f'folder {readable(path)} was left out: it is --out')
            return True
        lines = next((e.path for e in entries if e.name == RESULT_LINES and e.is_file()), None)
        if lines is None:
            return False
        try:
            with open(lines, 'rb') as file:
                is_ours = file.read(len(FIRST_BYTES)) == FIRST_BYTES
        except OSError as error:
            self.found.errors.append(f'{readable(lines)} cannot be read ({error.strerror})')
            return False
        if is_ours:
            self.found.notes.append(f'folder {readable(path)} was left out: it holds predictions ({RESULT_LINES})')
        return is_ours

    def _takes(self, entry: os.DirEntry) -> bool:
        ending = os.path.splitext(entry.name)[1].lower()
        try:
            is_folder, is_file = entry.is_dir(), entry.is_file()
        except OSError:  # a link in a circle, or to where this user may not look
            is_folder = is_file = False
        if is_folder:
            self.links.append(entry.path)
        elif ending not in ENDINGS:
            self.endings[readable(ending)] += 1
        elif not is_file:
            self.others.append(entry.path)
        else:
            return True
        return False


def _escape(character: str) -> str:
    if '\udc80' <= character <= '\udcff':  # how Python holds a byte that is no UTF-8
        return f'\\x{ord(character) - 0xDC00:02x}'
    return character.encode('unicode_escape').decode()


def _kind_of(path: str | os.PathLike) -> str:
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError as error:
        broken = ': it is a link to a file that does not exist' if os.path.islink(path) else ''
        raise FileNotFoundError(f'image {readable(path)} does not exist{broken}') from error
    except (OSError, ValueError) as error:
        reason = getattr(error, 'strerror', None) or error
        raise BadInputError(f'image {readable(path)} cannot be read ({reason})') from error
    if stat.S_ISDIR(mode):
        return 'folder'
    if stat.S_ISREG(mode):
        return 'file'
    kind = next((name for test, name in _KINDS if test(mode)), 'something else')
    raise BadInputError(f'{readable(path)} is {kind}; name regular files or folders')


def _absolute(path: str) -> str:
    folder, name = os.path.split(path)
    if name in ('', os.curdir, os.pardir):
        folder, name = path, ''
    # Where '..' follows a link, only the system knows what is meant.
    folder = os.path.realpath(folder) if os.pardir in folder.split(os.sep) else os.path.abspath(folder)
    return os.path.join(folder, name) if name else folder


def _identity(path: str | os.PathLike) -> tuple[int, int] | None:
    """Device and number of a file, which are the same by whatever path it is reached; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _common_folder(folders: list[str]) -> str:
    try:
        return os.path.commonpath(folders)
    except ValueError:  # on several drives
        return ''


def _output_names(paths: list[str], base: str) -> list[str]:
    names = []
    parts_of: dict[str, str] = {}  # of folders, which many files share
    for path in paths:
        below = path[len(base) :].lstrip(os.sep) if base else path.replace(':', '')
        folder, name = os.path.split(below)
        if folder not in parts_of:
            parts_of[folder] = ''.join(f'{_safe_name(part)}/' for part in folder.split(os.sep) if part)
        names.append(parts_of[folder] + _safe_name(name))
    keys = [_folded(name) for name in names]
    counts = Counter(keys)
    return [f'{name}~{_hash(name)}' if counts[key] > 1 else name for name, key in zip(names, keys)]


def _safe_name(name: str) -> str:
    """A name that every file system can write, and that no other name gets."""
    text = ''.join(f'%{ord(c) & 0xFF:02X}' if '\ud800' <= c <= '\udfff' else c for c in name)
    # A name that looks hashed could be the hashed name of another file.
    if text == name and len(text.encode()) <= _MAX_BYTES and not _HASHED.search(text):
        return name
    return text.encode()[:_SHORT_BYTES].decode(errors='ignore') + f'~{_hash(name)}'


def _hash(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:16]


def _folded(name: str) -> str:
    """Equal for names that a file system may take for one."""
    return unicodedata.normalize('NFC', unicodedata.normalize('NFC', name).casefold())


def _check_originals_are_safe(images: list[InputImage], out: str | os.PathLike) -> None:
    """Raise BadInputError where the output folder holds an image, or an output would take an image's name."""
    out_identity = _identity(out)
    if out_identity is None:
        return  # there is nothing in it
    real_folders: dict[str, str] = {}
    originals = set()
    for image in images:
        folder, name = os.path.split(image.path)
        if folder not in real_folders:
            real_folders[folder] = real = os.path.realpath(folder)
            if out_identity in map(_identity, (real, *map(str, Path(real).parents))):
                raise BadInputError(
                    f'image {readable(image.path)} lies in the output folder {readable(out)}; predictions need a '
                    f'folder without originals, such as {readable(os.path.join(out, "predictions"))}'
                )
        originals.add(_folded(os.path.join(real_folders[folder], name)))
    # A folder below the output folder may be a link to where the originals are.
    for image in images:
        folder, name = os.path.split(os.path.join(out, image.output))
        if folder not in real_folders:
            real_folders[folder] = os.path.realpath(folder)
        for ending in OUTPUT_ENDINGS.values():
            if _folded(os.path.join(real_folders[folder], name + ending)) in originals:
                raise BadInputError(
                    f'the output {readable(os.path.join(folder, name + ending))} would overwrite an image of this run; '
                    'choose another output folder'
                )


def _some(paths: list[str], count: int = 3) -> str:
    more = f' and {len(paths) - count} more' if len(paths) > count else ''
    return ', '.join(map(readable, paths[:count])) + more
