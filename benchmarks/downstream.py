"""A whole detector or segmentor on one random picture."""

from pathlib import Path

import torch
from comparison import Step
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData

import vik_mm  # noqa: F401  registers ViK
from vik_mm.config.machine import without_sync_bn

CONFIGS = Path(__file__).parent.parent / 'configs'
NUM_OBJECTS = 8


def whole_step(config, mixer, mode, height, width):
    """Make a builder of train step (losses and their gradients) or prediction."""

    def make(device):
        cfg = Config.fromfile(CONFIGS / config)
        init_default_scope(cfg.default_scope)
        cfg.model.backbone.update(token_mixer=mixer, init_cfg=None)
        torch.manual_seed(0)
        model = MODELS.build(without_sync_bn(cfg.model)).to(device).train(mode == 'training')
        sample = detection_sample if cfg.default_scope == 'mmdet' else segmentation_sample
        batch = dict(
            inputs=[torch.randint(256, (3, height, width), dtype=torch.uint8)], data_samples=[sample(height, width)]
        )

        def run():
            data = model.data_preprocessor(batch, training=mode == 'training')
            if mode == 'inference':
                with torch.no_grad():
                    model(**data, mode='predict')
                return []
            loss, _ = model.parse_losses(model(**data, mode='loss'))
            loss.backward()
            model.zero_grad(set_to_none=True)
            return []

        return Step(run, None, model, None)

    return make


def detection_sample(height, width):
    """Boxes with masks, spread over the picture."""
    from mmdet.structures import DetDataSample
    from mmdet.structures.mask import BitmapMasks

    corners = torch.rand(NUM_OBJECTS, 2) * torch.tensor([width, height]) * 0.6
    boxes = torch.cat([corners, corners + torch.tensor([width, height]) * 0.3], dim=1)
    masks = torch.zeros(NUM_OBJECTS, height, width, dtype=torch.uint8)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int()):
        mask[top:bottom, left:right] = 1
    meta = dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width), scale_factor=(1, 1))
    sample = DetDataSample(metainfo=meta | dict(batch_input_shape=(height, width)))
    sample.gt_instances = InstanceData(
        bboxes=boxes, labels=torch.randint(80, (NUM_OBJECTS,)), masks=BitmapMasks(masks.numpy(), height, width)
    )
    sample.ignored_instances = InstanceData(bboxes=torch.zeros(0, 4), labels=torch.zeros(0))
    return sample


def segmentation_sample(height, width):
    """A label map of random classes."""
    from mmseg.structures import SegDataSample

    meta = dict(img_shape=(height, width), ori_shape=(height, width), pad_shape=(height, width))
    sample = SegDataSample(metainfo=meta)
    sample.gt_sem_seg = PixelData(data=torch.randint(150, (1, height, width)))
    return sample
