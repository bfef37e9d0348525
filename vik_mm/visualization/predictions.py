"""Predictions beside the truth."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np


def draw_class_predictions(
    path: str | os.PathLike,
    images: Sequence[np.ndarray],
    truths: Sequence[str],
    predictions: Sequence[str],
    scores: Sequence[float],
    columns: int = 6,
    title: str = '',
) -> Path:
    """Draw images in a grid, each under its prediction: green where right, red with the truth where wrong.

    Args:
        path (str | PathLike): Picture to write; its ending gives the format.
        images (Sequence[np.ndarray]): ``[H, W, 3]`` each, uint8, RGB.
        truths (Sequence[str]): Class names.
        predictions (Sequence[str]): Class names.
        scores (Sequence[float]): Probability of each prediction, 0 to 1.
        columns (int): Images in a row. Defaults to 6.
        title (str): Line above the grid. Defaults to ''.

    Returns:
        Path: ``path``.

    Raises:
        ValueError: If the sequences are empty or differ in length.
    """
    # The object interface: no global figure, and no screen needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lengths = {len(images), len(truths), len(predictions), len(scores)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f'images, truths, predictions and scores must be equally many and not none, got {lengths}')
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(1.7 * columns, 2.0 * rows + (0.5 if title else 0)), layout='constrained')
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes:
        axis.axis('off')
    for axis, image, truth, prediction, score in zip(axes, images, truths, predictions, scores):
        axis.imshow(image, interpolation='nearest')
        right = truth == prediction
        label = f'{prediction} {score:.0%}' if right else f'{prediction} {score:.0%}\nis {truth}'
        axis.set_title(label, fontsize=9, color='tab:green' if right else 'tab:red')
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
