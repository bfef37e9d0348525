"""A config in which one value is the name of something else: nothing of that name is imported, evaluated or called."""

import json
import random
import re
import sys
from importlib import metadata

import pytest
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import HOOKS, METRICS, MODELS, VISUALIZERS, init_default_scope
from mmengine.runner import Runner
from mmengine.utils import ManagerMixin
from mmengine.utils import misc as mmengine_misc

from vik_mm.compat.registered_only import registered
from vik_mm.compat.unsafe_classes import PACKAGES
from vik_mm.config import end_safe_config, fit_to_machine, read_safe_config

CASES = 20
FUNCTIONS = [
    *('os.system', 'os.popen', 'subprocess.call', 'subprocess.run', 'builtins.eval', 'builtins.exec', 'runpy.run_path'),
    *('mmengine.load', 'mmengine.utils.call_command', 'mmengine.utils.install_package', 'mmengine.Config.fromfile'),
    *('torch.load', 'torch.hub.load', 'torch.jit.load', 'pickle.loads', 'importlib.import_module', 'pty.spawn'),
    *('stranger', 'stranger.run', 'stranger.registry', 'mmdet.stranger', 'numpy.load', 'yaml.unsafe_load'),
]
STARTS = ('os.system', 'os.exec', 'os.posix_spawn', 'os.spawn', 'subprocess.Popen', 'pty.spawn')


class Watch:
    """Notes what is done with a name that stands in a config. Audit hooks stay for good, so this one is switched."""

    def __init__(self):
        self.name, self.seen = None, []
        sys.addaudithook(self.hook)

    def hook(self, event, arguments):
        if self.name is None:
            return
        name, self.name = self.name, None
        if event == 'import' and f'{name}.'.startswith(f'{arguments[0]}.'):
            self.seen.append((event, arguments[0]))
        elif event == 'compile' and isinstance(arguments[0], (str, bytes)):
            text = arguments[0] if isinstance(arguments[0], str) else arguments[0].decode(errors='replace')
            if re.search(rf'(?<![\w.]){re.escape(name)}(?![\w.])', text):
                self.seen.append((event, text[:200]))
        elif event in STARTS:
            self.seen.append((event, arguments[:2]))
        self.name = name


@pytest.fixture(scope='session')
def watch():
    return Watch()


def names(rng):
    """Draw names of modules, of functions in them, and of registered classes."""
    modules = [*sys.stdlib_module_names, *metadata.packages_distributions()]
    scopes = registered(['mmpretrain', 'mmdet', 'mmseg'])
    while True:
        yield rng.choice(FUNCTIONS)
        yield rng.choice(modules)
        module = sys.modules[rng.choice(list(sys.modules))]
        yield f'{module.__name__}.{rng.choice(sorted(vars(module)))}'
        scope = rng.choice(sorted(scopes))
        name = rng.choice(sorted(scopes[scope]))
        yield rng.choice([name, f'{scope}.{name}'])


def positions(value, path=()):
    """List where text stands."""
    if isinstance(value, (dict, list)):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from positions(below, (*path, key))
    elif isinstance(value, str):
        yield path


def replaced(content, path, value):
    content = json.loads(json.dumps(content))
    *above, last = path
    owner = content
    for key in above:
        owner = owner[key]
    owner[last] = value
    return content


def build(cfg):
    """Build what a run is made of, each part on its own, so that an error in one does not hide another."""
    init_default_scope(cfg.default_scope)
    parts = [
        lambda: fit_to_machine(cfg),
        lambda: VISUALIZERS.build({'name': 'fuzz', **cfg.visualizer}),
        lambda: build_optim_wrapper(MODELS.build(cfg.model), cfg.optim_wrapper),
        *(lambda hook=hook: HOOKS.build(hook) for hook in [*cfg.default_hooks.values(), *cfg.get('custom_hooks', [])]),
        *(
            lambda split=split: Runner.build_dataloader(cfg[f'{split}_dataloader'], seed=0)
            for split in ('train', 'val')
        ),
        lambda: METRICS.build(cfg.val_evaluator),
    ]
    errors = []
    for part in parts:
        try:
            part()
        except Exception as error:  # what a strange value leads to; whether anything ran is what counts
            errors.append(error)
    return errors


@pytest.mark.parametrize('task', ['classification', 'detection', 'segmentation'])
def test_a_name_in_the_place_of_a_value_runs_nothing(watch, make_config, tmp_path, monkeypatch, task):
    (tmp_path / 'stranger.py').write_text("open('stranger.ran', 'w').close()\n\ndef run(*_, **__):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    imported, original = [], mmengine_misc.import_module
    monkeypatch.setattr(mmengine_misc, 'import_module', lambda name: imported.append(name) or original(name))
    path = tmp_path / 'config.json'
    Config.fromfile(make_config(task)).dump(path)
    content = json.loads(path.read_text())
    rng = random.Random(task)
    places = list(positions(content))
    types = [place for place in places if place[-1] == 'type']
    draw, accepted = names(rng), 0
    try:
        # The first case is the config as it is, which also imports what is imported late.
        for number in range(CASES + 1):
            place, value = rng.choice(rng.choice([places, types])), next(draw)
            path.write_text(json.dumps(replaced(content, place, value) if number else content))
            for kept in (ManagerMixin, *ManagerMixin.__subclasses__()):
                kept._instance_dict.clear()
            watch.name, watch.seen = value if number else None, []
            try:
                cfg = read_safe_config(path)
            except ValueError:
                continue
            else:
                errors = build(cfg)
                assert number or not errors, 'the config itself can be built'
                accepted += 1
            finally:
                watch.name = None
                end_safe_config()
                assert not watch.seen, (place, value)
                assert all(name.split('.')[0] in PACKAGES for name in imported), (place, value, imported)
                assert not (tmp_path / 'stranger.ran').exists(), (place, value)
    finally:
        end_safe_config()
    assert CASES / 10 < accepted < CASES * 9 / 10, 'some are refused, and some are built'
