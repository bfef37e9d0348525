"""Which figure tells how good a model is."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from vik_mm.errors import BadInputError

# The main figure of each task; more of it is better.
TASK_METRICS = {
    'classification': 'accuracy/top1',
    'detection': 'coco/bbox_mAP',
    'instance': 'coco/segm_mAP',
    'segmentation': 'mIoU',
}
# The task that an evaluator is of, or what it calls its main figure.
_BY_EVALUATOR = {
    'Accuracy': TASK_METRICS['classification'],
    'MultiLabelMetric': 'multi-label/f1-score',
    'AveragePrecision': 'multi-label/mAP',
    'IoUMetric': TASK_METRICS['segmentation'],
    'VOCMetric': 'pascal_voc/mAP',
    'LVISMetric': 'lvis/bbox_AP',
    'CocoPanopticMetric': 'coco_panoptic/PQ',
}


def main_metric(cfg: Config) -> str:
    """Find what the validation of a config calls its main figure.

    Args:
        cfg (Config): A config.

    Returns:
        str: E.g. ``'coco/bbox_mAP'``.

    Raises:
        BadInputError: If the config does not validate, or its evaluator is unknown here.
    """
    evaluators = cfg.get('val_evaluator')
    if not evaluators or not cfg.get('val_dataloader'):
        raise BadInputError('the config has no val_evaluator, and nothing tells which checkpoint is the best')
    listed = evaluators if isinstance(evaluators, (list, tuple)) else [evaluators]
    for evaluator in listed:
        if (metric := _of_evaluator(evaluator)) is not None:
            return metric
    names = ', '.join(_name(each) for each in listed)
    raise BadInputError(
        f'it is not known what {names} calls its main figure: name it, as in --save-best coco/bbox_mAP; the log of a '
        'validation has the names'
    )


def rule_of(metric: str) -> str:
    """Say whether more or less of a figure is better, as MMEngine writes it.

    Args:
        metric (str): Its name in the log.

    Returns:
        str: 'greater' or 'less'.
    """
    return 'less' if any(word in metric.lower() for word in ('loss', 'error', 'mae', 'mse')) else 'greater'


def _of_evaluator(evaluator: Mapping[str, Any]) -> str | None:
    name = _name(evaluator)
    if name == 'CocoMetric':
        kinds = evaluator.get('metric', 'bbox')
        kinds = [kinds] if isinstance(kinds, str) else kinds
        metric = TASK_METRICS['instance' if 'segm' in kinds else 'detection']
    elif name in _BY_EVALUATOR:
        metric = _BY_EVALUATOR[name]
    else:
        return None
    prefix = evaluator.get('prefix')
    return f'{prefix}/{metric.rsplit("/", 1)[-1]}' if prefix else metric


def _name(evaluator: Mapping[str, Any]) -> str:
    kind = evaluator.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]
