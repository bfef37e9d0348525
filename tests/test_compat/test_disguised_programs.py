"""What ``torch.load`` of PyTorch 2.5 does not read as data."""

import io
import pickle
import tarfile

import pytest
import torch

from vik_mm.checkpoints import read_checkpoint
from vik_mm.compat.disguised_programs import have_torch_load_refuse_programs, refuse_programs
from vik_mm.errors import BadInputError


@pytest.fixture
def disguised(tmp_path):
    """Programs under a checkpoint's name."""
    path = tmp_path / 'checkpoint.pth'

    def write(kind):
        if kind == 'TorchScript':
            torch.jit.save(torch.jit.trace(torch.nn.ReLU(), torch.ones(1)), str(path))
            return path
        # A name that begins as a pickle does.
        names = {'tar': 'storages', 'tar that begins as a pickle': '\udc80storages'}
        options = dict(format=tarfile.USTAR_FORMAT, encoding='utf-8', errors='surrogateescape')
        with tarfile.open(path, 'w', **options) as file:
            file.addfile(tarfile.TarInfo(names[kind]), io.BytesIO())
        return path

    return write


KINDS = ['TorchScript', 'tar', 'tar that begins as a pickle']


@pytest.mark.parametrize('kind', KINDS)
def test_programs_are_refused_whatever_they_are_called(disguised, kind):
    path = disguised(kind)
    for file in (path, io.BytesIO(path.read_bytes())):
        with pytest.raises(pickle.UnpicklingError, match='archive'):
            refuse_programs(file)
    with pytest.raises(BadInputError, match='no PyTorch checkpoint' if kind == 'tar' else 'archive'):
        read_checkpoint(path)


@pytest.mark.parametrize('is_zip', [True, False], ids=['zip', 'before 1.6'])
def test_checkpoints_are_read_from_where_the_file_stands(tmp_path, is_zip):
    torch.save(dict(w=torch.ones(2)), tmp_path / 'a.pth', _use_new_zipfile_serialization=is_zip)
    with (tmp_path / 'a.pth').open('rb') as file:
        refuse_programs(file)
        assert torch.load(file, weights_only=True)['w'].tolist() == [1, 1]


@pytest.mark.parametrize('version, is_needed', [('2.5.1+cpu', True), ('2.6.0', False)])
def test_older_torch_load_does_not_get_to_see_programs(disguised, monkeypatch, version, is_needed):
    seen = []
    monkeypatch.setattr(torch, '__version__', version)
    monkeypatch.setattr(torch, 'load', lambda file, **options: seen.append(file))
    have_torch_load_refuse_programs()
    have_torch_load_refuse_programs()
    path = disguised('TorchScript')
    if not is_needed:
        torch.load(path, weights_only=True)
        assert seen == [path]
        return
    with pytest.raises(pickle.UnpicklingError, match='a TorchScript archive is a program'):
        torch.load(path, weights_only=True)
    assert not seen
