"""Convert a ViK classifier of vik_mm to a checkpoint of the reference release."""

import argparse
import sys

import torch

from vik_mm.backbones.vik_keys import to_reference
from vik_mm.engine import read_checkpoint, unwrap_state_dict


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('src', help='checkpoint of an ImageClassifier around ViK')
    parser.add_argument('dst', help='checkpoint to write, {"state_dict": ...} as timm reads it')
    args = parser.parse_args()
    try:
        weights, _ = unwrap_state_dict(read_checkpoint(args.src))
        converted = to_reference(weights)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    torch.save(dict(state_dict=converted), args.dst)
    print(f'{len(converted)} weights: {args.dst}')


if __name__ == '__main__':
    main()
