"""Exported files that take images as they are give what the Predictor gives of the same picture."""

import ast
import copy
import subprocess
import sys

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from PIL import Image

from vik_mm.checkpoints import load_weights, read_checkpoint, unwrap_state_dict
from vik_mm.deploy import ENDINGS, export, load_exported
from vik_mm.deploy.comparing import difference
from vik_mm.deploy.forms import Stage
from vik_mm.deploy.onnx_files import read_onnx, write_onnx
from vik_mm.deploy.preparing import Preparation
from vik_mm.deploy.resizing import resize_bilinear_cv2, resize_pillow
from vik_mm.errors import BadInputError
from vik_mm.inference import Model
from vik_mm.inference.pipeline import with_pipeline
from vik_mm.inference.predictor import Predictor, build_model

needs_programs = pytest.mark.skipif(
    not hasattr(torch.export.Dim, 'DYNAMIC'), reason='needs the exported programs of PyTorch 2.6'
)
# Heads are what is tested in detectors: a small ResNet is traced in seconds.
RESNET = dict(_delete_=True, type='ResNet', depth=18, base_channels=8, norm_cfg=dict(type='BN'), init_cfg=None)
SMALL = dict(_delete_=True, depths=(1, 1, 1, 1), embed_dims=(8, 12, 16, 20))
WIDTHS = [8, 16, 32, 64]
MODELS_OF = {
    'classification': (
        'vik/vik-demo_shapes.py',
        dict(
            backbone=dict(arch=dict(_delete_=True, depths=(1, 1), embed_dims=(8, 12)), out_indices=(1,)),
            head=dict(in_channels=12),
        ),
    ),
    'segmentation': (
        'segmentation/fpn_vik-demo_shapes.py',
        dict(backbone=dict(arch=SMALL), neck=dict(in_channels=[8, 12, 16, 20])),
    ),
    'retinanet': (
        'detection/retinanet_r18_fpn-slim_12e_carparts.py',
        dict(backbone=dict(RESNET, out_indices=(1, 2, 3)), neck=dict(in_channels=WIDTHS[1:])),
    ),
    'mask-rcnn': (
        'detection/mask-rcnn_r18_fpn-slim_12e_carparts.py',
        dict(backbone=RESNET, neck=dict(in_channels=WIDTHS)),
    ),
    'cascade': (
        'detection/cascade-mask-rcnn_vik-s_fpn_ms-3x_coco.py',
        dict(
            backbone=RESNET,
            neck=dict(in_channels=WIDTHS),
            test_cfg=dict(rpn=dict(max_per_img=100), rcnn=dict(score_thr=0.01)),
        ),
    ),
}
SHARPENED = ('fc_cls.weight', 'conv_logits.weight', 'conv_seg.weight')
DETECTORS = ('retinanet', 'mask-rcnn', 'cascade')
CLASSES = ["it's", 'b', *map(str, range(2, 100))]
SIZES = [(61, 143), (300, 187)]  # neither traced, nor those that export itself compares at


@pytest.fixture(autouse=True)
def scope():
    yield
    init_default_scope('mmpretrain')


@pytest.fixture(scope='module')
def prepared(root, tmp_path_factory):
    """A config, a model of it whose answers differ from place to place, and its checkpoint."""
    cache = {}

    def make(task):
        if task not in cache:
            file, changes = MODELS_OF[task]
            cfg = Config.fromfile(root / 'configs' / file)
            cfg.merge_from_dict(dict(model=copy.deepcopy(changes)))  # merging takes `_delete_` out of what it is given
            if task == 'cascade':
                cfg.test_dataloader.dataset.pipeline[1].scale = (224, 224)
            init_default_scope(cfg.default_scope)
            torch.manual_seed(0)
            model = build_model(cfg).eval()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    # Untrained heads say the same of everything.
                    if name.endswith(SHARPENED):
                        parameter.mul_(40)
                    elif 'rpn_cls' in name:
                        parameter.mul_(5)
                    elif name.endswith('retina_cls.weight'):
                        parameter.mul_(2)  # more would make scores of 1, many alike
                    elif name.endswith('retina_cls.bias'):
                        parameter.add_(3)
            path = tmp_path_factory.mktemp('whole') / f'{task}.pth'
            torch.save(dict(state_dict=model.state_dict(), meta=dict()), path)
            cache[task] = cfg, model, path
        return cache[task]

    return make


@pytest.fixture(scope='module')
def exported(prepared, tmp_path_factory):
    """A model's file and what it says about itself; each is written once."""
    cache = {}

    def make(task, format):
        if (task, format) not in cache:
            cfg, model, _ = prepared(task)
            path = tmp_path_factory.mktemp('exported') / f'model{ENDINGS[format]}'
            pipeline = with_pipeline(cfg.test_dataloader.dataset).pipeline
            cache[task, format] = path, export(model, path, format, classes=CLASSES, pipeline=pipeline)
        init_default_scope(prepared(task)[0].default_scope)
        return cache[task, format]

    return make


def pictures(folder):
    """Smooth pictures, as PNG files."""
    rng = np.random.default_rng(0)
    for k, (height, width) in enumerate(SIZES):
        coarse = rng.integers(0, 256, (7, 9, 3), np.uint8)
        path = folder / f'{k}.png'
        cv2.imwrite(str(path), cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC))
        yield path


def predicted(sample, names):
    """A data sample as the outputs of a file."""
    if 'probabilities' in names:
        return [sample.pred_score[None]]
    if 'label_map' in names:
        return [sample.pred_sem_seg.data.to(torch.uint8)]
    found = sample.pred_instances
    outs = [found.bboxes[None], found.scores[None], found.labels[None], torch.tensor([len(found)])]
    return [*outs, found.masks] if 'masks' in names else outs


def as_image(path):
    return torch.from_numpy(np.array(Image.open(path).convert('RGB')))[None]


CASES = [
    *((task, 'onnx') for task in MODELS_OF),
    *((task, 'torchscript') for task in MODELS_OF),
    ('classification', 'torch-export'),
]


def predictor_of(cfg, checkpoint):
    model = build_model(cfg)
    load_weights(model, unwrap_state_dict(read_checkpoint(checkpoint))[0])
    return Predictor(model.eval(), cfg.test_dataloader.dataset, torch.device('cpu'))


SLOW = [('cascade', 'onnx')]


@pytest.mark.parametrize(
    'task,format',
    [
        pytest.param(
            *case,
            id='-'.join(case),
            marks=[needs_programs] * (case[1] != 'torchscript') + [pytest.mark.slow] * (case in SLOW),
        )
        for case in CASES
    ],
)
def test_a_file_answers_about_a_picture_as_the_predictor_does(prepared, exported, tmp_path, task, format):
    cfg, _, checkpoint = prepared(task)
    path, meta = exported(task, format)
    run, _ = load_exported(path)
    predictor = predictor_of(cfg, checkpoint)
    for picture in pictures(tmp_path):
        (sample,) = predictor([predictor.pipeline.read(picture)], [str(picture)])
        got, expected = run(as_image(picture)), predicted(sample, meta['outputs'])
        if task in DETECTORS:
            assert len(sample.pred_instances) > 3
        largest, share = difference(meta['outputs'], got, expected)
        assert largest <= 1e-4 and share <= (0.02 if task in DETECTORS else 1e-3), (largest, share)
    # Each image of a batch is answered about as by itself.
    if format == 'onnx':
        image = as_image(picture)
        both = run(torch.cat([image, image.flip(2)]))
        for name, one, two in zip(meta['outputs'], run(image.flip(2)), both):
            if name != 'boxes' and one.is_floating_point():  # two of nearly the same score may change places
                torch.testing.assert_close(two[1:], one, rtol=1e-3, atol=1e-3)


SCRIPT_BLOCKED = """
import sys
class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split('.')[0] in 'torch torchvision mmengine mmcv mmdet mmseg mmpretrain vik_mm cv2'.split():
            raise ImportError(f'{name} is not here')
sys.meta_path.insert(0, Refuses())
import runpy
script, *sys.argv = sys.argv[1:]
sys.argv.insert(0, script)
runpy.run_path(script, run_name='__main__')
"""


@needs_programs
@pytest.mark.parametrize('task', ['classification', 'segmentation', 'mask-rcnn'])
def test_the_script_runs_a_file_where_torch_cannot_be_imported(prepared, exported, root, tmp_path, task):
    cfg, _, checkpoint = prepared(task)
    path, _ = exported(task, 'onnx')
    picture = next(pictures(tmp_path))
    script = root / 'tools' / 'deploy' / 'run_onnx.py'
    assert len(script.read_text().splitlines()) < 30
    command = [sys.executable, '-c', SCRIPT_BLOCKED, script, path, picture]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first = result.stdout.splitlines()[0].split()
    predictor = predictor_of(cfg, checkpoint)
    (sample,) = predictor([predictor.pipeline.read(picture)], [str(picture)])
    if task == 'classification':
        assert first[0] == CLASSES[int(sample.pred_label)]
        assert float(first[1]) == pytest.approx(float(sample.pred_score.max()), abs=1e-4)
    elif task == 'segmentation':
        label, count = (values[0] for values in sample.pred_sem_seg.data.unique(return_counts=True))
        assert first[0] == CLASSES[int(label)] and int(first[1]) == pytest.approx(int(count), abs=5)
    else:
        assert float(first[1]) == pytest.approx(float(sample.pred_instances.scores[0]), abs=1e-4)


@needs_programs
def test_metadata_names_axes_classes_and_thresholds_for_other_programs(prepared, exported):
    import onnx

    path, _ = exported('classification', 'onnx')
    held = onnx.load(path)
    props = {entry.key: entry.value for entry in held.metadata_props}
    assert ast.literal_eval(props['names']) == dict(enumerate(CLASSES))
    assert props['task'] == 'classification' and props['imgsz'] == '[64, 64]' and 'uint8 RGB' in props['input']
    (image,) = held.graph.input
    assert [axis.dim_param or axis.dim_value for axis in image.type.tensor_type.shape.dim] == [
        'batch',
        'height',
        'width',
        3,
    ]
    with pytest.raises(BadInputError, match='takes images as uint8 RGB'):
        load_exported(path)[0](torch.zeros(1, 3, 64, 64))
    with pytest.raises(BadInputError, match='prepares images itself; run it by tools/deploy/run_onnx.py'):
        Model(prepared('classification')[0], path)


RESIZES = [(61, 143, 64, 30), (300, 187, 150, 94), (40, 50, 90, 120), (5, 9, 64, 64), (33, 33, 33, 33)]


@pytest.mark.parametrize('sizes', RESIZES, ids=str)
def test_resizing_gives_the_bits_of_opencv_and_pillow(sizes):
    height, width, *new = sizes
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    batch = torch.from_numpy(image).permute(2, 0, 1)[None]
    ours = resize_bilinear_cv2(batch, *new)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(ours, cv2.resize(image, new[::-1], interpolation=cv2.INTER_LINEAR))
    for name in ('bilinear', 'bicubic'):
        ours = resize_pillow(batch, *new, name)[0].permute(1, 2, 0).numpy()
        theirs = Image.fromarray(image).resize(new[::-1], getattr(Image.Resampling, name.upper()))
        np.testing.assert_array_equal(ours, np.asarray(theirs))


class Preparing:
    """A form that only prepares images."""

    def __init__(self, module):
        self.module = module

    def stages(self, dtype):
        image = torch.zeros(2, 213, 317, 3, dtype=torch.uint8)
        return [Stage(self.module, ['image'], ['content', 'padded'], [image], [(0, 1, 2)])]


@needs_programs
@pytest.mark.parametrize('backend', ['cv2', 'pillow'])
def test_onnx_runtime_resizes_to_the_same_bits(tmp_path, backend):
    steps = [dict(type='Resize', scale=(224, 224), keep_ratio=True, backend=backend)]
    prepare = Preparation(steps, None, (32, 32))
    meta = dict(dtype='float32', input='image', task='classification', layout='', outputs=['content'], classes=None)
    write_onnx(Preparing(prepare), tmp_path / 'model.onnx', {**meta, 'vik_mm_version': ''})
    run, _ = read_onnx(tmp_path / 'model.onnx')
    generator = torch.Generator().manual_seed(0)
    for size in ((4, 480, 360), (2, 100, 640), (3, 31, 20)):
        image = torch.randint(0, 256, (*size, 3), dtype=torch.uint8, generator=generator)
        for got, expected in zip(run(image), prepare(image), strict=True):
            assert torch.equal(got, expected), int((got != expected).sum())


def test_the_pipeline_of_imagenet_is_prepared_as_the_transforms_do(root, tmp_path):
    cfg = Config.fromfile(root / 'configs/_base_/datasets/imagenet_bs128_vik_224.py')
    init_default_scope('mmpretrain')
    from mmengine.dataset import Compose

    steps = cfg.test_pipeline
    for picture in pictures(tmp_path):
        theirs = Compose(steps)(dict(img_path=str(picture)))['inputs']
        content, _ = Preparation(steps, None, (32, 32))(as_image(picture))
        assert torch.equal(content[0], theirs.float())


def test_what_no_graph_can_hold_is_refused_with_what_to_do(prepared, root, tmp_path):
    cfg, model, _ = prepared('classification')
    path = tmp_path / 'model.ts'
    with pytest.raises(BadInputError, match='needs the test pipeline: pipeline=cfg'):
        export(model, path, 'torchscript')
    for step, message in (
        (dict(type='RandomFlip', prob=0.5), 'RandomFlip.* has no counterpart in a graph; take --raw-input'),
        (dict(type='Resize', scale=8, interpolation='lanczos'), "interpolation='lanczos' has no counterpart"),
        (dict(type='CenterCrop', crop_size=64), 'CenterCrop to .* needs a step before it'),
    ):
        with pytest.raises(BadInputError, match=message):
            export(model, path, 'torchscript', pipeline=[step])
    segmentor = prepared('segmentation')[1]
    segmentor.test_cfg.mode = 'slide'
    with pytest.raises(BadInputError, match='segments in windows .*test_cfg.mode=whole'):
        export(segmentor, path, 'torchscript', pipeline=[])
    segmentor.test_cfg.mode = 'whole'
    if hasattr(torch.export.Dim, 'DYNAMIC'):
        keeps = [dict(type='Resize', scale=(64, 64), keep_ratio=True)]
        with pytest.raises(BadInputError, match="take format='onnx' or 'torchscript', --raw-input"):
            export(segmentor, tmp_path / 'model.export.pt2', 'torch-export', pipeline=keeps)
    detector = prepared('mask-rcnn')[1]
    with pytest.raises(BadInputError, match='MaskRCNN decides box by box.* without --raw-input'):
        export(detector, path, 'torchscript', raw_input=True)
    nms = detector.test_cfg.rcnn.nms
    detector.test_cfg.rcnn.nms = dict(type='soft_nms', iou_threshold=0.5)
    with pytest.raises(BadInputError, match='a graph has only'):
        export(detector, path, 'torchscript', pipeline=[])
    detector.test_cfg.rcnn.nms = nms
