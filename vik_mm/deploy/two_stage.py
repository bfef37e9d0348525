"""Faster, Mask and Cascade R-CNN behind their features, as one graph: proposals, boxes and masks.

MMDetection's own code takes lists of images and branches on how many boxes there are. This goes through the same
layers with the same rules, in tensors alone. ``B`` images, ``R`` regions, ``n`` objects of the batch.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .boxes import best, decode, has_area, image_scale, is_of, listed, overlap_threshold, pick, priors, rows, suppress

_RAW = 'export its backbone: --part backbone'


class TwoStageAnswer(nn.Module):
    """Boxes and masks of a two-stage detector, in pixels of the image.

    Args:
        model (nn.Module): A detector with an ``RPNHead`` and a ``StandardRoIHead`` or ``CascadeRoIHead``.

    Shape:
        - Input: ``[B, H, W, 3]``, ``[B, 3, h, w]``, and of each level the features, the
          objectness and the deltas of proposals.
        - Output: as of :class:`vik_mm.deploy.boxes.OneStageAnswer`, and with a mask head masks ``[n, H, W]``, bool:
          those of the first image in the order of its boxes, then those of the second.

    Raises:
        BadInputError: If a part of the model predicts in another way.
    """

    inputs = ('image', 'content')

    def __init__(self, model: Any):
        super().__init__()
        _check(model)
        roi = model.roi_head
        # Its layers are the network's, not this module's.
        self._rpn = (model.rpn_head,)
        self.has_masks = bool(roi.with_mask)
        self.box_heads = nn.ModuleList(_in_list(roi.bbox_head))
        self.box_layers = _in_list(roi.bbox_roi_extractor)
        self.mask_heads = nn.ModuleList(_in_list(roi.mask_head) if self.has_masks else [])
        self.mask_layers = _in_list(roi.mask_roi_extractor) if self.has_masks else []
        self.rpn_cfg, self.cfg = model.test_cfg['rpn'], model.test_cfg['rcnn']
        self.rpn_overlap = overlap_threshold(self.rpn_cfg.get('nms'), 'RPN')
        self.overlap = overlap_threshold(self.cfg.get('nms'), 'box head')
        self.count = int(self.cfg['max_per_img'])
        self.thresholds = dict(score=float(self.cfg['score_thr']), overlap=self.overlap)
        if self.has_masks:
            self.thresholds['mask'] = float(self.cfg['mask_thr_binary'])
        self.levels = len(model.rpn_head.prior_generator.strides)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return ('boxes', 'scores', 'labels', 'counts', *(['masks'] if self.has_masks else []))

    def forward(self, image: Tensor, content: Tensor, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make boxes and masks."""
        maps = outs[: -2 * self.levels]
        logits, deltas = outs[-2 * self.levels : -self.levels], outs[-self.levels :]
        boxes, has_box = self._proposals(content, logits, deltas)
        total: Any = 0
        for k, head in enumerate(self.box_heads):
            scores, delta = head(_pool(self.box_layers[k], maps, _regions(boxes)))
            total = total + scores
            if k + 1 < len(self.box_heads):
                boxes = _refined(head, boxes, scores, delta, content)
        head = self.box_heads[-1]
        scores = (total / len(self.box_heads)).softmax(-1)[:, :-1].reshape(*boxes.shape[:2], -1)
        scores = torch.where(has_box[..., None], scores, -1)
        classes = scores.shape[2]
        per_box = 1 if head.reg_class_agnostic else classes
        prior = boxes[:, :, None].expand(-1, -1, per_box, -1).flatten(1, 2)
        boxes = decode(head.bbox_coder, prior, delta.reshape(*prior.shape[:2], -1), content)
        if head.reg_class_agnostic:
            boxes = boxes[:, :, None].expand(-1, -1, classes, -1).flatten(1, 2)
        labels = torch.arange(classes).expand_as(scores).flatten(1)
        scores = scores.flatten(1)
        is_above = scores > self.thresholds['score']
        scores, places = suppress(boxes, scores.clamp(min=0), labels, is_above, self.overlap, self.count)
        boxes, labels = pick(boxes, places), labels.gather(1, places)
        answer: tuple[Tensor, ...] = listed(boxes / image_scale(image, content), scores, labels)
        if self.has_masks:
            answer = (*answer, self._masks(image, maps, boxes, labels, scores >= 0, answer[0]))
        return answer

    def _proposals(self, content: Tensor, logits: Sequence[Tensor], deltas: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Regions ``[B, R, 4]``, and which of them are any."""
        (rpn,), found = self._rpn, []
        for k, prior in enumerate(priors(rpn.prior_generator, logits)):
            scores = rows(logits[k], rpn.cls_out_channels)
            scores = scores.sigmoid() if rpn.use_sigmoid_cls else scores.softmax(-1)[..., :-1]
            values, places = best(scores[..., 0], self.rpn_cfg['nms_pre'])
            delta = pick(rows(deltas[k], 4), places)
            prior = prior[None].expand(delta.shape[0], -1, -1)
            found.append((pick(prior, places), delta, values, torch.full_like(places, k)))
        prior, delta, scores, levels = (torch.cat(each, 1) for each in zip(*found))
        boxes = decode(rpn.bbox_coder, prior, delta, content)
        is_candidate = (scores >= 0) & has_area(boxes, self.rpn_cfg)
        scores, places = suppress(
            boxes, scores.clamp(min=0), levels, is_candidate, self.rpn_overlap, int(self.rpn_cfg['max_per_img'])
        )
        has_box = scores >= 0
        return torch.where(has_box[..., None], pick(boxes, places), 0.0), has_box

    def _masks(
        self, image: Tensor, maps: Sequence[Tensor], boxes: Tensor, labels: Tensor, is_found: Tensor, final: Tensor
    ):
        """Masks ``[n, H, W]`` of the boxes found; ``final`` are these in pixels of the image."""
        found = is_found.reshape(-1).nonzero()[:, 0]
        regions = _regions(boxes).index_select(0, found)
        labels = labels.reshape(-1).index_select(0, found)
        total: Any = 0
        for head, layers in zip(self.mask_heads, self.mask_layers):
            logits = head(_pool(layers, maps, regions))
            if head.class_agnostic:
                chosen = logits[:, 0]
            else:
                places = labels[:, None, None, None].expand(-1, 1, *logits.shape[2:])
                chosen = logits.gather(1, places)[:, 0]
            total = total + chosen.sigmoid()
        masks = total / len(self.mask_heads)
        return _paste(masks, final.reshape(-1, 4).index_select(0, found), image) >= self.thresholds['mask']


def _regions(boxes: Tensor) -> Tensor:
    """``[B, R, 4]`` as ``[B * R, 5]``, the image's number first."""
    number = torch.arange(boxes.shape[0], dtype=boxes.dtype)[:, None, None].expand(-1, boxes.shape[1], 1)
    return torch.cat([number, boxes], -1).reshape(-1, 5)


def _pool(extractor: Any, maps: Sequence[Tensor], regions: Tensor) -> Tensor:
    """Features of regions, each from the level that suits its size."""
    layers = extractor.roi_layers
    maps = maps[: len(layers)]
    first = layers[0]
    levels = extractor.map_roi_levels(regions, len(layers))
    features = maps[0].new_zeros(regions.shape[0], maps[0].shape[1], *first.output_size)
    for k, (layer, level) in enumerate(zip(layers, maps)):
        places = (levels == k).nonzero()[:, 0]
        part = torch.ops.torchvision.roi_align(
            level,
            regions.index_select(0, places),
            layer.spatial_scale,
            *layer.output_size,
            layer.sampling_ratio,
            layer.aligned,
        )
        features = features.index_put((places,), part)
    return features


def _refined(head: Any, boxes: Tensor, scores: Tensor, delta: Tensor, content: Tensor) -> Tensor:
    """The next stage's boxes ``[B, R, 4]``."""
    if not head.reg_class_agnostic:
        labels = scores[:, :-1].argmax(1)
        delta = delta.reshape(delta.shape[0], -1, 4).gather(1, labels[:, None, None].expand(-1, 1, 4))[:, 0]
    return decode(head.bbox_coder, boxes, delta.reshape(*boxes.shape[:2], 4), content)


def _paste(masks: Tensor, boxes: Tensor, image: Tensor) -> Tensor:
    """Spread masks ``[n, S, S]`` over their boxes ``[n, 4]``, between pixels by their distance: ``[n, H, W]``."""

    def weights(low: Tensor, high: Tensor, length: Any, count: int) -> Tensor:
        pixels = torch.arange(length, dtype=torch.float32) + 0.5
        cells = (pixels - low[:, None]) / (high - low).clamp(min=1e-6)[:, None] * count - 0.5
        return (1 - (cells[..., None] - torch.arange(count)).abs()).clamp(min=0)

    down = weights(boxes[:, 1], boxes[:, 3], image.shape[1], masks.shape[1])
    across = weights(boxes[:, 0], boxes[:, 2], image.shape[2], masks.shape[2])
    return down @ masks @ across.transpose(1, 2)


def _in_list(modules: Any) -> list[nn.Module]:
    return list(modules) if isinstance(modules, nn.ModuleList) else [modules]


def _check(model: Any) -> None:
    """Make sure that every part is one that this file knows."""
    rpn, roi = model.rpn_head, model.roi_head

    def refuse(part: Any, why: str = 'predicts in a way of its own') -> None:
        raise BadInputError(
            f'{type(model).__name__} cannot be exported whole: its {type(part).__name__} {why}, which is not written '
            f'as a graph; {_RAW}'
        )

    if type(model).__name__ not in ('FasterRCNN', 'MaskRCNN', 'CascadeRCNN', 'TwoStageDetector'):
        refuse(model)
    for method, names in dict(
        predict=('BaseDenseHead',),
        predict_by_feat=('BaseDenseHead',),
        _predict_by_feat_single=('RPNHead',),
        _bbox_post_process=('RPNHead',),
    ).items():
        if not is_of(rpn, method, *names):
            refuse(rpn)
    if type(roi).__name__ not in ('StandardRoIHead', 'CascadeRoIHead'):
        refuse(roi)
    if roi.with_shared_head:
        refuse(roi, 'shares a head between stages')
    extractors = _in_list(roi.bbox_roi_extractor) + (_in_list(roi.mask_roi_extractor) if roi.with_mask else [])
    for extractor in extractors:
        if type(extractor).__name__ != 'SingleRoIExtractor':
            refuse(extractor)
        layers: Any = extractor.roi_layers
        for layer in layers:
            if type(layer).__name__ != 'RoIAlign' or layer.pool_mode != 'avg':
                refuse(layer)
    for head in _in_list(roi.bbox_head):
        if not is_of(head, 'predict_by_feat', 'BBoxHead') or not is_of(head, '_predict_by_feat_single', 'BBoxHead'):
            refuse(head)
        if head.custom_cls_channels or not head.with_reg:
            refuse(head, 'has no plain scores or boxes')
    for head in _in_list(roi.mask_head) if roi.with_mask else []:
        if not is_of(head, 'predict_by_feat', 'FCNMaskHead'):
            refuse(head)
    if roi.with_mask and float(model.test_cfg['rcnn']['mask_thr_binary']) < 0:
        refuse(roi, 'gives masks without a threshold (mask_thr_binary < 0)')
