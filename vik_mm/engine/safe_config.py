"""Configs of strangers: read as data, and held to what the mm packages and vik_mm have registered.

A config in Python is a program. One in JSON or YAML is not, but MMEngine imports what it names: modules in
``custom_imports``, a dotted ``type``, the package of a scope. Classes of the mm packages go further: annotation files
in pickle run code when they are read, and a few arguments are passed to ``eval``.
"""

import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from vik_mm.errors import BadInputError

_ENDINGS = ('.json', '.yaml', '.yml')
_PACKAGES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'vik_mm')
# What is looked up in a registry, which imports what it does not know.
_NAMES = ('type', 'constructor', 'runner_type', '_scope_', 'default_scope')
_NAME = re.compile(rf'(?:(?:{"|".join(_PACKAGES)})\.)?[A-Za-z_]\w*')
_SCOPES = ('_scope_', 'default_scope')
_PROGRAMS = ('.py', '.pkl', '.pickle', *_ENDINGS[1:])  # MMEngine reads YAML with the loader that builds objects
_MOST_VALUES = 100_000
# Free text, which no class evaluates.
_TEXT = ('metainfo', 'dataset_meta')


def read_safe_config(path: str | os.PathLike) -> Config:
    """Read a config in JSON or YAML that may come from anybody.

    Args:
        path (str | PathLike): The file; its ``_base_`` are JSON or YAML too.

    Returns:
        Config: The config. It names registered classes of the mm packages and vik_mm alone; these do what its arguments
        say, such as reading and writing files.

    Raises:
        FileNotFoundError: If a file does not exist.
        BadInputError: If a file is of another kind or cannot be read, or what it says could run code; the message
            names the place.
    """
    _check_files(Path(path), ())
    cfg = Config.fromfile(
        path, use_predefined_variables=False, use_environment_variables=False, import_custom_modules=False
    )
    for place, key, value in _walk(cfg.to_dict()):
        _check_value(place, key, value)
    if custom := cfg.get('custom_imports'):
        _import(custom)
    return cfg


def _check_files(path: Path, above: tuple[Path, ...]) -> None:
    if path.suffix not in _ENDINGS:
        raise BadInputError(f'--safe-config reads {", ".join(_ENDINGS)} alone, and {path} is another file')
    if path.resolve() in above:
        raise BadInputError(f'{path} is its own _base_')
    if not path.is_file():
        raise FileNotFoundError(f'config {path} does not exist')
    try:
        text = path.read_text(encoding='utf-8')
        content = json.loads(text) if path.suffix == '.json' else yaml.safe_load(text)
        # References of YAML can make a short file endless.
        is_large = len(list(islice(_walk(content), _MOST_VALUES + 1))) > _MOST_VALUES
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise BadInputError(f'{path} cannot be read as data: {" ".join(str(error).split())[:300]}') from error
    if not isinstance(content, dict):
        raise BadInputError(f'{path} holds a {type(content).__name__}, not a dict of settings')
    if is_large:
        raise BadInputError(f'{path} holds more than {_MOST_VALUES} values')
    if '{{' in text:
        raise BadInputError(f'{path}: {{{{ ... }}}}, which is filled in before the file is read, is no data')
    bases = content.get('_base_', [])
    for base in [bases] if isinstance(bases, str) else bases:
        if not isinstance(base, str) or '::' in base:
            raise BadInputError(f'{path}: _base_ {base!r} is no file')
        _check_files(path.parent / base, (*above, path.resolve()))


def _walk(value: Any, place: str = '', key: str = '') -> Iterator[tuple[str, str, Any]]:
    """Go through (place, key, value) of all that is in a config."""
    if isinstance(value, dict):
        for name, below in value.items():
            yield from _walk(below, f'{place}.{name}' if place else str(name), str(name))
    elif isinstance(value, (list, tuple)):
        for number, below in enumerate(value):
            yield from _walk(below, f'{place}[{number}]', key)
    else:
        yield place, key, value


def _check_value(place: str, key: str, value: Any) -> None:
    if key in _SCOPES and value not in (*_PACKAGES, None):
        raise BadInputError(f'{place}={value!r} must be one of {", ".join(_PACKAGES)}')
    if key == 'trust_remote_code' and value:
        raise BadInputError(f'{place}={value!r} runs code that is downloaded')
    if not isinstance(value, str):
        return
    if key in _NAMES and not _NAME.fullmatch(value):
        raise BadInputError(f'{place}={value!r} must be the name of a registered class, e.g. ViK or mmpretrain.ViK')
    if value.lower().endswith(_PROGRAMS):
        raise BadInputError(f'{place}={value!r} names a file that can run code when it is read')
    if '(' in value and not any(f'{name}.' in place for name in _TEXT):
        raise BadInputError(f'{place}={value!r}: some classes evaluate text, so it must hold no "("')


def _import(custom: Any) -> None:
    names = custom.get('imports', []) if isinstance(custom, dict) else [custom]
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(name, str) or name.split('.')[0] not in _PACKAGES:
            raise BadInputError(f'custom_imports names {name!r}; --safe-config imports {", ".join(_PACKAGES)} alone')
        import_modules_from_strings(name)
