from functools import partial

import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original
from vik_mm.mixers import MaxViTAttention
from vik_mm.mixers.windows import WindowAttention, merge_windows, relative_bias, split_windows


class TestMaxViTAttention(MixerContract):
    mixer = dict(type='MaxViTAttention')
    parameters = 8850
    golden = {'maxvit': dict(head_dims=16)}


def attention(**options):
    torch.manual_seed(0)
    layer = WindowAttention(16, 2, window_size=4, **options)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return layer.double()


def groups_and_places(size, side, spread):
    """The group of each pixel of a map, and its row and column in the group, by definition."""
    groups, places = [], []
    counts = [-(-length // side) for length in size]
    for y in range(size[0]):
        for x in range(size[1]):
            if spread:  # a row of the grid starts after every `count` rows of the map
                groups.append((y % counts[0], x % counts[1]))
                places.append((y // counts[0], x // counts[1]))
            else:
                groups.append((y // side, x // side))
                places.append((y % side, x % side))
    return torch.tensor(groups), torch.tensor(places)


def brute_force(layer, x, side, spread):
    """Attention among all pixels of the map, with the pairs of different groups masked."""
    size = tuple(x.shape[2:])
    groups, places = groups_and_places(size, side, spread)
    together = (groups[:, None] == groups[None]).all(-1)
    dy, dx = (places[None] - places[:, None] + side - 1).unbind(-1)
    qkv = layer.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, layer.num_heads, -1))
    q, k, v = qkv.permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) * q.shape[-1] ** -0.5 + layer.position_bias[:, dy, dx]
    weights = scores.masked_fill(~together, float('-inf')).softmax(-1)
    return layer.proj((weights @ v).transpose(1, 2).flatten(2)).transpose(1, 2).unflatten(2, size)


@pytest.mark.parametrize('spread', [False, True], ids=['block', 'grid'])
@pytest.mark.parametrize('size', [(8, 8), (1, 1), (3, 2), (3, 9), (5, 5), (13, 6)], ids=str)
def test_padding_is_masked_as_brute_force_masks_it(size, spread):
    layer = attention(spread=spread, position_bias=True, mask_padding=True)
    x = torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True)
    expected, y = brute_force(layer, x, 4, spread), layer(x)
    torch.testing.assert_close(y, expected)
    w, parts = torch.randn_like(y), [x, *layer.parameters()]
    gradients, wanted = (torch.autograd.grad((answer * w).sum(), parts) for answer in (y, expected))
    for gradient, right in zip(gradients, wanted):
        torch.testing.assert_close(gradient, right)


@pytest.mark.parametrize('size', [(14, 14), (7, 21)], ids=str)
def test_it_computes_what_timm_computes(size):
    maxxvit = pytest.importorskip('timm.models.maxxvit')
    torch.manual_seed(0)
    make = partial(
        maxxvit.AttentionCl,
        32,
        dim_head=16,
        bias=True,
        head_first=False,
        rel_pos_cls=partial(maxxvit.RelPosBiasTf, window_size=(7, 7)),
    )
    theirs = torch.nn.ModuleDict(dict(attn_block=make(), attn_grid=make(), norm=torch.nn.LayerNorm(32, eps=1e-5)))
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = MaxViTAttention(32, (14, 14), head_dims=16)
    load_original(ours, theirs.state_dict())
    x = torch.randn(2, *size, 32)
    near = theirs['attn_block'](maxxvit.window_partition(x, [7, 7]))
    near = maxxvit.window_reverse(near, [7, 7], size)
    far = theirs['attn_grid'](maxxvit.grid_partition(theirs['norm'](x + near), [7, 7]))
    expected = near + maxxvit.grid_reverse(far, [7, 7], size)
    torch.testing.assert_close(ours(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_partition_is_one_half_of_the_mixer():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 9, 14)
    both = MaxViTAttention(16, (14, 14), head_dims=8)
    for half in ('block', 'grid'):
        mixer = MaxViTAttention(16, (14, 14), head_dims=8, partition=half)
        mixer.load_state_dict({name: both.state_dict()[name] for name in mixer.state_dict()})
        assert torch.equal(mixer(x), getattr(both, f'attn_{half}')(x))
        assert sum(p.numel() for p in mixer.parameters()) == 4 * 16**2 + 4 * 16 + 2 * 13**2


@pytest.mark.parametrize('spread', [False, True], ids=['block', 'grid'])
def test_groups_are_put_back_where_they_were_cut(spread):
    x = torch.arange(2 * 6 * 8 * 3).view(2, 6, 8, 3)
    groups = split_windows(x, (3, 2), spread)
    assert groups.shape == (2, 2, 4, 3, 2, 3)
    assert torch.equal(merge_windows(groups, spread), x)
    rows = groups[0, 0, 0, :, 0, 0] // x.stride(1)
    assert rows.tolist() == ([0, 2, 4] if spread else [0, 1, 2])


def test_the_bias_is_that_of_the_key_less_the_query():
    table = torch.arange(25.0).view(1, 5, 5)
    bias = relative_bias(table, (3, 3)).view(3, 3, 3, 3)
    assert bias[1, 1, 1, 1] == table[0, 2, 2]
    assert bias[0, 0, 2, 1] == table[0, 4, 3]  # the key is 2 rows below and 1 column right


def test_a_map_smaller_than_a_window_costs_only_its_own_pixels(monkeypatch):
    lengths, attend = [], F.scaled_dot_product_attention

    def watch(q, *args, **kwargs):
        lengths.append(q.shape[2])
        return attend(q, *args, **kwargs)

    monkeypatch.setattr(F, 'scaled_dot_product_attention', watch)
    attention(position_bias=True, mask_padding=True)(torch.randn(1, 16, 2, 3, dtype=torch.double))
    assert lengths == [6]


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=5), 'head_dims=5 must divide the 16 channels'),
        (dict(window_size=0), 'window_size=0 must be an integer of at least 1'),
        (dict(partition='rows'), r"partition='rows' is unknown; choose one of \['both', 'block', 'grid'\]"),
    ],
    ids=['heads', 'window', 'partition'],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        MaxViTAttention(16, (14, 14), **{'head_dims': 8, **options})
