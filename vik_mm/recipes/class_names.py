"""What the names of classes say about augmentation: a mirrored left door is no left door."""

import re
from collections.abc import Iterable

_SIDES = frozenset(
    (*('left', 'right'), *('links', 'rechts'), *('gauche', 'droite', 'droit'), *('izquierda', 'derecha'), 'lh', 'rh')
)
_COLOURS = frozenset(
    (
        *('red', 'green', 'blue', 'yellow', 'orange', 'purple', 'violet', 'pink', 'brown'),
        *('black', 'white', 'grey', 'gray', 'amber', 'ripe', 'unripe'),
    )
)


def words_of(name: str) -> list[str]:
    """Take a class name apart: at signs, and where a capital letter begins a word.

    Args:
        name (str): E.g. ``'front_leftDoor'``.

    Returns:
        list[str]: E.g. ``['front', 'left', 'door']``.
    """
    return [word.lower() for word in re.findall(r'[A-Z]?[^\W\d_A-Z]+|[A-Z]+(?![^\W\d_A-Z])|\d+', name)]


def why_no_flip(classes: Iterable[str]) -> str | None:
    """Say why images must not be mirrored.

    Args:
        classes (Iterable[str]): Names of the classes.

    Returns:
        str | None: The reason, or None where nothing speaks against it.
    """
    classes = list(classes)
    for name in classes:
        if _SIDES & set(words_of(name)):
            return f'the class {name!r} has a side'
    signs = [name for name in classes if re.fullmatch(r'\d|[A-Za-z]', name)]
    if len(signs) > 1:
        return f'the classes {signs[0]!r} and {signs[1]!r} may be signs, which a mirror changes'
    return None


def why_no_colour_change(classes: Iterable[str]) -> str | None:
    """Say why colours must stay as they are.

    Args:
        classes (Iterable[str]): Names of the classes.

    Returns:
        str | None: The reason, or None where nothing speaks against a change.
    """
    for name in classes:
        if _COLOURS & set(words_of(name)):
            return f'the class {name!r} has a colour'
    return None
