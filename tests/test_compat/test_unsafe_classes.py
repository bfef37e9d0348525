"""Every place of the mm packages that evaluates, imports, unpickles or starts programs has been looked at."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from vik_mm.compat.registered_only import registered
from vik_mm.compat.unsafe_classes import PACKAGES, UNSAFE, why_unsafe

# Calls that can run what their argument says: by name, or by the start of it.
SINKS = re.compile(
    r'(eval|exec|compile|__import__|os\.system|os\.popen|runpy\..*|subprocess\..*|pickle\.loads?|yaml\.load|torch\.hub\..*'
    r'|torch\.load|torch\.jit\.load|np\.load|(.*\.)?(import_module|import_modules_from_strings|get_object_from_string)'
    r'|(.*\.)?(from_pretrained|Config\.fromfile|create_model|loadtxt|sympify))'
)
# PyTorch's, this project's, and readers and writers of pictures, tables and boxes, which hold no code.
KNOWN = {
    *('torch', 'torchvision', 'numpy', 'cv2', 'PIL', 'scipy', 'matplotlib', 'pycocotools', 'shapely', 'einops', 'yaml'),
    *('tqdm', 'rich', 'terminaltables', 'prettytable', 'termcolor', 'packaging', 'addict', 'tifffile', 'six', 'yapf'),
    *('regex', 'requests', 'sklearn', 'pandas', 'seaborn', 'skimage', 'mat4py', 'lap', 'ftfy', 'turbojpeg', 'psutil'),
    *('memory_profiler', 'jsonlines', 'fvcore', 'emoji', 'importlib_metadata', 'pkg_resources', 'modelindex'),
    *('torch_npu', 'torch_mlu', 'torch_musa', 'torch_dipu', 'parrots', 'torch_tb_profiler', 'tensorboardX', 'sahi'),
    *('lvis', 'panopticapi', 'cityscapesscripts', 'faster_coco_eval', 'trackeval', 'motmetrics', 'imagecorruptions'),
    *('fairscale', 'accelerate', 'gradio', 'loguru'),
    *PACKAGES,
    *sys.stdlib_module_names,
}
_ARGUMENT = 'takes the name of a type, which is a registered one or a choice of read_safe_config'
_OWN = 'reads what this process or its fellows wrote'
_FIXED = 'what is called, imported or read does not depend on a config'
_READER = 'reads checkpoints as data, by load_checkpoints_as_data'
_TOOL = 'is called by tools and programs, not by what a config names'
_OFF = 'is off: build_registered_only'
# Modules with such places that a config can build from, or that such a module calls.
REVIEWED = {
    'mmcv.image.io': _FIXED,
    'mmcv.ops.nms': _ARGUMENT,
    'mmcv.utils.env': _FIXED,
    'mmcv.utils.ext_loader': _FIXED,
    'mmcv.video.processing': _TOOL,
    'mmdet.apis.inference': _TOOL,
    'mmdet.evaluation.functional.class_names': 'evaluates names out of a table of its own',
    'mmdet.evaluation.metrics.base_video_metric': _OWN + '; collect_dir is refused',
    'mmdet.models.layers.transformer.deformable_detr_layers': _FIXED,
    'mmdet.models.utils.vlfuse_helper': _FIXED,
    'mmdet.testing._utils': _TOOL,
    'mmdet.utils.dist_utils': _OWN,
    'mmdet.utils.misc': _TOOL,
    'mmengine._strategy.base': _FIXED,
    'mmengine.config.config': 'Python is refused by read_safe_config, and so are custom_imports of other packages',
    'mmengine.config.lazy': 'is for configs in Python',
    'mmengine.dataset.base_dataset': _OWN,
    'mmengine.dist.dist': _OWN + '; collect_dir is refused',
    'mmengine.dist.utils': 'starts scontrol with a variable of the environment; init_backend is refused',
    'mmengine.fileio.backends.lmdb_backend': _OFF,
    'mmengine.fileio.backends.memcached_backend': _OFF,
    'mmengine.fileio.backends.petrel_backend': _OFF,
    'mmengine.fileio.handlers.pickle_handler': _OFF,
    'mmengine.fileio.handlers.yaml_handler': _OFF,
    'mmengine.hub.hub': _TOOL,
    'mmengine.infer.infer': _TOOL,
    'mmengine.optim.optimizer.builder': 'registers optimizers of other packages, which why_unsafe refuses',
    'mmengine.registry.registry': _OFF,
    'mmengine.runner.checkpoint': _READER + '; other addresses are refused',
    'mmengine.testing.compare': _TOOL,
    'mmengine.utils.dl_utils.collect_env': _FIXED,
    'mmengine.utils.dl_utils.hub': _READER,
    'mmengine.utils.misc': _OFF,
    'mmengine.utils.package_utils': _TOOL,
    'mmengine.utils.version_utils': _FIXED,
    'mmengine.visualization.vis_backend': 'of its classes, two keep to files; UNSAFE has the others',
    'mmpretrain.apis.model': _TOOL,
    'mmpretrain.apis.multimodal_retrieval': _TOOL,
    'mmpretrain.apis.utils': _TOOL,
    'mmpretrain.datasets.cifar': 'compares hashes of the files with those of the original first',
    'mmpretrain.datasets.transforms.processing': 'evaluates dtype, which read_safe_config holds to a word',
    'mmpretrain.engine.hooks.swav_hook': _READER,
    'mmpretrain.models.retrievers.image2image': _READER,
    'mmpretrain.models.utils.vector_quantizer': _READER,
    'mmdet.datasets.openimages': 'UNSAFE has the class that reads pickles',
    'mmdet.datasets.transforms.transforms': 'UNSAFE has Albu',
    'mmseg.datasets.transforms.transforms': 'UNSAFE has Albu',
    'mmseg.apis.inference': _TOOL,
    'mmseg.apis.remote_sense_inferencer': _TOOL,
    'mmseg.datasets.transforms.loading': 'UNSAFE has what reads pickles and GDAL; np.load without pickles',
    'mmseg.evaluation.metrics.citys_metric': 'np.load without pickles',
    'mmseg.models.losses.utils': 'np.load without pickles',
    'mmseg.utils.class_names': 'evaluates names out of a table of its own',
    'mmseg.utils.io': 'is called by the classes that UNSAFE has',
    'mmseg.utils.tokenizer': _FIXED,
}


def places(tree):
    """List what in a module can run code, or comes from a package that nobody has looked at."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and SINKS.fullmatch(name := ast.unparse(node.func)):
            yield name
        elif isinstance(node, ast.Import):
            yield from (f'import {alias.name}' for alias in node.names if alias.name.split('.')[0] not in KNOWN)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module.split('.')[0] not in KNOWN:
            yield f'import {node.module}'


def modules(package):
    root = Path(importlib.util.find_spec(package).submodule_search_locations[0])
    for path in sorted(root.rglob('*.py')):
        parts = path.relative_to(root.parent).with_suffix('').parts
        if '.mim' not in parts:
            yield '.'.join(parts).removesuffix('.__init__'), path


@pytest.mark.parametrize('package', [name for name in PACKAGES if name != 'vik_mm'])
def test_every_place_that_can_run_code_was_looked_at(package):
    if importlib.util.find_spec(package) is None:
        pytest.skip(f'{package} is not installed')
    known = (*UNSAFE, *REVIEWED)
    unknown = {}
    for name, path in modules(package):
        if any(f'{name}.'.startswith(f'{one}.') for one in known):
            continue
        if found := sorted(set(places(ast.parse(path.read_text(encoding='utf-8'))))):
            unknown[name] = found
    assert not unknown


def test_what_is_refused_exists_or_did_in_another_version():
    """A typo in the table would refuse nothing."""
    known = {name for package in PACKAGES if importlib.util.find_spec(package) for name, _ in modules(package)}
    theirs = {name for name in UNSAFE if importlib.util.find_spec(name.split('.')[0])}
    classes = {name for name in theirs if name.split('.')[-1][0].isupper()}
    of_one_family = {name for name in theirs if 'onedl' in name} | {
        'mmdet.datasets.transforms.generate_line',
        'mmpretrain.datasets.transforms.singlekeypoint_regression',
    }
    assert theirs - classes - of_one_family <= known
    assert {name.rpartition('.')[0] for name in classes} <= known
    things = [thing for names in registered(['mmdet', 'mmseg']).values() for found in names.values() for thing in found]
    found = {f'{thing.__module__}.{thing.__qualname__}' for thing in things if hasattr(thing, '__qualname__')}
    assert classes <= found
    refused = [thing for thing in things if why_unsafe(thing)]
    assert len(refused) < len(things) / 10, 'most of the packages can be used'
