"""Windows that cover a large picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vik_mm.errors import BadInputError

_MOST_OVERLAP = 0.9


class Window(NamedTuple):
    """A part of a picture, in pixels."""

    left: int
    top: int
    width: int
    height: int

    @property
    def right(self) -> int:
        """First column behind it."""
        return self.left + self.width

    @property
    def bottom(self) -> int:
        """First row below it."""
        return self.top + self.height


@dataclass(frozen=True)
class Axis:
    """Windows along one side of a picture: all of one length, evenly spread, from the first pixel to the last.

    Args:
        length (int): Of the picture's side, in pixels.
        size (int): Of a window; no more than ``length``.
        starts (tuple[int, ...]): First pixel of each window.
        zones (tuple[tuple[int, int], ...]): Between each window and the next, the pixels in which one goes over into
            the other; first and the one behind the last. They lie in the middle of what both windows see.
    """

    length: int
    size: int
    starts: tuple[int, ...]
    zones: tuple[tuple[int, int], ...]

    def used(self, number: int) -> tuple[int, int]:
        """Give the part of a window that counts, first pixel and the one behind the last, in pixels of the picture."""
        first = self.zones[number - 1][0] if number else 0
        last = self.zones[number][1] if number < len(self.zones) else self.length
        return first, last

    def weights(self, number: int) -> np.ndarray:
        """Give the weight of a window at each pixel of :meth:`used`; over all windows they add up to one.

        They go from one to zero along half a wave of the cosine, so that no seam is seen.
        """
        first, last = self.used(number)
        weights = np.ones(last - first, np.float32)
        if number:
            weights[: self.zones[number - 1][1] - first] *= 1 - _ramp(self.zones[number - 1])
        if number < len(self.zones):
            weights[self.zones[number][0] - first :] *= _ramp(self.zones[number])
        return weights


@dataclass(frozen=True)
class Grid:
    """Windows that cover a picture, in rows and columns.

    Args:
        rows (Axis): From top to bottom.
        columns (Axis): From left to right.
    """

    rows: Axis
    columns: Axis

    def __len__(self) -> int:
        return len(self.rows.starts) * len(self.columns.starts)

    def __iter__(self) -> Iterator[Window]:
        for top in self.rows.starts:
            for left in self.columns.starts:
                yield Window(left, top, self.columns.size, self.rows.size)


def check_tiles(tile: int, overlap: float) -> None:
    """Make sure that windows can be laid.

    Args:
        tile (int): Side of a window, in pixels.
        overlap (float): Share of its side that a window shares with the next.

    Raises:
        BadInputError: If ``tile`` is less than 1, or ``overlap`` is not from 0 to 0.9.
    """
    if isinstance(tile, bool) or not isinstance(tile, (int, np.integer)) or tile < 1:
        raise BadInputError(f'tile={tile!r} must be the side of a window in pixels, such as 640')
    if not 0 <= overlap <= _MOST_OVERLAP:
        raise BadInputError(f'overlap={overlap!r} must be a share of the window from 0 to {_MOST_OVERLAP}, such as 0.2')


def lay_grid(height: int, width: int, tile: int, overlap: float) -> Grid:
    """Lay windows over a picture: as few as share at least ``overlap`` with their neighbours, evenly spread.

    Args:
        height (int): Of the picture, in pixels.
        width (int): Of the picture, in pixels.
        tile (int): Side of a window, in pixels; a shorter side of the picture is covered whole.
        overlap (float): Least share of a window's side that the next window sees too.

    Returns:
        Grid: Windows of one size; one, the picture, where it fits into it.

    Raises:
        BadInputError: As :func:`check_tiles` does.
    """
    check_tiles(tile, overlap)
    return Grid(_lay_axis(height, tile, overlap), _lay_axis(width, tile, overlap))


def _lay_axis(length: int, tile: int, overlap: float) -> Axis:
    if length <= tile:
        return Axis(length, length, (0,), ())
    shared = min(round(tile * overlap), tile - 1)
    count = -(-(length - shared) // (tile - shared))
    starts = np.linspace(0, length - tile, count).round().astype(int)
    # Zones of two pairs of windows must not meet: where windows are dense, zones are no longer than a step.
    longest = min(shared, int(np.diff(starts).min()))
    zones = []
    for left, right in zip(starts, starts[1:]):
        first = int(right + left + tile - longest) // 2  # both windows see right .. left + tile
        zones.append((first, first + longest))
    return Axis(length, tile, tuple(starts.tolist()), tuple(zones))


def _ramp(zone: tuple[int, int]) -> np.ndarray:
    length = zone[1] - zone[0]
    return (0.5 + 0.5 * np.cos(np.pi * (np.arange(length, dtype=np.float32) + 0.5) / max(length, 1))).astype(np.float32)
