"""What a config of others lacks is added, with a line of the log for each; a config of ours lacks nothing."""

import collections
import copy
from types import SimpleNamespace

import pytest
from mmengine.config import Config
from mmengine.dataset import DefaultSampler

from vik_mm.engine.hooks import SanityCheckHook
from vik_mm.engine.runner import complete_config
from vik_mm.engine.runner.samplers import ResumableBatchSampler, make_batches_resumable
from vik_mm.errors import BadInputError

MODULES = ('completion', 'samplers')


@pytest.fixture
def complete(monkeypatch):
    """Complete a config; returns the lines of the log."""

    def run(cfg, **options):
        lines = []
        for name in MODULES:
            monkeypatch.setattr(f'vik_mm.engine.runner.{name}.print_log', lambda line, **_: lines.append(line))
        complete_config(cfg, **options)
        return lines

    return run


FOREIGN = {
    'default_scope': 'mmpretrain',
    'train_cfg': dict(by_epoch=True, max_epochs=3),
    'train_dataloader': dict(batch_size=4, drop_last=True, dataset=dict(type='CustomDataset')),
    'val_dataloader': dict(batch_size=4, dataset=dict(type='CustomDataset')),
    'default_hooks': dict(checkpoint=dict(type='CheckpointHook', interval=2)),
    'custom_hooks': [dict(type='EMAHook')],
}


@pytest.mark.parametrize('folder', ['vik', 'karat', 'detection', 'segmentation'])
def test_a_config_of_ours_lacks_nothing(root, complete, folder):
    for path in sorted((root / 'configs' / folder).glob('*.py')):
        cfg = Config.fromfile(path)
        before = copy.deepcopy(cfg.to_dict())
        for is_training in (True, False):
            assert not complete(cfg, is_training=is_training), path
            assert cfg.to_dict() == before, path


def test_each_addition_to_a_config_of_others_is_a_line_of_the_log(complete):
    cfg = Config(copy.deepcopy(FOREIGN))
    lines = complete(cfg)
    added = {
        'train_cfg.type': 'ResumableEpochLoop',
        'train_dataloader.batch_sampler': 'ResumableBatchSampler',
        'train_dataloader.worker_init_fn': 'outlive_signals',
        'train_dataloader.collate_fn': 'default_collate',
        'val_dataloader.worker_init_fn': 'outlive_signals',
        'val_dataloader.collate_fn': 'default_collate',
        'default_hooks.checkpoint': 'AtomicCheckpointHook',
        'default_hooks.sanity_check': 'SanityCheckHook',
        'default_hooks.nonfinite_loss': 'NonFiniteLossHook',
    }
    assert sorted(lines) == sorted(f'the config lacks {what}: added as {place}' for place, what in added.items())
    assert cfg.train_cfg == dict(type='ResumableEpochLoop', max_epochs=3)
    assert cfg.default_hooks.checkpoint == dict(type='AtomicCheckpointHook', interval=2)
    assert cfg.train_dataloader.batch_sampler == dict(type='ResumableBatchSampler', batches=None, drop_last=True)
    assert 'drop_last' not in cfg.train_dataloader
    once = copy.deepcopy(cfg.to_dict())
    assert not complete(cfg) and cfg.to_dict() == once


def test_a_test_gets_checks_and_no_loops(complete):
    cfg = Config(copy.deepcopy(FOREIGN))
    assert len(complete(cfg, is_training=False)) == 4
    assert cfg.train_cfg == FOREIGN['train_cfg'] and 'worker_init_fn' not in cfg.val_dataloader


@pytest.mark.parametrize(
    ('change', 'type'),
    [
        (dict(train_cfg=dict(max_epochs=3)), 'ResumableEpochLoop'),
        (dict(train_cfg=dict(by_epoch=False, max_iters=3)), 'ResumableIterLoop'),
        (dict(train_cfg=dict(type='IterBasedTrainLoop', max_iters=3)), 'ResumableIterLoop'),
        (dict(train_cfg=dict(type='ResumableEpochLoop', by_epoch=True, max_epochs=3)), 'ResumableEpochLoop'),
    ],
    ids=['no kind', 'by_epoch', 'type', 'by_epoch in a leaf of ours'],
)
def test_the_loop_is_ours_however_the_config_names_mmengines(complete, change, type):
    cfg = Config({**copy.deepcopy(FOREIGN), **change})
    complete(cfg)
    assert cfg.train_cfg.type == type and 'by_epoch' not in cfg.train_cfg


def test_a_loop_of_another_kind_stays_and_all_else_with_it(complete):
    cfg = Config({**copy.deepcopy(FOREIGN), 'train_cfg': dict(type='LoopOfMine', max_epochs=3)})
    assert any('LoopOfMine is not one of MMEngine' in line for line in complete(cfg))
    assert cfg.train_cfg.type == 'LoopOfMine' and cfg.default_hooks.checkpoint.type == 'CheckpointHook'
    assert 'batch_sampler' not in cfg.train_dataloader


def test_hooks_that_are_there_are_not_added(complete):
    cfg = Config(dict(custom_hooks=[dict(type='SanityCheckHook')], default_hooks=dict(nonfinite_loss=dict(patience=2))))
    assert complete(cfg) == ['the config lacks NonFiniteLossHook: added as default_hooks.nonfinite_loss']
    assert cfg.default_hooks == dict(nonfinite_loss=dict(type='NonFiniteLossHook', patience=2))


@pytest.mark.parametrize('inner', [None, dict(type='AspectRatioBatchSampler')], ids=['plain', 'by aspect ratio'])
def test_drop_last_of_a_loader_goes_where_pytorch_takes_it(inner):
    ours = dict(batch_sampler=dict(type='ResumableBatchSampler', batches=inner), drop_last=True)
    theirs = dict(batch_sampler=inner, drop_last=True)
    for loader in (ours, theirs):
        changed = make_batches_resumable(loader)
        batches = inner and {**inner, 'drop_last': True}
        assert changed == dict(batch_sampler=dict(type='ResumableBatchSampler', batches=batches, drop_last=True))
        assert make_batches_resumable(changed) is changed and 'drop_last' in loader


def test_a_batch_sampler_is_not_told_to_keep_an_incomplete_batch():
    """PyTorch takes ``drop_last=False`` beside a batch sampler, which need not have such an argument."""
    changed = make_batches_resumable(dict(batch_sampler=dict(type='Mine'), drop_last=False))
    assert changed == dict(batch_sampler=dict(type='ResumableBatchSampler', batches=dict(type='Mine')))


def test_under_a_loop_of_others_samples_are_drawn_from_the_samplers_seed():
    sampler = DefaultSampler(collections.UserList(range(3)), shuffle=False, seed=7)
    (first, *_), *_ = ResumableBatchSampler(sampler, 2)
    assert first.seed[1] == 7


def test_two_sanity_checks_are_refused_by_any_launcher():
    with pytest.raises(BadInputError, match='default_hooks.sanity_check has a.*take it out of custom_hooks'):
        SanityCheckHook().before_run(SimpleNamespace(hooks=[SanityCheckHook(), SanityCheckHook()]))
