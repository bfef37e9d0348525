"""Put ViK into configs that ship with MMDetection and MMSegmentation, and see whether they train and predict.

Each family gives one config. Its backbone is swapped, the model takes one training step and predicts on synthetic
pictures. It passes when losses and predictions come, and every parameter of the backbone has a finite gradient. One
that fails is tried with its own backbone too, which tells whose failure it is.
"""

import argparse
import contextlib
import csv
import gc
import io
import sys
import time
import traceback
import warnings
from pathlib import Path

from vik_mm_cli.command_line import parse
from vik_mm_cli.errors import BadInputError, end_on_user_errors

CONFIGS = {
    'mmdet': {
        'atss': 'atss_r50_fpn_1x_coco',
        'autoassign': 'autoassign_r50-caffe_fpn_1x_coco',
        'boxinst': 'boxinst_r50_fpn_ms-90k_coco',
        'cascade_rcnn': 'cascade-mask-rcnn_r50_fpn_1x_coco',
        'centernet': 'centernet_r18-dcnv2_8xb16-crop512-140e_coco',
        'condinst': 'condinst_r50_fpn_ms-poly-90k_coco_instance',
        'conditional_detr': 'conditional-detr_r50_8xb2-50e_coco',
        'dab_detr': 'dab-detr_r50_8xb2-50e_coco',
        'ddod': 'ddod_r50_fpn_1x_coco',
        'deformable_detr': 'deformable-detr_r50_16xb2-50e_coco',
        'detr': 'detr_r50_8xb2-150e_coco',
        'dino': 'dino-4scale_r50_8xb2-12e_coco',
        'double_heads': 'dh-faster-rcnn_r50_fpn_1x_coco',
        'dyhead': 'atss_r50_fpn_dyhead_1x_coco',
        'dynamic_rcnn': 'dynamic-rcnn_r50_fpn_1x_coco',
        'faster_rcnn': 'faster-rcnn_r50_fpn_1x_coco',
        'fcos': 'fcos_r50-caffe_fpn_gn-head_1x_coco',
        'foveabox': 'fovea_r50_fpn_4xb4-1x_coco',
        'free_anchor': 'freeanchor_r50_fpn_1x_coco',
        'fsaf': 'fsaf_r50_fpn_1x_coco',
        'gfl': 'gfl_r50_fpn_1x_coco',
        'grid_rcnn': 'grid-rcnn_r50_fpn_gn-head_2x_coco',
        'groie': 'mask-rcnn_r50_fpn_groie_1x_coco',
        'guided_anchoring': 'ga-faster-rcnn_r50_fpn_1x_coco',
        'htc': 'htc_r50_fpn_1x_coco',
        'libra_rcnn': 'libra-faster-rcnn_r50_fpn_1x_coco',
        'mask2former': 'mask2former_r50_8xb2-lsj-50e_coco',
        'mask_rcnn': 'mask-rcnn_r50_fpn_1x_coco',
        'ms_rcnn': 'ms-rcnn_r50_fpn_1x_coco',
        'nas_fpn': 'retinanet_r50_nasfpn_crop640-50e_coco',
        'paa': 'paa_r50_fpn_1x_coco',
        'pafpn': 'faster-rcnn_r50_pafpn_1x_coco',
        'pisa': 'faster-rcnn_r50_fpn_pisa_1x_coco',
        'point_rend': 'point-rend_r50-caffe_fpn_ms-1x_coco',
        'queryinst': 'queryinst_r50_fpn_1x_coco',
        'reppoints': 'reppoints-moment_r50_fpn_1x_coco',
        'retinanet': 'retinanet_r50_fpn_1x_coco',
        'sabl': 'sabl-faster-rcnn_r50_fpn_1x_coco',
        'scnet': 'scnet_r50_fpn_1x_coco',
        'solo': 'solo_r50_fpn_1x_coco',
        'solov2': 'solov2_r50_fpn_1x_coco',
        'sparse_rcnn': 'sparse-rcnn_r50_fpn_1x_coco',
        'tood': 'tood_r50_fpn_1x_coco',
        'vfnet': 'vfnet_r50_fpn_1x_coco',
        'yolact': 'yolact_r50_1xb8-55e_coco',
        'yolof': 'yolof_r50-c5_8xb8-1x_coco',
    },
    'mmseg': {
        'ann': 'ann_r50-d8_4xb4-80k_ade20k-512x512',
        'apcnet': 'apcnet_r50-d8_4xb4-80k_ade20k-512x512',
        'ccnet': 'ccnet_r50-d8_4xb4-80k_ade20k-512x512',
        'danet': 'danet_r50-d8_4xb4-80k_ade20k-512x512',
        'deeplabv3': 'deeplabv3_r50-d8_4xb4-80k_ade20k-512x512',
        'deeplabv3plus': 'deeplabv3plus_r50-d8_4xb4-80k_ade20k-512x512',
        'dmnet': 'dmnet_r50-d8_4xb4-80k_ade20k-512x512',
        'dnlnet': 'dnl_r50-d8_4xb4-80k_ade20k-512x512',
        'encnet': 'encnet_r50-d8_4xb4-80k_ade20k-512x512',
        'fastfcn': 'fastfcn_r50-d32_jpu_psp_4xb4-80k_ade20k-512x512',
        'fcn': 'fcn_r50-d8_4xb4-80k_ade20k-512x512',
        'gcnet': 'gcnet_r50-d8_4xb4-80k_ade20k-512x512',
        'isanet': 'isanet_r50-d8_4xb4-80k_ade20k-512x512',
        'knet': 'knet-s3_r50-d8_upernet_8xb2-adamw-80k_ade20k-512x512',
        'mask2former': 'mask2former_r50_8xb2-160k_ade20k-512x512',
        'maskformer': 'maskformer_r50-d32_8xb2-160k_ade20k-512x512',
        'nonlocal_net': 'nonlocal_r50-d8_4xb4-80k_ade20k-512x512',
        'point_rend': 'pointrend_r50_4xb4-160k_ade20k-512x512',
        'psanet': 'psanet_r50-d8_4xb4-80k_ade20k-512x512',
        'pspnet': 'pspnet_r50-d8_4xb4-80k_ade20k-512x512',
        'sem_fpn': 'fpn_r50_4xb4-160k_ade20k-512x512',
        'upernet': 'upernet_r50_4xb4-80k_ade20k-512x512',
    },
}


# DINO picks 900 queries among the cells of its maps: more than smaller pictures have.
SIZES = {'dino': 256}


def try_family(scope, family, name, size):
    """Return result and reason."""
    from mmengine.config import Config
    from synthetic_step import try_model

    import vik_mm
    from vik_mm_cli.config_files import find_config

    load = lambda: Config.fromfile(find_config(f'{scope}::{family}/{name}.py'))  # noqa: E731
    try:
        cfg = vik_mm.swap_backbone(load(), 'vik-t')
        try_model(cfg, scope, size)
        return 'passes', ''
    except Exception as error:
        reason = describe(error)
    try:
        try_model(load(), scope, size)
        return 'fails', reason
    except Exception as error:
        own = describe(error)
        return 'fails with its own backbone too', reason if own == reason else f'{reason}; its own: {own}'


def describe(error):
    message = ' '.join(str(error).split())[:140]
    where = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
    return f'{type(error).__name__}: {message} ({where.parent.name}/{where.name})'


def parse_args(argv=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('families', nargs='*', metavar='package/family', help='default: all of them')
    parser.add_argument('--size', type=int, default=128, help='side of the pictures in pixels (default: %(default)s)')
    parser.add_argument('--out', metavar='FILE.csv', help='write the table here too')
    parser.add_argument('--verbose', action='store_true', help='show what the models print')
    return parse(parser, argv, check)


def check(args):
    known = [f'{scope}/{family}' for scope, configs in CONFIGS.items() for family in configs]
    if unknown := set(args.families) - set(known):
        raise BadInputError(f'unknown {sorted(unknown)}; choose from {" ".join(known)}')


def run(args):
    """Try the families in turn."""
    from rich.progress import Progress

    wanted = [(s, f, n) for s, configs in CONFIGS.items() for f, n in configs.items()]
    if args.families:
        wanted = [row for row in wanted if f'{row[0]}/{row[1]}' in args.families]
    warnings.filterwarnings('ignore')
    rows = []
    with Progress() as progress:
        task = progress.add_task('', total=len(wanted))
        for scope, family, name in wanted:
            progress.update(task, description=f'{scope}/{family}')
            start = time.time()
            quiet = contextlib.nullcontext() if args.verbose else contextlib.redirect_stdout(io.StringIO())
            with quiet:
                result, reason = try_family(scope, family, name, SIZES.get(family, args.size))
            rows.append([scope, family, name, result, reason])
            progress.console.print(
                f'{scope}/{family}: {result} {reason} [{time.time() - start:.0f} s]', markup=False, soft_wrap=True
            )
            progress.advance(task)
            gc.collect()
    header = ['package', 'family', 'config', 'result', 'reason']
    lines = [header, ['---'] * len(header), *rows]
    print('\n'.join('| ' + ' | '.join(line) + ' |' for line in lines))
    print(f'{sum(row[3] == "passes" for row in rows)} of {len(rows)} pass')
    if args.out:
        with open(args.out, 'w', newline='') as file:
            csv.writer(file).writerows([header, *rows])
    sys.exit(any(row[3] == 'fails' for row in rows))


def main():
    with end_on_user_errors():
        run(parse_args())


if __name__ == '__main__':
    main()
