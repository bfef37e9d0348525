"""Test one trained model at several image sizes, with its global maps native or resampled to each size.

ViK's global step works on the grid of ``img_size``: a map of another size is averaged to it and the answer resized back
(native). The other way is to resample the weights to the grid of the new size (resampled). Each row is a whole test.
"""

import argparse
import csv

from vik_mm_cli.command_line import parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors
from vik_mm_cli.option_values import ConfigOptions


def scale_pipeline(steps, ratio, img_size):
    """Multiply the size that images are resized to; where they are not, resize them from ``img_size``."""
    if not any(step['type'] in ('Resize', 'ResizeEdge') for step in steps):
        side = (img_size, img_size) if isinstance(img_size, int) else tuple(img_size)[::-1]
        steps.insert(len(steps) - 1, dict(type='Resize', scale=side, interpolation='bicubic'))
    for step in steps:
        if step['type'] in ('Resize', 'ResizeEdge', 'CenterCrop'):
            key = 'crop_size' if step['type'] == 'CenterCrop' else 'scale'
            size = step[key]
            step[key] = round(size * ratio) if isinstance(size, int) else tuple(round(side * ratio) for side in size)


def test(args, ratio, resampled):
    """Return the metrics of one row."""
    from mmengine.runner import Runner

    from vik_mm.checkpoints import load_runner_weights
    from vik_mm.config import fit_to_machine, load_config
    from vik_mm.datasets.layouts import check_datasets
    from vik_mm.engine.runner import complete_config

    cfg = load_config(args.config, args.cfg_options, args.work_dir)
    check_datasets(cfg, splits=('test',))
    backbone = cfg.model.backbone
    scale_pipeline(cfg.test_dataloader.dataset.pipeline, ratio, backbone.get('img_size', 224))
    backbone.init_cfg = None
    if resampled:
        size = backbone.get('img_size', 224)
        backbone.img_size = round(size * ratio) if isinstance(size, int) else tuple(round(s * ratio) for s in size)
    cfg.load_from, cfg.resume, cfg.log_level = None, False, 'WARNING'
    complete_config(cfg, is_training=False)
    fit_to_machine(cfg)
    runner = Runner.from_cfg(cfg)
    load_runner_weights(runner, args.checkpoint)
    return runner.test()


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file of a model with ViK')
    parser.add_argument('checkpoint', help='checkpoint file')
    parser.add_argument('--ratios', type=float, nargs='+', default=[0.75, 1.0, 1.5, 2.0], help='default: %(default)s')
    parser.add_argument('--metrics', nargs='+', required=True, help='e.g. accuracy/top1, coco/bbox_mAP_50 or mIoU')
    parser.add_argument('--out', metavar='FILE.csv', help='add the rows to this file')
    parser.add_argument('--work-dir', default='work_dirs/resolution', help='for logs (default: %(default)s)')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, metavar='KEY=VALUE')
    return parse(parser, argv)


def run(args):
    """Test at each size, and write the rows."""
    from vik_mm.checkpoints import check_checkpoint_file, load_checkpoints_as_data

    load_checkpoints_as_data()
    rows = []
    check_checkpoint_file(args.checkpoint)
    for ratio in args.ratios:
        for resampled in (False, True) if ratio != 1 else (False,):
            metrics = test(args, ratio, resampled)
            if missing := [name for name in args.metrics if name not in metrics]:
                raise BadInputError(f'--metrics {missing} are not among {sorted(metrics)}')
            step = 'resampled' if resampled else 'native'
            rows += [[args.config, name, ratio, step, f'{metrics[name]:.4f}'] for name in args.metrics]
            print(*rows[-len(args.metrics) :], sep='\n', flush=True)
    if args.out:
        with open(args.out, 'a', newline='') as file:
            csv.writer(file).writerows(rows)


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
