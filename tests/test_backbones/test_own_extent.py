"""An image's features do not depend on the images beside it in the batch."""

import copy

import pytest
import torch
from torch import nn

from vik_mm.backbones.own_extent import read_extents

SIZES = [(72, 96), (96, 64), (33, 57), (96, 96)]  # in one batch of 96x96; 33 and 57 are multiples of no stride
MIXERS = {
    'ViK': dict(type='MultiPatchRBFKAN'),
    'ViK without global step': dict(type='MultiPatchRBFKAN', global_mix=False),
    'pooling': dict(type='Pooling'),
}


@pytest.fixture
def images():
    torch.manual_seed(0)
    return [torch.randn(3, *size) for size in SIZES]


def padded(images, size=(96, 96)):
    batch = torch.zeros(len(images), 3, *size)
    for number, image in enumerate(images):
        batch[number, :, : image.shape[1], : image.shape[2]] = image
    return batch


def build(make_vik, **options):
    return make_vik(img_size=64, out_indices=(0, 1, 2, 3), **options)


@pytest.mark.parametrize('token_mixer', MIXERS.values(), ids=MIXERS)
def test_an_image_in_a_padded_batch_has_the_maps_of_the_image_by_itself(make_vik, images, token_mixer):
    model = build(make_vik, token_mixer=token_mixer, ignore_padding=True).eval()
    with torch.no_grad():
        together = model(padded(images))
        for number, image in enumerate(images):
            for map_, by_itself in zip(together, model(image[None])):
                # Padding is zero.
                expected = torch.zeros_like(map_[number])
                expected[:, : by_itself.shape[2], : by_itself.shape[3]] = by_itself[0]
                torch.testing.assert_close(map_[number], expected, rtol=1e-5, atol=1e-5)


def test_without_the_option_the_neighbours_change_it(make_vik, images):
    model = build(make_vik).eval()
    by_itself = model(images[0][None])[0]
    together = model(padded(images))[0][:1, :, : by_itself.shape[2], : by_itself.shape[3]]
    assert (together - by_itself).norm() > 0.1 * by_itself.norm()


def test_gradients_are_those_of_the_images_by_themselves(make_vik, images):
    model = build(make_vik, ignore_padding=True)

    def loss(maps):
        return sum(map_.square().sum() for map_ in maps)

    def gradients():
        found = {name: parameter.grad.clone() for name, parameter in model.named_parameters()}
        model.zero_grad()
        return found

    loss(model(padded(images))).backward()
    together = gradients()
    for image in images:
        loss(model(image[None])).backward()
    one_by_one = gradients()
    for name, gradient in together.items():
        torch.testing.assert_close(gradient, one_by_one[name], rtol=1e-3, atol=1e-3 * float(gradient.abs().max()))


def test_images_of_one_size_have_bitwise_the_maps_of_the_backbone_without_the_option(make_vik):
    x = torch.randn(2, 3, 64, 80)
    for ours, plain in zip(build(make_vik, ignore_padding=True)(x), build(make_vik)(x)):
        assert torch.equal(ours, plain)


def test_images_of_one_extent_are_computed_together(make_vik, images, monkeypatch):
    model = build(make_vik, ignore_padding=True).eval()
    sizes = []
    monkeypatch.setattr(model, '_compute_maps', lambda x, run=model._compute_maps: sizes.append(x.shape) or run(x))
    batch = padded([images[0], images[1], images[0]])
    first, _, third = model(batch)[0]
    assert sizes == [(2, 3, 72, 96), (1, 3, 96, 64)]
    assert torch.equal(first, third)


class TestExtents:
    def test_are_read_off_the_zeros_right_and_below(self, images):
        assert read_extents(padded(images)) == SIZES

    def test_none_where_nothing_is_padded(self, images):
        assert read_extents(torch.stack([images[3], images[3]])) is None

    def test_black_inside_an_image_counts_as_its_own(self, images):
        images[0][:, 10:40, 20:60] = 0
        assert read_extents(padded(images)) == SIZES

    def test_a_black_image_has_the_whole_map(self):
        assert read_extents(torch.zeros(1, 3, 40, 50)) is None
        assert read_extents(padded([torch.zeros(3, 10, 10), torch.ones(3, 40, 33)])) == [(96, 96), (40, 33)]

    def test_images_below_the_least_size_are_computed_with_some_padding(self, make_vik):
        small = torch.ones(3, 5, 90)
        assert read_extents(padded([small]), at_least=32) == [(32, 90)]
        model = build(make_vik, ignore_padding=True).eval()
        assert torch.equal(model(padded([small]))[1], model(padded([small, torch.ones(3, 96, 96)]))[1][:1])


def test_batch_norm_is_refused_since_it_would_see_single_images(make_vik):
    with pytest.raises(ValueError, match=r'ignore_padding=True.*batch norm.*GN'):
        build(make_vik, norm_cfg=dict(type='BN'), ignore_padding=True)


def test_one_compiled_graph_serves_images_of_all_sizes(make_vik, images):
    model = build(make_vik, ignore_padding=True).eval()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    with torch.no_grad():
        expected = model(padded(images))
        torch.fx.experimental._config.use_duck_shape = False  # as CompileHook sets it
        model.compile(backend=backend, dynamic=True)
        got = model(padded(images))
    assert len(graphs) == 1
    for one, other in zip(got, expected):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_a_copy_of_a_compiled_backbone_computes_with_its_own_weights(make_vik, images):
    model = build(make_vik, ignore_padding=True).eval()
    model.compile(backend='eager')
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            parameter.zero_()
        assert all(map_.abs().sum() == 0 for map_ in copied(padded(images)))


def test_a_traced_model_takes_the_whole_input_for_content(make_vik):
    model = build(make_vik, ignore_padding=True).eval()
    plain = build(make_vik).eval()
    x = torch.randn(2, 3, 64, 64)
    x[0, :, 40:] = 0
    with torch.no_grad():
        traced = torch.jit.trace(model, x, check_trace=False)
        torch.testing.assert_close(traced(x)[0], plain(x)[0], rtol=1e-4, atol=1e-5)


class TestMixersPerStage:
    def test_each_stage_has_its_own(self, make_vik):
        plain, ours = dict(type='Pooling'), dict(type='MultiPatchRBFKAN')
        model = build(make_vik, token_mixer=[plain, plain, ours, ours])
        kinds = [type(stage.blocks[0].token_mixer).__name__ for stage in model.stages]
        assert kinds == ['Pooling', 'Pooling', 'MultiPatchRBFKAN', 'MultiPatchRBFKAN']

    def test_a_list_of_another_length_is_refused(self, make_vik):
        with pytest.raises(ValueError, match='lists 2, and arch has 4 stages'):
            build(make_vik, token_mixer=[dict(type='Pooling')] * 2)

    def test_a_checkpoint_of_another_size_loads(self, make_vik):
        mixers = [dict(type='Pooling'), *[dict(type='MultiPatchRBFKAN')] * 3]
        old, new = build(make_vik, token_mixer=mixers), make_vik(img_size=96, token_mixer=mixers)
        new.load_state_dict({k: v for k, v in old.state_dict().items() if k in new.state_dict()})
        assert new.stages[1].blocks[0].token_mixer.grid_size == (12, 12)


def test_the_global_step_adds_nothing_at_first_where_it_starts_at_zero(make_vik):
    mixer = dict(type='MultiPatchRBFKAN', global_zero_init=True)
    model, without = build(make_vik, token_mixer=mixer), build(make_vik, token_mixer={**mixer, 'global_mix': False})
    without.load_state_dict({k: v for k, v in model.state_dict().items() if 'global_' not in k})
    x = torch.randn(1, 3, 64, 64)
    assert torch.equal(model(x)[3], without(x)[3])
    out = model(x)[3]
    (out * torch.randn_like(out)).sum().backward()  # the plain sum of normalised values has no gradient
    parameter = model.stages[0].blocks[0].token_mixer.global_out
    assert isinstance(parameter, nn.Parameter) and parameter.grad.abs().sum() > 0
