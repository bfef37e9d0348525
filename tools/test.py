"""Test a model of any task; the config's ``default_scope`` says which package it belongs to."""

import argparse

from vik_mm_cli.command_line import (
    add_config_arguments,
    add_launch_arguments,
    add_tile_arguments,
    check_tile_arguments,
    parse,
)
from vik_mm_cli.errors import BadInputError, end_on_user_errors

# How each package's visualization hook is told to draw into a folder.
DRAW = {
    'mmpretrain': lambda folder: dict(enable=True, interval=1, out_dir=folder),
    'mmdet': lambda folder: dict(draw=True, test_out_dir=folder),
    'mmseg': lambda folder: dict(draw=True, interval=1),
}

TEST_PARTS = ('test_dataloader', 'test_cfg', 'test_evaluator')


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint file or its https:// address, or a file of tools/export.py')
    parser.add_argument('--backbone', metavar='vik-s', help='what tools/train.py was given')
    parser.add_argument('--out', metavar='FILE.pkl', help='write all predictions to this pickle file')
    parser.add_argument('--show-dir', help='draw the predictions into pictures in this folder')
    add_tile_arguments(parser)
    parser.add_argument('--tta', action='store_true', help='look at each image several times')
    add_launch_arguments(parser)
    return parse(parser, argv, check)


def check(args):
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise BadInputError(f'--out {args.out} must end in .pkl')
    check_tile_arguments(args)
    if args.tile is not None and args.show_dir:
        raise BadInputError('--show-dir draws no predictions in windows; tools/infer.py --tile does')


def prepare(args):
    """Make the config that goes to the Runner."""
    from vik_mm.checkpoints import load_checkpoints_as_data
    from vik_mm.config import load_config
    from vik_mm.datasets.layouts import check_datasets
    from vik_mm.evaluation import prepare_test, use_tiles

    load_checkpoints_as_data()
    cfg = load_config(args.config, args.cfg_options, args.work_dir, args.backbone, args.safe_config)
    if lacking := [name for name in TEST_PARTS if cfg.get(name) is None]:
        raise BadInputError(f'{args.config} has no test split: it lacks {", ".join(lacking)}')
    check_datasets(cfg, splits=('test',))
    if args.tile is not None:
        use_tiles(cfg, args.tile, args.overlap, args.tile_batch_size)
    if args.show_dir:
        scope = cfg.get('default_scope')
        hook = (cfg.get('default_hooks') or {}).get('visualization')
        if scope not in DRAW or hook is None:
            raise BadInputError(
                f'--show-dir needs default_hooks.visualization and a default_scope of {sorted(DRAW)} in the config'
            )
        hook.update(DRAW[scope](args.show_dir))
        if scope == 'mmseg':
            cfg.visualizer.save_dir = args.show_dir
    prepare_test(cfg, args.checkpoint, args.amp, args.compile, args.tta, args.launcher, args.local_rank)
    return cfg


def run(args):
    """Test."""
    from mmengine.evaluator import DumpResults

    from vik_mm.datasets.layouts import explain_failed_downloads
    from vik_mm.evaluation import build_test_runner

    cfg = prepare(args)
    runner = build_test_runner(cfg, args.checkpoint)
    if args.out:
        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.out))
    with explain_failed_downloads(cfg):
        runner.test()


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
