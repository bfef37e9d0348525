"""The page of a report: what users wrote stays text, and nothing is loaded from elsewhere."""

import json
import re

import cv2
import numpy as np
import pytest

from vik_mm.evaluation import Evaluation
from vik_mm.evaluation.classification import classification_figures
from vik_mm.evaluation.findings import findings
from vik_mm.evaluation.records import ClassifiedImage
from vik_mm.visualization import write_report
from vik_mm.visualization.report import page

EVIL = '<script>alert(1)</script>'
HOSTILE = [EVIL, '"><img src=x onerror=alert(1)>', '$\\frac{$', '猫 & dog']


@pytest.fixture
def written(tmp_path):
    """A report whose classes and files have hostile names."""
    image = tmp_path / '<img src=x>&amp;.png'
    cv2.imwrite(str(image), np.zeros((8, 8, 3), np.uint8))
    scores = np.full((8, 4), 0.1, np.float32)
    scores[np.arange(8), np.arange(8) % 4] = 0.7
    records = [ClassifiedImage(str(image), k, s, (k // 2) % 4) for k, s in enumerate(scores)]
    figures = classification_figures(records, HOSTILE)
    result = Evaluation(
        *('classification', HOSTILE, 'test', f'{EVIL}.py', f'{EVIL}.pth', records, {EVIL: 1.0}, None),
        figures=figures,
        findings=findings('classification', figures),
    )
    return write_report(result, tmp_path / 'out')


def test_names_of_classes_and_files_are_text_everywhere(written):
    text = written.read_text()
    assert text.count('<script') == 1 and '<img src=x' not in text
    assert '&lt;script&gt;alert(1)&lt;/script&gt;' in text and '猫' in text
    assert '<img src=x>' not in text and '&lt;img src=x&gt;&amp;amp;.png' in text


def test_the_page_loads_nothing_and_runs_only_its_own_script(written):
    text = written.read_text()
    assert not re.search(r'(src|href)="(?!data:|#)', text) and not re.search(r'url\((?!#)|@import', text)
    assert 'default-src &#x27;none&#x27;' in text and 'script-src &#x27;sha256-' in text


def test_plots_and_figures_lie_beside_the_page(written):
    assert {p.name for p in (written.parent / 'plots').iterdir()} == {'confusion.png', 'reliability.png'}
    assert json.loads((written.parent / 'figures.json').read_text())['classes'] == HOSTILE


def test_a_missing_figure_is_a_dash_and_sorts_last():
    cells = page.table([dict(a='x', b=float('nan'))], dict(a='A', b='B'))
    assert '<td data-value="">–</td>' in cells
