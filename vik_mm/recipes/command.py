"""What the options of ``tools/train.py`` do: from a folder to a config, and from switches to settings."""

import logging
import os
from argparse import Namespace
from pathlib import Path

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.logging import print_log

from vik_mm.datasets.folders import PreparedData
from vik_mm.engine.runner import init_distributed
from vik_mm.errors import BadInputError

from . import conveniences, schedules
from .models import copied
from .weights import check_source, describe, find_source
from .writing import write_config


def config_from_data(args: Namespace) -> str:
    """Look at a user's folder, and write a config for it.

    Of several processes the first one does it, and the others wait.

    Args:
        args (Namespace): The command line of ``tools/train.py``.

    Returns:
        str: The config's file.

    Raises:
        FileNotFoundError: If there is no such folder.
        BadInputError: If the data cannot be used, or a config that was edited is in the way; in all processes.
    """
    if args.launcher != 'none':
        init_distributed(Config(dict(env_cfg=dict(dist_cfg=dict(backend='gloo')))), args.launcher, args.local_rank)
    answer: list = [None, None]
    if is_main_process():
        try:
            answer = [_write(args), None]
        except (BadInputError, OSError) as error:
            answer = [None, str(error)]
    broadcast_object_list(answer)
    if answer[1] is not None:
        raise BadInputError(answer[1])
    return answer[0]


def _write(args: Namespace) -> str:
    from vik_mm.datasets.folders import prepare  # who only tests needs none of it

    cache = Path(args.work_dir, 'data') if args.work_dir else None
    options = dict(format=args.data_format, task=args.data_task, class_file=args.data_classes)
    data: PreparedData = prepare(args.data, cache, **options)
    counts = ', '.join(f'{split.num_images:,} images to {name}' for name, split in data.splits.items())
    print_log(f'DATA: {data.source}: {data.task}, {len(data.classes)} classes, {counts}', logger='current')
    for note in data.notes:
        print_log(note, logger='current')
    work_dir = Path(args.work_dir or Path('work_dirs', data.name))
    path = work_dir / 'config.py'
    if args.resume is not None and path.is_file():
        print_log(f'--resume: the config is {path}, as it is there', logger='current')
        return str(path)
    source = find_source(args.pretrained, work_dir) if args.pretrained else None
    batch = args.batch if isinstance(args.batch, int) else None
    write_config(
        data,
        path,
        model=args.model,
        backbone=args.backbone,
        pretrained=source,
        epochs=args.epochs,
        lr=args.lr,
        batch_size=batch,
        image_size=args.image_size,
        change=lambda cfg: apply_switches(cfg, args, is_new=True),
    )
    print_log(f'CONFIG: {path}; edit it, and run it again with: python tools/train.py {path}', logger='current')
    return str(path)


def apply_switches(cfg: Config, args: Namespace, is_new: bool = False) -> list[str]:
    """Write what the command line asks for into a config; each setting is a line of the log.

    Args:
        cfg (Config): Changed in place.
        args (Namespace): The command line of ``tools/train.py``.
        is_new (bool): Whether the config is being written for the data of the command line, and has the numbers that
            it gives already. Defaults to False.

    Returns:
        list[str]: Names at the top of the config whose values have changed.

    Raises:
        BadInputError: If a value makes no sense, or does not go with the config.
    """
    before = copied(cfg._cfg_dict)
    lines: list[str] = []
    if not is_new:
        if args.pretrained:
            lines += _begin_with(cfg, args.pretrained)
        if args.epochs is not None:
            lines += schedules.set_epochs(cfg, args.epochs)
    if args.batch is not None and not (is_new and isinstance(args.batch, int)):
        lines += schedules.set_batch(cfg, args.batch, scales_lr=args.lr is None)
    if args.lr is not None and not is_new:
        lines += schedules.set_lr(cfg, args.lr)
    if args.val_loss:
        lines += conveniences.add_val_loss(cfg)
    if args.save_best is not None:
        lines += conveniences.set_save_best(cfg, args.save_best)
    if args.early_stop is not None:
        lines += conveniences.add_early_stop(cfg, args.early_stop)
    if args.ema:
        lines += conveniences.add_ema(cfg)
    if args.time is not None:
        lines += conveniences.add_time_limit(cfg, args.time)
    if args.log:
        lines += conveniences.add_log(cfg, args.log)
    if args.freeze is not None:
        lines += conveniences.set_freeze(cfg, None if args.freeze < 0 else args.freeze)
    if args.tta:
        lines += conveniences.add_tta(cfg)
    for line in lines:
        print_log(f'written into the config: {line}', logger='current')
    after = copied(cfg._cfg_dict)
    return [key for key in after if key not in before or after[key] != before[key]]


def say_weights(cfg: Config) -> None:
    """Log where the weights come from; a loud line for random ones."""
    if not cfg.get('resume'):
        print_log(describe(cfg), logger='current', level=logging.WARNING if 'RANDOM' in describe(cfg) else logging.INFO)


def keep_config_file(cfg: Config) -> Config:
    """Have MMEngine write the config of a run beside the file that it was read from, and not over it.

    Args:
        cfg (Config): A config with its ``work_dir``.

    Returns:
        Config: The same, or a copy under another name where its own file stands in the work dir.
    """
    name = cfg.filename
    if not name or os.path.realpath(Path(name).parent) != os.path.realpath(cfg.work_dir):
        return cfg
    return Config(
        cfg._cfg_dict, cfg_text=cfg.text or ' ', filename=str(Path(name).with_name(f'{Path(name).stem}_as_run.py'))
    )


def _begin_with(cfg: Config, file: str) -> list[str]:
    source = find_source(file, cfg.work_dir)
    backbone = (cfg.get('model') or {}).get('backbone')
    if not isinstance(backbone, dict):
        raise BadInputError('--pretrained: the config has no model.backbone')
    fitting = check_source(source, cfg)
    backbone.pop('pretrained', None)
    backbone['init_cfg'] = source.init_cfg
    return [f'model.backbone.init_cfg={source.init_cfg}; {fitting}']
