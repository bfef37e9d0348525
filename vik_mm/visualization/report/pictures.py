"""Pictures of single images with truth and predictions drawn in, as JPEG."""

import io
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vik_mm.evaluation.matching import ImageMatches, outcome

_LONGEST_SIDE = 480
_SHORTEST_SIDE = 240  # of small images, which are drawn larger
RIGHT, WRONG, MISSED = (0, 190, 120), (240, 70, 40), (255, 190, 0)


def load_image(record: Any, dataset: Any) -> np.ndarray | None:
    """Read the image of a record, from its file or, where it has none, from the data set.

    Returns:
        np.ndarray | None: ``[H, W, 3]`` uint8, RGB; None where there is none to be had.
    """
    if record.path and Path(record.path).is_file():
        data = np.fromfile(record.path, np.uint8)
        image = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
        return None if image is None else image[..., ::-1].copy()
    if record.index is None:
        return None
    inputs = dataset[record.index].get('inputs')
    if inputs is None or inputs.ndim != 3 or inputs.shape[0] not in (1, 3):
        return None
    image = np.clip(inputs.permute(1, 2, 0).numpy(), 0, 255).astype(np.uint8)
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image


def as_jpeg(image: np.ndarray) -> bytes:
    """Write an image, ``[H, W, 3]`` RGB, at the size of the page."""
    return _jpeg(_fit(image)[0])


def draw_detections(
    image: np.ndarray, matches: ImageMatches, threshold: float, classes: Sequence[str]
) -> tuple[bytes, bytes]:
    """Draw the truth, what is missed in yellow, and the detections, right ones in green and wrong ones in red.

    Returns:
        tuple[bytes, bytes]: Truth and detections, as JPEG.
    """
    result = outcome(matches, threshold)
    shown, scale = _fit(image)
    truth, found = Image.fromarray(shown), Image.fromarray(shown)
    for k, box in enumerate(matches.true_boxes):
        shape = matches.true_shapes[k] if matches.true_shapes else None
        _draw(truth, box * scale, shape, classes[matches.true_labels[k]], MISSED if result.missed[k] else RIGHT)
    for k in np.flatnonzero(result.kept)[::-1]:
        is_right = matches.found[k] >= 0
        text = f'{classes[matches.labels[k]]} {matches.scores[k]:.2f}'
        shape = matches.shapes[k] if matches.shapes else None
        _draw(found, matches.boxes[k] * scale, shape, text, RIGHT if is_right else WRONG)
    return _jpeg(np.asarray(truth)), _jpeg(np.asarray(found))


def draw_segmentation(image: np.ndarray, maps: tuple[bytes, bytes], palette: np.ndarray, ignore_index: int = 255):
    """Draw an image, its truth, the prediction, and where they differ in red.

    Returns:
        list[bytes]: Four JPEG files.
    """
    truth, prediction = (np.asarray(cv2.imdecode(np.frombuffer(m, np.uint8), cv2.IMREAD_UNCHANGED)) for m in maps)
    image = cv2.resize(image, truth.shape[::-1], interpolation=cv2.INTER_AREA)
    grey = np.repeat(image.mean(2, keepdims=True).astype(np.uint8), 3, axis=2)
    counts = truth != ignore_index
    colours = [palette[np.minimum(labels, len(palette) - 1)] for labels in (truth, prediction)]
    colours[0] = np.where(counts[..., None], colours[0], 0)
    blends = [(0.35 * grey + 0.65 * colour).astype(np.uint8) for colour in colours]
    errors = np.where((counts & (truth != prediction))[..., None], np.array(WRONG, np.uint8), grey // 2)
    return [as_jpeg(part) for part in (image, *blends, errors)]


def class_colours(count: int) -> np.ndarray:
    """Choose colours that neighbouring labels do not share, ``[count, 3]`` uint8."""
    hues = (np.arange(count) * 0.618034) % 1
    hsv = np.stack([hues * 179, 150 + 70 * (np.arange(count) % 2), 235 - 60 * (np.arange(count) % 3 == 2)], 1)
    return cv2.cvtColor(hsv.astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]


def _draw(canvas: Image.Image, box: np.ndarray, shape: Any, text: str, colour: tuple[int, int, int]) -> None:
    if shape is not None:
        from pycocotools import mask as mask_util

        mask = Image.fromarray(mask_util.decode(shape) * np.uint8(80)).resize(canvas.size)
        canvas.paste(colour, mask=mask)
    draw = ImageDraw.Draw(canvas)
    left, top, width, height = box
    draw.rectangle((left, top, left + max(width, 1), top + max(height, 1)), outline=colour, width=2)
    ends = draw.textbbox((0, 0), text, font=_font())
    x = max(0.0, min(left, canvas.width - ends[2] - 4))
    y = max(0.0, top - ends[3] - 4)
    draw.rectangle((x, y, x + ends[2] + 4, y + ends[3] + 4), fill=colour)
    draw.text((x + 2, y + 2), text, fill=(0, 0, 0), font=_font())


@lru_cache
def _font():
    from matplotlib import font_manager

    # The file that ships with Matplotlib has more letters than Pillow's own.
    return ImageFont.truetype(font_manager.findfont('DejaVu Sans'), 12)


def _fit(image: np.ndarray) -> tuple[np.ndarray, float]:
    longest = max(image.shape[:2])
    scale = _LONGEST_SIDE / longest if longest > _LONGEST_SIDE else max(1.0, _SHORTEST_SIDE / longest)
    size = tuple(max(1, round(side * scale)) for side in image.shape[1::-1])
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(image, size, interpolation=way)), scale


def _jpeg(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'JPEG', quality=85)
    return file.getvalue()
