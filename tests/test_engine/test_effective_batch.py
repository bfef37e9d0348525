"""The same images in one step give the same step, however they are divided."""

import pytest
import torch
from processes import Training

from vik_mm.checkpoints import read_checkpoint

PLAIN = """
train_dataloader.update(batch_size={batch})
train_dataloader['dataset']['pipeline'] = [dict(type='LoadImageFromFile'), dict(type='PackInputs')]
param_scheduler = []
train_cfg = dict(max_epochs=2, val_interval=9)
optim_wrapper = dict(
    optimizer=dict(type='SGD', lr=0.1, weight_decay=0.0, _delete_=True), accumulative_counts={accumulate}
)
"""


@pytest.fixture
def train(make_config, tmp_path):
    def run(name, batch, accumulate=1, processes=1):
        config = make_config('classification', PLAIN.format(batch=batch, accumulate=accumulate))
        arguments = [config, '--work-dir', tmp_path / name, '--auto-scale-lr']
        training = Training(tmp_path, arguments, processes)
        assert set(training.wait()) == {0}, training.text[-3000:]
        content = read_checkpoint(tmp_path / name / 'epoch_2.pth')
        (rate,) = {group['lr'] for group in content['optimizer']['param_groups']}
        return content['state_dict'], rate

    return run


def assert_close(left, right):
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-5, msg=name)


def test_two_processes_and_accumulated_gradients_give_the_steps_of_one_large_batch(train):
    whole, rate = train('whole', batch=8)
    assert rate == pytest.approx(0.1 * 8 / 32)  # base_batch_size of the config
    divided, same_rate = train('divided', batch=4, processes=2)
    assert same_rate == rate
    assert_close(whole, divided)
    accumulated, same_rate = train('accumulated', batch=4, accumulate=2)
    assert same_rate == rate
    assert_close(whole, accumulated)
