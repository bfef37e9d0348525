import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import DaViTAttention
from vik_mm.mixers.davit import ChannelAttention
from vik_mm.mixers.windows import WindowAttention


class TestDaViTAttention(MixerContract):
    mixer = dict(type='DaViTAttention')
    parameters = 9856
    golden = {'davit': dict(head_dims=16)}


def spread_out(module):
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return module.double()


@pytest.mark.parametrize('size', [(8, 8), (1, 1), (3, 2), (5, 5), (13, 6)], ids=str)
def test_padding_takes_part_in_windows_as_zeros(size):
    layer = spread_out(WindowAttention(16, 2, window_size=4))
    x = torch.randn(2, 16, *size, dtype=torch.double)
    zeros = F.pad(x, (0, -size[1] % 4, 0, -size[0] % 4))
    height, width = zeros.shape[2:]
    row, column = torch.arange(height)[:, None] // 4, torch.arange(width) // 4
    window = (row * width + column).flatten()
    qkv = layer.qkv(zeros.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
    scores = qkv[0] @ qkv[1].transpose(2, 3) * 8**-0.5
    weights = scores.masked_fill(window[:, None] != window, float('-inf')).softmax(-1)
    answer = layer.proj((weights @ qkv[2]).transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, (height, width))
    torch.testing.assert_close(layer(x), answer[:, :, : size[0], : size[1]])


@pytest.mark.parametrize(('scale', 'name'), [('head', 'ChannelAttention'), ('tokens', 'ChannelAttentionV2')])
def test_channel_attention_is_that_of_timm(scale, name):
    davit = pytest.importorskip('timm.models.davit')
    theirs, ours = spread_out(getattr(davit, name)(32, num_heads=2, qkv_bias=True)), ChannelAttention(32, 2, scale)
    ours.double().load_state_dict(theirs.state_dict())
    x = torch.randn(2, 32, 5, 9, dtype=torch.double)
    expected = theirs(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (5, 9))
    torch.testing.assert_close(ours(x), expected)


@torch.no_grad()
def test_order_names_the_blocks_and_their_order():
    torch.manual_seed(0)
    x = torch.randn(1, 32, 9, 8)
    usual = DaViTAttention(32, (14, 14))
    spatial, channel = usual.blocks
    orders = {
        ('channel', 'spatial'): spatial(channel(x)) - x,
        ('spatial',): spatial(x) - x,
        ('channel',): channel(x) - x,
    }
    for order, expected in orders.items():
        mixer = DaViTAttention(32, (14, 14), order=order)
        mixer.load_state_dict({name: usual.state_dict()[name] for name in mixer.state_dict()})
        assert torch.equal(mixer(x), expected)


@torch.no_grad()
def test_channel_scores_of_a_large_map_fit_half_precision():
    layer = ChannelAttention(32, 1)
    torch.nn.init.constant_(layer.qkv.bias, 10.0)  # a score is a sum of 100 over 5041 pixels
    with torch.autocast('cpu', dtype=torch.float16):
        y = layer(torch.randn(1, 32, 71, 71))
    assert y.dtype == torch.float16
    assert y.isfinite().all()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=5), 'head_dims=5 must divide the 32 channels'),
        (dict(window_size=1.5), 'window_size=1.5 must be an integer of at least 1'),
        (dict(order=('spatial', 'spatial')), 'each at most once'),
        (dict(order='spatial'), "order='spatial' must list"),
        (dict(order=()), 'must list'),
        (dict(scale='pixels'), r"scale='pixels' is unknown; choose one of \['head', 'tokens'\]"),
    ],
    ids=['heads', 'window', 'twice', 'string', 'none', 'scale'],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        DaViTAttention(32, (14, 14), **options)
