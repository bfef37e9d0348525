import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS

from vik_mm.mixers import MultiPatchRBFKAN, Pooling, SelfAttention, TokenMixer, build_token_mixer
from vik_mm.mixers.multipatch_rbfkan import resample_global_maps
from vik_mm.ops import merge_patches, split_patches

RELEASE_NAMES = {
    'rbf_kan.centers': 'patch_mixer.rbf_linear.mu',
    'rbf_kan.log_widths': 'patch_mixer.rbf_linear.log_sigma',
    'rbf_kan.weight': 'patch_mixer.rbf_linear.spline_weight',
    'rbf_kan.base.weight': 'patch_mixer.base_linear.weight',
    'rbf_kan.base.bias': 'patch_mixer.base_linear.bias',
    'axis_h.weight': 'dw_h.weight',
    'axis_h.bias': 'dw_h.bias',
    'axis_w.weight': 'dw_w.weight',
    'axis_w.bias': 'dw_w.bias',
    'axis_gate.0.weight': 'reweight_head.1.weight',
    'axis_gate.0.bias': 'reweight_head.1.bias',
    'axis_gate.2.weight': 'reweight_head.3.weight',
    'axis_gate.2.bias': 'reweight_head.3.bias',
    'global_in': 'lin1.weight',
    'global_out': 'lin2.weight',
}


@pytest.mark.parametrize('backend', [None, 'reference'])
def test_mixer_gives_the_release_values(golden, backend):
    mixer = MultiPatchRBFKAN(8, (28, 28), backend=backend)
    weights = golden.weights('mixer_c8_28')
    own = mixer.state_dict()
    assert set(own) == set(RELEASE_NAMES)
    mixer.load_state_dict({key: weights[RELEASE_NAMES[key]].view_as(own[key]) for key in own})
    data = golden.outputs('mixer_c8_28')
    difference = mixer(torch.from_numpy(data['x'])) - torch.from_numpy(data['y'])
    assert difference.abs().max() <= 2e-5


@torch.no_grad()
def test_the_three_steps_are_their_formulas():
    torch.manual_seed(0)
    mixer, x = MultiPatchRBFKAN(8, (14, 14)), torch.randn(2, 8, 14, 14)
    patches = split_patches(x, 7)
    y = mixer.patch_mix(x)
    torch.testing.assert_close(y, merge_patches(patches + mixer.rbf_kan(patches), 7), rtol=1e-4, atol=1e-5)
    w = mixer.axis_gate(y.mean((2, 3), keepdim=True)).softmax(1)
    z = mixer.axis_mix(y)
    torch.testing.assert_close(z, w[:, :1] * mixer.axis_h(y) + w[:, 1:] * mixer.axis_w(y), rtol=1e-4, atol=1e-5)
    a, b = mixer.global_in.flatten(1), mixer.global_out.flatten(0, 1)
    expected = z + (z.flatten(2) @ a.T @ b.T).view_as(z)
    torch.testing.assert_close(mixer.global_mix(z), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixer(x), mixer.global_mix(z))


@pytest.mark.parametrize('size', [(28, 28), (1, 1), (9, 15), (56, 31)], ids=str)
def test_mixer_keeps_the_shape_of_every_map(size):
    mixer = MultiPatchRBFKAN(8, (28, 28))
    out = mixer(torch.randn(2, 8, *size))
    assert out.shape == (2, 8, *size)
    assert out.isfinite().all()


def test_padding_does_not_leak_into_whole_patches():
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(8, (14, 14))
    x = torch.randn(1, 8, 17, 14)
    torch.testing.assert_close(mixer.patch_mix(x)[..., :14, :], mixer.patch_mix(x[..., :14, :]))


def test_channels_mix_only_through_the_gate():
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(8, (14, 14))
    torch.nn.init.zeros_(mixer.axis_gate[2].weight)  # the gate no longer looks at the image
    x = torch.randn(1, 8, 14, 14)
    other = x.clone()
    other[:, 1:] += 1
    torch.testing.assert_close(mixer(x)[:, 0], mixer(other)[:, 0])
    assert not torch.equal(mixer(x)[:, 1], mixer(other)[:, 1])


def test_switches_leave_steps_and_their_parameters_out():
    def names(**switches):
        return {name.split('.')[0] for name, _ in MultiPatchRBFKAN(8, (14, 14), **switches).named_parameters()}

    axis, globe = {'axis_h', 'axis_w', 'axis_gate'}, {'global_in', 'global_out'}
    assert names() == {'rbf_kan'} | axis | globe
    assert names(axis_mix=False) == {'rbf_kan'} | globe
    assert names(global_mix=False) == {'rbf_kan'} | axis
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(8, (14, 14), axis_mix=False, global_mix=False)
    x = torch.randn(1, 8, 14, 14)
    torch.testing.assert_close(mixer(x), mixer.patch_mix(x), rtol=0, atol=0)


@pytest.mark.parametrize('factor', [2, 3])
def test_a_larger_map_gets_the_native_answer_of_its_average(factor):
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(4, (14, 14))
    x = torch.randn(1, 4, 14 * factor, 14 * factor)
    average = F.avg_pool2d(x, factor)
    native = mixer.global_mix(average) - average
    resized = F.interpolate(native, x.shape[-2:], mode='bilinear', align_corners=False)
    torch.testing.assert_close(mixer.global_mix(x) - x, resized, rtol=1e-4, atol=1e-5)


def answer_to_constant(global_in, global_out):
    return global_out @ global_in.sum((1, 2))


@pytest.mark.parametrize(
    ('old', 'new'), [((14, 14), (28, 28)), ((28, 28), (14, 14)), ((14, 14), (10, 20)), ((7, 7), (14, 14))], ids=str
)
def test_resampled_global_map_keeps_its_answer_to_a_constant_image(old, new):
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(4, old)
    before = answer_to_constant(mixer.global_in, mixer.global_out)
    resampled = resample_global_maps(mixer.global_in.data, mixer.global_out.data, new, 64)
    target = MultiPatchRBFKAN(4, new)
    assert [t.shape for t in resampled] == [target.global_in.shape, target.global_out.shape]
    expected = F.interpolate(before[None, None].double(), new, mode='bicubic', antialias=True)[0, 0]
    torch.testing.assert_close(answer_to_constant(*resampled).double(), expected, rtol=1e-4, atol=1e-5)


def test_a_rank_that_the_new_grid_bounds_is_cut_without_loss():
    torch.manual_seed(0)
    mixer = MultiPatchRBFKAN(4, (8, 8))
    small_in, small_out = resample_global_maps(mixer.global_in.data, mixer.global_out.data, (7, 7), 64)
    assert small_in.shape == (49, 7, 7)

    def resize(maps):
        return F.interpolate(maps[None], (7, 7), mode='bicubic', antialias=True)[0]

    # The whole map, with all of its 64 ranks.
    full_in = resize(mixer.global_in.data.double()) * 64 / 49
    full_in += (mixer.global_in.data.double().sum((1, 2)) - full_in.sum((1, 2)))[:, None, None] / 49
    full_out = resize(mixer.global_out.data.double().permute(2, 0, 1)).permute(1, 2, 0)
    product = (small_out @ small_in.flatten(1)).double()
    torch.testing.assert_close(product, full_out @ full_in.flatten(1), rtol=1e-4, atol=1e-5)


def test_resampling_leaves_the_global_random_state_alone():
    mixer = MultiPatchRBFKAN(4, (7, 7))
    torch.manual_seed(0)
    state = torch.get_rng_state()
    resample_global_maps(mixer.global_in.data, mixer.global_out.data, (14, 14), 64)
    assert torch.equal(torch.get_rng_state(), state)


def test_pooling_is_average_less_itself():
    x = torch.randn(1, 4, 5, 6)
    expected = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False) - x
    torch.testing.assert_close(Pooling(4, (5, 6))(x), expected)


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmengine'])
def test_mixers_are_found_from_the_scope_of_any_package(scope):
    with DefaultScope.overwrite_default_scope(scope):
        mixer = build_token_mixer(dict(type='MultiPatchRBFKAN'), 8, (14, 14))
    assert isinstance(mixer, MODELS.get('MultiPatchRBFKAN'))


def test_a_mixer_of_ones_own_is_taken_from_the_registry(make_vik):
    @MODELS.register_module(force=True)
    class Doubling(TokenMixer):
        def forward(self, x):
            return 2 * x

    model = make_vik(token_mixer=dict(type='Doubling'), img_size=64)
    assert isinstance(model.stages[0].blocks[0].token_mixer, Doubling)
    assert model.stages[1].blocks[0].token_mixer.grid_size == (8, 8)
    assert model(torch.randn(1, 3, 64, 64))[0].shape == (1, 24, 2, 2)


@pytest.mark.parametrize(
    ('cfg', 'error', 'text'),
    [
        (dict(type='Attention2'), ValueError, "'Attention2' is unknown.*'Identity'.*'MultiPatchRBFKAN'.*'Pooling'"),
        ('Pooling', TypeError, 'must be a dict'),
        (dict(global_mix=False), TypeError, 'name its type beside the option'),
        (dict(type='Pooling', rank=64), TypeError, r"no option \['rank'\].*_delete_"),
        (dict(type='Pooling', pool_size=2), ValueError, 'odd'),
        (dict(type='MultiPatchRBFKAN', patch_size=0), ValueError, 'patch_size=0'),
        (dict(type='MultiPatchRBFKAN', rank=0), ValueError, 'rank=0'),
        (dict(type='MultiPatchRBFKAN', num_grids=1), ValueError, 'num_grids=1'),
    ],
    ids=['unknown', 'no-dict', 'no-type', 'option', 'pool-size', 'patch-size', 'rank', 'grids'],
)
def test_bad_mixer_configs_are_named(cfg, error, text):
    with pytest.raises(error, match=text):
        build_token_mixer(cfg, 8, (14, 14))


def test_attention_among_too_many_pixels_is_refused():
    mixer = SelfAttention(8, (4, 4), head_dims=8, max_tokens=16)
    with pytest.raises(ValueError, match='SelfAttention would compare 20 pixels with 20 each.*max_tokens=16'):
        mixer(torch.zeros(1, 8, 4, 5))
