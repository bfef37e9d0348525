"""Every fenced block of README.md, CONTRIBUTING.md and docs/ does what it says, as printed.

A command line is taken apart by the tool that it calls, and its config is loaded with its options; what a shell script
hands on to Python or ``srun`` is checked the same way. Nothing is trained, installed or downloaded. Python runs for
real, a page's blocks one after the other; a block that is part of a config is put below one that ships with a package.
YAML is parsed; on the page about studies it is read as a study or as rows of one. ``text`` is output that nobody runs.
"""

import ast
import os
import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

import cv2
import mmpretrain.registry
import numpy as np
import pytest
import torch
import yaml
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from studies.study import read_study

from vik_mm.config import end_safe_config, load_config
from vik_mm.datasets.folders import prepare
from vik_mm.datasets.shapes import CLASSES
from vik_mm.recipes import write_config
from vik_mm_cli.config_files import find_config
from vik_mm_cli.console import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Words that stand for a file of the reader's, and one that does for all of them.
CONFIG = {'CONFIG': 'configs/vik/vik-s_in1k.py'}
# Files that the reader has, or that an earlier step leaves.
FILES = [
    'CHECKPOINT',
    'IMAGE_OR_FOLDER',
    'work_dirs/vik-s_in1k/epoch_310.pth',  # of the training with that config
    'released.pth.tar',  # of the authors' release
    'ours.pth',  # of the line before
]
# Configs that a part of a config is put below, and what the pages tell readers to add in the package's.
BASES = {
    'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py': '',
    'mmseg::sem_fpn/fpn_r50_4xb4-160k_ade20k-512x512.py': 'model.update(pretrained=None)',
}


class Block(NamedTuple):
    page: str
    line: int
    language: str
    text: str

    @property
    def id(self):
        return f'{self.page}:{self.line}'


def blocks_of(page):
    text = page.read_text()
    for found in re.finditer(r'^```(\w*)\n(.*?)^```$', text, re.DOTALL | re.MULTILINE):
        yield Block(page.name, text[: found.start()].count('\n') + 1, found[1], found[2])


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
BASH = [block for block in BLOCKS if block.language == 'bash']
PYTHON = [block for block in BLOCKS if block.language == 'python']
YAML = [block for block in BLOCKS if block.language == 'yaml']
PYTHON_PAGES = sorted({block.page for block in PYTHON})


def commands_of(block):
    """Words of each command; what is optional is taken."""
    text = re.sub(r'\[(--[^]]*)]', r'\1', block.text).replace('...', '')
    for line in text.replace('\\\n', ' ').splitlines():
        if words := shlex.split(line, comments=True):
            yield [CONFIG.get(word, word) for word in words]


@pytest.fixture(scope='session')
def own_data(tmp_path_factory):
    """A folder of one's own data; beside it what --data writes, with an untrained model."""
    folder = tmp_path_factory.mktemp('own') / 'my_folder'
    for k, name in enumerate(('cat', 'dog') * 5):
        path = folder / name / f'{k}.png'
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((64, 64, 3), 20 * k, np.uint8))
    work_dir = folder.parent / 'work_dirs'
    cfg = write_config(prepare(folder, work_dir / 'data'), work_dir / 'config.py')
    init_default_scope(cfg.default_scope)
    meta = dict(cfg=cfg.pretty_text, dataset_meta=dict(classes=cfg.classes))
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=meta), work_dir / 'best.pth')
    return folder


@pytest.fixture
def workspace(tmp_path, monkeypatch, own_data):
    """A folder as the checkout is, with the files that the pages take for granted, which is where commands run."""
    for name in ('configs', 'tools', 'Makefile', '.ci', 'noxfile.py'):
        if (ROOT / name).exists():
            (tmp_path / name).symlink_to(ROOT / name)
    for name in FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / 'my_folder').symlink_to(own_data)
    (tmp_path / 'work_dirs/my_folder').symlink_to(own_data.parent / 'work_dirs')
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    init_default_scope('mmpretrain')
    end_safe_config()  # which a command with --safe-config puts in force


def test_no_block_is_left_out():
    fences = sum(len(re.findall(r'^\s*```', page.read_text(), re.MULTILINE)) for page in PAGES)
    assert fences == 2 * len(BLOCKS)
    assert {block.language for block in BLOCKS} <= {'bash', 'python', 'yaml', 'text'}


@pytest.mark.parametrize('block', BASH, ids=lambda block: block.id)
def test_command_lines_are_understood_and_their_configs_load(block, workspace, load_tool, monkeypatch):
    for words in commands_of(block):
        variables = {}
        while re.fullmatch(r'\w+=.*', words[0]):
            name, value = words.pop(0).split('=', 1)
            variables[name] = value
        check_command(words, variables, workspace, load_tool)


def check_command(words, variables, workspace, load_tool):
    program, *arguments = words
    if program == 'make':
        result = subprocess.run(['make', '--dry-run', *arguments], cwd=ROOT, capture_output=True, text=True)
        assert result.returncode == 0, result.stderr
    elif program == 'pip':
        verb, what = arguments
        extras = re.findall(r'^(\w+) = \[', (ROOT / 'pyproject.toml').read_text(), re.MULTILINE)
        assert verb == 'install' and (found := re.fullmatch(r'\.(?:\[(\w+)])?', what))
        assert found[1] is None or found[1] in extras
    elif program == '.ci/matrix':
        assert os.access(program, os.X_OK)
        sessions = Path('noxfile.py').read_text()
        assert all(f"'{argument}'" in sessions for argument in arguments)
    elif program == 'python' and arguments[0] == '-c':
        exec(compile(arguments[1], 'the command line', 'exec'), {})
    elif program == 'python':
        check_tool(arguments, load_tool)
    elif program == 'vik-mm':
        if arguments != ['--help']:
            check_tool([f'tools/{COMMANDS[arguments[0]]}', *arguments[1:]], load_tool)
    elif program.endswith('.sh'):
        check_tool(handed_on(words, variables, workspace), load_tool)
    else:
        pytest.fail(f'{program} is no program that this test knows how to check')


def handed_on(words, variables, workspace):
    """What a script of tools/ has Python run: the tool and its arguments."""
    for name in ('python', 'srun'):
        path = workspace / 'bin' / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
        path.chmod(0o755)
    env = {**os.environ, **variables, 'PATH': f'{workspace / "bin"}{os.pathsep}{os.environ["PATH"]}'}
    env.pop('PYTHON', None)
    result = subprocess.run(words, env=env, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    start = next(k for k, line in enumerate(lines) if line.endswith(('train.py', 'test.py')))
    return lines[start:]


def check_tool(arguments, load_tool):
    script, *arguments = arguments
    assert script.startswith('tools/')
    if script == 'tools/deploy/run_onnx.py':  # has no parser, to be short; test_whole.py runs it
        return
    args = load_tool(script.removeprefix('tools/')).parse_args(arguments)
    if getattr(args, 'config', None) is not None:
        backbone = getattr(args, 'backbone', None)
        is_amp = getattr(args, 'amp', False)
        cfg = load_config(args.config, args.cfg_options, None, backbone, getattr(args, 'safe_config', False), is_amp)
        assert 'model' in cfg


@pytest.mark.parametrize('block', YAML, ids=lambda block: block.id)
def test_yaml_parses_and_is_a_study_or_rows_of_one(block, tmp_path):
    content = yaml.safe_load(block.text)
    assert content and isinstance(content, (dict, list))
    if block.page == 'studies.md':
        common = dict(figure='accuracy/top1', config=CONFIG['CONFIG'], seeds=[0])
        path = tmp_path / 'study.yml'
        path.write_text(block.text if isinstance(content, dict) else yaml.safe_dump({**common, 'rows': content}))
        assert read_study(path).rows


def is_config(block):
    return all(isinstance(node, ast.Assign) for node in ast.parse(block.text).body) and 'custom_imports' in block.text


@pytest.fixture
def trained(workspace, shapes_folder):
    """What ``make demo`` leaves, untrained, with few pictures; a photo, and a folder of them for each class."""
    cfg = load_config('configs/vik/vik-demo_shapes.py')
    init_default_scope(cfg.default_scope)
    checkpoint = dict(state_dict=MODELS.build(cfg.model).state_dict(), meta=dict(dataset_meta=dict(classes=CLASSES)))
    (workspace / 'work_dirs/demo').mkdir(parents=True)
    torch.save(checkpoint, workspace / 'work_dirs/demo/epoch_8.pth')
    cv2.imwrite('photo.jpg', np.zeros((90, 120, 3), np.uint8))
    (workspace / 'data').mkdir()
    (workspace / 'data/shapes').symlink_to(shapes_folder)
    (workspace / 'photos').symlink_to(shapes_folder / 'imagenet')


@pytest.mark.parametrize('page', PYTHON_PAGES)
def test_python_runs_as_printed(page, workspace, trained):
    registries = [MODELS, mmpretrain.registry.MODELS]
    known = [set(registry.module_dict) for registry in registries]
    namespace = {}
    try:
        for block in PYTHON:
            if block.page == page and not is_config(block):
                exec(compile(block.text, block.id, 'exec'), namespace)
    finally:
        for registry, names in zip(registries, known):
            # What a page defines; what its imports register must stay, since nothing imports it a second time.
            for name in (set(registry.module_dict) - names) & set(namespace):
                registry.module_dict.pop(name)


@pytest.mark.parametrize('base', BASES, ids=lambda base: base.split('::')[0])
@pytest.mark.parametrize('block', [block for block in PYTHON if is_config(block)], ids=lambda block: block.id)
def test_parts_of_configs_fit_the_configs_they_are_put_into(block, base, workspace):
    path = workspace / 'mine.py'
    path.write_text(f"_base_ = '{find_config(base)}'\n{block.text}{BASES[base]}\n")
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    cfg.model.backbone.arch = dict(depths=(1, 1, 1, 1), embed_dims=(64, 128, 320, 512))  # as 'small', but quick
    model = MODELS.build(cfg.model).eval()
    with torch.no_grad():
        maps = model.extract_feat(torch.zeros(1, 3, 64, 64))
    assert [x.shape[1] for x in maps] == [256] * len(maps)
