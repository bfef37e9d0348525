"""Pipelines, data loaders and evaluators of a recipe, in the dialect of the package that trains its task."""

from typing import Any

from vik_mm.datasets.folders import PreparedData

from .class_names import why_no_colour_change, why_no_flip
from .plan import Plan
from .text import Named

SCOPES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'instance': 'mmdet', 'segmentation': 'mmseg'}
# In the place of what the file sets above, so that one line of it changes all.
_ROOT, _CLASSES, _BATCH = Named('image_root'), Named('classes'), Named('batch_size')
_LOAD: dict[str, Any] = dict(type='LoadImageFromFile')


def pipelines(data: PreparedData, plan: Plan, has_masks: bool) -> tuple[list[dict], list[dict], list[str]]:
    """Make the pipelines of training and testing.

    Args:
        data (PreparedData): The data.
        plan (Plan): Its numbers.
        has_masks (bool): Whether the model learns masks of objects.

    Returns:
        tuple[list[dict], list[dict], list[str]]: Both pipelines, and comments on them.
    """
    comments = []
    flip: list[dict[str, Any]] = [dict(type='RandomFlip', prob=0.5)]
    if reason := why_no_flip(data.classes):
        flip = []
        comments.append(f'No mirror images: {reason}.')
    is_gray = why_no_colour_change(data.classes)
    if is_gray:
        comments.append(f'No change of colours: {is_gray}.')
    train, test = _MAKERS[SCOPES[data.task]](plan, flip, not is_gray, has_masks)
    return train, test, comments


def _classification(plan: Plan, flip: list[dict], may_recolour: bool, _) -> tuple[list[dict], list[dict]]:
    size = Named('image_size')
    if flip:
        flip = [dict(flip[0], direction='horizontal')]
    colour = [dict(type='ColorJitter', brightness=0.3, contrast=0.3, saturation=0.3)] if may_recolour else []
    train: list[dict] = [
        _LOAD,
        dict(type='RandomResizedCrop', scale=size, crop_ratio_range=(0.5, 1.0)),
        *flip,
        *colour,
        dict(type='PackInputs'),
    ]
    edge = Named('round(image_size * 8 / 7)')
    test: list[dict] = [
        _LOAD,
        dict(type='ResizeEdge', scale=edge, edge='short'),
        dict(type='CenterCrop', crop_size=size),
        dict(type='PackInputs'),
    ]
    return train, test


def _detection(plan: Plan, flip: list[dict], may_recolour: bool, has_masks: bool) -> tuple[list[dict], list[dict]]:
    load = dict(type='LoadAnnotations', with_bbox=True, **(dict(with_mask=True) if has_masks else {}))
    scale = Named('image_size')
    train: list[dict] = [
        _LOAD,
        load,
        dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.25), keep_ratio=True),
        *flip,
        *([dict(type='PhotoMetricDistortion')] if may_recolour else []),
        dict(type='PackDetInputs'),
    ]
    test: list[dict] = [
        _LOAD,
        dict(type='Resize', scale=scale, keep_ratio=True),
        load,
        dict(type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
    ]
    return train, test


def _segmentation(plan: Plan, flip: list[dict], may_recolour: bool, _) -> tuple[list[dict], list[dict]]:
    scale = Named('image_size')
    train: list[dict] = [
        _LOAD,
        dict(type='LoadAnnotations'),
        dict(type='RandomResize', scale=scale, ratio_range=(0.75, 1.5), keep_ratio=True),
        dict(type='RandomCrop', crop_size=Named('crop_size'), cat_max_ratio=0.75),
        *flip,
        *([dict(type='PhotoMetricDistortion')] if may_recolour else []),
        dict(type='PackSegInputs'),
    ]
    test: list[dict] = [
        _LOAD,
        dict(type='Resize', scale=scale, keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='PackSegInputs'),
    ]
    return train, test


_MAKERS = dict(mmpretrain=_classification, mmdet=_detection, mmseg=_segmentation)


def image_size_names(data: PreparedData, plan: Plan) -> dict[str, Any]:
    """Make the names that the pipelines use.

    Args:
        data (PreparedData): The data.
        plan (Plan): Its numbers.

    Returns:
        dict[str, Any]: Values by name.
    """
    if data.task == 'classification':
        return dict(image_size=plan.crop)
    if data.task == 'segmentation':
        return dict(image_size=(plan.long_side, plan.short_side), crop_size=(plan.crop, plan.crop))
    return dict(image_size=(plan.long_side, plan.short_side))


def dataset(data: PreparedData, split: str, pipeline: Any, has_masks: bool = False) -> dict[str, Any]:
    """Make the config of one split's data set.

    Args:
        data (PreparedData): The data.
        split (str): 'train', 'val' or 'test'; without a split of its own, testing reads 'val'.
        pipeline (Any): What goes into its ``pipeline``.
        has_masks (bool): Whether the model learns masks of objects. Defaults to False.

    Returns:
        dict[str, Any]: The config; the file sets the names that it uses.
    """
    found = data.splits.get(split) or data.splits['val']
    scope = SCOPES[data.task]
    made: dict[str, Any] = dict(type=f'{scope}.{_DATASETS[scope]}', ann_file=str(found.ann_file))
    made['metainfo'] = dict(classes=_CLASSES)
    if scope == 'mmseg':
        # The lists name images with their endings; the map of a/b.jpg is a/b.jpg.png.
        made.update(data_prefix=dict(img_path=_ROOT, seg_map_path=Named('label_map_root')))
        made.update(img_suffix='', seg_map_suffix='.png', reduce_zero_label=False)
    elif scope == 'mmdet':
        made.update(data_prefix=dict(img=_ROOT))
        if split == 'train':
            made.update(filter_cfg=dict(filter_empty_gt=True, min_size=1))
    else:
        made.update(data_prefix=_ROOT)
    if split != 'train':
        made.update(test_mode=True)
    return {**made, 'pipeline': pipeline}


_DATASETS = dict(mmpretrain='CustomDataset', mmdet='CocoDataset', mmseg='BaseSegDataset')


def loader(split: str, of_split: dict[str, Any], plan: Plan, is_classifier: bool) -> dict[str, Any]:
    """Make the config of a data loader.

    Args:
        split (str): 'train', 'val' or 'test'.
        of_split (dict[str, Any]): Config of its data set.
        plan (Plan): The recipe's numbers.
        is_classifier (bool): Whether MMPretrain trains on it.

    Returns:
        dict[str, Any]: The config.
    """
    is_train = split == 'train'
    drop_last = dict(drop_last=True) if plan.drop_last else {}
    return dict(
        batch_size=_BATCH if is_train or is_classifier else 1,
        num_workers=plan.workers,
        persistent_workers=True,
        **(dict(collate_fn=dict(type='default_collate')) if is_classifier else {}),
        sampler=dict(type='DefaultSampler', shuffle=is_train),
        **(dict(batch_sampler=dict(type='ResumableBatchSampler', **drop_last)) if is_train else {}),
        worker_init_fn=dict(type='outlive_signals'),
        dataset=of_split,
    )


def evaluator(data: PreparedData, split: str, has_masks: bool) -> dict[str, Any]:
    """Make the config of an evaluator.

    Args:
        data (PreparedData): The data.
        split (str): 'val' or 'test'.
        has_masks (bool): Whether the model learns masks of objects.

    Returns:
        dict[str, Any]: The config.
    """
    if data.task == 'classification':
        return dict(type='mmpretrain.Accuracy', topk=(1, 5) if len(data.classes) > 5 else (1,))
    if data.task == 'segmentation':
        return dict(type='mmseg.IoUMetric', iou_metrics=['mIoU'])
    ann_file = str((data.splits.get(split) or data.splits['val']).ann_file)
    return dict(type='mmdet.CocoMetric', ann_file=ann_file, metric=['bbox', 'segm'] if has_masks else 'bbox')
