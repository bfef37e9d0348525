"""Export a model of any task, for batches and images of any size.

    python tools/export.py configs/vik/vik-s_in1k.py epoch_310.pth --format onnx --out vik-s.onnx

The file takes 8-bit RGB images of any size and answers about their own pixels; docs/export.md says how to run it. Its
answers are compared with the model's, at sizes that it was not made at, before this ends well.
"""

import argparse

from vik_mm_cli.command_line import EXPORT_ENDINGS, add_config_arguments, parse
from vik_mm_cli.errors import BadInputError, UnavailableError, end_on_user_errors

# As in vik_mm.deploy.export.
PARTS = ('model', 'backbone')
DTYPES = ('float32', 'float16', 'bfloat16', 'int8')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--format', required=True, choices=list(EXPORT_ENDINGS))
    parser.add_argument('--out', required=True, metavar='FILE', help=f'ends in {", ".join(EXPORT_ENDINGS.values())}')
    parser.add_argument('--part', choices=PARTS, default='model', help='default: %(default)s')
    parser.add_argument('--dtype', choices=DTYPES, default='float32', help='default: %(default)s')
    parser.add_argument('--raw-input', action='store_true', help='take normalised images, give what the network does')
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    return parse(parser, argv, check)


def check(args):
    if not args.out.endswith(EXPORT_ENDINGS[args.format]):
        raise BadInputError(f'a file of format {args.format} must end in {EXPORT_ENDINGS[args.format]}, got {args.out}')


def run(args):
    """Export."""
    from mmengine.registry import init_default_scope

    from vik_mm.checkpoints import load_checkpoints_as_data, load_weights, read_checkpoint, unwrap_state_dict
    from vik_mm.config import load_config
    from vik_mm.deploy import export
    from vik_mm.inference.pipeline import with_pipeline
    from vik_mm.inference.predictor import build_model

    load_checkpoints_as_data()
    cfg = load_config(args.config, args.cfg_options, backbone=args.backbone, is_safe=args.safe_config)
    checkpoint = read_checkpoint(args.checkpoint)
    init_default_scope(cfg.get('default_scope'))
    model = build_model(cfg)
    load_weights(model, unwrap_state_dict(checkpoint, prefer_ema=False)[0])
    classes = ((checkpoint.get('meta') or {}).get('dataset_meta') or {}).get('classes')
    pipeline = None if args.raw_input else with_pipeline(cfg.test_dataloader.dataset).pipeline
    try:
        meta = export(
            model, args.out, args.format, args.part, args.dtype, classes, pipeline=pipeline, raw_input=args.raw_input
        )
    except ModuleNotFoundError as error:
        raise UnavailableError(f'--format {args.format} needs {error.name}: pip install vik_mm[export]') from error
    print(f'{args.out}: {args.part} for {meta["task"]}, {args.dtype}, differs by at most {meta["max_difference"]:.2g}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
