"""Settings of the command line: whether a run reads them, and putting them into the config."""

import difflib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log

from vik_mm.errors import BadInputError

from .known_keys import READ_AT_TOP, Keys, Path, known_keys, value_at

_FAMILIES = ('vik_mm', 'mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg')
_ELSEWHERE = {
    'launcher': 'it is set by --launcher',
    'custom_imports': 'it is read with the config file, before --cfg-options; write it there',
}
_PREPROCESSOR = ('model', 'data_preprocessor')
_MOST = 8  # keys that a message lists


def merge_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Put the settings of ``--cfg-options`` into a config.

    Args:
        cfg (Config): Changed in place.
        options (Mapping): Values by dotted keys, as ``model.backbone.arch``; elements of lists by their numbers, as
            ``train_dataloader.dataset.pipeline.0.scale``.

    Raises:
        BadInputError: If a key leads nowhere, or nothing would read it; the message names keys that are near, or the
            places that hold copies of the value.
    """
    before = dict(cfg.items())
    errors = [*_conflicts(options), *(error for key in options if (error := _dead_end(before, key)))]
    if errors:
        raise BadInputError('--cfg-options ' + '; '.join(errors))
    after = {**before, **_merged(before, _nested(options))}
    check = _Check(before, after)
    for key, value in options.items():
        check.option(_split(key), value)
    if check.errors:
        raise BadInputError('--cfg-options ' + '; '.join(check.errors))
    for warning in check.warnings:
        print_log(f'--cfg-options {warning}', logger='current', level=logging.WARNING)
    for name in {_split(key)[0] for key in options}:
        cfg[name] = after[name]


def _split(key: str) -> Path:
    return tuple(key.split('.'))


def _nested(options: Mapping[str, Any]) -> dict:
    nested: dict = {}
    for key, value in options.items():
        *parents, last = _split(key)
        node = nested
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    return nested


def _merged(old: Any, new: Any) -> Any:
    """Merge as MMEngine does, where it does; elements of lists may be values too, and dicts replace what is none."""
    if isinstance(new, (list, tuple)):
        return type(new)(_merged(None, each) for each in new)
    if not isinstance(new, Mapping):
        return new
    if isinstance(old, list) and new and all(str(key).isdigit() and int(key) < len(old) for key in new):
        by_number = {int(key): value for key, value in new.items()}
        return [_merged(each, by_number[k]) if k in by_number else each for k, each in enumerate(old)]
    is_kept = isinstance(old, Mapping) and not new.get('_delete_', False)
    merged = ConfigDict(old if is_kept else {})
    for key, value in new.items():
        if key != '_delete_':
            merged[key] = _merged(merged.get(key), value)
    return merged


def _conflicts(options: Mapping[str, Any]) -> Iterator[str]:
    for key in options:
        for other in options:
            if other.startswith(f'{key}.'):
                yield f'{key} and {other} set the same; give one of them'


def _dead_end(cfg: Mapping, key: str) -> str | None:
    """Say why a key cannot be set at all, whatever reads it."""
    node, path = cfg, _split(key)
    for end, part in enumerate(path):
        here = _join(path[:end])
        if isinstance(node, list):
            if not str(part).isdigit() or int(part) >= len(node):
                numbers = f'numbers 0 to {len(node) - 1}' if node else 'nothing'
                return f'{key}: {here} is a list that holds {numbers}, and no {part}'
            node = node[int(part)]
        elif isinstance(node, Mapping):
            if part not in node:
                return None
            node = node[part]
        else:
            return f'{key}: {here} is {_short(node)}, and has no keys; set it whole, as in {here}=...'
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f'{text[:60]}...'


class _Check:
    """Goes through settings, and collects what is wrong with them.

    Args:
        before (Mapping): The config without the settings.
        after (Mapping): The config with them.
    """

    def __init__(self, before: Mapping, after: Mapping):
        self.before, self.after = before, after
        self.errors: list[str] = []
        self.warnings: list[str] = []

    def option(self, path: Path, value: Any) -> None:
        """Check a setting, and what stands inside of it."""
        at_top, of_model = self.before.get('data_preprocessor'), value_at(self.before, _PREPROCESSOR)
        if path[:2] == _PREPROCESSOR and at_top and not of_model:
            # The Runner takes the one at the top only where the model has none.
            self.errors.append(f'{_join(path)} would replace all of data_preprocessor; set {_join(path[1:])}')
            return
        for end in range(len(path)):
            if not self._key(path[:end], path[end], path):
                return
        self._inside(path, value)

    def _inside(self, path: Path, value: Any) -> None:
        if isinstance(value, Mapping):
            for key in value:
                if self._key(path, key, (*path, key)):
                    self._inside((*path, key), value[key])
        elif isinstance(value, (list, tuple)):
            for number, each in enumerate(value):
                self._inside((*path, str(number)), each)

    def _key(self, parent: Path, key: str | int, path: Path) -> bool:
        """Check one key of a dict; the whole path is for messages."""
        owner = value_at(self.before, parent)
        if isinstance(owner, (list, tuple)) or key == '_delete_':
            return True
        if not parent and key not in READ_AT_TOP:
            return self._unread(key, path)
        if isinstance(owner, Mapping) and key in owner:
            return True
        keys = known_keys(self.after, parent)
        if key in keys.names or _is_new_hook(self.after, parent, key):
            return True
        if keys.is_open:
            there = {*keys.names, *(owner if isinstance(owner, Mapping) else ())}
            if near := _near(key, there, 0.8):
                self.warnings.append(f'{_join((*parent, key))} is new; did you mean {_join((*parent, near[0]))}?')
            return True
        self.errors.append(self._no_such(parent, key, path, keys))
        return False

    def _unread(self, key: str | int, path: Path) -> bool:
        """Say what to set in the place of a name at the top that no part of the run reads."""
        if key in _ELSEWHERE:
            self.errors.append(f'{_join(path)} would change nothing: {_ELSEWHERE[key]}')
            return False
        if key not in self.before:
            self.errors.append(self._no_such((), key, path, Keys(READ_AT_TOP, False)))
            return False
        places = list(_copies(self.before, key))
        if not places and _imports_own_code(self.before):
            self.warnings.append(f'{_join(path)}: nothing of MMEngine or vik_mm reads {key}')
            return True
        rest = path[1:]
        keys_read = [_join((*place, *rest)) for place in places]
        remedy = f'set {_list(keys_read)}' if places else 'its value stands nowhere that is read'
        self.errors.append(f'{_join(path)} would change nothing: only the config file uses {key}; {remedy}')
        return False

    def _no_such(self, parent: Path, key: str | int, path: Path, keys: Keys) -> str:
        there = {*keys.names, *(value_at(self.before, parent) or {})} - {'_scope_', '_delete_'}
        near = self._suggest(parent, key, path, set(keys.names) if not parent else there)
        hint = f'did you mean {_list(near)}? ' if near else ''
        if parent:
            where = _join(parent) + (f' ({keys.owner})' if keys.owner else '')
        else:
            where, there = 'the config', set(self.before) & keys.names
        has = _list(sorted(map(str, there)), 25)
        return f'{_join(path)}: nothing reads {_join((*parent, key))}; {hint}{where} takes {has}'

    def _suggest(self, parent: Path, key: str | int, path: Path, there: set[str]) -> list[str]:
        paths = [_join(each) for each, _ in _walk(self.before)]
        wanted = _join(path)
        found = [each for each in paths if each.endswith(f'.{wanted}')]
        if not found:
            nodes = [each for each, value in _walk(self.before) if isinstance(value, Mapping)]
            found = [_join((*node, *path)) for node in nodes if self._is_read((*node, *path))]
        for near in _near(key, there, 0.6)[:1]:
            rest = path[len(parent) + 1 :]
            other = (*parent, near, *rest)
            if not rest or self._is_read(other):
                found.append(_join(other))
            elif len(rest) == 1:
                keys = known_keys(self.after, (*parent, near))
                found += [_join((*parent, near, each)) for each in _near(rest[0], keys.names, 0.6)[:1]]
        return list(dict.fromkeys(found)) or _near(wanted, paths, 0.8)

    def _is_read(self, path: Path) -> bool:
        """Whether this key is known to be read, for suggestions."""
        for end in range(len(path)):
            owner = value_at(self.before, path[:end])
            if not isinstance(owner, Mapping):
                if not isinstance(owner, (list, tuple)) or value_at(self.before, path[: end + 1]) is None:
                    return False
            elif path[end] not in owner and path[end] not in known_keys(self.before, path[:end]).names:
                return False
        return True


def _is_new_hook(cfg: Mapping, parent: Path, key: str | int) -> bool:
    """Whether this is one more default hook; these have names of the user's choice."""
    value = value_at(cfg, (*parent, key))
    return parent == ('default_hooks',) and isinstance(value, Mapping) and 'type' in value


def _imports_own_code(cfg: Mapping) -> bool:
    names = (cfg.get('custom_imports') or {}).get('imports') or []
    names = [names] if isinstance(names, str) else names
    return any(name.split('.')[0] not in _FAMILIES for name in names)


def _copies(cfg: Mapping, key: str | int) -> Iterator[Path]:
    """List the places that a run reads and that hold the value of a name of the config file."""
    value = cfg[key]
    is_telling = isinstance(value, (str, Mapping, list, tuple)) and bool(value)
    # Small numbers stand in many places by chance.
    is_telling = is_telling or (isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) >= 10)
    for path, other in _walk(cfg):
        is_equal = type(other) is type(value) and other == value
        begins = isinstance(other, str) and isinstance(value, str) and len(value) > 3 and other.startswith(value)
        if (is_equal and (is_telling or path[-1] == key)) or begins:
            yield path


def _walk(node: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Go through all values below the keys that a run reads."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, value in items:
        if path or key in READ_AT_TOP:
            below = (*path, str(key))
            yield below, value
            yield from _walk(value, below)


def _near(key: Any, names, cutoff: float) -> list[str]:
    return difflib.get_close_matches(str(key), sorted(map(str, names)), 3, cutoff)


def _join(path: Path) -> str:
    return '.'.join(map(str, path))


def _list(names: list[str], most: int = _MOST) -> str:
    return ', '.join(names[:most]) + (f' and {len(names) - most} more' if len(names) > most else '')
