"""Schedules fit the length of the run, or the log says that they do not."""

import re

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import PARAM_SCHEDULERS

from vik_mm.checkpoints import read_checkpoint
from vik_mm.engine.runner.schedules import RunLength, fit
from vik_mm.errors import BadInputError

LINEAR = dict(type='LinearLR', start_factor=0.01, by_epoch=False, end=50)
EPOCH = dict(type='LinearLR', start_factor=0.01, by_epoch=True, end=1)
COSINE = dict(type='CosineAnnealingLR')


def rates(schedulers, run):
    """Build schedulers as the Runner does, and return the learning rate of each iteration; its full value is 1."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    built = []
    for scheduler in schedulers:
        epochs = run.iterations // run.epoch_length if run.is_by_epoch else 1
        end = epochs if scheduler.get('by_epoch', True) else run.iterations
        default = dict(optimizer=optimizer, epoch_length=run.epoch_length)
        built.append(PARAM_SCHEDULERS.build({'end': end, **scheduler}, default_args=default))
    found = []
    for iteration in range(1, run.iterations + 1):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        for each in built:
            if not each.by_epoch or (run.is_by_epoch and iteration % run.epoch_length == 0):
                each.step()
    return found


SCHEDULES = {
    'small_bs128_adamw': [RunLength(14, 14), RunLength(4, 4), RunLength(1, 1), RunLength(12, 1)],
    'small_epochs_adamw': [RunLength(4, 4)],
    'imagenet_bs1024_adamw_vik': [RunLength(14, 14), RunLength(28, 14), RunLength(2, 1)],
    'bs1024_100e_adamw_karat': [RunLength(14, 14)],
    'coco_1x_adamw': [RunLength(14, 14), RunLength(1, 1)],
    'coco_3x_adamw': [RunLength(14, 14)],
    'small_iters_adamw': [RunLength(steps, 5, is_by_epoch=False) for steps in (1, 2, 4, 14, 60)],
    'ade20k_40k_adamw': [RunLength(4, 5, is_by_epoch=False)],
    'ade20k_160k_adamw': [RunLength(4, 5, is_by_epoch=False)],
}


@pytest.mark.parametrize(
    ('name', 'run'),
    [
        pytest.param(name, run, id=f'{name}-{run.iterations}-of-{run.epoch_length}')
        for name, runs in SCHEDULES.items()
        for run in runs
    ],
)
def test_the_repositorys_schedules_reach_the_whole_rate_in_the_first_half_of_a_short_run(root, name, run):
    schedulers = Config.fromfile(root / f'configs/_base_/schedules/{name}.py').param_scheduler
    fitted, _ = fit(schedulers, run)
    found = rates(fitted, run)
    assert max(found[: (run.iterations + 1) // 2]) > 0.4  # a cosine over few iterations begins to fall at once
    assert len(fitted) == len(schedulers)  # a checkpoint knows them by their order
    assert fit(schedulers, run)[0] == fitted


def test_a_warm_up_keeps_its_share_of_the_schedule_and_what_follows_it_stays_behind_it():
    decay = dict(type='PolyLR', by_epoch=False, begin=1000, end=20000)
    fitted, messages = fit([{**LINEAR, 'end': 1000}, decay], RunLength(200, 50))
    assert [(each['begin'], each['end']) for each in fitted] == [(0, 10), (10, 20000)]
    assert messages[0] == 'param_scheduler.0 (LinearLR): warm-up shortened from 1000 to 10 iterations: the run has 200'


@pytest.mark.parametrize(
    ('schedulers', 'run'),
    [
        ([LINEAR, {**COSINE, 'by_epoch': False, 'begin': 50}], RunLength(100, 10, is_by_epoch=False)),
        ([{**EPOCH, 'convert_to_iter_based': True}, {**COSINE, 'begin': 1}], RunLength(20, 10)),
        ([{**COSINE, 'begin': 50, 'end': 100, 'T_max': 50}], RunLength(1000, 10)),
        ([dict(type='MultiStepLR', milestones=[30, 60, 90])], RunLength(900, 10)),
        (dict(type='ExponentialLR', gamma=0.9), RunLength(900, 10)),
        ([dict(type='CosineAnnealingMomentum', end=10)], RunLength(900, 10)),
        ([LINEAR], RunLength(9000, 10)),
    ],
)
def test_schedules_that_fit_do_not_change(schedulers, run):
    assert fit(schedulers, run) == (schedulers if isinstance(schedulers, list) else [schedulers], [])


@pytest.mark.parametrize(
    ('scheduler', 'run', 'says'),
    [
        (
            {**COSINE, 'T_max': 300},
            RunLength(20, 10),
            r'on to epoch 300 and the run .* set param_scheduler\.0\.T_max=2',
        ),
        ({**COSINE, 'begin': 1, 'end': 9}, RunLength(20, 10), r'goes on to epoch 9 .* set param_scheduler\.0\.end=2'),
        (dict(type='MultiStepLR', milestones=[8, 11]), RunLength(20, 10), 'goes on to epoch 11'),
        ({**COSINE, 'begin': 5, 'end': 9}, RunLength(20, 10), 'begins at epoch 5 .* epoch 2: it changes nothing'),
        (
            {**COSINE, 'end': 12},
            RunLength(360, 10),
            'ends at epoch 12 and the run at epoch 36: the learning',
        ),
        (COSINE, RunLength(20, 10, is_by_epoch=False), 'counts epochs and the run counts iterations.*by_epoch=False'),
    ],
    ids=['T_max', 'end', 'milestones', 'begin', 'early end', 'by_epoch'],
)
def test_a_schedule_that_does_not_fit_is_named_with_what_to_set(scheduler, run, says):
    fitted, (message,) = fit([scheduler], run)
    assert fitted == [scheduler]
    assert re.search(says, message)


@pytest.mark.parametrize(
    ('scheduler', 'run', 'says'),
    [
        (
            {**COSINE, 'begin': 5},
            RunLength(50, 10),
            r'begins at epoch 5, and the run ends at epoch 5.*set param',
        ),
        ({**COSINE, 'begin': 5}, RunLength(50, 10, is_by_epoch=False), 'the run ends at epoch 1'),
        ({**COSINE, 'begin': 5, 'end': 4}, RunLength(50, 10), 'begins at 5 and ends at 4'),
        ({**COSINE, 'begin': 'x'}, RunLength(50, 10), "begin='x' must be a number"),
    ],
    ids=['after the end', 'by iteration', 'backwards', 'no number'],
)
def test_a_schedule_that_cannot_be_is_refused(scheduler, run, says):
    with pytest.raises(BadInputError, match=says):
        fit([scheduler], run)


@pytest.mark.parametrize('kind', ['LinearLR', 'ConstantLR'])
def test_a_warm_up_of_one_step_does_not_hold_the_rate_down_for_good(kind):
    run = RunLength(20, 5)
    scheduler = dict(type=kind, by_epoch=True, end=1)
    assert max(rates([scheduler], run)) < 0.4  # MMEngine's
    fitted, (message,) = fit([scheduler], run)
    assert rates(fitted, run)[5] == pytest.approx(1)
    assert 'one step' in message


@pytest.mark.parametrize(
    ('task', 'schedule', 'option', 'begins'),
    [
        ('classification', 'small_bs128_adamw', 'train_cfg.max_epochs=1', 2),
        ('segmentation', 'small_iters_adamw', 'train_cfg.max_iters=4', 2),
    ],
)
def test_a_run_as_short_as_its_warm_up_trains(task, schedule, option, begins, root, make_config, tmp_path, call_tool):
    schedulers = Config.fromfile(root / f'configs/_base_/schedules/{schedule}.py').param_scheduler
    config = make_config(task, f'param_scheduler = {[dict(each) for each in schedulers]}\n')
    options = ('--work-dir', tmp_path, '--no-validate', '--cfg-options', option)
    code, text = call_tool('train.py', config, *options)
    assert code is None, text[-3000:]
    assert 'param_scheduler.0 (LinearLR): warm-up shortened from' in text
    (checkpoint,) = tmp_path.glob('*_[14].pth')
    warm_up, cosine = read_checkpoint(checkpoint)['param_schedulers']
    assert (warm_up['end'], cosine['begin'], cosine['end']) == (begins, begins, 4)


def test_a_schedule_that_cannot_be_ends_the_tool_with_a_message(make_config, tmp_path, call_tool):
    config = make_config('classification', "param_scheduler = [dict(type='CosineAnnealingLR', begin=3)]\n")
    code, text = call_tool('train.py', config, '--work-dir', tmp_path, '--no-validate')
    assert str(code).startswith('error: param_scheduler.0 (CosineAnnealingLR) begins at epoch 3'), text[-2000:]


def test_a_data_set_too_small_for_one_batch_is_named(call_tool, make_config):
    config = make_config('classification', 'train_dataloader.update(batch_size=100, drop_last=True)\n')
    code, _ = call_tool('train.py', config)
    assert code == (
        'error: 16 samples make no batch: lower train_dataloader.batch_size, or set train_dataloader.drop_last=False'
    )
