"""Draws some pictures of each split with the truth in them, on one sheet."""

import colorsys
import os
from functools import cache
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vik_mm_cli.files import write_atomically

from .looking import FoundData
from .placing import outline_mask
from .preparing import encode_png, label_map
from .samples import Sample

_TILE, _GAP, _CAPTION = 320, 8, 18
_COLUMNS = 4
_OPACITY = 0.45


def draw_sheets(found: FoundData, folder: str | os.PathLike, num_images: int = 12) -> list[Path]:
    """Draw a sheet for each split: images spread over it, with classes, boxes, outlines or label maps.

    Args:
        found (FoundData): What :func:`look` found.
        folder (str | PathLike): Where to write ``<split>.png``.
        num_images (int): Most images on a sheet. Defaults to 12.

    Returns:
        list[Path]: The sheets.
    """
    paths = []
    for split in found.splits:
        samples = _chosen(found, split, num_images)
        path = Path(folder, f'{split}.png')
        write_atomically(encode_png(_sheet([_tile(found, each) for each in samples])), path)
        paths.append(path)
    return paths


def _chosen(found: FoundData, split: str, number: int) -> list[Sample]:
    """Choose images that are spread over a split, those with something in them first."""
    samples = found.of_split(split)
    if found.task in ('detection', 'instance'):
        samples = [each for each in samples if each.objects] or samples
    at = np.unique(np.linspace(0, len(samples) - 1, min(number, len(samples))).round().astype(int))
    return [samples[k] for k in at]


def _sheet(tiles: list[np.ndarray]) -> np.ndarray:
    columns = min(_COLUMNS, len(tiles))
    rows = [tiles[k : k + columns] for k in range(0, len(tiles), columns)]
    heights = [max(tile.shape[0] for tile in row) for row in rows]
    sheet = np.full((sum(heights) + _GAP * (len(rows) + 1), columns * (_TILE + _GAP) + _GAP, 3), 255, np.uint8)
    top = _GAP
    for row, height in zip(rows, heights):
        for k, tile in enumerate(row):
            left = _GAP + k * (_TILE + _GAP)
            sheet[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
        top += height + _GAP
    return sheet


def _tile(found: FoundData, sample: Sample) -> np.ndarray:
    content = np.fromfile(found.source / sample.image, np.uint8)
    picture = np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR))
    height, width = picture.shape[:2]
    scale = _TILE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(picture, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_NEAREST)
    names: list[tuple[str, tuple[int, int, int]]] = []
    if found.task == 'classification' and sample.label is not None:
        names = [(found.classes[sample.label], (0, 0, 0))]
    elif found.task == 'segmentation':
        labels = cv2.resize(label_map(found, sample), size, interpolation=cv2.INTER_NEAREST)
        for label in np.unique(labels).tolist():
            if label < len(found.classes):
                _tint(small, labels == label, colour_of(label))
                names.append((found.classes[label], colour_of(label)))
        _tint(small, labels == 255, (0, 0, 0))
    else:
        small = _with_objects(found, sample, small, scale)
    return _with_captions(small, [(sample.image, (90, 90, 90)), *names])


def _tint(picture: np.ndarray, where: np.ndarray, colour: tuple[int, int, int]) -> None:
    picture[where] = (picture[where] * (1 - _OPACITY) + np.array(colour) * _OPACITY).astype(np.uint8)


def _with_objects(found: FoundData, sample: Sample, picture: np.ndarray, scale: float) -> np.ndarray:
    if found.task == 'instance':
        for each in sample.objects:
            mask = cv2.resize(
                outline_mask(each.outline, sample.size), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST
            )
            _tint(picture, mask > 0, colour_of(each.label))
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    for each in sample.objects:
        left, top, width, height = (side * scale for side in each.box)
        colour = colour_of(each.label)
        draw.rectangle((left, top, left + width, top + height), outline=colour, width=2)
        name = found.classes[each.label] + (' (crowd)' if each.is_crowd else '')
        above = max(0.0, top - 13)
        draw.rectangle(draw.textbbox((left + 1, above), name, font=_font(11)), fill=colour)
        draw.text((left + 1, above), name, font=_font(11), fill=_readable_on(colour))
    return np.asarray(image)


def _with_captions(picture: np.ndarray, captions: list[tuple[str, tuple[int, int, int]]]) -> np.ndarray:
    """Write lines below a picture, the names of classes several to a line."""
    lines: list[list[tuple[str, tuple[int, int, int], float]]] = [[]]
    left = 0.0
    for k, (text, colour) in enumerate(captions):
        text = text if len(text) <= 48 else f'...{text[-45:]}'
        width = _font(12).getlength(text) + 14
        if k == 1 or left + width > _TILE and lines[-1]:
            lines.append([])
            left = 0.0
        lines[-1].append((text, colour, left))
        left += width
    canvas = np.full((picture.shape[0] + len(lines) * _CAPTION, _TILE, 3), 255, np.uint8)
    canvas[: picture.shape[0], : picture.shape[1]] = picture
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    for row, line in enumerate(lines):
        top = picture.shape[0] + row * _CAPTION + 2
        for text, colour, left in line:
            if row:
                draw.rectangle((left, top + 2, left + 9, top + 11), fill=colour)
            draw.text((left + (12 if row else 0), top), text, font=_font(12), fill=(0, 0, 0))
    return np.asarray(image)


def colour_of(label: int) -> tuple[int, int, int]:
    """Give the colour of a class, blue, green and red; neighbours differ."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.85, 1.0 if label % 2 else 0.8)
    return round(blue * 255), round(green * 255), round(red * 255)


def _readable_on(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    blue, green, red = colour
    return (0, 0, 0) if 0.3 * red + 0.59 * green + 0.11 * blue > 128 else (255, 255, 255)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    # It has the letters of most alphabets.
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), 'fonts', 'ttf', 'DejaVuSans.ttf')), size)
