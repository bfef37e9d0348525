"""Write all that a study tells: tables and plots."""

from pathlib import Path

from .results import markdown, read_results, write_csv
from .runs import Run, write_text


def write_report(runs: list[Run], out: Path) -> str:
    """Write tables and plots of what is done.

    Args:
        runs (list[Run]): The study's runs.
        out (Path): The folder to write to.

    Returns:
        str: The table, as Markdown.
    """
    study = runs[0].study
    results = read_results(runs)
    text = markdown(results, runs, study)
    write_text(out / 'results.md', text)
    if results:
        write_csv(results, study, out / 'results.csv')
    return text
