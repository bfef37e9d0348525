import json
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope

from vik_mm.config.machine import without_sync_bn


@pytest.fixture(autouse=True)
def scope():
    """Tools set the default scope of the whole process."""
    yield
    init_default_scope('mmpretrain')


# What an untrained detector proposes is the same junk a thousand times.
_FEW_OBJECTS = 'model = dict(test_cfg=dict(rpn=dict(nms_pre=40, max_per_img=40), rcnn=dict(max_per_img=12)))\n'


@pytest.fixture
def make_config(make_config):
    """As everywhere, with a detector that gives few objects."""

    def make(task, more=''):
        return make_config(task, (_FEW_OBJECTS if task == 'detection' else '') + more)

    return make


@pytest.fixture
def checkpoint(tmp_path):
    """Untrained weights of a config's model."""

    def make(config):
        cfg = Config.fromfile(config)
        init_default_scope(cfg.default_scope)
        torch.manual_seed(0)
        model = without_sync_bn(cfg.model)
        if 'data_preprocessor' in cfg:
            model.data_preprocessor = cfg.data_preprocessor
        path = tmp_path / 'model.pth'
        torch.save(dict(state_dict=MODELS.build(model).state_dict()), path)
        return path

    return make


@pytest.fixture
def infer(tmp_path, make_config, checkpoint, call_tool):
    """Run tools/infer.py with the demo's model; return its exit value, what it wrote and the records by file name."""
    made = {}

    def run(*arguments, task='classification', out=tmp_path / 'out'):
        if task not in made:
            made[task] = config = make_config(task)
            checkpoint(config)
        code, text = call_tool('infer.py', made[task], tmp_path / 'model.pth', *arguments, '--out', out)
        file = Path(out, 'results.json')
        records = json.loads(file.read_text()) if file.is_file() else []
        return code, text, {record['image'].rsplit('/', 1)[-1]: record for record in records}

    return run


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / 'images'
    folder.mkdir()
    return folder
