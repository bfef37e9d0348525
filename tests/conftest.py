import importlib.util
import json
import os
import re
import socket
import sys
from collections import Counter
from pathlib import Path

if 'PYTEST_XDIST_WORKER' in os.environ:
    os.environ['OMP_NUM_THREADS'] = '1'  # read when torch is imported; the workers share the cores

import numpy as np
import pytest
import torch

if not torch.cuda.is_available():
    os.environ['TRITON_INTERPRET'] = '1'  # read when Triton is imported, which the mm packages do

from mmengine.registry import DefaultScope
from mmengine.utils import ManagerMixin
from mmpretrain.registry import MODELS

import vik_mm

pytest.register_assert_rewrite('golden_parts', 'mixer_contract')
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def no_scope_is_left():
    """MMEngine's default scope would be the next test's too."""
    yield
    DefaultScope._instance_dict.clear()


@pytest.fixture(scope='session')
def root():
    return ROOT


@pytest.fixture(scope='session')
def golden():
    """The release's outputs, and the rule that its weights were filled by."""
    folder = ROOT / 'tests' / 'data'
    spec = importlib.util.spec_from_file_location('fill', folder / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)

    class Golden:
        image = staticmethod(fill.image)

        @staticmethod
        def weights(name):
            keys = json.loads((folder / f'{name}_keys.json').read_text())
            return fill.fill({key: torch.empty(shape) for key, shape in keys.items()})

        @staticmethod
        def outputs(name):
            return np.load(folder / f'{name}.npz')

    return Golden


@pytest.fixture
def small_arch():
    """Four stages, each with a width of its own, cheap enough for every test."""
    return dict(depths=(1, 2, 1, 1), embed_dims=(8, 12, 16, 24))


@pytest.fixture
def make_vik(small_arch):
    """Build a small ViK from a fixed seed; layer scale is 1, so that every block matters."""

    def make(seed=0, **options):
        torch.manual_seed(seed)
        return vik_mm.ViK(**{'arch': small_arch, 'layer_scale_init_value': 1.0, **options})

    return make


@pytest.fixture
def make_classifier():
    def make(num_classes=1000, **backbone):
        backbone = {'type': 'ViK', **backbone}
        width = MODELS.build(dict(backbone)).embed_dims[-1]
        return MODELS.build(
            dict(
                type='ImageClassifier',
                backbone=backbone,
                neck=dict(type='GlobalAveragePooling'),
                head=dict(type='LinearClsHead', num_classes=num_classes, in_channels=width),
            )
        )

    return make


@pytest.fixture
def run_tool(tmp_path):
    """Run a tool as a user does: in a process of its own, from another folder."""
    import os
    import subprocess

    def run(script, *args, check=True, env=None, cwd=tmp_path, timeout=300, prefix=()):
        path = ROOT / 'tools' / script
        command = [*prefix, *([] if script.endswith('.sh') else [sys.executable]), str(path)]
        env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', **(env or {})}
        result = subprocess.run(
            [*command, *map(str, args)], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
        )
        result.text = result.stdout + result.stderr
        if check:
            assert result.returncode == 0, result.text[-4000:]
        return result

    return run


@pytest.fixture(scope='session')
def shapes_folder(tmp_path_factory):
    from vik_mm.datasets.shapes import write_shapes

    return write_shapes(tmp_path_factory.mktemp('data') / 'shapes', dict(train=16, val=8, test=8))


_LEAF = {
    'classification': ('vik/vik-demo_shapes.py', 'imagenet', ''),
    'detection': ('detection/mask-rcnn_vik-demo_fpn_shapes.py', 'coco/', ''),
    'segmentation': (
        'segmentation/fpn_vik-demo_shapes.py',
        'ade20k',
        """param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=False)]
train_cfg = dict(max_iters=4, val_interval=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
""",
    ),
}
_EPOCHS = """param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True)]
train_cfg = dict(max_epochs=1, val_interval=1)
default_hooks = dict(logger=dict(interval=1))
"""


@pytest.fixture
def make_config(tmp_path, shapes_folder):
    """The demo's config of a task on a handful of scenes: four iterations in one process; more lines may follow."""

    def make(task, more=''):
        leaf, layout, schedule = _LEAF[task]
        path = tmp_path / f'{task}.py'
        data = f"dataset=dict(data_root='{shapes_folder}/{layout}')"
        loaders = '\n'.join(
            f'{split}_dataloader = dict(batch_size={size}, num_workers=0, {data})'
            for split, size in (('train', 4), ('val', 8), ('test', 8))
        )
        if task == 'detection':
            loaders += ''.join(
                f"\n{split}_evaluator = dict(ann_file='{shapes_folder}/coco/annotations/instances_{split}2017.json')"
                for split in ('val', 'test')
            )
        base = f"_base_ = '{ROOT}/configs/{leaf}'\n"
        path.write_text(base + loaders + '\n' + (schedule or _EPOCHS) + 'randomness = dict(seed=0)\n' + more)
        return path

    return make


@pytest.fixture
def shapes_config(make_config):
    return make_config('classification')


def with_subclasses(kind):
    yield kind
    for below in kind.__subclasses__():
        yield from with_subclasses(below)


@pytest.fixture(scope='session')
def load_tool():
    """Load a tool as a module."""

    def load(script):
        spec = importlib.util.spec_from_file_location(f'tool_{Path(script).stem}', ROOT / 'tools' / script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def call_tool(monkeypatch, tmp_path, capsys, load_tool):
    """Run a tool's main() in this process, from another folder; return its exit value and what it wrote."""

    def call(script, *args):
        module = load_tool(script)
        monkeypatch.setattr(sys, 'argv', [script, *map(str, args)])
        monkeypatch.chdir(tmp_path)
        # Loggers keep the output stream that they were made with; the rest is kept by a name that holds the second, and
        # two runs of one second would share a folder and a default scope.
        for kept in with_subclasses(ManagerMixin):
            kept._instance_dict.clear()
        capsys.readouterr()
        try:
            code = module.main()
        except SystemExit as error:
            code = error.code
        written = capsys.readouterr()
        return code, written.out + written.err

    return call


@pytest.fixture(scope='session')
def depth_of_inheritance():
    """How many levels of inheritance a config has: 0 without a base, 1 with bases that have none, and so on."""

    def depth(path):
        bases = re.search(r'_base_ = (\[.*?\]|\S+)', path.read_text(), re.DOTALL)
        found = re.findall(r"'([^']+\.py)'", bases[1]) if bases else []
        return max((1 + depth(path.parent / base) for base in found), default=0)

    return depth


@pytest.fixture
def free_port():
    """A port of this machine that nothing listens on."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        return str(free.getsockname()[1])


def pytest_terminal_summary(terminalreporter):
    """Say how many tests were skipped for each reason."""
    reasons = Counter(
        report.longrepr[2].removeprefix('Skipped: ') for report in terminalreporter.stats.get('skipped', [])
    )
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f'{count} skipped: {reason}')


def pytest_collection_modifyitems(items):
    needs = {
        'gpu': (torch.cuda.is_available(), 'needs a CUDA device'),
        'triton': (vik_mm.ops.backends.HAS_TRITON, 'needs Triton from 3.2 on'),
    }
    for item in items:
        for mark, (is_there, reason) in needs.items():
            if item.get_closest_marker(mark) and not is_there:
                item.add_marker(pytest.mark.skip(reason=reason))
