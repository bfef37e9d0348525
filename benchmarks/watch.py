"""Compare what was measured with the committed rows of the same kind of machine."""

import csv
import io
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
KIND = ('instruction_set', 'cores', 'threads', 'dtype')


def committed_rows(folder: Path = HERE / 'results') -> list[dict]:
    """Rows of all comparisons as the last commit has them; none where there is no repository."""

    def git(*arguments):
        return subprocess.run(['git', *arguments], cwd=folder, capture_output=True, text=True).stdout

    names = git('ls-files', '*.csv').split()
    rows = [row for name in names for row in csv.DictReader(io.StringIO(git('show', f'HEAD:./{name}')))]
    return [row for row in rows if 'contender' in row]


def report(rows: list[dict], committed: list[dict], out: Path) -> str:
    """Say what got slower by more than the noise.

    The ratio to a comparison's first contender is compared, because both were measured in turn: it moves less than
    times do. A contender got slower if the quartiles of both runs do not overlap. Of the first contender itself, the
    times are compared.

    Args:
        rows (list[dict]): What was measured now.
        committed (list[dict]): Rows of the committed CSV files, of all machines.
        out (Path): The file that holds ``rows``.

    Returns:
        str: Lines to print.
    """
    kind = tuple(str(rows[0][key]) for key in KIND)
    words = '{}, {} cores, {} threads, {}'.format(*kind)
    known = {
        (row['comparison'], row['contender']): row
        for row in committed
        if tuple(row.get(key) or '' for key in KIND) == kind
    }
    pairs = [(row, known[key]) for row in rows if (key := (row['comparison'], row['contender'])) in known]
    if not pairs:
        return (
            f'No committed row is of this kind of machine ({words}): nothing to compare with. To have the next run '
            f'compared, commit this one: git add -f {out} && git commit'
        )
    lines = [line for now, before in pairs if (line := _slower(now, before))]
    if not lines:
        return f'Nothing got slower than the committed rows ({len(pairs)} compared; {words}).'
    title = f'!!! {len(lines)} of {len(pairs)} got slower than the committed rows ({words}), by more than the noise:'
    return '\n'.join([title, *lines])


def _slower(now: dict, before: dict) -> str:
    """Describe what got slower, or give nothing."""
    name = f'!!!   {now["comparison"]}, {now["contender"]}'
    if float(before['speedup_p25']) == float(before['speedup_p75']) == 1:  # the first contender
        if float(now['p25_ms']) <= float(before['p75_ms']):
            return ''
        fields, unit = ('median_ms', 'p25_ms', 'p75_ms'), ' ms'
    else:
        if float(now['speedup_p75']) >= float(before['speedup_p25']):
            return ''
        fields, unit = ('speedup', 'speedup_p25', 'speedup_p75'), 'x'
    old, new = (
        '{:.3g}{unit} ({:.3g} - {:.3g})'.format(*(float(row[f]) for f in fields), unit=unit) for row in (before, now)
    )
    return f'{name}: {old} at {before["commit"]}, now {new}'
