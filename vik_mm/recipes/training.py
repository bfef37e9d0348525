"""A training, from the options of ``tools/train.py`` to its end."""

from argparse import Namespace
from typing import Any

from mmengine.config import Config
from mmengine.registry import RUNNERS

from vik_mm.checkpoints import load_checkpoints_as_data
from vik_mm.checkpoints.atomic_files import write_files_atomically
from vik_mm.config import fit_to_machine, load_config
from vik_mm.datasets.layouts import check_datasets, explain_failed_downloads
from vik_mm.engine.runner import check_sharding, complete_config, init_distributed, make_work_dir, resolve_resume
from vik_mm.errors import BadInputError

from .command import apply_switches, config_from_data, keep_config_file, say_weights


def prepare_training(args: Namespace) -> Config:
    """Make the config of a training, and the folder that it writes into; start the processes' group.

    Args:
        args (Namespace): The command line of ``tools/train.py``. Its ``config`` may be a config that is loaded already.

    Returns:
        Config: What :func:`train` takes.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        BadInputError: If an option, the config or the data cannot be used.
    """
    load_checkpoints_as_data()
    write_files_atomically()
    # What --data writes has the backbone and the switches in it.
    config = config_from_data(args) if args.data else args.config
    backbone = None if args.data else args.backbone
    cfg = load_config(config, args.cfg_options, args.work_dir, backbone, args.safe_config, args.amp)
    if not args.data:
        apply_switches(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise BadInputError(f'--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {config}')
        cfg.auto_scale_lr.enable = True
        # MMEngine counts the images of an iteration; a step may be made of several.
        cfg.auto_scale_lr.base_batch_size /= (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if args.compile:
        cfg.compile = True
    complete_config(cfg)
    check_sharding(cfg)
    check_datasets(cfg, splits=('train', 'val'))
    make_work_dir(cfg)
    init_distributed(cfg, args.launcher, args.local_rank)
    resolve_resume(cfg, args.resume)
    say_weights(cfg)
    fit_to_machine(cfg)
    return keep_config_file(cfg)


def train(cfg: Config) -> Any:
    """Train.

    Args:
        cfg (Config): What :func:`prepare_training` has made.

    Returns:
        Runner: The runner, after the training.

    Raises:
        TrainingStopped: If the training was told to stop, and has saved itself.
    """
    runner = RUNNERS.build(cfg)
    with explain_failed_downloads(cfg):
        runner.train()
    return runner
