"""A config of this repository trains the same, whoever launches it."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vik_mm.checkpoints import read_checkpoint

# Order, flips, stochastic depth and, in detection, the sampling of boxes are random.
RANDOM = """
model = dict(backbone=dict(drop_path_rate=0.3))
train_dataloader.update(persistent_workers=False)
val_dataloader = val_cfg = val_evaluator = None
"""
# What people write in configs of the mm packages: 16 images make 3 batches.
DROPPED = 'train_dataloader.update(batch_size=5, drop_last=True)\n'
CASES = {
    'classification': ('mmpretrain', DROPPED, ['--no-persistent-workers']),
    'detection': ('mmdet', '', []),
    'segmentation': ('mmseg', '', []),
}


def launcher(package):
    """Find the tool that a package ships for training."""
    spec = importlib.util.find_spec(package)
    path = spec and Path(spec.origin).parent / '.mim/tools/train.py'
    if not path or not path.is_file():
        pytest.skip(f'{package} is not installed, or came without its tools')
    return path


@pytest.mark.parametrize('task', list(CASES))
def test_the_packages_own_tools_train_to_bitwise_the_same_weights(task, make_config, call_tool, tmp_path):
    package, more, arguments = CASES[task]
    config, script = make_config(task, RANDOM + more), launcher(package)
    # A process of its own imports the packages in another order, and has none of the tool's services.
    environment = {**os.environ, 'OMP_NUM_THREADS': str(torch.get_num_threads())}
    theirs = subprocess.run(
        [sys.executable, script, config, '--work-dir', tmp_path / 'theirs', *arguments],
        **dict(env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300),
    )
    assert theirs.returncode == 0, theirs.stderr[-3000:]
    code, text = call_tool('train.py', config, '--work-dir', tmp_path / 'ours')
    assert not code, text[-3000:]
    assert 'the config lacks' not in text
    (path,) = (tmp_path / 'ours').glob('*_[134].pth')
    ours, theirs = (read_checkpoint(tmp_path / name / path.name) for name in ('ours', 'theirs'))
    assert ours['meta']['iter'] == theirs['meta']['iter'] == (3 if more else 4)
    assert ours['meta']['data'] == {**theirs['meta']['data'], 'run': ours['meta']['data']['run']}
    for name, value in ours['state_dict'].items():
        assert torch.equal(value, theirs['state_dict'][name]), name
    assert ours['param_schedulers'] == theirs['param_schedulers']
