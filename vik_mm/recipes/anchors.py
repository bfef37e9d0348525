"""Anchors of a detector, changed only where the boxes of the data are clearly of other sizes or shapes."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

# Of the boxes, the share that may lie outside of what anchors reach; one assigned to none of them still gets its best.
_FEW = 0.1
_REACH = 2.0  # an anchor finds boxes of up to this many times its side, or of no less than one of these parts
_RATIO_REACH = 4.0  # beyond 1:2 and 2:1, which configs have
_ENOUGH = 20  # boxes, to say anything


@dataclass
class AnchorChange:
    """What to write into an anchor generator.

    Args:
        settings (dict[str, Any]): New values by their keys; empty where the old ones do.
        reasons (list[str]): Why, a line for each change.
    """

    settings: dict[str, Any] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)


def fit_anchors(generator: dict[str, Any], box_sizes: np.ndarray, factor: float) -> AnchorChange:
    """Look whether an anchor generator's sizes and shapes go with the boxes.

    Args:
        generator (dict[str, Any]): Config of MMDetection's ``AnchorGenerator``.
        box_sizes (ndarray): [M, 2], width and height in pixels of the images as they are.
        factor (float): What images are scaled by in training.

    Returns:
        AnchorChange: The changes.
    """
    change = AnchorChange()
    boxes = np.asarray(box_sizes, float).reshape(-1, 2) * factor
    boxes = boxes[(boxes > 0).all(1)]
    strides = [s if isinstance(s, (int, float)) else max(s) for s in generator.get('strides', [])]
    key = 'scales' if generator.get('scales') is not None else 'octave_base_scale'
    if len(boxes) < _ENOUGH or not strides or generator.get(key) is None:
        return change
    sides = np.sqrt(boxes.prod(1))
    scales = generator[key] if isinstance(generator[key], (list, tuple)) else [generator[key]]
    octave = 1.0 if key == 'scales' else 2 ** (1 - 1 / generator.get('scales_per_octave', 1))
    smallest, largest = min(scales) * strides[0], max(scales) * octave * strides[-1]
    small, large = np.quantile(sides, _FEW), np.quantile(sides, 1 - _FEW)
    wanted = None
    if small * _REACH < smallest:
        wanted = small / strides[0]
    elif large > largest * _REACH:
        wanted = large / (octave * strides[-1])
    if wanted is not None:
        wanted = max(1.0, round(2 * float(wanted)) / 2)
        wanted = int(wanted) if wanted == int(wanted) else wanted
        if wanted != scales[0]:
            change.settings[key] = [wanted] if key == 'scales' else wanted
            change.reasons.append(
                f'{key} {scales[0]} -> {wanted}: 80 % of the boxes have sides from {small:.0f} to {large:.0f} pixels, '
                f'anchors had {smallest:.0f} to {largest:.0f}'
            )
    ratios = np.quantile(boxes[:, 1] / boxes[:, 0], [_FEW, 0.5, 1 - _FEW])
    if ratios[0] < 1 / _RATIO_REACH or ratios[2] > _RATIO_REACH:
        # Not all alike: what the middle of the boxes needs is kept between the ends.
        change.settings['ratios'] = sorted({float(f'{value:.2g}') for value in ratios})
        change.reasons.append(
            f'ratios -> {change.settings["ratios"]}: 80 % of the boxes have heights of {ratios[0]:.2g} to '
            f'{ratios[2]:.2g} times their widths'
        )
    return change
