"""Models of a recipe: by the short names of this repository's, or out of any config of the mm packages."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config

from vik_mm.backbones import ViK
from vik_mm.config import load_config, swap_backbone
from vik_mm.datasets.folders import PreparedData
from vik_mm.errors import BadInputError

from .loaders import SCOPES
from .plan import Plan

# By task the models that it takes, the first being its default, and the files of configs/_base_/models: a slim one for
# ViK-Tiny, and one for the others.
MODELS = {
    'classification': {'vik': ('vik', 'vik')},
    'detection': {'retinanet': ('retinanet_vik-t_slim', 'retinanet_vik_fpn')},
    'instance': {
        'mask-rcnn': ('mask-rcnn_vik-t_slim', 'mask-rcnn_vik_fpn'),
        'cascade-mask-rcnn': ('cascade-mask-rcnn_vik_fpn', 'cascade-mask-rcnn_vik_fpn'),
        'retinanet': ('retinanet_vik-t_slim', 'retinanet_vik_fpn'),
    },
    'segmentation': {'fpn': ('fpn_vik-t_slim', 'fpn_vik'), 'upernet': ('upernet_vik-t_slim', 'upernet_vik')},
}
_ARCHS = dict(t='tiny', s='small', b='base', m='medium', l='large')


def repository_configs() -> Path:
    """Find the folder of this repository's configs: beside the package in a checkout, inside it in a wheel."""
    package = Path(__file__).parent.parent
    inside = package / '.mim' / 'configs'
    return inside if inside.is_dir() else package.parent / 'configs'


def is_short_name(model: str | None) -> bool:
    """Whether a model is named by one of this project's short names, and not by a config."""
    return model is None or not ('::' in model or model.endswith(('.py', '.json', '.yaml', '.yml')))


def short_model(data: PreparedData, name: str | None, backbone: str, plan: Plan, is_pretrained: bool) -> dict[str, Any]:
    """Make the config of one of this project's models.

    Args:
        data (PreparedData): The data.
        name (str, optional): One of :data:`MODELS`; None takes the task's default.
        backbone (str): As ``--backbone`` takes it.
        plan (Plan): The recipe's numbers.
        is_pretrained (bool): Whether the backbone begins with trained weights.

    Returns:
        dict[str, Any]: The model's config.

    Raises:
        BadInputError: If the task does not take this model, or not this backbone.
    """
    known = MODELS[data.task]
    name = name or next(iter(known))
    if name not in known:
        elsewhere = [task for task, models in MODELS.items() if name in models]
        hint = f'; {name} is for {" and ".join(elsewhere)}, and the data are not' if elsewhere else ''
        raise BadInputError(
            f'--model {name} is not a model for {data.task}{hint}: choose one of {", ".join(known)}, or a config, as '
            f'{SCOPES[data.task]}::<folder>/<file>.py'
        )
    family, _, size = backbone.partition('-')
    if data.task == 'classification' and family != 'vik':
        raise BadInputError(f'--backbone {backbone} has no recipe for classification: take vik-t to vik-l')
    base = known[name][0 if backbone == 'vik-t' else 1]
    model = Config.fromfile(repository_configs() / f'_base_/models/{base}.py').model
    arch = _ARCHS[size] if family == 'vik' else 'small'
    _set_arch(model, arch, is_pretrained)
    if family != 'vik':
        model = swap_backbone(Config(dict(model=model, default_scope=SCOPES[data.task])), backbone).model
    else:
        model.backbone.img_size = plan.crop
        # Images of a batch have unlike sizes: padding must not change what a backbone without that experience learns.
        if SCOPES[data.task] == 'mmdet' and not is_pretrained:
            model.backbone.ignore_padding = True
            # docs/global_step.md: one that starts at random does not carry over to new images.
            mixer = model.backbone.get('token_mixer') or dict(type='MultiPatchRBFKAN')
            model.backbone.token_mixer = dict(mixer, global_zero_init=True)
    if data.task == 'segmentation':
        model.data_preprocessor.size = (plan.crop, plan.crop)
    return model.to_dict()


def _set_arch(model: Any, arch: str, is_pretrained: bool) -> None:
    backbone = model.backbone
    old = ViK.arch_settings[backbone.get('arch', 'small')]['embed_dims']
    new = ViK.arch_settings[arch]['embed_dims']
    _replace_channels(model, dict(zip(old, new)), list(old), list(new))
    backbone.arch = arch
    backbone.init_cfg = None
    if is_pretrained:
        backbone.pop('layer_scale_init_value', None)
        backbone.drop_path_rate = 0.1
    else:
        # Few epochs from scratch: with the 1e-5 of the paper, which has 300, blocks would stay asleep.
        backbone.layer_scale_init_value = 1.0
        backbone.drop_path_rate = 0.0


def _replace_channels(node: Any, by_width: dict[int, int], old: list[int], new: list[int]) -> None:
    """Write the channels of the new arch where those of the old one enter necks and heads."""
    for key in ('neck', 'decode_head', 'auxiliary_head', 'head'):
        part = node.get(key)
        given = part.get('in_channels') if isinstance(part, dict) else None
        if isinstance(given, int) and given in by_width and not (key == 'decode_head' and node.get('neck')):
            part.in_channels = by_width[given]
        elif isinstance(given, (list, tuple)) and list(given) == old[-len(given) :]:
            part.in_channels = new[-len(given) :]


def foreign_config(name: str, backbone: str | None, task: str) -> Config:
    """Read a config of the mm packages, or a user's, to put data into.

    Args:
        name (str): A file, or ``package::path``.
        backbone (str, optional): Put in the place of its backbone, where it is named.
        task (str): The task of the data.

    Returns:
        Config: The config.

    Raises:
        BadInputError: If it is of another package than the task, or learns masks that the data do not have.
    """
    cfg = load_config(name, work_dir='', backbone=backbone)
    scope = cfg.get('default_scope')
    if scope != SCOPES[task]:
        raise BadInputError(
            f'--model {name} is a config of {scope or "no package"}, and the data are for {task}, which '
            f'{SCOPES[task]} trains: choose a config {SCOPES[task]}::...'
        )
    if not cfg.get('model') or not cfg.get('train_dataloader'):
        raise BadInputError(f'--model {name} has no model or no train_dataloader, and cannot be trained')
    if needs_masks(cfg) and task == 'detection':
        raise BadInputError(
            f'--model {name} learns masks of objects, and the data have only boxes: choose a detector without masks, '
            'as retinanet'
        )
    return cfg


def needs_masks(cfg: Config) -> bool:
    """Whether a detector's config reads masks of objects in training."""
    found = []

    def search(node):
        if isinstance(node, dict):
            found.append('LoadAnnotations' in str(node.get('type')) and node.get('with_mask', False))
            node = list(node.values())
        for each in node if isinstance(node, (list, tuple)) else ():
            search(each)

    search(cfg.get('train_dataloader'))
    return any(found)


def set_classes(node: Any, count: int, place: str = 'model') -> list[str]:
    """Write the number of classes wherever a model has one.

    Args:
        node (Any): The model's config, or a part of it; changed in place.
        count (int): Classes.
        place (str): Where the part stands. Defaults to 'model'.

    Returns:
        list[str]: The keys that were set.
    """
    done: list[str] = []
    if isinstance(node, dict):
        old = node.get('num_classes', node.get('num_things_classes'))
        if isinstance(old, int) and 'rpn' not in place:
            for key in ('num_classes', 'num_things_classes'):
                if isinstance(node.get(key), int):
                    node[key] = count
                    done.append(f'{place}.{key}')
            if isinstance(node.get('num_stuff_classes'), int):
                node['num_stuff_classes'] = 0
            if isinstance(node.get('topk'), (tuple, list)):
                node['topk'] = tuple(k for k in node['topk'] if k <= count) or (1,)
            _set_weights(node, old, count)
        for key, value in list(node.items()):
            done += set_classes(value, count, f'{place}.{key}')
    elif isinstance(node, (list, tuple)):
        for number, value in enumerate(node):
            done += set_classes(value, count, f'{place}.{number}')
    return done


def _set_weights(node: Any, old: int, count: int) -> None:
    """Cut weights of classes to the new number; those of single classes mean nothing any more."""
    for value in node.values():
        for part in value if isinstance(value, (list, tuple)) else [value]:
            weights = part.get('class_weight') if isinstance(part, dict) else None
            if not isinstance(weights, (list, tuple)):
                continue
            if len(weights) == old + 1:  # and one for no object
                part['class_weight'] = [1.0] * count + [weights[-1]]
            else:
                part.pop('class_weight')


def copied(node: Any) -> Any:
    """Copy a part of a config into plain dicts and lists."""
    return copy.deepcopy(node.to_dict() if hasattr(node, 'to_dict') else node)
