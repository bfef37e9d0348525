"""Numbers of a recipe that follow from the data and the machine: image size, batch size, epochs, learning rate."""

import math
import os
from dataclasses import dataclass, field

import numpy as np
import torch

from vik_mm.datasets.folders import PreparedData
from vik_mm.errors import BadInputError

_STEP = 32  # what the strides of the last map divide
_SMALLEST = 64
# The longest side of training images, for detection, and the side of crops, for the others, without and with a GPU.
_LONGEST = {
    'classification': (224, 224),
    'detection': (320, 1024),
    'instance': (320, 1024),
    'segmentation': (256, 512),
}
_BATCH = {'classification': (32, 64), 'detection': (4, 8), 'instance': (4, 8), 'segmentation': (8, 16)}
# How many images a run sees, images of several epochs counted again, as the small presets of this repository have it.
_SEEN = {'classification': 60_000, 'detection': 8_000, 'instance': 8_000, 'segmentation': 8_000}
_EPOCHS = (12, 100)
_SCRATCH_LR, _TUNED_LR = 1e-3, 2e-4  # of AdamW, for the batch sizes of the first column
_EVALUATIONS = 10


@dataclass(frozen=True)
class Plan:
    """Numbers of a recipe.

    Args:
        long_side (int): Pixels of the longer side of a scaled image, at most.
        short_side (int): Pixels of the shorter side of a scaled image, at most.
        crop (int): Side in pixels of what a classifier or a segmentor sees.
        batch_size (int): Images of a batch.
        epochs (int): Epochs.
        warm_up (int): Epochs of them in which the learning rate rises.
        val_interval (int): Epochs from one evaluation to the next.
        lr (float): Learning rate.
        workers (int): Processes that load images.
        log_interval (int): Iterations from one line of the log to the next.
        drop_last (bool): Whether the last batch of an epoch is left out, because it would be a single image, from which
            batch norm of pooled maps computes nothing.
        notes (list[str]): Lines for people.
    """

    long_side: int
    short_side: int
    crop: int
    batch_size: int
    epochs: int
    warm_up: int
    val_interval: int
    lr: float
    workers: int
    log_interval: int
    drop_last: bool
    notes: list[str] = field(default_factory=list)


def default_batch_size(task: str) -> int:
    """Say how many images a batch has where nobody says so.

    Args:
        task (str): As :class:`PreparedData` names it.

    Returns:
        int: The number.
    """
    return _BATCH[task][torch.cuda.is_available()]


def make_plan(
    data: PreparedData,
    *,
    is_pretrained: bool,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
) -> Plan:
    """Derive the numbers of a recipe from the data.

    Args:
        data (PreparedData): The data.
        is_pretrained (bool): Whether the backbone begins with trained weights.
        epochs (int, optional): Epochs, where the user says so. Defaults to None.
        lr (float, optional): Learning rate, likewise. Defaults to None.
        batch_size (int, optional): Images of a batch, likewise. Defaults to None.
        image_size (int, optional): The longer side of scaled images for detection, the side of crops for the other
            tasks; likewise. Defaults to None.

    Returns:
        Plan: The numbers.

    Raises:
        BadInputError: If a number makes no sense.
    """
    for name, value in (('epochs', epochs), ('batch', batch_size), ('lr', lr)):
        if value is not None and not value > 0:
            raise BadInputError(f'--{name} {value} must be more than 0')
    if image_size is not None and (image_size < _STEP or image_size % _STEP):
        raise BadInputError(f'--image-size {image_size} must be a multiple of {_STEP}, and no less')
    notes: list[str] = []
    long_side, short_side, crop = _image_size(data, image_size, notes)
    images = data.splits['train'].num_images
    batch = batch_size or min(default_batch_size(data.task), max(1, images))
    count = epochs or int(np.clip(math.ceil(_SEEN[data.task] / max(1, images)), *_EPOCHS))
    if lr is None:
        lr = _TUNED_LR if is_pretrained else _SCRATCH_LR
        # The square root, since Adam divides by the size of gradients.
        lr = float(f'{lr * math.sqrt(batch / _BATCH[data.task][0]):.2g}')
    iterations = math.ceil(images / batch)
    return Plan(
        long_side=long_side,
        short_side=short_side,
        crop=crop,
        batch_size=batch,
        epochs=count,
        warm_up=max(1, round(count / 20)) if count > 1 else 0,
        val_interval=max(1, count // _EVALUATIONS),
        lr=lr,
        workers=max(1, min(4, (os.cpu_count() or 1) - 1)),
        log_interval=max(1, min(50, iterations // 2)),
        drop_last=images > batch > 1 and images % batch == 1,
        notes=notes,
    )


def scaling(data: PreparedData, plan: Plan) -> float:
    """Say what most images are scaled by in training.

    Args:
        data (PreparedData): The data.
        plan (Plan): Its numbers.

    Returns:
        float: The factor.
    """
    sizes = np.asarray(data.sizes, float).reshape(-1, 2)
    factors = np.minimum(plan.long_side / sizes.max(1), plan.short_side / sizes.min(1))
    return float(np.median(factors))


def _image_size(data: PreparedData, wanted: int | None, notes: list[str]) -> tuple[int, int, int]:
    """Find the sides of scaled images and of crops: of what three of four images reach, within what is affordable."""
    sizes = np.asarray(data.sizes, float).reshape(-1, 2)
    if not len(sizes):
        raise BadInputError(f'{data.source} has no training images')
    has_gpu = torch.cuda.is_available()
    longest = wanted or _LONGEST[data.task][has_gpu]
    long_side, short_side = float(np.quantile(sizes.max(1), 0.75)), float(np.quantile(sizes.min(1), 0.75))
    if data.task in ('detection', 'instance'):
        # Smaller images are not blown up, unless they are tiny.
        factor = longest / long_side if wanted else min(1.0, longest / long_side)
        sides = _multiple(long_side * factor), _multiple(short_side * factor)
        _say_cap(notes, factor, sides[0], has_gpu)
        box_sides = np.sqrt(np.asarray(data.box_sizes, float).reshape(-1, 2).prod(1)) * factor
        if len(box_sides) and np.quantile(box_sides, 0.25) < 12:
            notes.append(
                f'a quarter of the boxes is smaller than 12 pixels at this image size ({sides[0]}): small objects are '
                'hard to find; a larger --image-size finds more of them and takes longer'
            )
        return sides[0], sides[1], sides[1]
    crop = _multiple(longest if wanted else min(short_side, longest))
    if data.task == 'classification':
        _say_cap(notes, crop / short_side, crop, has_gpu)
        return crop, crop, crop
    # Crops are cut from images of up to twice their side, so that they hold more than a corner.
    factor = min(1.0, 2 * crop / long_side) if not wanted else 2 * crop / long_side
    factor = max(factor, crop / short_side)
    _say_cap(notes, factor, round(long_side * factor), has_gpu)
    return round(long_side * factor), round(short_side * factor), crop


def _multiple(pixels: float) -> int:
    return max(_SMALLEST, round(pixels / _STEP) * _STEP)


def _say_cap(notes: list[str], factor: float, side: int, has_gpu: bool) -> None:
    if factor < 0.9:
        where = '' if has_gpu else ', which a CPU bears; more pixels see more: --image-size N'
        notes.append(f'images are scaled to {factor:.0%} of their size, {side} pixels{where}')
