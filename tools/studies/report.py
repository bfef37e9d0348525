"""Write all that a study tells: tables and plots."""

from pathlib import Path

from vik_mm_cli.files import write_atomically

from .plots import draw_curves, draw_dots
from .results import markdown, read_results, write_csv
from .runs import Run


def write_report(runs: list[Run], out: Path) -> str:
    """Write tables and plots of what is done.

    Args:
        runs (list[Run]): The study's runs.
        out (Path): The folder to write to.

    Returns:
        str: The table, as Markdown.
    """
    study = runs[0].study
    begun = read_results(runs)
    done = [result for result in begun if result.record is not None]
    text = markdown(done, runs, study)
    write_atomically(text.encode(), out / 'results.md')
    if done:
        write_csv(done, study, out / 'results.csv')
        draw_dots(done, study, out / 'dots')
    if any(result.scalars.validation for result in begun):
        draw_curves(begun, study, out / 'curves')
    return text
