"""How far a file's answers are from the model's, for outputs of every kind."""

from collections.abc import Sequence

import torch
from torch import Tensor

# Of objects and pixels: such a share may fall to the other side of a threshold, or of another class, by rounding.
SHARE = 0.02


def difference(names: Sequence[str], ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> tuple[float, float]:
    """Compare outputs of a file with the model's.

    Args:
        names (Sequence[str]): Names of the outputs.
        ours (Sequence[Tensor]): What the file gives.
        theirs (Sequence[Tensor]): What the model gives.

    Returns:
        tuple[float, float]: The largest difference of numbers, relative to the largest one where that is above 1, and
        the share of objects and pixels that differ altogether.
    """
    if 'boxes' in names:
        return _objects(dict(zip(names, ours)), dict(zip(names, theirs)))
    largest, share = 0.0, 0.0
    for our, their in zip(ours, theirs, strict=True):
        if our.shape != their.shape:
            return float('inf'), 1.0
        if their.is_floating_point():
            largest = max(largest, _relative(our, their))
        else:
            share = max(share, float((our != their).float().mean()))
    return largest, share


def _relative(ours: Tensor, theirs: Tensor) -> float:
    if not theirs.numel():
        return 0.0
    return float((ours - theirs).abs().max()) / max(1.0, float(theirs.abs().max()))


def _objects(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> tuple[float, float]:
    """Objects are paired by class and nearest box: two of nearly the same score may change places."""
    largest, alone, pixels, total = 0.0, 0, 0.0, 0
    starts = [0, 0]
    for image in range(len(theirs['counts'])):
        counts = [int(each['counts'][image]) for each in (ours, theirs)]
        our, their = (
            {key: each[key][image, :count] for key in ('boxes', 'scores', 'labels')}
            for each, count in zip((ours, theirs), counts)
        )
        total += max(counts)
        if min(counts):
            distance = torch.cdist(their['boxes'].double(), our['boxes'].double(), p=float('inf'))
            distance += (their['scores'][:, None] - our['scores'][None]).abs()
            distance[their['labels'][:, None] != our['labels'][None]] = float('inf')
            nearest, places = distance.min(1)
            scale = max(1.0, float(their['boxes'].abs().max()))
            is_pair = nearest / scale <= 1e-2
            alone += int((~is_pair).sum())
            if is_pair.any():
                boxes = (our['boxes'][places] - their['boxes']).abs().amax(1)[is_pair] / scale
                scores = (our['scores'][places] - their['scores']).abs()[is_pair]
                largest = max(largest, float(boxes.max()), float(scores.max()))
                if 'masks' in theirs:
                    masks = ours['masks'][places[is_pair] + starts[0]]
                    expected = theirs['masks'][is_pair.nonzero()[:, 0] + starts[1]]
                    pixels = max(pixels, float((masks != expected).float().mean()))
        alone += abs(counts[0] - counts[1])
        starts = [start + count for start, count in zip(starts, counts)]
    return largest, max(alone / max(total, 1), pixels)
