"""Runs the test loop of a config, for tools/test.py and for reports."""

import os
from typing import Any

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.registry import RUNNERS

from vik_mm.checkpoints import load_runner_weights
from vik_mm.config import fit_to_machine
from vik_mm.datasets.layouts import check_datasets, explain_failed_downloads
from vik_mm.deploy import exported_format, run_exported
from vik_mm.engine.runner import complete_config, init_distributed
from vik_mm.errors import BadInputError
from vik_mm.recipes import add_tta, keep_config_file, use_tta

from .classification import classification_figures
from .detection import DetectionEvaluation
from .findings import findings
from .records import ClassifiedImage, DetectedImage, PredictionRecords, SegmentedImage
from .report_data import Evaluation
from .segmentation import segmentation_figures
from .truth import detection_truth

SPLITS = ('test', 'val')
# Their figures are among the report's, which computes them faster and in more detail.
_REPLACED = {'Accuracy', 'CocoMetric', 'IoUMetric'}


def prepare_test(
    cfg: Config,
    checkpoint: str | os.PathLike,
    is_amp: bool = False,
    is_compiled: bool = False,
    is_tta: bool = False,
    launcher: str = 'none',
    local_rank: int = 0,
) -> None:
    """Make a config ready for its test loop with a checkpoint, and start the processes' group.

    Args:
        cfg (Config): Changed in place.
        checkpoint (str | PathLike): A checkpoint, or a file of tools/export.py.
        is_amp (bool): Whether to test in mixed precision. Defaults to False.
        is_compiled (bool): Whether to compile the backbone. Defaults to False.
        is_tta (bool): Whether to look at each image several times. Defaults to False.
        launcher (str): What started the processes, as of tools/train.py. Defaults to 'none'.
        local_rank (int): Number of this process on its machine. Defaults to 0.

    Raises:
        BadInputError: If the checkpoint cannot be read, or images cannot be looked at several times.
    """
    if is_tta:
        if exported_format(checkpoint):
            raise BadInputError('--tta needs a checkpoint; a file of tools/export.py is tested as it is')
        add_tta(cfg)
    if is_amp:
        cfg.test_cfg = dict(cfg.get('test_cfg') or {}, fp16=True)
    # A checkpoint's weights are the averages. The hook would look for averages before it has made room for them.
    cfg.custom_hooks = [hook for hook in cfg.get('custom_hooks') or [] if hook.get('type') != 'EMAHook']
    if cfg.get('runner_type') == 'FlexibleRunner':
        # What divides a training; each process tests with the model whole.
        cfg.pop('runner_type')
        cfg.pop('strategy', None)
    # The weights are loaded strictly by build_test_runner.
    cfg.load_from, cfg.resume = None, False
    if is_compiled:
        cfg.compile = True
    complete_config(cfg, is_training=False)
    init_distributed(cfg, launcher, local_rank)
    if is_tta:
        use_tta(cfg)
    fit_to_machine(cfg)


def use_tiles(cfg: Config, tile: int, overlap: float = 0.2, tile_batch_size: int = 1) -> None:
    """Have a config's test predict in windows of each picture.

    Args:
        cfg (Config): Changed in place.
        tile (int): Side of the windows, in pixels of the picture.
        overlap (float): Share of a window's side that the next window sees too. Defaults to 0.2.
        tile_batch_size (int): Windows that are computed together. Defaults to 1.
    """
    given = {key: value for key, value in (cfg.get('test_cfg') or {}).items() if key == 'fp16'}
    windows = dict(tile=tile, overlap=overlap, tile_batch_size=tile_batch_size)
    cfg.test_cfg = dict(given, type='TiledTestLoop', **windows)


def build_test_runner(cfg: Config, checkpoint: str | os.PathLike) -> Any:
    """Build the Runner of a config, with the weights of a checkpoint.

    Args:
        cfg (Config): What :func:`prepare_test` has made.
        checkpoint (str | PathLike): A checkpoint, or a file of tools/export.py.

    Returns:
        Runner: Ready for its ``test()``.

    Raises:
        BadInputError: If the checkpoint does not fit the config.
    """
    config_file = cfg.filename or 'the config'
    cfg = keep_config_file(cfg)
    runner = RUNNERS.build(cfg)
    try:
        # Strict: with a weight missing, the figures that come out would be those of no model.
        if exported_format(checkpoint):
            run_exported(runner.model, checkpoint)
        else:
            load_runner_weights(runner, checkpoint)
    except BadInputError as error:
        raise BadInputError(f'{checkpoint} does not fit {config_file}: {error}') from error
    return runner


def evaluate(
    cfg: Config,
    checkpoint: str | os.PathLike,
    split: str | None = None,
    score_thr: float | None = None,
    num_pictures: int = 12,
    **options: Any,
) -> Evaluation | None:
    """Predict on a split of a config's data with its own test loop, and compute all figures.

    :func:`vik_mm.visualization.write_report` makes a page of them.

    Args:
        cfg (Config): Of MMPretrain, MMDetection or MMSegmentation; changed in place.
        checkpoint (str | PathLike): A checkpoint, or a file of tools/export.py.
        split (str, optional): 'test' or 'val'; None takes 'test' where the config has one. Defaults to None.
        score_thr (float, optional): Lowest score of detections that the confusion matrix and the pictures show; None
            takes the one with the highest F1. Defaults to None.
        num_pictures (int): Worst images to keep. Defaults to 12.
        **options: Of :func:`prepare_test`.

    Returns:
        Evaluation | None: The figures; None on all but the main process.

    Raises:
        BadInputError: If the config has no such split, or its predictions cannot be evaluated.
    """
    split = select_split(cfg, split)
    check_datasets(cfg, splits=('test',))
    own = cfg.test_evaluator if isinstance(cfg.test_evaluator, (list, tuple)) else [cfg.test_evaluator]
    replaced = [metric for metric in own if _name(metric) in _REPLACED]
    cfg.test_evaluator = [metric for metric in own if metric not in replaced]
    prepare_test(cfg, checkpoint, **options)
    runner = build_test_runner(cfg, checkpoint)
    ignore_index = next((m.get('ignore_index', 255) for m in replaced if _name(m) == 'IoUMetric'), 255)
    records = PredictionRecords(num_pictures, ignore_index)
    dataset = runner.test_dataloader.dataset
    records.dataset_meta = dataset.metainfo
    runner.test_loop.evaluator.metrics.append(records)
    with explain_failed_downloads(cfg):
        others = runner.test()
    if not is_main_process():
        return None
    result = Evaluation(
        task='',
        classes=list(dataset.metainfo['classes']),
        split=split,
        config=str(cfg.filename or ''),
        checkpoint=str(checkpoint),
        records=records.records,
        other_metrics={key: float(value) for key, value in others.items() if isinstance(value, (int, float))},
        dataset=dataset,
    )
    _add_figures(result, next((m for m in replaced if _name(m) == 'CocoMetric'), {}), score_thr)
    result.findings = findings(result.task, result.figures)
    return result


def select_split(cfg: Config, split: str | None) -> str:
    """Make a config's test loop read one of its splits.

    Args:
        cfg (Config): Changed in place.
        split (str, optional): 'test' or 'val'; None takes 'test' where the config has one.

    Returns:
        str: The split.

    Raises:
        BadInputError: If the config has no such split.
    """
    there = [name for name in SPLITS if cfg.get(f'{name}_dataloader') and cfg.get(f'{name}_evaluator')]
    if split is None and there:
        split = there[0]
    if split not in there:
        raise BadInputError(
            f'the config has no {split or "test"}_dataloader with a {split or "test"}_evaluator; '
            + (f'take --split {there[0]}' if there else 'it needs one to be evaluated')
        )
    cfg.test_dataloader, cfg.test_evaluator = cfg[f'{split}_dataloader'], cfg[f'{split}_evaluator']
    if cfg.get('test_cfg') is None:
        cfg.test_cfg = dict()
    return split


def _add_figures(result: Evaluation, coco_metric: dict, score_thr: float | None) -> None:
    records = result.records
    if not records:
        raise BadInputError(f'the {result.split} split has no images')
    if isinstance(records[0], ClassifiedImage):
        result.task = 'classification'
        result.figures = classification_figures(records, result.classes)
    elif isinstance(records[0], SegmentedImage):
        result.task = 'segmentation'
        result.figures = segmentation_figures(records, result.classes)
    else:
        assert isinstance(records[0], DetectedImage)
        result.task = 'detection'
        truth = detection_truth(result.dataset, coco_metric.get('ann_file'))
        # As MMDetection's CocoMetric.
        most = coco_metric.get('proposal_nums', (100, 300, 1000))
        result.detection = DetectionEvaluation(records, truth, most, score_thr)
        result.classes = result.detection.classes
        result.figures = result.detection.figures()


def _name(metric: dict) -> str:
    return str(metric.get('type', '')).rsplit('.', 1)[-1]
