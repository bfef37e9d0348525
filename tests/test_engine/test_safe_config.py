"""``--safe-config``: what a stranger's config says does not run."""

import json

import pytest
from mmengine.config import Config

from vik_mm.engine import read_safe_config
from vik_mm.errors import BadInputError


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
REFUSED = {
    'python': ("open('SENTINEL', 'w').close()", 'config.py', 'reads .json'),
    'python as base': (dict(_base_='evil.py'), 'config.json', 'reads .json'),
    'shipped python as base': (dict(_base_='mmdet::_base_/default_runtime.py'), 'config.json', 'is no file'),
    'template as base': (dict(_base_='{{$NAME:evil.py}}'), 'config.json', 'is no data'),
    'object in yaml': (
        'a: !!python/object/apply:os.system ["touch SENTINEL"]',
        'config.yaml',
        'cannot be read as data',
    ),
    'imports': (dict(custom_imports=dict(imports=['evil'])), 'config.json', "custom_imports names 'evil'"),
    'imports as text': (dict(custom_imports=dict(imports='evil')), 'config.json', "custom_imports names 'evil'"),
    'dotted type': (dict(model=dict(type='evil.run')), 'config.json', "model.type='evil.run' must be the name"),
    'dotted type in a list': (dict(hooks=[dict(type='os.system')]), 'config.json', r"hooks\[0\].type='os.system'"),
    'dotted type below a scope': (dict(model=dict(type='mmdet.x.run')), 'config.json', 'must be the name'),
    'dotted constructor': (dict(optim_wrapper=dict(constructor='evil.run')), 'config.json', 'must be the name'),
    'dotted runner': (dict(runner_type='evil.run'), 'config.json', 'must be the name'),
    'scope': (dict(model=dict(_scope_='evil')), 'config.json', "model._scope_='evil' must be one of"),
    'default scope': (dict(default_scope='evil'), 'config.json', "default_scope='evil' must be one of"),
    'pickle': (dict(dataset=dict(ann_file='http://host/a.PKL')), 'config.json', 'run code when it is read'),
    'config of a teacher': (dict(model=dict(teacher_config='evil.py')), 'config.json', 'run code when it is read'),
    'evaluated text': (dict(model=dict(dtype="float if open('SENTINEL', 'w') else 1")), 'config.json', 'evaluate text'),
    'code from a hub': (dict(model=dict(trust_remote_code=True)), 'config.json', 'downloaded'),
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
}


@pytest.mark.parametrize('content, name, message', REFUSED.values(), ids=REFUSED)
def test_what_could_run_is_refused(write, tmp_path, monkeypatch, content, name, message):
    write("open('SENTINEL', 'w').close()\n\ndef run(**kwargs):\n    pass\n", 'evil.py')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInputError, match=message):
        read_safe_config(write(content, name))
    assert not (tmp_path / 'SENTINEL').exists()


@pytest.mark.parametrize(
    'tool', ['train.py', 'test.py x.pth', 'infer.py x.pth . --out out', 'export.py x.pth --format onnx --out x.onnx']
)
def test_every_tool_refuses_python(call_tool, write, tmp_path, tool):
    script, *more = tool.split()
    path = write("open('SENTINEL', 'w').close()", 'config.py')
    (tmp_path / 'x.pth').write_bytes(b'\x80')
    (tmp_path / 'x.png').write_bytes(b'')
    code, _ = call_tool(script, path, *more, '--safe-config')
    assert str(code).startswith('error: --safe-config reads .json, .yaml, .yml alone')
    assert not (tmp_path / 'SENTINEL').exists()


def test_a_missing_file_is_named(write):
    with pytest.raises(FileNotFoundError, match='other.yaml does not exist'):
        read_safe_config(write(dict(_base_='other.yaml')))
