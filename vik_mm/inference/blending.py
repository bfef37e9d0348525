"""A label map of overlapping windows, put together without the class scores of the whole picture."""

import numpy as np
import torch
from torch import Tensor

from .tiles import Grid


class LabelBlender:
    """Blends the class probabilities of windows, and keeps of finished pixels only the label.

    Windows come in the order of the grid. What lies between two of them goes over from one to the other along half a
    wave of the cosine. Class probabilities are kept only of pixels that a later window will add to: of a strip to the
    right of the last window, and of one below the last row of windows.

    Args:
        grid (Grid): The windows.
        threshold (float): Of a model with one channel: pixels above it are of class 1. Defaults to 0.5.
    """

    def __init__(self, grid: Grid, threshold: float = 0.5):
        rows, columns = grid.rows, grid.columns
        self._rows, self._columns, self._threshold = rows, columns, threshold
        self._places = ((r, c) for r in range(len(rows.starts)) for c in range(len(columns.starts)))
        # Labels take 16 bits, whatever the number of classes.
        self.labels = np.zeros((rows.length, columns.length), np.uint16)
        self._right: Tensor | None = None
        self._above: Tensor | None = None
        self._below: Tensor | None = None

    def add(self, probabilities: Tensor) -> None:
        """Add the next window.

        Args:
            probabilities (Tensor): ``[C, h, w]``, of the whole window.
        """
        row, column = next(self._places)
        rows, columns = self._rows, self._columns
        (top, bottom), (left, right) = rows.used(row), columns.used(column)
        y, x = rows.starts[row], columns.starts[column]
        part = probabilities[:, top - y : bottom - y, left - x : right - x].float()
        weights = np.outer(rows.weights(row), columns.weights(column))
        part = part * torch.from_numpy(weights).to(part.device)
        if self._right is not None:
            part[..., : self._right.shape[-1]] += self._right
        is_last_row, is_last_column = row == len(rows.zones), column == len(columns.zones)
        # Pixels before these are finished; the windows to come add nothing to them.
        end_y = bottom if is_last_row else rows.zones[row][0]
        end_x = right if is_last_column else columns.zones[column][0]
        if row:
            # Added when a column is finished, so that it is not carried to the right, too.
            assert self._above is not None
            zone = rows.zones[row - 1]
            part[:, : zone[1] - zone[0], : end_x - left] += self._above[..., left:end_x]
        self._right = None if is_last_column else part[..., end_x - left :].clone()
        self.labels[top:end_y, left:end_x] = self._decide(part[:, : end_y - top, : end_x - left])
        if not is_last_row:
            if self._below is None:
                zone = rows.zones[row]
                self._below = part.new_empty(len(part), zone[1] - zone[0], columns.length)
            self._below[..., left:end_x] = part[:, end_y - top :, : end_x - left]
        if is_last_column:
            self._above, self._below = self._below, None

    def _decide(self, probabilities: Tensor) -> np.ndarray:
        if len(probabilities) == 1:
            return (probabilities[0] > self._threshold).cpu().numpy()
        return probabilities.argmax(dim=0).cpu().numpy()


def probabilities_of(sample) -> Tensor:
    """Give the class probabilities of a segmentor's data sample.

    Args:
        sample (SegDataSample): With ``seg_logits``; a single channel holds probabilities already.

    Returns:
        Tensor: ``[C, H, W]``, float32.
    """
    logits = sample.seg_logits.data.float()
    return logits if len(logits) == 1 else logits.softmax(dim=0)
