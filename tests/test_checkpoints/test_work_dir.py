"""Which checkpoint a work dir is resumed from, and who may write into it."""

import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import LocalBackend
from mmengine.logging import MessageHub, MMLogger

from vik_mm.checkpoints import read_checkpoint, work_dir
from vik_mm.checkpoints.work_dir import LOCK, lock_work_dir, newest_checkpoint, refuse_if_locked
from vik_mm.engine.hooks import AtomicCheckpointHook
from vik_mm.engine.runner import make_work_dir, resolve_resume
from vik_mm.errors import BadInputError
from vik_mm_cli import files


@pytest.fixture
def save(tmp_path):
    """Write a checkpoint into the work dir; later ones have later times."""
    clock = iter(range(1_000_000, 2_000_000, 10))

    def write(name, epoch, iteration, run='a', **data):
        path = tmp_path / 'run' / name
        path.parent.mkdir(exist_ok=True)
        meta = dict(epoch=epoch, iter=iteration, data=dict(run=run, passes=epoch, **data))
        torch.save(dict(state_dict=dict(w=torch.arange(300.0)), meta=meta, message_hub={}), path)
        os.utime(path, (now := next(clock), now))
        return path

    return write


def damage(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 1
    path.write_bytes(data)


class TestNewest:
    @pytest.mark.parametrize(
        'record', [None, b'', b'\x80\x00\xff\xfe', b'epoch_9.pth', b'/elsewhere/epoch_1.pth'], ids=str
    )
    def test_it_is_found_whatever_the_record_says(self, save, tmp_path, record):
        save('epoch_1.pth', 1, 4)
        newest = save('epoch_10.pth', 10, 40)
        save('epoch_9.pth', 9, 36)
        save('best_acc_epoch_11.pth', 11, 44)
        if record is not None:
            (tmp_path / 'run' / 'last_checkpoint').write_bytes(record)
        assert newest_checkpoint(tmp_path / 'run') == newest

    def test_the_files_say_how_far_they_are_and_not_their_times(self, save, tmp_path):
        save('epoch_3.pth', 3, 12, seen=0, num_processes=1)
        # After a change of the batch size iterations count otherwise.
        stopped = save('interrupted.pth', 3, 7, seen=8, num_processes=1)
        os.utime(stopped, (1, 1))
        assert newest_checkpoint(tmp_path / 'run') == stopped

    def test_another_runs_leftovers_are_not_taken_for_this_ones(self, save, tmp_path):
        save('epoch_3.pth', 3, 12, run='of last week')
        newest = save('epoch_1.pth', 1, 4, run='of today')
        assert newest_checkpoint(tmp_path / 'run') == newest

    def test_damaged_ones_are_passed_over(self, save, tmp_path):
        older, newer = save('epoch_1.pth', 1, 4), save('epoch_2.pth', 2, 8)
        damage(newer)
        assert newest_checkpoint(tmp_path / 'run') == older
        damage(older)
        with pytest.raises(BadInputError, match=r'epoch_1.pth, epoch_2.pth.*none of them.*another --work-dir'):
            newest_checkpoint(tmp_path / 'run')

    def test_the_work_dirs_own_file_wins_over_the_path_in_the_record(self, save, tmp_path):
        original = save('epoch_1.pth', 1, 4)
        (tmp_path / 'run' / 'last_checkpoint').write_text(str(original))
        shutil.copytree(tmp_path / 'run', tmp_path / 'copy')
        assert newest_checkpoint(tmp_path / 'copy') == tmp_path / 'copy' / 'epoch_1.pth'

    def test_weights_only_are_nothing_to_start_fresh_beside(self, save, tmp_path):
        (tmp_path / 'run').mkdir()
        torch.save(dict(state_dict={}), tmp_path / 'run' / 'best_acc_epoch_3.pth')
        with pytest.raises(BadInputError, match='weights only'):
            newest_checkpoint(tmp_path / 'run')

    def test_a_damaged_file_is_refused_by_name_with_the_newest_sound_one(self, save, tmp_path):
        save('epoch_1.pth', 1, 4)
        sound, newest = save('epoch_2.pth', 2, 8), save('epoch_3.pth', 3, 12)
        damage(newest)
        with pytest.raises(
            BadInputError, match=f'epoch_3.pth is damaged.*newest sound checkpoint beside it is {sound}'
        ):
            resolve_resume(Config(dict(work_dir='none')), str(newest))

    def test_weights_alone_cannot_be_resumed(self, tmp_path):
        torch.save(dict(state_dict=dict(w=torch.ones(1))), tmp_path / 'weights.pth')
        with pytest.raises(BadInputError, match='weights only, and no state of a training.*load_from='):
            resolve_resume(Config(dict(work_dir='none')), str(tmp_path / 'weights.pth'))

    def test_checkpoints_that_go_elsewhere_are_found_there(self, save, tmp_path):
        path = save('epoch_1.pth', 1, 4)
        cfg = Config(
            dict(work_dir=str(tmp_path / 'logs' / 'run'), default_hooks=dict(checkpoint=dict(out_dir=str(tmp_path))))
        )
        resolve_resume(cfg, 'auto')
        assert cfg.load_from == str(path)


HOLD = """
import fcntl, json, os, socket, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(handle, fcntl.LOCK_EX)
os.write(handle, json.dumps(dict(host=socket.gethostname(), pid=os.getpid(), since='noon')).encode())
print('held', flush=True)
sys.stdin.read()
"""


@pytest.fixture
def other_training(tmp_path):
    """A process that has the lock."""
    command = [sys.executable, '-c', HOLD, tmp_path / LOCK]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b'held\n'
    yield process
    process.kill()
    process.communicate()


class TestLock:
    def test_a_second_training_is_refused_with_who_has_the_folder(self, tmp_path, other_training):
        words = (
            f'another training.*process {other_training.pid} on {socket.gethostname()}, since noon.*another --work-dir'
        )
        with pytest.raises(BadInputError, match=words):
            make_work_dir(Config(dict(work_dir=str(tmp_path))))
        with pytest.raises(BadInputError, match=words), lock_work_dir(tmp_path):
            pass

    def test_the_lock_of_a_killed_training_counts_for_nothing(self, tmp_path, other_training):
        other_training.kill()
        other_training.wait()
        assert (tmp_path / LOCK).exists()
        refuse_if_locked(tmp_path)
        with lock_work_dir(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())['pid'] == os.getpid()
        assert not (tmp_path / LOCK).exists()

    def test_a_lock_file_that_cannot_be_opened_is_named_to_all_processes(self, tmp_path, monkeypatch):
        told = []
        monkeypatch.setattr(f'{lock_work_dir.__module__}.broadcast_object_list', told.extend)
        (tmp_path / LOCK).mkdir()
        with pytest.raises(BadInputError, match='training.lock cannot be written'), lock_work_dir(tmp_path):
            pass
        assert 'choose another --work-dir' in told[0]

    def test_loader_processes_that_outlive_a_training_do_not_hold_its_lock(self, tmp_path):
        stop = multiprocessing.get_context('fork').Event()
        with lock_work_dir(tmp_path):
            child = multiprocessing.get_context('fork').Process(target=stop.wait)
            child.start()
        held = subprocess.run([sys.executable, '-c', HOLD, tmp_path / LOCK], input=b'', capture_output=True, timeout=60)
        stop.set()
        child.join()
        assert held.stdout == b'held\n'

    @pytest.mark.parametrize(
        'holder,is_held',
        [
            (dict(pid=os.getpid()), True),
            (dict(pid=os.getpid(), started='another boot 17'), False),
            (dict(pid=2**22 + 1), False),
            (dict(pid=1, host='another machine'), True),
            ({}, False),
        ],
        ids=['alive', 'number taken by another', 'gone', 'another machine', 'empty file'],
    )
    def test_without_locks_of_the_file_system_the_file_says_who_has_it(self, tmp_path, monkeypatch, holder, is_held):
        monkeypatch.setattr(files, 'fcntl', None)
        monkeypatch.setattr(work_dir, '_SECONDS_TO_PASS', 0)
        if holder:
            holder = dict(host=socket.gethostname(), started=work_dir._started(holder['pid'])) | holder
        (tmp_path / LOCK).write_text(json.dumps(holder))
        if is_held:
            with pytest.raises(BadInputError, match=f'process {holder["pid"]} on'), lock_work_dir(tmp_path):
                pass
        else:
            with lock_work_dir(tmp_path):
                pass


class TestBest:
    @pytest.fixture
    def hook(self, tmp_path):
        hook = AtomicCheckpointHook(interval=1, save_best=['acc', 'loss'], rule=['greater', 'less'])
        hook.file_backend, hook.out_dir, hook._is_finite = LocalBackend(), str(tmp_path), True
        hook._set_best(dict(acc=None, loss=None))
        return hook

    @staticmethod
    def runner(tmp_path, epoch, save):
        hub = MessageHub.get_instance(f'best {tmp_path}')
        return SimpleNamespace(
            epoch=epoch,
            iter=epoch,
            message_hub=hub,
            logger=MMLogger('best'),
            save_checkpoint=save,
            work_dir=str(tmp_path),
        )

    def test_it_stays_until_its_successor_is_on_the_disk(self, hook, tmp_path):
        def save(out_dir, filename, *_, **__):
            before.append(sorted(path.name for path in tmp_path.glob('best_*')))
            (tmp_path / filename).touch()

        def fail(*_, **__):
            raise OSError(28, 'No space left on device')

        before = []
        hook._save_best_checkpoint(self.runner(tmp_path, 1, save), dict(acc=1, loss=1))
        hook._save_best_checkpoint(self.runner(tmp_path, 2, save), dict(acc=2, loss=2))
        assert before[-1] == ['best_acc_epoch_1.pth', 'best_loss_epoch_1.pth']
        now = ['best_acc_epoch_2.pth', 'best_loss_epoch_1.pth']
        assert sorted(path.name for path in tmp_path.glob('best_*')) == now
        with pytest.raises(BadInputError, match='No space left.*best_acc_epoch_2.pth.*is intact'):
            hook._save_best_checkpoint(self.runner(tmp_path, 3, fail), dict(acc=3, loss=3))
        assert sorted(path.name for path in tmp_path.glob('best_*')) == now


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_copied_work_dir_goes_on_and_leaves_the_original_alone(call_tool, make_config, tmp_path):
    more = """train_cfg.update(max_epochs={epochs})
default_hooks.update(checkpoint=dict(type='CheckpointHook', interval=1, max_keep_ckpts=1, save_best='auto'))
"""
    code, text = call_tool(
        'train.py', make_config('classification', more.format(epochs=1)), '--work-dir', tmp_path / 'one'
    )
    assert not code, text[-2000:]
    shutil.copytree(tmp_path / 'one', tmp_path / 'two')
    (tmp_path / 'two' / 'last_checkpoint').write_bytes(b'')
    before = contents(tmp_path / 'one')
    arguments = (make_config('classification', more.format(epochs=3)), '--work-dir', tmp_path / 'two')
    code, text = call_tool('train.py', *arguments, '--resume')
    assert not code and f'resuming from {tmp_path}/two/epoch_1.pth' in text, text[-2000:]
    assert contents(tmp_path / 'one') == before
    hub = read_checkpoint(tmp_path / 'two' / 'epoch_3.pth')['message_hub']['runtime_info']
    assert hub['best_ckpt'].startswith(f'{tmp_path}/two/')
    assert len(list((tmp_path / 'two').glob('best_*'))) == 1
    # Without --resume the folder's checkpoints are named, and none but those of the same names is replaced.
    code, text = call_tool(
        'train.py', make_config('classification', more.format(epochs=1)), '--work-dir', tmp_path / 'two'
    )
    assert 'holds checkpoints of another run (' in text and (tmp_path / 'two' / 'epoch_3.pth').exists()
