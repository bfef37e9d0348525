"""What is wrong where a checkpoint does not fit a model, in a few words."""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

# Heads by the task that has them.
_HEADS = {
    'detection': ('bbox_head', 'rpn_head', 'roi_head', 'mask_head', 'query_head', 'panoptic_head'),
    'segmentation': ('decode_head', 'auxiliary_head'),
    'classification': ('head', 'head_dist'),
}


def describe_misfit(model: nn.Module, weights: Mapping[str, Tensor]) -> str | None:
    """Compare the names and shapes of weights with a model's.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): By name.

    Returns:
        str | None: How many are missing, unknown and of another shape, the first of each, and what is probably wrong.
        None where they fit.
    """
    own, weights = model.state_dict(), as_loaded(model, weights)
    # Batch norm's counters are missing in old files and matter to nobody.
    missing = [name for name in own if name not in weights and 'num_batches_tracked' not in name]
    unknown = [name for name in weights if name not in own]
    reshaped = [
        name for name, value in weights.items() if name in own and getattr(value, 'shape', None) != own[name].shape
    ]
    if not (missing or unknown or reshaped):
        return None
    parts = []
    if missing:
        parts.append(f'{len(missing)} of {len(own)} weights of the model are missing in it ({_first(missing)})')
    if unknown:
        parts.append(f'{len(unknown)} of its weights are unknown to the model ({_first(unknown)})')
    if reshaped:
        shapes = [f'{name}: {_shape(weights[name])} in the file, {_shape(own[name])} in the model' for name in reshaped]
        parts.append(f'{len(reshaped)} have another shape ({_first(shapes, 2)})')
    return f'{"; ".join(parts)}. {_guess(own, weights, missing, unknown, reshaped)}'


def fitting_weights(model: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Take the weights that fit, and the model's own for the others, so that loading them finds no fault.

    Args:
        model (nn.Module): The model.
        weights (Mapping[str, Tensor]): By name, which may begin with ``module.``.

    Returns:
        Mapping[str, Tensor]: What to load.

    Raises:
        BadInputError: If the backbone itself refuses its weights, being of another arch.
    """
    own, given = model.state_dict(), as_loaded(model, weights)
    fitting = {n: v for n, v in given.items() if n in own and getattr(v, 'shape', None) == own[n].shape}
    chosen: Any = OrderedDict({**own, **fitting})
    chosen._metadata = getattr(weights, '_metadata', OrderedDict())
    return chosen


def as_loaded(model: nn.Module, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Give weights the names and shapes in which the model would take them.

    Modules have hooks that rename what they load, or resample it to their own size. PyTorch runs these in the middle of
    loading, when it is too late to say what does not fit.

    Args:
        model (nn.Module): The model; it does not change.
        weights (Mapping[str, Tensor]): By name, which may begin with ``module.``; they stay as they are.

    Returns:
        Mapping[str, Tensor]: The weights.

    Raises:
        BadInputError: If a part of the model refuses its weights, being of another arch.
    """
    given = OrderedDict((name.removeprefix('module.'), value) for name, value in weights.items())
    metadata = getattr(weights, '_metadata', {})
    for name, module in model.named_modules():
        for hook in module._load_state_dict_pre_hooks.values():
            hook(given, f'{name}.' if name else '', metadata.get(name, {}), True, [], [], [])
    return given


def _first(names: list[str], count: int = 3) -> str:
    return ', '.join(names[:count]) + (', ...' if len(names) > count else '')


def _shape(value) -> str:
    return str(tuple(getattr(value, 'shape', ()))) if isinstance(value, Tensor) else f'a {type(value).__name__}'


def _guess(own, weights, missing: list[str], unknown: list[str], reshaped: list[str]) -> str:
    tasks = _task(own), _task(weights)
    if None not in tasks and tasks[0] != tasks[1]:
        return f'The checkpoint is of another task: {tasks[1]}, and the config is of {tasks[0]}'
    if any(f'backbone.{name}' in own for name in unknown):
        return (
            'The checkpoint is of a backbone only; to start a training from it, set '
            "model.backbone.init_cfg=dict(type='Pretrained', checkpoint=FILE)"
        )
    wrong = missing + unknown + reshaped
    if all(_part(name) != 'backbone' for name in wrong):
        if reshaped and not missing and not unknown:
            name = reshaped[-1]
            counts = [tuple(side[name].shape)[:1] for side in (weights, own)]
            if counts[0] != counts[1] and all(counts):
                return (
                    f'The checkpoint is most likely of other classes (the last layer has {counts[0][0]} outputs in the '
                    f'file, {counts[1][0]} in the model): set num_classes, or take the config that it was trained with'
                )
        if all(_part(name) == 'neck' for name in wrong):
            return 'The checkpoint is of another neck: take the config that it was trained with'
        return 'The backbone fits, the head or neck does not: take the config that it was trained with'
    if len(missing) == len(own) - sum('num_batches_tracked' in name for name in own):
        return 'Nothing of it is of this model: it is of another kind of model, or has other names'
    return 'The checkpoint is of another arch of the backbone, or of other settings: take the config of its training'


def _part(name: str) -> str:
    return name.split('.')[0]


def _task(weights) -> str | None:
    parts = {_part(name) for name in weights}
    return next((task for task, heads in _HEADS.items() if parts & set(heads)), None)
