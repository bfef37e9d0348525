"""Write the built-in data set of geometric shapes in the layouts of ImageNet, COCO and ADE20K."""

import argparse

from vik_mm_cli.errors import BadInputError, end_on_user_errors

LAYOUTS = ('imagenet', 'coco', 'ade20k')  # as in vik_mm.datasets.shapes


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument('root', help='folder to write')
    parser.add_argument('--layouts', nargs='+', choices=LAYOUTS, default=list(LAYOUTS))
    parser.add_argument('--train', type=int, default=4000, help='scenes to train on')
    parser.add_argument('--val', type=int, default=500, help='scenes to validate on')
    parser.add_argument('--test', type=int, default=1000, help='scenes to test on')
    parser.add_argument('--size', type=int, default=64, help='side of the pictures in pixels')
    parser.add_argument('--seed', type=int, default=0)
    return parser.parse_args(argv)


def run(args):
    """Write the data set."""
    from vik_mm.datasets.shapes import write_shapes

    counts = dict(train=args.train, val=args.val, test=args.test)
    try:
        root = write_shapes(args.root, counts, args.layouts, size=args.size, seed=args.seed)
    except OSError as error:
        raise BadInputError(f'{args.root} cannot be written ({error.strerror or error})') from error
    print(f'{sum(counts.values())} scenes as {", ".join(args.layouts)} in {root}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
