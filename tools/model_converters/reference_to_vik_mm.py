"""Convert a checkpoint of the authors' ViK release to a classifier of vik_mm."""

import argparse
import math

from vik_mm_cli.command_line import check_checkpoint, parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors

ARCHS = ('base', 'large', 'medium', 'small', 'tiny')  # of vik_mm.ViK


def make_classifier(arch: str, num_classes: int, img_size):
    """Build the classifier of configs/vik/, which the weights are to fit."""
    from mmpretrain.registry import MODELS

    from vik_mm import ViK

    width = ViK.arch_settings[arch]['embed_dims'][-1]
    head = dict(type='LinearClsHead', num_classes=num_classes, in_channels=width)
    return MODELS.build(
        dict(
            type='ImageClassifier',
            backbone=dict(type='ViK', arch=arch, img_size=img_size),
            neck=dict(type='GlobalAveragePooling'),
            head=head,
        )
    )


def find_arch(weights) -> str:
    """Find the arch that has the weights' macro design."""
    from vik_mm import ViK
    from vik_mm.checkpoints.release_keys import describe_release

    design = describe_release(weights)
    for name, setting in ViK.arch_settings.items():
        if setting == design:
            return name
    raise BadInputError(f'no arch has {design}; known are {ViK.arch_settings}')


def find_img_size(weights):
    """Read the image size off the first global map, which the release flattens: the grid is taken to be square."""
    first = weights.get('network.0.0.token_mixer.lin1.weight')
    pixels = 56 * 56 if first is None else first.shape[1]
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise BadInputError(
            f'the first global map has {pixels} pixels, which are no square; give --img-size HEIGHT WIDTH'
        )
    return 4 * side


def convert(checkpoint, arch=None, img_size=None, prefer_ema=True):
    """Convert what was read from a file; return what to write and the key that the weights were under."""
    from vik_mm.checkpoints import unwrap_state_dict
    from vik_mm.checkpoints.release_keys import describe_release, from_release

    weights, key = unwrap_state_dict(checkpoint, prefer_ema)
    found = find_arch(weights)
    if arch is not None and arch != found:
        raise BadInputError(f'--arch {arch}, but the checkpoint holds arch {found}: {describe_release(weights)}')
    num_classes = weights['head.weight'].shape[0] if 'head.weight' in weights else 1000
    template = make_classifier(found, num_classes, img_size or find_img_size(weights)).state_dict()
    meta = dict(arch=found, converted_from='SeriYann/ViK')
    return dict(state_dict=from_release(weights, template), meta=meta), key


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

    from vik_mm.checkpoints import read_checkpoint

    converted, key = convert(read_checkpoint(args.src), args.arch, args.img_size, not args.no_ema)
    torch.save(converted, args.dst)
    print(f'{len(converted["state_dict"])} weights ({key or "bare"}), arch {converted["meta"]["arch"]}: {args.dst}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
