import pytest
import yaml
from study_runs import module

STUDY = dict(
    name='trial',
    figure='accuracy/top1',
    config='configs/vik/vik-demo_shapes.py',
    seeds=[0, 1, 2],
    rows=[dict(name='one'), dict(name='two')],
)


@pytest.fixture(autouse=True)
def tools_path(monkeypatch, root):
    """What running a script in tools/ does."""
    monkeypatch.syspath_prepend(root / 'tools')


@pytest.fixture
def write_study(tmp_path):
    def write(**changes):
        path = tmp_path / 'study.yml'
        path.write_text(yaml.safe_dump({**STUDY, **changes}, sort_keys=False))
        return path

    return write


@pytest.fixture
def read(write_study, tmp_path):
    def read(**changes):
        study = module('study').read_study(write_study(**changes))
        return module('runs').all_runs(study, tmp_path / 'root')

    return read
