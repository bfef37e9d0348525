"""Files that would run code when they are loaded; each names a file that must not exist afterwards."""

import json
import os
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from mmdet.apis import DetInferencer
from mmengine.logging import HistoryBuffer
from mmengine.runner import CheckpointLoader

from vik_mm.checkpoints import load_checkpoints_as_data, load_weights, read_checkpoint
from vik_mm.errors import BadInputError


class Payload:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(sentinel):
    return {
        'os.system': Payload(os.system, f'touch {sentinel}'),
        'eval': Payload(eval, f'open({str(sentinel)!r}, "w").close()'),
        'exec': Payload(exec, f'open({str(sentinel)!r}, "w").close()'),
        'open': Payload(open, str(sentinel), 'w'),
        'getattr': Payload(getattr, HistoryBuffer, '__init__'),
    }


KINDS = ['os.system', 'eval', 'exec', 'open', 'getattr']
PLACES = ['', 'state_dict', 'optimizer', 'ema_state_dict', 'meta', 'message_hub', 'param_schedulers']


@pytest.fixture
def poison(tmp_path):
    """Put a payload somewhere into a whole checkpoint."""
    sentinel = tmp_path / 'sentinel'

    def write(checkpoint, kind, place):
        payload = payloads(sentinel)[kind]
        if not place:
            checkpoint = payload
        elif isinstance(checkpoint.get(place), list):
            checkpoint[place] = [*checkpoint[place], payload]
        else:
            checkpoint[place] = {**checkpoint.get(place, {}), 'payload': payload}
        path = tmp_path / 'poisoned.pth'
        torch.save(checkpoint, path)
        return path, sentinel

    return write


def test_the_payloads_work_where_nobody_looks(poison):
    path, sentinel = poison({}, 'eval', 'meta')
    environment = os.environ.pop('TORCH_FORCE_WEIGHTS_ONLY_LOAD', None)
    torch.load(path, weights_only=False)
    assert sentinel.exists()
    if environment:
        os.environ['TORCH_FORCE_WEIGHTS_ONLY_LOAD'] = environment


@pytest.mark.parametrize('place', PLACES, ids=lambda place: place or 'all of it')
@pytest.mark.parametrize('kind', KINDS)
def test_code_is_refused_by_every_way_in(poison, kind, place):
    path, sentinel = poison(dict(state_dict=dict(w=torch.zeros(1))), kind, place)
    load_checkpoints_as_data()
    ways = [
        read_checkpoint,
        lambda p: CheckpointLoader.load_checkpoint(str(p), map_location='cpu'),
        # What other code of the mm packages does.
        lambda p: torch.load(p, weights_only=False),
    ]
    for load in ways:
        with pytest.raises(Exception, match='loading them runs code|weights_only|Weights only'):
            load(path)
        assert not sentinel.exists(), load


@pytest.mark.parametrize('kind', ['bytearray', 'view', 'safetensors'])
def test_a_header_of_100_terabytes_is_refused_without_the_memory(tmp_path, kind):
    size, path = 100 * 2**40, tmp_path / ('huge.safetensors' if kind == 'safetensors' else 'huge.pth')
    if kind == 'safetensors':
        with path.open('wb') as file:
            entry = dict(dtype='F32', shape=[size // 4], data_offsets=[0, size])
            header = json.dumps(dict(w=entry)).encode()
            file.write(len(header).to_bytes(8, 'little') + header)
            file.truncate(2**40)  # says to be large, and takes no room
    else:
        huge = Payload(bytearray, size) if kind == 'bytearray' else torch.zeros(1).expand(size // 4)
        torch.save(dict(state_dict=dict(w=huge)), path)
    with pytest.raises(BadInputError, match='huge'):
        read_checkpoint(path)


@pytest.mark.parametrize('meta', ['[1]', '3', 'null', '"text"', '{"dataset_meta": [1]}', 'no JSON'])
def test_safetensors_whose_metadata_is_of_another_type_are_refused(tmp_path, meta):
    from safetensors.torch import save_file

    save_file(dict(w=torch.ones(1)), tmp_path / 'x.safetensors', metadata=dict(meta=meta))
    with pytest.raises(BadInputError, match='cannot be read as data'):
        read_checkpoint(tmp_path / 'x.safetensors')


def test_old_pickles_are_refused_too(tmp_path, poison):
    import pickle

    sentinel = tmp_path / 'sentinel'
    path = tmp_path / 'old.pth'
    path.write_bytes(pickle.dumps(dict(state_dict=payloads(sentinel)['eval']), protocol=2))
    with pytest.raises(BadInputError, match='loading them runs code'):
        read_checkpoint(path)
    assert not sentinel.exists()


@pytest.mark.parametrize('place', ['optimizer', 'ema_state_dict', 'meta', 'message_hub'])
def test_resuming_testing_and_inference_refuse_it(call_tool, shapes_config, tmp_path, poison, place):
    call_tool('train.py', shapes_config, '--work-dir', tmp_path / 'run')
    path, sentinel = poison(read_checkpoint(tmp_path / 'run' / 'epoch_1.pth'), 'os.system', place)
    image = tmp_path / 'image.png'
    image.write_bytes(b'')
    for arguments in (
        ('train.py', shapes_config, '--resume', path, '--work-dir', tmp_path / 'again'),
        ('train.py', shapes_config, '--cfg-options', f'load_from={path}', '--work-dir', tmp_path / 'again'),
        ('test.py', shapes_config, path),
        ('infer.py', shapes_config, path, image, '--out', tmp_path / 'out'),
        ('model_converters/publish.py', path, tmp_path / 'published'),
    ):
        code, text = call_tool(*arguments)
        assert 'not loaded because loading them runs code' in str(code), (arguments[0], code, text[-500:])
        assert not sentinel.exists(), arguments[0]


def test_python_in_the_text_of_a_checkpoint_does_not_run(call_tool, shapes_config, tmp_path):
    """MMEngine runs ``meta.config`` when it resumes, and the run's config when it is given only weights."""
    call_tool('train.py', shapes_config, '--work-dir', tmp_path / 'run')
    checkpoint = read_checkpoint(tmp_path / 'run' / 'epoch_1.pth')
    sentinel, path = tmp_path / 'sentinel', tmp_path / 'poisoned.pth'
    text = f'open({str(sentinel)!r}, "w").close()\n'
    checkpoint['meta']['config'] = text
    checkpoint['message_hub']['runtime_info']['cfg'] = text
    torch.save(checkpoint, path)
    code, _ = call_tool('train.py', shapes_config, '--resume', path, '--work-dir', tmp_path / 'again')
    assert 'not loaded because loading it runs code' in str(code)
    with pytest.raises(BadInputError, match='loading it runs code'):
        DetInferencer(weights=str(path))
    assert not sentinel.exists()


@pytest.mark.parametrize('is_averaged', [True, False])
def test_published_files_are_slim_hashed_and_load_everywhere(call_tool, make_config, tmp_path, is_averaged):
    more = "custom_hooks = [dict(type='EMAHook', ema_type='ExponentialMovingAverage', momentum=0.5)]\n"
    config = make_config('classification', more)
    call_tool('train.py', config, '--work-dir', tmp_path / 'run')
    whole = tmp_path / 'run' / 'epoch_1.pth'
    flags = [] if is_averaged else ['--no-ema']
    code, text = call_tool('model_converters/publish.py', whole, tmp_path / 'vik', *flags)
    assert not code, code
    files = sorted(tmp_path.glob('vik-*'), key=lambda path: path.suffix)
    assert [path.suffix for path in files] == ['.pth', '.safetensors']
    content = read_checkpoint(whole)
    expected = content['state_dict']
    if not is_averaged:
        expected = {name.removeprefix('module.'): value for name, value in content['ema_state_dict'].items()}
    import hashlib

    for path in files:
        assert re.fullmatch(r'vik-[0-9a-f]{8}', path.stem) and path.stat().st_size < whole.stat().st_size / 2
        assert hashlib.sha256(path.read_bytes()).hexdigest().startswith(path.stem[-8:])
        slim = read_checkpoint(path)
        assert slim.keys() == {'state_dict', 'meta'}
        for name, value in slim['state_dict'].items():
            assert torch.equal(value, expected[name]), name
        assert str(tmp_path) not in json.dumps(slim['meta'])
        assert len(slim['meta']['dataset_meta']['classes']) == 8
        code, text = call_tool('test.py', config, path, '--work-dir', tmp_path / 'test')
        assert code is None and 'accuracy/top1' in text
    assert not list(tmp_path.glob('*draft*'))


def test_a_load_that_fails_leaves_the_model_as_it_was(make_vik):
    model, other = make_vik(0), make_vik(1)
    weights = other.state_dict()
    last = list(weights)[-1]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for broken in (weights | {last: torch.zeros(3, 5)}, weights | {'more': torch.zeros(1)}, {last: weights[last]}):
        with pytest.raises(BadInputError, match=re.escape(last) if broken.keys() == weights.keys() else ''):
            load_weights(model, broken)
        assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    load_weights(model, weights)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_checkpoint_at_an_address_is_downloaded_once_and_read_as_data(tmp_path, monkeypatch):
    """Two files of one name, at two addresses, are two files."""
    for name, value in (('a', 1.0), ('b', 2.0)):
        (tmp_path / name).mkdir()
        torch.save(dict(x=torch.tensor(value)), tmp_path / name / 'best.pth')
    monkeypatch.setattr(torch.hub, 'get_dir', lambda: str(tmp_path / 'hub'))
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(_Quiet, directory=str(tmp_path)))
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        values = [float(read_checkpoint(f'{address}/{name}/best.pth')['x']) for name in 'ab']
        with pytest.raises(BadInputError, match=r'checkpoint .*/none.pth could not be downloaded \(HTTP Error 404'):
            read_checkpoint(f'{address}/none.pth')
        server.shutdown()
    assert values == [1, 2]
    assert float(read_checkpoint(f'{address}/a/best.pth')['x']) == 1  # the server is gone
    with pytest.raises(BadInputError, match='must be a file, or an address that begins with https'):
        read_checkpoint('s3://bucket/best.pth')
