import math

import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import AdaptiveRotatedConv
from vik_mm.mixers.arc import kernel_rotation


class TestAdaptiveRotatedConv(MixerContract):
    mixer = dict(type='AdaptiveRotatedConv')
    parameters = 1764
    golden = {'arc': dict(groups=1), 'arc_dw': {}}


def test_a_dense_kernel_has_the_parameters_of_the_definition():
    assert sum(p.numel() for p in AdaptiveRotatedConv(32, (14, 14), groups=1).parameters()) == 37476


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_a_turned_kernel_is_sampled_linearly_with_its_edge_continued(kernel_size):
    torch.manual_seed(0)
    kernels = torch.randn(20, 1, kernel_size, kernel_size, dtype=torch.float64)
    angles = torch.linspace(-math.pi, math.pi, 20, dtype=torch.float64)
    turned = (kernel_rotation(angles, kernel_size) @ kernels.flatten(1)[..., None]).view_as(kernels)

    turn = torch.zeros(20, 2, 3, dtype=torch.float64)
    turn[:, 0, 0] = turn[:, 1, 1] = angles.cos()
    turn[:, 0, 1], turn[:, 1, 0] = -angles.sin(), angles.sin()
    grid = F.affine_grid(turn, kernels.shape, align_corners=True)
    expected = F.grid_sample(kernels, grid, padding_mode='border', align_corners=True)
    torch.testing.assert_close(turned, expected)


@pytest.mark.parametrize('kernel_size', [3, 5])
def test_a_quarter_turn_moves_taps_without_mixing_them(kernel_size):
    kernel = torch.randn(kernel_size, kernel_size, dtype=torch.float64)
    turned = kernel_rotation(torch.tensor(math.pi / 2, dtype=torch.float64), kernel_size) @ kernel.flatten()
    torch.testing.assert_close(turned.view_as(kernel), kernel.rot90())


@pytest.mark.parametrize('groups', [1, 4, 16])
@torch.no_grad()
def test_each_image_is_convolved_with_its_own_kernel(groups):
    torch.manual_seed(0)
    mixer = AdaptiveRotatedConv(16, (14, 14), num_kernels=3, kernel_size=5, groups=groups).eval()
    torch.nn.init.normal_(mixer.router.turn.weight)  # angles that differ
    x = torch.randn(3, 16, 6, 7)
    angles, weights = mixer.router(x)
    assert angles.std(0).min() > 1e-3
    for image in range(3):
        kernel = 0
        for i in range(3):
            turned = mixer.weight[i].flatten(2) @ kernel_rotation(angles[image, i], 5).T
            kernel = kernel + weights[image, i] * turned.unflatten(2, (5, 5))
        expected = F.conv2d(x[image : image + 1], kernel, padding=2, groups=groups)
        torch.testing.assert_close(mixer(x)[image : image + 1], expected, rtol=1e-4, atol=1e-5)


def test_angles_are_bounded_and_weights_are_not_normalised():
    mixer = AdaptiveRotatedConv(16, (14, 14), max_angle=30.0).eval()
    torch.nn.init.constant_(mixer.router.turn.weight, 1e6)
    torch.nn.init.constant_(mixer.router.weigh.bias, 1e6)
    angles, weights = mixer.router(torch.randn(2, 16, 5, 5))
    torch.testing.assert_close(angles, torch.full((2, 4), math.radians(30.0)))
    assert (weights == 1).all()


def test_angles_and_weights_are_read_off_under_dropouts_of_their_own():
    torch.manual_seed(0)
    mixer = AdaptiveRotatedConv(16, (14, 14), drop_rate=0.5).train()
    for layer in (mixer.router.turn, mixer.router.weigh):
        layer.weight.data.fill_(1.0)
    mixer.router.weigh.bias.data.zero_()
    angles, weights = mixer.router(torch.randn(64, 16, 5, 5))
    share = angles / mixer.router.max_angle
    sums = share / (1 - share.abs())  # of the summaries that the angles were read off
    assert (sums - weights.logit()).abs().max() > 0.1
    angles, weights = mixer.eval().router(torch.randn(64, 16, 5, 5))
    share = angles / mixer.router.max_angle
    torch.testing.assert_close(share / (1 - share.abs()), weights.logit(), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(('groups', 'std'), [(1, 0.042), (None, 0.24)], ids=['dense', 'depthwise'])
def test_kernels_start_as_the_authors_do(groups, std):
    torch.manual_seed(0)
    mixer = AdaptiveRotatedConv(32, (14, 14), groups=groups)
    assert mixer.weight.std().item() == pytest.approx(std, rel=0.1)
    assert mixer.router.turn.weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_kernels=0), 'num_kernels=0 must be at least 1'),
        (dict(kernel_size=2), 'kernel_size=2 must be a positive odd number'),
        (dict(groups=12), 'groups=12 must divide the 32 channels'),
        (dict(drop_rate=1.0), r'drop_rate=1.0 must be in \[0, 1\)'),
        (dict(max_angle=-1.0), 'max_angle=-1.0 must be from 0 to 180 degrees'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        AdaptiveRotatedConv(32, (14, 14), **options)
