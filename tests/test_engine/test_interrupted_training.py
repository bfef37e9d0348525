"""Runs that are killed, starved and misled, each in processes of its own."""

import collections
import json
import math
import os
import random
import signal

import cv2
import numpy as np
import pytest
import torch
from processes import Training

from vik_mm.checkpoints import read_checkpoint

# What is random: order, crops, flips, mixup, stochastic depth.
RANDOM = """
custom_imports = dict(imports=['vik_mm', 'faults'], allow_failed_imports=False)
env_cfg = dict(mp_cfg=dict(mp_start_method='fork'))
"""
CLASSIFICATION = (
    RANDOM
    + """
model = dict(backbone=dict(drop_path_rate=0.3), train_cfg=dict(augments=[dict(type='Mixup', alpha=0.8)]))
train_dataloader.update(num_workers={workers}, persistent_workers={persistent})
train_dataloader['dataset']['pipeline'] = [
    dict(type='LoadImageFromFile'), dict(type='RandomResizedCrop', scale=64),
    dict(type='RandomFlip', prob=0.5), dict(type='PackInputs')]
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True, convert_to_iter_based=True)]
train_cfg = dict(max_epochs=3, val_interval=1)
default_hooks = dict(
    logger=dict(interval=1), checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto'))
optim_wrapper = dict(accumulative_counts={accumulate})
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1), {fault}]
"""
)
SEGMENTATION = (
    RANDOM
    + """
train_dataloader.update(num_workers={workers}, persistent_workers={persistent})
train_cfg = dict(max_iters=10, val_interval=3)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=3, max_keep_ckpts=1))
optim_wrapper = dict(accumulative_counts={accumulate})
custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.1), {fault}]
"""
)


def options(fault='', workers=0, accumulate=1):
    return dict(fault=fault, workers=workers, persistent=workers > 0, accumulate=accumulate)


@pytest.fixture
def train(make_config, tmp_path):
    """Start a training; without ``fault`` it goes on from where its work dir is. ``more`` ends the config."""

    def start(task, work, fault='', processes=1, more='', **given):
        lines = SEGMENTATION if task == 'segmentation' else CLASSIFICATION
        config = make_config(task, lines.format(**options(fault, **given)) + more)
        arguments = [config, '--work-dir', tmp_path / work, '--resume']
        return Training(tmp_path, arguments, processes)

    return start


def checkpoint(work):
    return read_checkpoint((work / 'last_checkpoint').read_text())


def log(work):
    """Logged values by step, those of time left out; where a step was logged twice, both must agree."""
    values = {}
    for path in sorted(work.glob('*/vis_data/scalars.json')):
        for line in map(json.loads, path.read_text().splitlines()):
            step = (line.pop('step'), 'loss' in line)
            line = {key: value for key, value in line.items() if 'time' not in key and key not in ('eta', 'memory')}
            assert values.setdefault(step, line) == line
    return values


def assert_same(first, second):
    """Compare work dirs: everything that a checkpoint holds of the training, bit by bit, and what was logged."""
    left, right = checkpoint(first), checkpoint(second)
    parts = ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers')
    assert set(parts) < left.keys() == right.keys()
    for part in parts:
        assert_same_value(left[part], right[part], part)
    assert {left['meta'][key] == right['meta'][key] for key in ('epoch', 'iter', 'seed')} == {True}
    ours, theirs = (each['message_hub']['log_scalars'] for each in (left, right))
    assert ours.keys() == theirs.keys()
    for name, history in ours.items():
        if 'time' not in name:
            np.testing.assert_array_equal(history.data[0], theirs[name].data[0], err_msg=name)
    assert log(first) == log(second) != {}


def assert_same_value(left, right, where):
    if isinstance(left, dict):
        assert left.keys() == right.keys(), where
        for key in left:
            assert_same_value(left[key], right[key], f'{where}.{key}')
    elif isinstance(left, list):
        assert len(left) == len(right), where
        for i, pair in enumerate(zip(left, right)):
            assert_same_value(*pair, f'{where}[{i}]')
    elif isinstance(left, torch.Tensor):
        assert torch.equal(left, right), where
    else:
        assert left == right, where


def fault(at, moment='iteration', **more):
    return repr(dict(type='FaultHook', at=at, moment=moment, **more))


_WHOLE = {}  # work dirs of runs that others are compared with


@pytest.fixture
def whole(train, tmp_path_factory):
    """Train without interruption; the work dir. How many workers load the data makes no difference."""

    def run(task, workers=0, **more):
        key = (task, *sorted(more.items()))
        if key not in _WHOLE:
            work = tmp_path_factory.mktemp('whole')
            training = train(task, work, **more)
            assert set(training.wait()) == {0}, training.text[-3000:]
            _WHOLE[key] = work
        return _WHOLE[key]

    return run


@pytest.mark.parametrize('task', ['classification', 'segmentation'])
def test_a_run_killed_three_times_ends_bitwise_as_one_that_never_was(train, whole, tmp_path, task):
    # 4 iterations make an epoch of classification; segmentation saves and validates after each third.
    steps = dict(classification=(6, 8, 12), segmentation=(5, 6, 9))[task]
    assert train(task, 'killed', fault(steps[0])).wait() == [-signal.SIGKILL]
    # The number of workers is no part of what is trained.
    assert train(task, 'killed', fault(steps[1], 'validation'), workers=2).wait() == [-signal.SIGKILL]
    before = (tmp_path / 'killed' / 'last_checkpoint').read_text()
    writing = train(task, 'killed', fault(steps[2], 'writing'))
    assert writing.wait() == [-signal.SIGKILL]
    assert list((tmp_path / 'killed').glob('.*.unfinished'))
    assert (tmp_path / 'killed' / 'last_checkpoint').read_text() == before
    read_checkpoint(before)
    last = train(task, 'killed')
    assert last.wait() == [0]
    assert f'resuming from {before}' in last.text
    assert not list((tmp_path / 'killed').glob('.*'))
    assert_same(whole(task), tmp_path / 'killed')


def test_two_processes_killed_end_bitwise_as_if_they_never_were(train, whole, tmp_path):
    # 2 iterations make an epoch. The other process sees its partner go and ends too.
    codes = train('classification', 'killed', fault(3, rank=1), processes=2).wait()
    assert codes[1] == -signal.SIGKILL and codes[0] not in (0, None)
    assert train('classification', 'killed', processes=2).wait() == [0, 0]
    assert_same(whole('classification', processes=2), tmp_path / 'killed')


@pytest.mark.parametrize(
    'task,step,moment,more',
    [
        ('classification', 6, 'iteration', dict(workers=2)),
        ('classification', 6, 'iteration', dict(workers=2, signal_name='SIGINT')),
        ('classification', 3, 'iteration', dict(processes=2, signal_name='SIGINT')),
        ('classification', 4, 'validation', {}),
        ('classification', 5, 'iteration', dict(accumulate=2)),
        ('classification', 3, 'iteration', dict(processes=2)),
        ('classification', 2, 'validation', dict(processes=2)),
        ('segmentation', 4, 'iteration', dict(workers=1)),
    ],
    ids=[
        'middle of an epoch',
        'Ctrl-C, which all of the group get',
        'Ctrl-C in one of two processes',
        'validation',
        'half a step',
        'one of two processes',
        'one of two in validation',
        'by iteration',
    ],
)
def test_sigterm_and_ctrl_c_save_and_nothing_is_lost(train, whole, tmp_path, task, step, moment, more):
    name, processes = more.pop('signal_name', 'SIGTERM'), more.get('processes', 1)
    order = fault(step, moment, signal_name=name, group=processes == 1, rank=processes - 1)
    stopped = train(task, 'stopped', order, **more)
    assert stopped.wait(60) == [0 if name == 'SIGTERM' else 130] * processes
    assert 'carry on with --resume' in stopped.text
    # A step of two batches is finished.
    expected = step + 1 if more.get('accumulate') else step
    assert checkpoint(tmp_path / 'stopped')['meta']['iter'] == expected
    last = train(task, 'stopped', **more)
    assert last.wait() == [0] * processes
    assert 'interrupted.pth' in last.text and not (tmp_path / 'stopped' / 'interrupted.pth').exists()
    assert_same(whole(task, **more), tmp_path / 'stopped')


SEEN = """
train_cfg = dict(max_epochs={epochs}, val_interval=100)
train_dataloader.update(batch_size={batch_size})
default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=1, by_epoch=False, max_keep_ckpts=2))
custom_hooks = [dict(type='SeenHook', die_after={die_after}, moment={moment!r})]
"""
KILLS = int(os.environ.get('VIK_MM_KILLS', 2))  # 20 take ten minutes
EPOCHS = KILLS + 2


def test_every_sample_is_seen_once_an_epoch_whatever_changes_after_random_kills(train, tmp_path):
    rng = random.Random(0)
    for k in range(KILLS + 1):
        settings = dict(batch_size=rng.choice([1, 2, 4]), workers=rng.choice([0, 1]), processes=rng.choice([1, 2]))
        workers, processes = settings.pop('workers'), settings.pop('processes')
        death = dict(die_after=rng.randint(2, 4), moment=rng.choice(['iteration', 'writing']))
        if k == KILLS:
            death['die_after'] = None
        lines = SEEN.format(**settings, **death, epochs=EPOCHS)
        run = train('classification', 'run', processes=processes, more=lines, workers=workers)
        codes = run.wait(300)
        if 'cannot have shared equally' in run.text:
            assert codes == [1, 1]
            codes = train('classification', 'run', more=lines, workers=workers).wait(300)
        assert set(codes) <= {0} if k == KILLS else -signal.SIGKILL in codes, (k, codes, run.text[-3000:])
    seen = collections.Counter(map(tuple, checkpoint(tmp_path / 'run')['meta']['seen_images']))
    assert len(seen) == 16 * EPOCHS and set(seen.values()) == {1}


def trained_images(path):
    return collections.Counter(map(tuple, read_checkpoint(path)['meta']['seen_images']))


@pytest.mark.parametrize('batch_size', [2, 8], ids=['half the batch size', 'twice the batch size'])
def test_resuming_with_another_batch_size_trains_on_what_is_left(call_tool, make_config, tmp_path, batch_size):
    def train(size, *arguments, die_after=None):
        lines = f"""
train_dataloader.update(batch_size={size})
train_cfg.update(max_epochs=4)
custom_hooks = [dict(type='SeenHook', die_after={die_after}, signal_name='SIGTERM')]
"""
        config = make_config('classification', CLASSIFICATION.format(**options()) + lines)
        code, text = call_tool('train.py', config, '--work-dir', tmp_path / 'run', *arguments)
        assert not code, text[-2000:]
        return text

    train(4, die_after=6)  # in the middle of the second epoch, after 8 of its 16 images
    text = train(batch_size, '--resume')
    assert '1 process with batch_size=4, 16 samples' in text and 'what was iteration 6 counts as' in text
    seen = trained_images(tmp_path / 'run' / 'epoch_4.pth')
    assert len(seen) == 4 * 16 and set(seen.values()) == {1}
    resumed = read_checkpoint(tmp_path / 'run' / 'epoch_4.pth')
    assert resumed['meta']['iter'] == 4 * 16 // batch_size
    # The schedule counts iterations; it has come to its last step with the training.
    group, steps = resumed['optimizer']['param_groups'][0], 4 * 16 // batch_size
    cosine = (1 + math.cos(math.pi * (steps - 1) / steps)) / 2
    assert group['lr'] == pytest.approx(1e-5 + (group['initial_lr'] - 1e-5) * cosine)


def test_a_checkpoint_that_does_not_say_how_long_its_epochs_were_is_refused(call_tool, make_config, tmp_path):
    config = make_config('classification', 'train_cfg.update(max_epochs=3)\n')
    work = ('--work-dir', tmp_path / 'run')
    code, text = call_tool('train.py', config, *work, '--cfg-options', 'train_cfg.max_epochs=1')
    assert not code, text[-2000:]
    path = tmp_path / 'run' / 'epoch_1.pth'
    checkpoint = read_checkpoint(path)
    del checkpoint['meta']['data']  # as MMEngine's own
    torch.save(checkpoint, path)
    for size in (2, 8):
        code, _ = call_tool(
            'train.py', config, *work, '--resume', '--cfg-options', f'train_dataloader.batch_size={size}'
        )
        assert 'does not say how long its epochs were' in code and 'resume with the batch size' in code
    assert not (tmp_path / 'run' / 'epoch_2.pth').exists()
    code, text = call_tool('train.py', config, *work, '--resume')
    assert not code and (tmp_path / 'run' / 'epoch_3.pth').exists()


def test_ctrl_c_before_training_begins_ends_at_once_without_a_traceback(call_tool, make_config, tmp_path):
    more = "custom_hooks = [dict(type='FaultHook', at=0, moment='start', signal_name='SIGINT')]\n"
    code, text = call_tool('train.py', make_config('classification', RANDOM + more), '--work-dir', tmp_path / 'run')
    assert code == 130 and 'stopped at once, nothing saved' in text and 'Traceback' not in text


def test_the_best_checkpoint_alone_is_kept_where_no_other_is_asked_for(call_tool, make_config, tmp_path):
    more = (
        "default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=-1, save_best='auto', save_last=False))\n"
    )
    code, text = call_tool('train.py', make_config('classification', more), '--work-dir', tmp_path / 'run')
    assert not code, text[-2000:]
    (best,) = (tmp_path / 'run').glob('*.pth')
    assert best.name == 'best_accuracy_top1_epoch_1.pth'
    assert read_checkpoint(best)['meta']['epoch'] == 1


def test_without_a_seed_the_first_runs_seed_goes_on(train, tmp_path):
    stopped = train('classification', 'run', fault(6, signal_name='SIGTERM'), more='randomness = dict(seed=None)\n')
    assert stopped.wait() == [0]
    seed = checkpoint(tmp_path / 'run')['meta']['seed']
    assert train('classification', 'run', more='randomness = dict(seed=None)\n').wait() == [0]
    assert checkpoint(tmp_path / 'run')['meta']['seed'] == seed


def test_a_full_disk_is_named_and_leaves_the_last_checkpoint(train, tmp_path):
    full = train('classification', 'run', repr(dict(type='FullDiskHook', at=7, size=100_000)))
    assert full.wait() == [1]
    assert 'epoch_2.pth could not be written' in full.text
    assert 'epoch_1.pth, is intact: make room, and carry on with --resume' in full.text
    assert sorted(path.name for path in (tmp_path / 'run').glob('epoch*')) == ['epoch_1.pth']
    assert not list((tmp_path / 'run').glob('.*'))
    assert train('classification', 'run').wait() == [0]
    assert checkpoint(tmp_path / 'run')['meta']['epoch'] == 3


def test_a_folder_that_cannot_be_written_to_is_named_before_the_first_iteration(call_tool, make_config):
    config = make_config('classification')
    code, _ = call_tool('train.py', config, '--work-dir', config / 'below a file')
    assert 'the work dir' in code and 'cannot be written to' in code and 'choose another --work-dir' in code
    # Not even root writes here.
    code, text = call_tool('train.py', config, '--work-dir', '/proc/self')
    assert 'choose another --work-dir' in code


def test_a_loss_that_is_no_number_stops_the_run_and_leaves_the_last_good_checkpoint(train, tmp_path):
    run = train('classification', 'run', repr(dict(type='NanHook', at=6)))
    assert run.wait() == [1]
    assert 'the loss is not finite since iteration 6, 5 times in a row (nan); that batch was' in run.text
    assert run.text.count('.png') >= 4
    assert 'no checkpoint at 2: the loss is not finite' in run.text
    saved = checkpoint(tmp_path / 'run')
    assert saved['meta']['epoch'] == 1
    assert all(value.isfinite().all() for value in saved['state_dict'].values())


def damage(path):
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + bytes(100))


@pytest.fixture
def images(tmp_path):
    """Eight classes of 15 images; damage spreads no further than here."""
    folder = tmp_path / 'images'
    for k in range(120):
        path = folder / 'train' / f'class_{k % 8}' / f'{k}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 64, 3), k, np.uint8))
    return folder


def with_images(folder):
    return f"""]
train_cfg = dict(max_epochs=1, val_interval=5)
train_dataloader = dict(_delete_=True, batch_size=8, num_workers=2, persistent_workers=False,
    collate_fn=dict(type='default_collate'), sampler=dict(type='DefaultSampler', shuffle=True),
    dataset=dict(type='CustomDataset', data_root='{folder}', data_prefix='train', pipeline=[
        dict(type='LoadImageFromFile'), dict(type='PackInputs')]))
x = ["""


def test_a_damaged_image_is_named_counted_and_left_out(train, images):
    damage(images / 'train/class_1/9.png')
    run = train('classification', 'run', with_images(images))
    assert run.wait() == [0], run.text[-3000:]
    assert run.text.count('class_1/9.png is damaged; another image takes its place') == 1
    assert '1 of 120 samples were damaged and left out' in run.text


def test_too_many_damaged_images_end_the_run(train, images):
    for k in range(1, 119, 8):
        damage(images / f'train/class_1/{k}.png')
    run = train('classification', 'run', with_images(images))
    assert run.wait() == [1]
    assert 'more than 1 of 120 samples are damaged' in run.text.splitlines()[-1]


def test_a_dead_loader_process_ends_the_run(train):
    run = train('classification', 'run', repr(dict(type='KillWorkerHook', at=3)), workers=1)
    assert run.wait(60) == [1]
    assert 'DataLoader worker' in run.text and 'killed by signal' in run.text
