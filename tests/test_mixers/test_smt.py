import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import ScaleAwareModulation, SMTAttention


class TestScaleAwareModulation(MixerContract):
    mixer = dict(type='ScaleAwareModulation')
    parameters = 7040
    golden = 'smt_sam'
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


class TestSMTAttention(MixerContract):
    mixer = dict(type='SMTAttention')
    parameters = 4544
    golden = {'smt_mhsa': dict(head_dims=16)}


@torch.no_grad()
def test_a_group_of_the_join_sees_one_channel_of_each_scale():
    """A change of one channel of one head reaches the 8 hidden channels of its group, and no others."""
    torch.manual_seed(0)
    mixer = ScaleAwareModulation(16, (14, 14)).eval()
    seen = []
    mixer.join.register_forward_hook(lambda module, args, out: seen.append(out))
    x = torch.randn(1, 16, 9, 9)
    mixer(x)
    mixer.scales.bias[4 * 2 + 1] += 1  # head 2, channel 1
    mixer(x)
    changed = (seen[0] != seen[1]).any(dim=3).any(dim=2)[0].nonzero().flatten()
    assert changed.tolist() == list(range(8, 16))  # group 1


@pytest.mark.parametrize('scales', [1, 2, 8])
def test_another_number_of_scales_has_as_many_convolutions(scales):
    mixer = ScaleAwareModulation(16, (14, 14), num_scales=scales)
    assert [conv.kernel_size[0] for conv in mixer.head_convs] == [3 + 2 * i for i in range(scales)]
    assert mixer(torch.randn(2, 16, 3, 5)).shape == (2, 16, 3, 5)


@torch.no_grad()
def test_attention_adds_a_convolution_of_the_values_of_all_heads():
    torch.manual_seed(0)
    mixer = SMTAttention(32, (14, 14), head_dims=16).double()
    x = torch.randn(2, 32, 5, 7, dtype=torch.double)
    tokens = x.flatten(2).transpose(1, 2)
    q, (k, v) = mixer.q(tokens), mixer.kv(tokens).chunk(2, dim=2)
    heads = []
    for part in (slice(16), slice(16, 32)):
        weights = (q[..., part] @ k[..., part].transpose(1, 2) / 4).softmax(-1)
        heads.append(weights @ v[..., part])
    local = F.conv2d(v.transpose(1, 2).unflatten(2, (5, 7)), mixer.local_conv.weight, padding=1, groups=32)
    local = local.flatten(2).transpose(1, 2) + mixer.local_conv.bias
    expected = mixer.proj(torch.cat(heads, 2) + local).transpose(1, 2).unflatten(2, (5, 7))
    torch.testing.assert_close(mixer(x), expected)


def test_a_map_with_too_many_pixels_for_attention_is_refused_with_what_to_do():
    mixer = SMTAttention(32, (14, 14), max_tokens=48)
    mixer(torch.randn(1, 32, 6, 8))
    with pytest.raises(BadInputError, match='max_tokens=48.*linear in pixels'):
        mixer(torch.randn(1, 32, 7, 7))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_scales=3), 'num_scales=3 must divide the 16 channels'),
        (dict(num_scales=0), 'num_scales=0 must divide the 16 channels'),
        (dict(expand_ratio=0.5), 'expand_ratio=0.5 must be an integer of at least 1'),
    ],
    ids=['scales', 'none', 'ratio'],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        ScaleAwareModulation(16, (14, 14), **options)
