"""README and docs are short, agree with what they are made from, and name what exists."""

import importlib.util
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from vik_mm.mixers import MultiPatchRBFKAN
from vik_mm.version import __version__

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / 'README.md'
PAGES = [README, ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]


def load_script(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def words(text):
    """Words of prose: without blocks of code, tables, comments, tags and the addresses of links."""
    text = re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r'^\|.*', '', text, flags=re.MULTILINE)
    text = re.sub(r'<!--.*?-->|<[^>]+>', '', text, flags=re.DOTALL)
    text = re.sub(r'\]\([^)]*\)', ']', text)
    return [word for word in text.split() if re.search(r'\w', word)]


def table_lines(text):
    return [line for line in text.splitlines() if line.startswith('|')]


def test_words_and_rows_are_counted():
    text = 'Two [words](a b c).\n<!-- no -->\n\n| a | b |\n| - | - |\n\n```bash\nmake x\n```\n<img alt="no">\n- three\n'
    assert words(text) == ['Two', '[words].', 'three']
    assert len(table_lines(text)) == 2


def test_the_readme_has_at_most_700_words_and_25_lines_of_tables():
    text = README.read_text()
    assert len(words(text)) <= 700
    assert len(table_lines(text)) <= 25


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_no_row_of_a_table_compares_a_baseline_with_itself(page):
    rows = table_lines(page.read_text())
    assert [row for row in rows if '1.00x (1.00 - 1.00)' in row or re.search(r'\bbaseline\b.*\b1\.00x', row)] == []


def test_tables_agree_with_metafiles_and_csv_files():
    script = ROOT / 'tools/analysis_tools/make_tables.py'
    result = subprocess.run([sys.executable, script, '--check'], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_a_table_that_differs_is_an_error(tmp_path, monkeypatch, capsys):
    tables = load_script(ROOT / 'tools/analysis_tools/make_tables.py')
    page = tmp_path / 'page.md'
    page.write_text('before\n<!-- table: paper -->\n| old |\n<!-- end -->\nafter\n')
    monkeypatch.setattr(tables, 'PAGES', [page])
    monkeypatch.setattr(sys, 'argv', ['make_tables.py', '--check'])
    with pytest.raises(SystemExit, match='page.md differ'):
        tables.main()
    monkeypatch.setattr(sys, 'argv', ['make_tables.py'])
    tables.main()
    text = page.read_text()
    assert '| old |' not in text and '76.5' in text and text.startswith('before\n') and text.endswith('\nafter\n')


def test_each_table_stands_on_a_page():
    tables = load_script(ROOT / 'tools/analysis_tools/make_tables.py').TABLES
    used = {name for page in PAGES for name in re.findall(r'<!-- table: (\w+) -->', page.read_text())}
    assert used == set(tables)


def test_tests_that_the_pages_name_exist():
    sources = '\n'.join(path.read_text() for path in (ROOT / 'tests').rglob('*.py'))
    defined = set(re.findall(r'def (test_\w+)\(', sources))
    named = {name for page in PAGES for name in re.findall(r'`(test_\w+)`', page.read_text())} - {'test_cfg'}
    assert named and named <= defined, sorted(named - defined)


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_the_drawing_of_the_block_is_what_its_script_draws(theme):
    script = load_script(ROOT / 'docs/pictures/draw_block.py')
    assert (ROOT / f'docs/pictures/block-{theme}.svg').read_text() == script.draw(theme)


def test_the_drawing_names_the_mixers_sizes():
    defaults = {name: option.default for name, option in inspect.signature(MultiPatchRBFKAN).parameters.items()}
    side = defaults['patch_size']
    svg = (ROOT / 'docs/pictures/block-light.svg').read_text()
    for text in (f'{side}×{side} pixels', f'rank {defaults["rank"]}', f'{defaults["num_grids"]} learned'):
        assert text in svg


@pytest.mark.parametrize('name, script', [('tests', '.ci/run'), ('nightly', '.ci/matrix')])
def test_workflows_call_the_scripts_that_run_anywhere(name, script):
    workflow = yaml.safe_load((ROOT / f'.github/workflows/{name}.yml').read_text())
    commands = [step['run'] for job in workflow['jobs'].values() for step in job['steps'] if 'run' in step]
    assert script in commands and os.access(ROOT / script, os.X_OK)


def test_the_citation_has_the_version_of_the_package():
    citation = yaml.safe_load((ROOT / 'CITATION.cff').read_text())
    assert citation['version'] == __version__
    assert citation['references'][0]['title'].startswith('Vision KAN')


def test_changes_are_grouped():
    groups = re.findall(r'^### (.+)', (ROOT / 'CHANGELOG.md').read_text(), re.MULTILINE)
    assert groups and set(groups) <= {'Added', 'Changed', 'Deprecated', 'Removed', 'Fixed', 'Security'}
