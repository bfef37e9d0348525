"""SiT's token slimming: the original's values, and a vision transformer with fewer tokens in its later layers."""

import pytest
import torch
from golden_parts import GoldenPart

from vik_mm import ViTKArAt
from vik_mm.backbones.token_slimming import TokenSlimming, count_slimmed_tokens
from vik_mm.layers import load_original

ARCH = dict(embed_dims=24, num_layers=4, num_heads=3, feedforward_channels=48)
SOFTMAX = dict(type='Softmax')


def make(**options):
    torch.manual_seed(0)
    return ViTKArAt(**dict(arch=ARCH, img_size=32, patch_size=8, attn_cfg=SOFTMAX, slim_after=(0, 2)) | options)


def test_the_originals_weights_give_the_originals_tokens_and_gradient():
    golden = GoldenPart('sit_tsm')
    slimming = TokenSlimming(32, 98)
    load_original(slimming, golden.weights(slimming))
    assert sum(p.numel() for p in slimming.parameters()) == 2259
    x = golden.arrays['x'].requires_grad_()
    y = slimming(x)
    golden.check('out', y, bar=2e-5)
    (y * golden.arrays['w']).sum().backward()
    golden.check('grad_x', x.grad, bar=2e-4)


@pytest.mark.parametrize(
    ('slim_after', 'keep_ratio', 'left'),
    [((1, 2, 3), 0.5, {1: 98, 2: 49, 3: 24}), ((0, 1), 0.001, {0: 1, 1: 1}), ((), 0.5, {})],
    ids=['halves', 'at-least-one', 'none'],
)
def test_each_slimming_leaves_the_share_of_the_one_before(slim_after, keep_ratio, left):
    assert count_slimmed_tokens(slim_after, keep_ratio, num_layers=14, num_tokens=196) == left


def tokens_of_layers(model, image):
    seen = []
    for layer in model.layers:
        layer.attn.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].shape[1]))
    model(image)
    return seen


@pytest.mark.parametrize('size', [(32, 32), (40, 64), (8, 8)], ids=str)
def test_later_layers_see_the_class_token_and_as_many_tokens_for_images_of_any_size(size):
    whole = 1 + size[0] * size[1] // 64
    assert tokens_of_layers(make(), torch.randn(2, 3, *size)) == [whole, 9, 9, 5]


@pytest.mark.parametrize(('out_type', 'shape'), [('cls_token', (2, 24)), ('avg_featmap', (2, 24)), ('raw', (2, 5, 24))])
@pytest.mark.parametrize('options', [{}, dict(with_cp=True), dict(share_blocks=2)], ids=['plain', 'cp', 'shared'])
def test_every_parameter_learns(out_type, shape, options):
    model = make(out_type=out_type, **options).train()
    (out,) = model(torch.randn(2, 3, 32, 32))
    assert out.shape == shape
    (out * torch.randn_like(out)).sum().backward()
    assert not [
        name for name, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())
    ]


def test_maps_of_the_layers_before_the_slimming_are_given():
    maps = make(slim_after=(1,), out_type='featmap', out_indices=(0, 1))(torch.randn(1, 3, 32, 40))
    assert [tuple(m.shape) for m in maps] == [(1, 24, 4, 5)] * 2


def test_the_slimming_after_a_layer_has_its_depth_and_freezes_with_it():
    model = make(frozen_stages=1)
    depths = {name: model.get_layer_depth(f'backbone.{name}', 'backbone.') for name, _ in model.named_parameters()}
    assert depths['slimming.0.scale'] == depths['layers.0.ln1.weight'] == (1, 6)
    assert depths['slimming.2.scale'] == (3, 6)
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    assert not any(name.startswith('slimming.0.') for name in learning)
    assert any(name.startswith('slimming.2.') for name in learning)


def test_a_checkpoint_with_other_numbers_of_tokens_is_refused_with_what_to_do():
    state = make().state_dict()
    make(img_size=(40, 28)).load_state_dict(make(img_size=(40, 28)).state_dict())
    with pytest.raises(
        RuntimeError, match=r'slimming\.0 of the checkpoint slims to 8 tokens, this one to 32.*img_size'
    ):
        make(img_size=64).load_state_dict(state)


@pytest.mark.skipif(not hasattr(torch.export.Dim, 'DYNAMIC'), reason='programs for any size need PyTorch 2.6')
@torch.no_grad()
def test_one_exported_program_serves_all_sizes():
    model, auto = make().eval(), torch.export.Dim.DYNAMIC
    program = torch.export.export(
        model, (torch.randn(2, 3, 40, 56),), dynamic_shapes=({0: auto, 2: auto, 3: auto},), strict=False
    ).module()
    for shape in [(2, 3, 40, 56), (3, 3, 64, 24)]:
        x = torch.randn(shape)
        torch.testing.assert_close(program(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(slim_after=(3,)), r'slim_after=\(3,\) must be rising numbers of layers, from 0 to 2'),
        (dict(slim_after=(2, 1)), r'slim_after=\(2, 1\) must be rising'),
        (dict(slim_after=(1, 1)), r'slim_after=\(1, 1\) must be rising'),
        (dict(keep_ratio=0), 'keep_ratio=0 must be above 0 and at most 1'),
        (dict(keep_ratio=1.5), 'keep_ratio=1.5'),
        (dict(attn_cfg=dict(type='KArAt')), "slimmed tokens have no grid; got 'KArAt'"),
        (dict(attn_cfg=dict(type='Pooling')), "slimmed tokens have no grid; got 'Pooling'"),
        (dict(window_size=2, with_cls_token=False, out_type='raw'), 'window_size=2'),
        (dict(out_type='featmap'), "out_type='featmap' needs tokens on a grid, which there are up to layer 0"),
        (dict(out_type='pyramid', patch_size=16), "out_type='pyramid' needs tokens on a grid"),
    ],
    ids=lambda x: str(x)[:30],
)
def test_bad_arguments_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)
