"""Registries that build what is registered and nothing else, for configs of strangers.

MMEngine's registries import what they do not know: the package of a scope, and any name that is importable, which is
then called. Its readers unpickle files, build objects from YAML, and import clients of storage from folders that a
config names. All of that is off between :func:`build_registered_only` and :func:`build_anything_importable`.

Processes that are forked, such as a data loader's, inherit this; those that are spawned do not.
"""

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from typing import Any

import yaml
from mmengine.fileio import FileClient
from mmengine.fileio.backends.registry_utils import backends
from mmengine.fileio.handlers import YamlHandler
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.registry import DefaultScope, Registry
from mmengine.registry import registry as _module

from vik_mm.errors import BadInputError

from .unsafe_classes import PACKAGES, why_unsafe

# Backends by name; http reads, and what an address without a name reads with stays as it is.
_SAFE_BACKENDS = ('local', 'disk', 'http')
_SAFE_PREFIXES = ('', 'http', 'https')
# What was there before, as (object, name, value); empty where nothing has been replaced.
_replaced: list[tuple[Any, str, Any]] = []


def build_registered_only() -> None:
    """Have all of this process build registered classes only, and read files as data, until told otherwise.

    A class that :mod:`~vik_mm.compat.unsafe_classes` names is refused with BadInputError, and so is a scope of another
    package. A name that is not registered is unknown, as a typo is.
    """
    if _replaced:
        return
    yaml_handler = _SafeYamlHandler()
    handlers = {name: handler for name, handler in file_handlers.items() if name == 'json'}
    _replace_content(file_handlers, handlers | dict(yaml=yaml_handler, yml=yaml_handler))
    _replace_content(backends, {name: backends[name] for name in _SAFE_BACKENDS if name in backends})
    for name, kept in (('_backends', _SAFE_BACKENDS), ('_prefix_to_backends', _SAFE_PREFIXES)):
        content = getattr(FileClient, name)
        _replace_content(content, {key: content[key] for key in kept if key in content})
    _replace(Registry, 'get', _get)
    _replace(Registry, 'switch_scope_and_registry', _switch_scope_and_registry)
    _replace(_module, 'get_object_from_string', lambda name: None)


def build_anything_importable() -> None:
    """Undo :func:`build_registered_only`, for configs that are trusted."""
    while _replaced:
        owner, name, value = _replaced.pop()
        if name:
            setattr(owner, name, value)
        else:
            owner.clear()
            owner.update(value)


def builds_registered_only() -> bool:
    """Tell whether :func:`build_registered_only` is in force."""
    return bool(_replaced)


def registered(scopes: Iterable[str]) -> dict[str, dict[str, list[Any]]]:
    """List all that is registered, after importing the modules of packages.

    Args:
        scopes (Iterable[str]): Packages to import, of :data:`~vik_mm.compat.unsafe_classes.PACKAGES`.

    Returns:
        dict[str, dict[str, list[Any]]]: For each scope, what is registered under each name.

    Raises:
        BadInputError: If a package is not installed.
    """
    for scope in sorted(scopes):
        if importlib.util.find_spec(scope) is None:
            raise BadInputError(f'the config needs {scope}, which is not installed')
        if importlib.util.find_spec(f'{scope}.registry') is not None:
            for value in vars(importlib.import_module(f'{scope}.registry')).values():
                if isinstance(value, Registry) and value.scope == scope:
                    value.import_from_location()
    found: dict[str, dict[str, list[Any]]] = {}
    # Some registries stand in a module of their own, without a parent.
    modules = [module for name, module in list(sys.modules.items()) if name.split('.')[0] in PACKAGES]
    registries = {id(value): value for module in modules for value in list(vars(module).values()) if _is_one(value)}
    for registry in registries.values():
        names = found.setdefault(registry.scope, {})
        for name, thing in registry.module_dict.items():
            names.setdefault(name, []).append(thing)
    return found


def _is_one(value: Any) -> bool:
    # isinstance would ask modules that are imported when they are used.
    return issubclass(type(value), Registry)


class _SafeYamlHandler(YamlHandler):
    def load_from_fileobj(self, file, **kwargs):
        return yaml.safe_load(file)


def _replace(owner: Any, name: str, value: Any) -> None:
    _replaced.append((owner, name, getattr(owner, name)))
    setattr(owner, name, value)


def _replace_content(content: dict, value: dict) -> None:
    _replaced.append((content, '', dict(content)))
    content.clear()
    content.update(value)


_original_get = Registry.get
_original_switch = Registry.switch_scope_and_registry


def _get(self: Registry, key: str) -> Any:
    if isinstance(key, str):
        _check_scope(self.split_scope_key(key)[0], key)
    thing = _original_get(self, key)
    reason = None if thing is None else why_unsafe(thing)
    if reason:
        raise BadInputError(f'{key} {reason}; a safe config cannot have it')
    return thing


def _switch_scope_and_registry(self: Registry, scope: str | None):
    current = DefaultScope.get_current_instance()
    for name in (scope, current and current.scope_name):
        _check_scope(name, name)
    return _original_switch(self, scope)


def _check_scope(scope: str | None, name: str | None) -> None:
    if scope is not None and scope not in PACKAGES:
        raise BadInputError(f'{name} is not of {", ".join(PACKAGES)}; a safe config cannot have it')
