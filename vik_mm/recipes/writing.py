"""Writes ``work_dirs/NAME/config.py``: an ordinary config, derived from a user's data, for people to read and edit."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vik_mm.checkpoints.atomic_files import write_atomically
from vik_mm.config import load_config
from vik_mm.datasets.folders import PreparedData
from vik_mm.datasets.nesting import innermost_configs
from vik_mm.errors import BadInputError

from . import loaders
from .anchors import fit_anchors
from .metrics import TASK_METRICS
from .models import copied, foreign_config, is_short_name, needs_masks, set_classes, short_model
from .plan import Plan, make_plan, scaling
from .schedules import set_epochs, set_lr
from .text import Named, write_comment, write_value
from .weights import Source, check_source

DEFAULT_BACKBONE = 'vik-t'
_DIGEST = '# vik_mm wrote the lines above; their SHA-256: '
_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Transforms that stand in plain pipelines, whose place the recipe's own pipelines take.
_PLAIN = frozenset(
    (
        *('LoadImageFromFile', 'LoadAnnotations', 'Resize', 'RandomResize', 'RandomChoiceResize', 'RandomCrop'),
        *('RandomFlip', 'PhotoMetricDistortion', 'Pad', 'PackDetInputs', 'PackSegInputs', 'PackInputs'),
        *('RandomResizedCrop', 'ResizeEdge', 'CenterCrop', 'RandomChoice', 'Normalize'),
    )
)


@dataclass
class Section:
    """A part of the file.

    Args:
        title (str): Its first comment.
        values (dict[str, Any]): What it sets, by name.
        comments (list[str]): Further comments below the title.
    """

    title: str
    values: dict[str, Any]
    comments: list[str]


def write_config(
    data: PreparedData,
    path: str | Path,
    *,
    model: str | None = None,
    backbone: str | None = None,
    pretrained: Source | None = None,
    epochs: int | None = None,
    lr: float | None = None,
    batch_size: int | None = None,
    image_size: int | None = None,
    change: Callable[[Config], list[str]] | None = None,
) -> Config:
    """Write a config that trains a model on a user's data.

    Args:
        data (PreparedData): The data.
        path (str | Path): The file; its folder becomes the work dir.
        model (str, optional): A short name, as 'mask-rcnn', or a config, as ``mmdet::retinanet/...py``; None takes the
            task's default. Defaults to None.
        backbone (str, optional): As ``--backbone`` takes it. None takes 'vik-t' for short names, and a config's own.
            Defaults to None.
        pretrained (Source, optional): Weights that the backbone begins with. Defaults to None.
        epochs (int, optional): Epochs; None derives them from the number of images. Defaults to None.
        lr (float, optional): Learning rate; None derives it from the batch size. Defaults to None.
        batch_size (int, optional): Images of a batch. Defaults to None.
        image_size (int, optional): Longer side of images for detection, side of crops for others. Defaults to None.
        change (Callable, optional): Changes the config before it is written, and returns the keys at its top that it
            has changed. Defaults to None.

    Returns:
        Config: The config, as the file has it.

    Raises:
        BadInputError: If the model does not go with the data, a number makes no sense, weights do not fit, or the file
            was edited since it was written, or is of other data.
    """
    path = Path(path)
    numbers: dict[str, Any] = dict(epochs=epochs, lr=lr, batch_size=batch_size, image_size=image_size)
    plan = make_plan(data, is_pretrained=pretrained is not None, **numbers)
    if is_short_name(model):
        sections = _own_sections(data, plan, model, backbone or DEFAULT_BACKBONE, pretrained)
    else:
        sections = _foreign_sections(data, plan, str(model), backbone, pretrained, numbers)
    sections[0].values['work_dir'] = str(path.parent)
    header = _header(data, path, model, backbone)
    _refuse_to_overwrite(path, data)
    _write(path, header, sections)
    cfg = load_config(str(path))
    if pretrained is not None:
        try:
            check_source(pretrained, cfg)
        except BadInputError:  # nothing that cannot be trained is left
            path.unlink()
            raise
    if change is not None and (changed := change(cfg)):
        _apply(sections, cfg, changed)
        _write(path, header, sections)
        cfg = load_config(str(path))
    return cfg


def is_as_written(path: str | Path) -> bool:
    """Whether a config is, to the letter, what was written.

    Args:
        path (str | Path): The file.

    Returns:
        bool: False if it was edited, or written by somebody else.
    """
    text, mark, digest = Path(path).read_text(encoding='utf-8').rpartition(_DIGEST)
    return bool(mark) and _digest(text) == digest.strip()


def _refuse_to_overwrite(path: Path, data: PreparedData) -> None:
    if not path.exists():
        return
    if not is_as_written(path):
        raise BadInputError(
            f'{path} was edited, and is not overwritten. To train with it: python tools/train.py {path}. For a new '
            'config, delete it, or name another folder with --work-dir'
        )
    if f'# Data: {data.source}\n' not in path.read_text(encoding='utf-8'):
        raise BadInputError(
            f'{path} is of other data than {data.source}, and is not overwritten: name another folder with --work-dir'
        )


def _header(data: PreparedData, path: Path, model: str | None, backbone: str | None) -> str:
    counts = ', '.join(f'{split.num_images:,} images to {name}' for name, split in data.splits.items())
    what = ' and '.join(filter(None, (model or 'the default model', backbone)))
    return '\n'.join(
        (
            f'# Data: {data.source}',
            write_comment(f'{data.task} with {what}: {len(data.classes)} classes, {counts}. Edit what you like, then'),
            f'#   python tools/train.py {path}',
        )
    )


def _own_sections(
    data: PreparedData, plan: Plan, name: str | None, backbone: str, pretrained: Source | None
) -> list[Section]:
    """Make the parts of a config for one of this project's models."""
    model = short_model(data, name, backbone, plan, pretrained is not None)
    comments = []
    if pretrained is not None:
        model['backbone']['init_cfg'] = pretrained.init_cfg
    has_masks = 'mask_head' in (model.get('roi_head') or {})
    generator = (model.get('rpn_head') or model.get('bbox_head') or {}).get('anchor_generator')
    if generator:
        found = fit_anchors(generator, data.box_sizes, scaling(data, plan))
        generator.update(found.settings)
        comments += [f'Anchors, {reason}.' for reason in found.reasons]
    set_classes(model, Named('num_classes'))  # type: ignore[arg-type]
    if data.task == 'segmentation':
        _set_windows(model, plan)
    sections = [_data_section(data, plan, is_own=True), *_loader_sections(data, plan, has_masks)]
    sections.append(_schedule_section(plan, pretrained is not None, bool(generator)))
    values = dict(model=model)
    if data.task == 'classification':
        values = (
            dict(data_preprocessor=dict(num_classes=Named('num_classes'), mean=_MEAN, std=_STD, to_rgb=True)) | values
        )
    title = "The model. Images are normalised as those that ViK's checkpoints were trained on."
    return [*sections, Section(title, values, comments), _runtime_section(data, plan, has_masks)]


def _set_windows(model: dict[str, Any], plan: Plan) -> None:
    """Test in windows of the size of training's crops, where images are larger."""
    if plan.long_side <= plan.crop:
        model['test_cfg'] = dict(mode='whole')
        return
    stride = plan.crop * 3 // 4
    model['test_cfg'] = dict(mode='slide', crop_size=(plan.crop, plan.crop), stride=(stride, stride))


def _data_section(data: PreparedData, plan: Plan, is_own: bool) -> Section:
    values: dict[str, Any] = dict(
        custom_imports=dict(imports=['vik_mm'], allow_failed_imports=False),
        default_scope=loaders.SCOPES[data.task],
        work_dir='',
        image_root=str(data.image_root),
    )
    if data.label_map_root is not None:
        values['label_map_root'] = str(data.label_map_root)
    values['classes'] = tuple(data.classes)
    values['num_classes'] = len(data.classes)
    values |= loaders.image_size_names(data, plan)
    values['batch_size'] = plan.batch_size
    if is_own:
        values |= dict(epochs=plan.epochs, lr=plan.lr)
    values['report'] = True  # tools/train.py reads it
    comments = [note[0].upper() + note[1:] + '.' for note in plan.notes]
    comments.append('report: whether the best checkpoint is evaluated, into report_val, when training is complete.')
    return Section('What you may want to change', values, comments)


def _loader_sections(data: PreparedData, plan: Plan, has_masks: bool) -> list[Section]:
    train, test, comments = loaders.pipelines(data, plan, has_masks)
    is_classifier = data.task == 'classification'
    values: dict[str, Any] = {}
    evaluators: dict[str, Any] = {}
    for split in ('train', 'val', 'test'):
        if split == 'test' and split not in data.splits:
            values['test_dataloader'], evaluators['test_evaluator'] = Named('val_dataloader'), Named('val_evaluator')
            continue
        pipeline = Named('train_pipeline' if split == 'train' else 'test_pipeline')
        of_split = loaders.dataset(data, split, pipeline, has_masks)
        values[f'{split}_dataloader'] = loaders.loader(split, of_split, plan, is_classifier)
        if split != 'train':
            evaluators[f'{split}_evaluator'] = loaders.evaluator(data, split, has_masks)
    return [
        Section('What happens to an image', dict(train_pipeline=train, test_pipeline=test), comments),
        Section('How images are read, and what is measured', values | evaluators, []),
    ]


def _schedule_section(plan: Plan, is_pretrained: bool, is_detector: bool) -> Section:
    settings: dict[str, Any] = dict(
        flat_decay_mult=0.0,
        custom_keys={
            f'.{name}': dict(decay_mult=0.0) for name in ('centers', 'log_widths', 'numerator', 'denominator')
        },
    )
    wrapper: dict[str, Any] = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=Named('lr'), weight_decay=0.05),
        clip_grad=dict(max_norm=5.0),
    )
    if is_detector and not is_pretrained:
        settings['custom_keys']['.global_in'] = dict(lr_mult=0.08)  # with a start at zero: docs/global_step.md
    if is_pretrained:
        # Early layers, which are the most general, change least.
        wrapper['constructor'] = 'LayerDecayOptimWrapperConstructor'
        settings = dict(layer_decay_rate=0.95, **settings)
    wrapper['paramwise_cfg'] = settings
    by_epoch = dict(by_epoch=True, convert_to_iter_based=True)
    rise = dict(type='LinearLR', start_factor=1e-2, begin=0, end=plan.warm_up, **by_epoch)
    fall = dict(
        type='CosineAnnealingLR', eta_min=Named('lr / 100'), begin=plan.warm_up, end=Named('epochs'), **by_epoch
    )
    values = dict(
        optim_wrapper=wrapper,
        param_scheduler=[rise, fall] if plan.warm_up else [fall],
        train_cfg=dict(type='ResumableEpochLoop', max_epochs=Named('epochs'), val_interval=plan.val_interval),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
    )
    return Section('AdamW; the rate rises at first, and then falls to the end. Weight decay spares bases', values, [])


def _runtime_section(data: PreparedData, plan: Plan, has_masks: bool) -> Section:
    scope = loaders.SCOPES[data.task]
    hook = dict(mmpretrain='VisualizationHook', mmdet='DetVisualizationHook', mmseg='SegVisualizationHook')[scope]
    kind = dict(mmpretrain='UniversalVisualizer', mmdet='DetLocalVisualizer', mmseg='SegLocalVisualizer')[scope]
    best = TASK_METRICS['detection' if data.task == 'instance' and not has_masks else data.task]
    values = dict(
        default_hooks=dict(
            timer=dict(type='IterTimerHook'),
            logger=dict(type='LoggerHook', interval=plan.log_interval),
            param_scheduler=dict(type='ParamSchedulerHook'),
            checkpoint=dict(
                type='AtomicCheckpointHook',
                interval=plan.val_interval,
                max_keep_ckpts=2,
                save_best=best,
                rule='greater',
            ),
            sampler_seed=dict(type='DistSamplerSeedHook'),
            visualization=dict(type=hook),
            sanity_check=dict(type='SanityCheckHook'),
            nonfinite_loss=dict(type='NonFiniteLossHook'),
        ),
        custom_hooks=[dict(type='ProgressHook')],
        env_cfg=dict(
            cudnn_benchmark=False,
            mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
            dist_cfg=dict(backend='nccl'),
        ),
        visualizer=dict(type=kind, vis_backends=[dict(type='LocalVisBackend')]),
        log_processor=dict(type='LogProcessor', window_size=50, by_epoch=True),
    )
    return Section('Log and checkpoints', values, [])


def _foreign_sections(
    data: PreparedData,
    plan: Plan,
    name: str,
    backbone: str | None,
    pretrained: Source | None,
    numbers: dict[str, Any],
) -> list[Section]:
    """Put the data into a config of others; schedule, optimizer and hooks stay, but for what was asked for."""
    cfg = foreign_config(name, backbone, data.task)
    has_masks = needs_masks(cfg)
    comments = [f'Schedule, optimizer and hooks are those of {name}.']
    _set_numbers(cfg, plan, numbers, comments)
    rest = {key: value for key, value in copied(cfg._cfg_dict).items() if not key.startswith('_')}
    set_classes(rest['model'], len(data.classes))
    set_classes(rest.get('data_preprocessor'), len(data.classes), 'data_preprocessor')
    if pretrained is not None:
        rest['model']['backbone'].pop('pretrained', None)
        rest['model']['backbone']['init_cfg'] = pretrained.init_cfg
    is_plain = all(_is_plain(each.get('pipeline')) for each in innermost_configs(rest['train_dataloader']['dataset']))
    parts = _loader_sections(data, plan, has_masks)
    if is_plain and data.task == 'segmentation' and 'data_preprocessor' in rest['model']:
        rest['model']['data_preprocessor']['size'] = Named('crop_size')
        _set_windows(rest['model'], plan)
    own = {**parts[0].values, **parts[1].values}
    if not is_plain:
        comments.append('Its pipelines mix images or do what only it needs; they stay, with its image sizes.')
        parts[0] = Section(parts[0].title, {}, parts[0].comments)
    for split in ('train', 'val', 'test'):
        key = f'{split}_dataloader'
        if isinstance(own[key], Named):
            continue
        own[key] = _merged_loader(rest.get(key) or {}, own[key], split, is_plain)
        parts[1].values[key] = own[key]
    rest['val_cfg'] = rest.get('val_cfg') or dict(type='ValLoop')
    rest['test_cfg'] = rest.get('test_cfg') or dict(type='TestLoop')
    first = _data_section(data, plan, is_own=False)
    done = {*first.values, *parts[0].values, *parts[1].values, 'train_pipeline', 'test_pipeline', 'work_dir'}
    dropped = {'data_root', 'dataset_type', 'metainfo', 'tta_pipeline', 'tta_model', 'img_ratios'}
    kept = {key: value for key, value in rest.items() if key not in done | dropped}
    return [first, *parts, Section(f'From {name}', kept, comments)]


def _set_numbers(cfg: Config, plan: Plan, numbers: dict[str, Any], comments: list[str]) -> None:
    """Fit the length of a config's schedule to the number of images, where it counts epochs."""
    loop = cfg.get('train_cfg') or {}
    if loop.get('max_epochs'):
        set_epochs(cfg, plan.epochs)
    elif numbers['epochs']:
        set_epochs(cfg, numbers['epochs'])  # says why not
    else:
        comments.append(f'It counts iterations, {loop.get("max_iters")} of them: train_cfg.max_iters sets fewer.')
    if numbers['lr']:
        set_lr(cfg, numbers['lr'])
    elif cfg.get('auto_scale_lr') and cfg.auto_scale_lr.get('base_batch_size'):
        cfg.auto_scale_lr.enable = True
        comments.append('Its learning rate is scaled by the batch size: auto_scale_lr.')


def _is_plain(pipeline: Any) -> bool:
    return all(str(each.get('type')).rsplit('.', 1)[-1] in _PLAIN for each in pipeline or [])


def _merged_loader(theirs: dict[str, Any], own: dict[str, Any], split: str, is_plain: bool) -> dict[str, Any]:
    """Put the data into a data loader of others; data sets that mix or repeat images stay around it."""
    old = theirs.get('dataset') or {}
    inner = list(innermost_configs(old))
    if is_plain or not inner:
        return own
    made = {**own['dataset'], 'pipeline': inner[0].get('pipeline')}
    if len(inner) == 1 and inner[0] is not old:
        inner[0].clear()
        inner[0].update(made)
        return {**theirs, 'batch_size': own['batch_size'], 'dataset': old}
    return {**theirs, 'batch_size': own['batch_size'], 'dataset': made}


def _apply(sections: list[Section], cfg: Config, changed: list[str]) -> None:
    """Write what flags have changed in the place of what stood there."""
    for key in dict.fromkeys(changed):
        value = copied(cfg[key])
        place = next((each for each in sections if key in each.values), sections[-1])
        place.values[key] = value


def _write(path: Path, header: str, sections: list[Section]) -> None:
    blocks = [header]
    for section in sections:
        if not section.values and not section.comments:
            continue
        lines = [write_comment(section.title), *map(write_comment, section.comments)]
        lines += [f'{key} = {write_value(value, len(key) + 3)}' for key, value in section.values.items()]
        blocks.append('\n'.join(lines))
    text = '\n\n'.join(blocks) + '\n'
    write_atomically(f'{text}{_DIGEST}{_digest(text)}\n'.encode(), path)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
