"""Checkpoints of the authors' release as checkpoints of a classifier here."""

import math
from typing import Any

from mmpretrain.registry import MODELS
from torch import Tensor

from vik_mm.backbones import ViK
from vik_mm.checkpoints.release_keys import describe_release, from_release
from vik_mm.errors import BadInputError


def convert_release(
    weights: dict[str, Tensor], arch: str | None = None, img_size: int | list[int] | None = None
) -> dict[str, Any]:
    """Convert weights of the release.

    Args:
        weights (dict[str, Tensor]): By the release's names.
        arch (str, optional): Refuse another one than this. Defaults to None.
        img_size (int | list[int], optional): Size of the images that they were trained on; None reads it off the first
            global map, which is taken to be square. Defaults to None.

    Returns:
        dict[str, Any]: What to write: ``state_dict`` and ``meta``.

    Raises:
        BadInputError: If the weights are of another arch, or fit no classifier.
    """
    design = describe_release(weights)
    found = next((name for name, setting in ViK.arch_settings.items() if setting == design), None)
    if found is None:
        raise BadInputError(f'no arch has {design}; known are {ViK.arch_settings}')
    if arch not in (None, found):
        raise BadInputError(f'--arch {arch}, but the checkpoint holds arch {found}: {design}')
    num_classes = weights['head.weight'].shape[0] if 'head.weight' in weights else 1000
    template = _classifier(found, num_classes, img_size or _img_size(weights)).state_dict()
    meta = dict(arch=found, converted_from='SeriYann/ViK')
    return dict(state_dict=from_release(weights, template), meta=meta)


def _classifier(arch: str, num_classes: int, img_size: int | list[int]):
    """Build the classifier of configs/vik/, which the weights are to fit."""
    width = ViK.arch_settings[arch]['embed_dims'][-1]
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ViK', arch=arch, img_size=img_size),
            neck=dict(type='GlobalAveragePooling'),
            head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=width),
        )
    )


def _img_size(weights: dict[str, Tensor]) -> int:
    """Read the image size off the first global map, which the release flattens."""
    first = weights.get('network.0.0.token_mixer.lin1.weight')
    pixels = 56 * 56 if first is None else first.shape[1]
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise BadInputError(
            f'the first global map has {pixels} pixels, which are no square; give --img-size HEIGHT WIDTH'
        )
    return 4 * side
