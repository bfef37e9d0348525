"""Where installed mm packages keep the configs that ship with them, and where else MMEngine finds configs."""

import importlib.util
from pathlib import Path

from mmengine.config import Config

from vik_mm.errors import BadInputError

_PACKAGES = ('mmdet', 'mmseg', 'mmpretrain')


def shipped_configs(package: str) -> Path:
    """Find the folder of a package's configs.

    Args:
        package (str): 'mmdet', 'mmseg' or 'mmpretrain'.

    Returns:
        Path: The folder.

    Raises:
        FileNotFoundError: If the package is unknown, not installed, or came without configs.
    """
    spec = importlib.util.find_spec(package) if package in _PACKAGES else None
    if spec is None:
        raise FileNotFoundError(f'{package} is not installed, or none of {", ".join(_PACKAGES)}')
    root = Path(spec.submodule_search_locations[0])
    # An installed wheel has them below .mim, a checkout beside the package.
    for folder in (root / '.mim/configs', root.parent / 'configs'):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f'{root} came without configs')


def resolve_config(path: str) -> Path:
    """Find a config file; ``package::path`` names one that ships with a package.

    MMEngine has such names too, but looks for a package called mmsegmentation, which OneDL's is not.

    Args:
        path (str): A file, or e.g. ``mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py``.

    Returns:
        Path: The file.

    Raises:
        FileNotFoundError: If there is no such file; the message names files that are similar.
    """
    package, mark, name = path.rpartition('::')
    file = shipped_configs(package) / name if mark else Path(path)
    if not file.is_file():
        # The folder that a command is given in holds programs as well.
        near = sorted(p.name for p in file.parent.glob('*.py')) if file.parent.is_dir() and file.parent.name else []
        hint = f'; {file.parent.name}/ has {", ".join(near[:8])}{", ..." if len(near) > 8 else ""}' if near else ''
        raise FileNotFoundError(f'config {path} {"is a folder" if file.is_dir() else "does not exist"}{hint}')
    return file


def refuse_configs_from_text() -> None:
    """Have ``Config.fromstring`` refuse Python for the rest of this process.

    MMEngine calls it on text that stands in checkpoints: on ``meta.config`` when a run resumes, and on the run's config
    when an inferencer is given weights alone. Configs in Python run when they are read.
    """
    if Config.fromstring is not _fromstring:
        Config.fromstring = staticmethod(_fromstring)


_original_fromstring = Config.fromstring


def _fromstring(cfg_str: str, file_format: str) -> Config:
    if file_format == '.py':
        raise BadInputError(
            'a config in Python that stands in a checkpoint is not loaded because loading it runs code; write it to a '
            'file, read it, and give that file'
        )
    return _original_fromstring(cfg_str, file_format)
