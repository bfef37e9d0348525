"""Prediction on a large picture in windows."""

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from vik_mm.errors import BadInputError

from .blending import LabelBlender, probabilities_of
from .pipeline import cut
from .predictor import Predictor
from .results import content_of, objects_of, segmentation_content
from .seams import Pieces, join_pieces
from .tiles import Grid, Window, check_tiles, lay_grid

_Item = TypeVar('_Item')


def check_task(task: str) -> None:
    """Make sure that a task can be done in windows.

    Args:
        task (str): 'classification', 'detection' or 'segmentation'.

    Raises:
        BadInputError: If it is classification.
    """
    if task == 'classification':
        raise BadInputError(
            'a classifier takes no tiles: it gives one class for the whole picture, which the classes of its parts do '
            'not add up to; leave tile out'
        )


def predict_content(
    predictor: Predictor,
    task: str,
    picture: dict[str, Any],
    name: str,
    tile: int,
    overlap: float,
    batch_size: int,
    score_thr: float = 0.0,
) -> dict[str, Any]:
    """Predict on a picture in windows of its own resolution, each prepared by the test pipeline like a picture.

    A picture that fits into one window is predicted on as a whole.

    Args:
        predictor (Predictor): With a model of the task.
        task (str): 'detection' or 'segmentation'.
        picture (dict): What the pipeline has loaded.
        name (str): Of the picture, for errors.
        tile (int): Side of the windows, in pixels of the picture.
        overlap (float): Share of a window's side that the next window sees too.
        batch_size (int): Windows that are computed together.
        score_thr (float): Objects of a lower score are left out, before those of several windows are joined. Only for
            detection. Defaults to 0.

    Returns:
        dict[str, Any]: What a :class:`Result` holds, in pixels of the picture.

    Raises:
        BadInputError: If the task has no windows, or ``tile`` or ``overlap`` is wrong.
    """
    check_task(task)
    check_tiles(tile, overlap)
    height, width = picture['img'].shape[:2]
    grid = lay_grid(height, width, tile, overlap)
    if len(grid) == 1:
        return content_of(predictor([picture], [name])[0], task, score_thr)
    if task == 'detection':
        return _detect(predictor, picture, name, grid, batch_size, score_thr)
    if width <= height:
        return segmentation_content(_segment(predictor, picture, name, grid, batch_size, is_turned=False))
    # Class probabilities are kept of a strip as long as a row of windows: rows go along the shorter side.
    turned = Grid(grid.columns, grid.rows)
    return segmentation_content(_segment(predictor, picture, name, turned, batch_size, is_turned=True).T)


def in_batches(items: Iterable[_Item], size: int) -> Iterator[list[_Item]]:
    """Go through items in lists of a size; the last may be shorter.

    Args:
        items (Iterable): The items; no more are taken than are needed.
        size (int): Of a list.

    Yields:
        list: The next items.
    """
    batch: list[_Item] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _samples(predictor: Predictor, picture, name: str, windows: Iterable[Window], batch_size: int):
    for batch in in_batches(windows, batch_size):
        parts = [cut(picture, *window) for window in batch]
        names = [f'{name}, window at ({window.left}, {window.top})' for window in batch]
        yield from zip(batch, predictor(parts, names))


def _detect(predictor: Predictor, picture, name: str, grid: Grid, batch_size: int, score_thr: float) -> dict[str, Any]:
    size = picture['img'].shape[:2]
    pieces = Pieces()
    for window, sample in _samples(predictor, picture, name, grid, batch_size):
        found = objects_of(sample, score_thr, window.left, window.top, size)
        pieces.windows.append(window)
        pieces.boxes.append(found['boxes'])
        pieces.scores.append(found['scores'])
        pieces.labels.append(found['labels'])
        if 'mask_codes' in found:
            pieces.masks = pieces.masks or []
            pieces.masks += found['mask_codes']
    return join_pieces(pieces, *size)


def _segment(predictor: Predictor, picture, name: str, grid: Grid, batch_size: int, is_turned: bool) -> np.ndarray:
    threshold = getattr(getattr(predictor.model, 'decode_head', None), 'threshold', None)
    blender = LabelBlender(grid, 0.5 if threshold is None else threshold)
    # In a turned grid rows are columns of the picture.
    windows = (Window(w.top, w.left, w.height, w.width) if is_turned else w for w in grid)
    for _, sample in _samples(predictor, picture, name, windows, batch_size):
        probabilities = probabilities_of(sample)
        blender.add(probabilities.transpose(1, 2) if is_turned else probabilities)
    return blender.labels
