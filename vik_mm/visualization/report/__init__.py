"""A report on a model: one page that holds all it shows, its figures as JSON, and its plots as PNG."""

import os
from pathlib import Path

from vik_mm.evaluation import Evaluation
from vik_mm_cli.files import write_atomically

from . import page
from .sections import headline, task_sections


def write_report(result: Evaluation, out: str | os.PathLike, num_pictures: int = 12) -> Path:
    """Write ``report.html``, ``figures.json`` and ``plots/*.png``.

    Args:
        result (Evaluation): What :func:`vik_mm.evaluation.evaluate` has computed.
        out (str | PathLike): Their folder; made where there is none.
        num_pictures (int): Images that are shown at most. Defaults to 12.

    Returns:
        Path: The page.
    """
    out = Path(out)
    title = f'{_name_of(result.config) or result.task}: {result.split} split'
    about = f'{result.task}, {len(result.records):,} images, weights of {result.checkpoint}'
    parts = [f'<header><h1>{page.escape(title)}</h1>{page.paragraph(about)}{headline(result)}</header>']
    if result.findings:
        parts.append(page.section('What stands out', page.bullets(result.findings)))
    parts += task_sections(result, out / 'plots', num_pictures)
    if result.other_metrics:
        rows = [dict(name=name, value=value) for name, value in result.other_metrics.items()]
        parts.append(page.section('Other figures of the config', page.table(rows, dict(name='figure', value='value'))))
    write_atomically(result.to_json().encode(), out / 'figures.json')
    # Names of files may hold bytes that are no text.
    write_atomically(page.page(title, '\n'.join(parts)).encode('utf-8', 'backslashreplace'), out / 'report.html')
    return out / 'report.html'


def _name_of(config: str) -> str:
    """Name what a config is for: that of a folder of data is called config.py, and stands in a folder of its name."""
    path = Path(config)
    return path.parent.name if path.stem in ('config', 'config_as_run') else path.stem
