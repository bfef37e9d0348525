"""The plots of a report, as SVG in the page's own colour of text, and as PNG."""

import contextlib
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# Okabe and Ito's colours, told apart with any colour vision.
BLUE, ORANGE, GREEN = '#0072B2', '#D55E00', '#009E73'
# Stands for the page's colour of text in the SVG.
_INK = '#123456'
# More cells than this are not labelled: nobody could read them.
_MOST_LABELS, _MOST_NUMBERS = 40, 12


def confusion_plot(matrix: Sequence[Sequence[int]], rows: Sequence[str], columns: Sequence[str], name: str) -> Callable:
    """Draw a confusion matrix, each row in shares of its truth."""
    counts = np.asarray(matrix, float)
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(7.0, 2.2 + 0.36 * len(rows))

    def draw(axis):
        axis.imshow(shares, cmap='Blues', vmin=0, vmax=1, aspect='auto')
        for labels, which in ((columns, axis.xaxis), (rows, axis.yaxis)):
            if len(labels) <= _MOST_LABELS:
                shortened = [label if len(label) <= 18 else f'{label[:17]}…' for label in labels]
                which.set_ticks(range(len(labels)), shortened)
        axis.tick_params(axis='x', rotation=90)
        axis.set_xlabel('prediction')
        axis.set_ylabel('truth')
        if len(rows) <= _MOST_NUMBERS:
            for (i, j), share in np.ndenumerate(shares):
                if share >= 0.005:
                    colour = 'white' if share > 0.55 else 'black'
                    axis.text(j, i, f'{share:.0%}', ha='center', va='center', fontsize=7, color=colour)

    return _plot(name, draw, (max(side, 4.2), max(side, 3.6)))


def lines_plot(
    x: Sequence[float], lines: dict[str, Sequence[float]], labels: tuple[str, str], name: str, mark: float | None = None
) -> Callable:
    """Draw curves from 0 to 1 over an axis from 0 to 1, and a dotted line at ``mark``."""

    def draw(axis):
        for (label, values), colour, style in zip(lines.items(), (BLUE, ORANGE, GREEN), ('-', '--', '-.')):
            axis.plot(x, values, style, color=colour, label=label, linewidth=1.8)
        if mark is not None:
            axis.axvline(mark, color=_INK, linestyle=':', linewidth=1)
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel=labels[0], ylabel=labels[1])
        axis.grid(alpha=0.25)
        axis.legend(loc='best')

    return _plot(name, draw)


def bars_plot(names: Sequence[str], values: Sequence[float], label: str, name: str) -> Callable:
    """Draw a bar for each name, lowest value first."""
    order = sorted(range(len(names)), key=lambda k: -1 if np.isnan(values[k]) else values[k])[:_MOST_LABELS]

    def draw(axis):
        shown = [0 if np.isnan(values[k]) else values[k] for k in order]
        axis.barh(range(len(order)), shown, color=BLUE, height=0.7)
        for place, value in enumerate(shown):
            axis.text(value, place, f' {value:.2f}', va='center', fontsize=7)
        axis.set_yticks(range(len(order)), [names[k] if len(names[k]) <= 24 else f'{names[k][:23]}…' for k in order])
        axis.invert_yaxis()
        axis.set(xlim=(0, 1.08), xlabel=label)

    return _plot(name, draw, (5.2, max(2.2, 0.9 + 0.24 * len(order))))


def reliability_plot(bins: Sequence[dict[str, Any]], name: str) -> Callable:
    """Draw accuracy over confidence, and how many images have each confidence."""

    def draw(axis):
        middles = [(b['low'] + b['high']) / 2 for b in bins]
        total = max(sum(b['images'] for b in bins), 1)
        shares = [b['images'] / total for b in bins]
        axis.bar(middles, shares, width=0.9 / len(bins), color=BLUE, alpha=0.3, label='share of images')
        axis.plot([0, 1], [0, 1], ':', color=_INK, linewidth=1, label='ideal')
        there = [b for b in bins if b['images']]
        axis.plot(
            *zip(*((b['confidence'], b['accuracy']) for b in there)), 'o-', color=ORANGE, markersize=4, label='accuracy'
        )
        axis.set(xlim=(0, 1), ylim=(0, 1.02), xlabel='confidence', ylabel='accuracy')
        axis.grid(alpha=0.25)
        axis.legend(loc='upper left')

    return _plot(name, draw)


def _plot(name: str, draw: Callable[[Any], None], size: tuple[float, float] = (5.2, 3.6)) -> Callable[[Path], str]:
    """Make a function that writes ``<name>.png`` into a folder and returns the SVG."""

    def write(folder: Path) -> str:
        with _figure(size, name) as figure:
            draw(figure.subplots())
            folder.mkdir(parents=True, exist_ok=True)
            text = io.StringIO()
            figure.savefig(text, format='svg', transparent=True, metadata=dict(Date=None))
        with _figure(size, name, ink='black') as figure:
            draw(figure.subplots())
            figure.savefig(folder / f'{name}.png', dpi=130)
        return _for_page(text.getvalue())

    return write


@contextlib.contextmanager
def _figure(size: tuple[float, float], name: str, ink: str = _INK):
    # The object interface: no global figure, and no screen needed.
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = ('text.color', 'axes.edgecolor', 'axes.labelcolor', 'xtick.color', 'ytick.color')
    style = {
        **dict.fromkeys(colours, ink),
        'font.size': 9,
        'axes.spines.top': False,
        'axes.spines.right': False,
        'legend.framealpha': 0,
        'text.parse_math': False,  # a dollar in the name of a class is a dollar
        'svg.fonttype': 'none',  # the browser has letters that Matplotlib's font lacks
        'svg.hashsalt': name,  # ids of two plots on a page differ
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size, layout='constrained')
        FigureCanvasAgg(figure)
        yield figure


def _for_page(svg: str) -> str:
    """Keep what a page needs of an SVG file: no header, no fixed size, no address, the page's colour of text."""
    svg = svg[svg.index('<svg') :]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, count=1, flags=re.DOTALL)
    head, mark, rest = svg.partition('>')
    head = re.sub(r' (width|height|xmlns\S*|version)="[^"]*"', '', head)
    return (head + ' role="img"' + mark + rest).replace('xlink:href', 'href').replace(_INK, 'currentColor')
