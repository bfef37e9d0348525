"""Blocks that serve several layers: Raptor's recurrent blocks."""

import pytest
import torch
from golden_parts import GoldenPart
from mmpretrain.models.utils import SwiGLUFFN
from torch import nn

from vik_mm import ViK, ViTKArAt
from vik_mm.analysis import attention_maps
from vik_mm.backbones.shared_blocks import assign_blocks
from vik_mm.mixers import TokenMixer

ARCH = dict(embed_dims=24, num_layers=5, num_heads=3, feedforward_channels=48)
KARAT = dict(type='KArAt', grid_size=2, hidden_dim=4)
KINDS = {
    'softmax': dict(type='Softmax'),
    'blockwise': KARAT,
    'universal': dict(KARAT, universal=True),
    'mixer': dict(type='MultiPatchRBFKAN', patch_size=4, num_grids=3, rank=4),
}


def make(attn_cfg=KINDS['softmax'], **options):
    torch.manual_seed(0)
    given = dict(arch=ARCH, img_size=32, patch_size=8, attn_cfg=attn_cfg, layer_scale_init_value=0.5)
    return ViTKArAt(**given | options)


@pytest.mark.parametrize(
    ('depth', 'share_blocks', 'phases', 'sizes'),
    [
        (12, 3, None, [4, 4, 4]),
        (5, 2, None, [3, 2]),
        (11, 4, None, [3, 3, 3, 2]),
        (3, 8, None, [1, 1, 1]),
        (4, None, None, [1, 1, 1, 1]),
        (12, None, (7, 5), [7, 5]),
        (6, 1, None, [6]),
    ],
    ids=str,
)
def test_phases_are_as_long_as_each_other(depth, share_blocks, phases, sizes):
    blocks = assign_blocks(depth, share_blocks, phases)
    assert [blocks.count(block) for block in range(len(sizes))] == sizes
    assert blocks == sorted(blocks)


@pytest.mark.parametrize('kind', KINDS)
def test_a_shared_block_computes_what_equal_blocks_do_and_sums_their_gradients(kind):
    shared, plain = make(KINDS[kind], share_blocks=2), make(KINDS[kind])
    for i, block in enumerate(shared.block_of_layer):
        parts, state = shared.layer_parts[i], shared.layers[block].state_dict()
        nn.init.uniform_(parts.scale1.weight)
        nn.init.uniform_(parts.scale2.weight)
        plain.layers[i].load_state_dict(state, strict=False)
        plain.layers[i].ffn.gamma2.load_state_dict(parts.scale2.state_dict())
        if kind == 'mixer':  # has no layer scale among the layers with a block each
            nn.init.ones_(parts.scale1.weight)
        else:
            plain.layers[i].attn.gamma1.load_state_dict(parts.scale1.state_dict())
    x = torch.randn(2, 3, 32, 40)
    answers = [model(x)[0] for model in (shared, plain)]
    torch.testing.assert_close(*answers)
    for answer in answers:
        answer.square().sum().backward()
    for block, layers in enumerate([(0, 1, 2), (3, 4)]):
        for name, parameter in shared.layers[block].named_parameters():
            if parameter.requires_grad:
                total = sum(plain.layers[i].get_parameter(name).grad for i in layers)
                torch.testing.assert_close(parameter.grad, total, rtol=1e-4, atol=1e-4)


def test_the_originals_weights_give_the_originals_tokens_and_gradient():
    """Raptor's factors of depth, ``t1``, ``t2`` and ``t3``, are functions of the layer's number alone.

    Here ``t1`` and ``t2`` go into the layer scales, which each layer has of its own. There is no place for ``t3``: the
    test multiplies the tokens by it after each layer.
    """
    golden = GoldenPart('raptor')
    arch = dict(embed_dims=32, num_layers=5, num_heads=2, feedforward_channels=64)
    model = make(arch=arch, phases=(3, 2), norm_cfg=dict(type='LN', eps=1e-5)).eval()
    weights = golden.weights(model)
    factors = []
    for number, layer in enumerate(model.layers):
        layer.ffn = SwiGLUFFN(32, 64, add_identity=False)
        names = dict(ln1='norm1', ln2='norm2') | {'attn.proj': 'attn.out_proj', 'ffn.w12': 'mlp.0', 'ffn.w3': 'mlp.2'}
        pairs = [(f'{own}.{kind}', f'{name}.{kind}') for own, name in names.items() for kind in ('weight', 'bias')]
        pairs += [(f'attn.qkv.{kind}', f'attn.in_proj_{kind}') for kind in ('weight', 'bias')]
        layer.load_state_dict({own: weights[f'blocks.{number}.{name}'] for own, name in pairs})
    for i, (block, parts) in enumerate(zip(model.block_of_layer, model.layer_parts)):
        depth, own = torch.tensor([i + 1.0]), {k.removeprefix(f'blocks.{block}.'): v for k, v in weights.items()}
        hidden = nn.functional.silu(nn.functional.linear(depth, own['t_proj.0.weight'], own['t_proj.0.bias']))
        t1, t2, t3 = (1 + nn.functional.linear(hidden, own['t_proj.2.weight'], own['t_proj.2.bias'])).chunk(3)
        parts.scale1.weight.data.copy_(t1 * own['ls1.gamma'])
        parts.scale2.weight.data.copy_(t2 * own['ls2.gamma'])
        factors.append(t3)
    x = golden.arrays['x'].requires_grad_()
    y = x
    for i, t3 in enumerate(factors):
        y = model._layer(i, y, (7, 14)) * t3
    golden.check('out', y, bar=2e-5)
    (y * golden.arrays['w']).sum().backward()
    golden.check('grad_x', x.grad, bar=2e-4)


def test_a_shared_block_is_registered_once():
    names = [name for name, _ in make(share_blocks=2).named_parameters() if name.startswith('layers.')]
    assert {name.split('.')[1] for name in names} == {'0', '1'}
    block = sum(p.numel() for p in make().layers[0].parameters())
    count = {k: sum(p.numel() for p in make(share_blocks=k).parameters()) for k in (1, 3)}
    assert count[3] - count[1] == 2 * (block - 2 * 24)  # the layer scales stay each layer's own


def test_each_layer_has_its_own_stochastic_depth_and_outputs_count_layers():
    model = make(share_blocks=2, drop_path_rate=0.4, out_indices=(1, 4), out_type='featmap')
    rates = [getattr(parts.drop2, 'drop_prob', 0.0) for parts in model.layer_parts]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3, 0.4])
    assert len(model(torch.randn(1, 3, 32, 32))) == 2


def test_checkpointing_changes_no_gradient_of_a_shared_block():
    gradients = []
    for with_cp in (False, True):
        model = make(KARAT, share_blocks=2, with_cp=with_cp)
        torch.manual_seed(1)
        model(torch.randn(2, 3, 32, 32))[0].square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_a_shared_block_has_the_depth_of_its_first_layer():
    model = make(phases=(2, 3))
    assert model.get_layer_depth('backbone.layers.0.ln1.weight', 'backbone.') == (1, 7)
    assert model.get_layer_depth('backbone.layers.1.ln1.weight', 'backbone.') == (3, 7)
    assert model.get_layer_depth('backbone.layer_parts.4.scale1.weight', 'backbone.') == (5, 7)
    assert model.get_layer_depth('backbone.patch_embed.projection.weight', 'backbone.') == (0, 7)
    assert model.get_layer_depth('head.weight', 'backbone.') == (6, 7)


def test_attention_maps_are_those_of_each_layer():
    shared, plain = make(share_blocks=2), make()
    for i, block in enumerate(shared.block_of_layer):
        plain.layers[i].load_state_dict(shared.layers[block].state_dict(), strict=False)
    image = torch.randn(1, 3, 32, 32)
    for layer in (0, 2, -1):
        ours, theirs = (attention_maps(model, image, layer).scores for model in (shared, plain))
        torch.testing.assert_close(torch.from_numpy(ours), torch.from_numpy(theirs), rtol=1e-4, atol=1e-5)
    assert abs(attention_maps(shared, image, 0).scores - attention_maps(shared, image, 1).scores).max() > 1e-3


def test_frozen_blocks_freeze_the_parts_of_their_layers():
    model = make(share_blocks=2, frozen_stages=1, drop_path_rate=0.2).train()
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    assert {'layers.0.ln1.weight', 'layer_parts.2.scale2.weight'} <= frozen
    assert not frozen & {'layers.1.ln1.weight', 'layer_parts.3.scale1.weight'}
    assert not model.layer_parts[2].training
    assert model.layer_parts[3].training


class NormMixer(TokenMixer):
    def __init__(self, embed_dims, grid_size, init_cfg=None):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.norm = nn.BatchNorm2d(embed_dims)

    def forward(self, x):
        return self.norm(x)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(share_blocks=0), 'share_blocks=0 must be an integer of at least 1'),
        (dict(share_blocks=2, phases=(2, 3)), 'not both'),
        (dict(phases=(2, 2)), r'phases=\(2, 2\) must be positive integers that add up to the 5 layers'),
        (dict(phases=(5, 0)), r'phases=\(5, 0\)'),
        (dict(share_blocks=2, frozen_stages=3), 'frozen_stages=3 must be an integer from -1 to 2'),
        (
            dict(share_blocks=2, window_size=2, global_indices=(1, 4), with_cls_token=False, out_type='featmap'),
            r'global_indices=\(1, 4\) must hold all layers of a shared block or none',
        ),
        (
            dict(share_blocks=2, attn_cfg=dict(type=NormMixer)),
            r'0\.attn\.mixer\.norm of a shared block is',
        ),
    ],
    ids=['zero', 'both', 'sum', 'empty', 'frozen', 'global', 'batch-norm'],
)
def test_what_cannot_be_shared_is_named(options, text):
    with pytest.raises(ValueError, match=text):
        make(**options)


def make_vik(**options):
    torch.manual_seed(0)
    arch = dict(depths=(1, 4), embed_dims=(8, 16))
    return ViK(arch, img_size=64, layer_scale_init_value=0.5, out_indices=(0, 1), **options)


@pytest.mark.parametrize('options', [dict(share_blocks=2), dict(phases=[None, (2, 2)])], ids=['share', 'phases'])
@pytest.mark.parametrize('with_cp', [False, True], ids=['', 'checkpointed'])
def test_shared_blocks_of_vik_compute_what_equal_blocks_do_and_sum_their_gradients(options, with_cp):
    shared, plain = make_vik(**options, with_cp=with_cp), make_vik()
    rest = {k: v for k, v in shared.state_dict().items() if not k.startswith('stages.1.blocks.')}
    plain.load_state_dict(rest, strict=False)
    row = shared.stages[1].blocks
    for i, block in enumerate(row.block_of_layer):
        nn.init.uniform_(row.layer_parts[i].layer_scale1.weight)
        plain.stages[1].blocks[i].load_state_dict(row.get_submodule(str(block)).state_dict(), strict=False)
        plain.stages[1].blocks[i].load_state_dict(row.layer_parts[i].state_dict(), strict=False)
    if 'share_blocks' in options:
        plain.stages[0].blocks[0].load_state_dict(shared.stages[0].blocks.layer_parts[0].state_dict(), strict=False)
    x = torch.randn(2, 3, 64, 40)
    answers = [model(x)[-1] for model in (shared, plain)]
    torch.testing.assert_close(*answers)
    for answer in answers:
        answer.square().sum().backward()
    for name, parameter in row.get_submodule('1').named_parameters():
        total = sum(plain.stages[1].blocks[i].get_parameter(name).grad for i in (2, 3))
        torch.testing.assert_close(parameter.grad, total, rtol=1e-4, atol=1e-4)


def test_shared_blocks_of_vik_are_registered_once_and_have_the_depth_of_their_first_layer():
    model = make_vik(share_blocks=[None, 2])
    blocks = {name.split('.')[3] for name, _ in model.named_parameters() if name.startswith('stages.1.blocks.')}
    assert blocks == {'0', '1', 'layer_parts'}
    assert model.get_layer_depth('backbone.stages.1.blocks.1.norm1.weight', 'backbone.') == (4, 7)
    assert model.get_layer_depth('backbone.stages.1.blocks.layer_parts.3.layer_scale1.weight', 'backbone.') == (5, 7)
    assert model.get_layer_depth('backbone.stages.1.downsample.weight', 'backbone.') == (2, 7)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(share_blocks=0), 'share_blocks=0 must be an integer of at least 1'),
        (dict(share_blocks=[1, 2, 3]), 'share_blocks lists 3, and arch has 2 stages'),
        (dict(phases=[None, (2, 3)]), r'phases=\(2, 3\) must be positive integers that add up to the 4 layers'),
        (dict(share_blocks=2, norm_cfg=dict(type='BN')), 'of a shared block is a batch norm'),
    ],
    ids=str,
)
def test_vik_refuses_shares_that_make_no_sense(options, text):
    with pytest.raises(ValueError, match=text):
        make_vik(**options)
