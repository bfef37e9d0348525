"""One training step and one prediction of a detector or segmentor on synthetic pictures."""

import numpy as np
import torch
from mmengine.logging import MessageHub
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import PixelData

import vik_mm
from vik_mm.config.machine import without_sync_bn
from vik_mm.datasets.shapes import draw_scene


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
