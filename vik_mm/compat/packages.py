"""Whether the mm packages are there, of one family and of versions that go together."""

import importlib.util
from importlib import metadata

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

# The same imports come from either family; MMCV of OpenMMLab under two names.
_FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    'onedl': {
        'mmengine': ('onedl-mmengine',),
        'mmcv': ('onedl-mmcv',),
        'mmpretrain': ('onedl-mmpretrain',),
        'mmdet': ('onedl-mmdetection',),
        'mmseg': ('onedl-mmsegmentation',),
    },
    'openmmlab': {
        'mmengine': ('mmengine', 'mmengine-lite'),
        'mmcv': ('mmcv', 'mmcv-lite'),
        'mmpretrain': ('mmpretrain',),
        'mmdet': ('mmdet',),
        'mmseg': ('mmsegmentation',),
    },
}


def require_mm_packages() -> None:
    """Make sure that what vik_mm imports is installed, and that what is installed goes together.

    What goes together is what the package's own metadata asks for. Packages that are imported without having been
    installed, from a checkout in ``PYTHONPATH`` say, have no version to check.

    Raises:
        ImportError: If a package is missing, packages of both families are there, or a version is not supported; the
            message says what to install.
    """
    missing = [
        name for name in ('mmengine', 'mmcv', 'mmpretrain', 'torchvision') if importlib.util.find_spec(name) is None
    ]
    if missing:
        raise ImportError(
            f"vik_mm needs {', '.join(missing)}: pip install 'vik_mm[onedl]', or 'vik_mm[openmmlab]' beside packages "
            'of OpenMMLab; never both in one environment'
        )
    found = {
        family: [name for names in packages.values() for name in names if _version(name)]
        for family, packages in _FAMILIES.items()
    }
    if all(found.values()):
        theirs = ' '.join(name for names in found.values() for name in names)
        raise ImportError(
            f'packages of OneDL ({", ".join(found["onedl"])}) and of OpenMMLab ({", ".join(found["openmmlab"])}) '
            f"overwrite each other: pip uninstall -y {theirs} && pip install 'vik_mm[onedl]'"
        )
    unfit = {
        name: asked for name, asked in _requirements() if not asked.contains(_version(name) or '', prereleases=True)
    }
    if unfit:
        has = ', '.join(f'{name} {_version(name)}' for name in unfit)
        wants = ' '.join(f"'{name}{asked}'" for name, asked in unfit.items())
        raise ImportError(f'vik_mm does not work with {has}: pip install {wants}')
    try:
        importlib.import_module('torchvision')
    except (ImportError, OSError, RuntimeError) as error:  # RuntimeError: an operator that its library did not register
        raise ImportError(
            f'torchvision {_version("torchvision")} does not go with torch {_version("torch")} ({error}): install both '
            'from one source, as with pip install --force-reinstall torch torchvision'
        ) from error


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _requirements() -> list[tuple[str, SpecifierSet]]:
    """Read which versions vik_mm asks for, of the packages that are installed."""
    try:
        texts = metadata.requires('vik_mm') or []
    except metadata.PackageNotFoundError:
        return []
    family = 'onedl' if _version('onedl-mmengine') else 'openmmlab'
    packages = _FAMILIES[family]
    is_dense = any(_version(name) for key in ('mmdet', 'mmseg') for name in packages[key])
    asked = []
    for requirement in map(Requirement, texts):
        if requirement.marker and not requirement.marker.evaluate(dict(extra=family)):
            continue
        specifier = requirement.specifier
        if requirement.name in packages['mmcv'] and not is_dense:
            # Only MMDetection and MMSegmentation refuse newer ones.
            specifier = SpecifierSet(','.join(str(one) for one in specifier if not one.operator.startswith('<')))
        aliases = next((names for names in packages.values() if requirement.name in names), (requirement.name,))
        asked += [(name, specifier) for name in aliases if _version(name)]
    return asked
