"""The scripts that sbatch is given, run as Slurm would; there is no cluster here."""

import os
import signal
import subprocess

import pytest
from study_runs import fake, module, value, wait_until


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Commands of Slurm that keep what they are given, and a function that then does what the cluster would."""
    pytest.importorskip('submitit')
    folder = tmp_path / 'bin'
    folder.mkdir()
    scripts = dict(
        sbatch='n=$(ls {0}/*.job 2>/dev/null | wc -l); cp "$1" {0}/$((n + 1)).job; echo Submitted batch job $((n + 1))',
        srun='while [[ $1 == -* ]]; do case $1 in --output|--error) shift;; esac; shift; done; exec "$@"',
        squeue='[ -f {0}/queue ] && echo "$3 is there"; true',
        scontrol='echo "$@" >> {0}/scontrol',
    )
    for name, script in scripts.items():
        path = folder / name
        path.write_text(f'#!/bin/bash\n{script.format(folder) if "{0}" in script else script}\n')
        path.chmod(0o755)
    monkeypatch.setenv('PATH', f'{folder}:{os.environ["PATH"]}')

    def start(array, task):
        environment = dict(os.environ, SLURM_JOB_ID=f'1{array}{task}', SLURM_ARRAY_JOB_ID=str(array))
        environment.update(SLURM_ARRAY_TASK_ID=str(task), SLURM_PROCID='0', SLURM_NTASKS='1')
        return subprocess.Popen(
            ['bash', str(folder / f'{array}.job')], env=environment, stderr=subprocess.PIPE, start_new_session=True
        )

    start.folder = folder
    return start


def test_on_slurm_a_study_is_an_array_and_what_waits_for_it_another(read, cluster, monkeypatch, call_tool, tmp_path):
    slurm = module('slurm')
    runs = read(rows=[dict(name='base'), dict(name='tuned', needs='base')], seeds=[0, 1])
    parameters = slurm.read_parameters(['time=30', 'partition=long'])
    assert slurm.submit(runs, 2, 3, parameters, command=fake) == ['1', '2']
    first, second = ((cluster.folder / f'{n}.job').read_text() for n in (1, 2))
    for line in ('--array=0-1%2', '--cpus-per-task=3', '--time=30', '--partition=long', '--job-name=trial'):
        assert f'#SBATCH {line}\n' in first and f'#SBATCH {line}\n' in second
    assert '--dependency=afterok:1\n' in second and 'dependency' not in first
    task = cluster(1, 1)
    _, said = task.communicate(timeout=100)
    assert task.returncode == 0, said.decode()
    (done,) = (run for run in runs if run.is_done)
    assert str(done) == 'base, seed 1' and done.result['figures']['accuracy/top1']['value'] == value(1)
    (cluster.folder / 'queue').touch()
    with pytest.raises(module('errors').StudyError, match='array 1 of this study is still in the queue'):
        slurm.submit(runs, 2, 3, parameters)


def test_on_slurm_a_task_out_of_time_saves_itself_and_is_started_again(read, cluster):
    runs = read(rows=[dict(name='one')], seeds=[0, 1])
    slurm = module('slurm')
    slurm.submit(runs, 1, 1, slurm.read_parameters(['time=1']), command=lambda run: fake(run, wait_at=3))
    task = cluster(1, 0)
    wait_until(lambda: runs[0].checkpoint() or task.poll() is not None, seconds=100)
    assert task.poll() is None, task.stderr.read().decode()
    os.kill(runs[0].sittings[-1]['pid'], signal.SIGUSR2)  # to all processes of the task, as Slurm does
    os.killpg(task.pid, signal.SIGUSR2)
    task.communicate(timeout=100)
    assert not runs[0].is_done and runs[0].checkpoint().name == 'interrupted.pth'
    assert 'requeue 1_0' in (cluster.folder / 'scontrol').read_text()
    task = cluster(1, 0)
    _, said = task.communicate(timeout=100)
    assert task.returncode == 0, said.decode()
    assert runs[0].result['sittings'] == 2 and runs[0].result['figures']['accuracy/top1']['value'] == value(0)


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['time'], 'write KEY=VALUE'),
        (['tme=3'], 'with a key of partition, time'),
        (['time=soon'], 'whole number'),
        (['mem=4G'], 'needs time'),
    ],
    ids=['no value', 'unknown key', 'no number', 'no time'],
)
def test_faulty_options_of_slurm_are_refused(given, message):
    with pytest.raises(module('errors').StudyError, match=message):
        module('slurm').read_parameters(given)
