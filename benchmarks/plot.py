"""Draw time and memory against pixels from the CSV of a suite, single images, relative to its first contender."""

import argparse
import csv
import re
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
MARKERS = 'osD^v<>pP*Xh'
COLOURS = [*plt.get_cmap('tab10').colors, 'black', 'rosybrown']


def read(path):
    """Rows of single images, by contender: the image's side and the row."""
    lines = {}
    with open(path) as file:
        for row in csv.DictReader(file):
            if found := re.fullmatch(r'inference 1x3x(\d+)x\d+', row['comparison']):
                lines.setdefault(row['contender'], []).append((int(found[1]), row))
    return lines


def draw_time(axes, lines):
    """Time per pixel; the first contender's at its first size is 1."""
    baseline, ((side, row), *_) = next(iter(lines.items()))
    unit = float(row['median_ms']) / side**2
    for (name, points), marker, colour in zip(lines.items(), MARKERS, COLOURS):
        sides, rows = zip(*points)
        median, low, high = ([float(r[k]) for r in rows] for k in ('median_ms', 'p25_ms', 'p75_ms'))
        per_pixel = [m / s**2 / unit for m, s in zip(median, sides)]
        spread = [[abs(m - b) / s**2 / unit for m, b, s in zip(median, bound, sides)] for bound in (low, high)]
        ours = name.startswith('ViK') and 'release' not in name
        axes.errorbar(
            [s**2 for s in sides],
            per_pixel,
            yerr=spread,
            marker=marker,
            color=colour,
            capsize=3,
            lw=3 if ours else 1,
            label=name,
        )
    axes.set_ylabel(f'time per pixel ({baseline}, {side}x{side} = 1)')


def draw_memory(axes, lines):
    """Peak memory of a step above the process's base."""
    for (name, points), marker, colour in zip(lines.items(), MARKERS, COLOURS):
        ours = name.startswith('ViK') and 'release' not in name
        pixels, memory = zip(*((side**2, float(row['peak_mb'])) for side, row in points))
        axes.plot(pixels, memory, marker=marker, color=colour, lw=3 if ours else 1, label=name)
    axes.set_yscale('log')
    axes.set_ylabel('peak memory above base, MB')


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('suite', nargs='?', choices=['scaling', 'peers'], default='scaling')
    parser.add_argument('--csv', help='default: results/SUITE_cpu.csv')
    parser.add_argument('--out', help='default: docs/pictures/SUITE.png')
    args = parser.parse_args()
    lines = read(args.csv or HERE / f'results/{args.suite}_cpu.csv')
    row = next(iter(lines.values()))[0][1]
    panels = [draw_time] + ([draw_memory] if row['peak_mb'] else [])
    figure, axes = plt.subplots(1, len(panels), figsize=(6.4 * len(panels), 4.4), layout='constrained', squeeze=False)
    sides = sorted({side for points in lines.values() for side, _ in points})
    for axis, draw in zip(axes[0], panels):
        draw(axis, lines)
        axis.set_xscale('log')
        axis.set_xticks([side**2 for side in sides], [f'{side}x{side}' for side in sides], minor=False)
        axis.minorticks_off()
        axis.set_xlabel('image, pixels')
    if len(lines) > 4:
        axes[0, 0].set_yscale('log')
        axes[0, 0].legend(fontsize=8, ncols=2)
    else:
        axes[0, 0].set_ylim(bottom=0)
        axes[0, 0].legend()
    figure.suptitle(f'One image, {row["device"]}, {row["threads"]} threads, {row["dtype"]}', fontsize=10)
    figure.savefig(args.out or HERE.parent / f'docs/pictures/{args.suite}.png', dpi=110)


if __name__ == '__main__':
    main()
