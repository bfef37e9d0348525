"""The tests in every environment that is promised: ``nox``, or ``nox -s openmmlab-oldest`` for one.

Each session makes an environment of its own below .nox, runs the whole suite in it, and leaves a row in
docs/data/environments.csv, from which the table in docs/install.md is made. Pythons are looked for in PATH;
``--no-install`` runs the tests again in environments that are there.
"""

import csv
import json
import os
from pathlib import Path
from xml.etree import ElementTree

import nox

nox.options.default_venv_backend = 'uv'
nox.options.error_on_missing_interpreters = False

TABLE = Path(__file__).parent / 'docs/data/environments.csv'
# What pyproject.toml promises; its Triton imports setuptools and does not ask for it.
OLDEST = ('torch==2.5.1', 'torchvision==0.20.1', 'setuptools')
# MMCV builds against the PyTorch that is there, and asks for these; its Triton's interpreter fails with newer NumPy.
COMPILED = ('torch==2.8.0', 'torchvision==0.23.0', 'numpy<2.4', 'setuptools>=80,<82', 'wheel', 'ninja', 'psutil')
# Python, the extra that brings the packages, what is installed before them. What is not pinned is the newest.
ENVIRONMENTS = {
    'onedl-py310': ('3.10', 'onedl', ()),
    'onedl-py311': ('3.11', 'onedl', ()),
    'onedl-py312': ('3.12', 'onedl', ()),
    'onedl-py313': ('3.13', 'onedl', ()),
    'onedl-compiled': ('3.11', 'onedl', COMPILED),
    'onedl-oldest': ('3.10', 'onedl', OLDEST),
    'openmmlab': ('3.12', 'openmmlab', ()),
    'openmmlab-oldest': ('3.10', 'openmmlab', OLDEST),
}
# Printed as JSON by the Python of the environment.
DESCRIBE = """
import json, platform, vik_mm
from importlib import metadata
from vik_mm.compat.mmcv_ops import serve_mmcv_ops
versions = {dist.metadata['Name'].lower(): dist.version for dist in metadata.distributions()}
packages = [f'{name} {versions[name]}' for name in PACKAGES if name in versions]
print(json.dumps({
    'python': platform.python_version(),
    'packages': ', '.join(packages),
    'operators of mmcv': 'of this project' if serve_mmcv_ops() else 'compiled',
    **{name: versions[name] for name in ('torch', 'torchvision', 'numpy')},
}))
"""
PACKAGES = [f'onedl-{name}' for name in ('mmengine', 'mmcv', 'mmpretrain', 'mmdetection', 'mmsegmentation')] + [
    'mmengine',
    'mmcv',
    'mmcv-lite',
    'mmpretrain',
    'mmdet',
    'mmsegmentation',
]


def run_suite(session: nox.Session) -> None:
    """Make the environment, run the tests, leave a row."""
    name = session.name
    _, extra, before = ENVIRONMENTS[name]
    if before:
        session.install(*before)
    if before is COMPILED:
        session.install(
            'onedl-mmcv>=2.3.6', '--no-build-isolation', '--no-binary', 'onedl-mmcv', '--no-cache',
            env=dict(MMCV_WITH_OPS='1', FORCE_CUDA='0'),
        )  # fmt: skip
    session.install('-e', f'.[{extra},dev]', *before)
    report = Path(session.create_tmp(), 'report.xml')
    report.unlink(missing_ok=True)
    command = ('python', '-m', 'pytest', '-q', f'--junitxml={report}', *session.posargs)
    described = session.run('python', '-W', 'ignore', '-c', f'PACKAGES = {PACKAGES}\n{DESCRIBE}', silent=True)
    session.run(*command, success_codes=[0, 1])
    if described is None:
        return  # nox --install-only
    row = dict(environment=name, **json.loads(described.splitlines()[-1]), **count(report))
    row['commit'] = session.run('git', 'rev-parse', '--short', 'HEAD', external=True, silent=True).strip()
    if not session.posargs:  # of the whole suite only
        write(row)
        session.run('python', 'tools/analysis_tools/make_tables.py')
    if row['failed']:
        session.error(f'{row["failed"]} tests failed')


def count(report: Path) -> dict[str, int]:
    """Count outcomes in a JUnit file."""
    suite = ElementTree.parse(report).getroot().find('testsuite')
    total, skipped, *bad = (int(suite.get(key)) for key in ('tests', 'skipped', 'failures', 'errors'))
    return dict(passed=total - skipped - sum(bad), skipped=skipped, failed=sum(bad))


def write(row: dict) -> None:
    """Put a row into the table in the place of the environment's last one."""
    rows = {}
    if TABLE.exists():
        with TABLE.open() as file:
            rows = {old['environment']: old for old in csv.DictReader(file)}
    rows[row['environment']] = row
    part = TABLE.with_suffix(f'.{os.getpid()}')
    with part.open('w', newline='') as file:
        writer = csv.DictWriter(file, fieldnames=row, lineterminator='\n')
        writer.writeheader()
        writer.writerows(rows[name] for name in ENVIRONMENTS if name in rows)
    part.replace(TABLE)


for _name, (_python, *_) in ENVIRONMENTS.items():
    nox.session(name=_name, python=_python)(run_suite)
