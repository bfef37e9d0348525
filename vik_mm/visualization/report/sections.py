"""The sections of a report, for each task."""

from collections.abc import Callable
from pathlib import Path

from vik_mm.evaluation import Evaluation
from vik_mm.evaluation.classification import confident_mistakes
from vik_mm.evaluation.segmentation import image_figures, worst_segmented

from . import page, plots
from .pictures import as_jpeg, class_colours, draw_detections, draw_segmentation, load_image

KINDS = {'segm': 'Masks', 'bbox': 'Boxes'}
_HEADLINES = {
    'top1': 'top-1', 'top5': 'top-5', 'macro_precision': 'mean precision', 'macro_recall': 'mean recall',
    'macro_f1': 'mean F1', 'miou': 'mean IoU', 'pixel_accuracy': 'pixel accuracy', 'mean_accuracy': 'mean accuracy',
    'mean_dice': 'mean Dice', 'ap': 'AP', 'ap50': 'AP50', 'ap75': 'AP75', 'ar': 'AR', 'f1': 'F1',
    'precision': 'precision', 'recall': 'recall',
}  # fmt: skip


def headline(result: Evaluation) -> str:
    """Show the figures that come first."""
    figures = result.figures
    if result.task == 'detection':
        figures = figures['segm' if 'segm' in figures else 'bbox']
    return page.figures([(_HEADLINES[key], value) for key, value in figures['headline'].items()])


def task_sections(result: Evaluation, folder: Path, count: int) -> list[str]:
    """Make the sections of a task; plots are written to ``folder`` too, and ``count`` images are shown at most."""
    return {'classification': _classification, 'detection': _detection, 'segmentation': _segmentation}[result.task](
        result, folder, count
    )


def _classification(result: Evaluation, folder: Path, count: int) -> list[str]:
    figures, classes = result.figures, result.classes
    columns = dict(name='class', images='images', precision='precision', recall='recall', f1='F1')
    charts = [
        _shown(
            plots.confusion_plot(figures['confusion'], classes, classes, 'confusion'), folder, 'Shares of each truth.'
        )
    ]
    if calibration := figures['calibration']:
        caption = (
            f'Expected calibration error {calibration["ece"]:.3f} in {len(calibration["bins"])} bins; negative '
            f'log-likelihood {calibration["nll"]:.3f}.'
        )
        charts.append(_shown(plots.reliability_plot(calibration['bins'], 'reliability'), folder, caption))
    mistakes = []
    for place in confident_mistakes(result.records, count):
        record = result.records[place]
        image = load_image(record, result.dataset)
        text = f'{classes[record.scores.argmax()]} {record.scores.max():.0%}; is {classes[record.label]}'
        pictures = [] if image is None else [as_jpeg(image)]
        mistakes.append(page.pictures(pictures, f'{text}. {Path(record.path).name}'))
    return [
        page.section('Confusions and calibration', page.grid(charts)),
        page.section('Classes', page.table(figures['per_class'], columns)),
        page.section('Most confident mistakes', page.grid(mistakes, 'small') if mistakes else page.paragraph('None.')),
    ]


def _detection(result: Evaluation, folder: Path, count: int) -> list[str]:
    assert result.detection is not None
    sections = []
    for kind in (k for k in KINDS if k in result.figures):
        sections += _detection_kind(result, kind, folder)
    kind = result.detection.kinds[-1]
    threshold, matches = result.detection.thresholds[kind], result.detection.matches[kind]
    worst = []
    for place in result.detection.worst(count):
        record = result.records[place]
        image = load_image(record, result.dataset)
        if image is not None:
            if image.shape[:2] != tuple(record.size):
                continue  # turned by its EXIF tag or read otherwise: boxes would lie elsewhere
            pair = draw_detections(image, matches[place], threshold, result.classes)
            worst.append(page.pictures(pair, Path(record.path).name))
    note = 'Left the truth, right the detections. Green: right. Yellow: missed. Red: wrong class, or nothing there.'
    sections.append(page.section('Images with most errors', page.paragraph(note), page.grid(worst)))
    return sections


def _detection_kind(result: Evaluation, kind: str, folder: Path) -> list[str]:
    figures, title, classes = result.figures[kind], KINDS[kind], [*result.classes, '(nothing)']
    curves, f1 = figures['pr_curves'], figures['f1_curves']
    pr = {f'IoU 0.{iou}': curves[f'iou_{iou}']['mean'] for iou in (50, 75)}
    f1_lines = {key: f1[key] for key in ('f1', 'precision', 'recall')}
    at = f'At a score of {figures["threshold"]:.3f} and an IoU of 0.5.'
    best = 'none' if f1['best'] is None else f'{f1["best"]:.3f}'
    names, aps = zip(*((row['name'], row['ap']) for row in figures['per_class']))
    confusion = plots.confusion_plot(figures['confusion'], classes, classes, f'{kind}_confusion')
    charts = [
        _shown(
            plots.lines_plot(curves['recall'], pr, ('recall', 'precision'), f'{kind}_pr'), folder, 'Mean of classes.'
        ),
        _shown(
            plots.lines_plot(f1['thresholds'], f1_lines, ('score threshold', ''), f'{kind}_f1', figures['threshold']),
            folder,
            f'All objects together. Highest F1 at a score of {best}; chosen on this data, so F1 is a little too high.',
        ),
        _shown(confusion, folder, f'Shares of each truth. {at}'),
        _shown(plots.bars_plot(names, aps, 'AP', f'{kind}_classes'), folder, 'AP of each class.'),
    ]
    columns = dict(
        name='class', objects='objects', ap='AP', ap50='AP50', ap75='AP75', ar='AR', precision='precision',
        recall='recall', best_threshold='best score',
    )  # fmt: skip
    strata = []
    for key, unit in (('sizes', 'px'), ('quartiles', 'px'), ('aspects', '')):
        for row in figures[key]:
            strata.append(dict(row, name=f'{row["name"]} ({_bounds(row, unit)})'))
    shown = dict(name='objects that are', objects='objects', ap='AP', ap50='AP50', ar='AR')
    return [
        page.section(
            title, page.figures([(_HEADLINES[k], v) for k, v in figures['headline'].items()]), page.grid(charts)
        ),
        page.section(
            f'{title} by class',
            page.paragraph(f'Precision and recall: {at}'),
            page.table(figures['per_class'], columns),
        ),
        page.section(
            f'{title} by size and shape',
            page.paragraph('Sizes are areas, shapes are width over height; quartiles are of this data.'),
            page.table(strata, shown),
        ),
    ]


def _segmentation(result: Evaluation, folder: Path, count: int) -> list[str]:
    figures, classes = result.figures, result.classes
    columns = dict(name='class', pixels='pixels', iou='IoU', accuracy='accuracy', dice='Dice')
    names, ious = zip(*((row['name'], row['iou']) for row in figures['per_class']))
    charts = [
        _shown(
            plots.confusion_plot(figures['confusion'], classes, classes, 'confusion'), folder, 'Shares of each truth.'
        ),
        _shown(plots.bars_plot(names, ious, 'IoU', 'classes'), folder, 'IoU of each class.'),
    ]
    boundary = figures['boundary']
    rows = [
        dict(name=name, **boundary[key]) for name, key in (('along outlines', 'near'), ('away from outlines', 'inside'))
    ]
    band = f'The band along outlines is {boundary["width"]:.0%} of the diagonal wide on each side.'
    palette = class_colours(len(classes))
    worst = []
    for place in worst_segmented(result.records, len(classes), count):
        record = result.records[place]
        image = load_image(record, result.dataset)
        if image is not None:
            of = image_figures(record, classes)
            text = f'{Path(record.path).name}: mean IoU {of["miou"]:.3f}, pixel accuracy {of["pixel_accuracy"]:.3f}'
            worst.append(page.pictures(draw_segmentation(image, record.maps, palette), text))
    means = dict(name='pixels', miou='mean IoU', pixel_accuracy='pixel accuracy', mean_dice='mean Dice')
    return [
        page.section('Confusions', page.grid(charts)),
        page.section('Classes', page.table(figures['per_class'], columns)),
        page.section('Outlines', page.paragraph(band), page.table(rows, means)),
        page.section(
            'Images with most wrong pixels',
            page.paragraph('Picture, truth, prediction, and wrong pixels in red.'),
            page.grid(worst),
        ),
    ]


def _shown(plot: Callable[[Path], str], folder: Path, caption: str) -> str:
    return page.plot(plot(folder), caption)


def _bounds(row: dict, unit: str) -> str:
    def number(value):
        return f'{value:,.0f}' if unit else f'{value:g}'

    if row['high'] >= 1e9:
        return f'from {number(row["low"])} {unit}'.strip()
    return f'{number(row["low"])} to {number(row["high"])} {unit}'.strip()
