"""Draw time per pixel against pixels, relative to the first contender at the first size, from the CSV of scaling."""

import argparse
import csv
import re
from pathlib import Path

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

HERE = Path(__file__).parent


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('csv', nargs='?', default=str(HERE / 'results/scaling_cpu.csv'))
    parser.add_argument('--out', default=str(HERE.parent / 'docs/pictures/scaling.png'))
    args = parser.parse_args()
    with open(args.csv) as file:
        rows = list(csv.DictReader(file))
    lines = {}
    for row in rows:
        side = int(re.search(r'x(\d+)$', row['comparison'])[1])
        lines.setdefault(row['contender'], []).append(
            (side**2, *(float(row[k]) for k in ('median_ms', 'p25_ms', 'p75_ms')))
        )
    baseline, points = next(iter(lines.items()))
    unit = points[0][1] / points[0][0]
    figure, axes = plt.subplots(figsize=(6.4, 4), layout='constrained')
    for (name, points), marker in zip(lines.items(), 'osD^v'):
        pixels, median, low, high = zip(*points)
        per_pixel = [m / p / unit for m, p in zip(median, pixels)]
        spread = [[abs(m - b) / p / unit for m, b, p in zip(median, bound, pixels)] for bound in (low, high)]
        axes.errorbar(pixels, per_pixel, yerr=spread, marker=marker, capsize=3, label=name)
    sides = [int(p**0.5) for p in pixels]
    axes.set_xscale('log')
    axes.set_xticks(pixels, [f'{s}x{s}' for s in sides], minor=False)
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel('image, pixels')
    axes.set_ylabel(f'time per pixel ({baseline}, {sides[0]}x{sides[0]} = 1)')
    axes.set_title(f'One image, {rows[0]["device"]}, {rows[0]["threads"]} threads, {rows[0]["dtype"]}', fontsize=10)
    axes.legend()
    figure.savefig(args.out, dpi=120)


if __name__ == '__main__':
    main()
