"""Figures of a segmentor, from the confusion matrix of all pixels.

Shape letters: ``C`` classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .records import BAND, SegmentedImage, accuracy_of
from .shares import ratio, top_confusions


def segmentation_figures(records: Sequence[SegmentedImage], classes: Sequence[str]) -> dict[str, Any]:
    """Compute all figures.

    Args:
        records (Sequence[SegmentedImage]): All images.
        classes (Sequence[str]): Names.

    Returns:
        dict[str, Any]: ``headline`` (``miou``, ``pixel_accuracy``, ``mean_accuracy``, ``mean_dice``), ``per_class``
        (a row each), ``confusion`` ``[C][C]``, truth by prediction, in pixels, ``confusions`` (largest first),
        ``boundary``. Shares are from 0 to 1, NaN where there is nothing to divide by.
    """
    size = len(classes)
    cells, band_cells = (np.zeros((size + 1) * size, np.int64) for _ in range(2))
    for record in records:
        cells[record.cells] += record.counts
        band_cells[record.cells] += record.band_counts
    whole, band = cells.reshape(size + 1, size), band_cells.reshape(size + 1, size)
    shares = _shares(whole)
    rows = [
        dict(name=name, pixels=int(n), **{key: float(shares[key][k]) for key in ('iou', 'accuracy', 'dice')})
        for k, (name, n) in enumerate(zip(classes, shares['labelled']))
    ]
    return dict(
        headline=_means(shares),
        per_class=rows,
        confusion=whole[:size].tolist(),
        confusions=top_confusions(whole, classes),
        boundary=dict(
            width=BAND,
            share=float(ratio(band[:size].sum(), whole[:size].sum())),
            share_of_errors=float(ratio(_errors(band[:size]), _errors(whole[:size]))),
            near=_means(_shares(band)),
            inside=_means(_shares(whole - band)),
        ),
    )


def image_figures(record: SegmentedImage, classes: Sequence[str]) -> dict[str, float]:
    """Compute the figures of one image.

    Args:
        record (SegmentedImage): The image.
        classes (Sequence[str]): Names.

    Returns:
        dict[str, float]: ``miou`` over the classes that the image has or is given, and ``pixel_accuracy``.
    """
    matrix = np.zeros((len(classes) + 1) * len(classes), np.int64)
    matrix[record.cells] = record.counts
    means = _means(_shares(matrix.reshape(-1, len(classes))))
    return {key: means[key] for key in ('miou', 'pixel_accuracy')}


def worst_segmented(records: Sequence[SegmentedImage], num_classes: int, count: int) -> list[int]:
    """Find the images with the lowest share of right pixels.

    Args:
        records (Sequence[SegmentedImage]): All images.
        num_classes (int): ``C``.
        count (int): How many at most.

    Returns:
        list[int]: Places in ``records`` of images whose label maps were kept and that hold a wrong pixel, worst first.
    """
    kept = [k for k, record in enumerate(records) if record.maps and accuracy_of(record, num_classes) < 1]
    return sorted(kept, key=lambda k: accuracy_of(records[k], num_classes))[:count]


def _shares(matrix: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the shares of each class; labels of no class count where something is predicted on them, as in MMSeg."""
    size = matrix.shape[1]
    right, labelled, predicted = matrix[:size].diagonal(), matrix[:size].sum(1), matrix.sum(0)
    return dict(
        right=right,
        labelled=labelled,
        iou=ratio(right, labelled + predicted - right),
        accuracy=ratio(right, labelled),
        dice=ratio(2 * right, labelled + predicted),
    )


def _means(shares: dict[str, np.ndarray]) -> dict[str, float]:
    def mean(values):
        values = values[~np.isnan(values)]
        return float(values.mean()) if values.size else float('nan')

    return dict(
        miou=mean(shares['iou']),
        pixel_accuracy=float(ratio(shares['right'].sum(), shares['labelled'].sum())),
        mean_accuracy=mean(shares['accuracy']),
        mean_dice=mean(shares['dice']),
    )


def _errors(matrix: np.ndarray) -> int:
    return int(matrix.sum() - matrix.diagonal().sum())
