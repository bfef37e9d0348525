from datetime import date
from pathlib import Path

import pytest
import yaml
from study_runs import module

from vik_mm_cli.option_values import parse_value

ROW = dict(name='one')
BAD = {
    'no mapping': ('[1, 2]', 'a study is a mapping with rows, figure and seeds'),
    'broken YAML': ('rows: [', 'no valid YAML'),
    'a key twice': ('figure: a\nfigure: b', 'line 2: no valid YAML: the key figure stands twice'),
    'unknown key': (dict(sedes=[1]), 'the study has no key sedes; did you mean seeds?'),
    'unknown key of a row': (
        dict(rows=[dict(ROW, overides={})]),
        'row one has no key overides; did you mean overrides?',
    ),
    'no rows': (dict(rows=[]), 'rows is missing or empty'),
    'no figure': (dict(figure=None), 'figure is missing or empty'),
    'nameless row': (dict(rows=[{}]), 'row 1 has no name'),
    'name with a slash': (dict(rows=[dict(name='a/b')]), "has the name 'a/b'; names are letters, digits"),
    'one name twice': (dict(rows=[ROW, ROW]), 'two rows have the name one'),
    'grid without its variable in the name': (
        dict(rows=[dict(ROW, grid=dict(lr=[1, 2]), overrides=dict(lr='{lr}'))]),
        'a grid needs its variables in the name',
    ),
    'variable that nothing uses': (dict(rows=[dict(ROW, grid=dict(lr=[1]))]), 'nothing uses the variable lr'),
    'unknown placeholder': (
        dict(rows=[dict(ROW, overrides=dict(a='{rate}'))]),
        '{rate} is neither a variable of the grid nor {ROW.checkpoint}',
    ),
    'seed that is no integer': (dict(seeds=[0, 'x']), "the seed 'x' must be an integer"),
    'seed twice': (dict(seeds=[0, 0]), 'has one twice'),
    'no seeds': (dict(seeds=[]), 'has no seeds'),
    'seed as override': (dict(overrides={'randomness': {'seed': 1}}), 'randomness.seed is set by the runner'),
    'work dir as argument': (dict(arguments=['--work-dir', 'x']), '--work-dir is set by the runner'),
    'unknown config': (dict(config='configs/vik/vik-demo_shape.py'), 'did you mean configs/vik/vik-demo_shapes.py?'),
    'which': (dict(which='first'), 'which: first must be last or best'),
    'timeout': (dict(timeout='soon'), "'soon' is no duration"),
    'jobs': (dict(jobs=0), 'jobs: 0 must be a positive integer'),
    'value that is no value': (dict(overrides=dict(a=[dict(b=date(2026, 1, 1))])), 'cannot be given in --cfg-options'),
    'key that is no key': (dict(overrides=dict(a=[{True: 1}])), 'a: the key True must be text or an integer'),
    'unknown placeholder in a mapping of a list': (
        dict(overrides=dict(a=[dict(b='{rate}')])),
        '{rate} is neither a variable of the grid nor {ROW.checkpoint}',
    ),
    'needs an unknown row': (dict(rows=[ROW, dict(name='two', needs='oen')]), 'needs the row oen; did you mean one?'),
    'needs a seed that is not there': (
        dict(rows=[dict(ROW, seeds=[7]), dict(name='two', overrides=dict(a='{one.published}'))]),
        'row two needs seed 0 of row one, whose seeds are [7]; one@7 names one for all',
    ),
    'circle': (
        dict(rows=[dict(ROW, needs='two'), dict(name='two', overrides=dict(a='{one.published}'))]),
        'the rows one, two need each other in a circle',
    ),
}


def test_a_grid_makes_a_row_of_each_point(read):
    row = dict(
        name='{model}-lr{lr}',
        config='configs/vik/{model}.py',
        grid=dict(model=['vik-s_in1k', 'vik-b_in1k'], lr=['1e-4', 0.001]),
        overrides={'optim_wrapper': {'optimizer': {'lr': '{lr}', 'betas': [0.9, 0.95]}}, 'x': None, 'y': True},
    )
    runs = read(rows=[row], seeds=[0], overrides=dict(y=False, z='{lr}'))
    assert [run.row.name for run in runs] == [
        'vik-s_in1k-lr1e-4',
        'vik-s_in1k-lr0.001',
        'vik-b_in1k-lr1e-4',
        'vik-b_in1k-lr0.001',
    ]
    arguments = runs[1].arguments()
    assert Path(arguments[0]).name == 'vik-s_in1k.py'
    assert arguments[arguments.index('--cfg-options') + 1 :] == [
        'y=True',
        'z=0.001',
        'optim_wrapper.optimizer.lr=0.001',
        'optim_wrapper.optimizer.betas=[0.9,0.95]',
        'x=None',
        'randomness.seed=0',
    ]


@pytest.mark.parametrize(
    'value',
    [
        [dict(type='Pooling'), dict(type='A', on=True, sizes=[1, 2.5], name=None)],
        ['a, b', "it's", '3', 'x[0', ''],
        [{1: 'a', -2: 'b', '3': 'c', 'd:e': 'f', 'True': 4}],
    ],
    ids=['mappings in a list', 'text that looks like something else', 'keys that look like something else'],
)
def test_values_arrive_as_the_study_has_them(value):
    assert parse_value(module('overrides').render(value)) == value


@pytest.mark.parametrize('text', ['/a b/c.pth', '/a,b/[c].pth', "/it's.pth"])
def test_paths_of_other_runs_arrive_as_they_are(text):
    assert parse_value(module('overrides').quote(text)) == text


def test_placeholders_inside_of_lists_are_needs_and_are_filled(read):
    hooks = [dict(type='Start', checkpoint='{base@0.checkpoint}'), dict(more=[dict(file='{base@1.published}')])]
    runs = read(rows=[dict(name='base'), dict(name='tuned', overrides=dict(custom_hooks=hooks))], seeds=[0, 1])
    assert [str(need.reference) for need in runs[1].needs()] == ['base@0.checkpoint', 'base@1.published']
    paths = {'base@0.checkpoint': '/a,b/c.pth', 'base@1.published': '/d e/f.pth'}
    overrides = module('overrides')
    assert parse_value(overrides.render(overrides.fill_references(hooks, paths))) == [
        dict(type='Start', checkpoint='/a,b/c.pth'),
        dict(more=[dict(file='/d e/f.pth')]),
    ]
    assert parse_value(overrides.render(overrides.fill_references('{base@0.checkpoint}', paths))) == '/a,b/c.pth'


@pytest.mark.parametrize(('study', 'message'), BAD.values(), ids=BAD.keys())
def test_a_faulty_study_is_refused_in_one_line(study, message, write_study, tmp_path):
    path = tmp_path / 'study.yml'
    if isinstance(study, str):
        path.write_text(study)
    else:
        write_study(**study)
    with pytest.raises(module('errors').StudyError) as caught:
        module('study').read_study(path)
    assert message in str(caught.value) and '\n' not in str(caught.value) and str(path) in str(caught.value)


def test_the_studies_of_this_repository_can_be_read_and_the_docs_show_one(root):
    for path in (root / 'configs/studies').glob('*.yml'):
        assert module('study').read_study(path).rows
    shown = (root / 'docs/studies.md').read_text().split('```yaml\n', 1)[1].split('```', 1)[0]
    assert yaml.safe_load(shown) == yaml.safe_load((root / 'configs/studies/demo_shapes.yml').read_text())
