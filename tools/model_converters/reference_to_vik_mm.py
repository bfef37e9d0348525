"""Convert a checkpoint of the authors' ViK release to a classifier of vik_mm."""

import argparse

from vik_mm_cli.command_line import check_checkpoint, parse
from vik_mm_cli.errors import end_on_user_errors

ARCHS = ('base', 'large', 'medium', 'small', 'tiny')  # of vik_mm.ViK


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of the release, timm-style: bare, or under state_dict[_ema]')
    parser.add_argument('dst', help='checkpoint to write')
    parser.add_argument('--arch', choices=ARCHS, help='fail unless the checkpoint is of this arch')
    parser.add_argument('--img-size', nargs=2, type=int, metavar=('H', 'W'), help='training size; default: square')
    parser.add_argument('--no-ema', action='store_true', help='take the plain weights, if there are averaged ones too')
    return parse(parser, argv, lambda args: check_checkpoint(args.src))


def run(args):
    """Convert."""
    import torch

    from vik_mm.checkpoints import read_checkpoint, unwrap_state_dict
    from vik_mm.recipes.release_weights import convert_release

    weights, key = unwrap_state_dict(read_checkpoint(args.src), prefer_ema=not args.no_ema)
    converted = convert_release(weights, args.arch, args.img_size)
    torch.save(converted, args.dst)
    print(f'{len(converted["state_dict"])} weights ({key or "bare"}), arch {converted["meta"]["arch"]}: {args.dst}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
