"""From a config file and a command line to a config."""

import json
from pathlib import Path

import yaml
from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from vik_mm.errors import BadInputError
from vik_mm_cli.config_files import find_config

from .form import check_form, warn_of_unread_names
from .options import merge_options
from .safe import read_safe_config
from .swap import swap_backbone


def load_config(
    path: str,
    options: dict | None = None,
    work_dir: str | None = None,
    backbone: str | None = None,
    is_safe: bool = False,
    is_amp: bool = False,
) -> Config:
    """Read a config file and put the command line's settings over it.

    Args:
        path (str): The config file, or ``package::path`` for one that ships with MMDetection, MMSegmentation or
            MMPretrain.
        options (dict, optional): Values of ``--cfg-options``. Defaults to None.
        work_dir (str, optional): Where logs and checkpoints go; None takes the config's, or
            ``work_dirs/<name of the config>``. Defaults to None.
        backbone (str, optional): What :func:`vik_mm.swap_backbone` puts into the config before ``options`` apply.
            Defaults to None.
        is_safe (bool): Whether to read only JSON and YAML, by :func:`read_safe_config`. Defaults to False.

        is_amp (bool): Whether training is to be in mixed precision, whose options may then be among ``options``.
            Defaults to False.

    Returns:
        Config: The config, with ``work_dir`` set.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If the file cannot be read, a part of the config is no dict where one is needed, nothing reads
            one of the ``options``, the backbone cannot be swapped, or the config is not safe and has to be.
    """
    cfg = read_safe_config(path) if is_safe else _read(path)
    if backbone:
        cfg = swap_backbone(cfg, backbone)
    warn_of_unread_names(cfg)
    if is_amp:
        check_form(cfg)
        cfg.optim_wrapper = {**(cfg.get('optim_wrapper') or {}), 'type': 'AmpOptimWrapper'}
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if options:
        merge_options(cfg, options)
    check_form(cfg)
    if work_dir is not None:
        cfg.work_dir = work_dir
    elif cfg.get('work_dir') is None:
        stem = Path(path).stem
        cfg.work_dir = str(Path('work_dirs', f'{stem}_{backbone}' if backbone else stem))
    return cfg


def _read(path: str) -> Config:
    file = find_config(path)
    try:
        return Config.fromfile(file)
    # What a config in Python raises while it runs is for its author, with the line that raises it.
    except (SyntaxError, UnicodeDecodeError, json.JSONDecodeError, yaml.YAMLError, ConfigParsingError) as error:
        raise BadInputError(f'config {path} cannot be read ({" ".join(str(error).split())})') from error
