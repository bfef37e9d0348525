"""What images are like once a pipeline has loaded them, which is not always what their headers say."""

import hashlib
import io
import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from .notes import Notes

_ORIENTATION = 0x0112  # the EXIF tag
_JPEG_END = b'\xff\xd9'
_KINDS = {
    'L': 'greyscale images, loaded with three equal channels',
    'LA': 'images with transparency, which is dropped',
    'PA': 'images with transparency, which is dropped',
    'RGBA': 'images with transparency, which is dropped',
    'I;16': '16-bit images, loaded with their upper 8 bits',
    'I;16B': '16-bit images, loaded with their upper 8 bits',
    'I': '16-bit images, loaded with their upper 8 bits',
    'F': 'images of floating-point numbers, loaded as 8 bits',
    'CMYK': 'CMYK images, loaded as RGB',
}
NUM_THREADS = min(8, os.cpu_count() or 1)


@dataclass(frozen=True)
class ImageFacts:
    """One image.

    Args:
        width (int): As a pipeline loads it.
        height (int): As a pipeline loads it.
        orientation (int): EXIF's, 1 to 8; the loader turns the picture by it.
        kind (str): What is special about its pixels, or ''.
        digest (bytes): Equal for files with the same content.
        problem (str): Why it cannot be used, or ''.
    """

    width: int
    height: int
    orientation: int = 1
    kind: str = ''
    digest: bytes = b''
    problem: str = ''

    @property
    def is_turned(self) -> bool:
        """Whether width and height are the other way round in the file."""
        return self.orientation >= 5


def survey_images(paths: Iterable[Path]) -> list[ImageFacts]:
    """Look at images, several at a time.

    Args:
        paths (Iterable[Path]): The files.

    Returns:
        list[ImageFacts]: One each.
    """
    with ThreadPoolExecutor(NUM_THREADS) as pool:
        return list(pool.map(read_facts, paths))


def read_facts(path: Path) -> ImageFacts:
    """Look at an image: its header by Pillow, its pixels by OpenCV, which is what mmcv loads images with.

    Args:
        path (Path): The file.

    Returns:
        ImageFacts: Also of one that cannot be read; ``problem`` says why.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        return ImageFacts(0, 0, problem=error.strerror or 'it cannot be read')
    if not content:
        return ImageFacts(0, 0, problem='it is empty')
    size, orientation, kind, is_jpeg = _read_header(content)
    if is_jpeg and _JPEG_END not in content[-65536:]:
        return ImageFacts(0, 0, problem='it ends too early')
    # An eighth of a JPEG is decoded several times faster, and fails where the whole does.
    is_quick = is_jpeg and size is not None and orientation == 1
    picture = cv2.imdecode(
        np.frombuffer(content, np.uint8), cv2.IMREAD_REDUCED_COLOR_8 if is_quick else cv2.IMREAD_COLOR
    )
    if picture is None:
        return ImageFacts(0, 0, problem='OpenCV cannot read it')
    width, height = size if is_quick and size else (picture.shape[1], picture.shape[0])
    if kind == _KINDS['I;16'] and not picture.any():
        kind = '16-bit images, which are all black in 8 bits; scale their values up to 65,535'
    return ImageFacts(width, height, orientation, kind, hashlib.blake2b(content, digest_size=16).digest())


def _read_header(content: bytes) -> tuple[tuple[int, int] | None, int, str, bool]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            orientation = image.getexif().get(_ORIENTATION, 1)
            orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
            return image.size, orientation, _KINDS.get(image.mode, ''), image.format in ('JPEG', 'MPO')
    # Pillow has no common error for what it cannot read. OpenCV decides whether the picture can be used.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None, 1, '', False


def note_kinds(facts: Iterable[tuple[str, ImageFacts]], notes: Notes) -> None:
    """Count what is special about images.

    Args:
        facts (Iterable): Names of images, and what they are like.
        notes (Notes): Takes the counts.
    """
    for name, fact in facts:
        if fact.kind:
            notes.add(fact.kind, name)
        if fact.orientation != 1:
            notes.add('images that their EXIF data turn, used as they are shown', name)


def turn_points(points: np.ndarray, size: tuple[float, float], orientation: int) -> np.ndarray:
    """Bring points of a picture as it is stored to the picture as it is shown.

    Args:
        points (ndarray): [N, 2], x and y.
        size (tuple[float, float]): Width and height as stored.
        orientation (int): EXIF's, 1 to 8.

    Returns:
        ndarray: [N, 2].
    """
    x, y = points[:, 0], points[:, 1]
    width, height = size
    turned = {
        1: (x, y),
        2: (width - x, y),
        3: (width - x, height - y),
        4: (x, height - y),
        5: (y, x),
        6: (height - y, x),
        7: (height - y, width - x),
        8: (y, width - x),
    }[orientation]
    return np.stack(turned, 1)


def turn_picture(picture: np.ndarray, orientation: int) -> np.ndarray:
    """Turn a picture, or a mask, as a loader turns it by EXIF data.

    Args:
        picture (ndarray): [H, W] or [H, W, C], as it is stored.
        orientation (int): EXIF's, 1 to 8.

    Returns:
        ndarray: As it is shown.
    """
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    return picture
