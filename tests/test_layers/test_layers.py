import pytest
import torch

from vik_mm.layers import LayerScale, RBFKANLayer
from vik_mm.ops import linear, merge_patches, narrow_linear, pad_to_multiple, split_patches


def test_patches_are_read_row_by_row_and_put_back():
    x = torch.arange(2 * 3 * 6 * 9.0).view(2, 3, 6, 9)
    patches = split_patches(x, 3)
    assert patches.shape == (2, 3, 2, 3, 9)
    torch.testing.assert_close(patches[1, 2, 1, 2], x[1, 2, 3:6, 6:9].flatten(), rtol=0, atol=0)
    torch.testing.assert_close(merge_patches(patches, 3), x, rtol=0, atol=0)


def test_padding_is_zero_right_and_below_and_none_where_none_is_due():
    x = torch.ones(1, 2, 5, 7)
    padded = pad_to_multiple(x, 7)
    assert padded.shape == (1, 2, 7, 7)
    assert padded[..., :5, :].eq(1).all()
    assert padded[..., 5:, :].eq(0).all()
    assert pad_to_multiple(padded, 7) is padded


def test_rbf_kan_layer_starts_as_the_release_does():
    layer = RBFKANLayer(49, 49)
    torch.testing.assert_close(layer.centers[3], torch.linspace(-2, 2, 8))
    torch.testing.assert_close(layer.log_widths.exp(), torch.full((49, 8), 4 / 7 + 1e-6))
    assert abs(layer.weight.std().item() - 0.1) < 0.005  # 19,208 draws: 10 standard errors
    assert abs(layer.base.weight.std().item() - 0.02) < 0.002
    assert layer.base.bias.eq(0).all()


def test_rbf_kan_layer_adds_a_linear_branch():
    torch.manual_seed(0)
    layer = RBFKANLayer(4, 3, num_grids=3)
    x = torch.randn(5, 4)
    basis = torch.exp(-0.5 * ((x[:, :, None] - layer.centers) / layer.log_widths.exp()) ** 2).reshape(5, 12)
    expected = basis @ layer.weight + (x * x.sigmoid()) @ layer.base.weight.t() + layer.base.bias
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ('options', 'text'),
    [(dict(num_grids=1), 'num_grids=1'), (dict(grid_range=(2.0, -2.0)), 'must increase')],
    ids=['one-grid', 'range'],
)
def test_rbf_kan_layer_names_bad_values(options, text):
    with pytest.raises(ValueError, match=text):
        RBFKANLayer(4, 4, **options)


def test_layer_scale_scales_each_channel():
    scale = LayerScale(3, 0.5)
    scale.weight.data[1] = 2.0
    x = torch.ones(2, 3, 4, 4)
    assert scale(x)[:, 0].eq(0.5).all()
    assert scale(x)[:, 1].eq(2).all()


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize('shape', [(0, 5), (4, 5), (2, 3, 5)], ids=str)
def test_linear_is_torchs_linear(monkeypatch, shape, dtype):
    monkeypatch.setattr(narrow_linear, 'SMALL', 0)  # even small products take the way of the large ones
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(*s, dtype=dtype, requires_grad=True) for s in (shape, (3, 5), (3,)))
    ours, theirs = linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias)
    torch.testing.assert_close(ours, theirs)
    for got, expected in zip(
        torch.autograd.grad(ours.sum(), (x, weight, bias)), torch.autograd.grad(theirs.sum(), (x, weight, bias))
    ):
        torch.testing.assert_close(got, expected)
