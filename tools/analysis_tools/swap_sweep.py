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

import numpy as np
import torch
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData
from rich.progress import Progress

import vik_mm
from vik_mm.compat.configs import resolve_config
from vik_mm.compat.sync_bn import without_sync_bn
from vik_mm.datasets.shapes import draw_scene

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


def detection_batch(cfg, size, num_classes):
    """Two scenes as MMDetection's data loaders would bring them."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.bbox import HorizontalBoxes
    from mmdet.structures.mask import BitmapMasks
    from mmengine.structures import InstanceData

    scale = 1.0
    for step in cfg.get('train_pipeline', []):
        if step.type == 'SegRescale':
            scale = step.scale_factor
    inputs, samples = [], []
    for seed in range(2):
        scene = draw_scene(seed, size)
        masks = scene.masks[scene.masks.any((1, 2))]
        labels = scene.labels[scene.masks.any((1, 2))] % num_classes
        boxes = []
        for mask in masks:
            rows, columns = np.nonzero(mask)
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        sample = DetDataSample(
            metainfo=dict(
                img_shape=(size, size),
                ori_shape=(size, size),
                pad_shape=(size, size),
                batch_input_shape=(size, size),
                scale_factor=(1.0, 1.0),
                flip=False,
                border=np.zeros(4),
                img_id=seed,
                img_path='',
            )
        )
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor(np.array(boxes), dtype=torch.float32)),
            labels=torch.from_numpy(labels),
            masks=BitmapMasks(masks.astype(np.uint8), size, size),
        )
        sample.ignored_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.zeros(0, 4)), labels=torch.zeros(0, dtype=torch.long)
        )
        seg = np.zeros((size, size), dtype=np.uint8)
        for mask, label in zip(masks, labels):
            seg[mask] = label
        step = round(1 / scale)
        sample.gt_sem_seg = PixelData(sem_seg=torch.from_numpy(seg[None, ::step, ::step]))
        inputs.append(torch.from_numpy(scene.image.transpose(2, 0, 1).copy()))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def segmentation_batch(cfg, size, num_classes):
    """Two scenes as MMSegmentation's data loaders would bring them."""
    from mmseg.structures import SegDataSample

    inputs, samples = [], []
    for seed in range(2):
        scene = draw_scene(seed, size)
        seg = np.zeros((size, size), dtype=np.uint8)
        for mask, label in zip(scene.masks, scene.labels):
            seg[mask] = label + 1
        shape = dict(img_shape=(size, size), ori_shape=(size, size), pad_shape=(size, size))
        sample = SegDataSample(metainfo=dict(**shape, img_path=''))
        sample.gt_sem_seg = PixelData(data=torch.from_numpy(seg[None]).long())
        inputs.append(torch.from_numpy(scene.image.transpose(2, 0, 1).copy()))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


def num_classes_of(node):
    """The smallest number of classes that a head has."""
    found = []

    def search(value):
        if isinstance(value, dict):
            found.extend(
                v for k, v in value.items() if k in ('num_classes', 'num_things_classes') and isinstance(v, int) and v
            )
            for child in value.values():
                search(child)
        elif isinstance(value, (list, tuple)):
            for child in value:
                search(child)

    search(node)
    return min(found)


def try_model(cfg, scope, size):
    """Train for a step and predict; raise where something is missing."""
    init_default_scope(scope)
    cfg.model = without_sync_bn(cfg.model)
    if scope == 'mmseg':
        cfg.model.data_preprocessor.size = (size, size)
        cfg.model.data_preprocessor.pop('size_divisor', None)
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    for module in model.modules():
        # No checkpoints from the net.
        if isinstance(getattr(module, 'init_cfg', None), dict) and module.init_cfg.get('type') == 'Pretrained':
            module.init_cfg = None
    model.init_weights()
    batch_of = segmentation_batch if scope == 'mmseg' else detection_batch
    batch = batch_of(cfg, size, num_classes_of(cfg.model))
    for name in ('iter', 'epoch'):
        # Some heads ask the run how far it is.
        MessageHub.get_current_instance().update_info(name, 0)
    model.train()
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    loss, _ = model.parse_losses(losses)
    if not loss.isfinite():
        raise ArithmeticError(f'loss is {loss.item()}')
    loss.backward()
    if isinstance(model.backbone, vik_mm.ViK):
        for name, param in model.backbone.named_parameters():
            if param.grad is None:
                raise ArithmeticError(f'backbone.{name} has no gradient')
            if not param.grad.isfinite().all():
                raise ArithmeticError(f'backbone.{name} has a gradient that is not finite')
    model.eval()
    for module in model.modules():
        # Untrained box regression throws all boxes off the picture, where masks cannot be pasted.
        if isinstance(getattr(module, 'fc_reg', None), torch.nn.Linear):
            torch.nn.init.zeros_(module.fc_reg.weight)
            torch.nn.init.zeros_(module.fc_reg.bias)
    with torch.no_grad():
        # One picture, as the test loaders of both packages give them.
        batch = {key: values[:1] for key, values in batch_of(cfg, size, num_classes_of(cfg.model)).items()}
        results = model(**model.data_preprocessor(batch, False), mode='predict')
    if len(results) != 1:
        raise ArithmeticError('there are no predictions')


def try_family(scope, family, name, size):
    """Return result and reason."""
    load = lambda: Config.fromfile(resolve_config(f'{scope}::{family}/{name}.py'))  # noqa: E731
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('families', nargs='*', metavar='package/family', help='default: all of them')
    parser.add_argument('--size', type=int, default=128, help='side of the pictures in pixels (default: %(default)s)')
    parser.add_argument('--out', metavar='FILE.csv', help='write the table here too')
    parser.add_argument('--verbose', action='store_true', help='let the models print what they print')
    args = parser.parse_args()
    wanted = [(s, f, n) for s, configs in CONFIGS.items() for f, n in configs.items()]
    if args.families:
        unknown = set(args.families) - {f'{s}/{f}' for s, f, _ in wanted}
        if unknown:
            sys.exit(f'error: unknown {sorted(unknown)}; choose from {" ".join(f"{s}/{f}" for s, f, _ in wanted)}')
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


if __name__ == '__main__':
    main()
