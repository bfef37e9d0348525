"""How weights come into a backbone: from the checkpoint of ``init_cfg``, and never from one of another arch."""

import os
import re
from collections.abc import Mapping
from typing import Any

from mmengine.logging import print_log
from mmengine.model import update_init_info
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from mmpretrain.models.backbones.base_backbone import BaseBackbone
from torch import Tensor, nn

from vik_mm.errors import BadInputError


class PretrainedBackbone(BaseBackbone):
    """A backbone that refuses a checkpoint of ``init_cfg`` from which it can take nothing.

    MMEngine would pass over such a file and train from scratch.
    """

    init_cfg: Any

    def init_weights(self) -> None:
        """Load the checkpoint of ``init_cfg``, where it has one.

        Raises:
            BadInputError: If the checkpoint is not there, or holds nothing of this backbone.
        """
        init_cfg: Any = self.init_cfg
        if self.is_init or not isinstance(init_cfg, dict) or init_cfg.get('type') != 'Pretrained':
            super().init_weights()
            return
        options = {key: value for key, value in init_cfg.items() if key != 'type'}
        if not isinstance(options.get('checkpoint'), str) or options.keys() - {'checkpoint', 'prefix', 'map_location'}:
            raise BadInputError(
                f'backbone.init_cfg={init_cfg!r} must have a checkpoint, as text, and may have prefix and map_location'
            )
        self.init_cfg = None  # MMEngine initialises the parts; it would read the file too
        super().init_weights()
        self.init_cfg = init_cfg
        load_pretrained(self, **options)


def load_pretrained(backbone: nn.Module, checkpoint: str, prefix: str | None = None, map_location: str = 'cpu') -> None:
    """Load what a checkpoint has of a backbone; the file is read once.

    Args:
        backbone (nn.Module): Changed in place.
        checkpoint (str): A file, or an address that MMEngine knows.
        prefix (str, optional): What the backbone's names begin with in the file. Defaults to None.
        map_location (str): Where the tensors are read to. Defaults to 'cpu'.

    Raises:
        BadInputError: If there is no such file, or it holds nothing of the backbone.
    """
    if '://' not in checkpoint and not os.path.isfile(os.path.expanduser(checkpoint)):
        raise BadInputError(
            f'backbone.init_cfg.checkpoint={checkpoint} does not exist; name a checkpoint with --cfg-options '
            'model.backbone.init_cfg.checkpoint=FILE, or start from scratch with model.backbone.init_cfg=None'
        )
    content = CheckpointLoader.load_checkpoint(checkpoint, map_location=map_location, logger='current')
    content = content.get('state_dict', content)
    names = list(content)
    prefix = f'{prefix.removesuffix(".")}.' if prefix else ''
    named = {name.removeprefix('module.'): value for name, value in content.items()}
    weights = {name.removeprefix(prefix): value for name, value in named.items() if name.startswith(prefix)}
    if weights.keys().isdisjoint(backbone.state_dict()):
        raise BadInputError(
            f'{checkpoint} holds nothing of this {type(backbone).__name__}: with init_cfg.prefix={prefix!r}, names '
            f'such as {prefix}{next(iter(backbone.state_dict()))} are looked for, and it has {", ".join(names[:3])}, '
            "...; a checkpoint of a whole model takes prefix='backbone.', one of only a backbone takes none"
        )
    print_log(f'load {prefix}* of {checkpoint} into the backbone', logger='current')
    load_state_dict(backbone, weights, strict=False, logger='current')
    if hasattr(backbone, '_params_init_info'):  # while MMEngine initialises the model around it
        update_init_info(backbone, init_info=f'Pretrained: load from {checkpoint}')


def refuse_other_arch(vik: Any, state_dict: Mapping[str, Tensor], prefix: str, *_) -> None:
    """Refuse weights of a ViK of another arch, before any is loaded.

    ViK registers it as a hook that runs before a state dict is loaded.

    Args:
        vik (nn.Module): What is to take the weights.
        state_dict (Mapping[str, Tensor]): Weights of a whole model.
        prefix (str): What the backbone's names begin with.
        *_ (Any): What else PyTorch hands to such hooks.

    Raises:
        BadInputError: If a stage of theirs has another number of blocks or channels.
    """
    found = {key[len(prefix) :]: value for key, value in state_dict.items() if key.startswith(prefix)}
    theirs, ours = _describe_stages(found), _describe_stages(vik.state_dict())
    for stage in theirs.keys() & ours.keys():
        if theirs[stage] != ours[stage]:
            name = next((n for n, s in vik.arch_settings.items() if _matches(theirs, s)), 'of no known name')
            raise BadInputError(
                f'the checkpoint is of another arch ({name}): in stage {stage} it has (blocks, channels) = '
                f"{theirs[stage]}, this ViK (arch={vik.arch!r}) has {ours[stage]}; set arch to the checkpoint's"
            )


def _describe_stages(state_dict: Mapping[str, Tensor]) -> dict[int, tuple[int, int]]:
    """Read (blocks, channels) of each stage off the keys and shapes of a ViK state dict."""
    stages: dict[int, tuple[int, int]] = {}
    for key, value in state_dict.items():
        if match := re.match(r'stages\.(\d+)\.blocks\.(\d+)\.norm2\.weight$', key):
            stage, block = int(match[1]), int(match[2])
            stages[stage] = (max(block + 1, stages.get(stage, (0,))[0]), value.shape[0])
    return stages


def _matches(stages: dict[int, tuple[int, int]], setting: dict) -> bool:
    return all((setting['depths'][i], setting['embed_dims'][i]) == stage for i, stage in stages.items())
