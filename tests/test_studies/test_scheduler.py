import errno
import fcntl
import json
import os
import signal
import stat
import subprocess
import sys
import textwrap

import pytest
from study_runs import FAKE, MACHINE, Events, module, train, value, wait_until


def test_a_run_that_fails_is_named_with_its_last_line_and_the_others_go_on(read):
    runs = read(rows=[dict(name='one', overrides=dict(fail_at=3)), dict(name='two')])
    ended, told = train(runs)
    assert ended and [run.is_done for run in runs] == [False, True] * 3
    assert sum('failed: one, seed' in line and 'error: the loss is not finite' in line for line in told) == 3
    _, told = train(runs)
    assert not told  # nothing is tried again
    cured = read()
    for run in cured:
        (run.folder / 'failed.json').unlink(missing_ok=True)
    train(cured)
    assert all(run.result['figures']['accuracy/top1']['value'] == value(run.seed) for run in cured)
    assert cured[0].result['sittings'] == 2  # it went on where it had failed


def test_a_run_without_a_checkpoint_starts_anew(read):
    runs = read(rows=[dict(name='one', overrides=dict(fail_at=1))], seeds=[1])
    train(runs)
    (runs[0].folder / 'failed.json').unlink()
    runs = read(rows=[dict(name='one', overrides=dict(figure='accuracy/top1'))], seeds=[1])
    assert not module('runs').check_records(runs)  # nothing of the other settings is left in it
    train(runs)
    assert runs[0].result['sittings'] == 1


@pytest.mark.parametrize('damage', [None, b'', b'\xff\x00\xfe', b'/x/\x00'], ids=['gone', 'empty', 'binary', 'null'])
def test_checkpoints_are_kept_where_the_record_of_the_last_one_is_damaged(damage, read):
    train(read(rows=[dict(name='one', overrides=dict(fail_at=3))], seeds=[0]))
    (run,) = read(rows=[dict(name='one', overrides=dict(fail_at=3))], seeds=[0])
    record = run.folder / 'last_checkpoint'
    record.unlink() if damage is None else record.write_bytes(damage)
    (run.folder / 'best_accuracy.pth').touch()
    sittings, scalars = run.sittings, list(run.folder.glob('*/vis_data/scalars.json'))
    assert sittings and scalars
    assert run.checkpoint().name == 'epoch_2.pth' and not run.is_new
    (changed,) = read(rows=[dict(name='one', overrides=dict(width=2))], seeds=[0])
    assert module('runs').check_records([changed]) == [changed]
    run.begin(run.command())
    assert run.sittings == sittings and list(run.folder.glob('*/vis_data/scalars.json')) == scalars


def test_the_best_checkpoint_is_nothing_to_go_on_from(read):
    (run,) = read(rows=[dict(name='one')], seeds=[0])
    run.folder.mkdir(parents=True)
    (run.folder / 'best_accuracy.pth').touch()
    assert run.is_new


def test_records_are_written_where_the_file_system_refuses_fsync_chmod_and_locks(read, monkeypatch):
    def refuse(number):
        def call(*_, **__):
            raise OSError(number, os.strerror(number))

        return call

    (run,) = read(rows=[dict(name='one')], seeds=[0])
    monkeypatch.setattr(os, 'fsync', refuse(errno.EINVAL))
    monkeypatch.setattr(os, 'chmod', refuse(errno.EPERM))
    module('runs').write_json(run.folder / 'a.json', [1])
    assert module('runs').read_json(run.folder / 'a.json') == [1]
    for number in (errno.ENOLCK, errno.ENOSYS):
        monkeypatch.setattr(fcntl, 'flock', refuse(number))
        handle = module('runs').lock(run.folder / '.lock')
        assert handle is not None
        os.close(handle)


def test_the_umask_holds_for_records(read):
    (run,) = read(rows=[dict(name='one')], seeds=[0])
    before = os.umask(0o027)
    try:
        module('runs').write_json(run.folder / 'a.json', [1])
    finally:
        os.umask(before)
    assert stat.S_IMODE((run.folder / 'a.json').stat().st_mode) == 0o640


def test_a_figure_that_is_not_logged_ends_the_run_at_its_first_validation(read, monkeypatch):
    monkeypatch.setattr(module('sitting'), '_LOOK', 0)
    runs = read(figure='coco/bbox_mAP', rows=[dict(name='one')], seeds=0)
    train(runs, steps=1000, pause=0.02)
    assert runs[0].failure == 'the figure coco/bbox_mAP is not logged; logged: accuracy/top1, accuracy/top5'


def test_a_run_that_takes_too_long_ends_saved_and_is_named(read, monkeypatch):
    monkeypatch.setattr(module('sitting'), '_LOOK', 0)
    runs = read(timeout='0.3s', rows=[dict(name='one')], seeds=0)
    train(runs, steps=100000, pause=0.02)
    assert (
        runs[0].failure.startswith('not at its end after 0.005 min') and runs[0].checkpoint().name == 'interrupted.pth'
    )


@pytest.mark.parametrize('wait_at', [3, 6], ids=['in the middle', 'after the last step'])
def test_a_stopped_study_saves_its_runs_and_goes_on_to_the_same_figures(wait_at, read):
    runs = read()

    def interrupt(scheduler):
        if sum(run.checkpoint() is not None for run in runs) == 2 and not scheduler.times_told:
            os.kill(os.getpid(), signal.SIGTERM)

    ended, told = train(runs, Events(interrupt), wait_at=wait_at)
    assert not ended and not any(run.is_done for run in runs) and sum(t.startswith('stopped:') for t in told) == 2
    ended, told = train(runs)
    assert ended and sum(t.startswith('goes on:') for t in told) == 2
    for run in runs:
        assert run.result['figures']['accuracy/top1']['value'] == value(run.seed)
    assert sorted(run.result['sittings'] for run in runs) == [1, 1, 1, 1, 2, 2]
    scalars = module('logs').read_scalars(runs[0].folder)
    assert list(scalars.validation) == [1, 2, 3, 4, 5, 6] and len(scalars.losses()) == 6  # merged over sittings
    assert runs[0].seconds > runs[0].sittings[-1]['end'] - runs[0].sittings[-1]['start']


def test_a_stopped_training_says_what_the_runner_looks_for(root):
    assert module('sitting').STOPPED in (root / 'tools/train.py').read_text()


def test_a_pause_stops_the_runs_until_it_ends(read):
    runs = read(seeds=[0])
    pause_file = runs[0].root / 'trial' / 'PAUSE'
    seen = []

    def pause(scheduler):
        if not seen and all(run.checkpoint() for run in runs):
            pause_file.touch()
            seen.append('paused')
        elif seen == ['paused'] and scheduler.is_paused and not scheduler.running:
            assert all(run.checkpoint().name == 'interrupted.pth' for run in runs)
            pause_file.unlink()
            seen.append('over')

    ended, told = train(runs, Events(pause), wait_at=3)
    assert ended and seen == ['paused', 'over']
    assert [run.result['sittings'] for run in runs] == [2, 2]
    assert any(t.startswith('paused') for t in told) and 'goes on' in told


def runner_script(study, root):
    return textwrap.dedent(f"""
        import sys
        sys.path.insert(0, {str(root / 'tools')!r})
        from pathlib import Path
        from studies import runs, scheduler, study
        from studies.display import Display
        all_runs = runs.all_runs(study.read_study({str(study)!r}), Path('root'))
        command = lambda run: [sys.executable, {str(FAKE)!r}, str(run.folder), str(run.seed), 'wait_at=3']
        options = scheduler.Options(2, 1, (), {MACHINE!r}, Path('root/trial/PAUSE'), command, 0.01)
        scheduler.Scheduler(all_runs, options, Display(False)).run()
    """)


@pytest.mark.skipif(sys.platform != 'linux', reason='elsewhere the trainings go on')
def test_a_killed_runner_leaves_no_training_behind_and_nothing_is_lost(write_study, read, tmp_path, root):
    runs = read()
    script = runner_script(write_study(), root)
    runner = subprocess.Popen([sys.executable, '-c', script], cwd=tmp_path, stdout=subprocess.DEVNULL)
    wait_until(lambda: all(run.checkpoint() for run in runs[:2]))
    runner.kill()
    runner.wait()
    wait_until(lambda: all(run.checkpoint().name == 'interrupted.pth' for run in runs[:2]))
    train(runs)
    assert all(run.result['figures']['accuracy/top1']['value'] == value(run.seed) for run in runs)
    assert [run.result['sittings'] for run in runs[:2]] == [2, 2]


def test_a_run_that_another_process_trains_is_waited_for(read):
    runs = read(rows=[dict(name='one')], seeds=[0])
    handle = module('runs').lock(runs[0].folder / '.lock')
    looks = []

    def let_go(scheduler):
        assert not scheduler.running or len(looks) >= 3
        looks.append(1)
        if len(looks) == 3:
            os.close(handle)

    ended, told = train(runs, Events(let_go))
    assert ended and runs[0].is_done and told[0] == 'waits for another process that trains one, seed 0'


def test_a_row_waits_for_the_checkpoint_of_another(read, monkeypatch):
    rows = [
        dict(name='tuned', overrides={'from': '{base.checkpoint}'}),
        dict(name='tuned0', overrides={'from': '{base@0.checkpoint}'}, needs=['tuned']),
        dict(name='base'),
    ]
    runs = read(rows=rows, seeds=[0, 1])
    _, told = train(runs, jobs=1)
    started = [line.removeprefix('started: ') for line in told if line.startswith('started: ')]
    assert sorted(started) == sorted(map(str, runs))
    assert started.index('base, seed 1') < started.index('tuned, seed 1') < started.index('tuned0, seed 1')
    folders = {str(run): run.folder for run in runs}
    options = {str(run): run.arguments()[-2:] for run in runs}
    assert options['tuned, seed 1'] == [f'from={folders["base, seed 1"]}/epoch_6.pth', 'randomness.seed=1']
    assert options['tuned0, seed 1'][0] == f'from={folders["base, seed 0"]}/epoch_6.pth'


def test_a_row_waits_for_a_published_file(read, monkeypatch):
    sitting = module('sitting')
    publish = "import sys, shutil; shutil.copy(sys.argv[1], sys.argv[2] + '-0123abcd.pth')"
    runs = read(rows=[dict(name='base', seeds=[0]), dict(name='tuned', overrides={'from': '{base@0.published}'})])
    script = runs[0].root / 'publish.py'
    script.parent.mkdir(parents=True)
    script.write_text(publish)
    monkeypatch.setattr(sitting, 'PUBLISH', script)
    train(runs)
    assert all(run.is_done for run in runs)
    assert json.loads((runs[1].folder / 'command.json').read_text())['inputs'] == {
        'base@0.published': 'published-0123abcd.pth'
    }
    (published,) = runs[0].folder.glob('published-*')
    published.rename(published.with_name('published-ffffffff.pth'))
    with pytest.raises(module('errors').StudyError, match='trained from published-0123abcd.pth'):
        module('runs').check_records(runs)


def test_what_needs_a_failed_run_is_not_started(read):
    rows = [dict(name='base', overrides=dict(fail_at=1)), dict(name='tuned', needs='base')]
    runs = read(rows=rows, seeds=[0])
    _, told = train(runs)
    assert told[-1] == 'not started: tuned, seed 0, needs base' and runs[1].state == 'missing'


def test_gpus_are_given_out_by_turns(read):
    runs = read(seeds=[0])
    train(runs, gpus=(3, 5), pause=0.05)
    assert sorted(run.log.read_text().splitlines()[0] for run in runs) == ['threads 1 gpu 3', 'threads 1 gpu 5']


def test_a_folder_trained_with_other_settings_is_refused_unless_the_config_is_the_same(read, write_study):
    check = module('runs').check_records
    error = module('errors').StudyError

    def configured(rows, **config):
        runs = read(rows=rows, seeds=[0])
        for run in runs:
            run.config = config
        return runs

    train(configured([dict(name='one')], model=dict(width=1), steps=[1, 2]))
    changed = [dict(name='one', overrides=dict(width=2))]
    assert len(check(read(rows=changed, seeds=[0]))) == 1  # its config has to be looked at
    assert check(configured(changed, model=dict(width=1), steps=[1, 2])) == []
    with pytest.raises(error, match=r'another config \(model.width: 1 then, 2 now\): remove that folder'):
        check(configured(changed, model=dict(width=2), steps=[1, 2]))
    with pytest.raises(error, match=r'steps.1: 2 then, 3 now'):
        check(configured(changed, model=dict(width=1), steps=[1, 3]))
    (foreign,) = read(rows=[dict(name='two')], seeds=[0])
    foreign.folder.mkdir(parents=True)
    (foreign.folder / 'epoch_1.pth').touch()
    with pytest.raises(error, match='was not made by this tool'):
        check([foreign])
