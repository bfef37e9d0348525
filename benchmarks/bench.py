"""Measure time, interleaved, and peak memory.

The contenders of a comparison run in turn within one process, the order drawn anew each round, so that a noisy machine
hits all alike; of each round the times' ratio to the first contender counts, and the median over the rounds is
reported with its quartiles. Peak memory is the growth of a fresh process's resident set above what it had after a first
step, less the bytes of what the step returns; on CUDA the growth of what PyTorch has allocated. Nothing is measured
before the contenders that must agree gave the same answers.
"""

import argparse
from pathlib import Path

from vik_mm_cli.errors import BadInputError, end_on_user_errors

HERE = Path(__file__).parent
SUITES = ('operator', 'release', 'scaling', 'bars', 'peers', 'trainers', 'karat', 'downstream')  # as in cases.py
TINY = ('operator', 'scaling', 'bars', 'trainers', 'downstream')  # have a form in which nothing is large


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('suite', choices=[*SUITES, 'small'], help="what to measure; 'small' is what make bench does")
    parser.add_argument('--rounds', type=int, help='how often each contender is measured (default: what the case sets)')
    parser.add_argument('--cases', default='', help='only comparisons whose name holds this text')
    parser.add_argument('--out', help=f'CSV to write (default {HERE.name}/results/SUITE_DEVICE.csv)')
    parser.add_argument('--dtype', choices=['float32', 'bfloat16'], help='default: bfloat16 on a GPU, else float32')
    parser.add_argument('--roofline', action='store_true', help="measure the machine's limits; add each step's share")
    parser.add_argument('--tiny', action='store_true', help=f'only try that it runs: {", ".join(TINY)}')
    parser.add_argument('--peak-memory', nargs=2, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def run(args):
    """Measure the comparisons of a suite in turn."""
    if args.tiny and args.suite not in TINY:
        raise BadInputError(f'{args.suite} has no tiny form; these have one: {", ".join(TINY)}')
    import measure
    import torch
    from cases import SUITES as comparisons_of
    from measure import DEVICE
    from watch import committed_rows, report

    torch._dynamo.config.recompile_limit = 64  # every contender that is compiled is a case of its own
    chosen = [
        (suite, comparison)
        for suite, comparisons in comparisons_of.items()
        if not args.tiny or suite in TINY
        for comparison in comparisons(**(dict(tiny=True) if args.tiny else {}))
        if suite == args.suite or (args.suite == 'small' and comparison.small)
    ]
    dtype = args.dtype or ('bfloat16' if DEVICE == 'cuda' else 'float32')
    if args.peak_memory:
        wanted, name = args.peak_memory
        print(measure.peak_memory(next(c for _, c in chosen if c.name == wanted), name, dtype))
        return
    known = [c.name for _, c in chosen]
    chosen = [(suite, c) for suite, c in chosen if args.cases in c.name]
    if not chosen:
        raise BadInputError(f'no comparison of {args.suite} holds {args.cases!r}; there are {known}')
    out = Path(args.out or HERE / 'results' / f'{args.suite}_{DEVICE}.csv')
    out.parent.mkdir(parents=True, exist_ok=True)
    committed = committed_rows()
    everything, constant = [], measure.environment(dtype)
    options = ['--dtype', dtype, *(['--tiny'] if args.tiny else [])]
    for suite, comparison in chosen:
        measured, steps = measure.measure_time(comparison, args.rounds or comparison.rounds, dtype)
        memory = measure.measure_memory(suite, comparison, options) if comparison.memory else {}
        rows = [
            dict(comparison=comparison.name, contender=name)
            | values
            | memory.get(name, {})
            | measure.sizes(steps[name])
            | constant
            for name, values in measured.items()
        ]
        if args.roofline:
            factor = 3 if 'training' in comparison.name else 1  # a backward pass has twice the products
            for row in rows:
                row |= measure.roofline(steps[row['contender']], row, factor, comparison.images, dtype)
        del steps
        print(f'\n{comparison.name}\n\n{measure.table(rows)}', flush=True)
        everything += rows
        measure.write(out, everything)  # after each comparison: an interrupted run keeps what it has
    print(f'\n{out}')
    if args.suite == 'small':
        print(report(everything, committed, out))


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
