"""Takes out of a config what a machine without a GPU cannot do; each change is logged."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.logging import print_log

_SYNC = {'SyncBN', 'MMSyncBN', 'NaiveSyncBN'}


def without_sync_bn(node: Any) -> Any:
    """Write ``BN`` for every synchronised batch norm.

    Args:
        node (Any): A config, or a part of one.

    Returns:
        Any: A copy with the change; the argument stays as it is.
    """
    if isinstance(node, dict):
        changed = {key: without_sync_bn(value) for key, value in node.items()}
        if isinstance(changed.get('type'), str) and changed['type'] in _SYNC:
            changed['type'] = 'BN'
        return type(node)(changed)
    if type(node) in (list, tuple):
        return type(node)(map(without_sync_bn, node))
    return node


def fit_to_machine(cfg: Config) -> None:
    """Take out of a config what this machine cannot do, and log it.

    Args:
        cfg (Config): Changed in place. Without a GPU: float32 for mixed precision (but for
            ``dtype='bfloat16'``, which CPUs do), batch norm for synchronised batch norm, and no pinned memory.
            Everywhere: no ``persistent_workers`` where ``num_workers`` is 0.
    """
    for split in ('train', 'val', 'test'):
        loader = cfg.get(f'{split}_dataloader')
        if not loader:
            continue
        if not torch.cuda.is_available():
            loader.pin_memory = False
        if loader.get('num_workers', 0) == 0:
            loader.persistent_workers = False
    if torch.cuda.is_available():
        return
    model = without_sync_bn(cfg.get('model'))
    if model != cfg.get('model'):
        cfg.model = model
        print_log('no GPU: batch norm instead of synchronised batch norm', logger='current')
    if cfg.get('test_cfg') and cfg.test_cfg.pop('fp16', False):
        print_log('no GPU: testing in float32 instead of mixed precision', logger='current')
    wrapper = cfg.get('optim_wrapper')
    if wrapper and wrapper.get('type') == 'AmpOptimWrapper':
        dtype = wrapper.get('dtype')
        for key in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(key, None)
        if dtype == 'bfloat16':
            wrapper.type = 'CpuAmpOptimWrapper'
        else:
            wrapper.type = 'OptimWrapper'
            print_log('no GPU: training in float32 instead of mixed precision in float16', logger='current')
