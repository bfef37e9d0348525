"""The minimal transformer's attention."""

import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import MinimalAttention


class TestMinimum(MixerContract):
    mixer = dict(type='MinimalAttention')
    parameters = 1024


class TestSymmetric(MixerContract):
    mixer = dict(type='MinimalAttention', similarity='shared', value=True, num_heads=4)
    parameters = 3 * 1024


class TestCholesky(MixerContract):
    mixer = dict(type='MinimalAttention', similarity='cholesky')
    parameters = 528


class TestMirrored(MixerContract):
    mixer = dict(type='MinimalAttention', similarity='mirrored', value=True)
    parameters = 528 + 2048
    test_one_exported_program_serves_all_sizes = None  # as the others


def build(**options):
    torch.manual_seed(0)
    return MinimalAttention(8, (6, 6), **options).double()


def by_formula(mixer, x):
    """Three lines of the page, with the heads of 'shared'; ``[B, C, H, W]``."""
    tokens = x.flatten(2).transpose(1, 2)
    values = tokens if mixer.v is None else tokens @ mixer.v.weight[..., 0, 0].t()
    outs = []
    for head in range(mixer.num_heads):
        part = slice(head * 8 // mixer.num_heads, (head + 1) * 8 // mixer.num_heads)
        matrix = mixer.matrix() if mixer.num_heads == 1 else mixer.weight[:, part] @ mixer.weight[:, part].t()
        scores = tokens @ matrix @ tokens.transpose(1, 2) / (8 / mixer.num_heads) ** 0.5
        outs.append(scores.softmax(2) @ values[..., part])
    out = torch.cat(outs, dim=2)
    out = out if mixer.proj is None else out @ mixer.proj.weight[..., 0, 0].t()
    return out.transpose(1, 2).view_as(x)


@torch.no_grad()
@pytest.mark.parametrize(
    'options',
    [
        dict(),
        dict(value=True),
        dict(similarity='shared'),
        dict(similarity='shared', value=True, num_heads=4),
        dict(similarity='cholesky'),
        dict(similarity='mirrored'),
    ],
    ids=['full', 'value', 'shared', 'heads', 'cholesky', 'mirrored'],
)
def test_each_form_equals_its_formula_in_float64(options):
    mixer, x = build(**options), torch.randn(2, 8, 3, 5).double()
    torch.testing.assert_close(mixer(x), by_formula(mixer, x), rtol=1e-10, atol=1e-12)


@torch.no_grad()
def test_no_similarity_gives_every_pixel_the_mean_of_the_map():
    mixer, x = build(), torch.randn(2, 8, 3, 5).double()
    mixer.weight.zero_()
    torch.testing.assert_close(mixer(x), x.mean((2, 3), keepdim=True).expand_as(x))


@torch.no_grad()
def test_a_constant_map_stays():
    x = torch.randn(2, 8, 1, 1).double().expand(2, 8, 4, 5)
    torch.testing.assert_close(build()(x), x)


@torch.no_grad()
def test_permuted_pixels_give_the_permuted_output():
    mixer, x = build(), torch.randn(1, 8, 4, 5).double()
    order = torch.randperm(20)
    shuffled = x.flatten(2)[..., order].view_as(x)
    torch.testing.assert_close(mixer(shuffled).flatten(2), mixer(x).flatten(2)[..., order])


@torch.no_grad()
def test_each_channel_stays_between_its_least_and_largest_value():
    x = 3 * torch.randn(2, 8, 4, 5).double()
    y = build()(x)
    assert (y.amax((2, 3)) <= x.amax((2, 3)) + 1e-12).all()
    assert (y.amin((2, 3)) >= x.amin((2, 3)) - 1e-12).all()


@torch.no_grad()
def test_the_identity_as_triangle_equals_the_identity_as_matrix():
    full, cholesky = build(), build(similarity='cholesky')
    full.weight.copy_(torch.eye(8))
    row, column = torch.tril_indices(8, 8)
    cholesky.weight.copy_((row == column).double())
    x = torch.randn(1, 8, 4, 5).double()
    torch.testing.assert_close(cholesky(x), full(x))


@torch.no_grad()
def test_the_triangles_are_what_their_names_say():
    mirrored, cholesky = build(similarity='mirrored').matrix(), build(similarity='cholesky')
    assert torch.equal(mirrored, mirrored.t())
    assert torch.linalg.eigvalsh(mirrored).min() < 0
    assert torch.equal(cholesky.factor(), cholesky.factor().tril())
    assert torch.linalg.eigvalsh(cholesky.matrix()).min() >= -1e-12


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(similarity='any'), "similarity='any' is unknown"),
        (dict(num_heads=3), 'num_heads=3 must divide the 8 channels'),
        (dict(num_heads=2, value=True), "num_heads=2 needs similarity='shared' and value=True"),
        (dict(num_heads=2, similarity='shared'), "num_heads=2 needs similarity='shared' and value=True"),
    ],
    ids=['unknown', 'channels', 'collapsed', 'no value'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        MinimalAttention(8, (6, 6), **options)


def test_a_map_of_too_many_pixels_is_refused():
    with pytest.raises(BadInputError, match='MinimalAttention would compare 21 pixels with 21'):
        MinimalAttention(8, (6, 6), max_tokens=20)(torch.randn(1, 8, 3, 7))
