"""The runs of a study: their folders, what is recorded in them, and what is missing."""

import datetime
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from vik_mm_cli.files import try_lock, write_atomically

from .errors import StudyError
from .overrides import Reference, fill_references, render
from .study import ROOT, Row, Study

TRAIN = ROOT / 'tools' / 'train.py'
PUBLISH = ROOT / 'tools' / 'model_converters' / 'publish.py'


class WorkDir:
    """A run's folder and what is recorded in it.

    Args:
        folder (Path): The folder; it need not exist.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    @property
    def result(self) -> dict | None:
        """What was recorded at the run's end; None before."""
        return read_json(self.folder / 'run.json')

    @property
    def is_done(self) -> bool:
        """Whether the run has come to its end."""
        return (self.folder / 'run.json').is_file()

    @property
    def failure(self) -> str | None:
        """Why it failed; None if it did not."""
        return (read_json(self.folder / 'failed.json') or {}).get('reason')

    @property
    def state(self) -> str:
        """Say in a word how far it is: 'done', 'failed', 'begun' or 'missing'."""
        if self.is_done:
            return 'done'
        if self.failure is not None:
            return 'failed'
        return 'begun' if self.sittings else 'missing'

    @property
    def record(self) -> dict | None:
        """What the folder was made for; None if no sitting has begun."""
        return read_json(self.folder / 'command.json')

    @property
    def max_epochs(self) -> int | None:
        """Epochs of the whole training; None where it counts iterations, or where this is not known."""
        config = (self.record or {}).get('config') or {}
        return (config.get('train_cfg') or {}).get('max_epochs')

    @property
    def sittings(self) -> list[dict]:
        """Start, end and peak memory of each sitting so far."""
        return read_json(self.folder / 'sittings.json') or []

    @property
    def seconds(self) -> float:
        """Wall time of all sittings so far."""
        return sum(sitting['end'] - sitting['start'] for sitting in self.sittings)

    def checkpoint(self) -> Path | None:
        """Find the newest checkpoint: the one that ``last_checkpoint`` names, or else the one written last."""
        if named := self._named_checkpoint():
            return named
        found = [
            path
            for path in self.folder.glob('*.pth')
            if not path.name.startswith(('.', 'best_', 'published-'))  # nothing that a training goes on from
        ]
        return max(found, key=lambda path: path.stat().st_mtime, default=None)

    def _named_checkpoint(self) -> Path | None:
        try:
            text = (self.folder / 'last_checkpoint').read_text().strip()
        except (OSError, UnicodeDecodeError):
            return None
        if not text or not text.isprintable():
            return None
        # The record holds the path at the time of writing: the folder may have moved since. A config may have
        # checkpoints written elsewhere.
        places = (self.folder / Path(text).name, Path(text))
        return next((path for path in places if os.path.exists(path)), None)

    def published(self) -> Path | None:
        """Find the file that ``publish.py`` made of the newest checkpoint."""
        return next(iter(sorted(self.folder.glob('published-*.pth'))), None)


class Needed(WorkDir):
    """A run, maybe of another study, that another run waits for.

    Args:
        folder (Path): Its work dir.
        reference (Reference): What of it is needed.
    """

    def __init__(self, folder: Path, reference: Reference):
        super().__init__(folder)
        self.reference = reference

    def file(self) -> Path | None:
        """Find the file that the placeholder stands for; None as long as there is none."""
        if not self.is_done or self.reference.kind is None:
            return None
        return self.published() if self.reference.kind == 'published' else self.checkpoint()

    @property
    def is_ready(self) -> bool:
        """Whether what is needed of it is there."""
        return self.is_done and (self.reference.kind is None or self.file() is not None)


class Run(WorkDir):
    """One training: a row's config with one seed, in a work dir of its own.

    Args:
        study (Study): Its study.
        row (Row): Its row.
        seed (int): Its seed.
        root (Path): The folder of all studies.
    """

    def __init__(self, study: Study, row: Row, seed: int, root: Path):
        super().__init__(root / study.name / row.name / f'seed{seed}')
        self.study, self.row, self.seed, self.root = study, row, seed, root
        # The whole config, once it has been looked at.
        self.config: dict | None = None

    def __str__(self):
        return f'{self.row.name}, seed {self.seed}'

    @property
    def log(self) -> Path:
        """Where all that the sittings write goes."""
        return self.folder / 'train.log'

    @property
    def settings(self) -> dict[str, Any]:
        """What distinguishes this run from others."""
        row = self.row
        return dict(config=portable(row.config), overrides=row.overrides, arguments=list(row.arguments), seed=self.seed)

    def needs(self) -> list[Needed]:
        """List the runs that this one waits for."""
        found = []
        for reference in self.row.needs:
            seed = self.seed if reference.seed is None else reference.seed
            study = reference.study or self.study.name
            found.append(Needed(self.root / study / reference.row / f'seed{seed}', reference))
        return found

    def inputs(self) -> dict[str, Path | None]:
        """Find the files that stand for the placeholders, by placeholder; None for those that are not there yet."""
        return {str(need.reference): need.file() for need in self.needs() if need.reference.kind}

    def arguments(self, are_filled: bool = True) -> list[str]:
        """Make the arguments of ``tools/train.py``.

        Args:
            are_filled (bool): Whether files take the place of placeholders, where there are such files. Defaults to
                True.
        """
        paths = {name: str(path) for name, path in self.inputs().items() if path and are_filled}
        options = {**self.row.overrides, 'randomness.seed': self.seed}
        values = [f'{key}={render(fill_references(value, paths))}' for key, value in options.items()]
        return [
            self.row.config,
            *self.row.arguments,
            *('--work-dir', str(self.folder), '--resume', '--cfg-options'),
            *values,
        ]

    def command(self) -> list[str]:
        """Make the command that trains."""
        return [sys.executable, str(TRAIN), *self.arguments()]

    @property
    def is_new(self) -> bool:
        """Whether it has nothing to go on from."""
        return not self.is_done and self.checkpoint() is None

    def begin(self, command: list[str]) -> str:
        """Record, before a sitting, what the folder is for.

        Args:
            command (list[str]): What trains.

        Returns:
            str: The commit of the sitting; the checkout may move on while it lasts.
        """
        if self.is_new:  # what a sitting without a checkpoint has logged is no part of the run
            (self.folder / 'sittings.json').unlink(missing_ok=True)
            for scalars in self.folder.glob('*/vis_data/scalars.json'):
                shutil.rmtree(scalars.parents[1])
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / 'failed.json').unlink(missing_ok=True)
        record = dict(
            settings=self.settings,
            inputs={name: path.name for name, path in self.inputs().items() if path},
            command=command,
            commit=commit(),
            config=self.config,
        )
        write_json(self.folder / 'command.json', record)
        return record['commit']

    def fail(self, reason: str) -> None:
        """Record that it failed."""
        write_json(self.folder / 'failed.json', dict(reason=reason, date=now(), commit=commit()))


def all_runs(study: Study, root: Path) -> list[Run]:
    """List a study's runs in the order in which they are started: one seed of each row first.

    Args:
        study (Study): The study.
        root (Path): The folder of all studies.

    Returns:
        list[Run]: The runs.
    """
    longest = max(len(row.seeds) for row in study.rows)
    return [
        Run(study, row, row.seeds[number], root)
        for number in range(longest)
        for row in study.rows
        if number < len(row.seeds)
    ]


def check_records(runs: list[Run]) -> list[Run]:
    """Compare what lies in the work dirs with the study.

    Args:
        runs (list[Run]): The runs; where their config has been looked at, it is compared.

    Returns:
        list[Run]: Those with other settings whose config has yet to be looked at to say whether it is the same.

    Raises:
        StudyError: If a work dir belongs to another run, or was not made by this tool.
    """
    doubtful = []
    for run in runs:
        record = run.record
        if record is None:
            if run.folder.is_dir() and any(p.suffix in ('.pth', '.json', '.py') for p in run.folder.iterdir()):
                raise StudyError(f'{run.folder} was not made by this tool: remove it, or choose another --work-root')
            continue
        if run.is_new:
            continue
        if run.config is not None and record['config'] is not None:
            if difference := _difference(record['config'], run.config):
                raise StudyError(
                    f'{run}: {run.folder} was trained with another config ({difference}): '
                    'remove that folder to train it again, or give the row another name'
                )
        elif record['settings'] != json.loads(json.dumps(run.settings)):
            doubtful.append(run)
        for name, path in run.inputs().items():
            file = record['inputs'].get(name)
            if file and path and path.name != file:
                raise StudyError(
                    f'{run}: {run.folder} was trained from {file}, and {{{name}}} is {path.name} now: '
                    'remove that folder to train it again'
                )
    return doubtful


def portable(config: str) -> str:
    """Write a config's path from the root of the repository, if it lies there: it is the same from any folder."""
    path = Path(os.path.abspath(config))
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else config


def of_other_commits(runs: list[Run]) -> list[Run]:
    """List the runs that another commit than this one began or ended."""
    today = commit()
    begun = [run for run in runs if not run.is_new]
    return [run for run in begun if (record := run.result or run.record) and record['commit'] != today]


def _difference(then: Any, today: Any, place: str = '') -> str:
    """Name the first value in which two configs differ; empty if there is none."""
    if isinstance(then, dict) and isinstance(today, dict):
        for key in dict.fromkeys([*then, *today]):
            name = f'{place}.{key}' if place else str(key)
            if key not in then or key not in today:
                return f'{name} {"is new" if key in today else "is gone"}'
            if difference := _difference(then[key], today[key], name):
                return difference
        return ''
    if isinstance(then, list) and isinstance(today, list) and len(then) == len(today):
        for number, (one, other) in enumerate(zip(then, today)):
            if difference := _difference(one, other, f'{place}.{number}'):
                return difference
        return ''
    # Values that are no numbers are equal to themselves.
    return '' if json.dumps(then) == json.dumps(today) else f'{place}: {then} then, {today} now'


def commit() -> str:
    """Name the commit of this checkout, ``-dirty`` where files differ from it; outside of one, vik_mm's version."""
    git = ['git', '-C', str(ROOT)]
    try:
        head = subprocess.run([*git, 'rev-parse', '--short=12', 'HEAD'], capture_output=True, text=True)
        if head.returncode == 0 and ROOT.joinpath('.git').exists():
            changes = subprocess.run([*git, 'status', '--porcelain', '-uno'], capture_output=True, text=True).stdout
            return head.stdout.strip() + ('-dirty' if changes.strip() else '')
    except FileNotFoundError:  # no git
        pass
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f'vik_mm {version("vik_mm")}'
    except PackageNotFoundError:
        return 'unknown'


def now() -> str:
    """Write the date and time."""
    return datetime.datetime.now().astimezone().isoformat(timespec='seconds')


def read_json(path: Path) -> Any:
    """Read a record; None if there is none.

    Raises:
        StudyError: If it is damaged.
    """
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StudyError(f'{path} is damaged ({error}): remove it') from None


def write_json(path: Path, content: Any) -> None:
    """Write a record that is there whole or not at all."""
    write_atomically((json.dumps(content, indent=1) + '\n').encode(), path)


def lock(path: Path) -> int | None:
    """Lock a file for this process and those it hands the handle to.

    Args:
        path (Path): The file; made if it is not there.

    Returns:
        int | None: The handle; None if another has the lock. The lock ends with the last process that has the handle.
            Where there are no locks, nobody is kept out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    if try_lock(handle) is not False:
        return handle
    os.close(handle)
    return None
