"""Evaluate a model of any task, and write a report: a page with figures, curves and the worst images."""

import argparse

from vik_mm_cli.command_line import (
    add_config_arguments,
    add_launch_arguments,
    add_tile_arguments,
    check_tile_arguments,
    parse,
)
from vik_mm_cli.errors import BadInputError, end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file, or a file of tools/export.py')
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    parser.add_argument('--split', choices=['test', 'val'], help='default: test, where the config has one')
    parser.add_argument('--out', metavar='DIR', help='where the report goes; default: report_SPLIT in the work folder')
    parser.add_argument(
        '--score-thr',
        type=float,
        help='lowest score of detections in the confusion matrix and the pictures; default: that of the highest F1',
    )
    parser.add_argument(
        '--pictures', type=int, default=12, metavar='N', help='worst images to show (default: %(default)s)'
    )
    add_tile_arguments(parser)
    parser.add_argument('--tta', action='store_true', help='look at each image several times')
    add_launch_arguments(parser)
    return parse(parser, argv, check)


def check(args):
    if args.score_thr is not None and not 0 <= args.score_thr <= 1:
        raise BadInputError(f'--score-thr {args.score_thr} must be from 0 to 1')
    if args.pictures < 0:
        raise BadInputError(f'--pictures {args.pictures} must be 0 or more')
    check_tile_arguments(args)


def run(args):
    """Evaluate, and write the report."""
    from pathlib import Path

    from vik_mm.checkpoints import load_checkpoints_as_data
    from vik_mm.config import load_config
    from vik_mm.evaluation import evaluate, use_tiles
    from vik_mm.visualization import write_report

    load_checkpoints_as_data()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.backbone, args.safe_config)
    if args.tile is not None:
        use_tiles(cfg, args.tile, args.overlap, args.tile_batch_size)
    result = evaluate(
        *(cfg, args.checkpoint, args.split, args.score_thr, args.pictures),
        is_amp=args.amp,
        is_compiled=args.compile,
        is_tta=args.tta,
        launcher=args.launcher,
        local_rank=args.local_rank,
    )
    if result is not None:  # the main process
        path = write_report(result, args.out or Path(cfg.work_dir, f'report_{result.split}'), args.pictures)
        for sentence in result.findings:
            print(sentence)
        print(f'report: {path}')


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
