"""What is said of a checkpoint that does not fit."""

import re

import pytest
import torch
from torch import nn

import vik_mm
from vik_mm.checkpoints import load_weights
from vik_mm.checkpoints.misfit import describe_misfit, fitting_weights
from vik_mm.errors import BadInputError


def model(width=4, classes=8, head='head', neck=None):
    made = nn.Module()
    made.backbone = nn.Sequential(nn.Linear(3, width), nn.BatchNorm1d(width), nn.Linear(width, width))
    if neck:
        made.neck = nn.Linear(width, neck)
    setattr(made, head, nn.Linear(width, classes))
    return made


CASES = {
    'other classes': (model(classes=21), r'2 have another shape \(head.weight: \(21, 4\) in the file, \(8, 4\) in the '
                      r'model.*of other classes \(the last layer has 21 outputs in the file, 8 in the model\)'),
    'other arch': (model(width=6), 'have another shape.*of another arch of the backbone'),
    'other task': (
        model(head='decode_head'),
        r'2 of 11 weights of the model are missing in it \(head.weight, head.bias\); 2 of its weights are unknown.*'
        'of another task: segmentation, and the config is of classification',
    ),
    'a backbone only': (model().backbone, r'of a backbone only.*init_cfg=dict\(type='),
    'another neck': (model(neck=5), r'unknown to the model \(neck.weight, neck.bias\).*of another neck'),
    'another model': (nn.ModuleDict(dict(encoder=nn.Linear(2, 2))), 'Nothing of it is of this model'),
}  # fmt: skip


@pytest.mark.parametrize('case', CASES)
def test_a_wrong_checkpoint_is_explained_in_a_few_words(case):
    other, words = CASES[case]
    target = model()
    before = {name: value.clone() for name, value in target.state_dict().items()}
    with pytest.raises(BadInputError) as caught:
        load_weights(target, other.state_dict())
    assert re.search(words, str(caught.value)), str(caught.value)
    assert len(str(caught.value)) < 600 and '\n' not in str(caught.value)
    assert all(torch.equal(value, before[name]) for name, value in target.state_dict().items())


def test_what_fits_is_not_complained_of():
    weights = model().state_dict()
    assert describe_misfit(model(), weights) is None
    # Files of old versions lack these counters.
    del weights['backbone.1.num_batches_tracked']
    load_weights(model(), weights)


def vit(img_size):
    arch = dict(embed_dims=16, num_layers=1, num_heads=2, feedforward_channels=16)
    made = nn.Module()
    made.backbone = vik_mm.ViTKArAt(arch=arch, img_size=img_size)
    made.backbone.init_weights()  # positions would be zero
    return made


def test_weights_that_the_model_resamples_fit():
    """Positions and operators of a vision transformer belong to an image size, and are resampled to another."""
    weights, target = vit(64).state_dict(), vit(96)
    assert weights['backbone.pos_embed'].shape != target.backbone.pos_embed.shape
    assert describe_misfit(target, weights) is None
    load_weights(target, weights)
    assert torch.equal(target.backbone.cls_token, weights['backbone.cls_token'])
    assert target.backbone.pos_embed.shape[1] == 1 + 6 * 6


def test_what_fits_is_resampled_where_the_rest_does_not_fit():
    """As ``load_from`` takes what there is of the weights."""
    weights, target = vit(64).state_dict(), vit(96)
    weights['head.weight'] = torch.zeros(3, 16)
    given = {name: value.clone() for name, value in weights.items()}
    fitting = fitting_weights(target, weights)
    start = target.backbone.pos_embed.clone()
    target.load_state_dict(fitting)
    assert not torch.equal(target.backbone.pos_embed, start)
    assert weights.keys() == given.keys() and all(torch.equal(weights[name], given[name]) for name in given)


def test_every_process_refuses_what_does_not_fit(monkeypatch):
    """MMEngine raises in the first one only, and the others would wait for it."""
    monkeypatch.setattr('mmengine.runner.checkpoint.get_dist_info', lambda: (1, 2))
    weights = model().state_dict()
    del weights['head.bias']
    with pytest.raises(BadInputError, match=r'missing in it \(head.bias\)'):
        load_weights(model(), weights)


def test_the_tools_say_it_too(call_tool, shapes_config, make_config, tmp_path):
    code, text = call_tool('train.py', shapes_config, '--work-dir', tmp_path / 'run')
    assert not code, text[-2000:]
    path, image = tmp_path / 'run' / 'epoch_1.pth', tmp_path / 'x.png'
    image.write_bytes(b'')
    other = make_config('segmentation')
    for arguments in (('test.py', other, path), ('infer.py', other, path, image, '--out', tmp_path / 'out')):
        code, _ = call_tool(*arguments)
        assert 'of another task: classification, and the config is of segmentation' in code, code
        assert len(code) < 900
    code, _ = call_tool('train.py', other, '--work-dir', tmp_path / 'new', '--resume', path)
    assert 'cannot be resumed' in code and 'of another task' in code
    # Weights to start from may be of another task, or of other classes.
    option = ('--cfg-options', f'load_from={path}')
    code, text = call_tool('train.py', other, '--work-dir', tmp_path / 'newer', *option)
    assert not code and 'what fits is loaded' in text and 'of another task' in text
    assert 'missing keys in source state_dict' not in text and 'unexpected key' not in text
