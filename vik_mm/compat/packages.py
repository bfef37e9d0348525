"""Whether the mm packages are there."""

import importlib.util


def require_mm_packages() -> None:
    """Make sure that MMEngine, MMCV and MMPretrain can be imported.

    Raises:
        ImportError: If one is missing; the message says what to install.
    """
    missing = [name for name in ('mmengine', 'mmcv', 'mmpretrain') if importlib.util.find_spec(name) is None]
    if missing:
        raise ImportError(
            f"vik_mm needs {', '.join(missing)}: pip install 'vik_mm[onedl]', or 'vik_mm[openmmlab]' beside packages "
            'of OpenMMLab; never both in one environment'
        )
