"""How many images fit into the memory of a GPU: tried out, with training's own data and model."""

import copy
import gc
from collections.abc import Callable

import torch
from mmengine.config import Config
from mmengine.registry import DATASETS, FUNCTIONS, MODELS
from mmengine.runner import Runner

from vik_mm.errors import BadInputError

_SHARE = 0.8  # of the memory: batches differ in size
_MOST = 256


def largest_fitting(fits: Callable[[int], bool], most: int = _MOST) -> int:
    """Find the largest power of two that fits.

    Args:
        fits (Callable): Tells whether a batch of so many images does.
        most (int): The largest that is tried. Defaults to 256.

    Returns:
        int: The number; 0 if not even one fits.
    """
    best, batch = 0, 1
    while batch <= most and fits(batch):
        best, batch = batch, 2 * batch
    return best


def probe_batch(cfg: Config) -> int:
    """Try steps of training with larger and larger batches.

    Args:
        cfg (Config): The config; it is not changed.

    Returns:
        int: Images of a batch, a power of two that needs no more than 80 % of the memory.

    Raises:
        BadInputError: If not even one image fits.
    """
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')):
        dataset = DATASETS.build(copy.deepcopy(cfg.train_dataloader.dataset))
        collate = FUNCTIONS.get((cfg.train_dataloader.get('collate_fn') or dict(type='pseudo_collate'))['type'])
        model_cfg = copy.deepcopy(cfg.model)
        if cfg.get('data_preprocessor') and 'data_preprocessor' not in model_cfg:
            model_cfg.data_preprocessor = copy.deepcopy(cfg.data_preprocessor)
        model = MODELS.build(model_cfg).cuda().train()
    # The largest of a few images, since batches are padded to it.
    samples = [dataset[index % len(dataset)] for index in range(8)]
    largest = max(samples, key=lambda sample: sample['inputs'].shape[-1] * sample['inputs'].shape[-2])
    wrapper = Runner.build_optim_wrapper(_Holder(model), copy.deepcopy(cfg.optim_wrapper))
    total = torch.cuda.get_device_properties(0).total_memory

    def fits(batch: int) -> bool:
        torch.cuda.reset_peak_memory_stats()
        try:
            model.train_step(collate([copy.deepcopy(largest) for _ in range(batch)]), optim_wrapper=wrapper)
        except torch.cuda.OutOfMemoryError:
            return False
        return torch.cuda.max_memory_allocated() <= _SHARE * total

    best = largest_fitting(fits, min(_MOST, len(dataset)))
    model.cpu()
    wrapper.optimizer.state.clear()
    gc.collect()
    torch.cuda.empty_cache()
    if not best:
        raise BadInputError(
            '--batch auto: not even one image fits into the memory of the GPU; use a smaller --image-size'
        )
    return best


class _Holder:
    """What the Runner's constructor of optimizers reads."""

    def __init__(self, model):
        self.model = model
