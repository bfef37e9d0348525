"""What a user can mend ends a tool with one line; a bug keeps its traceback."""

import ast
import importlib
import json
import re

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from vik_mm.config import load_config
from vik_mm.errors import BadInputError, BadTypeError, UnavailableError
from vik_mm_cli.errors import end_on_user_errors, message_of

# Parts whose checks a config or a command line reaches.
CHECKED = ('attention', 'backbones', 'checkpoints', 'config', 'datasets', 'deploy', 'engine', 'layers', 'mixers')


@pytest.fixture
def files(tmp_path, make_config):
    """Arguments by name: a config whose backbone cannot be built, one that is whole, and files without weights."""
    broken = tmp_path / 'broken.py'
    broken.write_text(make_config('classification').read_text() + "model = dict(backbone=dict(arch='huge'))\n")
    torch.save({}, tmp_path / 'empty.pth')
    (tmp_path / 'no_coco.json').write_text('[]')
    (tmp_path / 'a_file').write_text('')
    (tmp_path / 'images').mkdir()
    return dict(
        broken=broken,
        config=tmp_path / 'classification.py',
        empty=tmp_path / 'empty.pth',
        no_coco=tmp_path / 'no_coco.json',
        root=tmp_path / 'a_file',
        out=tmp_path / 'out',
        file=tmp_path / 'a.onnx',
    )


ARCH = r"error: arch='huge' is unknown; choose one of"
# Arguments, what each tool says, and a function of which a bug is to be seen.
TOOLS = {
    'train.py': ('broken', ARCH, 'vik_mm.recipes.training.load_config'),
    'test.py': ('broken empty', ARCH, 'vik_mm.config.load_config'),
    'infer.py': ('broken empty data --out out', ARCH, 'vik_mm.config.load_config'),
    'export.py': ('broken empty --format onnx --out file', ARCH, 'vik_mm.config.load_config'),
    'compare.py': ('no_coco', 'error: .*a study is a mapping', 'studies.study.read_study'),
    'analysis_tools/get_flops.py': ('broken', ARCH, 'vik_mm.config.load_config'),
    'analysis_tools/resolution_table.py': ('broken empty --metrics x', ARCH, 'vik_mm.config.load_config'),
    'analysis_tools/switch_off.py': ('broken empty --metrics x --zero y', ARCH, 'vik_mm.config.load_config'),
    'analysis_tools/swap_sweep.py': ('nothing', r"error: unknown \['nothing'\]", 'rich.progress.Progress'),
    'model_converters/publish.py': ('empty out', 'error: there are no weights', 'vik_mm.checkpoints.read_checkpoint'),
    'model_converters/reference_to_vik_mm.py': (
        'empty out', 'error: there are no weights', 'vik_mm.checkpoints.read_checkpoint',
    ),
    'model_converters/vik_mm_to_reference.py': (
        'empty out', 'error: there are no weights', 'vik_mm.checkpoints.read_checkpoint',
    ),
    'data/hold_out.py': ('no_coco --count 1', 'error: .*no_coco.json is no COCO', 'vik_mm_cli.files.write_atomically'),
    'data/make_shapes.py': ('out --size 8', 'error: size=8 must be at least 32', 'vik_mm.datasets.shapes.write_shapes'),
}  # fmt: skip


def arguments(line, files):
    return [files.get(word, word) for word in line.split()]


@pytest.mark.parametrize('tool', TOOLS)
def test_an_error_of_the_user_ends_each_tool_in_one_line(tool, files, call_tool, shapes_folder):
    files['data'] = shapes_folder / 'imagenet/test'
    line, message, _ = TOOLS[tool]
    code, text = call_tool(tool, *arguments(line, files))
    assert re.match(message, code) and '\n' not in code, code
    assert 'Traceback' not in text


@pytest.mark.parametrize('tool', TOOLS)
def test_a_bug_in_each_tool_keeps_its_traceback(tool, files, call_tool, shapes_folder, monkeypatch):
    def fail(*_, **__):
        raise ValueError('planted')

    line, _, name = TOOLS[tool]
    files.update(data=shapes_folder / 'imagenet/test', broken=files['config'], nothing='mmdet/atss')
    if tool == 'data/hold_out.py':
        ids = [dict(id=k) for k in range(3)]
        files['no_coco'].write_text(json.dumps(dict(images=ids, annotations=[], categories=[])))
    module, _, function = name.rpartition('.')
    monkeypatch.setattr(importlib.import_module(module), function, fail)
    with pytest.raises(ValueError, match='planted'):
        call_tool(tool, *arguments(line, files))


NO_TEST = 'test_cfg = test_dataloader = test_evaluator = None\n'
# More lines of the config, arguments, and what tools/test.py says.
TESTS = {
    'no test split': (NO_TEST, [], 'has no test split: it lacks test_dataloader, test_cfg, test_evaluator'),
    'amp without test_cfg': ('test_cfg = None\n', ['--amp'], 'has no test split: it lacks test_cfg'),
    'show-dir without hooks': ('default_hooks = None\n', ['--show-dir', 'x'], '--show-dir needs default_hooks.visual'),
}


@pytest.mark.parametrize('case', TESTS)
def test_a_test_that_cannot_be_is_refused_in_one_line(case, make_config, call_tool, tmp_path):
    more, arguments, words = TESTS[case]
    torch.save({}, tmp_path / 'empty.pth')
    code, _ = call_tool('test.py', make_config('classification', more), tmp_path / 'empty.pth', *arguments)
    assert str(code).startswith('error: ') and words in code and '\n' not in code


def test_one_place_ends_tools_with_an_error(root):
    for folder in ('tools', 'vik_mm_cli'):
        for path in (root / folder).rglob('*.py'):
            is_the_place = path.relative_to(root).as_posix() == 'vik_mm_cli/errors.py'
            assert is_the_place or not re.search(r"sys\.exit\(\s*f?['\"]error", path.read_text()), path


def test_checks_that_a_config_reaches_raise_what_tools_report(root):
    for path in (p for part in CHECKED for p in (root / 'vik_mm' / part).rglob('*.py')):
        for node in ast.walk(ast.parse(path.read_text())):
            raised = node.exc if isinstance(node, ast.Raise) else None
            name = getattr(getattr(raised, 'func', None), 'id', None)
            assert name not in ('ValueError', 'TypeError'), f'{path}:{node.lineno} must raise BadInputError'


def test_errors_are_what_callers_have_caught_so_far():
    assert issubclass(BadInputError, ValueError)
    assert issubclass(BadTypeError, (BadInputError, TypeError)) and issubclass(BadTypeError, TypeError)
    assert issubclass(UnavailableError, BadInputError) and issubclass(UnavailableError, RuntimeError)


class _Refusing(Dataset):
    def __init__(self, error):
        self.error = error

    def __len__(self):
        return 1

    def __getitem__(self, _):
        raise self.error


def test_the_message_from_a_loaders_process_comes_without_its_traceback():
    with pytest.raises(BadInputError) as error:
        next(iter(DataLoader(_Refusing(BadInputError('a.png is cut off; mend it')), num_workers=1)))
    assert 'Traceback' in str(error.value)
    assert message_of(error.value) == 'a.png is cut off; mend it'


def test_ctrl_c_ends_a_tool_with_130_and_its_message(capsys):
    with pytest.raises(SystemExit) as end, end_on_user_errors('stopped at once'):
        raise KeyboardInterrupt
    assert end.value.code == 130
    assert capsys.readouterr().err == '\nstopped at once\n'


@pytest.mark.parametrize(
    ('name', 'text', 'why'),
    [
        ('a.py', 'model = dict(\n', 'was never closed'),
        ('a.json', '{"model": ', 'Expecting value'),
        ('a.yaml', 'model: [1', "expected ',' or ']'"),
        ('b.json', '{"_base_": "x.py"}', 'x.py'),
    ],
    ids=['python', 'json', 'yaml', 'base of another kind'],
)
def test_a_config_file_that_cannot_be_read_is_named(tmp_path, name, text, why):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises((BadInputError, FileNotFoundError), match=re.escape(why)) as error:
        load_config(str(path))
    assert name in str(error.value) or why in str(error.value)
