"""What other frameworks have as switches, written as ordinary MMEngine config; each function says what it wrote."""

import copy
import importlib.util
from typing import Any

from mmengine.config import Config

from vik_mm.config.known_keys import known_keys
from vik_mm.datasets.nesting import innermost_configs
from vik_mm.errors import BadInputError, UnavailableError

from .class_names import why_no_flip
from .metrics import main_metric, rule_of
from .models import needs_masks

# MMEngine's backends, and the package that each needs.
BACKENDS = {
    'tensorboard': ('TensorboardVisBackend', 'tensorboard'),
    'wandb': ('WandbVisBackend', 'wandb'),
    'mlflow': ('MLflowVisBackend', 'mlflow'),
    'clearml': ('ClearMLVisBackend', 'clearml'),
    'neptune': ('NeptuneVisBackend', 'neptune'),
    'dvclive': ('DVCLiveVisBackend', 'dvclive'),
    'aim': ('AimVisBackend', 'aim'),
}


def add_ema(cfg: Config) -> list[str]:
    """Average the weights over training; validation, checkpoints and tests take the averages.

    The average spans the last tenth of the steps made so far, and never more than 2,000.

    Args:
        cfg (Config): Changed in place.

    Returns:
        list[str]: What was written.
    """
    if _has_hook(cfg, 'EMAHook'):
        return ['the config has an EMAHook already, which stays']
    _add_hook(cfg, dict(type='EMAHook', ema_type='MomentumAnnealingEMA', momentum=5e-4, gamma=10, update_buffers=True))
    return ['custom_hooks += EMAHook(MomentumAnnealingEMA): the mean weights of the last tenth of the steps']


def set_save_best(cfg: Config, key: str = 'auto') -> list[str]:
    """Keep the best checkpoint.

    Args:
        cfg (Config): Changed in place.
        key (str): Name of the figure, as the log has it, or 'auto' for the task's. Defaults to 'auto'.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If nothing tells the figure.
    """
    key = main_metric(cfg) if key == 'auto' else key
    hooks = cfg.get('default_hooks') or {}
    hook = hooks.get('checkpoint') or dict(type='AtomicCheckpointHook', interval=1)
    cfg.default_hooks = {**hooks, 'checkpoint': {**hook, 'save_best': key, 'rule': rule_of(key)}}
    return [f'default_hooks.checkpoint: save_best={key!r}, rule={rule_of(key)!r}']


def add_early_stop(cfg: Config, patience: int = 5) -> list[str]:
    """End training when validation has not improved for some times.

    Args:
        cfg (Config): Changed in place.
        patience (int): Validations without a better figure. Defaults to 5.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If the patience is less than one, or nothing tells the figure.
    """
    if patience < 1:
        raise BadInputError(f'--early-stop {patience} must be a whole number from 1 up')
    key = ((cfg.get('default_hooks') or {}).get('checkpoint') or {}).get('save_best')
    lines = [] if isinstance(key, str) and key != 'auto' else set_save_best(cfg)
    key = cfg.default_hooks.checkpoint.save_best
    _add_hook(
        cfg, dict(type='ResumableEarlyStoppingHook', monitor=key, rule=rule_of(key), patience=patience, min_delta=0.0)
    )
    return [*lines, f'custom_hooks += ResumableEarlyStoppingHook(monitor={key!r}, patience={patience})']


def add_log(cfg: Config, names: list[str]) -> list[str]:
    """Log to services or files of others, beside MMEngine's own.

    Args:
        cfg (Config): Changed in place.
        names (list[str]): Some of :data:`BACKENDS`.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If there is no such backend.
        UnavailableError: If its package is not installed.
    """
    kinds = []
    for name in names:
        if name not in BACKENDS:
            raise BadInputError(f'--log {name} is unknown; choose from {", ".join(BACKENDS)}')
        kind, package = BACKENDS[name]
        if importlib.util.find_spec(package) is None:
            extra = (
                "pip install 'vik_mm[logging]'"
                if name in ('tensorboard', 'wandb', 'mlflow')
                else f'pip install {package}'
            )
            raise UnavailableError(f'--log {name} needs the package {package}: {extra}')
        kinds.append(kind)
    visualizer = cfg.get('visualizer') or dict(type='Visualizer')
    backends = list(visualizer.get('vis_backends') or cfg.get('vis_backends') or [dict(type='LocalVisBackend')])
    known = {each.get('type') for each in backends}
    backends += [dict(type=kind) for kind in kinds if kind not in known]
    cfg.visualizer = {**visualizer, 'vis_backends': backends}
    return [f'visualizer.vis_backends: {", ".join(str(each["type"]) for each in backends)}']


def add_val_loss(cfg: Config) -> list[str]:
    """Log the loss on the validation split with each validation.

    Args:
        cfg (Config): Changed in place.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If the config has no validation data.
    """
    if not cfg.get('val_dataloader'):
        raise BadInputError('--val-loss: the config has no val_dataloader')
    # Its processes would be idle from one validation to the next.
    loader = {**copy.deepcopy(cfg.val_dataloader), 'persistent_workers': False, 'pin_memory': False}
    for dataset in innermost_configs(loader['dataset']):
        steps = list(dataset.get('pipeline') or [])
        loads = [step for step in steps if str(step.get('type')).endswith('LoadAnnotations')]
        others = [step for step in steps if step not in loads]
        # Truth is scaled with its image, as in training; tests compare at the image's own size.
        dataset['pipeline'] = [*others[:1], *loads, *others[1:]]
    _add_hook(cfg, dict(type='ValLossHook', dataloader=loader))
    return ['custom_hooks += ValLossHook: val/loss in the log, with each validation']


def set_freeze(cfg: Config, stages: int | None = None) -> list[str]:
    """Train only what stands behind the backbone, or behind its first stages.

    Args:
        cfg (Config): Changed in place.
        stages (int, optional): How many; None freezes all. Defaults to None.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If the config has no backbone, or its backbone cannot freeze a part of itself.
    """
    backbone = (cfg.get('model') or {}).get('backbone')
    if not isinstance(backbone, dict):
        raise BadInputError('--freeze: the config has no model.backbone')
    if stages is not None and stages < 0:
        raise BadInputError(f'--freeze {stages} must be a whole number from 0 up')
    keys = known_keys(dict(cfg.items()), ('model', 'backbone'))
    if 'frozen_stages' in keys.names:
        indices = backbone.get('out_indices') or (3,)
        most = max(indices if isinstance(indices, (tuple, list)) else [indices]) + 1
        count = most if stages is None else stages
        if count > most:
            raise BadInputError(f'--freeze {stages}: the backbone has {most} stages')
        backbone['frozen_stages'] = count
        return [f'model.backbone.frozen_stages={count}']
    if stages is not None:
        raise BadInputError(
            f'--freeze {stages}: {backbone.get("type")} has no frozen_stages; --freeze freezes all of '
            'it, by a learning rate of 0'
        )
    wrapper = cfg.get('optim_wrapper')
    if not wrapper:
        raise BadInputError('--freeze: the config has no optim_wrapper')
    paramwise = wrapper.get('paramwise_cfg') or {}
    keys_of_parts = {**(paramwise.get('custom_keys') or {}), 'backbone': dict(lr_mult=0.0, decay_mult=0.0)}
    wrapper.paramwise_cfg = {**paramwise, 'custom_keys': keys_of_parts}
    return ["optim_wrapper.paramwise_cfg.custom_keys['backbone']: lr_mult=0, decay_mult=0"]


def add_time_limit(cfg: Config, seconds: float) -> list[str]:
    """End training in time, with its state saved and a last evaluation.

    Args:
        cfg (Config): Changed in place.
        seconds (float): From the start of the process's training on.

    Returns:
        list[str]: What was written.
    """
    _add_hook(cfg, dict(type='TimeLimitHook', seconds=seconds))
    return [f'custom_hooks += TimeLimitHook(seconds={seconds:g})']


_TTA = {'mmpretrain': 'AverageClsScoreTTA', 'mmdet': 'DetTTAModel', 'mmseg': 'SegTTAModel'}


def add_tta(cfg: Config) -> list[str]:
    """Write how a test is to look at each image several times: mirrored, and where sides matter, larger.

    Args:
        cfg (Config): Changed in place; ``tools/test.py --tta`` uses what is written.

    Returns:
        list[str]: What was written.

    Raises:
        BadInputError: If the package cannot merge what comes out, or the test pipeline has no packing step.
    """
    scope = cfg.get('default_scope')
    if scope not in _TTA:
        raise BadInputError(f'--tta needs a default_scope of {", ".join(_TTA)} in the config, and it is {scope}')
    if scope == 'mmdet' and needs_masks(cfg):
        raise BadInputError('--tta: MMDetection cannot merge masks of several views; it works for detectors of boxes')
    if cfg.get('tta_model') and cfg.get('tta_pipeline'):
        return ['the config has a tta_model and a tta_pipeline already, which stay']
    datasets = list(innermost_configs((cfg.get('test_dataloader') or {}).get('dataset')))
    if not datasets or not datasets[0].get('pipeline'):
        raise BadInputError('--tta: the config has no test_dataloader with a pipeline')
    *before, pack = copy.deepcopy(list(datasets[0]['pipeline']))
    if scope != 'mmpretrain' and 'meta_keys' in pack:
        pack['meta_keys'] = tuple(dict.fromkeys((*pack['meta_keys'], 'flip', 'flip_direction')))
    elif scope == 'mmpretrain':
        pack['meta_keys'] = (
            'sample_idx',
            'img_path',
            'ori_shape',
            'img_shape',
            'scale_factor',
            'flip',
            'flip_direction',
        )
    classes = (datasets[0].get('metainfo') or {}).get('classes') or ()
    sizes = [number for number, step in enumerate(before) if _is_resize(step)]
    if why_no_flip(classes):
        if not sizes:
            raise BadInputError('--tta: images cannot be mirrored (classes have sides), and the pipeline has no Resize')
        views = [dict(before[sizes[0]]), _enlarged(before[sizes[0]])]
        begin, after = before[: sizes[0]], before[sizes[0] + 1 :]
        what = 'as it is and a quarter larger'
    else:
        views = [dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]
        begin, after = before, []
        what = 'as it is and mirrored'
    steps: list[list[Any]] = [views, *([step] for step in after), [pack]]
    cfg.tta_pipeline = [*begin, dict(type='TestTimeAug', transforms=steps)]
    options = dict(tta_cfg=dict(nms=dict(type='nms', iou_threshold=0.5), max_per_img=100)) if scope == 'mmdet' else {}
    cfg.tta_model = dict(type=f'{scope}.{_TTA[scope]}', **options)
    return [f'tta_model={_TTA[scope]}, tta_pipeline: each image {what}']


def use_tta(cfg: Config) -> None:
    """Have a test take the ``tta_model`` and ``tta_pipeline`` of a config.

    Args:
        cfg (Config): Changed in place.
    """
    for dataset in innermost_configs(cfg.test_dataloader.dataset):
        dataset['pipeline'] = cfg.tta_pipeline
    module = cfg.model
    if cfg.get('data_preprocessor') and not module.get('data_preprocessor'):
        module.data_preprocessor = cfg.data_preprocessor
    cfg.model = {**cfg.tta_model, 'module': module}


def _is_resize(step: Any) -> bool:
    return str(step.get('type')).rsplit('.', 1)[-1] in ('Resize', 'ResizeEdge') and 'scale' in step


def _enlarged(step: Any) -> dict[str, Any]:
    scale = step['scale']
    larger = tuple(round(1.25 * side) for side in scale) if isinstance(scale, (tuple, list)) else round(1.25 * scale)
    return {**step, 'scale': larger}


def _has_hook(cfg: Config, kind: str) -> bool:
    return any(str(hook.get('type')).rsplit('.', 1)[-1] == kind for hook in cfg.get('custom_hooks') or [])


def _add_hook(cfg: Config, hook: dict[str, Any]) -> None:
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]
