import copy

import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import MODELS as ROOT_MODELS
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch import nn

import vik_mm
from vik_mm.errors import BadInputError

ARCHS = list(vik_mm.ViK.arch_settings)


def parameters(model):
    return {name: (id(parameter), tuple(parameter.shape)) for name, parameter in model.named_parameters()}


def randomised(model):
    """Move every parameter off its start value, so that nothing is zero by accident."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def test_the_class_is_the_registered_one():
    assert MODELS.get('ViK') is vik_mm.ViK


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmengine'])
def test_other_packages_reach_it_through_the_scope(scope):
    with DefaultScope.overwrite_default_scope(scope):
        model = ROOT_MODELS.build(dict(type='mmpretrain.ViK', arch='tiny', out_indices=(0, 1, 2, 3)))
    assert isinstance(model, vik_mm.ViK)


@pytest.mark.parametrize(('arch', 'millions'), [('small', 13.672188), ('base', 24.903)], ids=['small', 'base'])
def test_parameter_count_is_the_releases(make_classifier, arch, millions):
    count = sum(p.numel() for p in make_classifier(arch=arch).parameters())
    assert count == pytest.approx(millions * 1e6, abs=500 if arch == 'base' else 0)


@pytest.mark.parametrize('size', [(33, 57), (224, 224), (200, 333), (512, 1024), (32, 32)], ids=str)
def test_output_shapes_for_any_size(make_vik, size):
    model = make_vik(out_indices=(0, 1, 2, 3)).eval()
    with torch.no_grad():
        maps = model(torch.randn(1, 3, *size))
    expected = [(1, c, -(-size[0] // s), -(-size[1] // s)) for c, s in zip(model.embed_dims, (4, 8, 16, 32))]
    assert [tuple(m.shape) for m in maps] == expected
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize('out_indices', [0, (3,), -1, (0, 2), (3, 1), (0, 1, 2, 3), [1]], ids=str)
def test_each_out_index_has_a_map_and_a_norm_and_none_else(make_vik, out_indices):
    given = copy.copy(out_indices)
    model = make_vik(out_indices=out_indices, img_size=64)
    indices = [i % 4 for i in ([out_indices] if isinstance(out_indices, int) else out_indices)]
    maps = model(torch.randn(1, 3, 64, 64))
    assert [m.shape[1] for m in maps] == [model.embed_dims[i] for i in indices]
    assert {name for name, _ in model.named_children() if name.startswith('norm')} == {f'norm{i}' for i in indices}
    assert out_indices == given, "the caller's argument was changed"


def test_maps_are_the_same_whichever_others_are_asked_for(make_vik):
    model = make_vik(out_indices=(0, 1, 2, 3), img_size=64).eval()
    fewer = make_vik(out_indices=(2,), img_size=64).eval()
    fewer.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(fewer(x)[0], model(x)[2], rtol=0, atol=0)


@pytest.mark.parametrize('stride', [1, 2, 4])
def test_stem_sets_the_strides(make_vik, stride):
    stem = dict(kernel_size=7, stride=stride, padding=3 if stride < 4 else 2)
    model = make_vik(stem=stem, img_size=32, out_indices=(0, 3))
    first, last = model(torch.randn(1, 3, 33, 40))
    assert first.shape[2:] == (-(-33 // stride), -(-40 // stride))
    assert last.shape[2:] == (-(-33 // (8 * stride)), -(-40 // (8 * stride)))


def test_no_parameter_is_born_in_forward(make_vik):
    model = make_vik(out_indices=(0, 1, 2, 3))
    before = parameters(model)
    for size in ((224, 224), (64, 96), (448, 448)):
        with torch.no_grad():
            model(torch.randn(1, 3, *size))
        assert parameters(model) == before


@pytest.mark.parametrize('mlp', ['ConvMLP', 'GRKAN'])
def test_all_parameters_are_in_the_optimizer_and_the_right_ones_decay(root, make_classifier, mlp):
    cfg = Config.fromfile(root / 'configs/vik/vik-s_in1k.py')
    model = make_classifier(arch='tiny', mlp=dict(type=mlp))
    wrapper = cfg.optim_wrapper | dict(type='OptimWrapper')
    groups = build_optim_wrapper(model, wrapper).optimizer.param_groups
    decay = {id(p): group['weight_decay'] for group in groups for p in group['params']}
    assert decay.keys() == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        free = parameter.ndim == 1 or name.endswith(('.centers', '.log_widths', '.denominator'))
        assert decay[id(parameter)] == (0 if free else 0.05), name


def test_all_parameters_get_a_gradient(make_vik):
    model = randomised(make_vik(out_indices=(0, 1, 2, 3), img_size=64))
    sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64))).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 0, name


def test_answer_at_224_survives_a_448_pass(make_vik):
    model = make_vik().eval()
    x = torch.randn(1, 3, 224, 224)
    with torch.no_grad():
        before = model(x)[0]
        model(torch.randn(1, 3, 448, 448))
        after = model(x)[0]
    assert torch.equal(before, after)


def test_checkpointing_gives_equal_gradients(make_vik):
    x = torch.randn(2, 3, 64, 64)
    gradients = []
    for with_cp in (False, True):
        model = randomised(make_vik(img_size=64, with_cp=with_cp, drop_path_rate=0.3))
        torch.manual_seed(2)  # the same paths are dropped
        model(x)[0].square().mean().backward()
        gradients.append([p.grad for p in model.parameters()])
    for plain, checkpointed in zip(*gradients):
        torch.testing.assert_close(plain, checkpointed, rtol=0, atol=0)


@pytest.mark.parametrize('img_size', [32, 64, 224])
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16], ids=str)
def test_mixed_precision_stays_near_float32(make_vik, dtype, img_size):
    model = randomised(make_vik(img_size=img_size))
    x = torch.randn(2, 3, 64, 64)
    expected = model(x)[0]
    with torch.autocast('cpu', dtype):
        got = model(x)[0]
    got.float().square().mean().backward()
    # The output is normed to 1; some tens of roundings of size eps lie between the two.
    assert (got.float() - expected).abs().max() < 50 * torch.finfo(dtype).eps
    assert all(p.grad.isfinite().all() for p in model.parameters())


def test_a_seed_decides_weights_and_answers(make_vik):
    x = torch.randn(1, 3, 64, 64)

    def answer(seed):
        model = make_vik(seed=seed, img_size=64, drop_path_rate=0.5, drop_rate=0.2)
        return model(x)[0]

    assert torch.equal(answer(3), answer(3))
    assert not torch.equal(answer(3), answer(4))


@pytest.mark.parametrize('frozen_stages', range(-1, 5))
def test_frozen_stages_stay_put_and_minus_one_freezes_nothing(make_vik, frozen_stages):
    model = randomised(make_vik(frozen_stages=frozen_stages, out_indices=(0, 1, 2, 3), img_size=64))
    frozen = [] if frozen_stages < 0 else ['stem.']
    for i in range(frozen_stages):
        frozen += [f'stages.{i}.', f'norm{i}.']
    expected = {name for name, _ in model.named_parameters() if name.startswith(tuple(frozen))} if frozen else set()
    # Frozen in the constructor already: DDP looks at requires_grad before anyone calls train().
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == expected

    model.train()
    assert {n for n, m in model.named_modules() if n and not m.training and not any(m.children())} == {
        n
        for n, m in model.named_modules()
        if n and (n + '.').startswith(tuple(frozen or ['-'])) and not any(m.children())
    }
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad] or [nn.Parameter()], lr=0.1)
    loss = sum(m.square().mean() for m in model(torch.randn(2, 3, 64, 64)))
    if loss.requires_grad:
        loss.backward()
    optimizer.step()
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - expected


def test_train_returns_the_model(make_vik):
    model = make_vik(img_size=64)
    assert model.train() is model
    assert model.eval() is model
    assert not model.training


def test_norm_eval_keeps_batch_norms_in_evaluation_mode(make_vik):
    for norm_eval in (False, True):
        model = make_vik(norm_cfg=dict(type='BN'), norm_eval=norm_eval, img_size=64).train()
        norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert all(m.training is not norm_eval for m in norms)


def test_options_reach_the_blocks(make_vik):
    model = make_vik(
        in_channels=5,
        mlp_ratio=2,
        norm_cfg=dict(type='LN2d'),
        act_cfg=dict(type='ReLU'),
        layer_scale_init_value=0,
        drop_path_rate=0.4,
        drop_rate=0.1,
        img_size=(64, 96),
    )
    block = model.stages[3].blocks[0]
    assert block.mlp.fc1.out_channels == 48
    assert isinstance(block.mlp.act, nn.ReLU)
    assert isinstance(block.norm1, nn.LayerNorm)
    assert block.drop_path.drop_prob == pytest.approx(0.4)
    assert block.mlp.drop.p == 0.1
    assert block.token_mixer.grid_size == (2, 3)
    assert not [name for name, _ in model.named_parameters() if 'layer_scale' in name]
    assert model(torch.randn(1, 5, 64, 96))[0].shape == (1, 24, 2, 3)


@pytest.mark.parametrize('arch', ARCHS)
def test_every_named_arch_builds_and_runs(arch):
    model = vik_mm.ViK(arch=arch, img_size=32).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 32, 32))[0].shape == (1, model.embed_dims[-1], 1, 1)


@pytest.mark.parametrize('kind', ['Pooling', 'Identity'])
def test_other_mixers_take_its_place(make_vik, kind):
    model = make_vik(token_mixer=dict(type=kind), img_size=64)
    assert not [name for name, _ in model.named_parameters() if 'token_mixer' in name]
    assert model(torch.randn(1, 3, 50, 70))[0].shape == (1, 24, 2, 3)


def test_layer_depth_rises_from_stem_to_head(make_vik):
    model = make_vik(out_indices=(0, 3), img_size=64)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert {count for _, count in depths.values()} == {5 + 2}
    assert depths['stem.conv.weight'][0] == 0
    assert depths['stages.0.blocks.0.norm1.weight'][0] == 1
    assert depths['stages.1.downsample.weight'][0] == 2
    assert depths['stages.1.blocks.1.token_mixer.global_in'][0] == 3
    assert depths['stages.3.blocks.0.mlp.fc1.bias'][0] == 5
    assert depths['norm0.weight'][0] == depths['norm3.weight'][0] == 6
    assert model.get_layer_depth('head.fc.weight', 'backbone.') == (6, 7)


def test_mmpretrains_layer_decay_takes_it(make_classifier):
    model = make_classifier(arch='tiny', img_size=32)
    cfg = dict(
        type='OptimWrapper',
        optimizer=dict(type='AdamW', lr=1.0, weight_decay=0.05),
        constructor='mmpretrain.LearningRateDecayOptimWrapperConstructor',
        paramwise_cfg=dict(layer_decay_rate=0.5),
    )
    groups = build_optim_wrapper(model, cfg).optimizer.param_groups
    rates = {id(p): group['lr'] for group in groups for p in group['params']}
    assert rates[id(model.head.fc.weight)] == 1
    assert rates[id(model.backbone.stem.conv.weight)] == pytest.approx(0.5**11)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(arch='huge'), ValueError, "'huge' is unknown.*'base', 'large', 'medium', 'small', 'tiny'"),
        (dict(arch=dict(depths=(1, 1))), TypeError, r'dict\(depths=..., embed_dims=...\)'),
        (dict(arch=dict(depths=(1, 1), embed_dims=(8,))), ValueError, 'equally many'),
        (dict(token_mixer=dict(type='Attention2')), ValueError, 'MultiPatchRBFKAN'),
        (dict(in_channels=0), ValueError, 'in_channels=0'),
        (dict(img_size=16), ValueError, 'at least 32'),
        (dict(out_indices=(4,)), ValueError, r'out_indices=\(4,\).*0 to 3'),
        (dict(out_indices=(-5,)), ValueError, 'out_indices'),
        (dict(out_indices=()), ValueError, 'out_indices'),
        (dict(out_indices=(1, 1)), ValueError, 'more than once'),
        (dict(out_indices=(3, -1)), ValueError, 'more than once'),
        (dict(frozen_stages=5), ValueError, 'frozen_stages=5'),
        (dict(frozen_stages=-2), ValueError, 'frozen_stages=-2'),
        (dict(stem=dict(kernel_size=7, stride=4, padding=0)), ValueError, 'stem='),
        (dict(drop_path_rate=1.0), ValueError, 'drop_path_rate=1.0'),
        (dict(mlp_ratio=0), ValueError, 'mlp_ratio=0'),
        (dict(layer_scale_init_value=-1.0), ValueError, 'layer_scale_init_value'),
        (dict(stem=dict(strid=2)), TypeError, 'stem=.*no other keys than kernel_size, stride, padding'),
        (dict(stem=dict(stride='2')), ValueError, "stem.stride='2' must be an integer"),
        (dict(stem=7), TypeError, 'stem=7 must be a dict'),
        (dict(arch=dict(depths='1111', embed_dims=(8, 8, 8, 8))), ValueError, "got '1111'"),
        (dict(in_channels='3'), ValueError, "in_channels='3'"),
        (dict(img_size='224'), ValueError, "img_size='224' must be one side"),
        (dict(out_indices='3'), ValueError, "out_indices='3' must be integers"),
        (dict(out_indices=None), ValueError, 'out_indices=None must be integers'),
        (dict(frozen_stages='0'), ValueError, "frozen_stages='0'"),
        (dict(drop_rate='0.1'), ValueError, "drop_rate='0.1' must be a number"),
        (dict(drop_path_rate=None), ValueError, 'drop_path_rate=None must be a number'),
        (dict(mlp_ratio='4'), ValueError, "mlp_ratio='4' must be a positive number"),
        (dict(layer_scale_init_value='x'), ValueError, "layer_scale_init_value='x'"),
        (dict(norm_cfg='GN'), TypeError, "norm_cfg='GN' must be a dict with a type"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else '',
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text) as caught:
        vik_mm.ViK(**options)
    assert isinstance(caught.value, BadInputError)


@pytest.mark.parametrize(
    ('shape', 'text'),
    [((1, 4, 64, 64), 'in_channels'), ((1, 3, 31, 64), '32x32 pixels up, got 31x64'), ((3, 64, 64), r'\[B, 3, H, W\]')],
    ids=['channels', 'too-small', 'no-batch'],
)
def test_bad_images_are_named(make_vik, shape, text):
    with pytest.raises(ValueError, match=text):
        make_vik(img_size=64)(torch.randn(shape))


def test_layer_scale_and_drop_path_are_what_their_modules_say(make_vik):
    block = make_vik(img_size=64, drop_path_rate=0.5).stages[3].blocks[0].train()
    torch.nn.init.uniform_(block.layer_scale1.weight)
    x = torch.randn(6, 24, 2, 2)
    torch.manual_seed(1)
    got = block(x)
    torch.manual_seed(1)
    expected = x + block.drop_path(block.layer_scale1(block.token_mixer(block.norm1(x))))
    expected = expected + block.drop_path(block.layer_scale2(block.mlp(block.norm2(expected))))
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(got, block.eval()(x))  # something was dropped
