"""Draw a study: every seed beside its row's mean, and how each run came there."""

import contextlib
import statistics
from collections import defaultdict
from pathlib import Path

from .results import Result, digits_of, mean_and_deviation
from .study import Study

# Okabe and Ito's colours, told apart with any colour vision; yellow is too faint on white.
_COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#E69F00', '#56B4E9', '#000000')
_MARKERS = 'osD^v'
_LINES = ('-', '--', ':', '-.')
_STYLE = {
    'font.size': 9,
    'axes.titlesize': 9,
    'axes.spines.top': False,
    'axes.spines.right': False,
    'axes.axisbelow': True,
    'grid.color': '0.88',
    'legend.frameon': False,
    'svg.fonttype': 'none',  # text stays text
    'svg.hashsalt': 'study',  # equal results make equal files
}


def draw_dots(results: list[Result], study: Study, stem: Path) -> list[Path]:
    """Draw a dot for each seed and a bar at each row's mean.

    Args:
        results (list[Result]): The runs that are done.
        study (Study): Their study.
        stem (Path): The files to write, without ending.

    Returns:
        list[Path]: A PNG and an SVG.
    """
    rows = _rows(results, study)
    count = len(study.figures)
    with _figure(1.9 + 3.6 * count, 1.1 + 0.36 * len(rows)) as figure:
        panels = figure.subplots(1, count, squeeze=False, sharey=True)[0]
        for axis, shown in zip(panels, study.figures):
            values = {name: [v for r in its if (v := r.value(shown)) is not None] for name, its in rows.items()}
            digits = digits_of([value for its in values.values() for value in its])
            for place, (name, its) in enumerate(values.items()):
                if not its:
                    continue
                colour, marker, _ = _look(study, name)
                # Equal values must not hide each other.
                offsets = [
                    0.22 * (2 * number / (len(its) - 1) - 1) if len(its) > 1 else 0 for number in range(len(its))
                ]
                mean, deviation = mean_and_deviation(its)
                axis.plot([mean, mean], [place - 0.36, place + 0.36], color='black', linewidth=2.2, zorder=2)
                heights = [place + offset for offset in offsets]
                axis.plot(its, heights, marker, color=colour, markersize=6, markeredgecolor='white', zorder=3)
                spread = '' if deviation is None else f' ± {deviation:.{digits}f}'
                axis.text(
                    *(1.02, place, f'{mean:.{digits}f}{spread}  (n = {len(its)})'),
                    transform=axis.get_yaxis_transform(),
                    verticalalignment='center',
                )
            axis.set_xlabel(shown.label)
            axis.grid(axis='x')
            axis.margins(x=0.08)
        panels[0].set_yticks(range(len(rows)), [_label(study, name) for name in rows])
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        for axis in panels:
            axis.tick_params(axis='y', length=0)
        figure.suptitle(f'{study.name}: each seed, and the mean (bar) ± standard deviation', fontsize=10)
        return _save(figure, stem)


def draw_curves(results: list[Result], study: Study, stem: Path) -> list[Path]:
    """Draw each figure, and the training loss, over the training: seeds thin, their mean thick.

    Args:
        results (list[Result]): The runs; those that still train may be among them.
        study (Study): Their study.
        stem (Path): The files to write, without ending.

    Returns:
        list[Path]: A PNG and an SVG.
    """
    rows = _rows(results, study)
    count = len(study.figures) + 1
    with _figure(1.8 + 3.3 * count, max(2.8, 0.6 + 0.19 * len(rows))) as figure:
        panels = figure.subplots(1, count, squeeze=False)[0]
        for name, its in rows.items():
            colour, marker, line = _look(study, name)
            for axis, shown in zip(panels, (*study.figures, None)):
                curves = [r.scalars.curve(shown.name) if shown else r.scalars.losses() for r in its]
                if len(curves) > 1:
                    for curve in curves:
                        axis.plot(*zip(*curve), color=colour, linestyle=line, linewidth=0.7, alpha=0.45)
                points = list(zip(*_mean(curves))) or [(), ()]
                mark = marker if shown and len(points[0]) < 25 else ''
                label = _label(study, name) if axis is panels[0] else None
                axis.plot(
                    *points, color=colour, linestyle=line, linewidth=1.8, marker=mark, markersize=3.5, label=label
                )
        unit = 'epoch' if any(result.run.max_epochs for result in results) else 'iteration'
        for axis, shown in zip(panels, (*study.figures, None)):
            axis.set_ylabel(shown.label if shown else 'training loss')
            axis.set_xlabel(unit if shown else 'iteration')
            axis.xaxis.get_major_locator().set_params(integer=True)
            axis.grid()
        figure.legend(loc='outside right upper')
        figure.suptitle(f'{study.name}: seeds thin, their mean thick', fontsize=10)
        return _save(figure, stem)


def _rows(results: list[Result], study: Study) -> dict[str, list[Result]]:
    """Group runs by row, in the order of the study."""
    rows = {row.name: [r for r in results if r.run.row.name == row.name] for row in study.rows}
    return {name: its for name, its in rows.items() if its}


def _mean(curves: list[list[tuple[int, float]]]) -> list[tuple[int, float]]:
    """Average curves at the steps that all have."""
    values = defaultdict(list)
    for curve in curves:
        for step, value in curve:
            values[step].append(value)
    return [(step, statistics.fmean(its)) for step, its in sorted(values.items()) if len(its) == len(curves)]


def _look(study: Study, name: str) -> tuple[str, str, str]:
    """Choose a row's colour, marker and line, by its place in the study: what is missing shifts nothing."""
    place = [row.name for row in study.rows].index(name)
    kind = place // len(_COLOURS)
    return _COLOURS[place % len(_COLOURS)], _MARKERS[kind % len(_MARKERS)], _LINES[kind % len(_LINES)]


def _label(study: Study, name: str) -> str:
    return next(row.label for row in study.rows if row.name == name)


@contextlib.contextmanager
def _figure(width: float, height: float):
    # The object interface: no global figure, and no screen needed.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context(_STYLE):
        figure = Canvas(figsize=(width, height), layout='constrained')
        FigureCanvasAgg(figure)
        yield figure


def _save(figure, stem: Path) -> list[Path]:
    paths = [stem.with_name(f'{stem.name}.{ending}') for ending in ('png', 'svg')]
    figure.savefig(paths[0], dpi=130)
    figure.savefig(paths[1], metadata=dict(Date=None))
    return paths
