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
