"""MMCV's compiled operators from torchvision and plain PyTorch, where MMCV was installed without them.

MMCV's Python side asks for a module ``mmcv._ext`` and calls its functions by name. Where no such module was compiled,
:func:`serve_mmcv_ops` puts one there that holds the functions that detectors and segmentors need, for CPU and CUDA. Any
other function of it raises an error that names it and says how to compile MMCV. Compiled operators always win.

``import vik_mm`` calls it; ``VIK_MM_MMCV_OPS=0`` in the environment switches it off. A line in the log says so when an
operator of it is used for the first time.
"""

import functools
import importlib.machinery
import importlib.util
import os
import sys
import types

from mmengine.logging import print_log

from . import attention, boxes, convolutions, losses, regions

_PARTS = (boxes, regions, convolutions, losses, attention)
MMCV_OPS = {
    name: function
    for part in _PARTS
    for name, function in vars(part).items()
    if isinstance(function, types.FunctionType) and not name.startswith('_')
}
BUILD_COMMAND = (
    "pip install 'setuptools>=80,<82' wheel ninja psutil && "
    'MMCV_WITH_OPS=1 pip install --no-build-isolation --no-binary :all: --no-deps --force-reinstall {package}'
)


class _Operators(types.ModuleType):
    """Stands in for ``mmcv._ext``."""

    def __init__(self):
        super().__init__('mmcv._ext', __doc__)
        self.__spec__ = importlib.machinery.ModuleSpec('mmcv._ext', loader=None, origin=__name__)
        self.announced = False

    def __getattr__(self, name):
        if name.startswith('__'):
            raise AttributeError(name)
        function = functools.partial(_missing, name) if name not in MMCV_OPS else self._announcing(MMCV_OPS[name])
        setattr(self, name, function)
        return function

    def _announcing(self, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            if not self.announced:
                self.announced = True
                print_log(
                    'MMCV has no compiled operators: they come from torchvision and PyTorch (vik_mm.compat.mmcv_ops); '
                    'VIK_MM_MMCV_OPS=0 switches this off',
                    logger='current',
                )
            return function(*args, **kwargs)

        return call


def serve_mmcv_ops() -> bool:
    """Put the operators into the place of ``mmcv._ext``, unless MMCV has its own.

    Returns:
        bool: Whether this project's operators are in place.

    Raises:
        ImportError: If MMCV's own were compiled for another PyTorch.
    """
    if os.environ.get('VIK_MM_MMCV_OPS') == '0':
        return False
    if isinstance(sys.modules.get('mmcv._ext'), _Operators):
        return True
    if importlib.util.find_spec('mmcv._ext') is not None:
        _check_compiled()
        return False
    import mmcv

    mmcv._ext = sys.modules['mmcv._ext'] = _Operators()
    return True


def _check_compiled() -> None:
    import torch  # whose libraries the operators need

    try:
        importlib.import_module('mmcv._ext')
    except ImportError as error:
        command = BUILD_COMMAND.format(package=_installed_mmcv())
        raise ImportError(
            f"MMCV's operators were not compiled for torch {torch.__version__} ({error}): {command}"
        ) from error


def _missing(name, *args, **kwargs):
    raise NotImplementedError(
        f"the operator '{name}' of MMCV is not compiled here, and vik_mm.compat.mmcv_ops has none. Compile MMCV: "
        f'{BUILD_COMMAND.format(package=_installed_mmcv())}'
    )


def _installed_mmcv() -> str:
    """Name the package that brought ``mmcv``, with its version; the lite package has no operators to compile."""
    from importlib import metadata

    for package in ('onedl-mmcv', 'mmcv', 'mmcv-lite'):
        try:
            version = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
        return f'{package.removesuffix("-lite")}=={version}'
    return 'onedl-mmcv'
