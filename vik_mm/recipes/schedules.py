"""``--epochs``, ``--lr`` and ``--batch``: the length of a run, its learning rate, and its batches."""

import math
from typing import Any

import torch
from mmengine.config import Config

from vik_mm.errors import BadInputError

# What a CPU bears, by the package.
_CPU_BATCH = {'mmpretrain': 32, 'mmdet': 4, 'mmseg': 8}
_TIMES = ('begin', 'end', 'T_max', 'milestones', 'step_size', 'periods')


def set_epochs(cfg: Config, epochs: int) -> list[str]:
    """Train this many epochs; schedules by epoch are stretched or shortened with the run.

    Args:
        cfg (Config): Changed in place.
        epochs (int): Epochs.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If it is less than one, or the config counts iterations.
    """
    if epochs < 1:
        raise BadInputError(f'--epochs {epochs} must be a whole number from 1 up')
    loop: Any = cfg.get('train_cfg') or {}
    if not loop.get('max_epochs'):
        batch = (cfg.get('train_dataloader') or {}).get('batch_size', 1)
        raise BadInputError(
            f'--epochs {epochs}: this config counts iterations (train_cfg.max_iters={loop.get("max_iters")}), and its '
            f'schedule does too; N epochs of M images are N * M / {batch} iterations: --cfg-options '
            'train_cfg.max_iters=... and the times in param_scheduler'
        )
    ratio = epochs / loop.max_epochs
    loop.max_epochs = epochs
    loop.val_interval = max(1, min(loop.get('val_interval', 1), epochs))
    schedulers = cfg.get('param_scheduler') or []
    for scheduler in schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]:
        if isinstance(scheduler, dict) and 'type' in scheduler and scheduler.get('by_epoch', True):
            for key in _TIMES:
                if scheduler.get(key):
                    scheduler[key] = _scaled(scheduler[key], ratio)
            if scheduler.get('end') is not None and scheduler['end'] <= (scheduler.get('begin') or 0):
                scheduler['end'] = (scheduler.get('begin') or 0) + 1
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint')
    if checkpoint and checkpoint.get('interval', 1) > epochs:
        checkpoint.interval = epochs
    if schedulers and epochs == 1:  # no room for a rise by epochs
        _drop_what_begins_too_late(cfg)
    return [f'train_cfg.max_epochs={epochs}, times of param_scheduler times {ratio:.3g}']


def _scaled(value: Any, ratio: float) -> Any:
    if isinstance(value, (list, tuple)):
        return sorted({_scaled(each, ratio) for each in value})
    return max(1, round(value * ratio)) if value < 1e8 else value  # MMEngine writes no end as 1e9


def _drop_what_begins_too_late(cfg: Config) -> None:
    schedulers = cfg.param_scheduler if isinstance(cfg.param_scheduler, (list, tuple)) else [cfg.param_scheduler]
    for scheduler in schedulers:
        if scheduler.get('by_epoch', True) and (scheduler.get('begin') or 0) >= 1:
            scheduler.begin = 0
            scheduler.end = 1
    cfg.param_scheduler = [
        each for each in schedulers if not (str(each.get('type')).startswith('LinearLR') and each.get('by_epoch', True))
    ]


def set_lr(cfg: Config, lr: float) -> list[str]:
    """Set the learning rate; the least rate of schedules keeps its share of it.

    Args:
        cfg (Config): Changed in place.
        lr (float): The rate.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If it is not above 0, or the config has no single optimizer.
    """
    if not 0 < lr < math.inf:
        raise BadInputError(f'--lr {lr} must be a number above 0')
    optimizer = _optimizer(cfg, f'--lr {lr}')
    old = optimizer.lr
    optimizer.lr = lr
    for scheduler in _schedulers(cfg):
        if scheduler.get('eta_min') and old:
            scheduler.eta_min = float(f'{scheduler.eta_min * lr / old:.3g}')
    return [f'optim_wrapper.optimizer.lr={lr:g} (was {old:g})']


def set_batch(cfg: Config, batch: int | str, scales_lr: bool = True) -> list[str]:
    """Set the images of a batch, and scale the learning rate with it.

    Args:
        cfg (Config): Changed in place.
        batch (int | str): Images, or 'auto' for what the GPU's memory holds, or what a CPU bears.
        scales_lr (bool): Whether the learning rate follows. Defaults to True.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If it is less than one, or the config has no training data.
    """
    loader = cfg.get('train_dataloader')
    if not loader or not loader.get('batch_size'):
        raise BadInputError('--batch: the config has no train_dataloader.batch_size')
    lines = []
    if batch == 'auto':
        if torch.cuda.is_available():
            from .batch_probe import probe_batch

            batch = probe_batch(cfg)
            lines.append(f'--batch auto: {batch} images use up to 80 % of the memory of the GPU')
        else:
            batch = _CPU_BATCH.get(cfg.get('default_scope'), 4)
            lines.append(f'--batch auto: no GPU to probe, so {batch} images, which a CPU bears')
    batch = int(batch)
    if batch < 1:
        raise BadInputError(f'--batch {batch} must be a whole number from 1 up, or auto')
    old, loader.batch_size = loader.batch_size, batch
    lines.append(f'train_dataloader.batch_size={batch} (was {old})')
    if not scales_lr or batch == old:
        return lines
    if (cfg.get('auto_scale_lr') or {}).get('enable'):
        return [*lines, 'auto_scale_lr scales the learning rate']
    optimizer = _optimizer(cfg, f'--batch {batch}')
    is_sgd = 'SGD' in str(optimizer.get('type'))
    # Adam divides by the size of gradients, whose noise falls with the root of the batch.
    factor = batch / old if is_sgd else math.sqrt(batch / old)
    how = 'with the batch' if is_sgd else 'with the square root of the batch'
    return [*lines, *(f'{line}, scaled {how}' for line in set_lr(cfg, float(f'{optimizer.lr * factor:.3g}')))]


def _optimizer(cfg: Config, flag: str) -> Any:
    optimizer = (cfg.get('optim_wrapper') or {}).get('optimizer')
    if not isinstance(optimizer, dict) or not isinstance(optimizer.get('lr'), (int, float)):
        raise BadInputError(f'{flag}: the config has no optim_wrapper.optimizer.lr, or several; use --cfg-options')
    return optimizer


def _schedulers(cfg: Config) -> list:
    schedulers = cfg.get('param_scheduler') or []
    listed = schedulers if isinstance(schedulers, (list, tuple)) else [schedulers]
    return [each for each in listed if isinstance(each, dict)]
