"""What a test loop leaves of each image, small enough to keep for all of them.

The records are dataclasses: MMEngine makes plain tuples of named ones on their way between processes.
"""

import dataclasses
import heapq
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
from mmengine.evaluator import BaseMetric

from vik_mm.errors import BadInputError

# Whose predictions become figures, by the field that the model puts into its samples.
TASKS = {'pred_score': 'classification', 'pred_instances': 'detection', 'pred_sem_seg': 'segmentation'}
# Width of the band along true outlines, in shares of the picture's diagonal, as in Boundary IoU (arXiv 2103.16562).
BAND = 0.02


@dataclasses.dataclass(frozen=True)
class ClassifiedImage:
    """An image of a classifier: ``scores`` float32 ``[C]``, ``label`` its true class."""

    path: str
    index: int
    scores: np.ndarray
    label: int


@dataclasses.dataclass(frozen=True)
class DetectedImage:
    """An image of a detector, with ``D`` detections.

    Attributes:
        path (str): Its file; '' if the pipeline does not tell.
        index (int): Its place in the data set.
        image_id (Any): Its id in the annotations.
        size (tuple[int, int]): Height and width, in pixels.
        boxes (np.ndarray): Left, top, right, bottom, ``[D, 4]``, in pixels of the image.
        scores (np.ndarray): ``[D]``.
        labels (np.ndarray): ``[D]``.
        masks (list[dict] | None): Run-length codes; None of a model without masks.
        mask_scores (np.ndarray | None): ``[D]``, of models that score masks apart.
    """

    path: str
    index: int
    image_id: Any
    size: tuple[int, int]
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: list[dict] | None
    mask_scores: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class SegmentedImage:
    """An image of a segmentor.

    Attributes:
        path (str): Its file; '' if the pipeline does not tell.
        index (int): Its place in the data set.
        cells (np.ndarray): Cells of the confusion matrix that are not 0, as ``truth * C + prediction``; a truth of
            ``C`` stands for labels that are of no class.
        counts (np.ndarray): Pixels of each of ``cells``.
        band_counts (np.ndarray): Those of them that lie along an outline of the truth.
        maps (tuple[bytes, bytes] | None): Truth and prediction as PNG; only of images that may be among the worst.
    """

    path: str
    index: int
    cells: np.ndarray
    counts: np.ndarray
    band_counts: np.ndarray
    maps: tuple[bytes, bytes] | None


class PredictionRecords(BaseMetric):
    """Gathers the records of all images, in the order of the data set, on the main process.

    It stands beside the metrics of a test loop's evaluator, and computes no figure itself.

    Args:
        num_pictures (int): Images whose label maps are kept, those with the lowest accuracy. Defaults to 12.
        ignore_index (int): Label of pixels that do not count. Defaults to 255.
    """

    default_prefix = 'records'

    def __init__(self, num_pictures: int = 12, ignore_index: int = 255):
        super().__init__(collect_device='cpu')
        self.num_pictures, self.ignore_index = num_pictures, ignore_index
        self.records: list = []
        self._worst: list[tuple[float, int]] = []

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Take what a batch has predicted.

        Args:
            data_batch (Any): Not needed.
            data_samples (Sequence[dict]): Samples with truth and predictions.

        Raises:
            BadInputError: If the samples hold predictions of no task that is evaluated, or no truth.
        """
        for sample in data_samples:
            task = next((task for field, task in TASKS.items() if field in sample), None)
            if task is None:
                raise BadInputError(
                    f'the model predicts {sorted(k for k in sample if k.startswith("pred"))}; a report needs one of '
                    f'{sorted(TASKS)} (classification, detection, segmentation)'
                )
            self.results.append(getattr(self, f'_{task}')(sample))

    def compute_metrics(self, results: list) -> dict:
        """Keep the records; returns no figure.

        Args:
            results (list): The records, in the order of the data set.

        Returns:
            dict: Empty.
        """
        # MMPretrain and the like name an image by its number where it has no file.
        self.records = [r if r.index is not None else dataclasses.replace(r, index=k) for k, r in enumerate(results)]
        return {}

    def _classification(self, sample) -> ClassifiedImage:
        label = sample.get('gt_label')
        if label is None or len(np.atleast_1d(_numpy(label))) != 1:
            raise BadInputError(
                'each image must have one true class, and the test pipeline must pass it on; images of '
                f'{"no" if label is None else "several"} classes cannot be evaluated'
            )
        scores = _numpy(sample['pred_score']).astype(np.float32)
        return ClassifiedImage(*_origin(sample), scores, int(np.atleast_1d(_numpy(label))[0]))

    def _detection(self, sample) -> DetectedImage:
        found = sample['pred_instances']
        masks = found.get('masks')
        if masks is not None and not isinstance(masks, list):
            from pycocotools import mask as mask_util

            masks = [mask_util.encode(np.asfortranarray(m, dtype=np.uint8)) for m in _numpy(masks)]
        return DetectedImage(
            *_origin(sample),
            sample['img_id'],
            tuple(sample['ori_shape'][:2]),
            _numpy(found['bboxes']).astype(np.float64).reshape(-1, 4),
            _numpy(found['scores']).astype(np.float64),
            _numpy(found['labels']).astype(np.int64),
            masks,
            _numpy(found['mask_scores']).astype(np.float64) if 'mask_scores' in found else None,
        )

    def _segmentation(self, sample) -> SegmentedImage:
        if 'gt_sem_seg' not in sample:
            raise BadInputError(
                'the samples have no label map; the test pipeline needs LoadAnnotations (behind Resize) to be evaluated'
            )
        prediction = _numpy(sample['pred_sem_seg']['data']).squeeze()
        truth = _numpy(sample['gt_sem_seg']['data']).squeeze()
        num_classes = len(self.dataset_meta['classes'])
        record = _count_pixels(sample, truth, prediction, num_classes, self.ignore_index)
        heapq.heappush(self._worst, (-accuracy_of(record, num_classes), len(self.results)))
        if len(self._worst) > self.num_pictures:
            _, place = heapq.heappop(self._worst)
            if place == len(self.results):
                return record
            self.results[place] = dataclasses.replace(self.results[place], maps=None)
        return dataclasses.replace(record, maps=(_png(truth), _png(prediction)))


def accuracy_of(record: SegmentedImage, num_classes: int) -> float:
    """Compute the share of pixels that are right in an image; 1 where none counts."""
    right = record.counts[record.cells // num_classes == record.cells % num_classes].sum()
    return float(right / record.counts.sum()) if len(record.counts) else 1.0


def _origin(sample) -> tuple[str, Any]:
    return str(sample.get('img_path') or ''), sample.get('sample_idx')


def _numpy(value) -> np.ndarray:
    return value.detach().cpu().numpy() if hasattr(value, 'detach') else np.asarray(value)


def _count_pixels(sample, truth, prediction, num_classes: int, ignore_index: int) -> SegmentedImage:
    valid = truth != ignore_index
    codes = np.minimum(truth, num_classes).astype(np.int64) * num_classes + prediction
    band = _band(truth)[valid]
    cells, inverse, counts = np.unique(codes[valid], return_inverse=True, return_counts=True)
    band_counts = np.bincount(inverse.ravel()[band], minlength=len(cells))
    return SegmentedImage(*_origin(sample), cells, counts, band_counts, None)


def _band(truth: np.ndarray) -> np.ndarray:
    """Mark the pixels that are near a pixel of another label, ``[H, W]`` bool."""
    labels = truth.astype(np.int32)
    edges = np.zeros(labels.shape, np.uint8)
    for axis in (0, 1):
        differs = np.diff(labels, axis=axis) != 0
        before, behind = [slice(None)] * 2, [slice(None)] * 2
        before[axis], behind[axis] = slice(None, -1), slice(1, None)
        edges[tuple(before)] |= differs
        edges[tuple(behind)] |= differs
    reach = max(1, round(BAND * float(np.hypot(*labels.shape))))
    return cv2.dilate(edges, np.ones((2 * reach - 1,) * 2, np.uint8)).astype(bool)


def _png(labels: np.ndarray) -> bytes:
    kind = np.uint8 if labels.max(initial=0) < 256 else np.uint16
    return cv2.imencode('.png', labels.astype(kind))[1].tobytes()
