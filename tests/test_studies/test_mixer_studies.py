"""The studies of all token mixers and channel MLPs."""

import pytest
from mmengine.config import Config
from study_runs import module

from vik_mm_cli.option_values import parse_value

CLASSES = 'mixers_tiny-imagenet100'
PARTS = ('token_mixer', 'mlp', 'mlp_ratio')


def rows_of(root, name):
    return {row.name: row for row in module('study').read_study(root / f'configs/studies/{name}.yml').rows}


@pytest.mark.parametrize('name', [CLASSES, 'mixers_camvid', 'mixers_voc'])
def test_a_dry_run_lists_every_mixer(root, call_tool, tmp_path, name):
    path = str(root / f'configs/studies/{name}.yml')
    code, text = call_tool('compare.py', path, '--dry-run', '--work-root', str(tmp_path))
    assert code == 0, text
    configs = {path.name.split('-t_')[0] for path in (root / 'configs/mixers').glob('*-t_tiny-imagenet100.py')}
    assert set(rows_of(root, name)) == configs | {'vik', 'pooling', 'identity', 'attention'}


def changed_parts(overrides):
    found = {}
    for key, value in overrides.items():
        for part in PARTS:
            path = f'model.backbone.{part}'
            if key == path or key.startswith(path + '.'):
                target, names = found, [part, *key[len(path) + 1 :].split('.')] if key != path else [part]
                for each in names[:-1]:
                    target = target.setdefault(each, {})
                target[names[-1]] = parse_value(value) if isinstance(value, str) else value
    return found


@pytest.mark.parametrize('name', ['mixers_camvid', 'mixers_voc'])
def test_a_dense_row_has_the_mixer_of_the_backbone_it_starts_from(root, name):
    classes = rows_of(root, CLASSES)
    for row in rows_of(root, name).values():
        source = classes[row.name]
        cfg = Config.fromfile(root / source.config)
        parts = {part: cfg.model.backbone[part] for part in PARTS if part in cfg.model.backbone}
        parts |= changed_parts(source.overrides)
        assert changed_parts(row.overrides) == Config(dict(parts=parts)).to_dict()['parts'], row.name
        (need,) = row.needs
        assert (need.study, need.row, need.seed, need.kind) == (CLASSES, row.name, 0, 'published')
