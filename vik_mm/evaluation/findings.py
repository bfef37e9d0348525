"""What stands out among the figures, in sentences that are computed from them."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

# Fewer of a class, and its figure is mostly chance.
FEW = 10
# A stratum this far below the whole is worth a sentence.
_GAP = 0.1
# Expected calibration error below which scores are as good as probabilities.
_SMALL_ECE = 0.03


def findings(task: str, figures: dict[str, Any]) -> list[str]:
    """Say what stands out.

    Args:
        task (str): 'classification', 'detection' or 'segmentation'.
        figures (dict): Those of the task.

    Returns:
        list[str]: Sentences, the most important first; names of classes stand in them as they are.
    """
    if task == 'classification':
        return list(_classification(figures))
    if task == 'segmentation':
        return list(_segmentation(figures))
    return list(_detection(figures['segm' if 'segm' in figures else 'bbox']))


def _classification(figures) -> Iterator[str]:
    yield from _weakest(figures['per_class'], 'recall', 'images', 'recall')
    yield from _confusion(figures['confusions'], 'images')
    calibration = figures['calibration']
    if calibration:
        gap, error = calibration['mean_confidence'] - figures['headline']['top1'], calibration['ece']
        if error < _SMALL_ECE:
            yield f'The scores can be taken as probabilities: they are {error:.1%} from the accuracy on average.'
        elif abs(gap) < error / 2:
            yield f'The scores are {error:.1%} from the accuracy on average, some too high and some too low.'
        else:
            yield (
                f'The model is too {"sure" if gap > 0 else "unsure"} of itself: its mean score is '
                f'{calibration["mean_confidence"]:.1%}, and {figures["headline"]["top1"]:.1%} of its answers are right.'
            )
    yield from _few(figures['per_class'], 'images')


def _segmentation(figures) -> Iterator[str]:
    yield from _weakest(figures['per_class'], 'iou', 'pixels', 'IoU')
    yield from _confusion(figures['confusions'], 'pixels')
    boundary = figures['boundary']
    if not math.isnan(boundary['share_of_errors']):
        yield (
            f'{boundary["share_of_errors"]:.0%} of the wrong pixels lie along outlines, in a band that holds '
            f'{boundary["share"]:.0%} of all pixels.'
        )


def _detection(figures) -> Iterator[str]:
    headline = figures['headline']
    yield (
        f'At a score of {figures["threshold"]:.3f}, the model finds {headline["recall"]:.0%} of the objects, and '
        f'{headline["precision"]:.0%} of what it finds is right.'
        if not math.isnan(headline['precision'] + headline['recall'])
        else f'At a score of {figures["threshold"]:.3f}, the model finds nothing.'
    )
    yield from _weakest(figures['per_class'], 'ap', 'objects', 'AP')
    yield from _confusion(figures['confusions'], 'objects')
    errors = figures['errors']
    kinds = dict(missed='missed objects', false_alarms='detections of nothing', confused='wrong classes')
    if sum(errors.values()):
        most = max(errors, key=errors.__getitem__)
        others = ' and '.join(f'{errors[key]:,} {name}' for key, name in kinds.items() if key != most)
        yield f'Most errors are {kinds[most]}: {errors[most]:,}, beside {others}.'
    for rows, what in ((figures['quartiles'], 'size'), (figures['aspects'], 'shape')):
        lowest = min((r for r in rows if r['objects'] >= FEW), key=lambda r: _or_inf(r['ap']), default=None)
        if lowest and lowest['ap'] < headline['ap'] - _GAP:
            yield f'By {what}, the weakest objects are those of “{lowest["name"]}”: AP {lowest["ap"]:.3f}.'
    yield from _few(figures['per_class'], 'objects')


def _weakest(rows: Sequence[dict], key: str, support: str, label: str) -> Iterator[str]:
    there = sorted((r for r in rows if not math.isnan(r[key]) and r[support]), key=lambda r: r[key])
    if len(there) > 2:
        weak = ', '.join(f'{r["name"]} ({r[key]:.3f})' for r in there[: min(3, len(there) - 1)])
        yield f'Weakest by {label}: {weak}. Strongest: {there[-1]["name"]} ({there[-1][key]:.3f}).'


def _confusion(confusions: Sequence[dict], unit: str) -> Iterator[str]:
    if confusions:
        first = confusions[0]
        yield (
            f'The largest confusion: {first["truth"]} is taken for {first["prediction"]}, '
            f'{first["count"]:,} {unit} or {first["share"]:.0%} of that class.'
        )


def _few(rows: Sequence[dict], support: str) -> Iterator[str]:
    few = [r['name'] for r in rows if r[support] < FEW]
    if few:
        names = ', '.join(few[:5]) + (f' and {len(few) - 5} more' if len(few) > 5 else '')
        yield f'Fewer than {FEW} {support}, so mostly chance: {names}.'


def _or_inf(value: float) -> float:
    return math.inf if math.isnan(value) else value
