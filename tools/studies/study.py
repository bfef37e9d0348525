"""Read a study's file and check it, before anything starts."""

import difflib
import itertools
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .errors import StudyError
from .overrides import Reference, fill_variables, flatten, parse_need, references

ROOT = Path(__file__).resolve().parents[2]

_ROW_KEYS = ('name', 'label', 'config', 'overrides', 'arguments', 'seeds', 'grid', 'needs')
_STUDY_KEYS = (
    *('name', 'description', 'figure', 'which', 'rows', 'config', 'overrides', 'arguments', 'seeds'),
    *('jobs', 'threads', 'gpus', 'timeout'),
)
_FIGURE_KEYS = ('name', 'label', 'better')
# Names are folders, and parts of the command line.
_NAME = re.compile(r'[A-Za-z0-9][\w.+=-]*')
_UNITS = dict(s=1, m=60, h=3600, d=86400)
# The runner gives these to tools/train.py itself.
_OWN_ARGUMENTS = ('--work-dir', '--resume', '--cfg-options')
_OWN_OPTIONS = ('randomness.seed', 'work_dir', 'resume')


@dataclass(frozen=True)
class Figure:
    """A figure that runs log at their validations.

    Args:
        name (str): As logged, e.g. ``coco/bbox_mAP_50``.
        label (str): As printed.
        higher_is_better (bool): What ``best`` means.
    """

    name: str
    label: str
    higher_is_better: bool = True


@dataclass(frozen=True)
class Row:
    """One line of the table: a config, what is changed in it, and seeds.

    Args:
        name (str): Its name, a folder's too.
        label (str): As printed.
        config (str): Config file.
        overrides (dict): Of ``--cfg-options``: keys with dots, values as YAML knows them. The study's are among them.
        arguments (tuple[str, ...]): More arguments of ``tools/train.py``.
        seeds (tuple[int, ...]): A run each.
        needs (tuple[Reference, ...]): Runs that come before.
    """

    name: str
    label: str
    config: str
    overrides: dict[str, Any]
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    needs: tuple[Reference, ...]


@dataclass(frozen=True)
class Study:
    """What a study's file says.

    Args:
        name (str): Its name, a folder's too.
        description (str): A sentence for the report; may be empty.
        figures (tuple[Figure, ...]): What to read; the first is the main one.
        which (str): 'last' or 'best': the validation to read it at.
        rows (tuple[Row, ...]): In the order of the table.
        jobs (int): Runs at a time.
        threads (int): Threads of a run.
        gpus (tuple[int, ...]): GPUs to spread the runs over; empty leaves the choice to the runs.
        timeout (float, optional): Seconds that a run may take, over all its sittings.
    """

    name: str
    description: str
    figures: tuple[Figure, ...]
    which: str
    rows: tuple[Row, ...]
    jobs: int
    threads: int
    gpus: tuple[int, ...]
    timeout: float | None


def read_study(path: str | Path) -> Study:
    """Read a study's file.

    Args:
        path (str | Path): The YAML file.

    Returns:
        Study: Checked, with grids expanded.

    Raises:
        StudyError: If it is no study; the message says in one line what is wrong and what is allowed.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding='utf-8'), _Loader)
    except FileNotFoundError:
        near = sorted(str(p) for p in path.parent.glob('*.yml')) if path.parent.is_dir() else []
        raise StudyError(f'{path} does not exist{_did_you_mean(str(path), near)}') from None
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f'{path} cannot be read: {getattr(error, "strerror", error)}') from None
    except yaml.YAMLError as error:
        mark = getattr(error, 'problem_mark', None)
        place = f', line {mark.line + 1}' if mark else ''
        raise StudyError(f'{path}{place}: no valid YAML: {getattr(error, "problem", error)}') from None
    try:
        return _make_study(content, path.stem)
    except StudyError as error:
        raise StudyError(f'{path}: {error}') from None


def _make_study(content: Any, default_name: str) -> Study:
    if not isinstance(content, Mapping):
        raise StudyError('a study is a mapping with rows, figure and seeds')
    _check_keys(content, _STUDY_KEYS, 'the study')
    for key in ('rows', 'figure'):
        if not content.get(key):
            raise StudyError(f'{key} is missing or empty')
    if not isinstance(content['rows'], list):
        raise StudyError('rows must be a list, each with a name and a config')
    which = content.get('which', 'last')
    if which not in ('last', 'best'):
        raise StudyError(f'which: {which} must be last or best: the validation to read the figure at')
    rows = [row for number, entry in enumerate(content['rows'], 1) for row in _make_rows(entry, number, content)]
    seen = set()
    for row in rows:
        if row.name in seen:
            raise StudyError(f'two rows have the name {row.name}; a grid needs its variables in the name')
        seen.add(row.name)
    gpus = content.get('gpus', [])
    if not isinstance(gpus, list) or not all(_is_int(gpu) and gpu >= 0 for gpu in gpus):
        raise StudyError(f'gpus: {gpus} must be a list of numbers, e.g. [0, 1]')
    study = Study(
        name=_name(content.get('name', default_name), 'the study'),
        description=str(content.get('description') or '').strip(),
        figures=_figures(content['figure']),
        which=which,
        rows=tuple(rows),
        jobs=_positive(content, 'jobs'),
        threads=_positive(content, 'threads'),
        gpus=tuple(gpus),
        timeout=None if content.get('timeout') is None else seconds(content['timeout']),
    )
    _check_needs(study)
    return study


def _make_rows(entry: Any, number: int, common: Mapping) -> Iterable[Row]:
    """Make the rows of one entry: one, or one for each point of its grid."""
    if not isinstance(entry, Mapping):
        raise StudyError(f'row {number} must be a mapping with a name and a config, not {entry!r}')
    place = f'row {entry.get("name", number)}'
    _check_keys(entry, _ROW_KEYS, place)
    if 'name' not in entry:
        raise StudyError(f'row {number} has no name')
    grid = entry.get('grid') or {}
    if not isinstance(grid, Mapping) or not all(isinstance(v, list) and v for v in grid.values()):
        raise StudyError(f'{place}: grid must give each variable a list of values, e.g. grid: {{lr: [1e-4, 3e-4]}}')
    for variable in grid:
        if not str(variable).isidentifier():
            raise StudyError(f'{place}: the variable {variable!r} of the grid must be one word, used as {{word}}')
    for values in itertools.product(*grid.values()):
        yield _make_row({**entry, 'grid': None}, dict(zip(grid, values)), common)


def _make_row(entry: Mapping, variables: dict[str, Any], common: Mapping) -> Row:
    used = set()
    name = _name(fill_variables(entry['name'], variables, used), 'a row')
    place = f'row {name}'
    overrides = {}
    for source, where in ((common, 'the study'), (entry, place)):
        given = source.get('overrides') or {}
        if not isinstance(given, Mapping):
            raise StudyError(f'{where}: overrides must be a mapping, e.g. {{train_cfg.max_epochs: 3}}')
        overrides.update(flatten(fill_variables(given, variables, used), where))
    for key in overrides:
        if key in _OWN_OPTIONS:
            raise StudyError(f'{place}: {key} is set by the runner; seeds are listed under seeds')
    config = fill_variables(entry.get('config', common.get('config')), variables, used)
    if not isinstance(config, str):
        raise StudyError(f'{place} has no config, and the study has none for all rows')
    arguments = fill_variables([*_list(common, 'arguments'), *_list(entry, 'arguments')], variables, used)
    arguments = tuple(str(argument) for argument in arguments)
    for argument in arguments:
        if argument.split('=')[0] in _OWN_ARGUMENTS:
            raise StudyError(f'{place}: {argument} is set by the runner; values of the config go to overrides')
    needs = [parse_need(need, place) for need in fill_variables(_list(entry, 'needs'), variables, used)]
    needs += [reference for value in overrides.values() for reference in references(value, place)]
    label = str(fill_variables(entry.get('label', name), variables, used))
    if unused := set(variables) - used:
        raise StudyError(f'{place}: nothing uses the variable {sorted(unused)[0]} of the grid')
    return Row(
        name=name,
        label=label,
        config=_find_config(config, place),
        overrides=overrides,
        arguments=arguments,
        seeds=_seeds(entry.get('seeds', common.get('seeds')), place),
        needs=tuple(dict.fromkeys(needs)),
    )


def seconds(text: Any) -> float:
    """Read a duration.

    Args:
        text (Any): A number and a unit: ``90s``, ``20m``, ``1.5h``, ``2d``.

    Returns:
        float: Seconds.

    Raises:
        StudyError: If it is something else.
    """
    match = re.fullmatch(r'(\d+(?:\.\d+)?)\s*([smhd])', str(text).strip())
    if not match or not float(match[1]):
        raise StudyError(f'{text!r} is no duration: write a number and s, m, h or d, e.g. 20m')
    return float(match[1]) * _UNITS[match[2]]


def _find_config(name: str, place: str) -> str:
    """Find a config as tools/train.py does, or below the root of vik_mm."""
    if '::' in name or Path(name).is_file():
        return name
    if (ROOT / name).is_file():
        return str(ROOT / name)
    folders = [folder for folder in (Path(name).parent, ROOT / Path(name).parent) if folder.is_dir()]
    near = sorted(str(Path(name).parent / p.name) for folder in folders[:1] for p in folder.glob('*.py'))
    raise StudyError(f'{place}: config {name} does not exist{_did_you_mean(name, near)}')


def _check_needs(study: Study) -> None:
    rows = {row.name: row for row in study.rows}
    for row in study.rows:
        for need in row.needs:
            if need.study not in (None, study.name):
                continue
            if need.row not in rows:
                raise StudyError(f'row {row.name} needs the row {need.row}{_did_you_mean(need.row, rows)}')
            for seed in row.seeds if need.seed is None else (need.seed,):
                if seed not in rows[need.row].seeds:
                    raise StudyError(
                        f'row {row.name} needs seed {seed} of row {need.row}, whose seeds are '
                        f'{list(rows[need.row].seeds)}; {need.row}@{rows[need.row].seeds[0]} names one for all'
                    )
    done = set()
    while len(done) < len(rows):
        ready = {
            name
            for name, row in rows.items()
            if name not in done and all(need.row in done for need in row.needs if need.study in (None, study.name))
        }
        if not ready:
            raise StudyError(f'the rows {", ".join(n for n in rows if n not in done)} need each other in a circle')
        done |= ready


def _figures(given: Any) -> tuple[Figure, ...]:
    figures = []
    for entry in given if isinstance(given, list) else [given]:
        entry = dict(name=entry) if isinstance(entry, str) else entry
        if not isinstance(entry, Mapping) or not isinstance(entry.get('name'), str):
            raise StudyError(f'figure: {entry!r} must be a name as logged, e.g. accuracy/top1, or a mapping with it')
        _check_keys(entry, _FIGURE_KEYS, f'figure {entry["name"]}')
        better = entry.get('better', 'higher')
        if better not in ('higher', 'lower'):
            raise StudyError(f'figure {entry["name"]}: better: {better} must be higher or lower')
        figures.append(Figure(entry['name'], str(entry.get('label', entry['name'])), better == 'higher'))
    names = [figure.name for figure in figures]
    if len(set(names)) < len(names):
        raise StudyError(f'figure: {", ".join(names)} has one twice')
    return tuple(figures)


def _seeds(given: Any, place: str) -> tuple[int, ...]:
    seeds = given if isinstance(given, list) else [given]
    if given is None or not seeds:
        raise StudyError(f'{place} has no seeds, and the study has none for all rows, e.g. seeds: [0, 1, 2]')
    for seed in seeds:
        if not _is_int(seed) or not 0 <= seed < 2**32:
            raise StudyError(f'{place}: the seed {seed!r} must be an integer from 0 to 2^32 - 1')
    if len(set(seeds)) < len(seeds):
        raise StudyError(f'{place}: seeds {seeds} has one twice')
    return tuple(seeds)


def _name(given: Any, place: str) -> str:
    if not _NAME.fullmatch(str(given)):
        raise StudyError(f'{place} has the name {given!r}; names are letters, digits and _ - . + =')
    return str(given)


def _list(source: Mapping, key: str) -> list:
    value = source.get(key)
    return [] if value is None else value if isinstance(value, list) else [value]


def _positive(content: Mapping, key: str) -> int:
    value = content.get(key, 1)
    if not _is_int(value) or value < 1:
        raise StudyError(f'{key}: {value!r} must be a positive integer')
    return value


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check_keys(given: Mapping, allowed: Iterable[str], place: str) -> None:
    for key in given:
        if key not in allowed:
            hint = _did_you_mean(str(key), allowed) or f'; it has {", ".join(allowed)}'
            raise StudyError(f'{place} has no key {key}{hint}')


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'; did you mean {near[0]}?' if near else ''


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, where YAML would take the last."""

    def construct_mapping(self, node, deep=False):
        seen = []
        for key_node, _ in node.value:
            if key_node.tag == 'tag:yaml.org,2002:merge':
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.MarkedYAMLError(problem=f'the key {key} stands twice', problem_mark=key_node.start_mark)
            seen.append(key)
        return super().construct_mapping(node, deep)
