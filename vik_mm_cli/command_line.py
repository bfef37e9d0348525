"""What the command lines of the tools share: arguments, and checks that need no model.

A tool imports PyTorch and the mm packages, which takes ten seconds and more, in the functions that run after
:func:`parse`: ``--help`` and a wrong argument are answered at once.
"""

import argparse
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from .config_files import find_config
from .errors import BadInputError, end_on_user_errors
from .option_values import ConfigOptions

# As in vik_mm.config.swap and vik_mm.deploy, which cannot be imported without all the rest.
BACKBONES = ('karat-b', 'karat-s', 'karat-t', 'vik-b', 'vik-l', 'vik-m', 'vik-s', 'vik-t')
EXPORT_ENDINGS = {'onnx': '.onnx', 'torch-export': '.export.pt2', 'torchscript': '.ts', 'aoti': '.aoti.pt2'}


def add_config_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what each tool that reads a config takes.

    Args:
        parser (ArgumentParser): Changed in place.
    """
    parser.add_argument('config', help='config file, or e.g. mmdet::retinanet/retinanet_r50_fpn_1x_coco.py')
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
            if 'config' in given:
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
    """
    if '://' not in path and not Path(path).is_file():
        kind = 'exported file' if path.endswith(tuple(EXPORT_ENDINGS.values())) else 'checkpoint'
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
