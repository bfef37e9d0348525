"""Objects that several windows of a picture show, each made one.

The windows are known, and that says more than boxes: where two windows overlap they see the same pixels, so the parts
of an object's two boxes there agree, however much of the object lies outside of either window. General rules (non-
maximum suppression and merging, as sahi has them) compare whole boxes. These agree little where an object is larger
than the overlap, and they agree much where two objects stand close together.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

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
    counts = [len(part) for part in pieces.boxes]
    origin, ends = np.repeat(np.arange(len(counts)), counts), np.cumsum(counts)
    limits = np.array([(w.left, w.top, w.right, w.bottom) for w in pieces.windows], np.float32).reshape(-1, 4)
    is_cut = _cut_by_window(boxes, limits[origin], height, width)
    links, dropped = [], np.zeros(len(boxes), bool)
    for first, second in _neighbours(limits, np.flatnonzero(counts)):
        low = np.maximum(limits[first, :2], limits[second, :2])
        shared = np.concatenate([low, np.minimum(limits[first, 2:], limits[second, 2:])])
        # What does not reach into both windows agrees with nothing of the other.
        one, other = (_touching(boxes, ends[k] - counts[k], ends[k], shared) for k in (first, second))
        if not len(one) or not len(other):
            continue
        agreement = _agreement(boxes[one], boxes[other], shared)
        inside = _covered(boxes[one], boxes[other], is_cut[one], is_cut[other])
        links += _match(np.maximum(agreement, inside), one, other, labels, scores)
        _drop_pieces(agreement, one, other, labels, scores, is_cut, dropped)
    return _joined(_groups(links, origin), pieces.masks, boxes, scores, labels, is_cut, dropped)


def _cut_by_window(boxes: np.ndarray, limits: np.ndarray, height: int, width: int) -> np.ndarray:
    """Tell which boxes end at a border of their window that is no border of the picture."""
    near = np.maximum((limits[:, 2:] - limits[:, :2]) * _NEAR, 1.0)
    at_start = (boxes[:, :2] - limits[:, :2] <= near) & (limits[:, :2] > 0)
    at_end = (limits[:, 2:] - boxes[:, 2:] <= near) & (limits[:, 2:] < [width, height])
    return (at_start | at_end).any(axis=1)


def _neighbours(limits: np.ndarray, numbers: np.ndarray) -> Iterator[tuple[int, int]]:
    """Pairs of windows that overlap, of those with these numbers; each is compared with those of the rows it meets."""
    numbers = numbers[np.argsort(limits[numbers, 1], kind='stable')]
    limits = limits[numbers]
    behind = np.searchsorted(limits[:, 1], limits[:, 3])
    for k, number in enumerate(numbers.tolist()):
        later = limits[k + 1 : behind[k]]
        overlaps = (np.minimum(later[:, 2:], limits[k, 2:]) > np.maximum(later[:, :2], limits[k, :2])).all(axis=1)
        for other in numbers[k + 1 : behind[k]][overlaps].tolist():
            yield min(number, other), max(number, other)


def _touching(boxes: np.ndarray, start: int, end: int, shared: np.ndarray) -> np.ndarray:
    """Numbers of the boxes from start to end that reach into an area."""
    part = boxes[start:end]
    return start + np.flatnonzero(((part[:, :2] < shared[2:]) & (part[:, 2:] > shared[:2])).all(axis=1))


def _clip(boxes: np.ndarray, limits: np.ndarray) -> np.ndarray:
    low, high = np.tile(limits[:2], 2), np.tile(limits[2:], 2)
    return boxes.clip(low, high)


def _overlaps(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas: shared by each pair, and of each box."""
    first = np.maximum(one[:, None, :2], other[None, :, :2])
    last = np.minimum(one[:, None, 2:], other[None, :, 2:])
    return (last - first).clip(0).prod(axis=-1), _areas(one), _areas(other)


def _areas(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


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
    rows, columns = np.nonzero((likeness >= _AGREEMENT) & (labels[one][:, None] == labels[other][None]))
    alike, one, other = likeness[rows, columns], one[rows], other[columns]
    surest = np.nan_to_num(np.maximum(scores[one], scores[other]))
    order = np.lexsort((-surest, -alike))
    taken: set[int] = set()
    links = []
    for link in zip(*(values[order].tolist() for values in (alike, surest, one, other))):
        if taken.isdisjoint(link[2:]):
            taken.update(link[2:])
            links.append(link)
    return links


def _drop_pieces(agreement, one, other, labels, scores, is_cut, dropped) -> None:
    """Drop pieces that a surer box of the other window shows whole, under another class."""
    alike = (agreement >= _AGREEMENT) & (labels[one][:, None] != labels[other][None])
    for pieces, wholes, matches in ((one, other, alike), (other, one, alike.T)):
        is_surer = scores[wholes][None] >= scores[pieces][:, None]
        gives_way = matches & is_cut[pieces][:, None] & ~is_cut[wholes][None] & is_surer
        dropped[pieces[gives_way.any(axis=1)]] = True


def _groups(links: Sequence[tuple[float, float, int, int]], origin: np.ndarray) -> dict[int, list[int]]:
    """Join linked boxes, the most alike first; no group holds two boxes of one window.

    Groups are listed by their first member. What is linked to nothing is left out.
    """
    group_of: dict[int, int] = {}
    members: dict[int, list[int]] = {}
    windows: dict[int, set[int]] = {}
    for _, _, one, other in sorted(links, key=lambda link: (-link[0], -link[1], link[2], link[3])):
        for k in (one, other):
            if k not in group_of:
                group_of[k], members[k], windows[k] = k, [k], {int(origin[k])}
        first, second = group_of[one], group_of[other]
        if first == second or not windows[first].isdisjoint(windows[second]):
            continue
        group_of.update(dict.fromkeys(members[second], first))
        members[first] += members.pop(second)
        windows[first] |= windows.pop(second)
    return {group[0]: group for group in members.values() if len(group) > 1}


def _joined(groups, masks, boxes, scores, labels, is_cut, dropped) -> dict[str, np.ndarray | list[MaskCode] | None]:
    """Give the objects: a group is one of them, under its first member's number, and so is each box of no group."""
    boxes, scores, gone, shown = boxes.copy(), scores.copy(), dropped.copy(), {}
    for first, group in groups.items():
        gone[group] = True
        gone[first] = dropped[group].all()
        boxes[first], scores[first], shown[first] = _one_of(group, boxes, scores, is_cut)
    kept = np.flatnonzero(~gone)
    kept = kept[np.argsort(-np.nan_to_num(scores[kept], nan=np.inf), kind='stable')]
    codes = None
    if masks is not None:
        codes = [unite([masks[k] for k in shown[number]]) if number in shown else masks[number] for number in kept]
    return dict(boxes=boxes[kept], scores=scores[kept], labels=labels[kept], mask_codes=codes)


def _one_of(
    group: list[int], boxes: np.ndarray, scores: np.ndarray, is_cut: np.ndarray
) -> tuple[np.ndarray, np.float32, list[int]]:
    """Give the box and the score of a group, and the members whose masks it has, the surest first."""
    group = sorted(group, key=lambda k: -np.nan_to_num(scores[k], nan=np.inf))
    mine = boxes[group]
    union = np.concatenate([mine[:, :2].min(axis=0), mine[:, 2:].max(axis=0)])
    enough = _WHOLE * _areas(union)
    whole = [k for k, area in zip(group, _areas(mine)) if area >= enough and not is_cut[k]]
    if whole:
        return boxes[whole[0]], scores[group[0]], whole[:1]
    return union, scores[group[0]], group
