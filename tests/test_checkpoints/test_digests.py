"""Bits that change in files on the disk."""

import io
import random

import pytest
import torch

from vik_mm.checkpoints import read_checkpoint, write_safetensors
from vik_mm.checkpoints.atomic_files import AtomicLocalBackend
from vik_mm.checkpoints.digests import find_damage
from vik_mm.errors import BadInputError


@pytest.fixture(scope='module')
def content():
    torch.manual_seed(0)
    weights = {f'stages.{i}.weight': torch.randn(20, 30) for i in range(4)}
    return dict(state_dict=weights, meta=dict(epoch=1, iter=3), message_hub={})


def save_signed(content, path):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    AtomicLocalBackend().put(buffer.getvalue(), str(path))


WRITERS = {
    'of a training': ('signed.pth', save_signed),
    'of torch.save': ('plain.pth', torch.save),
    'of write_safetensors': (
        'signed.safetensors',
        lambda content, path: write_safetensors(content['state_dict'], content['meta'], path),
    ),
}


def flip(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def is_equal(left, right):
    weights = (left['state_dict'], right['state_dict'])
    return weights[0].keys() == weights[1].keys() and all(map(torch.equal, weights[0].values(), weights[1].values()))


@pytest.mark.parametrize('kind', WRITERS)
def test_none_of_300_flipped_bits_goes_unnoticed(tmp_path, content, kind):
    name, write = WRITERS[kind]
    path = tmp_path / name
    write(content, path)
    data, rng = path.read_bytes(), random.Random(0)
    assert is_equal(read_checkpoint(path), content)
    # The table of contents, at the end, is a small part of a file and the most delicate.
    bits = [rng.randrange(8 * len(data)) for _ in range(200)] + [
        8 * len(data) - 1 - rng.randrange(8000) for _ in range(100)
    ]
    unnoticed = []
    for bit in bits:
        path.write_bytes(flip(data, bit))
        try:
            read = read_checkpoint(path)
        except BadInputError:
            continue
        # Plain archives have bytes that nobody reads, and no checksum of them.
        if kind != 'of torch.save' or not is_equal(read, content) or read['meta'] != content['meta']:
            unnoticed.append(bit)
    assert unnoticed == []


def test_a_record_that_would_be_a_folder_is_refused(tmp_path, content):
    """PyTorch would give back what was in the memory before."""
    path = tmp_path / 'plain.pth'
    torch.save(content, path)
    data = path.read_bytes()
    place = data.rindex(b'plain/data/1') - 8  # the record's attributes
    path.write_bytes(flip(data, 8 * place + 4))
    with pytest.raises(BadInputError, match='plain/data/1 in it would be a folder'):
        read_checkpoint(path)


def test_other_readers_pass_over_digests(tmp_path, content):
    save_signed(content, tmp_path / 'signed.pth')
    for mmap in (False, True):
        assert is_equal(torch.load(tmp_path / 'signed.pth', weights_only=True, mmap=mmap), content)
    from safetensors.torch import load_file

    write_safetensors(content['state_dict'], {}, tmp_path / 'signed.safetensors')
    assert is_equal(dict(state_dict=load_file(tmp_path / 'signed.safetensors')), content)


def test_files_without_checksums_are_read(tmp_path, content):
    from safetensors.torch import save_file

    torch.save(content, tmp_path / 'old.pth', _use_new_zipfile_serialization=False)
    save_file(content['state_dict'], tmp_path / 'foreign.safetensors')
    if hasattr(torch.serialization, 'set_crc32_options'):
        torch.serialization.set_crc32_options(False)
        torch.save(content, tmp_path / 'unchecked.pth')
        torch.serialization.set_crc32_options(True)
    for path in tmp_path.iterdir():
        assert find_damage(path) is None
        assert is_equal(read_checkpoint(path), content)
