"""Configs of strangers: read as data, and built from what the mm packages and vik_mm have registered.

A config in Python is a program. One in JSON or YAML is not, but MMEngine imports and calls what it names, and some
classes of the mm packages go further: they evaluate arguments, or unpickle files. Names are therefore looked up here
before anything is built, and :func:`~vik_mm.compat.registered_only.build_registered_only` takes away what MMEngine does
with other names while it builds.
"""

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from vik_mm.checkpoints.reading import load_checkpoints_as_data
from vik_mm.compat.registered_only import (
    build_anything_importable,
    build_registered_only,
    builds_registered_only,
    registered,
)
from vik_mm.compat.unsafe_classes import PACKAGES, why_unsafe
from vik_mm.errors import BadInputError

_ENDINGS = ('.json', '.yaml', '.yml')
_MOST_VALUES = 100_000
_SCOPES = ('_scope_', 'default_scope')
# What is looked up in a registry.
_NAMES = (
    'type',
    'auto_wrap_policy',
    'check_fn',
    'collate_fn',
    'constructor',
    'ema_type',
    'param_init_fn',
    'resize_type',
    'runner_type',
    'worker_init_fn',
)
# What stands under ``type`` and is no registered name: choices that a class of the mm packages or vik_mm compares with,
# and operators that it finds in ``mmcv.ops``.
_CHOICES = frozenset(
    (
        *('nms', 'soft_nms', 'nms_match', 'nms_rotated', 'nms_quadri'),
        *(
            'RoIAlign',
            'RoIAlignRotated',
            'RoIPool',
            'SimpleRoIAlign',
            'DeformRoIPoolPack',
            'ModulatedDeformRoIPoolPack',
        ),
        *('conv', 'interpolation_conv', 'last_conv', 'dilation', 'offset'),
        *('KArAt', 'Softmax'),
        *('log_trace', 'tb_trace'),
    )
)
_CODE = ('.py', '.pyc', '.pkl', '.pickle')
_ADDRESS = re.compile(r'(?:[\w.+-]+:)?([\w.+-]+)://')
_ADDRESSES = ('http', 'https', 'torchvision', 'modelzoo', 'open-mmlab', 'openmmlab', 'mmcls')
# Text for people, in which anything may stand.
_TEXT = ('metainfo', 'dataset_meta')


def read_safe_config(path: str | os.PathLike) -> Config:
    """Read a config in JSON or YAML that may come from anybody.

    From here on, this process reads checkpoints as data (:func:`load_checkpoints_as_data`), and builds registered
    classes only, until :func:`end_safe_config`.

    Args:
        path (str | PathLike): The file; its ``_base_`` are JSON or YAML too.

    Returns:
        Config: The config. It names registered classes of the mm packages and vik_mm only; these do what its arguments
        say, such as reading and writing files.

    Raises:
        FileNotFoundError: If a file does not exist.
        BadInputError: If a file is of another kind or cannot be read, or what it says could run code; the message
            names the place.
    """
    was_safe = builds_registered_only()
    load_checkpoints_as_data()
    build_registered_only()
    try:
        return _read(Path(path))
    except BaseException:
        if not was_safe:
            build_anything_importable()
        raise


@contextlib.contextmanager
def registered_classes_only(cfg: Config) -> Iterator[None]:
    """Build a config that was read as data from registered classes only, meanwhile and not afterwards.

    Args:
        cfg (Config): The config; it is checked as :func:`read_safe_config` checks one.

    Raises:
        BadInputError: If it names a class that is not registered by the mm packages or vik_mm, or could run code.
    """
    was_safe = builds_registered_only()
    build_registered_only()
    try:
        _check_values(cfg)
        yield
    finally:
        if not was_safe:
            build_anything_importable()


def end_safe_config() -> None:
    """Build what a config names again, whatever it is, in a program that goes on with a config that it trusts."""
    build_anything_importable()


def _read(path: Path) -> Config:
    _check_files(path, ())
    try:
        cfg = Config.fromfile(
            path, use_predefined_variables=False, use_environment_variables=False, import_custom_modules=False
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise BadInputError(f'{path} and its _base_ cannot be put together: {error}') from error
    _check_values(cfg)
    return cfg


def _check_values(cfg: Config) -> None:
    """Refuse a config that names anything but registered classes, or whose values could run code."""
    values = list(_walk(cfg.to_dict()))
    scopes = {'mmengine', 'vik_mm'}
    for place, key, value in values:
        if key in _SCOPES:
            if value not in (*PACKAGES, None):
                raise BadInputError(f'{place}={value!r} must be one of {", ".join(PACKAGES)}')
            scopes.add(value)
        if key in _NAMES and isinstance(value, str) and '.' in value:
            scopes.add(value.split('.')[0])
    _import(cfg.get('custom_imports'))
    names = registered(scopes & set(PACKAGES))
    for place, key, value in values:
        if key in _NAMES and isinstance(value, str):
            _check_name(place, value, names)
        elif check := _CHECKS.get(key):
            check(place, value)
        if isinstance(value, str):
            _check_text(place, value)


def _check_files(path: Path, above: tuple[Path, ...]) -> None:
    if path.suffix not in _ENDINGS:
        raise BadInputError(f'--safe-config reads only {", ".join(_ENDINGS)}, and {path} is another file')
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
    for base in bases if isinstance(bases, (list, tuple)) else [bases]:
        if not isinstance(base, str) or '::' in base:
            raise BadInputError(f'{path}: _base_ {base!r} is no file')
        _check_files(path.parent / base, (*above, path.resolve()))


def _walk(value: Any, place: str = '', key: str = '') -> Iterator[tuple[str, str, Any]]:
    """Go through (place, key, value) of all that is in a config, dicts before what they hold."""
    if isinstance(value, dict):
        yield place, key, value
        for name, below in value.items():
            yield from _walk(below, f'{place}.{name}' if place else str(name), str(name))
    elif isinstance(value, (list, tuple)):
        for number, below in enumerate(value):
            yield from _walk(below, f'{place}[{number}]', key)
    else:
        yield place, key, value


def _check_name(place: str, value: str, names: dict[str, dict[str, list[Any]]]) -> None:
    if value in _CHOICES:
        return
    scope, mark, name = value.partition('.')
    searched = [names.get(scope, {})] if mark else names.values()
    things = [thing for each in searched for thing in each.get(name if mark else value, [])]
    if not things:
        raise BadInputError(
            f'{place}={value!r} is not registered by {", ".join(PACKAGES)}; --safe-config builds '
            'only what is, under its registered name, such as ViK or mmpretrain.ViK'
        )
    reasons = [why_unsafe(thing) for thing in things]
    if all(reasons):
        raise BadInputError(f'{place}={value!r}, which {reasons[0]}, is refused by --safe-config')


def _check_text(place: str, value: str) -> None:
    if any(f'{name}.' in place for name in _TEXT):
        return
    if value.lower().endswith(_CODE):
        raise BadInputError(f'{place}={value!r} names a file that can run code when it is read')
    address = _ADDRESS.match(value)
    if address and address[1] not in _ADDRESSES:
        raise BadInputError(f'{place}={value!r} is an address of no kind that --safe-config reads from')


def _only(keys: dict[str, tuple[str, ...] | None], reason: str) -> Callable[[str, Any], None]:
    """Make a check of a dict: which keys it may have, and which values, where these are limited."""

    def check(place: str, value: Any) -> None:
        for key, below in value.items() if isinstance(value, dict) else ():
            allowed_values = keys.get(key)
            if key not in keys or not (allowed_values is None or below in allowed_values):
                allowed = ', '.join(k if v is None else f'{k}={"|".join(v)}' for k, v in keys.items())
                raise BadInputError(
                    f'{place}.{key}={below!r} is refused by --safe-config: {reason}; allowed: {allowed}'
                )

    return check


def _is_word(place: str, value: Any) -> None:
    if isinstance(value, str) and not re.fullmatch(r'\w*', value, re.ASCII):
        raise BadInputError(f'{place}={value!r} must be a word such as float32: some classes evaluate it')


def _never(reason: str, *allowed: Any) -> Callable[[str, Any], None]:
    def check(place: str, value: Any) -> None:
        if value and value not in allowed:
            raise BadInputError(f'{place}={value!r} is refused by --safe-config: {reason}')

    return check


_BACKENDS = _only(dict(backend=('local', 'disk')), 'clients of storage import code from where the config says')
_CHECKS = {
    'backend_args': _BACKENDS,
    'file_client_args': _BACKENDS,
    'collect_dir': _never('the folder is read as pickles, and removed'),
    'compile': _only(dict(backend=None, mode=None, dynamic=None, fullgraph=None), 'options name programs that are run'),
    'dist_cfg': _only(dict(backend=None, timeout=None), 'processes trust what they send each other'),
    'dtype': _is_word,
    'file_format': _never('pickle runs code when it is read', 'json', 'yaml', 'yml'),
    'mp_start_method': _never('processes that are not forked build whatever is named', 'fork'),
    'multiprocessing_context': _never('processes that are not forked build whatever is named', 'fork'),
    'trust_remote_code': _never('it runs code that is downloaded'),
}


def _import(custom: Any) -> None:
    names = (custom or {}).get('imports') or [] if isinstance(custom, (dict, type(None))) else [custom]
    for name in [names] if isinstance(names, str) else names:
        if not isinstance(name, str) or name.split('.')[0] not in PACKAGES:
            raise BadInputError(f'custom_imports names {name!r}; --safe-config imports only {", ".join(PACKAGES)}')
        try:
            import_modules_from_strings(name)
        except ImportError as error:
            raise BadInputError(f'custom_imports names {name!r}, which cannot be imported: {error}') from error
