"""Measure ViK against the release's arithmetic with equal weights: time, interleaved, and peak memory.

Both models run in turn within one process, the order drawn anew each round, so that a noisy machine hits both alike;
the ratio of the two times of a round is what counts. Peak memory is the growth of a fresh process's resident set above
what it had after a first step. Nothing is measured before both models gave the same answers.
"""

import argparse
import csv
import ctypes
import gc
import json
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from cases import CASES, Case, answer, build, step

HERE = Path(__file__).parent
FIELDS = [
    *('case', 'ours_ms', 'release_ms', 'speedup', 'speedup_p25', 'speedup_p75'),
    *('ours_peak_mb', 'release_peak_mb', 'memory_ratio', 'max_difference', 'rounds'),
    *('threads', 'device', 'torch', 'python', 'commit'),
]
NAMES = ('ours', 'release')


def environment() -> dict:
    lines = Path('/proc/cpuinfo').read_text().splitlines()
    cpu = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), '?')
    commit = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    versions = dict(torch=torch.__version__, python=platform.python_version())
    return dict(device=cpu, threads=torch.get_num_threads(), commit=commit, **versions)


def image(case: Case) -> torch.Tensor:
    return torch.randn(case.batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))


def check(models: dict, case: Case) -> float:
    """Gate: the two models must answer alike."""
    with torch.no_grad():
        difference = (answer(models['ours'], image(case)) - answer(models['release'], image(case))).abs().max().item()
    if difference > 1e-3:
        sys.exit(f'error: {case.name}: the models differ by {difference}; nothing was measured')
    return difference


def measure_time(case: Case, rounds: int) -> dict:
    models = {name: build(case, name) for name in NAMES}
    difference = check(models, case)
    x = image(case)
    times = {name: [] for name in NAMES}
    for i in range(rounds + 1):
        for name in random.sample(NAMES, len(NAMES)):
            start = time.perf_counter()
            step(models[name], x)
            if i:  # the first round warms up
                times[name].append(1e3 * (time.perf_counter() - start))
    ratios = [release / ours for ours, release in zip(times['ours'], times['release'])]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return dict(
        ours_ms=statistics.median(times['ours']),
        release_ms=statistics.median(times['release']),
        speedup=middle,
        speedup_p25=low,
        speedup_p75=high,
        max_difference=difference,
        rounds=rounds,
    )


def peak_memory(case: Case, which: str) -> float:
    """Run a few steps in this process and return the growth of its largest resident set, in MB (Linux)."""
    model, x = build(case, which), image(case)
    step(model, x)  # what is loaded and cached at the first call is no part of a step
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # forgets the peak so far
    base = resident_set('VmRSS')
    for _ in range(3):
        step(model, x)
    return resident_set('VmHWM') - base


def resident_set(which: str) -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def measure_memory(case: Case) -> dict:
    peaks = {}
    for name in NAMES:
        command = [sys.executable, __file__, '--peak-memory', json.dumps([*case]), name]
        output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        peaks[name] = float(output.split()[-1])
    return dict(
        ours_peak_mb=peaks['ours'], release_peak_mb=peaks['release'], memory_ratio=peaks['ours'] / peaks['release']
    )


def table(rows: list[dict]) -> str:
    lines = [
        '| case | ours, ms | release, ms | speed-up (quartiles) | ours, peak MB | release, peak MB | ratio |',
        '|---|---|---|---|---|---|---|',
    ]
    for row in rows:
        lines.append(
            '| {case} | {ours_ms:.0f} | {release_ms:.0f} | {speedup:.2f} ({speedup_p25:.2f} - {speedup_p75:.2f}) '
            '| {ours_peak_mb:.0f} | {release_peak_mb:.0f} | {memory_ratio:.2f} |'.format(**row)
        )
    return '\n'.join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=15, help='measurements of each model (default 15)')
    parser.add_argument('--cases', default='', help='only cases whose name holds this text')
    parser.add_argument('--out', default=str(HERE / 'results/against_release_cpu.csv'), help='CSV to write')
    parser.add_argument('--peak-memory', nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak_memory:
        case, which = args.peak_memory
        print(peak_memory(Case(*json.loads(case)), which))
        return
    cases = [case for case in CASES if args.cases in case.name]
    if not cases:
        sys.exit(f'error: no case holds {args.cases!r}; there are {[case.name for case in CASES]}')
    rows = []
    for case in cases:
        rows.append(dict(case=case.name) | measure_time(case, args.rounds) | measure_memory(case) | environment())
        print(table(rows[-1:]).splitlines()[-1], flush=True)
    with open(args.out, 'w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()})
    print(f'\n{table(rows)}\n\n{args.out}')


if __name__ == '__main__':
    main()
