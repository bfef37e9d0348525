"""Train a model of any task, from a config or from a folder of your own data."""

import argparse
import copy
import sys

from vik_mm_cli.command_line import (
    add_config_arguments,
    add_data_arguments,
    add_launch_arguments,
    add_switches,
    check_data_or_config,
    parse,
)
from vik_mm_cli.errors import BadInputError, end_on_user_errors


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    add_config_arguments(parser, is_needed=False)
    add_data_arguments(parser)
    add_switches(parser)
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|FILE',
        help='carry on from a checkpoint; without a file, from the newest in the work dir',
    )
    parser.add_argument(
        '--backbone', metavar='vik-s', help='put this backbone into the config: vik-t to vik-l, karat-t to karat-b'
    )
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by batch size / base_batch_size'
    )
    add_launch_arguments(parser)
    return parse(parser, argv, check_data_or_config)


def prepare(args):
    """Make the config that goes to the Runner."""
    from vik_mm.checkpoints import load_checkpoints_as_data
    from vik_mm.checkpoints.atomic_files import write_files_atomically
    from vik_mm.config import fit_to_machine, load_config
    from vik_mm.datasets.layouts import check_datasets
    from vik_mm.engine.runner import check_sharding, complete_config, init_distributed, make_work_dir, resolve_resume
    from vik_mm.recipes import apply_switches, config_from_data, keep_config_file, say_weights

    load_checkpoints_as_data()
    write_files_atomically()
    # What --data writes has the backbone and the switches in it.
    config = config_from_data(args) if args.data else args.config
    backbone = None if args.data else args.backbone
    cfg = load_config(config, args.cfg_options, args.work_dir, backbone, args.safe_config, args.amp)
    if not args.data:
        apply_switches(cfg, args)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.auto_scale_lr:
        if 'base_batch_size' not in (cfg.get('auto_scale_lr') or {}):
            raise BadInputError(f'--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {config}')
        cfg.auto_scale_lr.enable = True
        # MMEngine counts the images of an iteration; a step may be made of several.
        cfg.auto_scale_lr.base_batch_size /= (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if args.compile:
        cfg.compile = True
    complete_config(cfg)
    check_sharding(cfg)
    check_datasets(cfg, splits=('train', 'val'))
    make_work_dir(cfg)
    init_distributed(cfg, args.launcher, args.local_rank)
    resolve_resume(cfg, args.resume)
    say_weights(cfg)
    fit_to_machine(cfg)
    return keep_config_file(cfg)


def run(args):
    """Train, and write the report where the config asks for one; ends the process if it is stopped."""
    from mmengine.registry import RUNNERS

    from vik_mm.datasets.layouts import explain_failed_downloads
    from vik_mm.engine.runner import TrainingStopped

    cfg = prepare(args)
    # The Runner changes it.
    before = copy.deepcopy(cfg)
    runner = RUNNERS.build(cfg)
    try:
        with explain_failed_downloads(cfg):
            runner.train()
    except TrainingStopped as stopped:
        print(f'{stopped}; carry on with --resume --work-dir {cfg.work_dir}', file=sys.stderr)
        sys.exit(stopped.exit_code)
    if cfg.get('report') and cfg.get('val_dataloader'):
        report(before, runner)


def report(cfg, runner):
    """Write what tools/evaluate.py writes, of the best checkpoint; what keeps it from that is said, and no failure."""
    from vik_mm.evaluation import evaluate_training, folder_of_report
    from vik_mm.visualization import write_report

    try:
        result = evaluate_training(cfg, runner)
    except BadInputError as error:
        print(f'the training is complete; there is no report: {error}', file=sys.stderr)
        return
    if result is not None:  # the main process
        path = write_report(result, folder_of_report(cfg))
        for sentence in result.findings:
            print(sentence)
        print(f'checkpoint: {result.checkpoint}')
        print(f'report: {path}')


def main():
    with end_on_user_errors('stopped at once, nothing saved; --resume goes on from the newest checkpoint, if any'):
        run(parse_args())


if __name__ == '__main__':
    main()
