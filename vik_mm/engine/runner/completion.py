"""Gives configs of others what those of this repository inherit from ``configs/_base_``."""

from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from vik_mm.engine.hooks import add_compilation

from .samplers import make_batches_resumable

_LOOPS = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
_CHECKS = {'sanity_check': 'SanityCheckHook', 'nonfinite_loss': 'NonFiniteLossHook'}


def complete_config(cfg: Config, is_training: bool = True) -> None:
    """Add what a config lacks of loops, samplers, hooks and checks; each addition is a line of the log.

    A config that inherits ``configs/_base_`` lacks nothing. A training loop of another kind than MMEngine's stays as it
    is, and the checkpoint hook and the data loaders with it.

    Args:
        cfg (Config): Changed in place.
        is_training (bool): Whether it is to train, and not only to test. Defaults to True.
    """
    for split in ('train', 'val', 'test') if cfg.get('default_scope') == 'mmpretrain' else ():
        # MMPretrain's own configs leave this to its tools; without it batches come as lists.
        _add_to_loader(cfg, split, 'collate_fn', 'default_collate')
    if cfg.get('compile') is True:
        add_compilation(cfg)
        _log('custom_hooks', 'CompileHook in the place of compile=True')
    _add_checks(cfg)
    if is_training and cfg.get('train_cfg') and cfg.get('train_dataloader') and _has_resumable_loop(cfg):
        _add_checkpoint_hook(cfg)
        for split in ('train', 'val'):
            _add_to_loader(cfg, split, 'worker_init_fn', 'outlive_signals')
        cfg.train_dataloader = make_batches_resumable(cfg.train_dataloader)


def _add_to_loader(cfg: Config, split: str, key: str, function: str) -> None:
    loader = cfg.get(f'{split}_dataloader')
    if loader and key not in loader:
        loader[key] = dict(type=function)
        _log(f'{split}_dataloader.{key}', function)


def _add_checks(cfg: Config) -> None:
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    hooks = cfg.default_hooks
    known = {_name(hook) for hook in [*hooks.values(), *(cfg.get('custom_hooks') or [])] if hook}
    for place, kind in _CHECKS.items():
        if kind not in known:
            hooks[place] = {**(hooks.get(place) or {}), 'type': kind}
            _log(f'default_hooks.{place}', kind)


def _has_resumable_loop(cfg: Config) -> bool:
    """Put one of ours in the place of MMEngine's loop; tell whether there is one of ours then."""
    loop = cfg.train_cfg
    by_epoch = loop.pop('by_epoch', None)
    kind = _name(loop) or ('EpochBasedTrainLoop' if by_epoch in (True, None) else 'IterBasedTrainLoop')
    if kind in _LOOPS:
        loop['type'] = kind = _LOOPS[kind]
        _log('train_cfg.type', kind)
    elif kind not in _LOOPS.values():
        print_log(f'{kind} is not one of MMEngine: after --resume it will draw other random numbers', logger='current')
    return kind in _LOOPS.values()


def _add_checkpoint_hook(cfg: Config) -> None:
    hook = cfg.default_hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
    if hook and _name(hook) == 'CheckpointHook':
        hook['type'] = 'AtomicCheckpointHook'
        _log('default_hooks.checkpoint', 'AtomicCheckpointHook')


def _name(part: dict[str, Any]) -> str | None:
    """Name the class that a part of a config is built as."""
    kind = part.get('type')
    return getattr(kind, '__name__', kind)


def _log(place: str, what: str) -> None:
    print_log(f'the config lacks {what}: added as {place}', logger='current')
