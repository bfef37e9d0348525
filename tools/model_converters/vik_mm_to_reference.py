"""Convert a ViK classifier of vik_mm to a checkpoint of the authors' release."""

import argparse

from vik_mm_cli.command_line import check_checkpoint, parse
from vik_mm_cli.errors import end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of an ImageClassifier around ViK')
    parser.add_argument('dst', help='checkpoint to write, {"state_dict": ...} as timm reads it')
    return parse(parser, argv, lambda args: check_checkpoint(args.src))


def run(args):
    """Convert."""
    import torch

    from vik_mm.checkpoints import read_checkpoint, unwrap_state_dict
    from vik_mm.checkpoints.release_keys import to_release

    weights, _ = unwrap_state_dict(read_checkpoint(args.src))
    converted = to_release(weights)
    torch.save(dict(state_dict=converted), args.dst)
    print(f'{len(converted)} weights: {args.dst}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
