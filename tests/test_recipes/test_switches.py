"""Switches that are written into any config, on the command line of tools/train.py and by themselves."""

import json
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config

from vik_mm.errors import BadInputError, UnavailableError
from vik_mm.recipes import conveniences, schedules
from vik_mm.recipes.batch_probe import largest_fitting
from vik_mm.recipes.metrics import main_metric, rule_of
from vik_mm_cli.command_line import _seconds


def small(scope='mmdet', **more):
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(64, 64), keep_ratio=True),
        dict(type='LoadAnnotations', with_bbox=True),
        dict(type='PackDetInputs', meta_keys=('img_id',)),
    ]
    loader = dict(batch_size=4, dataset=dict(type='CocoDataset', metainfo=dict(classes=('a', 'bb')), pipeline=pipeline))
    return Config(
        dict(
            default_scope=scope,
            model=dict(backbone=dict(type='ViK', arch='tiny', out_indices=(1, 2, 3))),
            optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)),
            param_scheduler=[
                dict(type='LinearLR', by_epoch=False, begin=0, end=500),
                dict(type='CosineAnnealingLR', by_epoch=True, begin=2, end=12, eta_min=1e-5),
                dict(type='MultiStepLR', by_epoch=True, milestones=[8, 11]),
            ],
            train_cfg=dict(max_epochs=12, val_interval=6),
            train_dataloader=loader,
            val_dataloader=loader,
            test_dataloader=loader,
            val_evaluator=dict(type='CocoMetric', metric='bbox'),
            **more,
        )
    )


def test_epochs_stretch_schedules():
    cfg = small()
    schedules.set_epochs(cfg, 24)
    warm_up, cosine, steps = cfg.param_scheduler
    assert (warm_up.end, cosine.begin, cosine.end, steps.milestones) == (500, 4, 24, [16, 22])
    assert (cfg.train_cfg.max_epochs, cfg.train_cfg.val_interval) == (24, 6)
    schedules.set_epochs(cfg, 4)
    assert (cosine.begin, cosine.end, cfg.train_cfg.val_interval) == (1, 4, 4)


def test_epochs_of_a_run_by_iteration_have_a_clear_answer():
    cfg = small()
    cfg.train_cfg = dict(max_iters=1000)
    with pytest.raises(BadInputError, match='this config counts iterations .train_cfg.max_iters=1000.*--cfg-options'):
        schedules.set_epochs(cfg, 3)
    with pytest.raises(BadInputError, match='--epochs 0 must be a whole number from 1 up'):
        schedules.set_epochs(cfg, 0)


def test_lr_and_batch():
    cfg = small()
    assert 'scaled with the square root' in schedules.set_batch(cfg, 16)[-1]
    assert (cfg.train_dataloader.batch_size, cfg.optim_wrapper.optimizer.lr) == (16, 2e-3)
    assert cfg.param_scheduler[1].eta_min == 2e-5
    schedules.set_lr(cfg, 1e-3)
    assert (cfg.optim_wrapper.optimizer.lr, cfg.param_scheduler[1].eta_min) == (1e-3, 1e-5)
    if not torch.cuda.is_available():
        assert 'no GPU to probe' in schedules.set_batch(cfg, 'auto')[0] and cfg.train_dataloader.batch_size == 4


@pytest.mark.parametrize('room, found', [(0, 0), (1, 1), (9, 8), (10**6, 256)])
def test_the_probe_finds_the_largest_batch(room, found):
    assert largest_fitting(lambda batch: batch <= room) == found


def test_ema_best_and_early_stop_are_hooks_of_mmengine():
    cfg = small()
    conveniences.add_ema(cfg)
    conveniences.add_early_stop(cfg, 3)
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'ResumableEarlyStoppingHook']
    assert cfg.custom_hooks[1].monitor == cfg.default_hooks.checkpoint.save_best == 'coco/bbox_mAP'
    assert 'stays' in conveniences.add_ema(cfg)[0] and len(cfg.custom_hooks) == 2
    with pytest.raises(BadInputError, match='--early-stop 0'):
        conveniences.add_early_stop(cfg, 0)


@pytest.mark.parametrize(
    'evaluator, metric',
    [
        (dict(type='CocoMetric', metric=['bbox', 'segm']), 'coco/segm_mAP'),
        (dict(type='mmseg.IoUMetric'), 'mIoU'),
        ([dict(type='Accuracy', prefix='dev')], 'dev/top1'),
        (dict(type='VOCMetric'), 'pascal_voc/mAP'),
    ],
)
def test_one_table_names_the_main_figure(evaluator, metric):
    assert main_metric(Config(dict(val_evaluator=evaluator, val_dataloader=dict(batch_size=1)))) == metric


def test_an_unknown_evaluator_is_asked_for_the_name():
    with pytest.raises(BadInputError, match='Own calls its main figure: name it, as in --save-best'):
        main_metric(Config(dict(val_evaluator=dict(type='Own'), val_dataloader=dict(batch_size=1))))
    assert (rule_of('val/loss'), rule_of('coco/bbox_mAP')) == ('less', 'greater')


def test_log_writes_backends_and_names_the_extra(monkeypatch):
    cfg = small()
    monkeypatch.setattr('importlib.util.find_spec', lambda name: object())
    conveniences.add_log(cfg, ['tensorboard', 'wandb'])
    kinds = ['LocalVisBackend', 'TensorboardVisBackend', 'WandbVisBackend']
    assert [each.type for each in cfg.visualizer.vis_backends] == kinds
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UnavailableError, match=r"needs the package mlflow: pip install 'vik_mm\[logging\]'"):
        conveniences.add_log(cfg, ['mlflow'])
    with pytest.raises(BadInputError, match='--log paper is unknown; choose from tensorboard'):
        conveniences.add_log(cfg, ['paper'])


def test_freeze_uses_what_the_backbone_has():
    cfg = small()
    conveniences.set_freeze(cfg)
    assert cfg.model.backbone.frozen_stages == 4
    with pytest.raises(BadInputError, match='--freeze 9: the backbone has 4 stages'):
        conveniences.set_freeze(cfg, 9)
    cfg.model.backbone = dict(type='TIMMBackbone', model_name='resnet18')
    conveniences.set_freeze(cfg)
    assert cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == 0


def test_val_loss_scales_the_truth_with_the_image():
    cfg = small()
    conveniences.add_val_loss(cfg)
    pipeline = cfg.custom_hooks[0].dataloader.dataset.pipeline
    assert [step.type for step in pipeline[:3]] == ['LoadImageFromFile', 'LoadAnnotations', 'Resize']
    assert cfg.val_dataloader.dataset.pipeline[1].type == 'Resize'


def test_tta_mirrors_unless_classes_have_sides():
    cfg = small()
    conveniences.add_tta(cfg)
    assert 'RandomFlip' in str(cfg.tta_pipeline) and 'flip_direction' in str(cfg.tta_pipeline)
    cfg = small()
    cfg.test_dataloader.dataset.metainfo.classes = ('left_door', 'x')
    conveniences.add_tta(cfg)
    assert 'RandomFlip' not in str(cfg.tta_pipeline) and '80, 80' in str(cfg.tta_pipeline)
    cfg.train_dataloader.dataset.pipeline[2].with_mask = True
    with pytest.raises(BadInputError, match='cannot merge masks'):
        conveniences.add_tta(cfg)


@pytest.mark.parametrize('text, seconds', [('90s', 90), ('30m', 1800), ('2h', 7200), ('1h30m', 5400), ('0.5h', 1800)])
def test_times(text, seconds):
    assert _seconds(text) == seconds


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_a_run_with_all_switches_goes_to_its_end_and_its_best_checkpoint_tests(task, make_config, tmp_path, call_tool):
    lr = 'default_hooks = dict(visualization=dict(draw=False))\n' if task == 'none' else ''
    switches = [
        '--val-loss',
        '--save-best',
        '--early-stop',
        '3',
        '--ema',
        '--freeze',
        '1',
        '--batch',
        '8',
        '--lr',
        '0.002',
    ]
    epochs = [] if task == 'segmentation' else ['--epochs', '2']
    path = make_config(task, lr)
    code, text = call_tool('train.py', path, '--work-dir', 'run', *switches, *epochs)
    assert not code, text[-3000:]
    assert 'WEIGHTS: RANDOM' in text and 'written into the config: custom_hooks += EMAHook' in text
    (scalars,) = (tmp_path / 'run').glob('*/vis_data/scalars.json')
    lines = [json.loads(line) for line in scalars.read_text().splitlines()]
    assert any('loss' in line and 'lr' not in line for line in lines) or 'val/loss' in text or ' loss: ' in text
    found = [*(tmp_path / 'run').glob('best_*.pth')]
    # A detector of so few steps may find nothing, and then has no figures.
    best = found[0] if found or task != 'detection' else tmp_path / 'run/epoch_2.pth'
    assert found or 'no best checkpoint after this validation' in text
    tta = [] if task == 'detection' else ['--tta']
    code, text = call_tool('test.py', path, best, '--work-dir', 'test', *tta)
    assert not code, text[-3000:]


def test_time_limit_saves_and_evaluates_and_the_run_can_be_resumed(make_config, tmp_path, call_tool):
    path = make_config('classification', 'train_cfg = dict(max_epochs=3, val_interval=1)\n')
    code, text = call_tool('train.py', path, '--work-dir', 'run', '--time', '0.001s')
    assert not code, text[-3000:]
    assert 'training ends after iteration 1 of 12, saved as' in text and 'accuracy/top1' in text
    code, text = call_tool('train.py', path, '--work-dir', 'run', '--resume')
    assert not code and 'resuming from' in text and (tmp_path / 'run/epoch_3.pth').is_file()


def test_early_stopping_goes_on_counting_after_resuming():
    from vik_mm.engine.hooks import ResumableEarlyStoppingHook

    one, two = (ResumableEarlyStoppingHook('mIoU', patience=3, min_delta=0.0) for _ in range(2))
    runner = SimpleNamespace(
        train_loop=SimpleNamespace(stop_training=False), logger=SimpleNamespace(info=print), _resume=True
    )
    for score in (5.0, 4.0, 4.0):
        one.after_val_epoch(runner, dict(mIoU=score))
    checkpoint = dict(meta={})
    one.before_save_checkpoint(runner, checkpoint)
    two.after_load_checkpoint(runner, checkpoint)
    assert not runner.train_loop.stop_training
    two.after_val_epoch(runner, dict(mIoU=4.5))
    assert runner.train_loop.stop_training
