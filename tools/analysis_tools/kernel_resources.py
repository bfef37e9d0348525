"""Compile the Triton kernels for chips that need not be there, and read from the binaries what they take.

    python tools/analysis_tools/kernel_resources.py --chips 80 90 --out docs/data/kernel_resources.csv

Each row says what one kernel takes on one chip: registers and stack bytes (spilled registers) of a thread, shared
memory of a block, the share of the chip's warps that run at once. For the RBF kernels also the instructions and the
special functions (exponentials, reciprocal roots) for each row of the input, each counted as often as its loop runs.
"""

import argparse
import csv
import os


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--chips', nargs='+', default=['80', '90'], help='capabilities, or gfx942; default 80 90')
    parser.add_argument('--dtypes', nargs='+', help='default: all')
    parser.add_argument('--cases', nargs='+', help='default: all')
    parser.add_argument('--out', help='CSV file; the standard output if none is given')
    return parser, parser.parse_args(argv)


def run(parser, args):
    """Compile, and write the rows."""
    from kernel_binaries import AMD, CASES, DTYPES, FIELDS, LIMITS, rows

    chosen = dict(chips=[*map(str, LIMITS), AMD], dtypes=list(DTYPES), cases=list(CASES))
    for name, known in chosen.items():
        given = getattr(args, name)
        if unknown := sorted(set(given or ()) - set(known)):
            parser.error(f'--{name} {" ".join(unknown)}: choose from {", ".join(known)}')
        chosen[name] = given or known
    with open(args.out, 'w', newline='') if args.out else os.fdopen(os.dup(1), 'w') as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator='\n')
        writer.writeheader()
        for row in rows(**chosen):
            writer.writerow(row)
            file.flush()


def main():
    run(*parse_args())


if __name__ == '__main__':
    main()
