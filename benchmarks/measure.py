"""What ``bench.py`` does for each comparison."""

import csv
import ctypes
import gc
import os
import platform
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path

import timm
import torch
from comparison import Comparison
from roofline import share
from torch.utils.flop_counter import FlopCounterMode

HERE = Path(__file__).parent
DEVICE = 'cuda' if torch.cuda.is_available() else 'cpu'
FIELDS = [
    *('comparison', 'contender', 'speedup', 'speedup_p25', 'speedup_p75', 'median_ms', 'p25_ms', 'p75_ms'),
    *('images_per_s', 'peak_mb', 'memory_ratio', 'parameters_m', 'gmacs', 'roofline', 'max_difference', 'rounds'),
    *('device', 'instruction_set', 'cores', 'dtype', 'threads', 'torch', 'timm', 'python', 'commit'),
]
AGREE = 1e-3
M_MMAP_THRESHOLD = -3  # of glibc's malloc.h


def environment(dtype: str) -> dict:
    if DEVICE == 'cuda':
        device = torch.cuda.get_device_name()
    else:
        lines = Path('/proc/cpuinfo').read_text().splitlines()
        device = next((line.split(':')[1].strip() for line in lines if line.startswith('model name')), '?')
    commit = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=HERE, capture_output=True, text=True
    ).stdout.strip()
    versions = dict(torch=torch.__version__, timm=timm.__version__, python=platform.python_version())
    if dtype != 'float32':
        dtype += ' autocast'
    instruction_set = instruction_set_of_this_machine()
    kind = dict(device=device, instruction_set=instruction_set, cores=num_cores(), dtype=dtype)
    return dict(**kind, threads=torch.get_num_threads(), commit=commit, **versions)


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def instruction_set_of_this_machine() -> str:
    """Vectors that PyTorch uses on a CPU, as AVX2 or AVX512; the capability of a GPU, as sm_90."""
    if DEVICE == 'cuda':
        return 'sm_{}{}'.format(*torch.cuda.get_device_capability())
    return torch.backends.cpu.get_cpu_capability()


def quartiles(values: list[float]) -> list[float]:
    """First quartile, median and third quartile; of one value, three times that value."""
    return statistics.quantiles(values, n=4) if len(values) > 1 else values * 3  # before Python 3.13 it takes two


def run(step, dtype: str) -> list:
    with torch.autocast(DEVICE, dtype=getattr(torch, dtype), enabled=dtype != 'float32'):
        out = step.run()
    if DEVICE == 'cuda':
        torch.cuda.synchronize()
    return out


def check(comparison: Comparison, steps: dict) -> dict:
    """Gate: contenders that claim the same arithmetic must answer alike."""
    differences = {}
    if not comparison.agree:
        return differences
    baseline, *others = comparison.agree

    def answer(name):
        out = steps[name].answer(steps[name].image)
        return (out if isinstance(out, torch.Tensor) else out[-1]).float()

    with torch.no_grad():
        expected = answer(baseline)
        for name in others:
            difference = (answer(name) - expected).abs().max().item()
            allowed = AGREE if DEVICE == 'cpu' else 0.02 * expected.abs().max().item()
            if not difference <= allowed:
                sys.exit(f'error: {comparison.name}: {name} differs by {difference}; nothing was measured')
            differences[name] = difference
    return differences


def measure_time(comparison: Comparison, rounds: int, dtype: str) -> tuple[dict, dict]:
    steps = {name: make(DEVICE) for name, make in comparison.contenders.items()}
    differences = check(comparison, steps)
    times = {name: [] for name in steps}
    for i in range(rounds + 1):
        for name in random.sample(list(steps), len(steps)):
            start = time.perf_counter()
            run(steps[name], dtype)
            if i:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    baseline = times[next(iter(times))]
    rows = {}
    for name, measured in times.items():
        low, middle, high = quartiles([b / t for b, t in zip(baseline, measured)])
        first, median, third = (1e3 * t for t in quartiles(measured))
        rows[name] = dict(
            speedup=middle,
            speedup_p25=low,
            speedup_p75=high,
            median_ms=median,
            p25_ms=first,
            p75_ms=third,
            max_difference=differences.get(name, ''),
            images_per_s=1e3 * comparison.images / median if comparison.images else '',
            rounds=rounds,
        )
    return rows, steps


def sizes(step) -> dict:
    """Parameters, and multiply-accumulates of one image, matrix products counted."""
    if step.module is None or step.image is None or step.image.ndim != 4:
        return {}
    module = step.module.cpu().eval()
    answer = step.answer or module
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        answer(step.image[:1].cpu())
    macs = counter.get_total_flops() / 2
    return dict(parameters_m=sum(p.numel() for p in step.module.parameters()) / 1e6, gmacs=macs / 1e9)


def roofline(step, values: dict, mode_factor: int, images: int, dtype: str) -> dict:
    """Share of what products and memory of this machine allow; nothing where a step's work is not known."""
    products = step.products or 1e9 * values.get('gmacs', 0) * max(1, images) * mode_factor
    if not products:
        return {}
    return dict(roofline=share(products, step.traffic, values['median_ms'] / 1e3, DEVICE, dtype))


def peak_memory(comparison: Comparison, name: str, dtype: str) -> float:
    """Run a few steps in this process and return the growth of its largest resident set, in MB (Linux)."""
    # A fixed threshold: freed blocks of a MB and more go back at once. By default glibc raises it as it goes, and the
    # peak would hold the gaps in its heap, which depend on the order of all that came before.
    ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 2**20)
    step = comparison.contenders[name](DEVICE)
    returned = sum(t.nbytes for t in run(step, dtype))
    gc.collect()
    if DEVICE == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        base = torch.cuda.memory_allocated()
        run(step, dtype)
        return (torch.cuda.max_memory_allocated() - base - returned) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # what is loaded and cached at the first call is no part of a step
    Path('/proc/self/clear_refs').write_text('5')  # forgets the peak so far
    base = resident_set('VmRSS')
    for _ in range(3):
        run(step, dtype)
    return resident_set('VmHWM') - base - returned / 2**20


def resident_set(which: str) -> float:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def measure_memory(suite: str, comparison: Comparison, options: list[str]) -> dict:
    peaks = {}
    for name in comparison.contenders:
        command = [sys.executable, '-W', 'ignore', HERE / 'bench.py', suite, *options]
        command += ['--peak-memory', comparison.name, name]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
        peaks[name] = float(output.split()[-1])
    baseline = next(iter(peaks.values()))
    return {name: dict(peak_mb=peak, memory_ratio=peak / baseline) for name, peak in peaks.items()}


def table(rows: list[dict]) -> str:
    lines = [
        '| contender | speed-up (quartiles) | median, ms | images/s | peak, MB | ratio |',
        '|---|---|---|---|---|---|',
    ]
    for row in rows:
        cells = [
            f'{row["speedup"]:.2f} ({row["speedup_p25"]:.2f} - {row["speedup_p75"]:.2f})',
            f'{row["median_ms"]:.0f}',
        ]
        cells += [
            f'{row[k]:.{d}f}' if row.get(k, '') != '' else ''
            for k, d in (('images_per_s', 1), ('peak_mb', 0), ('memory_ratio', 2))
        ]
        lines.append(f'| {row["contender"]} | {" | ".join(cells)} |')
    return '\n'.join(lines)


def write(path: Path, rows: list[dict]) -> None:
    with path.open('w', newline='') as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f'{v:.4g}' if isinstance(v, float) else v for k, v in row.items()})
