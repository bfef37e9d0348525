"""Objects that several windows of a picture show, each made one.

The windows are known, and that says more than boxes: where two windows overlap they see the same pixels, so the parts
of an object's two boxes there agree, however much of the object lies outside of either window. General rules (non-
maximum suppression and merging, as sahi has them) compare whole boxes. These agree little where an object is larger
than the overlap, and they agree much where two objects stand close together.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torchvision.ops import box_area

from .masks import MaskCode, unite
from .tiles import Window

# Least agreement of two boxes of one object: intersection over union within what both windows see.
_AGREEMENT = 0.5
# A box that ends so near its window's border, as a share of the window, is taken for cut by it.
_NEAR = 0.01
# Share of an object, as all windows show it, that a box must cover to be the whole object's.
_WHOLE = 0.8


@dataclass
class Pieces:
    """What the windows of one picture show, in pixels of the picture.

    Args:
        boxes (list[np.ndarray]): For each window ``[n, 4]``, left, top, right, bottom.
        scores (list[np.ndarray]): ``[n]``.
        labels (list[np.ndarray]): ``[n]``.
        masks (list[MaskCode], optional): Of all objects, one window after the other; None where there are no masks.
        windows (list[Window]): The windows.
    """

    boxes: list[np.ndarray] = field(default_factory=list)
    scores: list[np.ndarray] = field(default_factory=list)
    labels: list[np.ndarray] = field(default_factory=list)
    masks: list[MaskCode] | None = None
    windows: list[Window] = field(default_factory=list)


def join_pieces(pieces: Pieces, height: int, width: int) -> dict[str, np.ndarray | list[MaskCode] | None]:
    """Make one object of what several windows show of it.

    Two boxes of different windows belong to one object if they are of one class and agree (intersection over union of
    at least 0.5) within what both windows see, or if one is cut by its window's border and lies by half in the other.
    A window's own boxes are never joined: its detector has told them apart.

    The object gets the surest score. It gets the box and the mask of the surest window that shows it whole; where none
    does, its pieces are put together. A piece of another class than a surer box that shows the object whole is dropped.

    Args:
        pieces (Pieces): What the windows show.
        height (int): Of the picture, in pixels.
        width (int): Of the picture, in pixels.

    Returns:
        dict: ``boxes``, ``scores``, ``labels`` and ``mask_codes`` (None without masks), the surest first.
    """
    boxes, scores, labels = (np.concatenate(part) for part in (pieces.boxes, pieces.scores, pieces.labels))
    origin = np.repeat(np.arange(len(pieces.windows)), [len(part) for part in pieces.boxes])
    limits = np.array([(w.left, w.top, w.right, w.bottom) for w in pieces.windows], np.float32).reshape(-1, 4)
    is_cut = _cut_by_window(boxes, limits[origin], height, width)
    links, dropped = [], np.zeros(len(boxes), bool)
    for first, second in _neighbours(limits):
        one, other = np.flatnonzero(origin == first), np.flatnonzero(origin == second)
        if not len(one) or not len(other):
            continue
        shared = np.concatenate(
            [np.maximum(limits[first], limits[second])[:2], np.minimum(*limits[[first, second]])[2:]]
        )
        agreement = _agreement(boxes[one], boxes[other], shared)
        inside = _covered(boxes[one], boxes[other], is_cut[one], is_cut[other])
        links += _match(np.maximum(agreement, inside), one, other, labels, scores)
        _drop_pieces(agreement, one, other, labels, scores, is_cut, dropped)
    groups = _groups(links, origin, len(boxes))
    found = [_joined(group, boxes, scores, is_cut) for group in groups if not dropped[group].all()]
    found.sort(key=lambda entry: -np.nan_to_num(entry[1], nan=np.inf))
    masks = None if pieces.masks is None else [unite([pieces.masks[k] for k in members]) for _, _, members in found]
    return dict(
        boxes=np.array([box for box, _, _ in found], np.float32).reshape(-1, 4),
        scores=np.array([score for _, score, _ in found], np.float32),
        labels=np.array([labels[members[0]] for _, _, members in found], np.int64),
        mask_codes=masks,
    )


def _cut_by_window(boxes: np.ndarray, limits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Tell which boxes end at a border of their window that is no border of the picture."""
    near = np.maximum((limits[:, 2:] - limits[:, :2]) * _NEAR, 1.0)
    at_start = (boxes[:, :2] - limits[:, :2] <= near) & (limits[:, :2] > 0)
    at_end = (limits[:, 2:] - boxes[:, 2:] <= near) & (limits[:, 2:] < [width, height])
    return (at_start | at_end).any(axis=1)


def _neighbours(limits: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of windows that overlap."""
    first = np.maximum(limits[:, None, :2], limits[None, :, :2])
    last = np.minimum(limits[:, None, 2:], limits[None, :, 2:])
    return [(int(i), int(j)) for i, j in np.argwhere((last > first).all(axis=-1)) if i < j]


def _clip(boxes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    low, high = np.tile(limits[:2], 2), np.tile(limits[2:], 2)
    return boxes.clip(low, high)


def _overlaps(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas: shared by each pair, and of each box."""
    first = np.maximum(one[:, None, :2], other[None, :, :2])
    last = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return (last - first).clip(0).prod(axis=-1), _areas(one), _areas(other)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return box_area(torch.from_numpy(boxes)).numpy()


def _agreement(one: np.ndarray, other: np.ndarray, shared: np.ndarray) -> np.ndarray:
    """Intersection over union of each pair, within what both windows see."""
    common, area, other_area = _overlaps(_clip(one, shared), _clip(other, shared))
    return common / np.maximum(area[:, None] + other_area[None] - common, 1e-6)


def _covered(one: np.ndarray, other: np.ndarray, one_cut: np.ndarray, other_cut: np.ndarray) -> np.ndarray:
    """Share of each pair's smaller box that lies in the larger; only where the smaller is cut by its window."""
    common, area, other_area = _overlaps(one, other)
    is_smaller = area[:, None] <= other_area[None]
    is_piece = np.where(is_smaller, one_cut[:, None], other_cut[None])
    return np.where(is_piece, common / np.maximum(np.minimum(area[:, None], other_area[None]), 1e-6), 0)


def _match(
    likeness: np.ndarray, one: np.ndarray, other: np.ndarray, labels: np.ndarray, scores: np.ndarray
) -> list[tuple[float, float, int, int]]:
    """Pair the boxes of two windows, each with one at most, the most alike first."""
    likeness = np.where(labels[one][:, None] == labels[other][None], likeness, 0)
    pairs = np.argwhere(likeness >= _AGREEMENT)
    surest = np.nan_to_num(np.maximum(scores[one][:, None], scores[other][None]))
    order = sorted(pairs.tolist(), key=lambda pair: (-likeness[pair[0], pair[1]], -surest[pair[0], pair[1]]))
    taken_one, taken_other, links = set(), set(), []
    for i, j in order:
        if i not in taken_one and j not in taken_other:
            taken_one.add(i)
            taken_other.add(j)
            links.append((float(likeness[i, j]), float(surest[i, j]), int(one[i]), int(other[j])))
    return links


def _drop_pieces(agreement, one, other, labels, scores, is_cut, dropped) -> None:
    """Drop pieces that a surer box of the other window shows whole, under another class."""
    alike = (agreement >= _AGREEMENT) & (labels[one][:, None] != labels[other][None])
    for i, j in np.argwhere(alike):
        for piece, whole in ((one[i], other[j]), (other[j], one[i])):
            if is_cut[piece] and not is_cut[whole] and scores[whole] >= scores[piece]:
                dropped[piece] = True


def _groups(links: Sequence[tuple[float, float, int, int]], origin: np.ndarray, count: int) -> list[list[int]]:
    """Join linked boxes, the most alike first; no group holds two boxes of one window."""
    group_of = list(range(count))
    members = {k: [k] for k in range(count)}
    for _, _, one, other in sorted(links, key=lambda link: (-link[0], -link[1], link[2], link[3])):
        first, second = group_of[one], group_of[other]
        windows = {int(origin[k]) for k in members[first]}
        if first == second or any(int(origin[k]) in windows for k in members[second]):
            continue
        members[first] += members.pop(second)
        for k in members[first]:
            group_of[k] = first
    return list(members.values())


def _joined(
    group: list[int], boxes: np.ndarray, scores: np.ndarray, is_cut: np.ndarray
) -> tuple[np.ndarray, float, list[int]]:
    """Give the box and the score of a group, and the members whose masks it has, the surest first."""
    group = sorted(group, key=lambda k: -np.nan_to_num(scores[k], nan=np.inf))
    mine = boxes[group]
    union = np.concatenate([mine[:, :2].min(axis=0), mine[:, 2:].max(axis=0)])
    enough = _WHOLE * _areas(union[None])[0]
    whole = [k for k, area in zip(group, _areas(mine)) if area >= enough and (len(group) == 1 or not is_cut[k])]
    if whole:
        return boxes[whole[0]], float(scores[group[0]]), whole[:1]
    return union, float(scores[group[0]]), group
