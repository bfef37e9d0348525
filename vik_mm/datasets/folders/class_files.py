"""Files of class names, with or without a colour for each class."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from vik_mm.errors import BadInputError

from .listing import Listing, ending, fold

_NAME_FILE = re.compile(r'(.*[_\-. ])?(classes|class|class_names|classnames|labels|names|categories|obj|synsets)')
# Three numbers of a colour, with the name of the class before or behind them.
_COLOUR = re.compile(r'(?<![\d.])(\d{1,3})\s*[,;\s]\s*(\d{1,3})\s*[,;\s]\s*(\d{1,3})(?![\d.])')
_MAX_BYTES = 1 << 20
# Classes that stand for 'no class' in tables of colours.
_VOID = {'void', 'ignore', 'ignored', 'unlabeled', 'unlabelled', 'out of roi'}


@dataclass(frozen=True)
class ClassFile:
    """Names of classes.

    Args:
        path (str): Where they stand, relative to the folder, or as given.
        names (tuple[str, ...]): In the order of the file.
        colours (tuple[tuple[int, int, int], ...]): Red, green, blue of each; () in a file of names only.
    """

    path: str
    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...] = ()

    @property
    def void(self) -> set[int]:
        """Positions of those that stand for 'no class'."""
        return {k for k, name in enumerate(self.names) if fold(name) in _VOID}


def read_text(path: Path) -> str:
    """Read a text file that any program may have written."""
    content = path.read_bytes()
    for encoding in ('utf-8-sig', 'cp1252'):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    return content.decode('latin-1')


def read_class_file(path: Path, name: str | None = None) -> ClassFile:
    """Read the file that a user has given.

    Args:
        path (Path): Its lines are ``name``, ``name,r,g,b`` or ``r g b name``.
        name (str, optional): What to call it; None for its path. Defaults to None.

    Returns:
        ClassFile: What it holds.

    Raises:
        FileNotFoundError: If it does not exist.
        BadInputError: If it holds something else.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path} does not exist; it must be a text file with a class in each line')
    text = read_text(path)
    if file := _as_table(text, name or str(path)) or _as_names(text, name or str(path)):
        return file
    raise BadInputError(
        f'{path} is no list of classes: each line must be a name, or a name and its colour: car,64,0,128'
    )


def find_class_files(listing: Listing) -> list[ClassFile]:
    """Find the files of class names in a folder, the ones that lie highest first; only the user's, if one was given."""
    if listing.given_classes:
        return [listing.given_classes]
    found = []
    names = [name for name in listing.with_ending('.txt', '.csv', '.names') if name.count('/') <= 2]
    for name in sorted(names, key=lambda name: (name.count('/'), name)):
        path = listing.path(name)
        if path.stat().st_size > _MAX_BYTES:
            continue
        is_named = _NAME_FILE.fullmatch(fold(PurePosixPath(name).stem)) or ending(name) == '.names'
        if not is_named and name.count('/') > 1:
            continue
        text = read_text(path)
        file = _as_table(text, name) or (_as_names(text, name) if is_named else None)
        if file:
            found.append(file)
    return found


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith('#')]


def _as_table(text: str, path: str) -> ClassFile | None:
    names, colours = [], []
    for k, line in enumerate(_lines(text)):
        match = _COLOUR.search(line)
        name = _plain(line[: match.start()] + ' ' + line[match.end() :]) if match else ''
        if not match or not re.search(r'[^\W\d]', name):
            if k == 0 and not re.search(r'\d', line):  # name,r,g,b
                continue
            return None
        colour = tuple(map(int, match.groups()))
        if max(colour) > 255:
            return None
        names.append(name)
        colours.append((colour[0], colour[1], colour[2]))
    is_table = len(names) >= 2 and len(set(colours)) == len(colours)
    return ClassFile(path, tuple(names), tuple(colours)) if is_table else None


def _plain(text: str) -> str:
    """Take separators and a number in front away from a name."""
    text = ' '.join(text.strip(' ,;:\t"\'').split())
    return re.sub(r'^\d+\s*[,;:]\s*', '', text).strip(' ,;:\t"\'')


def _as_names(text: str, path: str) -> ClassFile | None:
    names = [line.strip('"\' ,') for line in _lines(text)]
    if not names or len(set(names)) < len(names) or max(map(len, names)) > 100:
        return None
    # Lines of a label file of YOLO and lists of images are no names.
    if any(re.fullmatch(r'[\d\s.eE+-]+', name) and ' ' in name or re.search(r'\.(jpe?g|png)$', name) for name in names):
        return None
    return ClassFile(path, tuple(names))
