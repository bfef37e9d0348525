import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import DaViTAttention, L2ViTGlobalAttention, L2ViTWindowAttention
from vik_mm.mixers.l2vit import LinearGlobalAttention


class TestL2ViTGlobalAttention(MixerContract):
    mixer = dict(type='L2ViTGlobalAttention')
    parameters = 7937
    golden = {'l2vit_lga': dict(head_dims=16)}
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


class TestL2ViTWindowAttention(MixerContract):
    mixer = dict(type='L2ViTWindowAttention')
    parameters = 4928
    golden = {'l2vit_lwa': dict(head_dims=16)}


@pytest.mark.parametrize('least', [1e-6, 100], ids=['never-acts', 'acts'])
def test_the_linear_order_gives_what_the_weights_of_all_pairs_give(least):
    torch.manual_seed(0)
    layer = LinearGlobalAttention(16, 2, least).double()
    layer.temperature.data.normal_()
    x = torch.randn(2, 16, 5, 7, dtype=torch.double)
    qkv = layer.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 8))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    weights = q.relu() @ k.relu().transpose(2, 3)
    denominator = weights.sum(-1, keepdim=True).clamp(min=least)
    answer = layer.temperature * (weights / denominator @ v)
    expected = layer.proj(answer.transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (5, 7))
    torch.testing.assert_close(layer(x), expected)


@torch.no_grad()
def test_attention_over_a_large_map_fits_half_precision():
    layer = LinearGlobalAttention(32, 1, 100.0)
    torch.nn.init.constant_(layer.qkv.bias, 10.0)  # a denominator is a sum of 3200 over 5041 pixels
    x = torch.randn(1, 32, 71, 71)
    with torch.autocast('cpu', dtype=torch.float16):
        y = layer(x)
    assert y.dtype == torch.float16
    torch.testing.assert_close(y.float(), layer(x), rtol=0.02, atol=0.02)


@torch.no_grad()
def test_the_window_block_is_the_spatial_half_of_davit():
    torch.manual_seed(0)
    ours, davit = L2ViTWindowAttention(32, (14, 14)), DaViTAttention(32, (14, 14), order=('spatial',))
    ours.block.load_state_dict(davit.blocks.spatial.state_dict())
    x = torch.randn(1, 32, 9, 15)
    assert torch.equal(ours(x), davit(x))


def test_the_temperature_starts_at_the_scale_of_a_head():
    assert L2ViTGlobalAttention(32, (14, 14), head_dims=16).attn.temperature.flatten().tolist() == [0.25, 0.25]


@pytest.mark.parametrize('least', [0, -1.0, float('nan')])
def test_a_denominator_that_may_vanish_is_refused(least):
    with pytest.raises(BadInputError, match=f'min_denominator={least} must be positive'):
        L2ViTGlobalAttention(32, (14, 14), min_denominator=least)


@pytest.mark.parametrize('kind', [L2ViTGlobalAttention, L2ViTWindowAttention])
def test_heads_that_do_not_divide_the_channels_are_refused(kind):
    with pytest.raises(BadInputError, match='head_dims=5 must divide the 32 channels'):
        kind(32, (14, 14), head_dims=5)
