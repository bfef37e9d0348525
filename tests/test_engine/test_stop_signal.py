import os
import signal
import time
from types import SimpleNamespace

import pytest
from mmengine.fileio import get_file_backend

from vik_mm.engine.hooks import AtomicCheckpointHook
from vik_mm.engine.runner.stop_signal import StopSignal, TrainingStopped, outlive_signals


def send(name):
    os.kill(os.getpid(), getattr(signal, name))


def test_the_second_ctrl_c_stops_at_once(monkeypatch, capfd):
    monkeypatch.delenv('TORCHELASTIC_RUN_ID', raising=False)
    with StopSignal() as stop:
        send('SIGINT')
        assert stop.is_set_anywhere() and stop.exit_code == 130
        assert 'a second Ctrl-C stops at once' in capfd.readouterr().err
        with pytest.raises(KeyboardInterrupt):
            send('SIGINT')
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_under_torchrun_one_press_arrives_twice(monkeypatch):
    monkeypatch.setenv('TORCHELASTIC_RUN_ID', 'x')
    with StopSignal() as stop:
        send('SIGINT')
        send('SIGINT')
        assert stop.is_set_anywhere()
        stop._pressed_at -= 6
        with pytest.raises(KeyboardInterrupt):
            send('SIGINT')


def test_sigterm_may_come_as_often_as_it_likes():
    with StopSignal() as stop:
        assert not stop.is_set_anywhere()
        send('SIGTERM')
        send('SIGTERM')
        assert stop.is_set_anywhere() and stop.exit_code == TrainingStopped('').exit_code == 0


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='needs fork')
def test_a_loader_process_outlives_both():
    is_ready, ready = os.pipe()
    child = os.fork()
    if child == 0:
        outlive_signals(0)
        signal.alarm(60)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)  # not its parent's
        while signal.SIGTERM in signal.sigpending():  # another one meanwhile would be lost
            time.sleep(0.01)
        signal.signal(signal.SIGUSR1, lambda *_: os.write(ready, b'.'))
        os.write(ready, b'.')
        while True:
            signal.pause()
    os.read(is_ready, 1)
    for name in ('SIGINT', 'SIGHUP'):
        os.kill(child, getattr(signal, name))
        os.kill(child, signal.SIGUSR1)
        assert os.read(is_ready, 1) == b'.', f'{name} has ended it'
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def test_a_second_ctrl_c_while_the_config_is_formatted_for_a_checkpoint_is_no_wrong_config(tmp_path):
    class Runner:
        work_dir, message_hub = str(tmp_path), SimpleNamespace(update_info=lambda *_: None)

        def save_checkpoint(self, *_, **__):
            try:
                raise KeyboardInterrupt
            except:  # noqa: E722  as in MMEngine's Config.pretty_text
                raise SyntaxError('Failed to format the config file')  # noqa: B904

    hook = AtomicCheckpointHook(interval=1)
    hook.out_dir, hook.last_ckpt, hook.file_backend = str(tmp_path), None, get_file_backend(str(tmp_path))
    hook.backend_args = hook.file_client_args = None
    with pytest.raises(KeyboardInterrupt):
        hook._write(Runner(), 'interrupted.pth', {})
