"""Figures of a detector, of boxes and of masks."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from .coco import IOU_THRESHOLDS, SIZES, AveragePrecision, average_precision, choose_package
from .matching import ImageMatches, confusion_matrix, errors_of, f1_curves, match_image
from .records import DetectedImage
from .shares import ratio, top_confusions

# Width over height.
ASPECTS = {'narrow': (0.0, 0.5), 'even': (0.5, 2.0), 'wide': (2.0, 1e10)}


class DetectionEvaluation:
    """All detections beside the truth.

    Args:
        records (Sequence[DetectedImage]): All images.
        truth (dict): See :func:`vik_mm.evaluation.truth.detection_truth`.
        max_detections (Sequence[int]): Most detections of an image and class. Defaults to (1, 10, 100).
        threshold (float, optional): Lowest score of what the confusion matrix and the pictures show; None takes the
            one with the highest F1. Defaults to None.
        package (str, optional): See :func:`vik_mm.evaluation.coco.choose_package`. Defaults to None.
    """

    def __init__(self, records, truth, max_detections=(1, 10, 100), threshold=None, package=None):
        self.records: Sequence[DetectedImage] = records
        self.truth = truth
        self.max_detections = sorted(max_detections)
        self.package = choose_package(package)
        self.ids = [category['id'] for category in truth['categories']]
        self.classes = [category['name'] for category in truth['categories']]
        self.kinds = ['bbox']
        has_shapes = all('segmentation' in a for a in truth['annotations'])
        if truth['annotations'] and has_shapes and any(record.masks is not None for record in records):
            self.kinds.append('segm')
        self._objects = self._gather_objects()
        self.matches = {kind: self._match(kind) for kind in self.kinds}
        self.curves = {kind: f1_curves(self.matches[kind], self.classes) for kind in self.kinds}
        self.thresholds: dict[str, float] = {
            kind: threshold if threshold is not None else (self.curves[kind]['best'] or 0.0) for kind in self.kinds
        }

    def figures(self) -> dict[str, Any]:
        """Compute all figures.

        Returns:
            dict[str, Any]: ``coco_package``, and for each of 'bbox' and 'segm': ``headline`` (``ap``, ``ap50``,
            ``ap75``, ``ar``, and F1, precision and recall at the threshold), ``per_class``, ``sizes``, ``quartiles``
            and ``aspects`` (a row each), ``pr_curves``, ``f1_curves``, ``threshold``, ``confusion``
            ``[C + 1][C + 1]``, truth by prediction with the background last, ``confusions`` and ``errors``.
        """
        return dict(coco_package=self.package, **{kind: self._figures(kind) for kind in self.kinds})

    def worst(self, count: int) -> list[int]:
        """Find the images with most errors; of masks, where there are any.

        Args:
            count (int): How many at most.

        Returns:
            list[int]: Places in ``records``, worst first.
        """
        kind = self.kinds[-1]
        errors = [sum(errors_of(image, self.thresholds[kind]).values()) for image in self.matches[kind]]
        return sorted((k for k, number in enumerate(errors) if number), key=lambda k: -errors[k])[:count]

    def _gather_objects(self) -> dict[Any, list[dict]]:
        """Group the truth by image, with labels and with masks as run-length codes."""
        labels = {id: label for label, id in enumerate(self.ids)}
        sizes = {image['id']: (image['height'], image['width']) for image in self.truth['images']}
        objects: dict[Any, list[dict]] = {id: [] for id in sizes}
        for annotation in self.truth['annotations']:
            entry = dict(annotation, label=labels[annotation['category_id']])
            if 'segm' in self.kinds:
                entry['segmentation'] = _to_rle(annotation['segmentation'], *sizes[annotation['image_id']])
            objects[annotation['image_id']].append(entry)
        return objects

    def _detections(self, record: DetectedImage, kind: str) -> list[dict[str, Any]]:
        from pycocotools import mask as mask_util

        scores = record.scores if kind == 'bbox' or record.mask_scores is None else record.mask_scores
        found = []
        for k, (left, top, right, bottom) in enumerate(record.boxes):
            label = int(record.labels[k])
            entry = dict(
                image_id=record.image_id,
                category_id=self.ids[label],
                label=label,
                score=float(scores[k]),
                bbox=[float(left), float(top), float(right - left), float(bottom - top)],
            )
            entry['area'] = entry['bbox'][2] * entry['bbox'][3]
            if kind == 'segm' and record.masks is not None:
                mask = record.masks[k]
                entry.update(segmentation=mask, area=float(mask_util.area(mask)), bbox=mask_util.toBbox(mask).tolist())
            found.append(entry)
        return found

    def _match(self, kind: str) -> list[ImageMatches]:
        most = self.max_detections[-1]
        matches = []
        for record in self.records:
            found = self._detections(record, kind)
            kept = []
            for label in sorted({entry['label'] for entry in found}):
                own = [entry for entry in found if entry['label'] == label]
                kept += sorted(own, key=lambda entry: -entry['score'])[:most]
            matches.append(match_image(kept, self._objects[record.image_id], kind))
        # Images that nothing was predicted on, because they are not in the data set, are missed whole, as COCO's.
        unseen = self._objects.keys() - {record.image_id for record in self.records}
        return matches + [match_image([], self._objects[id], kind) for id in unseen]

    def _figures(self, kind: str) -> dict[str, Any]:
        found = [entry for record in self.records for entry in self._detections(record, kind)]
        areas = [a['area'] for a in self.truth['annotations'] if not a['iscrowd']]
        edges = np.quantile(areas, [0, 0.25, 0.5, 0.75, 1]) if areas else np.zeros(5)
        edges[0], edges[-1] = 0, 1e10
        quartiles = {f'quartile {k + 1}': (float(edges[k]), float(edges[k + 1])) for k in range(4)}
        by_area = average_precision(
            self.truth, found, kind, self.ids, self.max_detections, {**SIZES, **quartiles}, self.package
        )
        # COCO's rules for ranges hold for any quantity that stands in the place of the area.
        shaped = dict(self.truth, annotations=[dict(a, area=_aspect(a)) for a in self.truth['annotations']])
        by_aspect = average_precision(
            *(shaped, [dict(entry, area=_aspect(entry)) for entry in found], kind, self.ids, self.max_detections),
            ASPECTS,
            self.package,
        )
        threshold = self.thresholds[kind]
        confusion = confusion_matrix(self.matches[kind], len(self.classes), threshold)
        return dict(
            headline=self._headline(by_area, confusion),
            threshold=threshold,
            per_class=self._per_class(kind, by_area, confusion),
            sizes=[self._stratum(by_area, name, bounds, 'area') for name, bounds in SIZES.items()],
            quartiles=[self._stratum(by_area, name, bounds, 'area') for name, bounds in quartiles.items()],
            aspects=[self._stratum(by_aspect, name, bounds, 'aspect') for name, bounds in ASPECTS.items()],
            pr_curves=_pr_curves(by_area, self.ids),
            f1_curves=self.curves[kind],
            confusion=confusion.tolist(),
            confusions=top_confusions(confusion, self.classes),
            errors={
                key: sum(errors_of(image, threshold)[key] for image in self.matches[kind])
                for key in ('missed', 'false_alarms', 'confused')
            },
        )

    def _headline(self, result: AveragePrecision, confusion: np.ndarray) -> dict[str, float]:
        # COCO's AP is that of 100 detections, its other figures those of the most.
        most = 100 if 100 in result.max_detections else None
        right = confusion[:-1, :-1].diagonal().sum()
        found, objects = confusion[:, :-1].sum(), confusion[:-1].sum()
        return dict(
            ap=result.mean(most=most),
            ap50=result.mean(iou=0.5),
            ap75=result.mean(iou=0.75),
            ar=result.mean('recall'),
            f1=float(ratio(2 * right, found + objects)),
            precision=float(ratio(right, found)),
            recall=float(ratio(right, objects)),
        )

    def _per_class(self, kind: str, result: AveragePrecision, confusion: np.ndarray) -> list[dict[str, Any]]:
        rows = []
        for label, (id, name) in enumerate(zip(self.ids, self.classes)):
            category = result.categories.index(id)
            right, found, objects = (confusion[label, label], confusion[:, label].sum(), confusion[label].sum())
            rows.append(
                dict(
                    name=name,
                    objects=int(objects),
                    ap=result.mean(category=category),
                    ap50=result.mean(iou=0.5, category=category),
                    ap75=result.mean(iou=0.75, category=category),
                    ar=result.mean('recall', category=category),
                    precision=float(ratio(right, found)),
                    recall=float(ratio(right, objects)),
                    best_threshold=self.curves[kind]['best_per_class'][label],
                )
            )
        return rows

    def _stratum(self, result: AveragePrecision, name: str, bounds, quantity: str) -> dict[str, Any]:
        values = [
            annotation['area'] if quantity == 'area' else _aspect(annotation)
            for annotation in self.truth['annotations']
            if not annotation['iscrowd']
        ]
        return dict(
            name=name,
            low=bounds[0],
            high=bounds[1],
            objects=sum(bounds[0] <= value <= bounds[1] for value in values),
            ap=result.mean(of=name),
            ap50=result.mean(iou=0.5, of=name),
            ar=result.mean('recall', of=name),
        )


def _pr_curves(result: AveragePrecision, ids: Sequence[int]) -> dict[str, Any]:
    curves: dict[str, Any] = dict(recall=np.linspace(0, 1, result.precision.shape[1]).tolist())
    for iou in (0.5, 0.75):
        values = result.precision[int(np.argmin(abs(IOU_THRESHOLDS - iou))), :, :, 0, -1]
        values = np.where(values > -1, values, np.nan)[:, [result.categories.index(id) for id in ids]]
        there = ~np.isnan(values).all(0)
        mean = values[:, there].mean(1) if there.any() else np.full(len(values), np.nan)
        curves[f'iou_{round(100 * iou)}'] = dict(mean=mean.tolist(), per_class=values.T.tolist())
    return curves


def _aspect(entry: dict[str, Any]) -> float:
    return float(entry['bbox'][2] / max(entry['bbox'][3], 1e-6))


def _to_rle(shape: Any, height: int, width: int) -> dict:
    from pycocotools import mask as mask_util

    if isinstance(shape, list):
        return mask_util.merge(mask_util.frPyObjects(shape, height, width))
    return mask_util.frPyObjects(shape, height, width) if isinstance(shape['counts'], list) else shape
