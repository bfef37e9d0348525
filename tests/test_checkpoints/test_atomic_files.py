import errno
import os

import pytest
from mmengine.logging import MMLogger

from vik_mm.checkpoints.atomic_files import write_atomically
from vik_mm_cli import files


@pytest.fixture
def refuse(monkeypatch):
    """Let a call of the system fail."""
    monkeypatch.setattr(files, '_refused', set())

    def make(call, name):
        def fail(*_, **__):
            raise OSError(getattr(errno, name), os.strerror(getattr(errno, name)))

        monkeypatch.setattr(files.os, call, fail)

    return make


@pytest.mark.parametrize(
    'call,name',
    [('fsync', 'EINVAL'), ('fsync', 'ENOTSUP'), ('fsync', 'ENOSYS'), ('chmod', 'EPERM'), ('chmod', 'ENOTSUP')],
)
def test_folders_that_refuse_it_are_written_to_with_one_warning(refuse, tmp_path, caplog, call, name):
    refuse(call, name)
    logger = MMLogger.get_instance(f'{call} {name}')  # becomes the current one
    logger.addHandler(caplog.handler)
    for k in range(3):
        write_atomically(b'whole', tmp_path / f'file_{k}')
        assert (tmp_path / f'file_{k}').read_bytes() == b'whole'
    warnings = [record.getMessage() for record in caplog.records if 'refuses' in record.getMessage()]
    assert len(warnings) == (2 if call == 'fsync' else 1)  # of files, and of folders
    assert call in warnings[0] and str(tmp_path) in warnings[0]
    assert not list(tmp_path.glob('.*'))


@pytest.mark.parametrize('name', ['ENOSPC', 'EIO', 'EDQUOT'])
def test_a_disk_that_fails_is_an_error(refuse, tmp_path, name):
    (tmp_path / 'file').write_bytes(b'before')
    refuse('fsync', name)
    with pytest.raises(OSError, match=os.strerror(getattr(errno, name))):
        write_atomically(b'after', tmp_path / 'file')
    assert (tmp_path / 'file').read_bytes() == b'before'
    assert not list(tmp_path.glob('.*'))
