"""Vision KAN for dense prediction on MMEngine; importing this registers all there is."""

from .compat.packages import require_mm_packages

require_mm_packages()

from .compat.import_messages import silence_missing_onedl_client  # noqa: E402

silence_missing_onedl_client()  # before the first import of mmpretrain.datasets

from .compat.mmcv_ops import serve_mmcv_ops  # noqa: E402

serve_mmcv_ops()  # before the first import of mmcv.ops, which mmpretrain tries too

from vik_mm.config.swap import swap_backbone  # noqa: E402

from . import datasets, engine, mixers, mlps  # noqa: E402, F401  register
from .backbones import ViK, ViTKArAt  # noqa: E402
from .inference import load  # noqa: E402
from .model_index import register_model_index  # noqa: E402
from .version import __version__  # noqa: E402

register_model_index()

__all__ = ['ViK', 'ViTKArAt', '__version__', 'load', 'swap_backbone']
