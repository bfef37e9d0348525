"""Data sets inside data sets."""

import re

import pytest
from mmengine.dataset import BaseDataset, ConcatDataset, RepeatDataset

from vik_mm.config.form import check_form
from vik_mm.datasets.nesting import innermost, innermost_configs, nested_configs

A, B = dict(type='A', pipeline=[]), dict(type='B')
NESTED = dict(type='Repeat', dataset=dict(type='Concat', datasets=[A, dict(type='Balanced', dataset=B)]))


def test_configs_come_from_outside_in_with_their_places():
    found = [(place, each['type']) for place, each in nested_configs(NESTED, 'train.dataset')]
    assert found == [
        ('train.dataset', 'Repeat'),
        ('train.dataset.dataset', 'Concat'),
        ('train.dataset.dataset.datasets', 'A'),
        ('train.dataset.dataset.datasets', 'Balanced'),
        ('train.dataset.dataset.datasets.dataset', 'B'),
    ]


@pytest.mark.parametrize(
    ('config', 'types'), [(NESTED, ['A', 'B']), (A, ['A']), (None, []), ({}, [])], ids=['nested', 'plain', 'none', '{}']
)
def test_the_innermost_wrap_no_other(config, types):
    assert [each['type'] for each in innermost_configs(config)] == types


def test_built_data_sets_are_found_in_wrappers():
    class Numbers(BaseDataset):
        def load_data_list(self):
            return [dict(k=k) for k in range(2)]

    first, second = Numbers(), Numbers()
    assert list(innermost(ConcatDataset([first, second]))) == [first, second]
    assert list(innermost(RepeatDataset(first, times=2))) == [first]
    assert list(innermost([1, 2])) == []


def test_a_data_set_of_wrong_form_is_named_where_it_stands():
    from mmengine.config import Config

    wrong = dict(type='Repeat', dataset=dict(type='Concat', datasets=[A, 'B']))
    with pytest.raises(ValueError, match=r"train_dataloader\.dataset\.dataset\.datasets='B' must be a dict"):
        check_form(Config(dict(train_dataloader=dict(dataset=wrong))))


def test_one_module_knows_how_data_sets_nest(root):
    for path in (root / 'vik_mm').rglob('*.py'):
        assert path.name == 'nesting.py' or not re.search(r"""['"]datasets['"]""", path.read_text()), path
