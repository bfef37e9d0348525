"""Exported files give the model's answers at sizes that they were not made at, in runtimes that know nothing of it."""

import json
import re

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vik_mm.deploy import ENDINGS, export, load_exported
from vik_mm.errors import BadInputError

SMALL = dict(depths=(1, 1, 1, 1), embed_dims=(8, 12, 16, 20))
# Config, small architecture, and what else follows from it.
MODELS_OF = {
    'classification': (
        'vik/vik-demo_shapes.py',
        dict(depths=(1, 1, 1), embed_dims=(8, 12, 16)),
        dict(head=dict(in_channels=16)),
    ),
    'segmentation': ('segmentation/fpn_vik-demo_shapes.py', SMALL, dict(neck=dict(in_channels=[8, 12, 16, 20]))),
    'detection': (
        'detection/retinanet_vik-t_fpn-slim_12e_carparts.py',
        SMALL,
        dict(neck=dict(in_channels=[12, 16, 20])),
    ),
    'pyramid': (
        'segmentation/upernet_vik-t_slim-1k_carparts-192x192.py',
        SMALL,
        dict(decode_head=dict(in_channels=[8, 12, 16, 20]), auxiliary_head=dict(in_channels=16)),
    ),
    'transformer': (
        'karat/vit-t_g3b_cifar10-32px.py',
        dict(embed_dims=24, num_layers=2, num_heads=2, feedforward_channels=24),
        dict(head=dict(in_channels=24)),
    ),
    'two_stage': ('detection/mask-rcnn_vik-demo_fpn_shapes.py', SMALL, dict(neck=dict(in_channels=[8, 12, 16, 20]))),
}
CLASSES = [f'class {k}' for k in range(8)]


@pytest.fixture(autouse=True)
def scope():
    init_default_scope('mmpretrain')
    yield
    init_default_scope('mmpretrain')


def build(root, task):
    """Build a small model of a task."""
    file, arch, rest = MODELS_OF[task]
    cfg = Config.fromfile(root / 'configs' / file)
    cfg.model.backbone.arch = arch
    cfg.model.backbone.init_cfg = None
    cfg.merge_from_dict(dict(model=rest))
    init_default_scope(cfg.default_scope)
    if 'data_preprocessor' in cfg:
        cfg.model.setdefault('data_preprocessor', cfg.data_preprocessor)
    torch.manual_seed(0)
    return MODELS.build(cfg.model).eval()


@pytest.fixture(scope='module')
def exported(root, tmp_path_factory):
    """Export a model once: it takes a while. Returns the file, what it says of itself, and the model."""
    cache = {}

    def make(task, format):
        if (task, format) not in cache:
            model, path = build(root, task), tmp_path_factory.mktemp('exported') / f'model{ENDINGS[format]}'
            cache[task, format] = path, export(model, path, format, classes=CLASSES, raw_input=True), model
        return cache[task, format]

    return make


def outputs(model, task, image):
    """What the model computes by itself."""
    with torch.no_grad():
        if task in ('classification', 'transformer'):
            return [model(image, mode='tensor')]
        if task in ('segmentation', 'pyramid'):
            meta = dict(img_shape=image.shape[2:])
            return [model.encode_decode(image, [meta] * len(image))]
        return [level for levels in model.bbox_head(model.extract_feat(image)) for level in levels]


HAS_PROGRAMS = hasattr(torch.export.Dim, 'DYNAMIC')
needs_programs = pytest.mark.skipif(not HAS_PROGRAMS, reason='needs the exported programs of PyTorch 2.6')
CASES = [
    ('classification', 'onnx'),
    ('classification', 'torch-export'),
    ('classification', 'torchscript'),
    ('transformer', 'onnx'),
    ('transformer', 'torchscript'),
    ('segmentation', 'onnx'),
    ('segmentation', 'torchscript'),
    ('pyramid', 'onnx'),
    ('pyramid', 'torchscript'),
    ('detection', 'onnx'),
    ('detection', 'torchscript'),
]
# Most of a minute each; other formats of the same model, and test_whole.py, are quicker.
SLOW = [('segmentation', 'onnx'), ('pyramid', 'onnx')]


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
def test_any_batch_and_size(exported, task, format):
    path, meta, model = exported(task, format)
    run, held = load_exported(path)
    assert held == {key: value for key, value in meta.items() if key != 'max_difference'}
    assert len(held['mean']) == len(held['std']) == 3 and held['classes'][7] == 'class 7'
    side = 4 if task == 'transformer' else 32
    for size in ((1, 3, side, side), (2, 3, 2 * side + 1, 4 * side + 2), (3, 3, 7 * side, 5 * side)):
        image = torch.randn(size, generator=torch.Generator().manual_seed(1))
        expected = outputs(model, task, image)
        got = run(image)
        assert len(got) == len(expected)
        for ours, theirs in zip(got, expected):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInputError, match=rf'images from \({side}, {side}\) to \(4096, 4096\) pixels'):
        run(torch.zeros(1, 3, side - 1, 64))


MIXERS = {
    'rbf-kan': dict(type='MultiPatchRBFKAN', patch_size=7, num_grids=8, rank=64),
    'pooling': dict(type='Pooling'),
}


@needs_programs
@pytest.mark.parametrize('mixer', MIXERS)
def test_a_program_of_four_stages_takes_the_smallest_image(tmp_path, make_classifier, mixer):
    # Its last map has one pixel, which tracers take for a constant.
    model = make_classifier(3, arch=dict(depths=(1, 1, 1, 1), embed_dims=(8, 8, 8, 8)), token_mixer=MIXERS[mixer])
    path = tmp_path / 'model.export.pt2'
    export(model, path, 'torch-export', raw_input=True)
    image = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(load_exported(path)[0](image), outputs(model, 'classification', image))


SWIN = dict(embed_dims=8, depths=[1, 2], num_heads=[1, 2])
# Backbone, its channels and image side.
ONE_SIZE = {
    'swin': (dict(type='SwinKArAt', arch=SWIN, img_size=60, out_indices=(1,)), 16, 60),
    'convit': (dict(type='ConViTKArAt', img_size=64), 192, 64),
}


@pytest.mark.parametrize('format', ['torchscript', pytest.param('onnx', marks=needs_programs)])
@pytest.mark.parametrize('name', ONE_SIZE)
def test_models_of_one_size_take_it_in_any_batch(tmp_path, name, format):
    backbone, channels, side = ONE_SIZE[name]
    neck = None if name == 'convit' else dict(type='GlobalAveragePooling')
    head = dict(type='LinearClsHead', num_classes=3, in_channels=channels)
    torch.manual_seed(0)
    model = MODELS.build(dict(type='ImageClassifier', backbone=backbone, neck=neck, head=head)).eval()
    path = tmp_path / f'model{ENDINGS[format]}'
    export(model, path, format, raw_input=True)
    run, _ = load_exported(path)
    image = torch.randn(5, 3, side, side)
    torch.testing.assert_close(run(image)[0], outputs(model, 'classification', image)[0], rtol=1e-4, atol=1e-4)
    with pytest.raises(BadInputError, match=rf'images of \({side}, {side}\) pixels, got \(64, 96\)'):
        run(torch.zeros(1, 3, 64, 96))


@pytest.mark.parametrize('format', ['torchscript', pytest.param('onnx', marks=[needs_programs, pytest.mark.slow])])
def test_of_a_two_stage_detector_the_backbone(root, tmp_path, format):
    model, path = build(root, 'two_stage'), tmp_path / f'model{ENDINGS[format]}'
    with pytest.raises(ValueError, match='MaskRCNN decides box by box.* --part backbone'):
        export(model, path, format, raw_input=True)
    export(model, path, format, part='backbone')
    run, _ = load_exported(path)
    image = torch.randn(1, 3, 90, 70)
    with torch.no_grad():
        for ours, theirs in zip(run(image), model.backbone(image), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@needs_programs
def test_int8_and_float16_answer_nearly_alike_and_are_smaller(exported, tmp_path):
    import onnx

    whole, _, model = exported('classification', 'onnx')
    script, _, _ = exported('classification', 'torchscript')
    weights = {key: value.clone() for key, value in model.state_dict().items()}
    image = torch.randn(4, 3, 96, 96)
    expected = outputs(model, 'classification', image)[0]
    export(model, small := tmp_path / 'int8.onnx', 'onnx', dtype='int8', raw_input=True)
    export(model, half := tmp_path / 'half.ts', 'torchscript', dtype='float16', raw_input=True)
    for path, larger in ((small, whole), (half, script)):
        answer = load_exported(path)[0](image)[0]
        torch.testing.assert_close(answer, expected, rtol=0.1, atol=0.1 * expected.std().item())
        assert path.stat().st_size < larger.stat().st_size
    # The two 1x1 convolutions of each block's MLP, and the classifier.
    kinds = [node.op_type for node in onnx.load(small).graph.node]
    assert kinds.count('MatMulInteger') >= 2 * 3 + 1
    for key, value in model.state_dict().items():  # the model is as it was
        assert torch.equal(value, weights[key]) and value.dtype == weights[key].dtype


@needs_programs
def test_onnx_files_hold_no_path_of_the_machine_they_were_made_on(exported, root):
    path, _, _ = exported('classification', 'onnx')
    content = path.read_bytes()
    assert b'.py' not in content and str(root).encode() not in content


def test_bad_arguments_and_files(root, tmp_path):
    model = build(root, 'classification')
    with pytest.raises(ValueError, match='must end in .onnx'):
        export(model, tmp_path / 'model.pt', 'onnx')
    with pytest.raises(ValueError, match='format=.tflite. is unknown'):
        export(model, tmp_path / 'model.tflite', 'tflite')
    with pytest.raises(ValueError, match='needs format=.onnx.'):
        export(model, tmp_path / 'model.ts', 'torchscript', dtype='int8')
    with pytest.raises(ValueError, match='no backbone|is no classifier'):
        export(torch.nn.Linear(1, 1), tmp_path / 'model.ts', 'torchscript', raw_input=True)
    with pytest.raises(FileNotFoundError):
        load_exported(tmp_path / 'none.onnx')
    for ending in ENDINGS.values():
        (tmp_path / f'bad{ending}').write_bytes(b'PK\x03\x04 nothing')
        is_known = HAS_PROGRAMS or ending in ('.ts', '.onnx')
        with pytest.raises(BadInputError, match='cannot be loaded' if is_known else 'needs PyTorch 2.6'):
            load_exported(tmp_path / f'bad{ending}')


def test_tools_export_run_and_test_a_file(call_tool, shapes_config, tmp_path):
    call_tool('train.py', shapes_config, '--work-dir', tmp_path / 'run')
    checkpoint, file = tmp_path / 'run' / 'epoch_1.pth', tmp_path / 'vik.ts'
    code, text = call_tool(
        'export.py', shapes_config, checkpoint, '--format', 'torchscript', '--out', file, '--raw-input'
    )
    assert code is None and 'model for classification, float32, differs by at most' in text
    assert re.findall(r'export: (\w+)', text) == ['computing', 'tracing', 'comparing']
    assert len(re.findall(r'export: \.\.\. took [\d.]+ s', text)) == 3
    image = tmp_path / 'image.png'
    cv2.imwrite(str(image), np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    answers = []
    for weights in (checkpoint, file):
        code, text = call_tool('infer.py', shapes_config, weights, image, '--out', tmp_path / 'out', '--no-pictures')
        assert code == 0, text
        answers.append(json.loads((tmp_path / 'out' / 'results.json').read_text()))
    assert json.dumps(answers[0]).replace(str(checkpoint), '') and answers[0][0].keys() == answers[1][0].keys()
    for key, value in answers[0][0].items():
        if isinstance(value, float):
            assert answers[1][0][key] == pytest.approx(value, abs=1e-4)
    scores = []
    for weights in (checkpoint, file):
        code, text = call_tool('test.py', shapes_config, weights, '--work-dir', tmp_path / 'test')
        assert code is None, code
        scores.append(text.rsplit('accuracy/top1: ', 1)[1].split()[0])
    assert scores[0] == scores[1]
