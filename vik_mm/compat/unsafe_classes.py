"""Registered classes of the mm packages that run what their arguments or files say.

Found by looking for every call in the packages that evaluates text, imports by name, unpickles or starts programs, and
for every import of a package beyond PyTorch's and the readers of pictures (``tests/test_compat/test_unsafe_classes.py``
has the list, and fails where a new version brings another).
"""

import functools
import inspect
from typing import Any

# Where what may be built comes from.
PACKAGES = ('mmengine', 'mmcv', 'mmpretrain', 'mmdet', 'mmseg', 'vik_mm')
_ALSO = ('torch', 'torchvision')

_ALBUMENTATIONS = 'looks its arguments up in albumentations and calls what it finds'
_TIMM = 'hands its arguments to timm, which downloads models'
_TRANSFORMERS = 'hands its arguments to transformers, which downloads models and can import their code'
_ONEDL = 'reads data sets through another package, onedl'
_DSDL = 'reads data sets through another package, dsdl, which imports Python files that a data set names'
_JAVA = 'starts Java through another package, pycocoevalcap'
_TRACKS_RUNS = 'starts or feeds a service through another package'
_GDAL = 'reads through GDAL, whose formats can hold Python'
_BIOMEDICAL = 'reads pickle files'
# Modules, which stand for all that is in them, and classes, which stand for their subclasses too.
UNSAFE = {
    'mmcv.cnn.rfsearch': 'evaluates its arguments',
    'mmdet.datasets.dod': 'reads data sets through another package, d_cube',
    'mmdet.datasets.dsdl': _DSDL,
    'mmdet.datasets.onedl': _ONEDL,
    'mmdet.datasets.openimages.OpenImagesChallengeDataset': 'reads pickles inside a NumPy file',
    'mmdet.datasets.refcoco': 'reads pickle files',
    'mmdet.datasets.transforms.generate_line': 'looks its arguments up in imgaug and calls what it finds',
    'mmdet.datasets.transforms.instaboost': 'hands its arguments to another package, instaboostfast',
    'mmdet.datasets.transforms.loading_onedl': _ONEDL,
    'mmdet.datasets.transforms.text_transformers': _TRANSFORMERS,
    'mmdet.datasets.transforms.transforms.Albu': _ALBUMENTATIONS,
    'mmdet.evaluation.metrics.coco_caption_metric': _JAVA,
    'mmdet.models.dense_heads.atss_vlfusion_head': _TRANSFORMERS,
    'mmdet.models.detectors.d2_wrapper': 'builds models with another package, detectron2',
    'mmdet.models.detectors.glip': 'downloads models of another package, nltk, which may be pickles',
    'mmdet.models.detectors.grounding_dino': 'downloads models of another package, nltk, which may be pickles',
    'mmdet.models.detectors.kd_one_stage': "reads its teacher's config, which may be Python",
    'mmdet.models.language_models': _TRANSFORMERS,
    'mmdet.models.task_modules.tracking.camera_motion_compensation': 'evaluates its arguments',
    'mmengine._strategy.colossalai': 'hands its arguments to another package, colossalai',
    'mmengine._strategy.deepspeed': 'hands its arguments to another package, deepspeed, which compiles and imports',
    'mmengine.optim.optimizer.apex_optimizer_wrapper': 'hands its arguments to another package, apex',
    'mmengine.visualization.vis_backend.AimVisBackend': _TRACKS_RUNS,
    'mmengine.visualization.vis_backend.ClearMLVisBackend': _TRACKS_RUNS,
    'mmengine.visualization.vis_backend.DVCLiveVisBackend': 'starts programs',
    'mmengine.visualization.vis_backend.MLflowVisBackend': _TRACKS_RUNS,
    'mmengine.visualization.vis_backend.NeptuneVisBackend': _TRACKS_RUNS,
    'mmengine.visualization.vis_backend.WandbVisBackend': _TRACKS_RUNS,
    'mmpretrain.datasets.onedl': _ONEDL,
    'mmpretrain.datasets.refcoco': 'reads pickle files',
    'mmpretrain.datasets.transforms.processing.Albumentations': _ALBUMENTATIONS,
    'mmpretrain.datasets.transforms.singlekeypoint_regression': _ALBUMENTATIONS,
    'mmpretrain.evaluation.metrics.caption': _JAVA,
    'mmpretrain.evaluation.metrics.nocaps': _JAVA,
    'mmpretrain.models.backbones.timm_backbone': _TIMM,
    'mmpretrain.models.classifiers.hugging_face': _TRANSFORMERS,
    'mmpretrain.models.classifiers.timm': _TIMM,
    'mmpretrain.models.multimodal': _TRANSFORMERS,
    'mmpretrain.models.utils.huggingface': _TRANSFORMERS,
    'mmpretrain.models.utils.tokenizer': _TRANSFORMERS,
    # Stands in for the multimodal models where transformers is not installed.
    'mmpretrain.utils.dependency': _TRANSFORMERS,
    'mmseg.datasets.dsdl': _DSDL,
    'mmseg.datasets.onedl': _ONEDL,
    'mmseg.datasets.transforms.loading.LoadBiomedicalAnnotation': _BIOMEDICAL,
    'mmseg.datasets.transforms.loading.LoadBiomedicalData': _BIOMEDICAL,
    'mmseg.datasets.transforms.loading.LoadBiomedicalImageFromFile': _BIOMEDICAL,
    'mmseg.datasets.transforms.loading.LoadMultipleRSImageFromFile': _GDAL,
    'mmseg.datasets.transforms.loading.LoadSingleRSImageFromFile': _GDAL,
    'mmseg.datasets.transforms.loading_onedl': _ONEDL,
    'mmseg.datasets.transforms.transforms.Albu': _ALBUMENTATIONS,
    'mmseg.models.backbones.timm_backbone': _TIMM,
    'mmseg.models.backbones.vpd': 'builds models with another package, ldm, which imports what their config names',
}


def why_unsafe(thing: Any) -> str | None:
    """Say why something registered must not be built from a stranger's config.

    Args:
        thing (Any): A class or function.

    Returns:
        str | None: What it does, to follow its name in a sentence; None where nothing is known against it.
    """
    if isinstance(thing, functools.partial):
        thing = thing.func
    parts = inspect.getmro(thing)[:-1] if inspect.isclass(thing) else (thing,)
    for part in parts:
        name = f'{part.__module__}.{part.__qualname__}'
        for unsafe, reason in UNSAFE.items():
            if f'{name}.'.startswith(f'{unsafe}.'):
                return reason
    package = (thing.__module__ or '').split('.')[0]
    if package not in (*PACKAGES, *_ALSO):
        return f'comes from the package {package!r}, which nobody has looked through'
    return None
