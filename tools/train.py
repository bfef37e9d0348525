"""Train a model of any task; the config's ``default_scope`` says which package it belongs to."""

import argparse
import os
import sys

from mmengine.config import DictAction
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

import vik_mm  # noqa: F401  registers ViK, also for configs without custom_imports
from vik_mm.engine import check_datasets, fit_to_machine, init_distributed, load_config, resolve_resume


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--work-dir', help='where logs and checkpoints go; default work_dirs/<config name>')
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='auto|FILE',
        help='carry on from a checkpoint; without a file, from the newest in the work dir',
    )
    parser.add_argument('--amp', action='store_true', help='train in mixed precision')
    parser.add_argument('--no-validate', action='store_true', help='do not evaluate during training')
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the learning rate by batch size / base_batch_size'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=DictAction, metavar='KEY=VALUE', help='override values of the config'
    )
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    return args


def prepare(args):
    """Make the config that goes to the Runner."""
    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    if args.no_validate:
        cfg.val_cfg = cfg.val_dataloader = cfg.val_evaluator = None
    if args.amp:
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise ValueError(f'--auto-scale-lr needs auto_scale_lr=dict(base_batch_size=...) in {args.config}')
        cfg.auto_scale_lr.enable = True
    check_datasets(cfg, splits=('train', 'val'))
    init_distributed(cfg, args.launcher)
    resolve_resume(cfg, args.resume)
    fit_to_machine(cfg)
    return cfg


def main():
    args = parse_args()
    try:
        cfg = prepare(args)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f'error: {error}')
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    try:
        runner.train()
    except KeyboardInterrupt:
        sys.exit(f'\ninterrupted; carry on with --resume --work-dir {cfg.work_dir}')


if __name__ == '__main__':
    main()
