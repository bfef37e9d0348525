"""What the command lines of the tools share: arguments, and checks that need no model.

A tool imports PyTorch and the mm packages, which takes ten seconds and more, in the functions that run after
:func:`parse`: ``--help`` and a wrong argument are answered at once.
"""

import argparse
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from .config_files import find_config
from .errors import BadInputError, end_on_user_errors
from .option_values import ConfigOptions

# As in vik_mm.config.swap and vik_mm.deploy, which cannot be imported without all the rest.
BACKBONES = ('karat-b', 'karat-s', 'karat-t', 'vik-b', 'vik-l', 'vik-m', 'vik-s', 'vik-t')
# As in vik_mm.recipes.conveniences and vik_mm.datasets.folders.
LOGS = ('tensorboard', 'wandb', 'mlflow', 'clearml', 'neptune', 'dvclive', 'aim')
TASKS = ('classification', 'detection', 'instance', 'segmentation')
EXPORT_ENDINGS = {'onnx': '.onnx', 'torch-export': '.export.pt2', 'torchscript': '.ts', 'aoti': '.aoti.pt2'}


def add_config_arguments(parser: argparse.ArgumentParser, is_needed: bool = True) -> None:
    """Add what each tool that reads a config takes.

    Args:
        parser (ArgumentParser): Changed in place.
        is_needed (bool): Whether the config must be given. Defaults to True.
    """
    parser.add_argument(
        'config',
        nargs=None if is_needed else '?',
        help='config file, or e.g. mmdet::retinanet/retinanet_r50_fpn_1x_coco.py',
    )
    parser.add_argument(
        '--safe-config', action='store_true', help='refuse a config that could run code; takes only JSON or YAML'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE', help='override values of the config'
    )


def add_launch_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what training and testing take alike, under the names that users of the mm packages know.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default work_dirs/<config name>')
    parser.add_argument('--amp', action='store_true', help='run in mixed precision')
    parser.add_argument('--compile', action='store_true', help='compile the backbone, once for all image sizes')
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    # torch.distributed.launch passes this to its scripts; torchrun sets LOCAL_RANK instead.
    parser.add_argument(
        '--local_rank', '--local-rank', type=int, default=int(os.environ.get('LOCAL_RANK', 0)), help=argparse.SUPPRESS
    )


def add_data_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what makes a config out of a user's data.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    group = parser.add_argument_group('your own data, in the place of a config')
    group.add_argument('--data', metavar='FOLDER', help='look what is in this folder, write a config, and train')
    group.add_argument('--data-format', metavar='F', help='what the folder is, where looking does not tell')
    group.add_argument('--data-task', choices=TASKS, metavar='T', help=f'what to learn: {", ".join(TASKS)}')
    group.add_argument('--data-classes', metavar='FILE', help='a class in each line: a name, or "name,red,green,blue"')
    group.add_argument('--model', metavar='M', help='mask-rcnn, retinanet, fpn, upernet, ..., or mmdet::FILE')
    group.add_argument('--image-size', type=int, metavar='N', help='pixels that images are scaled to')


def add_switches(parser: argparse.ArgumentParser) -> None:
    """Add what is written into any config.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    group = parser.add_argument_group('written into the config')
    group.add_argument('--pretrained', metavar='FILE', help='a checkpoint that the backbone begins with')
    group.add_argument('--epochs', type=int, metavar='N', help='epochs; schedules follow')
    group.add_argument('--lr', type=float, metavar='X', help='learning rate')
    group.add_argument('--batch', type=_batch, metavar='N|auto', help='images of a batch; the learning rate follows')
    group.add_argument('--time', type=_seconds, metavar='2h', help='end in time: 90s, 30m, 2h, 1h30m')
    group.add_argument('--ema', action='store_true', help='average the weights over training')
    group.add_argument(
        '--early-stop', nargs='?', type=int, const=5, metavar='N', help='end after N validations in vain'
    )
    group.add_argument('--save-best', nargs='?', const='auto', metavar='KEY', help='keep the best checkpoint')
    group.add_argument('--log', nargs='+', choices=LOGS, metavar='NAME', help=f'log to {", ".join(LOGS)}')
    group.add_argument('--val-loss', action='store_true', help='log the loss on the validation split')
    group.add_argument(
        '--freeze', nargs='?', type=int, const=-1, metavar='N', help="freeze the backbone's first stages"
    )
    group.add_argument('--tta', action='store_true', help='write how tools/test.py --tta looks several times')


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all that ``tools/train.py`` takes.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    add_config_arguments(parser, is_needed=False)
    add_data_arguments(parser)
    add_switches(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|FILE',
        help='carry on from a checkpoint; without a file, from the newest in the work dir',
    )
    parser.add_argument(
        '--backbone', metavar='vik-s', help='put this backbone into the config: vik-t to vik-l, karat-t to karat-b'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by batch size / base_batch_size'
    )
    add_launch_arguments(parser)


def check_data_or_config(args: argparse.Namespace) -> None:
    """Make sure that there is a config or a folder, and not both; and that numbers make sense.

    Args:
        args (Namespace): The command line.

    Raises:
        FileNotFoundError: If there is no such folder.
        BadInputError: If there are both or none, or a number is too small.
    """
    if (args.config is None) == (args.data is None):
        which = 'both a config and --data are given' if args.data else 'neither a config nor --data is given'
        raise BadInputError(f'{which}; give exactly one: a config file, or --data FOLDER with your own images')
    if args.data is not None and not Path(args.data).exists():
        raise FileNotFoundError(f'--data {args.data} does not exist')
    if args.data is None:
        for name in ('data_format', 'data_task', 'data_classes', 'model', 'image_size'):
            if getattr(args, name) is not None:
                raise BadInputError(f'--{name.replace("_", "-")} goes with --data FOLDER, and a config is given')
    elif args.safe_config:
        raise BadInputError('--safe-config goes with a config; the one that --data writes is Python')
    for name, least in (('epochs', 1), ('early_stop', 1), ('image_size', 32)):
        if (value := getattr(args, name)) is not None and value < least:
            raise BadInputError(f'--{name.replace("_", "-")} {value} must be a whole number from {least} up')
    if args.lr is not None and not 0 < args.lr < float('inf'):
        raise BadInputError(f'--lr {args.lr} must be a number above 0')
    if args.pretrained is not None:
        check_checkpoint(args.pretrained)


def _batch(text: str) -> int | str:
    if text == 'auto':
        return text
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r} must be a whole number from 1 up, or auto')
    return int(text)


def _seconds(text: str) -> float:
    found = re.fullmatch(r'(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m(?:in)?)?(?:(\d+(?:\.\d+)?)s)?', text.strip())
    seconds = sum(float(part or 0) * unit for part, unit in zip(found.groups(), (3600, 60, 1))) if found else 0
    if not seconds:
        raise argparse.ArgumentTypeError(f'{text!r} is no time; write it as 90s, 30m, 2h or 1h30m')
    return seconds


def add_tile_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what has a tool predict on large pictures in windows.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    parser.add_argument(
        '--tile',
        type=int,
        metavar='PIXELS',
        help='predict on larger pictures in windows of this side, cut at their own resolution',
    )
    parser.add_argument(
        '--overlap',
        type=float,
        default=0.2,
        help="share of a window's side that the next window sees too (default: %(default)s)",
    )
    parser.add_argument(
        '--tile-batch-size', type=int, default=1, metavar='N', help='windows computed together (default: %(default)s)'
    )


def check_tile_arguments(args: argparse.Namespace) -> None:
    """Make sure that windows can be laid as :func:`add_tile_arguments` has read them.

    Args:
        args (Namespace): The arguments.

    Raises:
        BadInputError: If one is out of its range.
    """
    if args.tile is not None and args.tile < 1:
        raise BadInputError(f'--tile {args.tile} must be the side of a window in pixels, such as 640')
    if not 0 <= args.overlap <= 0.9:
        raise BadInputError(f'--overlap {args.overlap} must be a share from 0 to 0.9, such as 0.2')
    if args.tile_batch_size < 1:
        raise BadInputError(f'--tile-batch-size {args.tile_batch_size} must be at least 1')


def parse(
    parser: argparse.ArgumentParser,
    argv: Sequence[str] | None = None,
    check: Callable[[argparse.Namespace], None] | None = None,
) -> argparse.Namespace:
    """Parse a command line, and end with an error where it names a config, checkpoint or backbone that is not there.

    Args:
        parser (ArgumentParser): The tool's. Its arguments ``config``, ``checkpoint``, ``resume`` and ``backbone`` are
            checked, if it has them.
        argv (Sequence[str], optional): None for the process's. Defaults to None.
        check (Callable, optional): Checks the tool's other arguments; raises OSError or BadInputError.
            Defaults to None.

    Returns:
        Namespace: The arguments.
    """
    args = parser.parse_args(argv)
    given = vars(args)
    with end_on_user_errors():
        try:
            if given.get('config') is not None:
                find_config(args.config, given.get('safe_config', False))
            if given.get('backbone') is not None:
                check_backbone(args.backbone)
            if 'checkpoint' in given:
                check_checkpoint(args.checkpoint)
            if given.get('resume') not in (None, 'auto'):
                check_checkpoint(args.resume)
            if check is not None:
                check(args)
        except OSError as error:  # of looking for a file, and be it that its name is too long
            raise BadInputError(str(error)) from error
    return args


def check_checkpoint(path: str) -> None:
    """Make sure that a checkpoint, or a file of ``tools/export.py``, is there.

    Args:
        path (str): The file, or an address, which is left to what downloads it.

    Raises:
        FileNotFoundError: If there is no such file.
        BadInputError: If it is the address of an exported file.
    """
    is_exported = path.endswith(tuple(EXPORT_ENDINGS.values()))
    if '://' in path and is_exported:
        raise BadInputError(f'exported file {path} is at an address: download it first')
    if '://' not in path and not Path(path).is_file():
        kind = 'exported file' if is_exported else 'checkpoint'
        raise FileNotFoundError(f'{kind} {path} {"is a folder" if Path(path).is_dir() else "does not exist"}')


def check_backbone(name: str) -> None:
    """Make sure that a backbone can be put into a config.

    Args:
        name (str): The backbone's.

    Raises:
        BadInputError: If there is no backbone of that name.
    """
    if name not in BACKBONES:
        raise BadInputError(f'backbone {name!r} is unknown; choose one of {list(BACKBONES)}')
