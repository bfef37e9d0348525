"""Try and measure everything on one GPU, piece by piece; write CSV files and a summary to send in.

All pieces take about 25 minutes, each less than 10. What is done is kept: a second call goes on with what is missing or
failed. --smoke goes through a tiny form of all pieces, on a CPU too. The environment of `make test` is needed, with the
mm packages: vik_mm cannot be imported without them. The pieces that need mmdet or mmseg fail where these are missing.
"""

import argparse
import csv
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from vik_mm_cli.errors import BadInputError, end_on_user_errors

ROOT = Path(__file__).resolve().parent.parent
LIMIT_S = 590  # of a piece
CLASSIFIER = 'configs/vik/vik-demo_shapes.py'
TASKS = {  # config, data set's folder, and how to train a few iterations
    'classification': (CLASSIFIER, 'imagenet', ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1']),
    'detection': (
        'configs/detection/mask-rcnn_vik-demo_fpn_shapes.py',
        'coco/',
        ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1'],
    ),
    'segmentation': (
        'configs/segmentation/fpn_vik-demo_shapes.py',
        'ade20k',
        ['train_cfg.max_iters=LENGTH', 'train_cfg.val_interval=LENGTH'],
    ),
}


class Piece(NamedTuple):
    """One thing to try.

    Attributes:
        what: In the summary.
        commands: Makes the commands from the folder of the results and whether this is a smoke run.
        needs: Package that must be installed besides those of the environment.
    """

    what: str
    commands: Callable[[Path, bool], list[list[str]]]
    needs: str = ''


def gpu_tests(out, smoke):
    options = ['--collect-only'] if smoke else []
    tests = 'tests/test_ops' if smoke else 'tests'
    return [[sys.executable, '-m', 'pytest', '-n', '0', '-q', '-m', 'gpu', *options, tests]]


def measured(suite, name, dtype, cases=''):
    def commands(out, smoke):
        options = ['--tiny', '--rounds', '2'] if smoke else []
        # CPUs have no RoIAlign of bfloat16.
        wanted = 'float32' if smoke and suite == 'downstream' else dtype
        command = [sys.executable, '-W', 'ignore', 'benchmarks/bench.py', suite, '--roofline', '--dtype', wanted]
        return [[*command, '--cases', cases, '--out', str(out / f'{name}.csv'), *options]]

    return commands


def data(out, smoke):
    counts = ['--train', '16', '--val', '8', '--test', '8'] if smoke else ['--train', '2000', '--val', '200']
    return [[sys.executable, 'tools/data/make_shapes.py', str(out / 'shapes'), *counts]]


def training(task, *flags):
    """One process of NCCL (of gloo on a CPU), through the script that several take."""

    def commands(out, smoke):
        config, folder, length = TASKS[task]
        root = f'{out}/shapes/{folder}'
        options = [f'{split}_dataloader.dataset.data_root={root}' for split in ('train', 'val', 'test')]
        options += [text.replace('LENGTH', '4' if smoke else '500') for text in length]
        if task == 'detection':
            annotations = f'{root}annotations/instances_{{}}2017.json'
            options += [f'{split}_evaluator.ann_file={annotations.format(split)}' for split in ('val', 'test')]
        if smoke:
            options += ['train_dataloader.batch_size=4', 'default_hooks.logger.interval=1']
        work_dir = str(out / '-'.join([task, *(flag.strip('-') for flag in flags)]))
        return [['tools/dist_train.sh', config, '1', '--work-dir', work_dir, *flags, '--cfg-options', *options]]

    return commands


PIECES = {
    'tests': Piece('the tests that need a GPU', gpu_tests),
    'data': Piece('the built-in shapes, for the trainings', data),
    'operator-bf16': Piece('operator, bfloat16', measured('operator', 'operator-bf16', 'bfloat16', 'operator')),
    'operator-fp32': Piece('operator, float32', measured('operator', 'operator-fp32', 'float32', 'operator')),
    'models-bf16': Piece('classifiers at 224, bfloat16', measured('trainers', 'models-bf16', 'bfloat16')),
    'models-fp32': Piece('classifiers at 224, float32', measured('trainers', 'models-fp32', 'float32')),
    'mask-rcnn-bf16': Piece(
        'Mask R-CNN at 800x1333, bfloat16', measured('downstream', 'mask-rcnn-bf16', 'bfloat16', 'Mask R-CNN'), 'mmdet'
    ),
    'mask-rcnn-fp32': Piece(
        'Mask R-CNN at 800x1333, float32', measured('downstream', 'mask-rcnn-fp32', 'float32', 'Mask R-CNN'), 'mmdet'
    ),
    'train-classification': Piece('a short training', training('classification')),
    'train-detection': Piece('a short training', training('detection'), 'mmdet'),
    'train-segmentation': Piece('a short training', training('segmentation'), 'mmseg'),
    'amp': Piece('a short training in mixed precision', training('classification', '--amp')),
    'compile': Piece('a short training, compiled', training('classification', '--compile')),
}


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--piece', nargs='+', metavar='NAME', help=f'only these, done or not: {", ".join(PIECES)}')
    parser.add_argument('--time', type=seconds, metavar='9m', help='start no other piece after so long (s, m or h)')
    parser.add_argument('--out', help='folder for CSV files, logs and summary (default work_dirs/gpu)')
    parser.add_argument('--smoke', action='store_true', help='a tiny form of each piece, on a CPU too')
    args = parser.parse_args(argv)
    if unknown := sorted(set(args.piece or ()) - set(PIECES)):
        parser.error(f'--piece {" ".join(unknown)}: choose from {", ".join(PIECES)}')
    return args


def seconds(text: str) -> float:
    match = re.fullmatch(r'(\d+(?:\.\d+)?)([smh]?)', text)
    if not match:
        raise argparse.ArgumentTypeError(f'{text} is no time; write 90s, 9m or 1h')
    return float(match[1]) * dict(s=1, m=60, h=3600)[match[2] or 's']


def free_port() -> str:
    with socket.socket() as server:
        server.bind(('127.0.0.1', 0))
        return str(server.getsockname()[1])


def telling_line(text: str, has_failed: bool) -> str:
    """Give a log's last line; of a failed piece the last one that names an error, if any: launchers write on."""
    lines = [line.strip() for line in text.splitlines() if re.search(r'\w', line) and not line.startswith('ended: ')]
    errors = [line for line in lines if re.match(r'(\[rank\d+\]: )?[\w.]*(Error|error): \S', line)]
    return (errors if has_failed and errors else lines or [''])[-1]


def run_piece(name: str, out: Path, smoke: bool) -> dict:
    """Run a piece's commands; tell how it went."""
    piece, start, log = PIECES[name], time.monotonic(), out / f'{name}.log'
    if piece.needs and importlib.util.find_spec(piece.needs) is None:
        return dict(status='failed', seconds=0, last_line=f'{piece.needs} is not installed')
    environment = dict(os.environ, PYTHON=sys.executable, PORT=free_port(), PYTHONWARNINGS='ignore')
    environment['PYTHONPATH'] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get('PYTHONPATH')]))
    code = 0
    with log.open('w') as file:
        for command in piece.commands(out, smoke):
            print('$', *command, file=file, flush=True)
            left = LIMIT_S - (time.monotonic() - start)
            # A session of its own: what a piece has started ends with it.
            with subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            ) as process:
                try:
                    code = process.wait(left)
                except BaseException as error:
                    os.killpg(process.pid, 9)
                    if not isinstance(error, subprocess.TimeoutExpired):
                        raise
                    code = f'took more than {LIMIT_S} s'
            if code:
                print(f'ended: {code}', file=file)
                break
    last = code if isinstance(code, str) else telling_line(log.read_text(errors='replace'), bool(code))
    return dict(status='failed' if code else 'done', seconds=round(time.monotonic() - start), last_line=last)


def summary(results: dict, out: Path, smoke: bool) -> str:
    """Write what was found as Markdown."""
    tables, machine = [], ''
    for path in sorted(out.glob('*.csv')):
        with path.open() as file:
            rows = list(csv.DictReader(file))
        if not rows:
            continue
        keys = ('device', 'instruction_set', 'torch', 'timm', 'python', 'commit')
        machine = machine or ', '.join(f'{key} {rows[0][key]}' for key in keys)
        tables += [f'## {path.stem}', '', *table(rows), '']
    lines = ['# vik_mm on one GPU', '']
    if smoke:
        lines += ['A smoke run: it shows that the pieces run. Its times mean nothing.', '']
    lines += [f'Machine: {machine or "nothing was measured"}', '']
    lines += ['| piece | what | result | seconds | last line |', '|---|---|---|---|---|']
    for name, piece in PIECES.items():
        result = results.get(name, dict(status='missing', seconds='', last_line=''))
        last = result['last_line'].replace('|', r'\|')[:160]
        lines.append(f'| {name} | {piece.what} | {result["status"]} | {result["seconds"]} | {last} |')
    return '\n'.join([*lines, '', *tables])


def table(rows: list[dict]) -> list[str]:
    """Rows of a CSV file as Markdown."""
    columns = {
        'comparison': 'comparison',
        'contender': 'contender',
        'speedup': 'speed-up',
        'median_ms': 'median, ms',
        'images_per_s': 'images/s',
        'peak_mb': 'peak, MB',
        'roofline': 'share of the limit',
    }
    lines = ['| ' + ' | '.join(columns.values()) + ' |', '|---' * len(columns) + '|']
    return lines + ['| ' + ' | '.join(row[key] for key in columns) + ' |' for row in rows]


def has_gpu() -> bool:
    command = [sys.executable, '-c', 'import torch; raise SystemExit(not torch.cuda.is_available())']
    return not subprocess.run(command).returncode


def run(args) -> int:
    """Go through the pieces that are missing; give the number of those that failed."""
    if not args.smoke and not has_gpu():
        raise BadInputError('PyTorch finds no GPU here; --smoke tries the pieces on a CPU')
    out = Path(args.out or f'work_dirs/gpu{"-smoke" if args.smoke else ""}').resolve()
    out.mkdir(parents=True, exist_ok=True)
    state = out / 'pieces.json'
    results = json.loads(state.read_text()) if state.exists() else {}
    wanted = args.piece or [name for name in PIECES if results.get(name, {}).get('status') != 'done']
    start = time.monotonic()
    for name in wanted:
        if args.time is not None and time.monotonic() - start >= args.time:
            print(f'stopped before {name}: the time is up; call again to go on')
            break
        print(f'{name}: {PIECES[name].what} ...', flush=True)
        results[name] = run_piece(name, out, args.smoke)
        state.write_text(json.dumps(results, indent=1))
        (out / 'summary.md').write_text(summary(results, out, args.smoke))
        print('  {status} after {seconds} s: {last_line}'.format(**results[name]), flush=True)
    missing = [name for name in PIECES if name not in results]
    failed = [name for name in PIECES if results.get(name, {}).get('status') == 'failed']
    print(f'{len(PIECES) - len(missing) - len(failed)} done, failed: {failed}, missing: {missing}')
    print(f'{out / "summary.md"}')
    if not args.smoke and not missing:
        print('Please send summary.md and the CSV files in: open an issue in this repository and attach them.')
    return len(failed)


def main():
    with end_on_user_errors():
        sys.exit(1 if run(parse_args()) else 0)


if __name__ == '__main__':
    main()
