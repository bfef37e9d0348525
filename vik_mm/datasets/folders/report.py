"""Writes down what was found in a folder, for people."""

import numpy as np

from vik_mm.datasets.wording import count

from .looking import FoundData

_NOUNS = {'classification': 'images', 'segmentation': 'share of pixels'}
# COCO's bounds of small and medium objects.
_SMALL, _MEDIUM = 32**2, 96**2
_MANY = 100


def describe(found: FoundData) -> list[str]:
    """Write down what is in a folder and what is wrong with it.

    Args:
        found (FoundData): What :func:`look` found.

    Returns:
        list[str]: Lines of text.
    """
    lines = [
        f'{found.source}: {found.task}, format {found.format}, {count(len(found.samples), "image")}, '
        f'{len(found.classes)} classes',
        '',
        *_splits(found),
        '',
        *_sizes(found),
        '',
        *_classes(found),
    ]
    if found.notes:
        lines += ['', 'Found and done:', *(f'  - {note}' for note in found.notes)]
    return lines


def _splits(found: FoundData) -> list[str]:
    rows = [['split', 'images']]
    has_objects = found.task in ('detection', 'instance')
    if has_objects:
        rows[0] += ['objects', 'images without objects', 'crowds']
    for split in found.splits:
        samples = found.of_split(split)
        row = [split, f'{len(samples):,}']
        if has_objects:
            row.append(f'{sum(found.class_counts(split).values()):,}')
            row.append(f'{sum(not each.objects for each in samples):,}')
            row.append(f'{sum(each.is_crowd for sample in samples for each in sample.objects):,}')
        rows.append(row)
    return _table(rows)


def _sizes(found: FoundData) -> list[str]:
    sizes = np.array([each.size for each in found.samples])
    lines = [f'image sizes, width x height: {_spread(sizes)}']
    if found.task in ('detection', 'instance'):
        objects = [each for sample in found.samples for each in sample.objects if not each.is_crowd]
        lines.append(f'object sizes, width x height: {_spread(np.array([each.box[2:] for each in objects]))}')
        areas = np.array([each.area or each.box[2] * each.box[3] for each in objects])
        shares = (areas < _SMALL).mean(), ((areas >= _SMALL) & (areas < _MEDIUM)).mean(), (areas >= _MEDIUM).mean()
        lines.append(
            'objects: {:.0%} small (area below 32 x 32), {:.0%} medium, {:.0%} large (from 96 x 96)'.format(*shares)
        )
    return lines


def _spread(sizes: np.ndarray) -> str:
    parts = [' x '.join(f'{side:.0f}' for side in find(sizes, axis=0)) for find in (np.min, np.median, np.max)]
    return f'{parts[0]} to {parts[2]}, median {parts[1]}' if parts[0] != parts[2] else f'{parts[0]}, all of them'


def _classes(found: FoundData) -> list[str]:
    rows = [['class', *(f'{_NOUNS.get(found.task, "objects")} ({split})' for split in found.splits)]]
    counts = [found.class_counts(split) for split in found.splits]
    wholes = [max(sum(each.values()), 1) for each in counts]
    for k, name in list(enumerate(found.classes))[:_MANY]:
        values = [
            f'{each[k] / whole:.2%}' if found.task == 'segmentation' else f'{each[k]:,}'
            for each, whole in zip(counts, wholes)
        ]
        rows.append([f'{k} {name}', *values])
    if found.task == 'segmentation':
        rows.append(['ignored', *(f'{each[255] / whole:.2%}' for each, whole in zip(counts, wholes))])
    lines = _table(rows)
    if len(found.classes) > _MANY:
        lines.append(f'... and {len(found.classes) - _MANY} more classes')
    return lines


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[k]) for row in rows) for k in range(len(rows[0]))]
    return [
        '  '.join([row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:]))]).rstrip()
        for row in rows
    ]
