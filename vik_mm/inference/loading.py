"""From files to a model that predicts."""

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from vik_mm.checkpoints import check_checkpoint_file, load_checkpoints_as_data, read_checkpoint
from vik_mm.config import load_config
from vik_mm.config.literals import parse_literal_config
from vik_mm.config.safe import registered_classes_only
from vik_mm.deploy import exported_format
from vik_mm.errors import BadInputError

from .model import Model

_REMEDY = 'give the config too: vik_mm.load(config, checkpoint)'


def load(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device | None = None,
    amp: bool = False,
) -> Model:
    """Load a trained model.

    ``load(checkpoint)`` finds the config in the checkpoint of a training, or as the only ``*.py`` file beside it that
    MMEngine has dumped. It is read as data, so nothing of it runs, and only registered classes of vik_mm and the mm
    packages are built. ``load(config, checkpoint)`` takes a config that you trust: one in Python is a program and runs.

    Args:
        config (str | PathLike | Config): The config file, or e.g. ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``,
            or a config. If it is the only file given: the checkpoint.
        checkpoint (str | PathLike, optional): Weights, PyTorch's or ``.safetensors``, or a file of
            :func:`vik_mm.deploy.export`. Defaults to None.
        device (str | torch.device, optional): None takes a GPU where there is one. Defaults to None.
        amp (bool): Whether to compute in mixed precision: float16 on GPUs, bfloat16 on CPUs. Defaults to False.

    Returns:
        Model: Ready to predict.

    Raises:
        FileNotFoundError: If a file does not exist.
        BadInputError: If a file cannot be read, no config is found, the config names classes that are not registered,
            or the weights do not fit.
    """
    load_checkpoints_as_data()
    if checkpoint is not None:
        cfg = config if isinstance(config, Config) else load_config(os.fspath(config))
        return Model(cfg, _checked(checkpoint), device, amp)
    if not isinstance(config, (str, os.PathLike)):
        raise BadInputError('a config needs a checkpoint: vik_mm.load(config, checkpoint)')
    path = Path(config)
    if path.suffix in ('.py', '.json', '.yaml', '.yml') or '::' in str(config):
        raise BadInputError(f'{config} is a config, which needs weights: vik_mm.load(config, checkpoint)')
    _checked(path)
    cfg = find_config_of(path)
    try:
        with registered_classes_only(cfg):
            return Model(cfg, path, device, amp)
    except BadInputError as error:
        # What the check says of the command line is about a file that the user would name.
        raise BadInputError(
            f'{str(error).replace("--safe-config", "vik_mm.load(checkpoint)")}; or {_REMEDY}'
        ) from error


def find_config_of(checkpoint: str | os.PathLike) -> Config:
    """Find the config that a checkpoint was trained with, and read it as data.

    Args:
        checkpoint (str | PathLike): A checkpoint, or an exported file.

    Returns:
        Config: What stands in the checkpoint (``meta.cfg``, which MMEngine writes), or else in the only Python file
        beside it that holds nothing but values.

    Raises:
        BadInputError: If there is none, or several are beside it.
    """
    path = Path(checkpoint)
    meta: dict[str, Any] = {} if exported_format(path) else read_checkpoint(path).get('meta') or {}
    for key in ('cfg', 'config'):  # the second is older
        if isinstance(meta.get(key), str) and meta[key].strip():
            return parse_literal_config(meta[key], f'the config in {path}')
    found, refused = {}, []
    for file in sorted(path.parent.glob('*.py')):
        try:
            cfg = parse_literal_config(file.read_text(encoding='utf-8'), str(file))
        except (BadInputError, OSError, UnicodeDecodeError) as error:
            refused.append(str(error))
            continue
        if 'model' in cfg:
            found[file] = cfg
    if len(found) == 1:
        return next(iter(found.values()))
    if found:
        raise BadInputError(f'{path} has several configs beside it ({", ".join(map(str, found))}); {_REMEDY}')
    seen = f' ({refused[0]})' if refused else ''
    raise BadInputError(f'{path} holds no config, and none was found beside it{seen}; {_REMEDY}')


def _checked(checkpoint: str | os.PathLike) -> str | os.PathLike:
    if exported_format(checkpoint) is None:
        check_checkpoint_file(checkpoint)
    elif not Path(checkpoint).is_file():
        raise FileNotFoundError(f'exported file {checkpoint} does not exist')
    return checkpoint
