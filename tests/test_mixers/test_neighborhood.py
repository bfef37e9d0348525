"""Neighbourhood attention, against a mask that is made pixel by pixel."""

import copy
import itertools
import types

import pytest
import torch
from mixer_contract import MixerContract, move

from vik_mm.errors import BadInputError
from vik_mm.mixers import NeighborhoodAttention
from vik_mm.mixers.neighborhood_tiles import AxisTiles


class TestNeighborhood(MixerContract):
    mixer = dict(type='NeighborhoodAttention', head_dims=16)
    parameters = 4224
    golden = {'na_k7d1': {}, 'na_k7d2': dict(dilation=2), 'na_k5d12': dict(kernel_size=5, dilation=(1, 2))}
    test_one_exported_program_serves_all_sizes = None  # the dilated form with a bias, below, has all of it


class TestRelativePositionBias(MixerContract):
    mixer = dict(type='NeighborhoodAttention', dilation=2, rel_pos_bias=True, head_dims=16)
    parameters = 4562
    golden = 'na_rpb_k7d2'


def windows(length, kernel, dilation):
    """The definition, axis by axis: the dilation that fits, and the keys of each pixel in order."""
    dilation = max(1, min(dilation, length // kernel))
    kernel = min(kernel, length)
    found = []
    for i in range(length):
        r, t = i % dilation, i // dilation
        members = -(-(length - r) // dilation)
        start = min(max(t - kernel // 2, 0), members - kernel)
        found.append([r + dilation * (start + m) for m in range(kernel)])
    return dilation, found


def by_brute_force(mixer, x):
    """Attention among all pixels under the mask of the definition, pair by pair."""
    height, width = x.shape[2:]
    axes = [windows(*axis) for axis in zip((height, width), mixer.kernel_size, mixer.dilation)]
    bias = torch.full((mixer.num_heads, height * width, height * width), float('-inf'), dtype=x.dtype)
    (row_dilation, rows), (column_dilation, columns) = axes
    for y, x_ in itertools.product(range(height), range(width)):
        for ky, kx in itertools.product(rows[y], columns[x_]):
            value = 0.0
            if mixer.bias is not None:
                dy = ky // row_dilation - y // row_dilation + mixer.kernel_size[0] - 1
                dx = kx // column_dilation - x_ // column_dilation + mixer.kernel_size[1] - 1
                value = mixer.bias[:, dy, dx]
            bias[:, y * width + x_, ky * width + kx] = value
    q, k, v = mixer.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, mixer.num_heads, -1)).permute(2, 0, 3, 1, 4)
    scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5 + bias
    out = (scores.softmax(3) @ v).transpose(1, 2).flatten(2)
    return mixer.proj(out).transpose(1, 2).view_as(x)


@pytest.mark.parametrize('kernel', range(1, 10))
def test_the_tiles_of_an_axis_hold_each_pixels_window_at_every_length(kernel):
    for length, dilation in itertools.product([*range(1, 26), 41, 64], range(1, 6)):
        dilation, expected = windows(length, kernel, dilation)
        tiles = AxisTiles(length, kernel, dilation, torch.device('cpu'))
        queries = tiles.queries.flatten()
        assert queries[tiles.places].tolist() == list(range(length))
        mask = tiles.mask.flatten(0, 1)[tiles.places]
        keys = tiles.keys[:, None].expand_as(tiles.mask).flatten(0, 1)[tiles.places]
        offsets = tiles.offsets.flatten(0, 1)[tiles.places]
        for pixel, window in enumerate(expected):
            seen = mask[pixel]
            assert keys[pixel][seen].tolist() == window
            members = [key // dilation - pixel // dilation + kernel - 1 for key in window]
            assert offsets[pixel][seen].tolist() == members


@pytest.mark.parametrize(
    ('size', 'options'),
    [
        ((1, 1), dict(kernel_size=3, rel_pos_bias=True)),
        ((1, 7), dict(kernel_size=7, dilation=2, rel_pos_bias=True)),
        ((5, 5), dict(kernel_size=7, dilation=3, rel_pos_bias=True)),
        ((13, 6), dict(kernel_size=3, dilation=(4, 2), rel_pos_bias=True)),
        ((11, 13), dict(kernel_size=(4, 6), dilation=(2, 2))),
        ((9, 17), dict(kernel_size=(5, 3), dilation=(1, 4), rel_pos_bias=True)),
        ((12, 12), dict(kernel_size=2, qkv_bias=False)),
    ],
    ids=lambda value: '{}x{}'.format(*value) if isinstance(value, tuple) else '',
)
def test_outputs_and_gradients_equal_dense_attention_under_a_brute_force_mask(size, options):
    torch.manual_seed(0)
    mixer = NeighborhoodAttention(8, (14, 14), head_dims=4, **options).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 8, *size).double().requires_grad_()
    weights = torch.randn(2, 8, *size).double()
    wanted = [x, *mixer.parameters()]
    outs = [mixer(x), by_brute_force(mixer, x)]
    torch.testing.assert_close(*outs, rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(*(torch.autograd.grad((out * weights).sum(), wanted) for out in outs)):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


@torch.no_grad()
def test_a_pixel_sees_no_farther_than_its_window():
    torch.manual_seed(0)
    mixer, x = NeighborhoodAttention(16, (14, 14), kernel_size=5, head_dims=8), torch.randn(1, 16, 20, 20)
    other = x.clone()
    other[..., 0, 0] += 1
    changed = (mixer(x) != mixer(other)).any(1)[0].nonzero()
    assert changed.max() == 2  # pixels 0, 1 and 2 share the first window


def fake_na2d(calls):
    """What the package does, written with this project's tiles; it keeps the layouts of what it is given."""

    def na2d(query, key, value, kernel_size, dilation):
        calls.append((tuple(query.shape), kernel_size, dilation))
        heads, head_dims = query.shape[3:]
        mixer = NeighborhoodAttention(heads * head_dims, (1, 1), kernel_size, dilation, head_dims, backend='tiles')
        qkv = torch.cat([part.flatten(3) for part in (query, key, value)], dim=3)
        return mixer._attend_in_tiles(qkv).unflatten(3, (heads, -1))

    return na2d


@torch.no_grad()
def test_natten_gets_heads_behind_pixels_and_the_dilation_that_fits():
    calls = []
    mixer = move(NeighborhoodAttention(32, (14, 14), dilation=(2, 3), head_dims=16, backend='tiles'))
    mixer.na2d = fake_na2d(calls)
    mixer = copy.deepcopy(mixer)  # as averages of weights do
    x = torch.randn(2, 32, 14, 16)
    qkv = mixer.qkv(x.permute(0, 2, 3, 1))
    torch.testing.assert_close(mixer.proj(mixer._attend_by_natten(qkv)).permute(0, 3, 1, 2), mixer(x))
    assert calls == [((2, 14, 16, 2, 16), (7, 7), (2, 2))]


def test_why_natten_cannot_run_is_said():
    mixer = NeighborhoodAttention(32, (14, 14), backend='tiles')
    assert 'is not installed' in mixer.why_no_natten(torch.empty(1, 14, 14, 96))
    mixer.na2d = fake_na2d([])

    def on_gpu(height, width, dtype=torch.float16):
        return types.SimpleNamespace(is_cuda=True, shape=(1, height, width, 96), dtype=dtype, device='cuda')

    assert mixer.why_no_natten(on_gpu(14, 14)) is None
    assert 'x is on cpu' in mixer.why_no_natten(torch.empty(1, 14, 14, 96))
    assert 'too short for a kernel of 7' in mixer.why_no_natten(on_gpu(14, 6))
    assert 'x is torch.float64' in mixer.why_no_natten(on_gpu(14, 14, torch.float64))
    mixer.num_heads = 8
    assert 'these have 4' in mixer.why_no_natten(on_gpu(14, 14))
    mixer.bias = torch.nn.Parameter(torch.zeros(1))
    assert 'no relative position bias' in mixer.why_no_natten(on_gpu(14, 14))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=12), 'head_dims=12 must divide the 32 channels; choose one of'),
        (dict(kernel_size=0), 'kernel_size=0 must be a positive integer'),
        (dict(dilation=(1, 2, 3)), r'dilation=\(1, 2, 3\) must be a positive integer, or two'),
        (dict(backend='cuda'), "backend='cuda' is unknown"),
    ],
    ids=['heads', 'kernel', 'dilation', 'backend'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        NeighborhoodAttention(32, (14, 14), **options)


def test_natten_by_name_says_which_extra_installs_it(monkeypatch):
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(BadInputError, match=r'pip install vik_mm\[natten\]'):
        NeighborhoodAttention(32, (14, 14), backend='natten')
    assert NeighborhoodAttention(32, (14, 14)).na2d is None


def test_natten_by_name_refuses_what_it_cannot_compute():
    mixer = NeighborhoodAttention(32, (14, 14), backend='tiles')
    mixer.backend, mixer.na2d = 'natten', fake_na2d([])
    with pytest.raises(BadInputError, match="backend='natten' cannot run here: x is on cpu"):
        mixer(torch.randn(1, 32, 14, 14))
