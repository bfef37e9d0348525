"""Detection and segmentation as a user has them: train, test, infer, and what goes wrong on the way."""

import json
import re
import shutil

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vik_mm.checkpoints import read_checkpoint

SCOPES = {'classification': 'mmpretrain', 'detection': 'mmdet', 'segmentation': 'mmseg'}


@pytest.fixture(autouse=True)
def scope():
    """Tools set the default scope of the whole process."""
    yield
    init_default_scope('mmpretrain')


@pytest.fixture
def make_checkpoint(tmp_path):
    """Untrained weights of a config's model, as a Runner saves them."""

    def make(config):
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        if 'data_preprocessor' in cfg:
            cfg.model.data_preprocessor = cfg.data_preprocessor
        from vik_mm.config.machine import without_sync_bn

        model = MODELS.build(without_sync_bn(cfg.model))
        path = tmp_path / 'model.pth'
        torch.save(dict(state_dict=model.state_dict()), path)
        return path

    return make


@pytest.mark.parametrize('task', ['detection', 'segmentation'])
def test_train_resume_and_test(tmp_path, make_config, call_tool, task):
    # Four iterations make no detection that an evaluator would take.
    more = 'model = dict(test_cfg=dict(rcnn=dict(score_thr=0.0)))\n' if task == 'detection' else ''
    config, work = make_config(task, more), tmp_path / 'work'
    code, text = call_tool('train.py', config, '--work-dir', work)
    assert code is None, text
    metric = dict(detection='coco/segm_mAP: ', segmentation='mIoU: ')[task]
    validated = float(re.findall(rf'{metric}(\S+)', text)[-1])
    (checkpoint,) = work.glob('*_[14].pth')
    longer = dict(detection='train_cfg.max_epochs=2', segmentation='train_cfg.max_iters=6')[task]
    code, text = call_tool('train.py', config, '--work-dir', work, '--resume', '--cfg-options', longer)
    assert f'resuming from {checkpoint}' in text
    # On the validation set, the figure is the one of the run.
    data = Config.fromfile(config).val_dataloader.dataset
    swap = [f'test_dataloader.dataset.data_prefix.{k}={v}' for k, v in data.data_prefix.items()]
    if task == 'detection':
        swap += [f'test_dataloader.dataset.ann_file={data.ann_file}']
        swap += [f'test_evaluator.ann_file={data.data_root}{data.ann_file}']
    pictures = tmp_path / 'pictures'
    code, text = call_tool(
        'test.py', config, checkpoint, '--work-dir', work, '--show-dir', pictures, '--cfg-options', *swap
    )
    assert code is None, text
    assert float(re.findall(rf'{metric}(\S+)', text)[-1]) == validated
    assert [p for p in tmp_path.rglob('*') if 'pictures' in p.parts and p.suffix in ('.png', '.jpg')]


@pytest.mark.parametrize('task', list(SCOPES))
def test_compiled_training_and_evaluation_go_through(tmp_path, make_config, call_tool, task):
    # The graphs that 'inductor' takes, without the minutes that it takes to compile them.
    config = make_config(task, "custom_hooks = [dict(type='CompileHook', backend='eager')]\n")
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters['stats']
    graphs.clear()
    code, text = call_tool('train.py', config, '--compile')
    assert code is None, text[-3000:]
    assert graphs['unique_graphs'] == 2  # training, evaluation


def test_a_shipped_config_trains_with_vik(tmp_path, shapes_folder, call_tool):
    coco = f'{shapes_folder}/coco/'
    options = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'model.bbox_head.num_classes=8']
    options += ['model.bbox_head.feat_channels=16', 'model.neck.out_channels=16', 'model.bbox_head.in_channels=16']
    options += ['model.backbone.layer_scale_init_value=1.0']
    names = '["circle","crescent","cross","heart","ring","square","star","triangle"]'
    for split in ('train', 'val', 'test'):
        data = f'{split}_dataloader.dataset'
        options += [f'{split}_dataloader.num_workers=0', f'{data}.data_root={coco}']
        options += [f'{data}.ann_file=annotations/instances_{split}2017.json', f'{data}.data_prefix.img={split}2017/']
        options += [f'{data}.metainfo.classes={names}', f'{data}.pipeline.{2 if split == "train" else 1}.scale=(64,64)']
        if split != 'train':
            options += [f'{split}_evaluator.ann_file={coco}annotations/instances_{split}2017.json']
    code, text = call_tool(
        'train.py', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--backbone', 'vik-t', '--cfg-options', *options
    )
    assert code is None, text[-3000:]
    work = tmp_path / 'work_dirs/retinanet_r50_fpn_1x_coco_vik-t'
    weights = read_checkpoint(work / 'epoch_1.pth')['state_dict']
    assert 'backbone.stages.0.blocks.0.token_mixer.rbf_kan.weight' in weights
    assert 'backbone.norm0.weight' not in weights
    # The config that the run leaves is whole: it needs no --backbone.
    assert Config.fromfile(work / 'retinanet_r50_fpn_1x_coco.py').model.backbone.type == 'mmpretrain.ViK'


@pytest.mark.parametrize('task', list(SCOPES))
def test_infer_on_a_folder(tmp_path, shapes_folder, make_config, make_checkpoint, call_tool, task):
    config = make_config(task)
    images = tmp_path / 'images'
    (images / 'deeper').mkdir(parents=True)
    photo = next((shapes_folder / 'imagenet/test').rglob('*.png'))
    shutil.copy(photo, images / 'a.png')
    cv2.imwrite(str(images / 'deeper/b.jpg'), cv2.resize(cv2.imread(str(photo)), (91, 50)))  # another size and shape
    (images / 'broken.png').write_bytes(b'no image')
    out = tmp_path / 'out'
    code, text = call_tool('infer.py', config, make_checkpoint(config), images, '--out', out, '--score-thr', 0.0)
    assert code == 1, text
    assert 'broken.png cannot be read as an image' in text
    results = {r['image'].rsplit('/', 1)[-1]: r for r in json.loads((out / 'results.json').read_text())}
    assert set(results) == {'a.png', 'b.jpg', 'broken.png'}
    assert set(results.pop('broken.png')) == {'image', 'error'}
    for result in results.values():
        assert result['task'] == task
        assert cv2.imread(str(out / result['picture'])) is not None
    if task == 'classification':
        assert len(results['a.png']['top']) == 5
        assert results['a.png']['score'] == max(entry['score'] for entry in results['a.png']['top'])
    elif task == 'detection':
        from pycocotools import mask

        for entry in results['b.jpg']['objects']:
            assert mask.decode(entry['mask']).shape == (50, 91)
            assert entry['class'] in ('circle', 'crescent', 'cross', 'heart', 'ring', 'square', 'star', 'triangle')
    else:
        labels = cv2.imread(str(out / results['b.jpg']['label_map']), cv2.IMREAD_UNCHANGED)
        assert labels.shape == (50, 91)
        assert sum(results['b.jpg']['shares'].values()) == pytest.approx(1, abs=1e-4)


def test_infer_says_what_is_wrong(tmp_path, make_config, make_checkpoint, call_tool):
    config = make_config('segmentation')
    checkpoint = make_checkpoint(config)
    (tmp_path / 'empty').mkdir()
    for images, message in ((tmp_path / 'no.png', 'does not exist'), (tmp_path / 'empty', 'holds no image')):
        code, _ = call_tool('infer.py', config, checkpoint, images, '--out', tmp_path / 'out')
        assert message in code
    assert not (tmp_path / 'out').exists()
    other = make_config('detection')
    (tmp_path / 'a.png').write_bytes(b'')
    code, _ = call_tool('infer.py', other, checkpoint, tmp_path / 'a.png', '--out', tmp_path / 'out')
    assert 'does not fit the config' in code


class TestBadInput:
    @pytest.fixture
    def data(self, tmp_path, shapes_folder):
        """A copy of the shapes to damage."""
        return shutil.copytree(shapes_folder, tmp_path / 'data')

    def config(self, make_config, task, data):
        path = make_config(task)
        layout = dict(detection='coco/', segmentation='ade20k', classification='imagenet')[task]
        text = re.sub(r"data_root='[^']*'", f"data_root='{data}/{layout}'", path.read_text())
        path.write_text(re.sub(r"ann_file='[^']*/coco/", f"ann_file='{data}/coco/", text))
        return path

    def test_missing_root_and_annotation_file(self, make_config, data, call_tool):
        path = self.config(make_config, 'detection', data)
        (data / 'coco/annotations/instances_train2017.json').unlink()
        code, _ = call_tool('train.py', path)
        assert re.search(r'error: .*instances_train2017\.json does not exist; CocoDataset expects', code)
        shutil.rmtree(data)
        code, _ = call_tool('train.py', path)
        assert 'data_root=...' in code

    def test_number_of_classes(self, make_config, data, call_tool):
        path = self.config(make_config, 'detection', data)
        heads = ('model.roi_head.bbox_head.num_classes=5', 'model.roi_head.mask_head.num_classes=5')
        code, _ = call_tool('train.py', path, '--cfg-options', *heads)
        assert 'has 8 classes and the model has heads for 5; set num_classes=8' in code
        path = self.config(make_config, 'segmentation', data)
        code, _ = call_tool('train.py', path, '--cfg-options', 'model.decode_head.num_classes=4')
        assert 'has 9 classes and the model has heads for 4' in code

    def test_categories_of_other_names(self, make_config, data, call_tool):
        file = data / 'coco/annotations/instances_train2017.json'
        file.write_text(file.read_text().replace('"star"', '"sheriff"'))
        code, _ = call_tool('train.py', self.config(make_config, 'detection', data))
        assert 'instances_train2017.json has categories for 7 of the 8 classes' in code

    def test_annotation_of_a_missing_image(self, make_config, data, call_tool):
        image = next((data / 'coco/train2017').iterdir())
        image.unlink()
        code, _ = call_tool('train.py', self.config(make_config, 'detection', data))
        assert f'names the image {image}, which does not exist' in code

    @pytest.mark.parametrize('workers', [0, 1])
    def test_corrupt_images(self, make_config, data, call_tool, workers):
        images = sorted((data / 'coco/train2017').iterdir())[:2]  # one may be left out
        for image in images:
            image.write_bytes(b'\x89PNG then nothing')
        options = ('--cfg-options', f'train_dataloader.num_workers={workers}')
        code, _ = call_tool('train.py', self.config(make_config, 'detection', data), *options)
        assert code.startswith('error: ')
        assert any(f'{image} cannot be used' in code for image in images)
        assert 'max_damaged=0.01' in code
        assert '\n' not in code

    def test_label_outside_the_classes(self, make_config, data, call_tool):
        label_map = next((data / 'ade20k/annotations/training').iterdir())
        cv2.imwrite(str(label_map), np.full((64, 64), 77, dtype=np.uint8))
        code, _ = call_tool(
            'train.py',
            self.config(make_config, 'segmentation', data),
            '--cfg-options',
            'train_dataloader.batch_size=16',
        )
        assert f'{label_map} holds the label 76, and the model has classes 0 to 8' in code

    def test_pretrained_prefix_that_matches_nothing(self, tmp_path, make_config, make_checkpoint, call_tool):
        config = make_config('segmentation')
        checkpoint = make_checkpoint(config)
        init_cfg = f"dict(_delete_=True, type='Pretrained', checkpoint='{checkpoint}', prefix='encoder.')"
        config.write_text(config.read_text() + f'model = dict(backbone=dict(init_cfg={init_cfg}))\n')
        code, _ = call_tool('train.py', config)
        assert "holds nothing of this ViK: with init_cfg.prefix='encoder.'" in code
        config.write_text(config.read_text().replace('encoder.', 'backbone.'))
        code, text = call_tool('train.py', config, '--work-dir', tmp_path / 'w', '--no-validate')
        assert code is None, text
        config.write_text(config.read_text().replace('model.pth', 'nothing.pth'))
        code, _ = call_tool('train.py', config)
        assert 'nothing.pth does not exist; name a checkpoint' in code

    def test_load_from_that_matches_nothing(self, tmp_path, make_config, call_tool):
        torch.save(dict(state_dict=dict(a=torch.ones(1))), tmp_path / 'other.pth')
        options = ('--cfg-options', f'load_from={tmp_path}/other.pth')
        code, _ = call_tool('train.py', make_config('segmentation'), *options)
        assert 'nothing in the checkpoint fits the model' in code

    def test_backbone_that_cannot_be_swapped(self, call_tool):
        config = 'mmdet::faster_rcnn/faster-rcnn_r50-caffe_c4-1x_coco.py'
        code, _ = call_tool('train.py', config, '--backbone', 'vik-s')
        assert 'model.roi_head.shared_head is a stage of the old backbone' in code
        code, _ = call_tool('train.py', 'mmdet::retinanet/retinanet_r50_fpn_1x_coco.py', '--backbone', 'vik-xxl')
        assert "backbone 'vik-xxl' is unknown" in code
