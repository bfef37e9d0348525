"""Single-head attention of SHViT."""

import pytest
import torch
from mixer_contract import MixerContract, move

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original
from vik_mm.mixers import SingleHeadAttention


class TestSHViT(MixerContract):
    mixer = dict(type='SingleHeadAttention')
    parameters = 1404
    golden = 'shvit'
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


def test_the_module_of_timm_has_the_same_values_and_its_weights_load(monkeypatch):
    shvit = pytest.importorskip('timm.models.shvit')
    torch.manual_seed(0)
    theirs = move(shvit.SHSA(48, 16, 10)).eval()
    for name, buffer in theirs.named_buffers():
        if name.endswith('running_var'):
            buffer.uniform_(0.5, 2)
    ours = SingleHeadAttention(48, (14, 14)).eval()
    load_original(ours, theirs.state_dict())
    assert sum(p.numel() for p in ours.parameters()) == 2924
    x = torch.randn(2, 48, 9, 13)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)
    monkeypatch.setattr('vik_mm.mixers.shvit.FEW_PIXELS', 0)  # as large maps are computed
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(('channels', 'partial'), [(3, 1), (32, 6), (64, 13), (128, 27), (320, 68), (512, 109)])
def test_the_channels_that_attend_follow_the_papers_ratio(channels, partial):
    assert SingleHeadAttention(channels, (14, 14)).partial_dims == partial


@torch.no_grad()
def test_all_channels_may_attend_and_the_others_pass_raw():
    torch.manual_seed(0)
    assert move(SingleHeadAttention(8, (4, 4), partial_dims=8)).eval()(torch.randn(1, 8, 3, 3)).isfinite().all()
    mixer = move(SingleHeadAttention(8, (4, 4), partial_dims=2)).eval()
    x = torch.randn(1, 8, 3, 3)
    other = x.clone()
    other[:, 2:, 0, 0] = -other[:, 2:, 0, 0].abs()
    lower = other.clone()
    lower[:, 2:, 0, 0] -= 1  # what is negative is cut
    torch.testing.assert_close(mixer(other), mixer(lower), rtol=0, atol=0)
    assert torch.equal(mixer(x)[..., 1:, :], mixer(other)[..., 1:, :])


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(partial_dims=33), 'partial_dims=33 must be from 1 to the 32 channels'),
        (dict(partial_dims=0), 'partial_dims=0 must'),
        (dict(qk_dims=0), 'qk_dims=0 must be at least 1'),
    ],
    ids=['wide', 'none', 'keys'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        SingleHeadAttention(32, (14, 14), **options)


def test_a_map_of_too_many_pixels_is_refused_with_what_to_do():
    mixer = SingleHeadAttention(8, (4, 4), max_tokens=20)
    mixer(torch.randn(1, 8, 4, 5))
    with pytest.raises(BadInputError, match=r'SingleHeadAttention would compare 21 pixels .* raise max_tokens'):
        mixer(torch.randn(1, 8, 3, 7))
