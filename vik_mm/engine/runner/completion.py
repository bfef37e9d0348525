"""Gives configs of others what those of this repository inherit from ``configs/_base_``."""

from typing import Any

from mmengine.config import Config
from mmengine.logging import print_log

from .samplers import make_batches_resumable

_LOOPS = {'EpochBasedTrainLoop': 'ResumableEpochLoop', 'IterBasedTrainLoop': 'ResumableIterLoop'}
_CHECKS = {'sanity_check': 'SanityCheckHook', 'nonfinite_loss': 'NonFiniteLossHook'}


def complete_config(cfg: Config, is_training: bool = True) -> None:
    """Add what a config lacks of loops, samplers, hooks and checks; each addition is a line of the log.

    A config that inherits ``configs/_base_`` lacks nothing. A training loop of another kind than MMEngine's stays as it
    is, and the checkpoint hook and the data loaders with it. :class:`CompileHook` takes the place of ``compile=True``,
    under which MMEngine would compile the whole model, anew for each image size.

    Args:
        cfg (Config): Changed in place.
        is_training (bool): Whether it is to train, and not only to test. Defaults to True.
    """
    if cfg.get('default_hooks') is None:
        cfg.default_hooks = {}
    hooks, custom_hooks = cfg.default_hooks, list(cfg.get('custom_hooks') or [])
    known = {_name(hook) for hook in [*hooks.values(), *custom_hooks] if hook}
    if cfg.get('compile') is True:
        cfg.compile = False
        if 'CompileHook' not in known:
            cfg.custom_hooks = [*custom_hooks, dict(type='CompileHook')]
            _log('custom_hooks', 'CompileHook')
    for place, kind in _CHECKS.items():
        if kind not in known:
            hooks[place] = {**(hooks.get(place) or {}), 'type': kind}
            _log(f'default_hooks.{place}', kind)
    if cfg.get('default_scope') == 'mmpretrain':
        # MMPretrain's own configs leave this to its tools; without it batches come as lists.
        _add_to_loaders(cfg, ('train', 'val', 'test'), 'collate_fn', 'default_collate')
    if is_training and cfg.get('train_cfg') and cfg.get('train_dataloader') and _has_resumable_loop(cfg.train_cfg):
        checkpoint = hooks.setdefault('checkpoint', dict(type='CheckpointHook', interval=1))
        if checkpoint and _name(checkpoint) == 'CheckpointHook':
            checkpoint['type'] = 'AtomicCheckpointHook'
            _log('default_hooks.checkpoint', 'AtomicCheckpointHook')
        _add_to_loaders(cfg, ('train', 'val'), 'worker_init_fn', 'outlive_signals')
        cfg.train_dataloader = make_batches_resumable(cfg.train_dataloader)


def _has_resumable_loop(loop: dict[str, Any]) -> bool:
    """Put one of ours in the place of MMEngine's loop; tell whether there is one of ours then."""
    by_epoch = loop.get('by_epoch')
    kind = _name(loop) or ('EpochBasedTrainLoop' if by_epoch in (True, None) else 'IterBasedTrainLoop')
    if kind in _LOOPS:
        loop['type'] = kind = _LOOPS[kind]
        _log('train_cfg.type', kind)
    elif kind not in _LOOPS.values():
        print_log(
            f'{kind} is not one of MMEngine: after --resume it will draw other random numbers, and schedules are not '
            'fitted to the run',
            logger='current',
        )
    if kind not in _LOOPS.values():
        return False
    loop.pop('by_epoch', None)
    return True


def _add_to_loaders(cfg: Config, splits: tuple[str, ...], key: str, function: str) -> None:
    for name in (f'{split}_dataloader' for split in splits):
        if cfg.get(name) and key not in cfg[name]:
            cfg[name][key] = dict(type=function)
            _log(f'{name}.{key}', function)


def _name(part: dict[str, Any]) -> str | None:
    """Name the class that a part of a config is built as."""
    kind = part.get('type')
    return getattr(kind, '__name__', kind)


def _log(place: str, what: str) -> None:
    print_log(f'the config lacks {what}: added as {place}', logger='current')
