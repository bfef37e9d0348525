"""Where a training's weights come from: a checkpoint that is named, or nowhere, which is said loudly."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import MODELS

from vik_mm.checkpoints import read_checkpoint, unwrap_state_dict
from vik_mm.errors import BadInputError

from .release_weights import convert_release

RANDOM = (
    'WEIGHTS: RANDOM. No weights are shipped with this project, and training starts from nothing: it needs more images '
    "and more epochs, and reaches less. Give --pretrained FILE with a checkpoint of a ViK classifier, of the authors' "
    'release, or of any training here.'
)


@dataclass(frozen=True)
class Source:
    """A checkpoint that a backbone begins with.

    Args:
        file (str): The checkpoint, or a converted copy of it.
        prefix (str): What the backbone's weights begin with in it.
        note (str): A line for people.
    """

    file: str
    prefix: str
    note: str

    @property
    def init_cfg(self) -> dict[str, Any]:
        """What goes into the backbone's config."""
        return dict(type='Pretrained', checkpoint=self.file, **(dict(prefix=self.prefix) if self.prefix else {}))


def find_source(file: str, work_dir: str | Path) -> Source:
    """Look what kind of checkpoint a file is.

    Args:
        file (str): The checkpoint; one of the authors' release is converted into the work dir.
        work_dir (str | Path): The training's folder.

    Returns:
        Source: How to begin with it.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If it cannot be read, or holds no weights of a ViK's release and none of a backbone.
    """
    checkpoint = read_checkpoint(file)
    weights, _ = unwrap_state_dict(checkpoint)
    if any(name.startswith('network.') for name in weights):
        converted = convert_release(weights)
        target = Path(work_dir).resolve() / f'{Path(file).stem}_converted.pth'
        target.parent.mkdir(parents=True, exist_ok=True)
        torch.save(converted, target)
        return Source(str(target), 'backbone.', f"WEIGHTS: {file}, of the authors' release; converted into {target}")
    path = str(Path(file).resolve())
    prefix = 'backbone.' if any(name.startswith('backbone.') for name in weights) else ''
    return Source(path, prefix, f'WEIGHTS: the backbone of {file}')


def check_source(source: Source, cfg: Config) -> str:
    """Make sure that weights fit the backbone of a config.

    Args:
        source (Source): The weights.
        cfg (Config): The config.

    Returns:
        str: How many fit.

    Raises:
        BadInputError: If none does, or those that have the right names have other shapes.
    """
    weights, _ = unwrap_state_dict(read_checkpoint(source.file))
    given = {
        name.removeprefix(source.prefix): value for name, value in weights.items() if name.startswith(source.prefix)
    }
    settings = {key: value for key, value in cfg.model.backbone.items() if key not in ('init_cfg', 'pretrained')}
    with MODELS.switch_scope_and_registry(cfg.get('default_scope')) as registry:
        own = registry.build(settings).state_dict()
    named = [name for name in own if name in given]
    fitting = [
        name for name in named if own[name].shape == given[name].shape or name.endswith(('.global_in', '.global_out'))
    ]
    kind = cfg.model.backbone.get('arch') or cfg.model.backbone.get('depth') or ''
    what = f'{cfg.model.backbone.type} {kind}'.strip()
    if len(fitting) < len(own) / 2:
        first = ', '.join(list(given or weights)[:3])
        reason = f'{len(named) - len(fitting)} of its weights have other shapes' if named else f'it has {first}, ...'
        raise BadInputError(
            f'--pretrained {source.file}: {len(fitting)} of {len(own)} weights of the backbone ({what}) fit it '
            f'({reason}); it is of another backbone or arch: name that one with --backbone, or take another file'
        )
    return f'{len(fitting)} of {len(own)} weights of the backbone ({what}) are in it'


def _backbone_of(cfg: Config) -> Any:
    model = cfg.get('model')
    return model.get('backbone') if isinstance(model, dict) else None


def describe(cfg: Config) -> str:
    """Say where the weights of a config's model come from.

    Args:
        cfg (Config): The config.

    Returns:
        str: A line; a loud one for random weights.
    """
    if cfg.get('load_from'):
        return f'WEIGHTS: the whole model from {cfg.load_from}'
    # Of another form than a dict: the builder of the model says so.
    model, backbone = (part if isinstance(part, dict) else {} for part in (cfg.get('model'), _backbone_of(cfg)))
    for part in (backbone, model):
        init = part.get('init_cfg')
        for each in init if isinstance(init, (list, tuple)) else [init]:
            if isinstance(each, dict) and each.get('type') == 'Pretrained':
                return f'WEIGHTS: {each.get("checkpoint")}, for {"the backbone" if part is backbone else "the model"}'
    if backbone.get('pretrained') or model.get('pretrained'):
        return f'WEIGHTS: {backbone.get("pretrained") or model.get("pretrained")}, for the backbone'
    return RANDOM
