"""Transformers with Kolmogorov-Arnold attention: the paper's sizes, outputs, any image size, refusals."""

import pytest
import torch
from mmengine.logging import MMLogger
from mmengine.runner.checkpoint import load_state_dict
from mmpretrain.models.backbones import VisionTransformer
from mmpretrain.registry import MODELS
from torch import nn

from vik_mm import ViTKArAt
from vik_mm.attention import BASES
from vik_mm.backbones import ConViTKArAt, SwinKArAt
from vik_mm.errors import BadInputError
from vik_mm.mixers import MultiPatchRBFKAN
from vik_mm.mixers.multipatch_rbfkan import resample_global_maps

ARCH = dict(embed_dims=24, num_layers=3, num_heads=3, feedforward_channels=48)
KINDS = {
    'softmax': dict(type='Softmax'),
    'blockwise': dict(type='KArAt', grid_size=2, hidden_dim=4),
    'universal': dict(type='KArAt', grid_size=2, hidden_dim=4, universal=True, base_activation='silu'),
    'mixer': dict(type='MultiPatchRBFKAN', patch_size=4, num_grids=3, rank=4),
}


def make(attn_cfg=KINDS['blockwise'], **options):
    torch.manual_seed(0)
    return ViTKArAt(**dict(arch=ARCH, img_size=32, patch_size=8, attn_cfg=attn_cfg) | options)


def make_swin(attn_cfg, **options):
    torch.manual_seed(0)
    arch = dict(embed_dims=12, depths=[2, 2], num_heads=[2, 4])
    return SwinKArAt(**dict(attn_cfg=attn_cfg, arch=arch, img_size=56, out_indices=(0, 1)) | options)


# Millions of parameters as the paper prints them. Its totals of ViT-Small are those with a head of 1000 classes.
PAPER = [
    ('tiny', 10, dict(type='Softmax'), 5.53),
    ('tiny', 10, dict(type='KArAt', grid_size=3), 6.29),
    ('tiny', 10, dict(type='KArAt', grid_size=3, universal=True), 5.59),
    ('small', 1000, dict(type='Softmax'), 22.05),
    ('small', 1000, dict(type='KArAt', grid_size=3), 23.58),
    ('small', 1000, dict(type='KArAt', grid_size=3, universal=True), 22.18),
    ('base', 10, dict(type='Softmax'), 85.81),
    ('base', 10, dict(type='KArAt', grid_size=1), 87.51),
    ('base', 10, dict(type='KArAt', grid_size=1, universal=True), 85.95),
]


@pytest.mark.parametrize(('arch', 'classes', 'attn_cfg', 'millions'), PAPER, ids=lambda x: str(x))
def test_parameters_are_the_papers(arch, classes, attn_cfg, millions):
    with torch.device('meta'):
        model = ViTKArAt(arch, attn_cfg=attn_cfg)
    total = sum(p.numel() for p in model.parameters()) + (model.embed_dims + 1) * classes
    assert round(total / 1e6, 2) == millions


@pytest.mark.parametrize('size', [(32, 32), (40, 64), (33, 20)], ids=str)
@pytest.mark.parametrize('kind', KINDS)
def test_images_of_any_size(kind, size):
    model = make(KINDS[kind], out_type='featmap', out_indices=(0, 2))
    maps = model(torch.randn(2, 3, *size))
    assert [m.shape for m in maps] == [(2, 24, -(-size[0] // 8), -(-size[1] // 8))] * 2
    sum(m.square().sum() for m in maps).backward()
    without = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


@pytest.mark.parametrize(
    ('out_type', 'shape'),
    [('cls_token', (2, 24)), ('raw', (2, 17, 24)), ('featmap', (2, 24, 4, 4)), ('avg_featmap', (2, 24))],
)
def test_output_types(out_type, shape):
    (out,) = make(out_type=out_type)(torch.randn(2, 3, 32, 32))
    assert out.shape == shape


def test_the_class_token_of_a_mixer_is_the_mean_of_the_mixed_map():
    attention = make(KINDS['mixer']).layers[0].attn
    x = torch.randn(2, 17, 24)
    mixed = attention(x)
    torch.testing.assert_close(mixed[:, 0], mixed[:, 1:].mean(1))
    x[:, 0] += 1  # which the map does not see
    torch.testing.assert_close(attention(x), mixed)


@pytest.mark.parametrize('kind', ['softmax', 'universal', 'mixer'])
def test_pyramid_has_the_strides_of_a_hierarchy(kind):
    model = make(KINDS[kind], img_size=64, patch_size=16, out_type='pyramid', with_cls_token=False)
    maps = model(torch.randn(1, 3, 70, 100))
    assert [tuple(m.shape) for m in maps] == [(1, 6, 20, 28), (1, 12, 10, 14), (1, 24, 5, 7), (1, 24, 3, 4)]
    assert [
        tuple(m.shape) for m in make(patch_size=16, out_type='pyramid', out_indices=(1, 3))(torch.zeros(1, 3, 32, 64))
    ]


def test_windows_do_not_see_each_other_and_global_blocks_do():
    options = dict(img_size=64, patch_size=8, with_cls_token=False, out_type='featmap', window_size=4)
    x = torch.randn(1, 3, 64, 64)
    y = x.clone()
    y[..., 40:, 40:] += 1
    for indices, seen in (((), False), ((1,), True)):
        model = make(KINDS['blockwise'], **options, global_indices=indices).eval()
        with torch.no_grad():
            same = torch.allclose(model(x)[0][..., :4, :4], model(y)[0][..., :4, :4], atol=1e-6)
        assert same != seen


def test_a_universal_operator_is_registered_once_and_learns_from_every_block():
    model = make(KINDS['universal'])
    names = [n for n, _ in model.named_parameters() if 'coefficients' in n]
    assert names == ['operator.basis.coefficients']
    assert [k for k in model.state_dict() if 'coefficients' in k] == names


def test_a_universal_operator_serves_windows_and_the_grid_that_is_as_large():
    make(KINDS['universal'], with_cls_token=False, window_size=4, global_indices=(1,), out_type='featmap')
    with pytest.raises(ValueError, match=r'universal operator.*\[\(2, 2\), \(4, 4\)\].*universal=False'):
        make(KINDS['universal'], with_cls_token=False, window_size=2, global_indices=(1,), out_type='featmap')


@pytest.mark.parametrize('basis', BASES)
def test_activations_and_gradients_hold_through_12_blocks(basis):
    arch = dict(embed_dims=48, num_layers=12, num_heads=3, feedforward_channels=192)
    model = make(dict(type='KArAt', basis=basis), arch=arch, patch_size=4, out_type='raw', out_indices=list(range(12)))
    model.init_weights()
    outs = model(torch.randn(4, 3, 32, 32))
    for out in outs:
        out.retain_grad()
    assert 0.1 < outs[10].std() / outs[0].std() < 10  # the last one is normed
    (outs[-1] * torch.randn_like(outs[-1])).sum().backward()
    assert 0.1 < outs[0].grad.norm() / outs[10].grad.norm() < 10
    norms = [layer.attn.operator.out_weight.grad.norm() for layer in model.layers]
    assert 0.02 < norms[0] / norms[-1] < 50


def test_a_checkpoint_of_mmpretrains_transformer_loads():
    ours, theirs = make(KINDS['softmax']), VisionTransformer(ARCH, 32, 8, norm_cfg=dict(type='LN', eps=1e-6))
    theirs.init_weights()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(ours.eval()(x), (theirs.eval(), theirs(x))[1])


@pytest.mark.parametrize('make_model', [make, make_swin], ids=['vit', 'swin'])
def test_a_pretrained_file_is_loaded_or_refused_if_nothing_in_it_fits(make_model, tmp_path):
    trained = make_model(KINDS['softmax'])
    for parameter in trained.parameters():
        nn.init.constant_(parameter, 0.25)
    path = tmp_path / 'classifier.pth'
    torch.save(dict(state_dict={f'backbone.{name}': value for name, value in trained.state_dict().items()}), path)
    pretrained = dict(type='Pretrained', checkpoint=str(path))
    model = make_model(KINDS['softmax'], init_cfg=dict(pretrained, prefix='backbone.'))
    model.init_weights()
    assert all(bool((parameter == 0.25).all()) for parameter in model.parameters())
    with pytest.raises(BadInputError, match='holds nothing of this .*KArAt'):
        make_model(KINDS['softmax'], init_cfg=pretrained).init_weights()


@pytest.mark.parametrize('kind', ['softmax', 'blockwise', 'universal', 'mixer'])
def test_a_checkpoint_of_another_image_size_loads(kind):
    small, large = make(KINDS[kind]), make(KINDS[kind], img_size=64)
    large.load_state_dict(small.state_dict())
    assert large(torch.randn(1, 3, 64, 64))[0].isfinite().all()


@pytest.mark.parametrize('load', [nn.Module.load_state_dict, load_state_dict], ids=['torch', 'mmengine'])
@pytest.mark.parametrize('make_model', [make, make_swin], ids=['vit', 'swin'])
def test_a_mixer_in_the_place_of_attention_resamples_a_checkpoint_and_says_so_once(make_model, load, caplog):
    cfg = dict(KINDS['mixer'], patch_size=7)
    old, new = make_model(cfg, img_size=56), make_model(cfg, img_size=112)
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    load(new, old.state_dict(), strict=True)
    logger.removeHandler(caplog.handler)
    pairs = [(theirs, ours) for theirs, ours in zip(old.modules(), new.modules()) if isinstance(ours, MultiPatchRBFKAN)]
    assert len(pairs) >= 3
    for theirs, ours in pairs:
        maps = resample_global_maps(theirs.global_in.data, theirs.global_out.data, ours.grid_size, ours.rank)
        assert torch.equal(ours.global_in, maps[0]) and torch.equal(ours.global_out, maps[1])
    lines = [record.getMessage() for record in caplog.records if 'resampled' in record.getMessage()]
    assert len(lines) == 1
    assert f'{len(pairs)} token mixers' in lines[0]


@pytest.mark.parametrize('kind', ['blockwise', 'universal'])
def test_a_classifiers_checkpoint_loads_into_a_detectors_backbone(kind):
    classifier = make(KINDS[kind], patch_size=16, img_size=64)
    options = dict(patch_size=16, img_size=64, with_cls_token=False, out_type='pyramid', window_size=4)
    backbone = make(KINDS[kind], **options, global_indices=(2,))
    missing, unexpected = backbone.load_state_dict(classifier.state_dict(), strict=False)
    assert all(name.startswith('pyramid') for name in missing)
    assert unexpected == ['cls_token']
    name = dict(blockwise='layers.1.attn.operator.', universal='operator.')[kind] + 'basis.coefficients'
    assert torch.equal(backbone.state_dict()[name], classifier.state_dict()[name][:, :, 1:])


def test_checkpointing_changes_no_gradient():
    x = torch.randn(2, 3, 32, 32)
    gradients = []
    for with_cp in (False, True):
        model = make(with_cp=with_cp)
        model(x)[0].square().sum().backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for plain, again in zip(*gradients):
        torch.testing.assert_close(again, plain)


def test_frozen_blocks_stay_as_they_are():
    model = make(frozen_stages=2).train()
    frozen = {n.split('.')[1] for n, p in model.named_parameters() if n.startswith('layers') and not p.requires_grad}
    assert {'0', '1'} <= frozen
    assert not model.pos_embed.requires_grad
    assert not model.layers[0].training
    assert model.layers[2].training


@pytest.mark.parametrize('kind', ['softmax', 'blockwise', 'mixer'])
def test_swin(kind):
    cfg = dict(KINDS[kind], patch_size=7) if kind == 'mixer' else KINDS[kind]
    model = make_swin(cfg)
    maps = model(torch.randn(2, 3, 56, 56))
    assert [tuple(m.shape) for m in maps] == [(2, 12, 14, 14), (2, 24, 7, 7)]
    sum(m.square().sum() for m in maps).backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_masked_pixels_of_a_shifted_window_have_no_weight():
    arch = dict(embed_dims=12, depths=[2], num_heads=[2])
    model = SwinKArAt(arch=arch, img_size=56, out_indices=(0,), attn_cfg=KINDS['blockwise']).eval()
    x = torch.randn(1, 3, 56, 56)
    y = x.clone()
    y[..., :4] += 1  # the first column of pixels; cyclic shift brings it beside the last one
    with torch.no_grad():
        a, b = model(x)[0], model(y)[0]
    assert torch.allclose(a[..., -3:], b[..., -3:], atol=1e-6)
    assert not torch.allclose(a[..., :3], b[..., :3], atol=1e-3)


@pytest.mark.parametrize('kind', ['softmax', 'blockwise'])
def test_convit(kind):
    model = ConViTKArAt(img_size=64, attn_cfg=KINDS[kind])
    (out,) = model(torch.randn(2, 3, 64, 64))
    assert out.shape == (2, 192)
    out.square().sum().backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    with pytest.raises(ValueError, match='images of'):
        model(torch.randn(2, 3, 96, 96))


@pytest.mark.parametrize('attn_cfg', [KINDS['softmax'], KINDS['blockwise']], ids=['softmax', 'karat'])
def test_attention_is_a_mixer_of_vik(make_vik, attn_cfg):
    mixer = dict(type='SelfAttention', head_dims=4, attn_cfg=attn_cfg)
    model = make_vik(token_mixer=mixer, img_size=64, out_indices=(0, 3))
    for size in ((64, 64), (50, 77)):
        maps = model(torch.randn(2, 3, *size))
        assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize(
    ('options', 'error', 'text'),
    [
        (dict(arch='huge'), ValueError, "'huge' is unknown.*tiny"),
        (dict(attn_cfg='softmax'), TypeError, 'dict with a type'),
        (dict(attn_cfg=dict(type='Performer')), ValueError, "'Performer' is unknown.*Softmax.*KArAt"),
        (dict(attn_cfg=dict(type='KArAt', rank=3)), TypeError, r"no option \['rank'\]; it takes .*hidden_dim"),
        (dict(attn_cfg=dict(type='Softmax', basis='fourier')), TypeError, 'no option'),
        (dict(attn_cfg=dict(type='KArAt', basis='x')), ValueError, "basis='x'"),
        (dict(out_type='map'), ValueError, "'map' is unknown.*pyramid"),
        (dict(out_indices=(3,)), ValueError, r'out_indices=\(3,\) must be integers from 0 to 2'),
        (dict(out_indices=(1, 0)), ValueError, 'must rise'),
        (dict(window_size=2), ValueError, 'with_cls_token=False'),
        (dict(with_cls_token=False), ValueError, "'cls_token' needs"),
        (dict(frozen_stages=4), ValueError, 'from -1 to 3'),
        (dict(img_size=4), ValueError, 'at least patch_size=8'),
        (dict(out_type='pyramid'), ValueError, 'made for patch_size=16, got 8'),
    ],
    ids=lambda x: str(x)[:30],
)
def test_bad_arguments_are_named(options, error, text):
    with pytest.raises(error, match=text):
        make(**options)


@pytest.mark.parametrize('kind', ['SwinKArAt', 'ConViTKArAt'])
def test_a_universal_operator_is_refused_where_blocks_differ(kind):
    with pytest.raises(ValueError, match='universal operator'):
        MODELS.build(dict(type=kind, attn_cfg=KINDS['universal']))
