"""swap_backbone on configs that ship with MMDetection and MMSegmentation. The sweep over all families is a tool."""

import pytest
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope

import vik_mm
from vik_mm_cli.config_files import find_config


def load(name):
    return Config.fromfile(find_config(name))


def test_mask_rcnn_with_a_pyramid():
    before = load('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    text = before.dump() if hasattr(before, 'dump') else before.pretty_text
    cfg = vik_mm.swap_backbone(before, 'vik-s')
    assert (before.dump() if hasattr(before, 'dump') else before.pretty_text) == text, 'the argument is not changed'
    assert cfg.model.backbone == dict(type='mmpretrain.ViK', arch='small', drop_path_rate=0.1, out_indices=(0, 1, 2, 3))
    assert cfg.model.neck.in_channels == [64, 128, 320, 512]
    assert cfg.model.roi_head == before.model.roi_head
    assert cfg.param_scheduler == before.param_scheduler
    assert cfg.optim_wrapper == before.optim_wrapper
    assert cfg.custom_imports['imports'] == ['vik_mm']


@pytest.mark.parametrize(
    ('name', 'out_indices', 'in_channels'),
    [
        # FPN from the second map on: the first would have no gradient.
        ('retinanet/retinanet_r50_fpn_1x_coco.py', (1, 2, 3), [128, 320, 512]),
        # one map
        ('detr/detr_r50_8xb2-150e_coco.py', (3,), [512]),
        ('yolof/yolof_r50-c5_8xb8-1x_coco.py', (3,), 512),
        # by stride: Darknet's maps 3, 4, 5 are ViK's 1, 2, 3, and this neck counts backwards
        ('yolo/yolov3_d53_8xb8-ms-608-273e_coco.py', (1, 2, 3), [512, 320, 128]),
        # a list of necks
        ('libra_rcnn/libra-faster-rcnn_r50_fpn_1x_coco.py', (0, 1, 2, 3), [64, 128, 320, 512]),
        # the detector lies deeper
        (
            'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
            (0, 1, 2, 3),
            [64, 128, 320, 512],
        ),
    ],
)
def test_detectors(name, out_indices, in_channels):
    model = vik_mm.swap_backbone(load(f'mmdet::{name}'), 'vik-s').model
    model = model.get('detector', model)
    neck = model.neck[0] if isinstance(model.neck, list) else model.neck
    assert model.backbone.out_indices == out_indices
    assert neck.in_channels == in_channels
    assert neck.get('start_level', 0) == 0


def test_query_head_with_its_own_pixel_decoder():
    model = vik_mm.swap_backbone(load('mmdet::mask2former/mask2former_r50_8xb2-lsj-50e_coco.py'), 'vik-s').model
    assert model.panoptic_head.in_channels == [64, 128, 320, 512]


def test_regions_cut_from_the_backbone():
    model = vik_mm.swap_backbone(load('mmdet::faster_rcnn/faster-rcnn_r50-caffe-dc5_1x_coco.py'), 'vik-s').model
    assert model.backbone.out_indices == (2,)  # both have stride 16
    assert model.rpn_head.in_channels == 320
    assert model.roi_head.bbox_roi_extractor.out_channels == model.roi_head.bbox_head.in_channels == 320


def test_segmentation_heads_with_their_indices():
    model = vik_mm.swap_backbone(load('mmseg::pspnet/pspnet_r50-d8_4xb4-80k_ade20k-512x512.py'), 'vik-s').model
    # Nothing reads the first two maps.
    assert model.backbone.out_indices == (2, 3)
    assert (model.decode_head.in_channels, model.decode_head.in_index) == (512, 1)
    assert (model.auxiliary_head.in_channels, model.auxiliary_head.in_index) == (320, 0)
    assert 'pretrained' not in model
    name = 'mmseg::deeplabv3plus/deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512.py'
    model = vik_mm.swap_backbone(load(name), 'vik-s').model
    assert model.backbone.out_indices == (0, 2, 3)
    assert model.decode_head.c1_in_channels == 64


def test_neck_that_passes_maps_through():
    name = 'mmseg::fastfcn/fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512.py'
    before = load(name).model
    model = vik_mm.swap_backbone(load(name), 'vik-s').model
    assert tuple(model.neck.in_channels) == (128, 320, 512)
    assert model.decode_head.in_channels == before.decode_head.in_channels  # what the neck makes
    assert model.auxiliary_head.in_channels == 320  # what it passes through


def test_head_inside_a_head():
    name = 'mmseg::knet/knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512.py'
    before = load(name).model.decode_head
    head = vik_mm.swap_backbone(load(name), 'vik-s').model.decode_head
    assert head.kernel_generate_head.in_channels == [64, 128, 320, 512]
    assert head.kernel_update_head == before.kernel_update_head


def test_settings_of_the_old_backbone_go():
    cfg = load('mmdet::mask_rcnn/mask-rcnn_r50-caffe_fpn_1x_coco.py')
    cfg.load_from = 'r50.pth'
    cfg = vik_mm.swap_backbone(cfg, dict(type='mmpretrain.ViK', arch='base', with_cp=True))
    assert set(cfg.model.backbone) == {'type', 'arch', 'with_cp', 'out_indices'}
    assert cfg.load_from is None
    assert cfg.model.data_preprocessor.mean == [123.675, 116.28, 103.53]
    assert cfg.model.data_preprocessor.bgr_to_rgb is True


def test_layer_decay_of_a_named_backbone_becomes_ours():
    cfg = vik_mm.swap_backbone(load('mmdet::convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py'), 'vik-s')
    assert cfg.optim_wrapper.constructor == 'LayerDecayOptimWrapperConstructor'
    assert cfg.optim_wrapper.paramwise_cfg == dict(layer_decay_rate=0.95)
    assert cfg.optim_wrapper.optimizer.lr == 1e-4


def test_any_backbone_can_be_put_in():
    cfg = vik_mm.swap_backbone(load('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'), dict(type='ResNet', depth=18))
    assert cfg.model.neck.in_channels == [64, 128, 256, 512]


@pytest.mark.parametrize(
    ('name', 'key'),
    [
        ('mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py', r'model\.roi_head\.shared_head'),
        ('mmdet::cornernet/cornernet_hourglass104_10xb5-crop511-210e-mstest_coco.py', r'model\.backbone\.out_indices'),
        ('mmdet::lad/lad_r50-paa-r101_fpn_2xb8_coco_1x.py', r'model\.teacher_neck'),
        (
            'mmseg::bisenetv1/bisenetv1_r18-d32_4xb4-160k_cityscapes-1024x1024.py',
            r'model\.backbone\.backbone_cfg',
        ),
    ],
)
def test_what_cannot_be_swapped_is_named(name, key):
    with pytest.raises(ValueError, match=key):
        vik_mm.swap_backbone(load(name), 'vik-s')


def test_channels_that_match_nothing_are_named():
    cfg = load('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
    cfg.model.neck.in_channels = [1, 2, 3, 4]
    with pytest.raises(ValueError, match=r'model\.neck\.in_channels=\[1, 2, 3, 4\]'):
        vik_mm.swap_backbone(cfg, 'vik-s')
    with pytest.raises(ValueError, match=r'no model\.backbone'):
        vik_mm.swap_backbone(Config(dict(model=dict(type='A'))), 'vik-s')
    two = ConfigDict(type='A', one=dict(backbone=dict(type='B')), two=dict(backbone=dict(type='B')))
    with pytest.raises(ValueError, match=r'model\.one\.backbone, model\.two\.backbone'):
        vik_mm.swap_backbone(Config(dict(model=two)), 'vik-s')


@pytest.mark.parametrize('backbone', ['vik-x', dict(arch='small'), dict(type='ViK', out_indices=(3,)), 5])
def test_backbones_that_make_no_sense(backbone):
    with pytest.raises(ValueError, match='backbone'):
        vik_mm.swap_backbone(load('mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'), backbone)


def test_missing_config_names_its_neighbours():
    with pytest.raises(FileNotFoundError, match=r'mask-rcnn_r50_fpn_1x_coco\.py|mask_rcnn/ has'):
        find_config('mmdet::mask_rcnn/mask-rcnn_r50.py')
    with pytest.raises(FileNotFoundError, match='not installed'):
        find_config('mmnothing::a.py')


def test_the_sweep_runs(tmp_path, call_tool):
    families = ('mmdet/dyhead', 'mmseg/encnet')
    code, text = call_tool('analysis_tools/swap_sweep.py', *families, '--out', tmp_path / 'sweep.csv')
    init_default_scope('mmpretrain')
    assert not code, text
    assert '2 of 2 pass' in text
    assert (tmp_path / 'sweep.csv').read_text().count('passes') == 2
