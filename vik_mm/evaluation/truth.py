"""What detections are compared with: the annotations that the config's own evaluator reads, or the data set's."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vik_mm.errors import BadInputError


def detection_truth(dataset: Any, ann_file: str | None = None) -> dict[str, Any]:
    """Collect the truth of a data set in COCO's form.

    Args:
        dataset (Dataset): The data set, of any type that MMDetection knows.
        ann_file (str, optional): The annotation file that the config's evaluator reads. None takes what the data set
            says about each image. Defaults to None.

    Returns:
        dict[str, Any]: ``images``, ``categories`` and ``annotations``; the categories are those of the data set's
        classes, in the order of its labels.

    Raises:
        BadInputError: If the file has none of the classes.
    """
    classes = dataset.metainfo['classes']
    if ann_file is None:
        return _of_dataset(dataset, classes)
    content = json.loads(Path(ann_file).read_bytes())
    # Labels are numbered in the order of the file, as pycocotools looks categories up.
    categories = [c for c in content['categories'] if c['name'] in classes]
    if not categories:
        raise BadInputError(f'{ann_file} has categories for none of the classes {list(classes)}')
    ids = {category['id'] for category in categories}
    annotations = [a for a in content.get('annotations', []) if a['category_id'] in ids]
    for annotation in annotations:
        annotation.setdefault('iscrowd', 0)
        annotation.setdefault('area', annotation['bbox'][2] * annotation['bbox'][3])
    return dict(images=content['images'], categories=categories, annotations=annotations)


def _of_dataset(dataset, classes: Sequence[str]) -> dict[str, Any]:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(dataset)):
        info = dataset.get_data_info(index)
        name = str(info.get('img_path') or '')
        images.append(dict(id=info['img_id'], file_name=name, height=info['height'], width=info['width']))
        for instance in info.get('instances', []):
            left, top, right, bottom = map(float, instance['bbox'])
            annotation = dict(
                id=len(annotations) + 1,
                image_id=info['img_id'],
                category_id=int(instance['bbox_label']),
                bbox=[left, top, right - left, bottom - top],
                area=(right - left) * (bottom - top),
                iscrowd=int(instance.get('ignore_flag', 0)),
            )
            if instance.get('mask'):
                annotation['segmentation'] = instance['mask']
            annotations.append(annotation)
    categories = [dict(id=label, name=name) for label, name in enumerate(classes)]
    return dict(images=images, categories=categories, annotations=annotations)
