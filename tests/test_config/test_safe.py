"""``--safe-config``: what a stranger's config says does not run."""

import json
import os

import pytest
from mmengine.config import Config
from mmengine.registry import HOOKS

from vik_mm.config import end_safe_config, read_safe_config
from vik_mm.errors import BadInputError


@pytest.fixture(autouse=True)
def trust_what_follows():
    yield
    end_safe_config()


@pytest.fixture
def write(tmp_path):
    def write(content, name='config.json'):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_a_config_dumped_as_json_trains_like_its_python(call_tool, make_config, tmp_path, task):
    Config.fromfile(make_config(task)).dump(tmp_path / 'dumped.json')
    options = ('--safe-config', '--no-validate', '--work-dir', tmp_path / 'run')
    code, text = call_tool('train.py', tmp_path / 'dumped.json', *options)
    assert not code, (code, text[-2000:])
    assert list((tmp_path / 'run').glob('[ei]*_*.pth'))


def test_bases_are_read_and_overridden(write):
    write(dict(model=dict(type='ViK', arch='small'), work_dir='a'), 'base.json')
    cfg = read_safe_config(write('_base_: base.json\nmodel: {arch: tiny}\n', 'leaf.yaml'))
    assert cfg.model == dict(type='ViK', arch='tiny') and cfg.work_dir == 'a'
    assert cfg.filename.endswith('leaf.yaml')


# The same file is a program to MMEngine: each writes the sentinel, or would import what is not the mm packages'.
FILES = {
    'python': ("open('SENTINEL', 'w').close()", 'config.py', 'reads only .json'),
    'python as base': (dict(_base_='evil.py'), 'config.json', 'reads only .json'),
    'shipped python as base': (dict(_base_='mmdet::_base_/default_runtime.py'), 'config.json', 'is no file'),
    'template as base': (dict(_base_='{{$NAME:evil.py}}'), 'config.json', 'is no data'),
    'object in yaml': (
        'a: !!python/object/apply:os.system ["touch SENTINEL"]',
        'config.yaml',
        'cannot be read as data',
    ),
    'no dict': ('[1]', 'config.json', 'holds a list'),
    'no JSON': ('{', 'config.json', 'cannot be read as data'),
    'endless JSON': ('[' * 100_000, 'config.json', 'cannot be read as data'),
    'endless YAML': (
        'a0: &a0 [1,1,1,1,1,1,1,1,1,1]\n'
        + '\n'.join(f'a{i}: &a{i} [{",".join([f"*a{i - 1}"] * 10)}]' for i in range(1, 9)),
        'config.yaml',
        'more than',
    ),
    'its own base': (dict(_base_='config.json'), 'config.json', 'its own _base_'),
    'bases that do not fit': ('{"_base_": "base.json", "a": {"b": 1}}', 'config.json', 'cannot be put together'),
}


def step(**values):
    return dict(default_scope='mmseg', train_dataloader=dict(dataset=dict(pipeline=[values])))


def hook(**values):
    return dict(custom_hooks=[values])


# Runs a command without a parenthesis when it is evaluated.
NO_PARENTHESIS = "x for o in [torch.hub] if [0 for o.x.__class_getitem__ in [torch.hub.os.system]] and o.x['touch S']"
PAYLOADS = {
    'imports': (dict(custom_imports=dict(imports=['evil'])), "custom_imports names 'evil'"),
    'imports as text': (dict(custom_imports=dict(imports='evil')), "custom_imports names 'evil'"),
    'imports as a list': (dict(custom_imports=['evil']), r"custom_imports names \['evil'\]"),
    'dotted type': (dict(model=dict(type='evil.run')), "model.type='evil.run' is not registered"),
    'dotted type in a list': (hook(type='os.system'), r"hooks\[0\].type='os.system' is not registered"),
    'dotted type below a scope': (dict(model=dict(type='mmengine.fileio.run')), 'is not registered'),
    'module as type': (dict(model=dict(type='evil')), "model.type='evil' is not registered"),
    'module of Python as type': (step(type='antigravity'), "type='antigravity' is not registered"),
    'function of MMEngine': (hook(type='mmengine.call_command', cmd='touch S'), 'is not registered'),
    'function of MMEngine in a pipeline': (step(type='mmengine.call_command', cmd='touch S'), 'is not registered'),
    'reader of MMEngine': (step(type='mmengine.load', file='a.txt', file_format='pkl'), 'is not registered'),
    'dotted collate_fn': (dict(loader=dict(collate_fn=dict(type='evil.run'))), 'is not registered'),
    'dotted worker_init_fn': (dict(loader=dict(worker_init_fn=dict(type='evil.run'))), 'is not registered'),
    'dotted policy': (dict(model_wrapper_cfg=dict(auto_wrap_policy='evil.run')), 'is not registered'),
    'dotted constructor': (dict(optim_wrapper=dict(constructor='evil.run')), 'is not registered'),
    'dotted runner': (dict(runner_type='evil.run'), 'is not registered'),
    'dotted resize_type': (step(type='RandomResize', scale=2, resize_type='evil.run'), 'is not registered'),
    'dotted ema_type': (hook(type='EMAHook', ema_type='evil.run'), 'is not registered'),
    'scope': (dict(model=dict(_scope_='evil')), "model._scope_='evil' must be one of"),
    'default scope': (dict(default_scope='evil'), "default_scope='evil' must be one of"),
    'pickle': (dict(dataset=dict(ann_file='http://host/a.PKL')), 'run code when it is read'),
    'pickle by format': (dict(dataset=dict(file_format='pkl')), 'pickle runs code'),
    'pickle by decode_backend': (
        step(type='LoadBiomedicalImageFromFile', decode_backend='pickle'),
        'reads pickle files',
    ),
    'pickle in NumPy': (
        dict(default_scope='mmdet', dataset=dict(type='OpenImagesChallengeDataset', hierarchy_file='a.np')),
        'reads pickles inside a NumPy file',
    ),
    'pickles of another process': (dict(val_evaluator=dict(collect_dir='here')), 'read as pickles'),
    'config of a teacher': (
        dict(default_scope='mmdet', model=dict(type='KnowledgeDistillationSingleStageDetector', teacher_config='e.py')),
        "reads its teacher's config",
    ),
    'evaluated argument': (
        dict(default_scope='mmdet', model=dict(type='CameraMotionCompensation', warp_mode=NO_PARENTHESIS)),
        'evaluates its arguments',
    ),
    'evaluated dtype': (step(type='torchvision/ConvertImageDtype', dtype=NO_PARENTHESIS), 'must be a word'),
    'evaluated operator': (dict(model=dict(test_cfg=dict(nms=dict(type=NO_PARENTHESIS)))), 'is not registered'),
    'evaluated search space': (hook(type='RFSearchHook', config=dict(search=dict())), 'evaluates its arguments'),
    'library of augmentations': (step(type='Albu', transforms=[]), 'looks its arguments up in albumentations'),
    'factory of models': (
        dict(default_scope='mmseg', model=dict(type='VPD', diffusion_cfg=dict())),
        'builds models with another package',
    ),
    'library of models': (
        dict(default_scope='mmpretrain', model=dict(type='HuggingFaceClassifier', model_name='a/b')),
        'transformers',
    ),
    'code from a hub': (dict(model=dict(trust_remote_code=True)), 'downloaded'),
    'program of a logger': (dict(visualizer=dict(vis_backends=[dict(type='DVCLiveVisBackend')])), 'starts programs'),
    'storage from a folder': (
        step(type='LoadImageFromFile', backend_args=dict(backend='memcached', sys_path='.')),
        'backend_args.backend=.memcached. is refused',
    ),
    'storage, as it was named': (hook(type='CheckpointHook', file_client_args=dict(sys_path='.')), 'is refused'),
    'storage by address': (dict(load_from='cluster:s3://bucket/a.pth'), 'is an address of no kind'),
    'compiler': (dict(compile=dict(options={'cpp.cxx': './evil.sh'})), 'options name programs'),
    'processes of a stranger': (
        dict(env_cfg=dict(dist_cfg=dict(init_method='tcp://1.2.3.4:5'))),
        'trust what they send',
    ),
    'processes that start afresh': (dict(env_cfg=dict(mp_cfg=dict(mp_start_method='spawn'))), 'not forked'),
    'workers that start afresh': (dict(loader=dict(multiprocessing_context='spawn')), 'not forked'),
}


@pytest.fixture
def evil(write, tmp_path, monkeypatch):
    """A module that writes the sentinel when it is imported."""
    write("open('SENTINEL', 'w').close()\n\ndef run(**kwargs):\n    pass\n", 'evil.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize('content, name, message', FILES.values(), ids=FILES)
def test_a_file_that_could_run_is_refused(write, tmp_path, evil, content, name, message):
    write(dict(a=1), 'base.json')
    with pytest.raises(BadInputError, match=message):
        read_safe_config(write(content, name))
    assert not (tmp_path / 'SENTINEL').exists()


@pytest.mark.parametrize('content, message', PAYLOADS.values(), ids=PAYLOADS)
def test_what_could_run_is_refused(write, tmp_path, evil, content, message):
    with pytest.raises(BadInputError, match=message):
        read_safe_config(write(content))
    assert not (tmp_path / 'SENTINEL').exists() and not (tmp_path / 'S').exists()


def test_what_a_refused_config_took_away_is_there_again(write):
    with pytest.raises(BadInputError):
        read_safe_config(write(dict(model=dict(type='evil.run'))))
    assert HOOKS.get('os.path.join') is os.path.join
    read_safe_config(write({}))
    with pytest.raises(BadInputError):
        read_safe_config(write(dict(model=dict(type='evil.run')), 'other.json'))
    with pytest.raises(BadInputError, match='a safe config cannot have it'):
        HOOKS.get('os.path.join')


@pytest.mark.parametrize(
    'tool', ['train.py', 'test.py x.pth', 'infer.py x.pth . --out out', 'export.py x.pth --format onnx --out x.onnx']
)
def test_every_tool_refuses_python(call_tool, write, tmp_path, tool):
    script, *more = tool.split()
    path = write("open('SENTINEL', 'w').close()", 'config.py')
    (tmp_path / 'x.pth').write_bytes(b'\x80')
    (tmp_path / 'x.png').write_bytes(b'')
    code, _ = call_tool(script, path, *more, '--safe-config')
    assert str(code).startswith('error: --safe-config reads only .json, .yaml, .yml,')
    assert not (tmp_path / 'SENTINEL').exists()


def test_a_missing_file_is_named(write):
    with pytest.raises(FileNotFoundError, match='other.yaml does not exist'):
        read_safe_config(write(dict(_base_='other.yaml')))
