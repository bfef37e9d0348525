"""What a model says about a picture, in NumPy arrays."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vik_mm.errors import BadInputError, UnavailableError

from .masks import MaskCode, as_json, decode, encode_all
from .picture_files import write_picture

_NO_LABELS = np.zeros(0, np.int64)
_NO_SCORES = np.zeros(0, np.float32)


@dataclass(repr=False)
class Result:
    """The prediction on one picture. What another task would have is None.

    Args:
        task (str): 'classification', 'detection' or 'segmentation'.
        size (tuple[int, int]): Height and width of the picture, in pixels.
        classes (Sequence[str]): Names of all classes of the model; empty where it has none.
        path (str, optional): The image file; None for a picture in memory. Defaults to None.
        labels (np.ndarray): int64: of each object; of a classifier, the best class; of a segmentor, the classes found.
        scores (np.ndarray): float32, 0 to 1, one for each label; empty for a segmentor.
        boxes (np.ndarray, optional): ``[N, 4]``, float32: left, top, right, bottom in pixels of the picture.
        mask_codes (list[MaskCode], optional): Run lengths of each object's mask; :attr:`masks` decodes them.
        segmentation (np.ndarray, optional): ``[H, W]``, the label of each pixel, uint8 or, beyond 256 classes, uint16.
        probabilities (np.ndarray, optional): ``[classes]``, float32: of a classifier.
    """

    task: str
    size: tuple[int, int]
    classes: Sequence[str] = ()
    path: str | None = None
    labels: np.ndarray = field(default_factory=_NO_LABELS.copy)
    scores: np.ndarray = field(default_factory=_NO_SCORES.copy)
    boxes: np.ndarray | None = None
    mask_codes: list[MaskCode] | None = None
    segmentation: np.ndarray | None = None
    probabilities: np.ndarray | None = None
    _draw: Callable[['Result'], np.ndarray] | None = None

    def __len__(self) -> int:
        """Objects of a detector; classes of a segmentor that were found; 1 for a classifier."""
        return len(self.labels)

    def __repr__(self) -> str:
        names = self.class_names
        shown = ', '.join(names[:5]) + (', ...' if len(names) > 5 else '')
        height, width = self.size
        return f'Result({self.task}, {self.path or "picture in memory"}, {width}x{height}, {len(names)}: {shown})'

    @property
    def class_names(self) -> list[str]:
        """The name of each label's class; the number as text where the model has no names."""
        return [self.name_of(label) for label in self.labels.tolist()]

    @property
    def masks(self) -> np.ndarray | None:
        """Masks of the objects, ``[N, H, W]``, bool; made anew at each call. None where the model has none."""
        return None if self.mask_codes is None else decode(self.mask_codes, self.size)

    def name_of(self, label: int) -> str:
        """Give the name of a class.

        Args:
            label (int): Its number.

        Returns:
            str: The name, or the number as text.
        """
        return str(self.classes[label]) if label < len(self.classes) else str(label)

    def above(self, score_thr: float) -> 'Result':
        """Leave out objects.

        Args:
            score_thr (float): Those of a lower score. Those whose score is no number stay, so that they are noticed.

        Returns:
            Result: A copy without them; of another task than detection, the result itself.
        """
        if self.task != 'detection':
            return self
        kept = np.flatnonzero(~(self.scores < score_thr))
        return Result(
            self.task,
            self.size,
            self.classes,
            self.path,
            self.labels[kept],
            self.scores[kept],
            None if self.boxes is None else self.boxes[kept],
            None if self.mask_codes is None else [self.mask_codes[k] for k in kept],
            _draw=self._draw,
        )

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON takes.

        Returns:
            dict[str, Any]: ``image`` (the path), ``task``, and for classification ``label``, ``class``, ``score`` and
            ``top`` (the best five); for detection ``objects`` with ``label``, ``class``, ``score``, ``box`` and, where
            there are masks, ``mask`` (COCO's run-length code); for segmentation ``shares``, the share of the picture
            that each class found takes.
        """
        record: dict[str, Any] = dict(image=self.path, task=self.task)
        if self.probabilities is not None:
            best = np.argsort(-self.probabilities, kind='stable')[:5].tolist()
            top = [self._entry(label, self.probabilities[label]) for label in best]
            return record | top[0] | dict(top=top)
        if self.segmentation is not None:
            labels, counts = np.unique(self.segmentation, return_counts=True)
            pixels = self.segmentation.size
            shares = {self.name_of(k): round(n / pixels, 6) for k, n in zip(labels.tolist(), counts.tolist())}
            return record | dict(shares=shares)
        objects = []
        for k, (label, score) in enumerate(zip(self.labels.tolist(), self.scores)):
            entry = self._entry(label, score)
            if self.boxes is not None:
                entry['box'] = [round(value, 2) for value in self.boxes[k].tolist()]
            if self.mask_codes is not None:
                entry['mask'] = as_json(self.mask_codes[k])
            objects.append(entry)
        return record | dict(objects=objects)

    def draw(self, score_thr: float = 0.0) -> np.ndarray:
        """Draw the prediction into the picture, with the visualizer of the config.

        Args:
            score_thr (float): Objects of a lower score are left out. Defaults to 0.

        Returns:
            np.ndarray: ``[H, W, 3]``, uint8, RGB.

        Raises:
            BadInputError: If the picture's file is no longer there, or this result has no picture.
        """
        if self._draw is None:
            raise BadInputError('this result was made without its picture and cannot be drawn')
        return self._draw(self.above(score_thr))

    def save(self, path: str | os.PathLike, score_thr: float = 0.0) -> None:
        """Draw the prediction into a file, written whole or not at all.

        Args:
            path (str | PathLike): The file; its ending gives the format, such as ``.png`` or ``.jpg``.
            score_thr (float): Objects of a lower score are left out. Defaults to 0.

        Raises:
            BadInputError: If there is no such format.
        """
        write_picture(self.draw(score_thr)[..., ::-1], path)

    def save_label_map(self, path: str | os.PathLike) -> None:
        """Write a segmentation's labels as a picture of one channel, pixel values as in the annotations of the task.

        Args:
            path (str | PathLike): PNG file to write.

        Raises:
            BadInputError: If this is no segmentation.
        """
        if self.segmentation is None:
            raise BadInputError(f'only a segmentation has a label map; this is a {self.task}')
        write_picture(self.segmentation, path)

    def to_supervision(self) -> Any:
        """Hand over to the package ``supervision``.

        Returns:
            supervision.Detections | supervision.Classifications: Of a segmentor, an object for each class found, whose
            mask is its pixels.

        Raises:
            UnavailableError: If ``supervision`` is not installed.
        """
        try:
            import supervision
        except ImportError as error:
            raise UnavailableError('to_supervision() needs supervision: pip install supervision') from error
        if self.probabilities is not None:
            everything = np.arange(len(self.probabilities))
            return supervision.Classifications(class_id=everything, confidence=self.probabilities)
        names = dict(class_name=np.array(self.class_names, dtype=str))
        if self.segmentation is not None:
            masks = self.segmentation[None] == self.labels[:, None, None]
            boxes = supervision.mask_to_xyxy(masks).astype(np.float32)
            return supervision.Detections(xyxy=boxes, mask=masks, class_id=self.labels, data=names)
        if not len(self):
            return supervision.Detections.empty()
        return supervision.Detections(
            xyxy=self.boxes, mask=self.masks, confidence=self.scores, class_id=self.labels, data=names
        )

    def to_fiftyone(self) -> Any:
        """Hand over to the package ``fiftyone``.

        Returns:
            fiftyone.Detections | fiftyone.Classification | fiftyone.Segmentation: A label to put on a sample. Boxes are
            shares of the picture, and a mask covers its object's box.

        Raises:
            UnavailableError: If ``fiftyone`` is not installed.
        """
        try:
            import fiftyone
        except ImportError as error:
            raise UnavailableError('to_fiftyone() needs fiftyone: pip install fiftyone') from error
        if self.probabilities is not None:
            return fiftyone.Classification(label=self.class_names[0], confidence=float(self.scores[0]))
        if self.segmentation is not None:
            return fiftyone.Segmentation(mask=self.segmentation)
        height, width = self.size
        objects = []
        for k, name in enumerate(self.class_names):
            left, top, right, bottom = self._pixels_of(k)
            box = [left / width, top / height, (right - left) / width, (bottom - top) / height]
            entry = fiftyone.Detection(label=name, bounding_box=box, confidence=float(self.scores[k]))
            if self.mask_codes is not None:
                entry.mask = decode(self.mask_codes[k : k + 1], self.size)[0, top:bottom, left:right]
            objects.append(entry)
        return fiftyone.Detections(detections=objects)

    def _pixels_of(self, number: int) -> tuple[int, int, int, int]:
        """Whole pixels that an object's box touches, at least one."""
        assert self.boxes is not None
        left, top, right, bottom = self.boxes[number].tolist()
        height, width = self.size
        left, top = min(max(int(left), 0), width - 1), min(max(int(top), 0), height - 1)
        return (
            left,
            top,
            min(max(int(np.ceil(right)), left + 1), width),
            min(max(int(np.ceil(bottom)), top + 1), height),
        )

    def _entry(self, label: int, score: float) -> dict[str, Any]:
        return dict(label=label, score=round(float(score), 6)) | {'class': self.name_of(label)}


def content_of(sample: Any, task: str, score_thr: float = 0.0) -> dict[str, Any]:
    """Take what a :class:`Result` holds out of a data sample of an mm package.

    Args:
        sample (BaseDataElement): What a model of the task has predicted.
        task (str): The task.
        score_thr (float): Objects of a lower score are left out. Defaults to 0.

    Returns:
        dict[str, Any]: Arguments of :class:`Result`.
    """
    if task == 'classification':
        probabilities = sample.pred_score.float().cpu().numpy()
        best = probabilities.argmax(keepdims=True).astype(np.int64)
        return dict(probabilities=probabilities, labels=best, scores=probabilities[best])
    if task == 'segmentation':
        return segmentation_content(sample.pred_sem_seg.data[0].cpu().numpy())
    return objects_of(sample, score_thr)


def objects_of(
    sample: Any, score_thr: float, left: int = 0, top: int = 0, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """Take the objects out of a data sample of MMDetection.

    Args:
        sample (DetDataSample): What the model has predicted of a picture, or of a window.
        score_thr (float): Objects of a lower score are left out, before anything else is done with them.
        left (int): The window's first column in the picture. Defaults to 0.
        top (int): Its first row. Defaults to 0.
        size (tuple[int, int], optional): Height and width of the picture; None for the sample's own. Defaults to None.

    Returns:
        dict[str, Any]: Arguments of :class:`Result`, in pixels of the picture.
    """
    found = sample.pred_instances
    found = found[~(found.scores < score_thr)].cpu()
    content = dict(
        boxes=found.bboxes.float().numpy().reshape(-1, 4) + np.array([left, top] * 2, np.float32),
        scores=found.scores.float().numpy(),
        labels=found.labels.numpy().astype(np.int64),
    )
    if 'masks' in found:
        content['mask_codes'] = encode_all(found.masks.numpy(), left, top, size)
    return content


def segmentation_content(labels: np.ndarray) -> dict[str, Any]:
    """Give what a :class:`Result` holds of a label map.

    Args:
        labels (np.ndarray): ``[H, W]``, whole numbers of any type.

    Returns:
        dict[str, Any]: Arguments of :class:`Result`.
    """
    found = np.unique(labels).astype(np.int64)
    return dict(segmentation=labels.astype(np.uint8 if found.max(initial=0) < 256 else np.uint16), labels=found)
