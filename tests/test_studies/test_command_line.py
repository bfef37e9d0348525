import csv
import os
import subprocess
import sys

import pytest
import torch
import yaml
from mmengine.config import Config
from study_runs import module, train

MIXER = dict(type='Pooling', _delete_=True)


@pytest.fixture
def finished(read):
    """A study whose runs are done."""
    runs = read()
    train(runs)
    return runs


def compare(call_tool, tmp_path, *args):
    return call_tool('compare.py', tmp_path / 'study.yml', '--work-root', tmp_path / 'root', *args)


def test_the_plan_and_the_report_come_without_torch_and_without_training(finished, read, tmp_path, root):
    read(rows=[dict(name='one'), dict(name='two', seeds=[0, 1, 9])])
    script = (
        f'import sys, runpy; sys.argv = ["compare.py", "study.yml", "--work-root", "root", sys.argv[1]]\n'
        f'try: runpy.run_path({str(root / "tools/compare.py")!r}, run_name="__main__")\n'
        'finally: assert "torch" not in sys.modules and "vik_mm" not in sys.modules'
    )
    for mode, expected in (('--dry-run', '5 done, 1 missing'), ('--report-only', '- not done: two, seed 9')):
        environment = {**os.environ, 'PYTHONPATH': str(root / 'tools')}
        command = [sys.executable, '-c', script, mode]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and expected in done.stdout, done.stdout + done.stderr


def test_rows_and_seeds_choose_and_bring_what_they_need(read, call_tool, tmp_path):
    read(rows=[dict(name='base'), dict(name='tuned', needs='base@1'), dict(name='other')])
    code, text = compare(call_tool, tmp_path, '--dry-run', '--rows', 'tuned', '--seeds', '0')
    assert not code and text.count('missing ') == 2 and 'missing  base, seed 1' in text and 'tuned, seed 0' in text
    code, text = compare(call_tool, tmp_path, '--dry-run', '--rows', 'tune')
    assert code == 'error: --rows tune: the rows of trial are base, tuned, other'


def test_two_runners_of_one_study_are_refused(read, call_tool, tmp_path):
    read()
    handle = module('runs').lock(tmp_path / 'root/trial/.lock')
    code, _ = compare(call_tool, tmp_path)
    os.close(handle)
    assert code.startswith('error: another runner is at work on trial')


def test_a_work_root_that_cannot_be_written_to_is_refused(read, call_tool, tmp_path):
    read()
    (tmp_path / 'root').write_text('a file')
    code, _ = compare(call_tool, tmp_path)
    assert 'root/trial cannot be written to' in code and 'choose another --work-root' in code


def test_another_study_has_to_be_done_before(read, call_tool, tmp_path):
    read(rows=[dict(name='tuned', overrides=dict(load_from='{pretraining/base@0.published}'))])
    code, _ = compare(call_tool, tmp_path)
    assert 'tuned, seed 0 needs pretraining/base@0.published, which is not done' in code
    assert code.endswith('run that study first')


def test_pause_and_go_make_and_remove_the_file(read, call_tool, tmp_path):
    read()
    compare(call_tool, tmp_path, '--pause')
    assert (tmp_path / 'root/trial/PAUSE').exists()
    compare(call_tool, tmp_path, '--go')
    assert not (tmp_path / 'root/trial/PAUSE').exists()


def look(root, figures, *arguments):
    probe = module('probe')
    return probe.look(probe.load_tool(), [*map(str, arguments)], figures)


def test_configs_are_looked_at_before_anything_starts(shapes_config, tmp_path, root):
    good = look(root, ['accuracy/top1'], shapes_config, '--work-dir', 'x', '--cfg-options', 'randomness.seed=7')
    assert good['config']['train_cfg']['max_epochs'] == 1
    assert 'work_dir' not in good['config'] and 'seed' not in good['config']['randomness']
    assert 'begin with accuracy/' in look(root, ['coco/bbox_mAP'], shapes_config)['error']
    assert 'unrecognized arguments: --fast' in look(root, [], shapes_config, '--fast')['error']
    missing = look(root, [], shapes_config, '--cfg-options', 'train_dataloader.dataset.data_root=nowhere')
    assert 'nowhere does not exist' in missing['error']
    broken = tmp_path / 'broken.py'
    broken.write_text('model = dict(')
    assert look(root, [], broken)['error']


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (
            dict(arguments=['--backbone', 'vik-x']),
            "row one, config {config}: backbone 'vik-x' is unknown; choose one",
        ),
        (
            dict(config='mmpretrain::none.py'),
            'row one, config mmpretrain::none.py: config mmpretrain::none.py does ',
        ),
        (dict(arguments=['--fast']), 'row one, config {config}: unrecognized arguments: --fast'),
        (dict(arguments=['--help']), 'row one, config {config}: with these arguments tools/train.py ends without'),
    ],
    ids=['unknown backbone', 'config that no package has', 'unknown argument', 'help'],
)
def test_what_train_py_would_refuse_ends_in_one_line(
    changes, message, shapes_config, read, call_tool, tmp_path, monkeypatch
):
    def probe(commands, figures):
        return dict(machine={}, configs=[look(None, figures, *command) for command in commands])

    monkeypatch.setattr(module('sitting'), 'probe', probe)  # in this process: the imports are there
    changes = dict(config=str(shapes_config)) | changes
    read(**changes)
    code, _ = compare(call_tool, tmp_path)
    assert code.startswith(f'error: {message.format(config=shapes_config)}') and '\n' not in code


def test_a_safe_config_does_not_bind_the_rows_after_it(shapes_config, tmp_path, root, monkeypatch):
    Config.fromfile(shapes_config).dump(tmp_path / 'stranger.json')
    (tmp_path / 'my_metrics.py').write_text(
        'from mmpretrain.evaluation import Accuracy\n\n\nclass Mine(Accuracy):\n    default_prefix = "mine"\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    own = tmp_path / 'own.py'
    own.write_text(f"_base_ = '{shapes_config}'\nval_evaluator = dict(type='my_metrics.Mine')\n")
    assert 'config' in look(root, ['accuracy/top1'], tmp_path / 'stranger.json', '--safe-config')
    assert 'begin with mine/' in look(root, ['accuracy/top1'], own)['error']


@pytest.mark.skipif(sys.platform == 'win32', reason='the modules are not there anyway')
def test_help_needs_no_module_that_windows_lacks(root):
    script = (
        'import sys, runpy; sys.argv = ["compare.py", "--help"]\n'
        'sys.modules.update(dict.fromkeys(["fcntl", "termios", "resource", "pwd", "grp"]))\n'
        f'runpy.run_path({str(root / "tools/compare.py")!r}, run_name="__main__")'
    )
    environment = {**os.environ, 'PYTHONPATH': str(root / 'tools')}
    done = subprocess.run([sys.executable, '-c', script], env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and 'usage: compare.py' in done.stdout, done.stderr


def test_a_real_study_trains_and_goes_on(shapes_config, tmp_path, run_tool):
    """Two runs of a second each; importing everything is what takes the time."""
    rows = [dict(name='multipatch'), dict(name='pooling', overrides={'model.backbone.token_mixer': MIXER})]
    study = dict(figure='accuracy/top1', config=str(shapes_config), seeds=[3], rows=rows, jobs=2)
    (tmp_path / 'real.yml').write_text(yaml.safe_dump(study))
    done = run_tool('compare.py', 'real.yml')
    folder = tmp_path / 'work_dirs/studies/real'
    lines = list(csv.DictReader((folder / 'results.csv').open()))
    assert [(line['row'], line['seed'], line['iterations']) for line in lines] == [
        ('multipatch', '3', '4'),
        ('pooling', '3', '4'),
    ]
    for line in lines:
        assert 0 <= float(line['accuracy/top1']) <= 100 and line['torch'] == torch.__version__
        assert 100 < float(line['peak_mib']) < 10000
    assert f'| pooling | {float(lines[1]["accuracy/top1"]):.2f} |  | 1 |' in done.stdout
    # Nothing is missing: nothing is imported, nothing is trained.
    again = run_tool('compare.py', 'real.yml')
    assert 'looking' not in again.text and 'started' not in again.text and '| pooling |' in again.stdout
