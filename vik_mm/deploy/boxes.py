"""Boxes of detectors within a graph: decoding, suppression and what one-stage heads answer.

The rules are MMDetection's; sizes may be symbols, and no step depends on values but the choice of candidates.
``B`` images, ``N`` boxes, ``K`` objects an image at most, ``C`` classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torchvision  # noqa: F401  its import registers torch.ops.torchvision
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .resizing import as_tensor


def image_scale(image: Tensor, content: Tensor) -> Tensor:
    """Pixels of ``content`` ``[B, 3, h, w]`` for one of ``image`` ``[B, H, W, 3]``: x, y, x, y."""
    height, width = (
        as_tensor(new, torch.float64) / as_tensor(old, torch.float64)
        for new, old in zip(content.shape[2:], image.shape[1:3])
    )
    return torch.stack([width, height, width, height]).float()


def clip(boxes: Tensor, content: Tensor) -> Tensor:
    """Keep boxes ``[..., 4]`` within ``content`` ``[B, 3, h, w]``."""
    height, width = (as_tensor(side, torch.float32) for side in content.shape[2:])
    return torch.minimum(boxes.clamp(min=0), torch.stack([width, height, width, height]))


def has_area(boxes: Tensor, cfg: Mapping[str, Any]) -> Tensor:
    """Which boxes ``[..., 4]`` are as large as a ``test_cfg`` wants."""
    sides, low = boxes[..., 2:] - boxes[..., :2], cfg.get('min_bbox_size', -1)
    return (sides > low).all(-1) if low >= 0 else torch.ones_like(sides[..., 0], dtype=torch.bool)


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Find the ``count`` best of ``[B, N]``, whatever ``N`` is; where there are fewer, scores of -1 follow."""
    none = torch.full_like(scores[:, :1], -1).expand(-1, count)
    values, places = torch.cat([scores, none], 1).topk(count)
    return values, torch.where(values < 0, 0, places)


def pick(values: Tensor, places: Tensor) -> Tensor:
    """Rows ``[B, K, D]`` of ``values`` ``[B, N, D]`` at ``places`` ``[B, K]``."""
    return values.gather(1, places[..., None].expand(-1, -1, values.shape[2]))


def suppress(
    boxes: Tensor, scores: Tensor, groups: Tensor, is_candidate: Tensor, overlap: float, count: int
) -> tuple[Tensor, Tensor]:
    """Choose boxes of each image that overlap no better one of the same group.

    Args:
        boxes (Tensor): ``[B, N, 4]``.
        scores (Tensor): ``[B, N]``, none below zero.
        groups (Tensor): Classes or levels, ``[B, N]``, int64.
        is_candidate (Tensor): Which boxes may be chosen, ``[B, N]``.
        overlap (float): Intersection over union from which on a box goes.
        count (int): ``K``.

    Returns:
        tuple[Tensor, Tensor]: Scores ``[B, K]``, best first, -1 where an image has fewer, and places in ``N``.
    """
    # Groups stand side by side and images one below another, so that none overlaps another.
    span = boxes.max() - boxes.min().clamp(max=0) + 1
    images = torch.arange(boxes.shape[0])[:, None].expand_as(groups)
    shift = torch.stack([groups, images, groups, images], -1).float() * span
    candidates = is_candidate.reshape(-1).nonzero()[:, 0]
    apart = (boxes + shift).reshape(-1, 4).index_select(0, candidates)
    flat = scores.reshape(-1)
    kept = torch.ops.torchvision.nms(apart, flat.index_select(0, candidates), overlap)
    kept = candidates.index_select(0, kept)
    chosen = torch.full_like(flat, -1).scatter(0, kept, flat.index_select(0, kept))
    return best(chosen.reshape(scores.shape), count)


def priors(generator: Any, maps: Sequence[Tensor]) -> list[Tensor]:
    """Anchors or points of each level."""
    return generator.grid_priors([tuple(each.shape[2:]) for each in maps], dtype=maps[0].dtype, device='cpu')


def decode(coder: Any, prior: Tensor, delta: Tensor, content: Tensor) -> Tensor:
    """Boxes ``[B, N, 4]`` from priors ``[B, N, P]`` and what a head predicts ``[B, N, D]``."""
    boxes = coder.decode(prior.reshape(-1, prior.shape[2]), delta.reshape(-1, delta.shape[2]))
    boxes = boxes.reshape(prior.shape[0], -1, 4)
    return clip(boxes, content) if coder.clip_border else boxes


def rows(level: Tensor, length: int) -> Tensor:
    """``[B, A * length, H, W]`` as ``[B, H * W * A, length]``."""
    return level.permute(0, 2, 3, 1).reshape(level.shape[0], -1, length)


def is_of(owner: Any, method: str, *names: str) -> bool:
    """Tell whether a method is the one that these classes of MMDetection define."""
    function = getattr(type(owner), method, None)
    return getattr(function, '__qualname__', '') in {f'{name}.{method}' for name in names}


def overlap_threshold(nms: Any, what: str) -> float:
    """The threshold of a ``test_cfg``'s ``nms``.

    Raises:
        BadInputError: If it is no plain suppression.
    """
    plain = dict(nms or {})
    threshold = plain.pop('iou_threshold', plain.pop('iou_thr', None))
    if plain.pop('type', 'nms') != 'nms' or threshold is None or any(plain.pop(key, 0) for key in list(plain)):
        raise BadInputError(
            f"the {what} suppresses boxes by {nms}; a graph has only dict(type='nms', iou_threshold=...). "
            'Set that in test_cfg, or take --raw-input'
        )
    return float(threshold)


class OneStageAnswer(nn.Module):
    """Boxes of what a one-stage head predicts, in pixels of the image.

    Args:
        model (nn.Module): A detector of MMDetection whose head predicts as RetinaNet, FCOS and ATSS do.

    Shape:
        - Input: ``[B, H, W, 3]``, ``[B, 3, h, w]``, and the head's outputs.
        - Output: boxes ``[B, K, 4]``, scores and labels ``[B, K]``, counts ``[B]``. Rows past an image's count are 0,
          their labels -1.

    Raises:
        BadInputError: If the head predicts in another way.
    """

    inputs = ('image', 'content')
    names = ('boxes', 'scores', 'labels', 'counts')

    def __init__(self, model: Any):
        super().__init__()
        head = model.bbox_head
        methods = ('predict', 'predict_by_feat', '_predict_by_feat_single', '_bbox_post_process')
        if not all(is_of(head, method, 'BaseDenseHead') for method in methods):
            raise BadInputError(
                f'{type(head).__name__} makes boxes in a way of its own, which is not written as a graph; '
                'take --raw-input, which gives what the head predicts'
            )
        if getattr(head.loss_cls, 'custom_cls_channels', False):
            raise BadInputError(f'the loss of {type(head).__name__} has an activation of its own; take --raw-input')
        self._head = (head,)  # its layers are the network's, not this module's
        self.cfg = model.test_cfg
        self.overlap = overlap_threshold(self.cfg.get('nms'), type(head).__name__)
        self.count = int(self.cfg.get('max_per_img', 100))
        self.thresholds = dict(score=float(self.cfg.get('score_thr', 0)), overlap=self.overlap)
        self.levels = len(head.prior_generator.strides)

    def forward(self, image: Tensor, content: Tensor, outs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Make boxes."""
        (head,), levels = self._head, self.levels
        classes, deltas, factors = (outs[k * levels : (k + 1) * levels] for k in range(3))
        found = []
        for k, prior in enumerate(priors(head.prior_generator, classes)):
            logits = rows(classes[k], head.cls_out_channels)
            scores = logits.sigmoid() if head.use_sigmoid_cls else logits.softmax(-1)[..., :-1]
            is_above = scores > self.thresholds['score']
            values, places = best(torch.where(is_above, scores, -1).flatten(1), self.cfg['nms_pre'])
            labels = places % scores.shape[2]
            places = places // scores.shape[2]  # torch.div with a rounding mode would be float32 in ONNX files
            factor = pick(rows(factors[k], 1), places)[..., 0].sigmoid() if factors else torch.ones_like(values)
            delta = pick(rows(deltas[k], head.bbox_coder.encode_size), places)
            prior = prior[None].expand(scores.shape[0], -1, -1)
            found.append((pick(prior, places), delta, values, labels, factor))
        prior, delta, scores, labels, factor = (torch.cat(each, 1) for each in zip(*found))
        boxes = decode(head.bbox_coder, prior, delta, content)
        is_candidate = (scores >= 0) & has_area(boxes, self.cfg)
        boxes, scores = boxes / image_scale(image, content), scores.clamp(min=0) * factor
        scores, places = suppress(boxes, scores, labels, is_candidate, self.overlap, self.count)
        return listed(pick(boxes, places), scores, labels.gather(1, places))


def listed(boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Clear the rows without an object, whose score is -1, and count the others."""
    is_found = scores >= 0
    boxes = torch.where(is_found[..., None], boxes, 0.0)
    return boxes, scores.clamp(min=0), torch.where(is_found, labels, -1), is_found.sum(1)
