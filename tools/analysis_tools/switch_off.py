r"""Test one trained model with parts of it switched off: the weights that a pattern names are set to zero.

    python tools/analysis_tools/switch_off.py CONFIG CHECKPOINT --split val --metrics coco/bbox_mAP_50 \
        --zero 'stages\.0\..*global_out' 'stages\.[01]\..*global_out'

The first row is the model as it is. A part whose answer is added to its input, as the global step's is, does nothing
when its last weights are zero.
"""

import argparse
import csv
import re

from vik_mm_cli.command_line import parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors
from vik_mm_cli.option_values import ConfigOptions


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('config', help='config file of the model')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument(
        '--zero',
        nargs='+',
        required=True,
        metavar='PATTERN',
        help='regular expressions for names of weights; a row each',
    )
    parser.add_argument('--metrics', nargs='+', required=True, help='e.g. accuracy/top1, coco/bbox_mAP_50 or mIoU')
    parser.add_argument('--split', choices=['val', 'test'], default='test', help='default: %(default)s')
    parser.add_argument('--out', metavar='FILE.csv', help='write the rows to this file')
    parser.add_argument('--work-dir', default='work_dirs/switch_off', help='for logs (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE')
    return parse(parser, argv, check)


def check(args):
    for pattern in args.zero:
        try:
            re.compile(pattern)
        except re.error as error:
            raise BadInputError(f'--zero {pattern!r} is no regular expression: {error}') from error


def build(args):
    """Return a runner that tests on the split."""
    from mmengine.runner import Runner

    from vik_mm.checkpoints import load_runner_weights
    from vik_mm.config import fit_to_machine, load_config
    from vik_mm.datasets.layouts import check_datasets
    from vik_mm.engine.runner import complete_config

    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    if args.split == 'val':
        cfg.test_dataloader, cfg.test_evaluator = cfg.val_dataloader, cfg.val_evaluator
    check_datasets(cfg, splits=('test',))
    cfg.load_from, cfg.resume, cfg.log_level = None, False, 'WARNING'
    complete_config(cfg, is_training=False)
    fit_to_machine(cfg)
    runner = Runner.from_cfg(cfg)
    load_runner_weights(runner, args.checkpoint)
    return runner


def run(args):
    """Test once for each pattern, and write the rows."""
    from vik_mm.checkpoints import check_checkpoint_file, load_checkpoints_as_data

    check_checkpoint_file(args.checkpoint)
    load_checkpoints_as_data()
    runner = build(args)
    whole = {name: value.clone() for name, value in runner.model.state_dict().items()}
    chosen = {'nothing': []} | {pattern: [name for name in whole if re.search(pattern, name)] for pattern in args.zero}
    for pattern, names in chosen.items():
        if not names and pattern != 'nothing':
            raise BadInputError(f'--zero {pattern!r} names none of the weights; they are called as {list(whole)[0]}')
    rows = []
    for pattern, names in chosen.items():
        runner.model.load_state_dict(whole | {name: whole[name] * 0 for name in names})
        metrics = runner.test()
        if missing := [name for name in args.metrics if name not in metrics]:
            raise BadInputError(f'--metrics {missing} are not among {sorted(metrics)}')
        rows.append([pattern, len(names), *(f'{metrics[name]:.4f}' for name in args.metrics)])
        print(*rows[-1], flush=True)
    if args.out:
        with open(args.out, 'w', newline='') as file:
            csv.writer(file).writerows([['zero', 'tensors', *args.metrics], *rows])


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
