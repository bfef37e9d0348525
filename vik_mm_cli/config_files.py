"""Where config files are: users' own, and those that ship with the mm packages."""

import importlib.util
from pathlib import Path

from .errors import BadInputError

PACKAGES = ('mmdet', 'mmseg', 'mmpretrain', 'vik_mm')
ENDINGS = ('.py', '.json', '.yaml', '.yml')


def shipped_configs(package: str) -> Path:
    """Find the folder of a package's configs.

    Args:
        package (str): 'mmdet', 'mmseg', 'mmpretrain' or 'vik_mm'.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: If the package is unknown, not installed, or came without configs.
    """
    spec = importlib.util.find_spec(package) if package in PACKAGES else None
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f'{package} is not installed, or none of {", ".join(PACKAGES)}')
    root = Path(spec.submodule_search_locations[0])
    # An installed wheel has them below .mim, a checkout beside the package.
    for folder in (root / '.mim/configs', root.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f'{root} came without configs')


def find_config(path: str, is_safe: bool = False) -> Path:
    """Find a config file; ``package::path`` names one that ships with a package.

    MMEngine has such names too, but looks for a package called mmsegmentation, which OneDL's is not.

    Args:
        path (str): A file, or e.g. ``mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py``.
        is_safe (bool): Whether the config is to be read as data; such a one is always a file. Defaults to False.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is no such file; the message names files that are similar.
        BadInputError: If it is no config file by its name.
    """
    package, mark, name = ('', '', path) if is_safe else path.rpartition('::')
    file = shipped_configs(package) / name if mark else Path(path)
    if not file.is_file():
        # The folder that a command is given in holds programs as well.
        near = sorted(p.name for p in file.parent.glob('*.py')) if file.parent.is_dir() and file.parent.name else []
        hint = f'; {file.parent.name}/ has {", ".join(near[:8])}{", ..." if len(near) > 8 else ""}' if near else ''
        what = 'is a folder' if file.is_dir() else 'does not exist'
        raise FileNotFoundError(f'config {path} {what}{"" if is_safe else hint}')
    if file.suffix not in ENDINGS:
        raise BadInputError(f'config {path} must end in {", ".join(ENDINGS)}')
    return file
