"""Tables of a study: one CSV row a run, one Markdown row a row of the study."""

import csv
import io
import shlex
import statistics
from dataclasses import dataclass
from pathlib import Path

from vik_mm_cli.files import write_atomically

from .logs import Scalars, read_scalars
from .overrides import render
from .runs import Run, portable
from .study import Figure, Study


@dataclass
class Result:
    """What there is of a run.

    Args:
        run (Run): The run.
        record (dict | None): What was recorded at its end; None before.
        scalars (Scalars): What it logged.
    """

    run: Run
    record: dict | None
    scalars: Scalars

    def value(self, figure: Figure) -> float | None:
        """Read a figure, also one that the study did not ask for when the run ended; None if it is not logged."""
        read = self.scalars.read(figure, self.run.study.which)
        return None if read is None else read[1]


def read_results(runs: list[Run]) -> list[Result]:
    """Read what there is, in the order of the study: row by row, seed by seed.

    Args:
        runs (list[Run]): The study's runs.

    Returns:
        list[Result]: Of the runs that have begun.
    """
    places = {row.name: place for place, row in enumerate(runs[0].study.rows)}
    ordered = sorted(runs, key=lambda run: (places[run.row.name], run.row.seeds.index(run.seed)))
    return [Result(run, run.result, read_scalars(run.folder)) for run in ordered if run.sittings]


def mean_and_deviation(values: list[float]) -> tuple[float, float | None]:
    """Compute mean and standard deviation (n - 1); the latter is None for one value."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def digits_of(values: list[float | None]) -> int:
    """Choose the decimals of a figure by its size: percent need fewer than shares."""
    largest = max((abs(value) for value in values if value is not None and abs(value) != float('inf')), default=1)
    return 2 if largest >= 10 else 3 if largest >= 2 else 4


def write_csv(results: list[Result], study: Study, path: Path) -> None:
    """Write one row a run.

    Args:
        results (list[Result]): The runs.
        study (Study): Their study.
        path (Path): The file to write.
    """
    text = io.StringIO()
    writer = None
    for result in results:
        record, run = result.record, result.run
        line = dict(study=study.name, row=run.row.name, config=portable(run.row.config))
        line['overrides'] = ' '.join(f'{key}={render(value)}' for key, value in run.row.overrides.items())
        line['seed'] = run.seed
        for figure in study.figures:
            line[figure.name] = result.value(figure)
        line |= {
            key: record[key]
            for key in ('epochs', 'iterations', 'commit', 'hardware', 'instruction_set', 'threads', 'torch', 'python')
        }
        line['seconds'] = f'{record["seconds"]:.1f}'
        line['sittings'] = record['sittings']
        line |= {key: _rounded(record[key]) for key in ('peak_mib', 'gpu_peak_mib')}
        line['date'] = record['date']
        line['command'] = public_command(run)
        if writer is None:
            writer = csv.DictWriter(text, list(line), lineterminator='\n')
            writer.writeheader()
        writer.writerow(line)
    write_atomically(text.getvalue().encode(), path)


def markdown(results: list[Result], runs: list[Run], study: Study) -> str:
    """Make the table for readers, and what has to be known beside it.

    Args:
        results (list[Result]): The runs that are done.
        runs (list[Run]): All runs.
        study (Study): Their study.

    Returns:
        str: Markdown.
    """
    header = ['row']
    for figure in study.figures:
        header += [f'{figure.label}, mean', 'standard deviation']
    header += ['n', f'each seed, {study.figures[0].label}', 'time of a run, min', 'peak memory, MiB']
    digits = {figure.name: digits_of([r.value(figure) for r in results]) for figure in study.figures}
    lines = []
    for row in study.rows:
        its = [result for result in results if result.run.row.name == row.name]
        if not its:
            lines.append([row.label, *['', ''] * len(study.figures), '0', '', '', ''])
            continue
        cells = [row.label]
        for figure in study.figures:
            values = [value for result in its if (value := result.value(figure)) is not None]
            cells += _statistics(values, digits[figure.name])
        main = study.figures[0]
        shown = [result.value(main) for result in its]
        cells.append(str(len(its)))
        cells.append(', '.join('-' if value is None else f'{value:.{digits[main.name]}f}' for value in shown))
        cells.append(f'{statistics.fmean(r.record["seconds"] for r in its) / 60:.1f}')
        peaks = [r.record['peak_mib'] for r in its if r.record['peak_mib'] is not None]
        cells.append(f'{max(peaks):.0f}' if peaks else '')
        lines.append(cells)
    # Numbers to the right; what each seed gave is text.
    marks = ['---' if cell == 'row' or cell.startswith('each seed') else '---:' for cell in header]
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in (header, marks, *lines))
    parts = [f'# {study.name}', study.description, table, _notes(results, study), _missing(runs)]
    return '\n\n'.join(part for part in parts if part) + '\n'


def public_command(run: Run) -> str:
    """Write the command that trains a run, from the root of the repository and without paths of this machine."""
    options = {**run.row.overrides, 'randomness.seed': run.seed}
    return shlex.join(
        [
            *('python', 'tools/train.py', portable(run.row.config), *run.row.arguments),
            *('--work-dir', f'work_dirs/studies/{run.study.name}/{run.row.name}/seed{run.seed}'),
            *('--cfg-options', *(f'{key}={render(value)}' for key, value in options.items())),
        ]
    )


def _statistics(values: list[float], digits: int) -> list[str]:
    if not values:
        return ['', '']
    mean, deviation = mean_and_deviation(values)
    return [f'{mean:.{digits}f}', '' if deviation is None else f'{deviation:.{digits}f}']


def _notes(results: list[Result], study: Study) -> str:
    if not results:
        return ''
    lines = [f'Figures are those of the {study.which} validation. Mean and standard deviation (n - 1) are over seeds.']
    for title, key in (
        *(('hardware', 'hardware'), ('instruction set', 'instruction_set'), ('threads', 'threads')),
        *(('torch', 'torch'), ('commit', 'commit')),
    ):
        values = list(dict.fromkeys(str(result.record[key]) for result in results))
        lines.append(f'- {title}: {", ".join(values)}')
    return lines[0] + '\n\n' + '\n'.join(lines[1:])


def _missing(runs: list[Run]) -> str:
    lines = [f'- failed: {run}: {run.failure}' for run in runs if not run.is_done and run.failure]
    left = [run for run in runs if not run.is_done and not run.failure]
    lines += [f'- not done: {run}' for run in left]
    return 'Missing:\n\n' + '\n'.join(lines) if lines else ''


def _rounded(value: float | None) -> str:
    return '' if value is None else f'{value:.0f}'
