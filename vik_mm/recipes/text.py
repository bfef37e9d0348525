"""Writes configs as people write them: calls of dict, names in the place of what stands above, comments."""

from collections.abc import Iterable, Mapping
from typing import Any

_WIDTH = 120


class Named:
    """A value that is written as a name, or an expression of names, which the file sets further up.

    Args:
        text (str): What is written.
    """

    def __init__(self, text: str):
        self.text = text

    # Configs copy and compare what they hold.
    def __eq__(self, other):
        return isinstance(other, Named) and other.text == self.text

    def __hash__(self):
        return hash(self.text)

    def __repr__(self):
        return self.text


def write_value(value: Any, used: int = 0, depth: int = 0) -> str:
    """Write a value, over several lines where one is too short.

    Args:
        value (Any): Dicts, lists, tuples, numbers, text and :class:`Named`.
        used (int): Characters that stand before it in its line. Defaults to 0.
        depth (int): How deep its line is indented. Defaults to 0.

    Returns:
        str: Python.
    """
    line = _in_one_line(value)
    if used + len(line) + 1 <= _WIDTH or not isinstance(value, (Mapping, list, tuple)) or not value:
        return line
    inner, indent = '    ' * (depth + 1), '    ' * depth
    if isinstance(value, Mapping) and _are_names(value):
        parts = [
            f'{inner}{key}={write_value(each, len(inner) + len(key) + 1, depth + 1)},' for key, each in value.items()
        ]
        return '\n'.join(['dict(', *parts, f'{indent})'])
    if isinstance(value, Mapping):
        parts = [
            f'{inner}{key!r}: {write_value(each, len(inner) + len(repr(key)) + 2, depth + 1)},'
            for key, each in value.items()
        ]
        return '\n'.join(['{', *parts, f'{indent}}}'])
    opening, closing = '[]' if isinstance(value, list) else '()'
    texts = [_in_one_line(each) for each in value]
    if all(len(text) < 40 and not isinstance(each, Mapping) for text, each in zip(texts, value)):
        return '\n'.join([opening, *_filled(texts, inner), f'{indent}{closing}'])
    parts = [f'{inner}{write_value(each, len(inner), depth + 1)},' for each in value]
    return '\n'.join([opening, *parts, f'{indent}{closing}'])


def write_comment(text: str) -> str:
    """Write a comment, broken where the line ends.

    Args:
        text (str): The comment, without its sign.

    Returns:
        str: Lines that begin with the sign.
    """
    lines: list[str] = []
    line = '#'
    for word in text.split():
        if len(line) + 1 + len(word) > _WIDTH:
            lines, line = [*lines, line], '#'
        line += f' {word}'
    return '\n'.join([*lines, line])


def _in_one_line(value: Any) -> str:
    if isinstance(value, Mapping):
        if _are_names(value):
            return f'dict({", ".join(f"{key}={_in_one_line(each)}" for key, each in value.items())})'
        return '{' + ', '.join(f'{key!r}: {_in_one_line(each)}' for key, each in value.items()) + '}'
    if isinstance(value, list):
        return f'[{", ".join(map(_in_one_line, value))}]'
    if isinstance(value, tuple):
        inner = ', '.join(map(_in_one_line, value))
        return f'({inner},)' if len(value) == 1 else f'({inner})'
    if isinstance(value, type) or callable(value) and hasattr(value, '__qualname__'):
        return repr(f'{value.__module__}.{value.__qualname__}')
    return repr(value)


def _are_names(value: Mapping) -> bool:
    return all(isinstance(key, str) and key.isidentifier() for key in value)


def _filled(texts: Iterable[str], inner: str) -> list[str]:
    lines: list[str] = []
    line = inner
    for text in texts:
        piece = f'{text}, '
        if len(line) + len(piece) - 1 > _WIDTH and line.strip():
            lines, line = [*lines, line.rstrip()], inner
        line += piece
    return [*lines, line.rstrip()]
