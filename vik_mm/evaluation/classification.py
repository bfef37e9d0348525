"""Figures of a classifier.

Shape letters: ``N`` images, ``C`` classes.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from .records import ClassifiedImage
from .shares import ratio, top_confusions

NUM_BINS = 15


def classification_figures(records: Sequence[ClassifiedImage], classes: Sequence[str]) -> dict[str, Any]:
    """Compute all figures.

    Args:
        records (Sequence[ClassifiedImage]): All images.
        classes (Sequence[str]): Names.

    Returns:
        dict[str, Any]: ``headline`` (``top1``, ``top5``, macro averages, ``nll``), ``per_class`` (a row each),
        ``confusion`` ``[C][C]``, truth by prediction, ``confusions`` (largest first), ``calibration`` (None of scores
        that are no probabilities). Shares are from 0 to 1, NaN where there is nothing to divide by.
    """
    scores = np.stack([record.scores for record in records])
    labels = np.array([record.label for record in records])
    # Ties are broken as MMPretrain's Accuracy breaks them.
    ranked = torch.from_numpy(scores).topk(min(5, scores.shape[1]), dim=1).indices.numpy()
    hits = ranked == labels[:, None]
    confusion = np.zeros((len(classes),) * 2, np.int64)
    np.add.at(confusion, (labels, ranked[:, 0]), 1)
    right, support, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    recall, precision = ratio(right, support), ratio(right, predicted)
    f1 = ratio(2 * right, support + predicted)
    rows = [
        dict(name=name, images=int(n), precision=float(p), recall=float(r), f1=float(f))
        for name, n, p, r, f in zip(classes, support, precision, recall, f1)
    ]
    occurring = support > 0
    headline = dict(top1=float(hits[:, 0].mean()))
    if scores.shape[1] > 5:
        headline['top5'] = float(hits.any(1).mean())
    headline |= dict(
        # A class that is never predicted has no precision; it is no reason to leave it out.
        macro_precision=float(np.nan_to_num(precision[occurring]).mean()),
        macro_recall=float(recall[occurring].mean()),
        macro_f1=float(f1[occurring].mean()),
    )
    return dict(
        headline=headline,
        per_class=rows,
        confusion=confusion.tolist(),
        confusions=top_confusions(confusion, classes),
        calibration=_calibration(scores, labels),
    )


def confident_mistakes(records: Sequence[ClassifiedImage], count: int) -> list[int]:
    """Find the wrong predictions with the highest scores.

    Args:
        records (Sequence[ClassifiedImage]): All images.
        count (int): How many at most.

    Returns:
        list[int]: Places in ``records``, most confident first.
    """
    wrong = [k for k, record in enumerate(records) if record.scores.argmax() != record.label]
    return sorted(wrong, key=lambda k: -records[k].scores.max())[:count]


def _calibration(scores: np.ndarray, labels: np.ndarray) -> dict[str, Any] | None:
    """Compare confidence with accuracy, in bins of equal width (arXiv 1706.04599, equation 3)."""
    if scores.min() < 0 or abs(scores.sum(1) - 1).max() > 1e-3:
        return None
    confidence, right = scores.max(1), scores.argmax(1) == labels
    bins = np.minimum((confidence * NUM_BINS).astype(int), NUM_BINS - 1)
    counts = np.bincount(bins, minlength=NUM_BINS)
    mean_confidence = ratio(np.bincount(bins, confidence, NUM_BINS), counts)
    accuracy = ratio(np.bincount(bins, right, NUM_BINS), counts)
    gaps = np.nan_to_num(abs(mean_confidence - accuracy))
    true_class = np.take_along_axis(scores, labels[:, None], 1)[:, 0].astype(np.float64)
    return dict(
        ece=float((counts * gaps).sum() / counts.sum()),
        nll=float(-np.log(np.maximum(true_class, np.finfo(np.float32).tiny)).mean()),
        mean_confidence=float(confidence.mean()),
        bins=[
            dict(low=k / NUM_BINS, high=(k + 1) / NUM_BINS, images=int(n), confidence=float(c), accuracy=float(a))
            for k, (n, c, a) in enumerate(zip(counts, mean_confidence, accuracy))
        ],
    )
