"""Whether a config has the form that tools rely on, and names that are read, before tools change anything in it."""

import difflib
import logging
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from vik_mm.datasets.nesting import nested_configs
from vik_mm.errors import BadInputError

from .known_keys import DEFAULT_HOOKS, READ_AT_TOP, known_keys, value_at

_SPLITS = ('train', 'val', 'test')
_DICTS = (
    'model',
    'optim_wrapper',
    'default_hooks',
    'env_cfg',
    'randomness',
    'auto_scale_lr',
    'strategy',
    *(f'{split}_{part}' for split in _SPLITS for part in ('dataloader', 'cfg')),
)

# Whole numbers, and the least that makes sense.
_LEAST = {
    'train_cfg.max_epochs': 1,
    'train_cfg.max_iters': 1,
    'train_cfg.val_interval': 1,
    'default_hooks.logger.interval': 1,
    **{f'{split}_dataloader.batch_size': 1 for split in _SPLITS},
    **{f'{split}_dataloader.num_workers': 0 for split in _SPLITS},
}


def check_form(cfg: Config) -> None:
    """Make sure that the parts of a config are dicts, or lists of dicts, where these are expected.

    Args:
        cfg (Config): The config, as it goes to the Runner.

    Raises:
        BadInputError: If a part is something else; the message names it.
    """
    for name in _DICTS:
        _check_dict(name, cfg.get(name))
    for place, least in _LEAST.items():
        _check_count(place, value_at(dict(cfg.items()), tuple(place.split('.'))), least)
    for name, hook in (cfg.get('default_hooks') or {}).items():
        _check_dict(f'default_hooks.{name}', hook)
    if cfg.get('optim_wrapper') is not None:
        _check_dict('optim_wrapper.optimizer', cfg.optim_wrapper.get('optimizer'))
    hooks = cfg.get('custom_hooks')
    if not isinstance(hooks, (list, tuple, type(None))):
        raise BadInputError(f'custom_hooks={hooks!r} must be a list of dicts')
    for number, hook in enumerate(hooks or []):
        _check_dict(f'custom_hooks[{number}]', hook, is_needed=True)
    for split in _SPLITS:
        evaluators = cfg.get(f'{split}_evaluator') or []
        for evaluator in evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]:
            _check_dict(f'{split}_evaluator', evaluator, is_needed=True)
        if cfg.get(f'{split}_dataloader'):
            for place, dataset in nested_configs(cfg[f'{split}_dataloader'].get('dataset')):
                _check_dict(f'{split}_dataloader.{place}', dataset)
            _check_dict(f'{split}_dataloader.batch_sampler', cfg[f'{split}_dataloader'].get('batch_sampler'))


def _check_dict(place: str, value: Any, is_needed: bool = False) -> None:
    if value is None and not is_needed:
        return
    if not isinstance(value, dict):
        raise BadInputError(f'{place}={value!r} must be a dict')
    kind = value.get('type', '')
    if not isinstance(kind, str) and not callable(kind):
        raise BadInputError(f'{place}.type={kind!r} must be the name of a class')


def _check_count(place: str, value: Any, least: int) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < least:
        raise BadInputError(f'{place}={value!r} must be a whole number from {least} up')


def warn_of_unread_names(cfg: Config) -> None:
    """Log which names of a config look like slips, in one line.

    A config file may have names of its own, which others of its lines use; one that is close to a name that MMEngine
    reads is probably meant to be it. Inside the dicts that MMEngine itself reads, every other name is a slip.

    Args:
        cfg (Config): The config, as its file has it.
    """
    found = [*_slips_at_top(cfg), *_slips_below(cfg)]
    if found:
        print_log(f'in the config, nothing reads {", ".join(found)}', logger='current', level=logging.WARNING)


def _slips_at_top(cfg: Config) -> Iterator[str]:
    for name, value in cfg.items():
        # Numbers and words have short names of the user's choice more often than parts of a run.
        cutoff = 0.85 if isinstance(value, (dict, list, tuple)) else 0.92
        near = [] if name in READ_AT_TOP else difflib.get_close_matches(name, READ_AT_TOP, 1, cutoff)
        # As val_evaluator_abs: one of several that the config makes a list of.
        if near and not name.startswith(f'{near[0]}_'):
            yield f'{name} (is {near[0]} meant?)'


def _slips_below(cfg: Config) -> Iterator[str]:
    whole = dict(cfg.items())
    places: list[tuple[str | int, ...]] = [
        *(('env_cfg',), ('env_cfg', 'mp_cfg'), ('randomness',), ('auto_scale_lr',), ('log_processor',)),
        *(('optim_wrapper',), ('optim_wrapper', 'optimizer'), ('optim_wrapper', 'paramwise_cfg')),
        *((f'{split}_{part}',) for split in _SPLITS for part in ('dataloader', 'cfg')),
        *(('default_hooks', name) for name in DEFAULT_HOOKS),
    ]
    schedulers = cfg.get('param_scheduler')
    if isinstance(schedulers, (list, tuple)):
        places += [('param_scheduler', number) for number in range(len(schedulers))]
    for place in places:
        node = value_at(whole, place)
        # An mm package that this needs is imported where it is built; until then its classes are not known here.
        keys = known_keys(whole, place, may_import=False) if isinstance(node, Mapping) else None
        if keys is None or keys.is_open:
            continue
        for name in node.keys() - keys.names:
            near = difflib.get_close_matches(str(name), keys.names, 1, 0.6)
            yield '.'.join(map(str, (*place, name))) + (f' (is {near[0]} meant?)' if near else '')
