"""Which detection found which object, at an overlap of one half: what F1, confusions and pictures are made of.

Shape letters: ``D`` detections and ``G`` objects of all images, ``C`` classes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .shares import ratio

MATCHING_IOU = 0.5


class ImageMatches(NamedTuple):
    """Detections and objects of one image; places are within the image.

    Attributes:
        boxes (np.ndarray): Of the detections, left, top, width, height, ``[D, 4]``, highest score first.
        shapes (list): Their run-length codes; empty of boxes.
        scores (np.ndarray): ``[D]``.
        labels (np.ndarray): ``[D]``.
        found (np.ndarray): The object of its own class that each detection found, -1 for none, ``[D]``.
        ignored (np.ndarray): Whether it lies on a crowd, and counts neither as right nor as wrong, ``[D]``.
        true_boxes (np.ndarray): ``[G, 4]``.
        true_shapes (list): Their run-length codes; empty of boxes.
        true_labels (np.ndarray): ``[G]``.
        crowd (np.ndarray): Which objects are crowds, that need not be found, ``[G]``.
        pairs (np.ndarray): Detections and objects of any class that overlap enough, ``[P, 2]``, in the order in which
            they are to be paired.
    """

    boxes: np.ndarray
    shapes: list
    scores: np.ndarray
    labels: np.ndarray
    found: np.ndarray
    ignored: np.ndarray
    true_boxes: np.ndarray
    true_shapes: list
    true_labels: np.ndarray
    crowd: np.ndarray
    pairs: np.ndarray


class Outcome(NamedTuple):
    """What becomes of an image's detections and objects at a threshold of the score.

    Attributes:
        kept (np.ndarray): Detections that count, ``[D]`` bool.
        partner (np.ndarray): Object of each detection, of its class or of another; -1 for none, ``[D]``.
        missed (np.ndarray): Objects that no detection is paired with, ``[G]`` bool.
    """

    kept: np.ndarray
    partner: np.ndarray
    missed: np.ndarray


def match_image(detections: Sequence[dict], objects: Sequence[dict], kind: str) -> ImageMatches:
    """Match the detections of an image by COCO's rule: by score, each takes the free object it overlaps most.

    Args:
        detections (Sequence[dict]): ``label``, ``score``, ``bbox``, and of masks ``segmentation`` as run-length code.
        objects (Sequence[dict]): ``label``, ``bbox``, ``iscrowd``, and of masks ``segmentation`` as run-length code.
        kind (str): 'bbox' or 'segm'.

    Returns:
        ImageMatches: The matches.
    """
    detections = sorted(detections, key=lambda d: -d['score'])  # stable, as COCO's
    crowd = np.array([bool(o['iscrowd']) for o in objects], bool)
    labels = np.array([d['label'] for d in detections], np.int64)
    true_labels = np.array([o['label'] for o in objects], np.int64)
    overlaps = _overlaps(detections, objects, kind, crowd)
    same = labels[:, None] == true_labels[None]
    found, ignored = np.full(len(detections), -1), np.zeros(len(detections), bool)
    is_free = ~crowd
    for k in np.flatnonzero((same & (overlaps >= MATCHING_IOU)).any(1)):
        candidates = np.where(same[k] & is_free, overlaps[k], -1)
        # Of equal overlaps, COCO takes the last.
        best = len(candidates) - 1 - int(candidates[::-1].argmax())
        if candidates[best] >= MATCHING_IOU:
            found[k], is_free[best] = best, False
        else:
            ignored[k] = (same[k] & crowd & (overlaps[k] >= MATCHING_IOU)).any()
    places = np.argwhere((overlaps >= MATCHING_IOU) & ~crowd[None])
    order = np.lexsort((-overlaps[tuple(places.T)], places[:, 0]))
    is_mask = kind == 'segm'
    return ImageMatches(
        np.array([d['bbox'] for d in detections], float).reshape(-1, 4),
        [d['segmentation'] for d in detections] if is_mask else [],
        np.array([d['score'] for d in detections], float),
        labels,
        found,
        ignored,
        np.array([o['bbox'] for o in objects], float).reshape(-1, 4),
        [o['segmentation'] for o in objects] if is_mask else [],
        true_labels,
        crowd,
        places[order],
    )


def outcome(image: ImageMatches, threshold: float) -> Outcome:
    """Tell right, confused and missed apart, at a threshold of the score.

    Args:
        image (ImageMatches): The image.
        threshold (float): Lowest score that counts.

    Returns:
        Outcome: What becomes of detections and objects. Those of the same class are paired first, then what is left.
    """
    kept = (image.scores >= threshold) & ~image.ignored
    partner = np.where(kept, image.found, -1)
    is_free = ~image.crowd
    is_free[partner[partner >= 0]] = False
    for k, place in image.pairs:
        if kept[k] and partner[k] < 0 and is_free[place]:
            partner[k], is_free[place] = place, False
    return Outcome(kept, partner, is_free)


def f1_curves(images: Sequence[ImageMatches], classes: Sequence[str]) -> dict[str, Any]:
    """Compute precision, recall and F1 over the threshold of the score, of all objects together and of each class.

    Args:
        images (Sequence[ImageMatches]): All images.
        classes (Sequence[str]): Names.

    Returns:
        dict[str, Any]: ``thresholds`` (0 to 1), ``precision``, ``recall``, ``f1``; ``best``, the threshold with the
        highest F1 of all objects, and ``best_per_class``, both rounded down to three digits, None where nothing is
        found.
    """
    scores = np.concatenate([np.zeros(0), *(i.scores[~i.ignored] for i in images)])
    right = np.concatenate([np.zeros(0, bool), *((i.found >= 0)[~i.ignored] for i in images)])
    labels = np.concatenate([np.zeros(0, np.int64), *(i.labels[~i.ignored] for i in images)])
    true_labels = np.concatenate([np.zeros(0, np.int64), *(i.true_labels[~i.crowd] for i in images)])
    grid = np.linspace(0, 1, 101)
    count_at = [np.array([(part >= t).sum() for t in grid]) for part in (scores[right], scores)]
    objects = len(true_labels)
    return dict(
        thresholds=grid.tolist(),
        precision=ratio(count_at[0], count_at[1]).tolist(),
        recall=ratio(count_at[0], np.full(len(grid), objects)).tolist(),
        f1=ratio(2 * count_at[0], count_at[1] + objects).tolist(),
        best=_best_threshold(scores, right, objects),
        best_per_class=[
            _best_threshold(scores[labels == k], right[labels == k], int((true_labels == k).sum()))
            for k in range(len(classes))
        ],
    )


def confusion_matrix(images: Sequence[ImageMatches], num_classes: int, threshold: float) -> np.ndarray:
    """Count what is found as what, with a last row for nothing there, and a last column for nothing found.

    Args:
        images (Sequence[ImageMatches]): All images.
        num_classes (int): ``C``.
        threshold (float): Lowest score that counts.

    Returns:
        np.ndarray: Truth by prediction, ``[C + 1, C + 1]``.
    """
    matrix = np.zeros((num_classes + 1,) * 2, np.int64)
    for image in images:
        result = outcome(image, threshold)
        truths = np.where(result.partner >= 0, np.append(image.true_labels, -1)[result.partner], num_classes)
        np.add.at(matrix, (truths[result.kept], image.labels[result.kept]), 1)
        np.add.at(matrix, (image.true_labels[result.missed], num_classes), 1)
    return matrix


def errors_of(image: ImageMatches, threshold: float) -> dict[str, int]:
    """Count the errors of an image: ``missed``, ``false_alarms`` and ``confused``."""
    result = outcome(image, threshold)
    paired = result.kept & (result.partner >= 0)
    return dict(
        missed=int(result.missed.sum()),
        false_alarms=int((result.kept & (result.partner < 0)).sum()),
        confused=int((paired & (image.found < 0)).sum()),
    )


def _overlaps(detections, objects, kind: str, crowd: np.ndarray) -> np.ndarray:
    from pycocotools import mask as mask_util

    if not detections or not objects:
        return np.zeros((len(detections), len(objects)))
    key = 'segmentation' if kind == 'segm' else 'bbox'
    shapes: list[Any] = [[entry[key] for entry in both] for both in (detections, objects)]
    if kind == 'bbox':
        shapes = [np.array(boxes, float) for boxes in shapes]
    return np.asarray(mask_util.iou(*shapes, crowd.astype(np.uint8)))


def _best_threshold(scores: np.ndarray, right: np.ndarray, objects: int) -> float | None:
    order = np.argsort(-scores, kind='stable')
    hits = np.cumsum(right[order])
    if not len(hits) or not hits[-1] or not objects:
        return None
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    # A threshold takes all detections of its score.
    is_last = np.append(np.diff(scores[order]) != 0, True)
    best = np.where(is_last, f1, -1).argmax()
    return float(np.floor(scores[order][best] * 1000) / 1000)
