"""What a study puts into configs: variables of a grid, files of other runs, and how the command line takes values."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vik_mm_cli.option_values import parse_value

from .errors import StudyError

_WORD = re.compile(r'\{([^{}\s]+)\}')
_REFERENCE = re.compile(
    r'(?:(?P<study>[\w.+=-]+)/)?(?P<row>[\w.+=-]+?)(?:@(?P<seed>\d+))?\.(?P<kind>checkpoint|published)'
)
_NEED = re.compile(r'(?:(?P<study>[\w.+=-]+)/)?(?P<row>[\w.+=-]+?)(?:@(?P<seed>\d+))?')


@dataclass(frozen=True)
class Reference:
    """Another run that a run needs.

    Args:
        row (str): Its row.
        study (str, optional): Its study; None for the same.
        seed (int, optional): Its seed; None for the same.
        kind (str, optional): What of it goes into the overrides: 'checkpoint' or 'published'; None for nothing.
    """

    row: str
    study: str | None = None
    seed: int | None = None
    kind: str | None = None

    def __str__(self):
        study = f'{self.study}/' if self.study else ''
        seed = '' if self.seed is None else f'@{self.seed}'
        return f'{study}{self.row}{seed}' + (f'.{self.kind}' if self.kind else '')


def references(value: Any, place: str = '') -> list[Reference]:
    """Find the placeholders of an override.

    Args:
        value (Any): The override's value.
        place (str): What an error names. Defaults to ''.

    Returns:
        list[Reference]: What ``{ROW.published}`` and the like stand for.

    Raises:
        StudyError: If a placeholder stands for nothing.
    """
    if isinstance(value, (list, Mapping)):
        inside = value if isinstance(value, list) else value.values()
        return [reference for each in inside for reference in references(each, place)]
    found = []
    for word in _WORD.findall(value) if isinstance(value, str) else []:
        match = _REFERENCE.fullmatch(word)
        if not match:
            raise StudyError(
                f'{place}: {{{word}}} is neither a variable of the grid nor {{ROW.checkpoint}} or {{ROW.published}}'
            )
        found.append(_reference(match))
    return found


def fill_references(value: Any, paths: Mapping[str, str]) -> Any:
    """Replace placeholders by files.

    Args:
        value (Any): The override's value.
        paths (Mapping[str, str]): File of each placeholder, by its text without braces.

    Returns:
        Any: The value, for :func:`render`.
    """
    if isinstance(value, str):  # render leaves it as it is
        paths = {name: quote(path) for name, path in paths.items()}
    return _fill(value, paths)


def _fill(value: Any, paths: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return [_fill(each, paths) for each in value]
    if isinstance(value, Mapping):
        return {key: _fill(each, paths) for key, each in value.items()}
    if not isinstance(value, str):
        return value
    return _WORD.sub(lambda match: paths.get(match[1], match[0]), value)


def render(value: Any) -> str:
    """Write a value as ``--cfg-options`` reads it.

    Args:
        value (Any): None, a bool, a number, text, or lists and mappings of these. Text goes as it is; inside of lists
            and mappings it has quotes where it needs them.

    Returns:
        str: The value's text.
    """
    return value if isinstance(value, str) else _render(value)


def quote(text: str) -> str:
    """Write text so that ``--cfg-options`` reads just this text: in quotes, where it would be read as something else.

    Args:
        text (str): The text.

    Returns:
        str: What to write.
    """
    return text if _means(f'[{text}]', [text]) else _in_quotes(text)


def _in_quotes(text: str) -> str:
    return "'" + re.sub(r"([\\'])", r'\\\1', text) + "'"


def _means(written: str, value: Any) -> bool:
    try:
        return parse_value(written) == value
    except ValueError:  # a bracket or a quote without end
        return False


def _render_key(key: str | int) -> str:
    return str(key) if _means(f'{{{key}:0}}', {key: 0}) else _in_quotes(key)


def _render(value: Any) -> str:
    if isinstance(value, list):
        return f'[{",".join(map(_render, value))}]'
    if isinstance(value, Mapping):
        return f'{{{",".join(f"{_render_key(key)}:{_render(each)}" for key, each in value.items())}}}'
    return quote(value) if isinstance(value, str) else str(value)


def fill_variables(value: Any, variables: dict[str, Any], used: set[str]) -> Any:
    """Replace a grid's variables by values; a value that is one variable keeps its type.

    Args:
        value (Any): What may have variables in it, as ``{lr}``; keys of mappings have none.
        variables (dict[str, Any]): Their values.
        used (set[str]): Variables that were found are added here.

    Returns:
        Any: The value.
    """
    if isinstance(value, Mapping):
        return {key: fill_variables(each, variables, used) for key, each in value.items()}
    if isinstance(value, list):
        return [fill_variables(each, variables, used) for each in value]
    if not isinstance(value, str):
        return value
    words = [word for word in _WORD.findall(value) if word in variables]
    used.update(words)
    if words and value == f'{{{words[0]}}}':
        return variables[words[0]]
    return _WORD.sub(lambda match: str(variables.get(match[1], match[0])), value)


def flatten(options: Mapping, place: str, prefix: str = '') -> dict[str, Any]:
    """Write nested mappings as keys with dots.

    Args:
        options (Mapping): Overrides.
        place (str): What an error names.
        prefix (str): What the keys begin with. Defaults to ''.

    Returns:
        dict[str, Any]: Overrides.

    Raises:
        StudyError: If a value cannot be given on the command line.
    """
    flat = {}
    for key, value in options.items():
        name = f'{prefix}{key}'
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, place, f'{name}.'))
        else:
            _check_value(value, name, place)
            flat[name] = value
    return flat


def _check_value(value: Any, name: str, place: str) -> None:
    if isinstance(value, list):
        for each in value:
            _check_value(each, name, place)
    elif isinstance(value, Mapping):
        for key, each in value.items():
            if not isinstance(key, (str, int)) or isinstance(key, bool):
                raise StudyError(f'{place}: {name}: the key {key!r} must be text or an integer')
            _check_value(each, f'{name}.{key}', place)
    elif not isinstance(value, (str, int, float, bool, type(None))):
        raise StudyError(
            f'{place}: {name}: {value!r} cannot be given in --cfg-options, which take numbers, text, true, false, '
            'null, and lists and mappings of these; put it into a config file'
        )


def parse_need(text: Any, place: str) -> Reference:
    """Read an entry of ``needs``.

    Args:
        text (Any): The entry.
        place (str): What an error names.

    Returns:
        Reference: To a run, and to no file of it.

    Raises:
        StudyError: If it is no name of a run.
    """
    match = _NEED.fullmatch(str(text))
    if not match:
        raise StudyError(f'{place}: needs: {text!r} must be the name of a row, ROW@SEED or STUDY/ROW@SEED')
    return _reference(match)


def _reference(match: re.Match) -> Reference:
    parts = match.groupdict()
    seed = parts['seed']
    return Reference(parts['row'], parts['study'], None if seed is None else int(seed), parts.get('kind'))
