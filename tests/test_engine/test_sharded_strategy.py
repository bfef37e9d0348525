"""Training divided among processes is training."""

import json
import re

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook
from mmpretrain.registry import MODELS
from processes import Training
from torch import nn

from vik_mm.backbones.vik import ViKBlock
from vik_mm.checkpoints import read_checkpoint
from vik_mm.engine.runner.sharded_strategy import check_sharding, find_block_classes
from vik_mm.errors import BadInputError

LINES = """
custom_imports = dict(imports=['vik_mm', 'faults'], allow_failed_imports=False)
optim_wrapper = dict(optimizer=dict(weight_decay=0.5))
train_cfg = dict(max_epochs=2, val_interval=9)
"""
LARGE = """
default_hooks.update(checkpoint=dict(interval=2))
model = dict(
    backbone=dict(arch='large', img_size=32, out_indices=(3,)),
    head=dict(in_channels=768),
)
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='Resize', scale=32), dict(type='PackInputs')]
"""


@pytest.fixture
def train(make_config, root, tmp_path):
    """Train over two processes, divided or with a whole model in each; goes on from where the work dir is."""

    def run(work, is_sharded, more='', options=('--no-validate',)):
        config = make_config('classification', LINES + more)
        if is_sharded:
            cfg = Config.fromfile(config)
            cfg.merge_from_dict(Config.fromfile(root / 'configs/_base_/fsdp.py').to_dict())
            cfg.dump(config)
        training = Training(tmp_path, [config, '--work-dir', tmp_path / work, '--resume', *options], 2)
        assert training.wait(240) == [0, 0], training.text[-3000:]
        return training

    return run


def losses(work):
    (path,) = work.glob('*/vis_data/scalars.json')
    return [line['loss'] for line in map(json.loads, path.read_text().splitlines())]


def assert_same(first, second):
    left, right = read_checkpoint(first / 'epoch_2.pth'), read_checkpoint(second / 'epoch_2.pth')
    assert left['state_dict'].keys() == right['state_dict'].keys()
    for name, value in left['state_dict'].items():
        assert torch.equal(value, right['state_dict'][name]), name
    states = left['optimizer'], right['optimizer']
    assert states[0]['param_groups'] == states[1]['param_groups']
    assert states[0]['state'].keys() == states[1]['state'].keys()
    for number, state in states[0]['state'].items():
        for key, value in state.items():
            assert torch.equal(torch.as_tensor(value), torch.as_tensor(states[1]['state'][number][key])), (number, key)


def test_vik_large_divided_has_the_losses_and_weights_of_ddp(train, tmp_path):
    train('whole', False, LARGE)
    train('divided', True, LARGE)
    assert len(losses(tmp_path / 'whole')) == 4
    assert losses(tmp_path / 'divided') == losses(tmp_path / 'whole')
    assert_same(tmp_path / 'divided', tmp_path / 'whole')


@pytest.mark.parametrize('starts_divided', [True, False])
def test_a_run_stopped_one_way_goes_on_the_other(train, tmp_path, starts_divided):
    train('whole', False)
    stop = "custom_hooks = [dict(type='FaultHook', at=3, signal_name='SIGTERM', rank=1)]\n"
    stopped = train('stopped', starts_divided, stop)
    assert 'stopped after iteration 3 of 4' in stopped.text
    saved = read_checkpoint(tmp_path / 'stopped' / 'interrupted.pth')
    assert (saved['meta']['epoch'], saved['meta']['iter']) == (1, 3)
    train('stopped', not starts_divided)
    assert_same(tmp_path / 'stopped', tmp_path / 'whole')


class HeadBlock(nn.Linear):
    """Of a name that ends in Block, and of no backbone that says so."""


def test_the_backbone_says_what_its_blocks_are(make_vik):
    model = nn.ModuleDict(dict(backbone=make_vik(), head=HeadBlock(1, 1)))
    assert find_block_classes(model) == {ViKBlock}
    swin = MODELS.build(dict(type='SwinKArAt', arch='tiny', img_size=64, attn_cfg=dict(type='Softmax')))
    assert [kind.__name__ for kind in find_block_classes(swin)] == ['SwinBlock']
    assert find_block_classes(nn.Sequential(HeadBlock(1, 1))) == set()


def test_a_strategy_names_the_blocks_of_other_backbones():
    model = nn.Sequential(HeadBlock(1, 1))
    assert find_block_classes(model, [f'{HeadBlock.__module__}.HeadBlock']) == {HeadBlock}
    with pytest.raises(BadInputError, match=rf'no part of the model is a foo.HeadBlock; did you mean {__name__}.Head'):
        find_block_classes(model, ['foo.HeadBlock'])


class Averaging(EMAHook):
    """Of a name that does not say what it is."""


def test_an_averaging_hook_is_known_by_its_class():
    cfg = Config(dict(strategy=dict(type='ShardedStrategy'), custom_hooks=[dict(type=Averaging)]))
    with pytest.raises(BadInputError, match='EMAHook copies the model'):
        check_sharding(cfg)


def test_averaged_weights_of_a_divided_model_are_refused(call_tool, make_config, tmp_path):
    config = make_config(
        'classification', "custom_hooks = [dict(type='EMAHook')]\nstrategy = dict(type='ShardedStrategy')\n"
    )
    code, _ = call_tool('train.py', config, '--work-dir', tmp_path / 'run')
    assert str(code).startswith('error: EMAHook copies the model, which ShardedStrategy divides')


def test_images_computed_one_by_one_are_refused_in_a_divided_model(call_tool, make_config, tmp_path):
    config = make_config(
        'classification', "model = dict(backbone=dict(ignore_padding=True))\nstrategy = dict(type='ShardedStrategy')\n"
    )
    code, _ = call_tool('train.py', config, '--work-dir', tmp_path / 'run')
    assert str(code).startswith('error: model.backbone.ignore_padding=True runs the backbone once for each image size')


def test_a_divided_model_is_validated_and_tested(train, call_tool, tmp_path):
    training = train('run', True, 'train_cfg.update(val_interval=1)\n', options=())
    accuracies = re.findall(r'Epoch\(val\) \[2\].*accuracy/top1: ([\d.]+)', training.text)
    assert accuracies
    code, text = call_tool('test.py', tmp_path / 'classification.py', tmp_path / 'run' / 'epoch_2.pth')
    assert not code and 'accuracy/top1' in text
