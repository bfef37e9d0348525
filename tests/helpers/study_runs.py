"""Studies whose trainings take a tenth of a second, for tests of tools/compare.py."""

import importlib
import sys
import time
from pathlib import Path

FAKE = Path(__file__).with_name('fake_training.py')
MACHINE = dict(hardware='an abacus', instruction_set='AVX2', torch='2.5.0', python='3.11.0')


def module(name):
    return importlib.import_module(f'studies.{name}')


class Events:
    """A display that keeps what it is told."""

    def __init__(self, on_update=lambda scheduler: None):
        self.told, self.on_update = [], on_update

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def tell(self, text):
        self.told.append(text)

    def update(self, scheduler):
        self.on_update(scheduler)


def fake(run, **options):
    """The command of a run; overrides of the row are options of the fake training."""
    options = {**options, **run.row.overrides}
    return [sys.executable, str(FAKE), str(run.folder), str(run.seed), *(f'{k}={v}' for k, v in options.items())]


def train(runs, display=None, jobs=2, gpus=(), **options):
    display = display or Events()
    pause_file = runs[0].root / runs[0].study.name / 'PAUSE'
    settings = module('scheduler').Options(
        jobs, 1, gpus, MACHINE, pause_file, command=lambda run: fake(run, **options), tick=0.01
    )
    ended = module('scheduler').Scheduler(runs, settings, display).run()
    return ended, display.told


def value(seed, steps=6):
    for _ in range(steps):
        seed = seed * 1.5 + 1
    return seed


def wait_until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
