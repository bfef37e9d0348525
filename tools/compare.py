"""Train what a study compares, and write its tables and plots; a second run trains what is still missing.

    python tools/compare.py configs/studies/demo_shapes.yml

docs/studies.md says what stands in a study's file.
"""

import argparse
import dataclasses
import os
import shlex
import sys
import tempfile
from pathlib import Path

from studies.display import Display
from studies.errors import StudyError
from studies.report import write_report
from studies.runs import Run, all_runs, check_records, commit, lock, of_other_commits
from studies.scheduler import Options, Scheduler
from studies.sitting import probe
from studies.study import Study, read_study, seconds

from vik_mm_cli.errors import end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('study', help='the study: a YAML file')
    parser.add_argument('--work-root', default='work_dirs/studies', help='folder of all studies; default %(default)s')
    parser.add_argument('--out', help='where tables and plots go; default WORK_ROOT/<study>')
    parser.add_argument('--rows', nargs='+', metavar='ROW', help='only these rows, and those that they need')
    parser.add_argument('--seeds', nargs='+', type=int, metavar='SEED', help='only these seeds')
    parser.add_argument('--jobs', type=int, help='runs at a time')
    parser.add_argument('--threads', type=int, help='threads of a run')
    parser.add_argument('--gpus', type=int, nargs='+', help='numbers of the GPUs to spread the runs over')
    parser.add_argument('--timeout', help='what a run may take, over all its sittings, e.g. 20m')
    parser.add_argument(
        '--slurm', nargs='+', metavar='KEY=VALUE', help='submit the runs to Slurm, e.g. --slurm partition=gpu time=120'
    )
    parser.add_argument('--retry', action='store_true', help='start failed runs again')
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument('--dry-run', action='store_true', help='only list the runs, their state and their commands')
    mode.add_argument('--report-only', action='store_true', help='only write tables and plots of what is done')
    mode.add_argument('--pause', action='store_true', help='have the tool that is at work save and stop its runs')
    mode.add_argument('--go', action='store_true', help='end the pause')
    return parser.parse_args(argv)


def choose(study: Study, root: Path, rows: list[str] | None, seeds: list[int] | None) -> list[Run]:
    """Choose the runs that the command line asks for, and those that they need."""
    runs = all_runs(study, root)
    for row in rows or []:
        if row not in (names := [each.name for each in study.rows]):
            raise StudyError(f'--rows {row}: the rows of {study.name} are {", ".join(names)}')
    for seed in seeds or []:
        if not any(run.seed == seed for run in runs):
            raise StudyError(f'--seeds {seed}: no row of {study.name} has it')
    chosen = {run.folder for run in runs if (not rows or run.row.name in rows) and (not seeds or run.seed in seeds)}
    while more := {n.folder for run in runs if run.folder in chosen for n in run.needs()} - chosen:
        chosen |= more
    return [run for run in runs if run.folder in chosen]


def check_folder(folder: Path) -> None:
    """Make sure that a folder can be written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StudyError(f'{folder} cannot be written to ({error.strerror}); choose another --work-root') from error


def check_other_studies(runs: list[Run]) -> None:
    """Make sure that what runs need of other studies is there."""
    for run in runs:
        for need in run.needs():
            if need.reference.study not in (None, run.study.name) and not need.is_done:
                raise StudyError(
                    f'{run} needs {need.reference}, which is not done ({need.folder}): run that study first'
                )


def look_at_configs(runs: list[Run]) -> dict:
    """Load the config of each row once, note it down in its runs, and describe this machine."""
    study = runs[0].study
    rows = {}
    for run in runs:
        rows.setdefault(run.row.name, run)
    print(f'looking at the configs of {len(rows)} rows', flush=True)
    answer = probe(
        [run.arguments(are_filled=False) for run in rows.values()],
        [figure.name for figure in study.figures],
    )
    for name, looked in zip(rows, answer['configs']):
        if 'error' in looked:
            raise StudyError(f'row {name}, config {rows[name].row.config}: {looked["error"]}')
        for run in runs:
            if run.row.name == name:
                run.config = looked['config']
    return answer['machine']


def print_plan(runs: list[Run]) -> None:
    """List the runs, their state and their commands."""
    for run in runs:
        print(f'{run.state:8} {run}')
        if not run.is_done:
            print(f'         {shlex.join(run.command())}')
    states = [run.state for run in runs]
    print(', '.join(f'{states.count(state)} {state}' for state in dict.fromkeys(states)))


def prepare(runs: list[Run], is_retried: bool) -> dict:
    """Check all that can be checked before anything starts; return this machine's description."""
    check_other_studies(runs)
    missing = [run for run in runs if not run.is_done and (is_retried or run.failure is None)]
    rows = {run.row.name for run in (*missing, *check_records(runs))}
    machine = {}
    if rows:
        # Also of a row's runs that are done: the config file may have changed since.
        machine = look_at_configs([run for run in runs if run.row.name in rows])
        check_records(runs)
    if others := of_other_commits(runs):
        text = f'{len(others)} runs are of another commit than {commit()}, among them {others[0]}'
        print(f'warning: {text}', file=sys.stderr)
    return machine


def submit(runs: list[Run], args) -> int:
    """Hand what is missing to Slurm; return the exit code."""
    from studies import slurm

    study = runs[0].study
    parameters = slurm.read_parameters(args.slurm)
    for run in runs:
        for need in run.needs():
            if need.is_done and not need.is_ready:
                slurm.publish(need)
    arrays = slurm.submit(runs, study.jobs, study.threads, parameters)
    print(f'submitted {", ".join(arrays) or "nothing"}; --report-only shows what is done')
    return 0


def train(runs: list[Run], machine: dict) -> bool:
    """Train what is missing; return False if told to stop."""
    study = runs[0].study
    if study.jobs * study.threads > (cores := os.cpu_count() or 1):
        print(f'warning: {study.jobs} jobs of {study.threads} threads share {cores} cores', file=sys.stderr)
    pause_file = runs[0].root / study.name / 'PAUSE'
    options = Options(study.jobs, study.threads, study.gpus, machine, pause_file)
    return Scheduler(runs, options, Display()).run()


def compare(args) -> int:
    """Do what the command line asks for; return the exit code."""
    study = read_study(args.study)
    given = dict(jobs=args.jobs, threads=args.threads, gpus=args.gpus and tuple(args.gpus))
    given['timeout'] = args.timeout and seconds(args.timeout)
    study = dataclasses.replace(study, **{key: value for key, value in given.items() if value is not None})
    if study.jobs < 1 or study.threads < 1:
        raise StudyError('--jobs and --threads must be positive')
    root = Path(args.work_root)
    runs = choose(study, root, args.rows, args.seeds)
    folder = root / study.name
    out = Path(args.out) if args.out else folder
    if args.dry_run:
        print_plan(runs)
        return 0
    check_folder(folder)
    if args.pause or args.go:
        pause_file = folder / 'PAUSE'
        pause_file.touch() if args.pause else pause_file.unlink(missing_ok=True)
        return 0
    if args.report_only:
        prepare_report(runs)
        print(write_report(runs, out))
        return 0
    if (handle := lock(folder / '.lock')) is None:
        raise StudyError(f'another runner is at work on {study.name} ({folder})')
    try:
        machine = prepare(runs, args.retry)
        for run in runs if args.retry else []:
            (run.folder / 'failed.json').unlink(missing_ok=True)
        if args.slurm:
            return submit(runs, args)
        ended = all(run.is_done for run in runs) or train(runs, machine)
    finally:
        os.close(handle)
    print(write_report(runs, out))
    failed = [run for run in runs if not run.is_done and run.failure]
    for run in failed:
        print(f'failed: {run}: {run.failure} ({run.log})', file=sys.stderr)
    if not ended:
        print(f'stopped; start again to go on: {shlex.join(["python", *sys.argv])}', file=sys.stderr)
        return 130
    if failed:
        print('--retry starts failed runs again', file=sys.stderr)
    return 0 if all(run.is_done for run in runs) else 1


def prepare_report(runs: list[Run]) -> None:
    """Make sure that what is reported belongs to the study."""
    if doubtful := check_records([run for run in runs if run.is_done]):
        look_at_configs(doubtful)
        check_records(doubtful)


def main():
    with end_on_user_errors():
        sys.exit(compare(parse_args()))


if __name__ == '__main__':
    main()
