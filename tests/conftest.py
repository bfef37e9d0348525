import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmpretrain.registry import MODELS

import vik_mm

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / 'shared' / 'golden'


@pytest.fixture(scope='session')
def root():
    return ROOT


@pytest.fixture(scope='session')
def golden():
    """The reference release's outputs, and the rule that its weights were filled by; from ../shared where it is."""
    folder = SHARED if SHARED.is_dir() else ROOT / 'tests' / 'data'
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

    def run(script, *args, check=True, env=None, cwd=tmp_path, timeout=300):
        path = ROOT / 'tools' / script
        command = [str(path)] if script.endswith('.sh') else [sys.executable, str(path)]
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


@pytest.fixture
def shapes_config(tmp_path, shapes_folder):
    """The demo's config on a handful of scenes: one epoch of four iterations."""
    path = tmp_path / 'vik_shapes.py'
    data = f"dataset=dict(data_root='{shapes_folder}/imagenet')"
    path.write_text(
        f"""_base_ = '{ROOT}/configs/vik/vik-demo_shapes.py'
train_dataloader = dict(batch_size=4, num_workers=0, {data})
val_dataloader = dict(batch_size=8, num_workers=0, {data})
test_dataloader = dict(batch_size=8, num_workers=0, {data})
train_cfg = dict(max_epochs=1)
param_scheduler = [dict(type='CosineAnnealingLR', eta_min=1e-5, by_epoch=True)]
default_hooks = dict(logger=dict(interval=1))
randomness = dict(seed=0)
"""
    )
    return path


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker('gpu'):
                item.add_marker(pytest.mark.skip(reason='needs a CUDA device'))
