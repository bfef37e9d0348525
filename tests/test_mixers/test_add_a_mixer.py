"""The mixer of docs/add_a_mixer.md passes the test that the page gives it."""

import re
from pathlib import Path

import pytest
from mmpretrain.registry import MODELS

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'add_a_mixer.md'


def blocks_of_page():
    return re.findall(r'^```python\n(.*?)^```$', PAGE.read_text(), re.DOTALL | re.MULTILINE)


def the_page():
    """Run the class and its test, and take the class out of the registry again, where others would find it."""
    namespace = {}
    for text in blocks_of_page():
        if 'class AxisMean' in text or 'MixerContract' in text:
            exec(compile(text, PAGE.name, 'exec'), namespace)
    MODELS.module_dict.pop('AxisMean')
    return namespace


NAMESPACE = the_page()
TestAxisMean = NAMESPACE['TestAxisMean']


@pytest.fixture(autouse=True)
def registered():
    MODELS.module_dict['AxisMean'] = NAMESPACE['AxisMean']
    yield
    MODELS.module_dict.pop('AxisMean')


def test_the_class_is_as_long_as_the_page_says():
    text = next(text for text in blocks_of_page() if 'class AxisMean' in text)
    assert len(text.splitlines()) <= 35
