"""Puts ViK, or any backbone, into the place of the backbone of an existing config."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.logging import print_log
from mmengine.registry import MODELS

from vik_mm.errors import BadInputError

from .machine import without_sync_bn

_ARCHS = dict(tiny=0.1, small=0.1, base=0.2, medium=0.3, large=0.3)  # and stochastic depth
_BACKBONES = {
    f'vik-{arch[0]}': dict(type='mmpretrain.ViK', arch=arch, drop_path_rate=rate) for arch, rate in _ARCHS.items()
}
# As in ViTDet: a pyramid of the last map, attention in windows but for every third block, no class token.
_VITDET = dict(out_type='pyramid', with_cls_token=False, window_size=14, global_indices=(2, 5, 8, 11))
_BACKBONES |= {
    f'karat-{arch[0]}': dict(type='mmpretrain.ViTKArAt', arch=arch, drop_path_rate=_ARCHS[arch], **_VITDET)
    for arch in ('tiny', 'small', 'base')
}
# What ViK's training data were normalised with, in RGB.
_MEAN, _STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
# Parts of a model that take no features.
_NO_FEATURES = {'backbone', 'neck', 'data_preprocessor', 'train_cfg', 'test_cfg', 'init_cfg'}
# Parts that are cut from a particular backbone.
_OF_THE_BACKBONE = {'shared_head'}
_DECAY_CONSTRUCTORS = {'LearningRateDecayOptimizerConstructor', 'LayerDecayOptimizerConstructor'}
# Heads that list several maps and read only the last, unless the option is on.
_READ_THE_LAST = {'EncHead': 'add_lateral'}
_PROBE_SIZE = 320  # SSD's neck needs this much


def swap_backbone(cfg: Config, backbone: str | dict) -> Config:
    """Put another backbone into a config of MMDetection, MMSegmentation or this project.

    The old and the new backbone, and the necks, are built and run on a small picture, which tells their maps' channels
    and strides; wherever the config names the old channels they are replaced. A map of the new backbone takes the place
    of the old one of the same stride, or, where the old backbone dilates its stages, of the same stage. Maps that
    nothing reads are left out, so that every parameter has a gradient. Dropped are the old backbone's settings and the
    checkpoints made with it; its normalisation of images gives way to ViK's. Schedules stay.

    Args:
        cfg (Config): A whole config; it is not changed.
        backbone (str | dict): 'vik-t', 'vik-s', 'vik-b', 'vik-m', 'vik-l'; 'karat-t', 'karat-s', 'karat-b', a vision
            transformer with Kolmogorov-Arnold attention and ViTDet's pyramid; or a config of a backbone with
            ``out_indices`` whose stages have strides 4, 8, 16 and 32. ``out_indices`` is set here.

    Returns:
        Config: The new config; ``vik_mm`` is among its ``custom_imports``.

    Raises:
        BadInputError: If the name is unknown, or the config uses its backbone in a way that leaves the answer open; the
            message names the key.
    """
    new = _backbone_config(backbone)
    cfg = copy.deepcopy(cfg)
    scope = cfg.get('default_scope') or 'mmengine'
    path, model = _find_model(cfg)
    if nested := [key for key in ('backbone_cfg', 'backbones') if key in model.backbone]:
        raise BadInputError(f'{path}.backbone.{nested[0]}: this backbone is made around another one; swap by hand')

    with torch.random.fork_rng(devices=[]):
        old_maps = _run_backbone(_plain(model.backbone), scope, f'{path}.backbone')
        new_maps = _run_backbone({**new, 'out_indices': (0, 1, 2, 3)}, scope, 'backbone')
        if [stride for _, stride in new_maps] != [4, 8, 16, 32]:
            raise BadInputError(f'backbone={new!r} has strides {[s for _, s in new_maps]}; needed are 4, 8, 16 and 32')
        _cut_unread(model, path)
        stages = _match_stages(model.backbone, old_maps, new_maps, scope, f'{path}.backbone')
        used = _used_maps(model, len(stages), path)
        _ChannelReplacer(model, path, scope, old_maps, new_maps, stages, used).run()

    model.backbone = ConfigDict({**new, 'out_indices': tuple(stages[i] for i in used)})
    _drop_checkpoints(cfg, model, path)
    _set_normalisation(cfg, model)
    _translate_layer_decay(cfg)
    imports = cfg.get('custom_imports') or dict(imports=[], allow_failed_imports=False)
    names = imports['imports']
    names = [names] if isinstance(names, str) else list(names)
    cfg.custom_imports = dict(imports=names if 'vik_mm' in names else [*names, 'vik_mm'], allow_failed_imports=False)
    return cfg


def _backbone_config(backbone: str | dict) -> dict[str, Any]:
    if isinstance(backbone, str):
        if backbone not in _BACKBONES:
            raise BadInputError(
                f'backbone {backbone!r} is unknown; choose one of {sorted(_BACKBONES)}, or give a config (dict)'
            )
        return copy.deepcopy(_BACKBONES[backbone])
    if not isinstance(backbone, dict) or 'type' not in backbone:
        raise BadInputError(f'backbone must be one of {sorted(_BACKBONES)} or a dict with a type, got {backbone!r}')
    if 'out_indices' in backbone:
        raise BadInputError('backbone.out_indices follows from the config that the backbone is put into; leave it out')
    return copy.deepcopy(dict(backbone))


def _find_model(cfg: Config) -> tuple[str, ConfigDict]:
    """Find the one dict that has a backbone; in semi-supervised configs it lies deeper."""
    found = []

    def search(node, path):
        if isinstance(node, dict):
            if isinstance(node.get('backbone'), dict):
                found.append((path, node))
            for key, value in node.items():
                search(value, f'{path}.{key}')
        elif isinstance(node, (list, tuple)):
            for i, value in enumerate(node):
                search(value, f'{path}[{i}]')

    search(cfg.get('model'), 'model')
    if not found:
        raise BadInputError('the config has no model.backbone to swap')
    if len(found) > 1:
        raise BadInputError(
            f'the config has several backbones, {", ".join(f"{p}.backbone" for p, _ in found)}: swap by hand'
        )
    return found[0]


def _plain(backbone: dict) -> dict:
    """Take out what changes neither channels nor strides, and may need operators or files."""
    dropped = ('dcn', 'stage_with_dcn', 'plugins', 'pretrained', 'init_cfg', 'with_cp')
    return {key: value for key, value in backbone.items() if key not in dropped}


def _build(cfg: dict, scope: str, path: str) -> torch.nn.Module:
    try:
        with MODELS.switch_scope_and_registry(scope) as registry:
            module = registry.build(ConfigDict(copy.deepcopy(without_sync_bn(cfg))))
    except Exception as error:
        raise BadInputError(f'{path} cannot be built ({type(error).__name__}: {error})') from error
    module.eval()  # returns nothing in backbones of the mm packages
    return module


def _run(module: torch.nn.Module, features, path: str) -> list[torch.Tensor]:
    try:
        with torch.no_grad():
            outputs = module(features)
    except Exception as error:
        raise BadInputError(
            f'{path} cannot be run on its own ({type(error).__name__}: {error}): swap by hand'
        ) from error
    outputs = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
    if not all(isinstance(x, torch.Tensor) and x.ndim == 4 for x in outputs):
        raise BadInputError(f'{path} gives something else than maps [B, C, H, W]: swap by hand')
    return outputs


def _run_backbone(cfg: dict, scope: str, path: str) -> list[tuple[torch.Tensor, int]]:
    """Return each map and its stride."""
    maps = _run(_build(cfg, scope, path), torch.zeros(1, 3, _PROBE_SIZE, _PROBE_SIZE), path)
    return [(x, round(_PROBE_SIZE / x.shape[-1])) for x in maps]


def _match_stages(old: dict, old_maps, new_maps, scope: str, path: str) -> list[int]:
    """Find the stage that takes the place of each map."""
    strides, new_strides = [s for _, s in old_maps], [s for _, s in new_maps]
    if len(set(strides)) == len(strides) and set(strides) <= set(new_strides):
        return [new_strides.index(s) for s in strides]
    indices = old.get('out_indices', (0, 1, 2, 3))
    indices = [indices] if isinstance(indices, int) else list(indices)
    if any(i not in range(4) for i in indices) or len(indices) != len(strides):
        raise BadInputError(
            f'{path}.out_indices={tuple(indices)} with strides {strides} has no counterpart among strides {new_strides}'
        )
    if scope != 'mmseg':
        raise BadInputError(
            f'{path} gives strides {strides} (out_indices={tuple(indices)}); anchors and regions of this config are '
            f'made for them, and the new backbone has {[new_strides[i] for i in indices]}: adapt the config by hand'
        )
    print_log(
        f'{path} dilates its stages (strides {strides}); the new maps have strides {[new_strides[i] for i in indices]}',
        logger='current',
    )
    return indices


def _heads(model: dict, path: str) -> Iterator[tuple[str, dict]]:
    """Yield the parts of a model that may take features, however deep."""
    for key, value in model.items():
        if key in _OF_THE_BACKBONE and value:
            raise BadInputError(f'{path}.{key} is a stage of the old backbone: choose a config with a neck instead')
        if key in _NO_FEATURES:
            continue
        children = value if isinstance(value, (list, tuple)) else [value]
        for i, child in enumerate(children):
            if isinstance(child, dict):
                child_path = f'{path}.{key}' if child is value else f'{path}.{key}[{i}]'
                yield child_path, child
                yield from _heads(child, child_path)


def _necks(model: dict, path: str) -> list[tuple[str, dict]]:
    neck = model.get('neck')
    if not neck:
        return []
    if isinstance(neck, dict):
        return [(f'{path}.neck', neck)]
    return [(f'{path}.neck[{i}]', part) for i, part in enumerate(neck)]


def _indices(head: dict, count: int) -> list[int] | None:
    """List the maps that a head of MMSegmentation names, or None where it does not say."""
    index = head.get('in_index')
    if index is None:
        return None
    index = [index] if isinstance(index, int) else list(index)
    return [i % count for i in index]


def _is_segmentation_head(path: str) -> bool:
    return path.rsplit('.', 1)[-1].split('[')[0] in ('decode_head', 'auxiliary_head')


def _cut_unread(model: dict, path: str) -> None:
    for _, head in _heads(model, path):
        option = _READ_THE_LAST.get(_type_name(head))
        if option and not head.get(option) and isinstance(head.get('in_index'), (list, tuple)):
            head['in_index'], head['in_channels'] = head['in_index'][-1:], head['in_channels'][-1:]


def _type_name(node: dict) -> str:
    kind = node.get('type', '')
    return (kind if isinstance(kind, str) else kind.__name__).rsplit('.', 1)[-1]


def _used_maps(model: dict, count: int, path: str) -> list[int]:
    """List the positions of the maps that something reads."""
    if necks := _necks(model, path):
        first = necks[0][1]
        if isinstance(first.get('in_channels'), int):
            return [count - 1]  # a neck of one map takes the last
        return list(range(count))[first.get('start_level', 0) :]
    used = set()
    for head_path, head in _heads(model, path):
        if 'in_channels' not in head:
            continue
        indices = _indices(head, count)
        if indices is not None:
            used.update(indices)
        elif isinstance(head['in_channels'], (list, tuple)):
            used.update(range(count))
        elif _is_segmentation_head(head_path):
            used.add(count - 1)  # MMSegmentation's default
        if 'c1_in_channels' in head:
            used.add(0)
    return sorted(used) or list(range(count))


class _ChannelReplacer:
    """Follows the maps through necks into heads, old and new side by side, and replaces channels on the way."""

    def __init__(self, model, path, scope, old_maps, new_maps, stages, used):
        self.model, self.path, self.scope, self.used = model, path, scope, used
        self.old = [x for x, _ in old_maps]
        self.new = [new_maps[stages[i]][0] for i in used]

    def run(self):
        necks = _necks(self.model, self.path)
        kept = [self.old[i] for i in self.used]
        for i, (path, neck) in enumerate(necks):
            before = copy.deepcopy(neck)
            if i == 0:
                self._cut_levels(neck)
            old_channels = _channels(self.old if i == 0 else kept)
            self._replace(
                neck, 'in_channels', old_channels, _channels(self.new), path, cut=self.used if i == 0 else None
            )
            # Maps of the old backbone that dilates have sizes of their own; only channels count here.
            new = tuple(self.new)
            old = tuple(self.old if i == 0 else kept)
            kept = _run(_build(before, self.scope, path), old, path)
            self.new = _run(_build(neck, self.scope, path), new, path)
        if necks:
            self._heads_behind(_channels(kept), _channels(self.new), {i: i for i in range(len(kept))})
        else:
            old_channels = _channels(self.old)
            self._heads_behind(old_channels, _channels(self.new), {i: k for k, i in enumerate(self.used)})
            if roi_head := self.model.get('roi_head'):
                self._regions_without_neck(roi_head, old_channels[-1], int(self.new[-1].shape[1]))

    def _cut_levels(self, neck):
        """Let a pyramid start at the first map that it is given: an unused map would stop DDP."""
        start = neck.get('start_level', 0)
        if start:
            neck['start_level'] = 0
            if neck.get('end_level', -1) not in (-1, None):
                neck['end_level'] -= start

    def _replace(self, node, key, old, new, path, cut=None):
        given = node.get(key)
        if given is None:
            return
        kept = [old[i] for i in cut] if cut is not None else old
        if isinstance(given, int):
            if given == old[-1]:
                node[key] = new[-1]
                return
        elif list(given) == old or list(given) == kept:
            node[key] = type(given)(new)
            return
        elif list(given) == old[::-1]:
            node[key] = type(given)(new[::-1])
            return
        raise BadInputError(f'{path}.{key}={given} does not match the channels {old} that reach it: swap by hand')

    def _heads_behind(self, old, new, position):
        """Replace channels in heads; ``position`` tells where an old map went."""
        for path, head in _heads(self.model, self.path):
            if 'c1_in_channels' in head:
                self._replace(head, 'c1_in_channels', old[:1], new[position[0] :][:1], path)
            if 'in_channels' not in head:
                continue
            indices = _indices(head, len(old))
            given = head['in_channels']
            if indices is not None:
                where = [position[i] for i in indices]
                self._replace(head, 'in_channels', [old[i] for i in indices], [new[k] for k in where], path)
                head['in_index'] = where[0] if isinstance(head['in_index'], int) else where
            elif isinstance(given, (list, tuple)):
                if not self._is_top(path) and list(given) != old:
                    continue  # between parts of the head
                self._replace(head, 'in_channels', old, new, path)
            elif self._is_top(path) and (_is_segmentation_head(path) or not _necks(self.model, self.path)):
                self._replace(head, 'in_channels', old[-1:], new[-1:], path)

    def _regions_without_neck(self, node, old, new):
        """Replace channels between a map and the heads that regions are cut from it for."""
        for key, value in node.items():
            for part in value if isinstance(value, (list, tuple)) else [value]:
                if isinstance(part, dict):
                    self._regions_without_neck(part, old, new)
            if key in ('in_channels', 'out_channels') and value == old:
                node[key] = new

    def _is_top(self, path):
        return '.' not in path.removeprefix(f'{self.path}.')


def _channels(maps) -> list[int]:
    return [int(x.shape[1]) for x in maps]


def _drop_checkpoints(cfg: Config, model: ConfigDict, path: str) -> None:
    for node, name in ((model, path), (cfg.model, 'model')):
        if node.pop('pretrained', None):
            print_log(f'{name}.pretrained, a checkpoint of the old backbone, is dropped', logger='current')
        init_cfg = node.get('init_cfg')
        if isinstance(init_cfg, dict) and init_cfg.get('type') == 'Pretrained':
            node.pop('init_cfg')
            print_log(f'{name}.init_cfg, a checkpoint with the old backbone, is dropped', logger='current')
    if cfg.get('load_from'):
        print_log(f'load_from={cfg.load_from}, a checkpoint with the old backbone, is dropped', logger='current')
        cfg.load_from = None


def _set_normalisation(cfg: Config, model: ConfigDict) -> None:
    for node in (model.get('data_preprocessor'), cfg.model.get('data_preprocessor'), cfg.get('data_preprocessor')):
        while isinstance(node, dict) and isinstance(node.get('data_preprocessor'), dict):
            node = node['data_preprocessor']
        if not isinstance(node, dict) or 'mean' not in node:
            continue
        rgb = dict(mean=_MEAN, std=_STD)
        if node.get('bgr_to_rgb') is not True or any(list(node.get(key, [])) != rgb[key] for key in rgb):
            print_log(
                "data_preprocessor: mean, std and colour order of the old backbone give way to RGB and the new one's",
                logger='current',
            )
            node.pop('rgb_to_bgr', None)
            node.update(**copy.deepcopy(rgb), bgr_to_rgb=True)


def _translate_layer_decay(cfg: Config) -> None:
    """MMDetection's and MMSegmentation's constructors know backbones by name; this project's asks the backbone."""
    wrapper = cfg.get('optim_wrapper')
    name = wrapper.get('constructor') if wrapper else None
    if name is None or _type_name(dict(type=name)) not in _DECAY_CONSTRUCTORS:
        return
    options = dict(wrapper.get('paramwise_cfg') or {})
    rate = options.pop('decay_rate', None)
    for key in ('decay_type', 'num_layers'):
        options.pop(key, None)
    wrapper.constructor = 'LayerDecayOptimWrapperConstructor'
    wrapper.paramwise_cfg = {'layer_decay_rate': rate or 1.0, **options}
    print_log(f'optim_wrapper.constructor={name} gives way to {wrapper.constructor}', logger='current')
