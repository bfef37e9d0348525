"""Arithmetic that the figures of all tasks need."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def ratio(part, whole) -> np.ndarray:
    """Divide; NaN where there is nothing to divide by.

    Args:
        part (array_like): Any shape.
        whole (array_like): The same shape.

    Returns:
        np.ndarray: Float64.
    """
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def top_confusions(matrix: np.ndarray, classes: Sequence[str], count: int = 10) -> list[dict[str, Any]]:
    """Find the pairs of classes that are taken for each other most often.

    Args:
        matrix (np.ndarray): Truth by prediction, at least ``[C, C]``; further rows and columns are left out.
        classes (Sequence[str]): Names.
        count (int): How many pairs at most. Defaults to 10.

    Returns:
        list[dict]: ``truth``, ``prediction``, ``count``, and ``share`` of all of that truth, largest ``count`` first.
    """
    size = len(classes)
    off = matrix[:size, :size].copy()
    np.fill_diagonal(off, 0)
    shares = ratio(off, np.broadcast_to(matrix[:size].sum(1, keepdims=True), off.shape))
    places = np.argsort(-off, axis=None, kind='stable')[:count]
    return [
        dict(truth=classes[i], prediction=classes[j], count=int(off[i, j]), share=float(shares[i, j]))
        for i, j in zip(*np.unravel_index(places, off.shape))
        if off[i, j]
    ]
