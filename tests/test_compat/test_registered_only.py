"""What runs code when MMEngine builds or reads it, and what it does where registries know only what is registered."""

import os
import pickle
from types import SimpleNamespace

import mmengine
import mmengine.fileio
import pytest
from mmengine.registry import HOOKS, METRICS, MODELS, TASK_UTILS, TRANSFORMS, DefaultScope
from torch.utils.data import DataLoader

from vik_mm.compat.registered_only import build_anything_importable, build_registered_only, builds_registered_only
from vik_mm.errors import BadInputError

# Importing this runs it; the name of the file that it writes is the module's.
MODULE = "open(__name__.split('.')[0] + '.ran', 'w').close()\n\ndef run(**kwargs):\n    return kwargs\n"


class Payload:
    def __reduce__(self):
        return os.mkdir, ('pickle.ran',)


def build(registry, **cfg):
    return lambda: registry.build(cfg)


def read_biomedical():
    load = TRANSFORMS.build(dict(type='mmseg.LoadBiomedicalImageFromFile', decode_backend='pickle'))
    return load(dict(img_path='pickle.txt'))


# What runs, and the sentinel that it leaves.
PAYLOADS = {
    'dotted name': (build(TRANSFORMS, type='dotted.run'), 'dotted'),
    'dotted name below a scope': (build(MODELS, type='mmengine.utils.call_command', cmd=['mkdir', 'a.ran']), 'a'),
    'bare name': (build(HOOKS, type='bare'), 'bare'),
    'scope': (build(MODELS, type='ViK', _scope_='scope'), 'scope'),
    'scope of a name': (build(METRICS, type='named.ViK'), 'named'),
    'argument that is a type': (build(TRANSFORMS, type='RandomResize', scale=(1, 1), resize_type='inner.run'), 'inner'),
    'evaluated argument': (
        build(TASK_UTILS, type='mmdet.CameraMotionCompensation', warp_mode="__import__('evaluated')"),
        'evaluated',
    ),
    'pickle by ending': (lambda: mmengine.load('pickle.pkl'), 'pickle'),
    'pickle by format': (lambda: mmengine.load('pickle.txt', file_format='pkl'), 'pickle'),
    'pickle by decode_backend': (read_biomedical, 'pickle'),
    'object in YAML': (lambda: mmengine.load('object.yaml'), 'yaml'),
    'storage from a folder': (
        lambda: mmengine.fileio.get_file_backend(
            backend_args=dict(backend='memcached', server_list_cfg='', client_cfg='', sys_path='storage')
        ),
        'mc',
    ),
    'storage, as it was named': (
        lambda: mmengine.fileio.FileClient('memcached', server_list_cfg='', client_cfg='', sys_path='storage'),
        'mc',
    ),
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Files and modules that run; MMEngine's registries are as they were afterwards."""
    import sys

    before = set(sys.modules)
    for name in ('dotted', 'bare', 'inner', 'evaluated'):
        (tmp_path / f'{name}.py').write_text(MODULE)
    for name in ('scope', 'named'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('')
        (tmp_path / name / 'registry.py').write_text(MODULE)
    (tmp_path / 'storage').mkdir()
    (tmp_path / 'storage' / 'mc.py').write_text(MODULE)
    for name in ('pickle.txt', 'pickle.pkl'):
        (tmp_path / name).write_bytes(pickle.dumps(Payload()))
    (tmp_path / 'object.yaml').write_text('!!python/object/apply:os.mkdir ["yaml.ran"]')
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    DefaultScope._instance_dict.clear()
    yield tmp_path
    build_anything_importable()
    for name in set(sys.modules) - before:
        if name.split('.')[0] in ('dotted', 'bare', 'inner', 'evaluated', 'scope', 'named', 'mc'):
            del sys.modules[name]


def run(payload):
    """Say what became of it: the error, or None."""
    try:
        payload()
    except Exception as error:  # each payload has errors of its own, after it ran
        return error


@pytest.mark.parametrize('payload, name', PAYLOADS.values(), ids=PAYLOADS)
def test_what_runs_elsewhere_does_not_run(folder, payload, name):
    sentinel = folder / f'{name}.ran'
    build_registered_only()
    assert run(payload) is not None and not sentinel.exists()
    build_anything_importable()
    run(payload)
    assert sentinel.exists(), 'the payload does nothing where nobody looks'


class AsksRegistries:
    """A data set whose images are what registries say in the process that loads them."""

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return [str(run(lambda name=name: HOOKS.build(dict(type=name)))) for name in ('dotted.run', 'bare')]


def test_processes_of_a_data_loader_build_registered_classes_only(folder):
    build_registered_only()
    loader = DataLoader(AsksRegistries(), batch_size=None, num_workers=1, multiprocessing_context='fork')
    (answers,) = loader
    assert 'a safe config cannot have it' in answers[0] and 'not in' in answers[1]
    assert not list(folder.glob('*.ran'))


def test_registered_classes_are_built_as_ever(folder):
    build_registered_only()
    assert type(TRANSFORMS.build(dict(type='RandomResize', scale=(1, 1)))).__name__ == 'RandomResize'
    assert type(MODELS.build(dict(type='mmpretrain.ResNet', depth=18))).__module__.startswith('mmpretrain')
    assert 'nothing' not in MODELS and 'mmdet.nothing' not in MODELS
    (folder / 'plain.yaml').write_text('a: [1, 2]')
    assert mmengine.load('plain.yaml') == dict(a=[1, 2])
    mmengine.dump(dict(a=1), 'plain.json')
    assert mmengine.load('plain.json', backend_args=dict(backend='local')) == dict(a=1)


def test_everything_is_as_it_was_afterwards(folder):
    def state():
        fileio = mmengine.fileio
        return (
            {name: vars(type(HOOKS))[name] for name in ('get', 'switch_scope_and_registry')},
            dict(fileio.handlers.registry_utils.file_handlers),
            dict(fileio.backends.registry_utils.backends),
            dict(fileio.FileClient._backends),
            dict(fileio.FileClient._prefix_to_backends),
            HOOKS.get('types.SimpleNamespace'),
        )

    before = state()
    build_registered_only()
    build_registered_only()
    assert builds_registered_only()
    with pytest.raises(BadInputError):
        HOOKS.get('types.SimpleNamespace')
    build_anything_importable()
    assert not builds_registered_only() and state() == before and before[-1] is SimpleNamespace
