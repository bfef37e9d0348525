"""Boxes: suppression and overlap. Corners ``(x1, y1, x2, y2)`` in pixels; ``N`` boxes."""

import torch
import torchvision
from torch import Tensor


def _with_offset(boxes: Tensor, offset: int) -> Tensor:
    """Move the far corner, so that a side is ``x2 - x1 + offset`` for code that knows no offset."""
    return boxes + boxes.new_tensor([0, 0, offset, offset]) if offset else boxes


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Return indices of the boxes ``[N, 4]`` that survive, best first."""
    # torchvision wants one dtype and computes in float32 under autocast too.
    return torchvision.ops.nms(_with_offset(boxes.float(), offset), scores.float(), iou_threshold)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Write boxes and decayed scores into the first rows of ``dets`` ``[N, 5]``, best first; return their indices.

    ``method`` is 0 (hard), 1 (linear) or 2 (gaussian). Ties come out in the order of the compiled operator, which keeps
    its boxes in one array, swaps the best to the front, and fills the place of a box it drops with the last one.
    """
    boxes, scores = boxes.float(), scores.float().clone()
    indices = torch.arange(len(boxes))
    done = 0
    while done < len(indices):
        best = done + int(scores[done:].argmax())
        swapped = torch.tensor([best, done])
        for values in (indices, scores):
            values[[done, best]] = values[swapped]
        best_box, rest = boxes[indices[done]][None], boxes[indices[done + 1 :]]
        overlap = torchvision.ops.box_iou(_with_offset(best_box, offset), _with_offset(rest, offset))[0]
        if method == 2:
            weight = torch.exp(-(overlap**2) / sigma)
        else:
            weight = torch.where(overlap >= iou_threshold, 1 - overlap if method == 1 else 0.0, 1.0)
        dets[done, :4], dets[done, 4] = best_box[0], scores[done]
        done += 1
        scores[done:] *= weight
        keep = scores >= min_score
        keep[:done] = True
        count = int(keep.sum())
        order = torch.arange(count)
        order[~keep[:count]] = torch.nonzero(keep[count:])[:, 0].flip(0) + count
        indices, scores = indices[order], scores[order]
    return indices


def nms_match(dets: Tensor, iou_threshold: float) -> list[list[int]]:
    """Group ``dets`` ``[N, 5]``: each surviving box first, then the ones that it suppressed, best first."""
    order = dets[:, 4].sort(descending=True).indices
    overlaps = torchvision.ops.box_iou(dets[:, :4], dets[:, :4])
    groups = []
    while len(order):
        near = overlaps[order[0], order] >= iou_threshold
        near[0] = True
        groups.append(order[near].tolist())
        order = order[~near]
    return groups


def bbox_overlaps(bboxes1: Tensor, bboxes2: Tensor, ious: Tensor, mode: int, aligned: bool, offset: int) -> None:
    """Write the overlap of boxes into ``ious``, ``[N1, N2]`` or, pair by pair, ``[N]``.

    ``mode`` is 0 for intersection over union and 1 for intersection over the first box.
    """
    one, two = _with_offset(bboxes1, offset), _with_offset(bboxes2, offset)
    if not aligned:
        one, two = one[:, None], two[None]
    sides = (torch.minimum(one[..., 2:], two[..., 2:]) - torch.maximum(one[..., :2], two[..., :2])).clamp(min=0)
    inter = sides.prod(-1)
    area = (one[..., 2:] - one[..., :2]).prod(-1)
    if mode == 0:
        area = area + (two[..., 2:] - two[..., :2]).prod(-1) - inter
    ious.copy_(inter / area)
