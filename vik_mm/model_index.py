"""Makes MMPretrain know the models of this project's metafiles."""

import functools
from pathlib import Path

from mmpretrain.apis.model import ModelHub


def project_root() -> Path:
    """Return the folder that holds ``configs/`` and ``model-index.yml``: of the wheel, or of the checkout."""
    package = Path(__file__).resolve().parent
    return package / '.mim' if (package / '.mim').is_dir() else package.parent


@functools.cache
def register_model_index() -> None:
    """Register the models for ``mmpretrain.list_models`` and ``get_model``; a second call changes nothing."""
    path = project_root() / 'model-index.yml'
    ModelHub.register_model_index(path, config_prefix=path.parent)
