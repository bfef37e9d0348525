"""Gaussian adaptive attention."""

import math

import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import GaussianAdaptiveAttention


class TestSpatial(MixerContract):
    mixer = dict(type='GaussianAdaptiveAttention')
    parameters = 64
    golden = 'gaam_spatial'


class TestChannel(MixerContract):
    mixer = dict(type='GaussianAdaptiveAttention', axis='channel')
    parameters = 64
    golden = 'gaam_channel'


class TestDensity(MixerContract):
    mixer = dict(type='GaussianAdaptiveAttention', form='density')
    parameters = 64


def gate_by_definition(v, delta, c):
    """The gate of one row, density by density; ``[n]``, ``[J]``, ``[J]``."""
    centred = v - v.mean()
    variance = centred.square().sum() / (len(v) - 1) + 1e-8
    densities = [
        torch.exp(-((centred - d) ** 2) / (2 * w**2 * variance)) / (2 * math.pi * w**2).sqrt() for d, w in zip(delta, c)
    ]
    product = torch.stack(densities).prod(0)
    return product / product.sum().clamp(min=1e-8)


@pytest.mark.parametrize('offset', [0.3, 2.0], ids=['normalised', 'clamped'])
def test_the_product_of_gaussians_is_the_gaussian_that_is_computed(offset):
    torch.manual_seed(0)
    mixer = GaussianAdaptiveAttention(4, (5, 5), num_heads=2, num_gaussians=3).double()
    torch.nn.init.normal_(mixer.offsets, std=offset)
    x = torch.randn(1, 4, 3, 5).double()
    x = x * torch.tensor([1, 0.5, 1, 0.3]).view(4, 1, 1)
    gates = (mixer(x) / x).flatten(2)[0]
    expected = torch.stack(
        [gate_by_definition(x[0, i].flatten(), mixer.offsets[i // 2], mixer.widths[i // 2]) for i in range(4)]
    )
    torch.testing.assert_close(gates, expected, rtol=1e-9, atol=1e-12)
    assert (gates.sum(1) < 0.9).any() == (offset > 1)


def test_channels_that_heads_do_not_divide_go_to_the_last_head():
    torch.manual_seed(0)
    mixer = GaussianAdaptiveAttention(11, (5, 5), num_heads=3, num_gaussians=2, axis='channel').double()
    x = torch.randn(1, 11, 2, 2).double()
    pixel = x[0, :, 1, 0]
    groups = [pixel[:3], pixel[3:6], pixel[6:]]
    expected = [v * gate_by_definition(v, mixer.offsets[i], mixer.widths[i]) for i, v in enumerate(groups)]
    torch.testing.assert_close(mixer(x)[0, :, 1, 0], torch.cat(expected))


def test_pixels_do_not_meet_on_the_channel_axis_and_do_on_the_spatial_one():
    torch.manual_seed(0)
    x = torch.randn(1, 16, 4, 4)
    other = x.clone()
    other[..., 0, 0] += 1
    for axis, meets in (('channel', False), ('spatial', True)):
        mixer = GaussianAdaptiveAttention(16, (4, 4), axis=axis)
        assert torch.equal(mixer(x)[..., 1:, :], mixer(other)[..., 1:, :]) != meets


def test_rescaled_gates_have_mean_one_at_every_size():
    mixer = GaussianAdaptiveAttention(16, (14, 14), rescale=True)
    for size in ((2, 3), (20, 12)):
        x = torch.ones(1, 16, *size) + 1e-3 * torch.randn(1, 16, *size)
        torch.testing.assert_close(mixer(x).mean((2, 3)), torch.ones(1, 16), rtol=0.02, atol=0)


def test_a_single_pixel_stays_as_it_is():
    x = torch.randn(2, 16, 1, 1)
    for rescale in (False, True):
        assert torch.equal(GaussianAdaptiveAttention(16, (14, 14), rescale=rescale)(x), x)


def test_the_density_form_is_the_papers_algorithm():
    torch.manual_seed(0)
    mixer = GaussianAdaptiveAttention(3, (4, 4), form='density')
    torch.nn.init.normal_(mixer.offsets)
    x = torch.randn(2, 3, 4, 4)
    mean, variance = x.mean((2, 3), keepdim=True), x.var((2, 3), keepdim=True, unbiased=False)
    delta = mixer.offsets.view(3, 1, 1)
    gate = torch.exp(-((x - mean - delta) ** 2) / (2 * 2 * (variance + 1e-8 + 1e-5)))
    torch.testing.assert_close(mixer(x), gate * x)


def test_half_precision_maps_are_gated_in_float32():
    torch.manual_seed(0)
    mixer, x = GaussianAdaptiveAttention(16, (14, 14), rescale=True), torch.randn(1, 16, 14, 14)
    y = mixer(x.bfloat16())
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), mixer(x.bfloat16().float()), rtol=0.01, atol=0.01)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(axis='pixel'), "axis='pixel' is unknown"),
        (dict(form='sum'), "form='sum' is unknown"),
        (dict(form='density', axis='channel'), "needs axis='spatial'"),
        (dict(num_heads=5), 'num_heads=5 must divide the 16 channels'),
        (dict(num_heads=9, axis='channel'), 'less than two of the 16 channels.*choose 1 to 8'),
        (dict(num_gaussians=0), 'num_gaussians=0 must be at least 1'),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        GaussianAdaptiveAttention(16, (14, 14), **options)
