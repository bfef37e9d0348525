"""What a COCO annotation file holds, what of it can be trained on, and how it can be wrong."""

import difflib
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from vik_mm.errors import BadInputError

from .wording import enumerate_some

# Boxes are float32 in training; one of 1e308 becomes infinite there.
_LARGEST = float(np.finfo(np.float32).max)
_NUMBER = {int, float}
_IDENTIFIER = {int, float, str}


class CocoFile:
    """The columns of a COCO file, as arrays: a file with 860,000 objects is judged within seconds.

    Args:
        content (Any): What the JSON file holds.
        path (str): Its name, for messages.

    Raises:
        BadInputError: If it is no COCO file, or an entry is missing or of another type than MMDetection computes with.
    """

    def __init__(self, content: Any, path: str):
        self.path = path
        images, annotations, categories = self._sections(content)
        self._read_categories(categories)
        self._read_images(images)
        self._read_annotations(annotations)

    def _sections(self, content):
        if not isinstance(content, dict) or 'images' not in content:
            found = f'its keys are {enumerate_some(content)}' if isinstance(content, dict) else 'it is a list'
            raise BadInputError(
                f'{self.path} is not a COCO annotation file: {found}; it must have "images", "annotations" and '
                '"categories"'
            )
        # Files for test servers have no annotations.
        sections = content['images'], content.get('annotations', []), content.get('categories')
        for name, section in zip(('images', 'annotations', 'categories'), sections, strict=True):
            if not isinstance(section, list) or not all(isinstance(entry, dict) for entry in section):
                raise BadInputError(f'{self.path}: "{name}" must be a list of objects ({{...}})')
        return sections

    def _read_categories(self, categories):
        for k, category in enumerate(categories):
            if not isinstance(category.get('name'), str) or type(category.get('id')) not in _IDENTIFIER:
                raise BadInputError(f'{self.path}: category {k} ({category}) must have an "id" and a "name"')
        self.names = [category['name'] for category in categories]
        self._category_rows = {category['id']: k for k, category in enumerate(categories)}

    def _read_images(self, images):
        for k, image in enumerate(images):
            is_named = type(image.get('id')) in _IDENTIFIER and isinstance(image.get('file_name'), str)
            if not is_named or not {type(image.get('width')), type(image.get('height'))} <= _NUMBER:
                raise BadInputError(
                    f'{self.path}: image {image.get("id", f"number {k}")} must have an "id", a "file_name" and, in '
                    f'pixels, "width" and "height"; it is {_short(image)}'
                )
        # Of images with the same id, MMDetection takes the last.
        images = {image['id']: image for image in images}.values()
        self.image_ids = [image['id'] for image in images]
        self.sizes = np.array([(image['width'], image['height']) for image in images], float).reshape(-1, 2)

    def _read_annotations(self, annotations):
        for key in ('id', 'image_id', 'category_id'):
            if not set(map(type, (annotation.get(key) for annotation in annotations))) <= _IDENTIFIER:
                k = next(k for k, annotation in enumerate(annotations) if type(annotation.get(key)) not in _IDENTIFIER)
                raise BadInputError(
                    f'{self.path}: annotation number {k} must have a number or a text as "{key}"; it is '
                    f'{_short(annotations[k])}'
                )
        self.ids = [annotation['id'] for annotation in annotations]
        if len(set(self.ids)) < len(self.ids):
            raise BadInputError(f'{self.path}: two annotations have the id {_repeated(self.ids)}; each needs its own')
        rows = {image: k for k, image in enumerate(self.image_ids)}
        self.image_rows = _column(rows.get(a['image_id'], -1) for a in annotations)
        self.categories = _column(self._category_rows.get(a['category_id'], -1) for a in annotations)
        self.is_ignored = _column((bool(a.get('ignore', False)) for a in annotations), bool)
        self.is_crowd = _column((bool(a.get('iscrowd', False)) for a in annotations), bool)
        self.has_outline = _column((is_outline(a.get('segmentation')) for a in annotations), bool)
        # MMDetection does not look at what is ignored, nor at annotations of images that there are not.
        read = np.flatnonzero(~self.is_ignored & (self.image_rows >= 0))
        self.boxes = np.full((len(annotations), 4), np.nan)
        self.boxes[read] = self._boxes([annotations[k] for k in read])
        self.areas = np.full(len(annotations), np.nan)
        # It computes only with the area of those whose box meets the image.
        read = np.flatnonzero(self._overlap() > 0)
        self.areas[read] = self._areas([annotations[k] for k in read])

    def _boxes(self, annotations):
        boxes = [annotation.get('bbox') for annotation in annotations]
        if not set(map(type, boxes)) <= {list, tuple} or not set(map(len, boxes)) <= {4}:
            self._refuse('bbox', annotations, lambda box: isinstance(box, (list, tuple)) and len(box) == 4)
        if not set(map(type, chain.from_iterable(boxes))) <= _NUMBER:
            self._refuse('bbox', annotations, lambda box: set(map(type, box)) <= _NUMBER)
        try:
            return np.array(boxes, float).reshape(-1, 4)
        except OverflowError:  # an integer of more than 308 digits
            return np.array([[_as_float(value) for value in box] for box in boxes])

    def _areas(self, annotations):
        areas = [annotation.get('area') for annotation in annotations]
        if not set(map(type, areas)) <= _NUMBER:
            self._refuse('area', annotations, lambda area: type(area) in _NUMBER)
        return np.array([_as_float(area) for area in areas])

    def _refuse(self, key, annotations, is_good):
        bad = [annotation for annotation in annotations if not is_good(annotation.get(key))]
        expected = {'bbox': 'must be four numbers, [x, y, width, height]', 'area': 'must be a number of square pixels'}
        found = _short(bad[0][key]) if key in bad[0] else 'missing'
        raise BadInputError(
            f'{self.path}: "{key}" of annotation {bad[0]["id"]} is {found}; it {expected[key]}; '
            f'that is wrong in {len(bad):,} of {len(annotations):,} annotations'
        )

    def _overlap(self):
        """Compute the area that each box shares with its image; 0 where a number is NaN, as in MMDetection."""
        left, top, width, height = self.boxes.T
        if not len(self.sizes):
            return np.zeros(len(left))
        image_width, image_height = self.sizes[self.image_rows].T
        with np.errstate(invalid='ignore', over='ignore'):
            across = np.minimum(left + width, image_width) - np.maximum(left, 0)
            down = np.minimum(top + height, image_height) - np.maximum(top, 0)
            return np.nan_to_num(across.clip(0) * down.clip(0), nan=0.0)

    def check_classes(self, classes: Sequence[str]) -> None:
        """Refuse class names none of which the file has.

        Args:
            classes (Sequence[str]): Names of the data set's classes.

        Raises:
            BadInputError: The message holds the line to paste.
        """
        if not set(classes) & set(self.names):
            raise BadInputError(
                f'{self.path} has none of the classes of the data set: the data set has {enumerate_some(classes)}, the '
                f'file has {enumerate_some(self.names)}{suggest(classes, self.names)}; set '
                f'metainfo=dict(classes={tuple(self.names)}) in the data set and num_classes={len(self.names)} in the '
                'heads'
            )

    def classes_in_order(self, classes: Sequence[str]) -> list[str]:
        """List the classes that the file has in the order in which MMDetection numbers them, which is the file's."""
        return [name for name in self.names if name in set(classes)]

    def unused_objects(
        self, classes: Sequence[str], images: set | None = None, with_mask: bool = False
    ) -> list[tuple[str, np.ndarray]]:
        """Sort the objects that MMDetection does not train on by the reason.

        Args:
            classes (Sequence[str]): Names of the data set's classes.
            images (set, optional): Ids of the images that are used; None for all. Defaults to None.
            with_mask (bool): Whether outlines are needed. Defaults to False.

        Returns:
            list[tuple[str, np.ndarray]]: Reasons, and the positions of the annotations to which each applies first.
        """
        _, _, width, height = self.boxes.T
        used_images = np.array([images is None or image in images for image in self.image_ids] + [False])
        used_categories = np.array([name in set(classes) for name in self.names] + [False])
        reasons = {
            'of images that the file does not list': self.image_rows < 0,
            'of other categories': ~used_categories[self.categories],
            'marked as ignored': self.is_ignored,
            'on images that are left out': ~used_images[self.image_rows],
            'with NaN in their box': np.isnan(self.boxes).any(1),
            'with a box of negative or no size': (width <= 0) | (height <= 0),
            'with a box outside the image': self._overlap() == 0,
            'smaller than a pixel': (width < 1) | (height < 1),
            'with an area of 0 or less': self.areas <= 0,
            'marked as a crowd': self.is_crowd,
        }
        if with_mask:
            reasons['without an outline of three points or more'] = ~self.has_outline
        left, found = np.ones(len(self.ids), bool), []
        for reason, applies in reasons.items():
            if (left & applies).any():
                found.append((reason, np.flatnonzero(left & applies)))
                left &= ~applies
        return found

    def check_boxes(self, unused: list[tuple[str, np.ndarray]]) -> None:
        """Refuse boxes that MMDetection trains on although they end nowhere.

        Args:
            unused (list[tuple[str, np.ndarray]]): Answer of :meth:`unused_objects`.

        Raises:
            BadInputError: If there is one.
        """
        is_used = np.ones(len(self.ids), bool)
        for _, positions in unused:
            is_used[positions] = False
        with np.errstate(over='ignore'):
            ends = self.boxes[:, :2] + self.boxes[:, 2:]
        endless = np.flatnonzero(is_used & (np.abs(np.hstack([self.boxes, ends])) > _LARGEST).any(1))
        if len(endless):
            raise BadInputError(
                f'{self.path}: "bbox" of annotation {self.ids[endless[0]]} is {self.boxes[endless[0]].tolist()}; its '
                'end is infinite in float32, which makes losses NaN; correct it (annotations like this: '
                f'{len(endless):,})'
            )

    def images_without_objects(self, classes: Sequence[str]) -> np.ndarray:
        """Tell for each image whether no annotation of the classes belongs to it, whatever that is worth."""
        is_class = np.array([name in set(classes) for name in self.names] + [False])
        is_empty = np.ones(len(self.image_ids), bool)
        is_empty[self.image_rows[is_class[self.categories] & (self.image_rows >= 0)]] = False
        return is_empty


def suggest(wanted: Sequence[str], there: Sequence[str]) -> str:
    """Ask whether names that differ in case, spaces or a letter were meant.

    Args:
        wanted (Sequence[str]): Names that were looked for.
        there (Sequence[str]): Names that there are.

    Returns:
        str: ``'; did you mean "Car" for "car"?'``, or ``''`` where nothing is near.
    """
    plain = {_plain(name): name for name in there if name not in wanted}
    pairs = []
    for name in wanted:
        if name not in there and (near := difflib.get_close_matches(_plain(name), plain, n=1, cutoff=0.8)):
            pairs.append(f'"{plain[near[0]]}" for "{name}"')
    return f'; did you mean {enumerate_some(pairs)}?' if pairs else ''


def is_outline(segmentation: Any) -> bool:
    """Tell whether MMDetection makes a mask of it: one polygon with three points, or a run-length code."""
    if isinstance(segmentation, list):
        return any(isinstance(p, list) and len(p) >= 6 and len(p) % 2 == 0 for p in segmentation)
    return isinstance(segmentation, dict) and None not in (segmentation.get('counts'), segmentation.get('size'))


def explain_unreadable(path: str, error: Exception) -> BadInputError:
    """Make an error that a user understands of one that reading a JSON file ended with.

    Args:
        path (str): Name of the file.
        error (Exception): What was raised.

    Returns:
        BadInputError: To raise.
    """
    if isinstance(error, RecursionError):
        reason = 'it is nested too deep for Python'
    elif isinstance(error, UnicodeDecodeError):
        reason = 'it is not text in UTF-8'
    else:
        reason = ' '.join(str(error).split()) or type(error).__name__
    return BadInputError(f'{path} cannot be read as a COCO annotation file ({reason}); write the file again')


def _column(values, kind=np.int64):
    return np.fromiter(values, kind)


def _as_float(value) -> float:
    try:
        return float(value)
    except OverflowError:
        return float('inf') if value > 0 else float('-inf')


def _repeated(values):
    """Give the first value that repeats an earlier one; there must be one."""
    seen = set()
    for value in values:
        if value in seen:
            return value
        seen.add(value)


def _short(value) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _plain(name: str) -> str:
    return ''.join(character for character in name.casefold() if character.isalnum())
