"""COCO's average precision, by the fastest package that is installed.

Both packages get the same dicts through their public classes and give the same figures; faster-coco-eval matches in
C++ what pycocotools matches in Python.

Shape letters: ``T`` thresholds of the overlap, ``R`` recalls, ``K`` categories, ``A`` ranges, ``M`` most detections.
"""

import contextlib
import importlib.util
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vik_mm.errors import UnavailableError

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
# COCO's sizes, by area in pixels.
SIZES = {'small': (0.0, 32.0**2), 'medium': (32.0**2, 96.0**2), 'large': (96.0**2, 1e10)}
_PACKAGES = {'faster-coco-eval': 'faster_coco_eval', 'pycocotools': 'pycocotools'}


class AveragePrecision(NamedTuple):
    """Precision and recall of all categories.

    Attributes:
        precision (np.ndarray): ``[T, R, K, A, M]``; -1 where a category has no object in a range.
        recall (np.ndarray): ``[T, K, A, M]``; -1 likewise.
        categories (list[int]): Ids, ``[K]``.
        ranges (list[str]): Names, ``[A]``; the first is 'all'.
        max_detections (list[int]): Most detections of an image, ``[M]``.
    """

    precision: np.ndarray
    recall: np.ndarray
    categories: list[int]
    ranges: list[str]
    max_detections: list[int]

    def mean(
        self,
        kind: str = 'precision',
        iou: float | None = None,
        of: str = 'all',
        most: int | None = None,
        category: int | None = None,
    ) -> float:
        """Average as pycocotools does.

        Args:
            kind (str): 'precision' or 'recall'. Defaults to 'precision'.
            iou (float, optional): One threshold of the overlap; None for the mean of all. Defaults to None.
            of (str): One of ``ranges``. Defaults to 'all'.
            most (int, optional): One of ``max_detections``; None for the last. Defaults to None.
            category (int, optional): Place of a category; None for the mean of all. Defaults to None.

        Returns:
            float: The mean; NaN where there is nothing to find.
        """
        values = getattr(self, kind)[..., self.ranges.index(of), self.max_detections.index(most) if most else -1]
        if iou is not None:
            values = values[[int(np.argmin(abs(IOU_THRESHOLDS - iou)))]]
        if category is not None:
            values = values[..., category]
        values = values[values > -1]
        return float(values.mean()) if values.size else float('nan')


def choose_package(name: str | None = None) -> str:
    """Choose the package that evaluates.

    Args:
        name (str, optional): 'faster-coco-eval' or 'pycocotools'; None takes the first of them that is installed.
            Defaults to None.

    Returns:
        str: Its name.

    Raises:
        UnavailableError: If it is not installed.
    """
    for package in [name] if name else _PACKAGES:
        if importlib.util.find_spec(_PACKAGES[package]):
            return package
    raise UnavailableError(f'COCO evaluation needs {name or "pycocotools"}: pip install {name or "pycocotools"}')


def _indexed(coco: Any, truth: dict[str, Any], annotations: list[dict[str, Any]]) -> Any:
    coco.dataset = dict(images=truth['images'], categories=truth['categories'], annotations=annotations)
    coco.createIndex()
    return coco


def average_precision(
    truth: dict[str, Any],
    detections: Sequence[dict[str, Any]],
    kind: str,
    category_ids: Sequence[int],
    max_detections: Sequence[int] = (1, 10, 100),
    ranges: dict[str, tuple[float, float]] | None = None,
    package: str | None = None,
) -> AveragePrecision:
    """Evaluate detections against the truth, by COCO's rules.

    Args:
        truth (dict): ``images``, ``categories`` and ``annotations`` of an annotation file. The ``area`` of annotations
            says which range they belong to; it may be any quantity.
        detections (Sequence[dict]): ``image_id``, ``category_id``, ``score``, ``area``, and ``bbox`` or
            ``segmentation``.
        kind (str): 'bbox' or 'segm'.
        category_ids (Sequence[int]): Which to evaluate.
        max_detections (Sequence[int]): Most detections of an image and category. Defaults to (1, 10, 100).
        ranges (dict[str, tuple[float, float]], optional): Lowest and highest ``area`` of each range; 'all' is added.
            None takes :data:`SIZES`. Defaults to None.
        package (str, optional): See :func:`choose_package`. Defaults to None.

    Returns:
        AveragePrecision: The figures.

    Raises:
        UnavailableError: If the package is not installed.
    """
    if choose_package(package) == 'faster-coco-eval':
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    else:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    ranges = {'all': (0.0, 1e10), **(SIZES if ranges is None else ranges)}
    found = [dict(entry, id=k + 1, iscrowd=0) for k, entry in enumerate(detections)]
    # The packages write into what they get, and tell on stdout how they get on.
    truth = dict(truth, annotations=[dict(entry) for entry in truth['annotations']])
    with contextlib.redirect_stdout(io.StringIO()):
        run = COCOeval(*(_indexed(COCO(), truth, entries) for entries in (truth['annotations'], found)), kind)
        run.params.imgIds = [image['id'] for image in truth['images']]
        run.params.catIds = list(category_ids)
        run.params.maxDets = list(max_detections)
        run.params.iouThrs = IOU_THRESHOLDS
        run.params.areaRng = [list(bounds) for bounds in ranges.values()]
        run.params.areaRngLbl = list(ranges)
        run.evaluate()
        run.accumulate()
    return AveragePrecision(
        np.asarray(run.eval['precision']),
        np.asarray(run.eval['recall']),
        [int(k) for k in run.params.catIds],
        list(ranges),
        sorted(max_detections),
    )
