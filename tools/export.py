"""Export a model of any task, for batches and images of any size.

    python tools/export.py configs/vik/vik-s_in1k.py epoch_310.pth --format onnx --out vik-s.onnx

The file's answers are compared with the model's, at sizes that it was not made at, before this ends well.
"""

import argparse
import sys

from cfg_options import ConfigOptions
from mmengine.registry import init_default_scope

import vik_mm  # noqa: F401  registers ViK, also for configs without custom_imports
from vik_mm.engine import (
    add_config_arguments,
    load_checkpoints_as_data,
    load_config,
    load_weights,
    read_checkpoint,
    unwrap_state_dict,
)
from vik_mm.export import DTYPES, ENDINGS, PARTS, export
from vik_mm.inference import build_model


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser, ConfigOptions)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', required=True, choices=list(ENDINGS))
    parser.add_argument('--out', required=True, metavar='FILE', help=f'ends in {", ".join(ENDINGS.values())}')
    parser.add_argument('--part', choices=PARTS, default='model', help='default: %(default)s')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='default: %(default)s')
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    return parser.parse_args(argv)


def main():
    args = parse_args()
    try:
        load_checkpoints_as_data()
        cfg = load_config(args.config, args.cfg_options, backbone=args.backbone, is_safe=args.safe_config)
        checkpoint = read_checkpoint(args.checkpoint)
        init_default_scope(cfg.get('default_scope'))
        model = build_model(cfg)
        load_weights(model, unwrap_state_dict(checkpoint, prefer_ema=False)[0])
        classes = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
        meta = export(model, args.out, args.format, args.part, args.dtype, classes)
    except ImportError as error:
        sys.exit(f'error: --format {args.format} needs {error.name}: pip install vik_mm[export]')
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    print(f'{args.out}: {args.part} for {meta["task"]}, {args.dtype}, differs by at most {meta["max_difference"]:.2g}')


if __name__ == '__main__':
    main()
