"""Reads masks as they come: numbers of classes, palettes, colours, 0 and 255."""

import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .images import NUM_THREADS, ImageFacts, turn_picture

# Values of a binary mask that JPEG has blurred.
_DARK, _BRIGHT = 64, 191
_FEW = 0.02
_SAME_SHAPE = 0.01


@dataclass
class Mask:
    """One mask.

    Args:
        values (ndarray): [H, W], int32: numbers, or colours as red * 65536 + green * 256 + blue.
        is_colour (bool): Whether the values are colours.
        palette (tuple[int, ...]): Colour of each number, where the file has a palette, or ().
        is_blurred (bool): Whether its values were brought back to 0 and 255, as JPEG blurs them.
    """

    values: np.ndarray
    is_colour: bool = False
    palette: tuple[int, ...] = ()
    is_blurred: bool = False

    def colours(self) -> np.ndarray:
        """Give the values as colours, whatever they are."""
        if self.is_colour:
            return self.values
        if self.palette:
            return np.asarray(self.palette, np.int32)[np.minimum(self.values, len(self.palette) - 1)]
        return self.values * 0x010101


@dataclass
class MaskSurvey:
    """What one mask holds.

    Args:
        size (tuple[int, int]): Width and height.
        counts (dict[int, int]): Pixels of each value.
        is_colour (bool): Whether the values are colours.
        palette (tuple[int, ...]): Colour of each number, or ().
        is_blurred (bool): See :class:`Mask`.
        problem (str): Why it cannot be read, or ''.
    """

    size: tuple[int, int] = (0, 0)
    counts: dict[int, int] = field(default_factory=dict)
    is_colour: bool = False
    palette: tuple[int, ...] = ()
    is_blurred: bool = False
    problem: str = ''

    def colour_counts(self) -> dict[int, int]:
        """Give the counts by colours, whatever the values are."""
        values = np.fromiter(self.counts, np.int32)
        colours = Mask(values, self.is_colour, self.palette).colours()
        counts: dict[int, int] = {}
        for colour, number in zip(colours.tolist(), self.counts.values()):
            counts[colour] = counts.get(colour, 0) + number
        return counts


def survey_masks(paths: Iterable[Path]) -> list[MaskSurvey]:
    """Look at masks, several at a time."""
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(_survey, paths))


def _survey(path: Path) -> MaskSurvey:
    try:
        mask = read_mask(path)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        return MaskSurvey(problem=' '.join(str(error).split()) or type(error).__name__)
    values, counts = np.unique(mask.values, return_counts=True)
    height, width = mask.values.shape
    return MaskSurvey(
        (width, height), dict(zip(values.tolist(), counts.tolist())), mask.is_colour, mask.palette, mask.is_blurred
    )


def read_mask(path: Path) -> Mask:
    """Read a mask.

    Args:
        path (Path): The file.

    Returns:
        Mask: Its values; equal channels count as one, transparency is dropped.

    Raises:
        OSError: If it cannot be read, or ValueError or SyntaxError, as Pillow has it.
    """
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        image.load()
        is_jpeg = image.format in ('JPEG', 'MPO')
        palette: tuple[int, ...] = ()
        if image.mode == 'P' and image.palette is not None:
            triples = np.asarray(image.getpalette('RGB'), np.int32).reshape(-1, 3)
            palette = tuple(_code(triples).tolist())
            picture = np.asarray(image)
        elif image.mode in ('1', 'L', 'I', 'I;16', 'I;16B', 'I;16L', 'F'):
            picture = np.asarray(image).astype(np.int32)
        elif image.mode in ('LA', 'PA'):
            picture = np.asarray(image.convert('LA' if image.mode == 'LA' else 'RGBA').convert('RGB'))
        else:
            picture = np.asarray(image.convert('RGB'))
    if picture.ndim == 3 and (is_jpeg or (picture == picture[..., :1]).all()):
        spread = picture.max(-1).astype(int) - picture.min(-1)
        if (spread > _DARK).mean() < _FEW:
            picture = picture[..., 0]
    if picture.ndim == 3:
        return Mask(_code(picture.astype(np.int32)), is_colour=True)
    picture = picture.astype(np.int32)
    if is_jpeg:
        is_between = (picture > _DARK) & (picture < _BRIGHT)
        if is_between.mean() < _FEW:
            return Mask(np.where(picture > (_DARK + _BRIGHT) // 2, 255, 0).astype(np.int32), is_blurred=True)
    return Mask(picture, palette=palette)


def _code(picture: np.ndarray) -> np.ndarray:
    return (picture[..., 0] << 16) | (picture[..., 1] << 8) | picture[..., 2]


def fits(size: tuple[int, int], facts: ImageFacts) -> str:
    """Tell how a mask is brought onto its image.

    Args:
        size (tuple[int, int]): Its width and height.
        facts (ImageFacts): Of the image.

    Returns:
        str: 'same', 'turn', 'scale', or '' if it shows something else.
    """
    width, height = size
    if size == (facts.width, facts.height):
        return 'same'
    if facts.is_turned and size == (facts.height, facts.width):
        return 'turn'
    is_alike = width and height and abs(width / height / (facts.width / facts.height) - 1) < _SAME_SHAPE
    return 'scale' if is_alike else ''


def fit(labels: np.ndarray, facts: ImageFacts) -> np.ndarray:
    """Bring a label map onto its image; see :func:`fits`."""
    how = fits((labels.shape[1], labels.shape[0]), facts)
    if how == 'turn':
        return np.ascontiguousarray(turn_picture(labels, facts.orientation))
    if how == 'scale':
        return cv2.resize(labels, (facts.width, facts.height), interpolation=cv2.INTER_NEAREST)
    return labels
