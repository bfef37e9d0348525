"""Cascaded group attention of EfficientViT (MSRA)."""

import re

import pytest
import torch
from mixer_contract import MixerContract, move

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original
from vik_mm.mixers import CascadedGroupAttention


class TestEfficientViT(MixerContract):
    mixer = dict(type='CascadedGroupAttention')
    parameters = 4612
    golden = 'efficientvit'
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))
    test_one_exported_program_serves_all_sizes = None  # the masked form, below, has all of it and the mask


class TestMaskedPadding(MixerContract):
    mixer = dict(type='CascadedGroupAttention', mask_padding=True)
    parameters = 4612
    golden = 'efficientvit'  # windows divide the map, and there is nothing to mask
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


def build(channels=16, grid_size=(14, 14), **options):
    torch.manual_seed(0)
    mixer = move(CascadedGroupAttention(channels, grid_size, **options)).eval()
    for name, buffer in mixer.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
        elif name.endswith('running_mean'):
            buffer.normal_()
    torch.nn.init.normal_(mixer.position_bias)
    return mixer


def heads_by_formula(mixer, window, inside):
    """Heads one after the other in a window ``[C, w, w]``; keys where ``inside`` ``[w, w]`` is false get no weight."""
    side, outs = window.shape[1], []
    offset = torch.tensor(
        [[abs(a // side - b // side) * side + abs(a % side - b % side) for b in range(side**2)] for a in range(side**2)]
    )
    for i, part in enumerate(window.chunk(mixer.num_heads)):
        features = mixer.qkvs[i]((part + outs[-1] if outs else part)[None])
        q, k, v = (x[0] for x in features.split([16, 16, part.shape[0]], dim=1))
        q = mixer.dws[i](q[None])[0]
        scores = q.flatten(1).t() @ k.flatten(1) / 4 + mixer.position_bias[i][offset]
        scores[:, ~inside.flatten()] = float('-inf')
        outs.append((v.flatten(1) @ scores.softmax(1).t()).view_as(part))
    return mixer.proj(torch.cat(outs).relu()[None])[0]


@torch.no_grad()
@pytest.mark.parametrize('mask_padding', [False, True], ids=['release', 'masked'])
def test_windows_equal_the_formula_window_by_window(mask_padding):
    mixer = build(window_size=4, kernel_sizes=(5, 3, 3, 1), mask_padding=mask_padding)
    x = torch.randn(2, 16, 6, 9)
    padded = torch.nn.functional.pad(x, (0, 3, 0, 2))
    inside = torch.zeros(8, 12, dtype=torch.bool)
    inside[:6, :9] = True
    expected = torch.empty_like(padded)
    for image in range(2):
        for i in range(0, 8, 4):
            for j in range(0, 12, 4):
                at = (slice(i, i + 4), slice(j, j + 4))
                keys = inside[at] if mask_padding else torch.ones(4, 4, dtype=torch.bool)
                expected[(image, slice(None), *at)] = heads_by_formula(mixer, padded[(image, slice(None), *at)], keys)
    torch.testing.assert_close(mixer(x), expected[:, :, :6, :9], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_masked_padding_is_a_change_only_where_windows_are_cut():
    plain, masked = build(), build(mask_padding=True)
    whole, cut = torch.randn(1, 16, 14, 21), torch.randn(1, 16, 14, 20)
    torch.testing.assert_close(plain(whole), masked(whole))
    torch.testing.assert_close(plain(cut)[..., :14], masked(cut)[..., :14])
    assert not torch.allclose(plain(cut)[..., 14:], masked(cut)[..., 14:])


def test_the_module_of_timm_has_the_same_values_at_any_size_and_its_weights_load():
    timm = pytest.importorskip('timm.models.efficientvit_msra')
    torch.manual_seed(0)
    options = dict(attn_ratio=1.0, resolution=14, window_resolution=7, kernels=(7, 5, 3))
    theirs = move(timm.LocalWindowAttention(48, 16, 3, **options)).eval()
    ours = CascadedGroupAttention(48, (14, 14), num_heads=3, kernel_sizes=(7, 5, 3)).eval()
    state = {re.sub(r'\.conv\.', '.c.', name): value for name, value in theirs.state_dict().items()}
    load_original(ours, state)
    assert sum(p.numel() for p in ours.parameters()) == 6563
    for size in ((14, 14), (9, 16), (3, 4)):
        x = torch.randn(2, 48, *size)
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_weights_loaded_in_evaluation_mode_are_seen():
    mixer, x = build(), torch.randn(1, 16, 7, 7)
    before = mixer(x)
    state = mixer.state_dict()
    mixer.load_state_dict({**state, 'position_bias': torch.randn_like(state['position_bias'])})
    assert not torch.allclose(mixer(x), before)


def test_two_backward_passes_run_in_evaluation_mode():
    mixer, x = build(), torch.randn(1, 16, 7, 7)
    for _ in range(2):
        mixer(x).sum().backward()
    assert mixer.position_bias.grad.isfinite().all()


@torch.no_grad()
def test_the_bias_of_smaller_windows_is_resized_between_its_ends():
    theirs, ours = build(grid_size=(4, 6)), build()
    assert theirs.window_size == 4
    ours.load_state_dict(theirs.state_dict())
    small, large = theirs.position_bias.view(4, 4, 4), ours.position_bias.view(4, 7, 7)
    torch.testing.assert_close(large[:, ::6, ::6], small[:, ::3, ::3])
    torch.testing.assert_close(large[:, ::2, ::2], small)
    with pytest.raises(RuntimeError, match='position_bias'):
        ours.load_state_dict({**ours.state_dict(), 'position_bias': torch.zeros(4, 50)})


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_heads=3), 'num_heads=3 must divide the 32 channels'),
        (dict(kernel_sizes=(5, 5)), r'kernel_sizes=\(5, 5\) must be odd numbers, one for each of 4 heads'),
        (dict(kernel_sizes=(5, 4, 3, 3)), r'kernel_sizes=\(5, 4, 3, 3\) must be odd'),
        (dict(window_size=0), 'window_size=0 and qk_dims=16 must be at least 1'),
    ],
    ids=['heads', 'few', 'even', 'window'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        CascadedGroupAttention(32, (14, 14), **options)
