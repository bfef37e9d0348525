"""The configs of detection and segmentation: form, one training step, one prediction, and the recipes."""

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS, init_default_scope

import vik_mm

COCO = [
    f'{method}_vik-{size}_fpn_{schedule}_coco'
    for method, schedule in (
        ('retinanet', '1x'),
        ('mask-rcnn', '1x'),
        ('mask-rcnn', 'ms-3x'),
        ('cascade-mask-rcnn', 'ms-3x'),
    )
    for size in 'sb'
]
ADE20K = [f'{m}_ade20k-512x512' for s in 'sb' for m in (f'fpn_vik-{s}_8xb4-40k', f'upernet_vik-{s}_8xb2-160k')]
VITDET = [f'mask-rcnn_vitdet-b-{attention}_1x_coco' for attention in ('softmax', 'g1b', 'g1u')]
BACKBONES = ('vik-t', 'vik-t-pooling', 'r18')
CARPARTS = [f'{m}_{b}_fpn-slim_12e_carparts' for m in ('mask-rcnn', 'retinanet') for b in BACKBONES]
SLIM = [f'{m}_{b}_slim-1k_{d}-192x192' for m in ('fpn', 'upernet') for b in BACKBONES for d in ('camvid', 'carparts')]
NAMES = {
    'detection': [
        *COCO,
        *CARPARTS,
        *VITDET,
        'mask-rcnn_vik-t-noglobal_fpn-slim_12e_carparts',
        'mask-rcnn_vik-demo_fpn_shapes',
        'retinanet_vik-t_fpn-slim_12e_voc2007',
    ],
    'segmentation': [*ADE20K, *SLIM, 'fpn_vik-demo_shapes'],
}
ALL = [f'{folder}/{name}' for folder, names in NAMES.items() for name in names]
# Of configs that differ only in width, depth or data, one is run.
RUN = [name for name in ALL if 'vik-b' not in name and 'slim-1k_carparts' not in name and 'ms-3x_coco' not in name]
RUN += ['detection/cascade-mask-rcnn_vik-s_fpn_ms-3x_coco']


@pytest.fixture(scope='module')
def try_model():
    """A training step and a prediction of the swap sweep."""
    from synthetic_step import try_model

    yield try_model
    init_default_scope('mmpretrain')


def load(root, name):
    cfg = Config.fromfile(root / f'configs/{name}.py')
    backbone = cfg.model.backbone
    backbone.init_cfg = None
    if backbone.type == 'mmpretrain.ViTKArAt':
        arch = dict(embed_dims=96, num_layers=12, num_heads=12, feedforward_channels=96)
        backbone.arch, cfg.model.neck.in_channels = arch, [24, 48, 96, 96]
    elif isinstance(backbone.get('arch'), str):
        setting = vik_mm.ViK.arch_settings[backbone.arch]
        backbone.arch = dict(setting, depths=(1,) * len(setting['depths']))
    return cfg


@pytest.mark.parametrize('folder', list(NAMES))
def test_every_config_is_listed_here(root, folder):
    assert sorted(NAMES[folder]) == sorted(p.stem for p in (root / f'configs/{folder}').glob('*.py'))


def test_no_file_name_says_small_which_is_an_arch(root):
    named = [*(root / 'configs').glob('*/*.py'), *(root / 'configs/_base_/models').glob('*.py')]
    assert [path.name for path in named if 'small' in path.name] == []


@pytest.mark.parametrize(
    ('text', 'place'),
    [("type='AdamW'", '_base_/optimizers/adamw_vik.py'), ('depth=18', '_base_/models/resnet18.py')],
    ids=['AdamW', 'ResNet-18'],
)
def test_one_base_says_it_for_all_configs(root, text, place):
    files = (root / 'configs').rglob('*.py')
    assert [str(path.relative_to(root / 'configs')) for path in files if text in path.read_text()] == [place]


@pytest.mark.parametrize('name', ALL)
def test_form(root, name, depth_of_inheritance):
    path = root / f'configs/{name}.py'
    lines = path.read_text().split('\n')
    assert len(lines) <= 40
    assert lines[0].startswith('# ')
    assert f'configs/{name}.py' in path.read_text(), 'the header says the command'
    assert depth_of_inheritance(path) <= 3


@pytest.mark.parametrize('name', RUN)
def test_model_trains_one_step_and_predicts(root, try_model, name):
    cfg = load(root, name)
    try_model(cfg, cfg.default_scope, 128)


@pytest.mark.parametrize('name', [*(f'detection/{n}' for n in COCO), *(f'segmentation/{n}' for n in ADE20K)])
def test_recipe(root, name):
    cfg = load(root, name)
    init_default_scope(cfg.default_scope)
    assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    assert 'find_unused_parameters' not in cfg
    assert Config.fromfile(root / f'configs/{name}.py').model.backbone.init_cfg.prefix == 'backbone.'
    images = dict(detection=16, segmentation=32 if '40k' in name else 16)[name.split('/')[0]]
    assert cfg.auto_scale_lr.base_batch_size == 8 * cfg.train_dataloader.batch_size == images
    model = MODELS.build(vik_mm.config.machine.without_sync_bn(cfg.model))
    wrapper = build_optim_wrapper(model, dict(cfg.optim_wrapper, type='OptimWrapper'))
    groups = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
    base = cfg.optim_wrapper.optimizer
    trained = {name: groups[id(p)] for name, p in model.named_parameters()}
    for key, parameter in model.named_parameters():
        if parameter.ndim == 1:
            assert trained[key]['weight_decay'] == 0, key
        if not key.startswith('backbone.'):
            assert trained[key]['lr'] == pytest.approx(base.lr)
    rate, layers = cfg.optim_wrapper.paramwise_cfg.layer_decay_rate, sum(model.backbone.depths) + 2
    assert trained['backbone.stem.conv.weight']['lr'] == pytest.approx(base.lr * rate ** (layers - 1))
    last = f'backbone.norm{max(model.backbone.out_indices)}.weight'
    assert trained[last]['lr'] == pytest.approx(base.lr)
    assert len(wrapper.optimizer.param_groups) < 30, 'groups of the same options are one'


class TestLayerDecay:
    @pytest.fixture(autouse=True)
    def scope(self):
        init_default_scope('mmpretrain')
        yield
        init_default_scope('mmpretrain')

    cfg = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.1))

    def build(self, model, **paramwise):
        cfg = dict(self.cfg, constructor='LayerDecayOptimWrapperConstructor', paramwise_cfg=paramwise)
        wrapper = build_optim_wrapper(model, cfg)
        ids = {id(p): group for group in wrapper.optimizer.param_groups for p in group['params']}
        return {name: ids[id(p)] for name, p in model.named_parameters() if p.requires_grad}

    def test_on_a_classifier(self, make_classifier):
        groups = self.build(make_classifier(10, arch='tiny'), layer_decay_rate=0.5)
        assert groups['backbone.stem.conv.weight']['lr'] == 0.5**11
        assert groups['backbone.stages.0.blocks.0.mlp.fc1.weight']['lr'] == 0.5**10
        assert groups['backbone.stages.3.blocks.1.mlp.fc1.weight']['lr'] == 0.5
        assert groups['head.fc.weight']['lr'] == 1

    def test_with_custom_keys_and_frozen_stages(self, make_classifier):
        model = make_classifier(10, arch='tiny', frozen_stages=1)
        keys = {'head': dict(lr_mult=10.0), 'stages.2': dict(lr_mult=0.1, decay_mult=0.0)}
        groups = self.build(model, layer_decay_rate=0.5, custom_keys=keys)
        assert groups['head.fc.weight']['lr'] == 10
        assert groups['backbone.stages.2.blocks.0.mlp.fc1.weight']['lr'] == pytest.approx(0.1 * 0.5**6)
        assert groups['backbone.stages.2.blocks.0.mlp.fc1.weight']['weight_decay'] == 0
        assert 'backbone.stem.conv.weight' not in groups

    def test_on_a_backbone_of_mmpretrain_in_a_detector(self, root):
        cfg = load(root, 'detection/mask-rcnn_vik-demo_fpn_shapes')
        init_default_scope('mmdet')
        backbone = dict(type='mmpretrain.VisionTransformer', arch='deit-t', img_size=64, out_type='featmap')
        cfg.model.backbone = dict(backbone, out_indices=(2, 5, 8, 11))
        cfg.model.neck.in_channels = [192] * 4
        groups = self.build(MODELS.build(cfg.model), layer_decay_rate=0.5)
        first, last = (f'backbone.layers.{k}.ln1.weight' for k in (0, 11))
        assert groups[first]['lr'] < groups[last]['lr'] <= 1
        assert groups['rpn_head.rpn_conv.weight']['lr'] == 1

    def test_without_depths_or_rate(self):
        with pytest.raises(ValueError, match='get_layer_depth, and Linear has none'):
            self.build(torch.nn.Linear(2, 2), layer_decay_rate=0.5)
        for rate in (None, 0, 1.5):
            with pytest.raises(ValueError, match='layer_decay_rate'):
                self.build(torch.nn.Linear(2, 2), layer_decay_rate=rate)
