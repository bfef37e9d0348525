"""Configs that are written for a user's data."""

import dataclasses
import re

import numpy as np
import pytest
from mmengine.config import Config

from vik_mm.errors import BadInputError
from vik_mm.recipes import write_config
from vik_mm.recipes.class_names import why_no_colour_change, why_no_flip, words_of

TASKS = ['classification', 'detection', 'instance', 'segmentation']
TINY = dict(depths=(1, 1, 1, 1), embed_dims=(32, 64, 160, 256))


@pytest.mark.parametrize('task', TASKS)
def test_the_written_config_trains_and_reruns_from_its_file(task, prepare_shapes, run_config, tmp_path):
    path = tmp_path / 'config.py'
    cfg = write_config(prepare_shapes(task), path)
    assert cfg.work_dir == str(tmp_path) and 'num_classes' in path.read_text()
    runner = run_config(path, TINY)
    assert runner.iter == 2
    assert any(name.startswith('val/') for name in runner.message_hub.log_scalars)


@pytest.mark.parametrize(
    'task, model, expected',
    [
        ('classification', None, 'ImageClassifier'),
        ('detection', None, 'RetinaNet'),
        ('instance', None, 'MaskRCNN'),
        ('instance', 'cascade-mask-rcnn', 'CascadeRCNN'),
        ('instance', 'retinanet', 'RetinaNet'),
        ('segmentation', 'upernet', 'EncoderDecoder'),
    ],
)
def test_every_head_has_the_classes_of_the_data(task, model, expected, prepare_shapes, tmp_path):
    from mmengine.registry import MODELS

    data = prepare_shapes(task)
    cfg = write_config(data, tmp_path / 'config.py', model=model, backbone='vik-s' if model else None)
    assert cfg.model.type == expected
    counts = re.findall(r"'num_classes': (\d+)", str(cfg.model.to_dict()))
    assert counts and set(counts) == {str(len(data.classes))}
    with MODELS.switch_scope_and_registry(cfg.default_scope) as registry:
        registry.build(cfg.model)


@pytest.mark.parametrize('classes, flips', [(None, True), (('left_door', 'right_door', *'stuvwx'), False)])
def test_names_with_sides_are_not_mirrored(classes, flips, prepare_shapes, tmp_path):
    cfg = write_config(prepare_shapes('detection', classes), tmp_path / 'config.py')
    assert ('RandomFlip' in str(cfg.train_pipeline)) == flips
    assert ('No mirror images' in (tmp_path / 'config.py').read_text()) != flips


@pytest.mark.parametrize(
    'name, words',
    [('front_leftDoor', ['front', 'left', 'door']), ('Bright', ['bright']), ('RIGHT-arrow', ['right', 'arrow'])],
)
def test_words_of_class_names(name, words):
    assert words_of(name) == words


def test_signs_and_colours():
    assert why_no_flip(['b', 'd']) and why_no_flip(['bright', 'copyright']) is None
    assert why_no_colour_change(['red_light', 'car']) and why_no_colour_change(['coloured', 'redwood']) is None


def test_anchors_change_only_where_boxes_are_clearly_off(prepare_shapes, tmp_path):
    data = dataclasses.replace(prepare_shapes('detection'), sizes=np.full((16, 2), 320))
    usual = write_config(dataclasses.replace(data, box_sizes=np.full((50, 2), 60.0)), tmp_path / 'a/config.py')
    small = write_config(dataclasses.replace(data, box_sizes=np.full((50, 2), 9.0)), tmp_path / 'b/config.py')
    flat = np.tile([120.0, 12.0], (50, 1))
    flat = write_config(dataclasses.replace(data, box_sizes=flat), tmp_path / 'c/config.py')
    generators = [cfg.model.bbox_head.anchor_generator for cfg in (usual, small, flat)]
    assert (generators[0].octave_base_scale, generators[0].ratios) == (3, [0.5, 1.0, 2.0])
    assert generators[1].octave_base_scale == 1 and 'smaller than 12 pixels' in (tmp_path / 'b/config.py').read_text()
    assert generators[2].ratios == [0.1]


def test_the_schedule_and_the_image_size_follow_the_data(prepare_shapes, tmp_path):
    data = prepare_shapes('detection')
    splits = {**data.splits, 'train': dataclasses.replace(data.splits['train'], num_images=5000)}
    large = dataclasses.replace(
        data, sizes=np.full((16, 2), [1920, 1080]), splits=splits
    )  # fmt: skip
    few, many = write_config(data, tmp_path / 'a/config.py'), write_config(large, tmp_path / 'b/config.py')
    assert (few.epochs, many.epochs) == (100, 12) and (few.train_cfg.val_interval, many.train_cfg.val_interval) == (
        10,
        1,
    )
    assert tuple(few.image_size) == (64, 64) and tuple(many.image_size) == (320, 192)
    told = write_config(large, tmp_path / 'c/config.py', image_size=640, epochs=3, batch_size=2)
    assert tuple(told.image_size) == (640, 352) and told.train_cfg.max_epochs == 3
    assert told.train_dataloader.batch_size == 2


def test_a_detector_from_random_weights_starts_its_global_step_at_zero(prepare_shapes, tmp_path):
    cfg = write_config(prepare_shapes('detection'), tmp_path / 'config.py')
    backbone = cfg.model.backbone
    assert backbone.token_mixer.global_zero_init and backbone.ignore_padding
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys['.global_in'] == dict(lr_mult=0.08)
    cfg = write_config(prepare_shapes('segmentation'), tmp_path / 'other/config.py')
    assert '.global_in' not in cfg.optim_wrapper.paramwise_cfg.custom_keys


@pytest.mark.parametrize('images, is_dropped', [(8, False), (9, True), (10, False)])
def test_no_batch_is_a_single_image_that_is_left_over(images, is_dropped, prepare_shapes, tmp_path):
    """Batch norm of a pooled map, as UPerNet has it, fails on one image: after most of an epoch."""
    data = prepare_shapes('segmentation')
    data.splits['train'] = dataclasses.replace(data.splits['train'], num_images=images)
    cfg = write_config(data, tmp_path / 'config.py', batch_size=4)
    assert cfg.train_dataloader.batch_sampler.get('drop_last', False) == is_dropped


class TestForeignConfigs:
    @pytest.mark.parametrize(
        'task, model',
        [
            ('instance', 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'),
            ('detection', 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'),
            ('segmentation', 'mmseg::pspnet/pspnet_r50-d8_4xb2-40k_cityscapes-512x1024.py'),
            ('classification', 'mmpretrain::resnet/resnet18_8xb32_in1k.py'),
        ],
    )
    def test_data_are_put_into_it(self, task, model, prepare_shapes, tmp_path):
        data = prepare_shapes(task)
        cfg = write_config(data, tmp_path / 'config.py', model=model)
        counts = re.findall(r"'num_classes': (\d+)", str(cfg.model.to_dict()))
        assert counts and set(counts) <= {str(len(data.classes))}
        assert str(data.splits['train'].ann_file) in str(cfg.train_dataloader)
        assert str(data.splits['val'].ann_file) in str(cfg.test_dataloader)
        assert 'data/coco' not in str(cfg.train_dataloader) and 'cityscapes' not in str(cfg.train_dataloader)

    def test_it_trains_with_this_backbone(self, prepare_shapes, run_config, tmp_path):
        path, name = tmp_path / 'config.py', 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
        cfg = write_config(prepare_shapes('detection'), path, model=name, backbone='vik-t')
        assert cfg.model.backbone.type == 'mmpretrain.ViK' and cfg.train_cfg.max_epochs == 100
        assert run_config(path, TINY).iter == 2

    def test_another_package_or_masks_that_there_are_none_of(self, prepare_shapes, tmp_path):
        data, path = prepare_shapes('detection'), tmp_path / 'config.py'
        with pytest.raises(BadInputError, match='a config of mmpretrain, and the data are for detection'):
            write_config(data, path, model='mmpretrain::resnet/resnet18_8xb32_in1k.py')
        with pytest.raises(BadInputError, match='learns masks of objects, and the data have only boxes'):
            write_config(data, path, model='mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py')
        assert not path.exists()


@pytest.mark.parametrize('model', ['mask-rcnn', 'yolo9', 'upernet'])
def test_an_unknown_or_unfit_model_is_answered_with_the_choices(model, prepare_shapes, tmp_path):
    with pytest.raises(BadInputError, match=f'--model {model} is not a model for detection.*choose one of retinanet'):
        write_config(prepare_shapes('detection'), tmp_path / 'config.py', model=model)


def test_an_edited_config_is_never_overwritten_and_one_of_other_data_neither(prepare_shapes, tmp_path):
    path, data = tmp_path / 'config.py', prepare_shapes('classification')
    write_config(data, path)
    assert write_config(data, path, epochs=7).epochs == 7
    with pytest.raises(BadInputError, match='is of other data than'):
        write_config(dataclasses.replace(data, source=tmp_path), path)
    path.write_text(path.read_text().replace('epochs = 7', 'epochs = 8'))
    with pytest.raises(BadInputError, match='was edited, and is not overwritten.*--work-dir'):
        write_config(data, path)
    assert Config.fromfile(path).train_cfg.max_epochs == 8
