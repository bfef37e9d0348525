"""Looks at label maps before training: their channels, their values, the classes that occur."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vik_mm.errors import BadInputError

# Decoding 20,000 maps takes minutes; 200 take seconds.
SAMPLE_SIZE = 200
_WIDE_MODES = ('I', 'I;16', 'I;16B', 'I;16L', 'F')


@dataclass
class LabelCounts:
    """What the label maps hold that were looked at.

    Args:
        pixels (np.ndarray): Pixels of each label, 0 to 255.
        num_maps (int): How many maps were looked at.
        problem (str): Why there is nothing to learn, or ''.
    """

    pixels: np.ndarray
    num_maps: int
    problem: str


def count_labels(dataset, loader, num_classes: int, ignore_index: int) -> LabelCounts:
    """Look at a sample of a segmentation data set's label maps, as its pipeline loads them.

    Where the sample looks as if there were nothing to learn, the other maps are looked at too, until one refutes it.

    Args:
        dataset (BaseDataset): MMSegmentation's.
        loader (LoadAnnotations): Its pipeline's, see :func:`find_loader`.
        num_classes (int): Classes that the model tells apart.
        ignore_index (int): Label of pixels that count for nothing, 0 to 255.

    Returns:
        LabelCounts: The labels, and what is wrong with them as a whole.

    Raises:
        BadInputError: If a map has several channels, or a label that is no class.
    """
    pixels, num_maps, problem = np.zeros(256, np.int64), 0, ''
    for num_tried, k in enumerate(_spread(len(dataset), SAMPLE_SIZE), 1):
        labels = _load(dataset.get_data_info(int(k)), loader, num_classes, ignore_index)
        if labels is not None:
            pixels += np.bincount(labels.ravel(), minlength=256)
            num_maps += 1
        if num_tried >= SAMPLE_SIZE or num_tried == len(dataset):
            problem = _problem(dataset, pixels, num_classes, ignore_index) if num_maps else ''
            if not problem:
                break
    return LabelCounts(pixels, num_maps, problem)


def find_loader(dataset) -> Any:
    """Find the transform of a data set's pipeline that loads its label maps."""
    from mmcv.transforms import LoadAnnotations

    for transform in getattr(dataset.pipeline, 'transforms', ()):
        if isinstance(transform, LoadAnnotations) and transform.with_seg:
            return transform
    return None


def explain_label(path: str, label: int, num_classes: int, ignore_index: int) -> BadInputError:
    """Make the error about a label that is no class.

    Args:
        path (str): Of the map.
        label (int): The label.
        num_classes (int): Classes that the model tells apart.
        ignore_index (int): Label of pixels that count for nothing.

    Returns:
        BadInputError: To raise.
    """
    return BadInputError(
        f'{path} holds the label {label}, and the model has classes 0 to {num_classes - 1} ({ignore_index} is '
        'ignored); correct the map, num_classes, or reduce_zero_label'
    )


def explain_channels(path: str, picture: np.ndarray) -> BadInputError:
    """Make the error about a map that is a picture.

    Args:
        path (str): Of the map.
        picture (np.ndarray): What it holds, [H, W, channels].

    Returns:
        BadInputError: To raise.
    """
    channels = picture.shape[-1]
    if channels > 2 and (picture[..., :3] == picture[..., :1]).all():
        remedy = (
            'the three channels are equal, so keep one, in a copy: python -c "import cv2, glob; [cv2.imwrite(f, '
            "cv2.imread(f)[..., 0]) for f in glob.glob('COPY/**/*.png', recursive=True)]\""
        )
    else:
        colours = len(np.unique(picture.reshape(-1, channels), axis=0))
        remedy = (
            f'it has {colours} different colours, so write for each map: labels = numpy.zeros(picture.shape[:2], '
            '"uint8"), and for each class labels[(picture == colour).all(-1)] = number'
        )
    return BadInputError(
        f'{path} has {channels} channels; a label map must have one channel, in which each pixel is the number of its '
        f'class, 0, 1, 2, ... (a palette PNG is fine); {remedy}'
    )


def _spread(length: int, parts: int) -> np.ndarray:
    """Order the indices so that the first ``parts`` are spread over all, one drawn from each part."""
    generator = np.random.default_rng(0)
    parts = min(parts, length)
    first = np.minimum(((np.arange(parts) + generator.random(parts)) * length / parts).astype(int), length - 1)
    first = np.unique(first)
    return np.concatenate([first, generator.permutation(np.setdiff1d(np.arange(length), first))])


def _load(info, loader, num_classes, ignore_index) -> np.ndarray | None:
    path = info.get('seg_map_path')
    try:
        labels = loader.transform(info)['gt_seg_map']
    except Exception:
        # A damaged file is named and counted when a batch needs it; the error would be the same one.
        return None
    if labels.ndim != 2:
        raise explain_channels(path, labels)
    _check_depth(path)
    worst = int(np.where(labels == ignore_index, 0, labels).max(initial=0))
    if worst >= num_classes:
        raise explain_label(path, worst, num_classes, ignore_index)
    return labels


def _check_depth(path) -> None:
    """Refuse values beyond 255, of which MMSegmentation would keep the last 8 bits."""
    if not isinstance(path, str) or not os.path.isfile(path):
        return
    try:
        with Image.open(path) as image:
            worst = np.asarray(image).max() if image.mode in _WIDE_MODES else 0
    except UnidentifiedImageError:
        return
    if worst > 255:
        raise BadInputError(
            f'{path} holds the value {worst}; MMSegmentation reads label maps with 8 bits, so it must be at most 255'
        )


def _problem(dataset, pixels, num_classes, ignore_index) -> str:
    classes = pixels[:num_classes].copy()
    if ignore_index < num_classes:
        classes[ignore_index] = 0
    folder = dataset.data_prefix.get('seg_map_path')
    if not classes.sum():
        return (
            f'every pixel of the label maps in {folder} is ignored (label {ignore_index}): there is nothing to learn; '
            'correct the maps, or reduce_zero_label of the data set'
        )
    if num_classes == 2 and ignore_index > 1 and not pixels[1] and pixels[ignore_index]:
        if dataset.reduce_zero_label:
            return (
                f'the label maps in {folder} hold 0 and 1 only, and reduce_zero_label=True has 0 ignored and makes 1 '
                'the first class, so that the second never occurs; set reduce_zero_label=False in the data set'
            )
        return (
            f'the label maps in {folder} hold 0 and {ignore_index} only, and {ignore_index} is ignored: class 1 never '
            f'occurs and nothing would be learned. Classes are numbered 0, 1, 2, ...: write 1 for {ignore_index}, in a '
            "copy: python -c \"import cv2, glob; [cv2.imwrite(f, (cv2.imread(f, 0) > 0).astype('uint8')) for f in "
            "glob.glob('COPY/**/*.png', recursive=True)]\""
        )
    return ''
