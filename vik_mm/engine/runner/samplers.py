"""Batches whose samples are drawn from seeds of their own, and which can begin anywhere in the data."""

import random
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_rank
from mmengine.logging import print_log
from mmengine.registry import DATA_SAMPLERS
from torch.utils.data import BatchSampler

from vik_mm.compat.replacing import fetch_batches_with
from vik_mm.errors import BadTypeError

from .data_position import Feed, Position

ITERATION, _SAMPLE = 0, 1  # kinds of seeds


def seed_all(key: tuple[int, ...]) -> None:
    """Let all that is random begin from a key.

    Args:
        key (tuple[int, ...]): A kind of seed, and what it is made of.
    """
    words = np.random.SeedSequence(key).generate_state(4)
    random.seed(int(words[0]))
    np.random.seed(words[1])
    torch.manual_seed(int(words[2]) << 32 | int(words[3]))


class _Draw(int):
    """The index of a sample, and from which seed its augmentation starts."""

    seed: tuple[int, ...]

    def __reduce__(self):
        return _draw, (int(self), self.seed)


def _draw(index: int, seed: tuple[int, ...]) -> _Draw:
    draw = _Draw(index)
    draw.seed = seed
    return draw


@DATA_SAMPLERS.register_module()
class ResumableBatchSampler(BatchSampler):
    """Batches that can begin in the middle, each index with a seed of its own.

    Args:
        sampler (Sampler): Of indices.
        batch_size (int): Samples of a batch.
        drop_last (bool): Whether an incomplete last batch is left out. Defaults to False.
        batches (dict, optional): Config of the batch sampler that does the work; None for PyTorch's.
            Defaults to None.
    """

    def __init__(self, sampler, batch_size: int, drop_last: bool = False, batches: dict | None = None):
        super().__init__(sampler, batch_size, drop_last)
        options = dict(sampler=sampler, batch_size=batch_size)
        self._own = DATA_SAMPLERS.build(batches, default_args=options) if batches else None
        self.batches = self._own or BatchSampler(**options, drop_last=drop_last)
        self.feed = Feed(sampler, batch_size, drop_last, self._own)
        # Under a loop that does not call start(), the run's seed is the sampler's.
        self.seed, self._start, self._is_endless = getattr(sampler, 'seed', None) or 0, Position(), False
        fetch_batches_with(sampler.dataset, _SeededItems(sampler.dataset))

    def start(self, seed: int, position: Position, is_endless: bool = False) -> None:
        """Say how to go on.

        Args:
            seed (int): The run's.
            position (Position): Where the next pass begins, what is before it having been trained.
            is_endless (bool): Whether one pass follows the other, a new order each. Defaults to False.
        """
        self.seed, self._start, self._is_endless = seed, position, is_endless

    # PyTorch's stub knows only plain indices; a draw is one that carries its seed.
    def __iter__(self) -> Iterator[list[_Draw]]:  # type: ignore[override]
        sampler: Any = self.sampler
        start, self._start = self._start, Position()
        epoch, skip = getattr(self.sampler, 'epoch', 0), start.seen // self.batch_size
        if self._is_endless and start.passes:
            epoch = start.passes
            sampler.set_epoch(epoch)
        while True:
            position, batches = 0, self.batches
            if self.feed.order is not None:
                # The rest of the order, in batches that begin where the seen samples end.
                position, skip = start.seen, 0
                batches = BatchSampler(islice(self.sampler, position, None), self.batch_size, self.drop_last)
            for batch in batches:
                if skip:
                    skip -= 1
                else:
                    yield [
                        _draw(index, (_SAMPLE, self.seed, get_rank(), epoch, position + i))
                        for i, index in enumerate(batch)
                    ]
                position += len(batch)
            if not self._is_endless:
                return
            epoch, start = epoch + 1, Position()
            if hasattr(sampler, 'set_epoch'):
                sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)


def make_batches_resumable(loader: Mapping[str, Any]) -> Mapping[str, Any]:
    """Have :class:`ResumableBatchSampler` make a data loader's batches, as the loader says that they are to be.

    Args:
        loader (Mapping): Config of the loader, which stays as it is. Its batch sampler goes on to choose what is in a
            batch. PyTorch refuses ``drop_last`` beside a batch sampler: it becomes an argument of the batch sampler.

    Returns:
        Mapping: The config with the change; the argument itself where nothing needs one.

    Raises:
        BadTypeError: If it is a loader that is built already.
    """
    if not isinstance(loader, Mapping):
        raise BadTypeError(
            f'train_dataloader={loader!r} must be a config: the batches of a built loader are made already'
        )
    options = {key: value for key, value in loader.items() if key != 'drop_last'}
    batches = options.get('batch_sampler')
    if not batches or batches.get('type') not in ('ResumableBatchSampler', ResumableBatchSampler):
        print_log('the config lacks ResumableBatchSampler: added as train_dataloader.batch_sampler', logger='current')
        batches = dict(type='ResumableBatchSampler', batches=batches)
    if loader.get('drop_last'):
        batches = {**batches, 'drop_last': True}
        if batches.get('batches'):
            batches['batches'] = {**batches['batches'], 'drop_last': True}
    return loader if batches is options.get('batch_sampler') else {**options, 'batch_sampler': batches}


class _SeededItems:
    """A data set's samples, each from its own seed; PyTorch's loaders ask for batches by the name ``__getitems__``."""

    def __init__(self, dataset):
        self.dataset = dataset

    def __call__(self, draws: list[_Draw]) -> list:
        return [self._item(draw) for draw in draws]

    def _item(self, draw: _Draw):
        seed_all(draw.seed)
        return self.dataset[int(draw)]
