"""Brings objects into the picture that a pipeline loads, and sorts out those that nothing can be learned from."""

import math
from typing import Any

import cv2
import numpy as np

from vik_mm.datasets.coco_file import is_outline

from .images import turn_picture, turn_points
from .notes import Notes
from .samples import ObjectTruth, Sample

# Rounding of coordinates is no error in them.
_TOLERANCE = 1.0
_SAME_SHAPE = 0.02


def place_objects(sample: Sample, notes: Notes) -> bool:
    """Bring the objects of an image into pixels of the image as it is loaded, and clean them; in place.

    Args:
        sample (Sample): Its ``frame`` says what the coordinates mean.
        notes (Notes): Takes what is mended and left out.

    Returns:
        bool: False if it cannot be known where in the image the objects are.
    """
    mapping = _mapping(sample, notes)
    if mapping is None:
        notes.add('images of another size than their annotations say, left out', sample.image)
        return False
    placed = [_clean(mapping(each), sample, notes) for each in sample.objects]
    sample.objects = [each for each in placed if each is not None]
    sample.frame = sample.size
    return True


def _mapping(sample: Sample, notes: Notes):
    """Choose what maps an object to the loaded image; None if nothing can."""
    width, height = sample.size
    frame, facts = sample.frame, sample.facts
    if frame is None or frame == (width, height):
        return lambda each: each
    if frame == (1, 1):
        return lambda each: _scale(each, width, height, sample)
    if facts is not None and facts.is_turned and frame == (height, width):
        return lambda each: _turn(each, frame, facts.orientation)
    if abs(frame[0] / frame[1] / (width / height) - 1) < _SAME_SHAPE:
        notes.add('images of another size than their annotations say; these were scaled', sample.image)
        return lambda each: _scale(each, width / frame[0], height / frame[1], sample)
    if all(_fits(each, width, height) for each in sample.objects):
        notes.add('images of another size than their annotations say, whose objects fit and were kept', sample.image)
        return lambda each: each
    return None


def _fits(each: ObjectTruth, width: int, height: int) -> bool:
    left, top, across, down = each.box
    return min(left, top) >= -_TOLERANCE and left + across <= width + _TOLERANCE and top + down <= height + _TOLERANCE


def _scale(each: ObjectTruth, across: float, down: float, sample: Sample) -> ObjectTruth:
    left, top, width, height = each.box
    outline = each.outline
    if isinstance(outline, list):
        outline = [(_points(part) * (across, down)).ravel().tolist() for part in outline if _is_polygon(part)]
    elif is_outline(outline):
        outline = _encode(cv2.resize(_decode(outline), sample.size, interpolation=cv2.INTER_NEAREST))
    area = each.area * across * down if each.area else None
    return ObjectTruth(
        each.label, (left * across, top * down, width * across, height * down), outline, each.is_crowd, area
    )


def _turn(each: ObjectTruth, frame: tuple[float, float], orientation: int) -> ObjectTruth:
    left, top, width, height = each.box
    corners = turn_points(np.array([(left, top), (left + width, top + height)]), frame, orientation)
    (left, top), (right, bottom) = corners.min(0).tolist(), corners.max(0).tolist()
    outline = each.outline
    if isinstance(outline, list):
        outline = [
            turn_points(_points(part), frame, orientation).ravel().tolist() for part in outline if _is_polygon(part)
        ]
    elif is_outline(outline):
        outline = _encode(turn_picture(_decode(outline), orientation))
    return ObjectTruth(each.label, (left, top, right - left, bottom - top), outline, each.is_crowd, each.area)


def _clean(each: ObjectTruth, sample: Sample, notes: Notes) -> ObjectTruth | None:
    if not all(map(math.isfinite, each.box)):
        notes.add('objects whose box is not a number, left out', sample.image)
        return None
    left, top, across, down = each.box
    if across <= 0 or down <= 0:
        notes.add('objects whose box has no area, left out', sample.image)
        return None
    width, height = sample.size
    right, bottom = min(left + across, width), min(top + down, height)
    box = max(left, 0.0), max(top, 0.0), right - max(left, 0.0), bottom - max(top, 0.0)
    if box[2] <= 0 or box[3] <= 0:
        notes.add('objects outside of their image, left out', sample.image)
        return None
    if box[2] < 1 or box[3] < 1:  # MMDetection trains on none of these
        notes.add('objects smaller than a pixel, left out', sample.image)
        return None
    if max(box[0] - left, box[1] - top, left + across - right, top + down - bottom) > _TOLERANCE:
        notes.add('boxes that reach beyond their image, cut off at its edge', sample.image)
    outline = _clean_outline(each.outline, sample, notes)
    area = each.area
    if outline is not None:
        own = outline_area(outline)
        if own <= 0:
            notes.add('objects whose outline has no area, left out', sample.image)
            return None
        area = area if area and area > 0 else own
    if not area or not math.isfinite(area) or area <= 0:
        area = box[2] * box[3]
    return ObjectTruth(each.label, box, outline, each.is_crowd, area)


def _clean_outline(outline: Any, sample: Sample, notes: Notes) -> Any:
    if not is_outline(outline):
        return None
    if isinstance(outline, list):
        return [list(map(float, part)) for part in outline if _is_polygon(part)] or None
    if list(outline['size']) != [sample.size[1], sample.size[0]]:
        notes.add('outlines of another size than their image, left out', sample.image)
        return None
    return outline


def outline_area(outline: list | dict) -> float:
    """Compute the area within an outline.

    Args:
        outline (list | dict): COCO's polygons or run-length code.

    Returns:
        float: Square pixels.
    """
    if isinstance(outline, dict):
        return float(_decode(outline).sum())
    area = 0.0
    for part in outline:
        x, y = _points(part).T
        area += abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2
    return area


def outline_box(outline: list | dict) -> tuple[float, float, float, float] | None:
    """Compute the box around an outline; None where it has no point."""
    if isinstance(outline, dict):
        down, across = np.nonzero(_decode(outline))
        if not len(across):
            return None
        left, top = int(across.min()), int(down.min())
        return left, top, int(across.max()) + 1 - left, int(down.max()) + 1 - top
    parts = [_points(part) for part in outline if _is_polygon(part)]
    if not parts:
        return None
    points = np.concatenate(parts)
    (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
    return left, top, right - left, bottom - top


def outline_mask(outline: list | dict, size: tuple[int, int]) -> np.ndarray:
    """Draw an outline as MMDetection does.

    Args:
        outline (list | dict): COCO's polygons or run-length code.
        size (tuple[int, int]): Width and height of the image.

    Returns:
        ndarray: [H, W], uint8, 1 within.
    """
    from pycocotools import mask

    if isinstance(outline, dict):
        return _decode(outline)
    return mask.decode(mask.merge(mask.frPyObjects(outline, size[1], size[0])))


def _is_polygon(part: Any) -> bool:
    return is_outline([part]) and all(type(value) in (int, float) and math.isfinite(value) for value in part)


def _points(part: list) -> np.ndarray:
    return np.asarray(part, float).reshape(-1, 2)


def _decode(code: dict) -> np.ndarray:
    from pycocotools import mask

    if isinstance(code['counts'], list):
        code = mask.frPyObjects(code, *code['size'])
    return mask.decode(code)


def _encode(picture: np.ndarray) -> dict:
    from pycocotools import mask

    code = mask.encode(np.asfortranarray(picture, dtype=np.uint8))
    return dict(size=[int(side) for side in code['size']], counts=code['counts'].decode())
