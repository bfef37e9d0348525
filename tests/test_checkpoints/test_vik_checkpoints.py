import copy
import logging

import numpy as np
import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import CheckpointLoader, load_state_dict
from mmpretrain.registry import MODELS

import vik_mm
from vik_mm.checkpoints.release_keys import describe_release, from_release, release_key, to_release
from vik_mm.errors import BadInputError


@pytest.fixture
def messages():
    """What goes to MMEngine's current logger."""
    records = []
    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = MMLogger.get_current_instance()
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_logits_stages_and_gradients_are_the_releases(golden, make_classifier):
    model = make_classifier(arch='small').eval()
    model.load_state_dict(from_release(golden.weights('vik_small'), model.state_dict()))
    truth = golden.outputs('vik_small_224')
    stages = []
    for stage in model.backbone.stages:
        stage.register_forward_hook(lambda module, inputs, output: stages.append(output.detach()))
    logits = model.head(model.extract_feat(golden.image(2, 224, 224, seed=0)))

    assert (logits.detach() - torch.from_numpy(truth['logits'])).abs().max() <= 2e-5
    for i, stage in enumerate(stages):
        assert stage.shape == tuple(truth[f'stage{i}_shape'])
        index = torch.from_numpy(np.linspace(0, stage.numel() - 1, 256).astype(np.int64))
        assert (stage.flatten()[index] - torch.from_numpy(truth[f'stage{i}_sample'])).abs().max() <= 2e-5

    logits.logsumexp(1).sum().backward()
    names = [name for name, _ in model.named_parameters()]
    assert len(names) == sum(key.startswith('grad/') for key in truth)
    for name, parameter in model.named_parameters():
        norm = truth[f'grad/{release_key(name)}'][0]
        assert parameter.grad.norm().item() == pytest.approx(norm, rel=1e-3), name


def test_conversion_there_and_back_changes_nothing(golden, make_classifier):
    release = golden.weights('vik_small')
    model = make_classifier(arch='small')
    model.load_state_dict(from_release(release, model.state_dict()), strict=True)
    back = to_release(model.state_dict())
    assert back.keys() == release.keys()
    assert all(torch.equal(back[key], release[key]) for key in release)


def test_the_macro_design_is_read_off_the_weights(golden):
    expected = vik_mm.ViK.arch_settings['small']
    assert describe_release(golden.weights('vik_small')) == expected


def test_conversion_names_missing_unknown_and_misshapen_weights(golden, make_classifier):
    template = make_classifier(arch='small').state_dict()
    weights = golden.weights('vik_small')
    weights['extra.weight'] = torch.zeros(1)
    weights['norm.weight'] = torch.zeros(7)
    del weights['network.0.0.mlp.fc1.bias']
    with pytest.raises(
        ValueError, match=r'missing are network\.0\.0\.mlp\.fc1\.bias.*unknown are extra\.weight.*\(7,\)'
    ):
        from_release(weights, template)


def test_conversion_explains_a_file_saved_before_the_first_forward(golden, make_classifier):
    template = make_classifier(arch='small').state_dict()
    late = ('.dw_h.', '.dw_w.', '.reweight_head.', '.lin1.', '.lin2.')
    weights = {k: v for k, v in golden.weights('vik_small').items() if not any(part in k for part in late)}
    with pytest.raises(ValueError, match='first forward pass'):
        from_release(weights, template)


def test_conversion_refuses_other_models():
    with pytest.raises(ValueError, match=r'no place for backbone\.layer1\.weight'):
        to_release({'backbone.layer1.weight': torch.zeros(1)})
    with pytest.raises(ValueError, match='no ViK of the release'):
        describe_release({'layer1.weight': torch.zeros(1)})


LOADERS = {
    'torch': lambda model, weights: model.load_state_dict(weights),
    'mmengine': lambda model, weights: load_state_dict(model, weights, strict=True),
}


@pytest.mark.parametrize('load', LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize('sizes', [(224, 448), (448, 224), (224, (256, 320))], ids=str)
def test_a_checkpoint_of_another_img_size_loads_with_one_log_line(make_vik, messages, load, sizes):
    source, target = (make_vik(seed=i, img_size=size).eval() for i, size in enumerate(sizes))
    shapes = {name: p.shape for name, p in target.named_parameters()}
    load(target, source.state_dict())
    assert {name: p.shape for name, p in target.named_parameters()} == shapes
    lines = [m for m in messages if 'resampled' in m]
    assert len(lines) == 1, messages
    assert '5 token mixers' in lines[0]
    for name, parameter in target.named_parameters():
        if 'global_' not in name:
            assert torch.equal(parameter, source.get_parameter(name)), name


def test_a_resampled_model_answers_a_constant_map_as_before(make_vik):
    source, target = make_vik(img_size=224), make_vik(seed=1, img_size=448)
    target.load_state_dict(source.state_dict())
    for i in range(4):
        ours, theirs = (m.stages[i].blocks[0].token_mixer for m in (source, target))
        small = torch.full((1, ours.embed_dims, *ours.grid_size), 0.7)
        large = torch.full((1, ours.embed_dims, *theirs.grid_size), 0.7)
        expected = torch.nn.functional.interpolate(
            ours.global_mix(small), theirs.grid_size, mode='bicubic', antialias=True
        )
        torch.testing.assert_close(theirs.global_mix(large), expected, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_the_same_img_size_is_not_touched(make_vik, messages):
    source, target = make_vik(), make_vik(seed=1)
    target.load_state_dict(source.state_dict())
    assert not [m for m in messages if 'resampled' in m]
    for name, parameter in target.named_parameters():
        assert torch.equal(parameter, source.get_parameter(name))


@pytest.mark.parametrize(
    ('theirs', 'mlp'), [('base', dict(type='ConvMLP')), ('tiny', dict(type='ConvMLP')), ('tiny', dict(type='GRKAN'))]
)
def test_a_checkpoint_of_another_arch_is_refused_by_name(theirs, mlp):
    weights = vik_mm.ViK(arch=theirs, img_size=32, mlp=mlp).state_dict()
    model = vik_mm.ViK(arch='small', img_size=32, mlp=mlp)
    before = {name: p.clone() for name, p in model.named_parameters()}
    for load in LOADERS.values():
        with pytest.raises(ValueError, match=rf"another arch \({theirs}\).*arch='small'"):
            load(model, weights)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize('init_cfg', [dict(file='x.pth'), dict(checkpoint=None), dict(checkpoint='x', prefx='')])
def test_a_misspelt_pretrained_init_cfg_is_named(make_vik, init_cfg):
    with pytest.raises(BadInputError, match='must have a checkpoint, as text'):
        make_vik(init_cfg=dict(type='Pretrained', **init_cfg)).init_weights()


def test_another_rank_is_another_model(make_vik):
    source = make_vik(token_mixer=dict(type='MultiPatchRBFKAN', rank=16))
    with pytest.raises(RuntimeError, match=r'size mismatch.*global_in'):
        make_vik().load_state_dict(source.state_dict())


def test_pretrained_init_cfg_loads_the_backbone_of_a_classifier(tmp_path, make_vik, small_arch):
    source = make_vik(img_size=64)
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict={f'backbone.{k}': v for k, v in source.state_dict().items()}), path)
    cfg = dict(
        type='ViK',
        arch=small_arch,
        img_size=96,
        init_cfg=dict(type='Pretrained', checkpoint=str(path), prefix='backbone.'),
    )
    model = MODELS.build(cfg)
    model.init_weights()
    weight = 'stages.2.blocks.0.mlp.fc1.weight'
    assert torch.equal(model.get_parameter(weight), source.get_parameter(weight))


@pytest.fixture
def files_read(monkeypatch):
    """What MMEngine's loader reads."""
    names = []
    load = CheckpointLoader.load_checkpoint
    monkeypatch.setattr(
        CheckpointLoader, 'load_checkpoint', lambda name, *rest, **more: names.append(name) or load(name, *rest, **more)
    )
    return names


@pytest.mark.parametrize('start', ['', 'backbone.', 'module.'], ids=['bare', 'prefix', 'of-ddp'])
def test_a_pretrained_file_is_read_once(tmp_path, make_vik, make_classifier, small_arch, files_read, start):
    source = make_vik(seed=3, img_size=64)
    path = str(tmp_path / 'pretrained.pth')
    torch.save(dict(state_dict={start + name: value for name, value in source.state_dict().items()}), path)
    prefix = dict(prefix='backbone') if start == 'backbone.' else {}
    # The start values of a part do not win over the file.
    mixer = dict(type='MultiPatchRBFKAN', init_cfg=dict(type='Constant', layer='Conv2d', val=0.0))
    init_cfg = dict(type='Pretrained', checkpoint=path, **prefix)
    model = make_classifier(arch=small_arch, img_size=64, token_mixer=mixer, init_cfg=init_cfg)
    model.init_weights()
    assert files_read == [path]
    for name, value in source.state_dict().items():
        assert torch.equal(model.backbone.state_dict()[name], value), name
    assert model.backbone.init_cfg == init_cfg


@pytest.mark.parametrize('prefix', [None, 'encoder.'])
def test_a_pretrained_file_with_nothing_of_this_backbone_is_refused(tmp_path, make_vik, prefix):
    path = str(tmp_path / 'other.pth')
    torch.save(dict(state_dict={'backbone.stem.conv.weight': torch.zeros(1), 'head.bias': torch.zeros(1)}), path)
    model = make_vik(img_size=64, init_cfg=dict(type='Pretrained', checkpoint=path, prefix=prefix))
    with pytest.raises(BadInputError, match=r"holds nothing of this ViK: .*it has backbone\.stem.*prefix='backbone\.'"):
        model.init_weights()


def test_init_weights_keeps_the_releases_start_values():
    torch.manual_seed(0)
    model = vik_mm.ViK(arch='tiny', img_size=64)
    before = {name: p.clone() for name, p in model.named_parameters()}
    model.init_weights()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    block = model.stages[2].blocks[0]
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert block.mlp.fc1.bias.eq(0).all()
    assert block.layer_scale1.weight.eq(1e-5).all()
    # torch's own start values, as the release's late layers had them: uniform of variance 1 / (3 fan_in)
    mixer = block.token_mixer
    assert mixer.global_in.abs().max() <= 16**-0.5
    assert mixer.global_in.std().item() == pytest.approx((3 * 16) ** -0.5, rel=0.2)
    assert mixer.axis_h.weight.abs().max() <= 3**-0.5


def test_a_copy_is_independent_and_loads_for_itself(make_vik):
    """EMA and federated training deep-copy models; the loading hook must go with the copy."""
    original, larger = make_vik(img_size=64), make_vik(seed=1, img_size=96)
    twin = copy.deepcopy(original)
    before = {name: p.clone() for name, p in original.named_parameters()}
    twin.load_state_dict(larger.state_dict())
    assert torch.equal(twin.stem.conv.weight, larger.stem.conv.weight)
    assert all(torch.equal(p, before[name]) for name, p in original.named_parameters())
