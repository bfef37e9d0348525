"""Subspace attention of ULSAM."""

import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract, move

from vik_mm.errors import BadInputError
from vik_mm.mixers import SubspaceAttention


class TestULSAM(MixerContract):
    mixer = dict(type='SubspaceAttention')
    parameters = 172
    golden = 'ulsam'
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


@torch.no_grad()
def build(**options):
    torch.manual_seed(0)
    return move(SubspaceAttention(12, (14, 14), num_subspaces=3, **options)).eval()


@torch.no_grad()
def test_each_subspace_is_computed_apart():
    mixer, x = build(), torch.randn(2, 12, 5, 6)
    assert sum(p.numel() for p in SubspaceAttention(48, (14, 14), num_subspaces=3).parameters()) == 249
    for number in range(3):
        group = slice(4 * number, 4 * number + 4)
        part = x[:, group] * mixer.depthwise.weight[group, 0] + mixer.depthwise.bias[group, None, None]
        part = F.relu(
            part * mixer.depthwise_norm.weight[group, None, None] * (1 + 1e-5) ** -0.5
            + mixer.depthwise_norm.bias[group, None, None]
        )
        part = F.max_pool2d(part, 3, stride=1, padding=1)
        score = (
            torch.einsum('bchw,c->bhw', part, mixer.pointwise.weight[number, :, 0, 0]) + mixer.pointwise.bias[number]
        )
        score = score * mixer.pointwise_norm.weight[number] * (1 + 1e-5) ** -0.5 + mixer.pointwise_norm.bias[number]
        weights = F.relu(score).flatten(1).softmax(1).view(2, 1, 5, 6)
        torch.testing.assert_close(mixer(x)[:, group], x[:, group] * (1 + weights))


@torch.no_grad()
def test_the_residual_and_the_scale_are_options():
    x = torch.randn(2, 12, 5, 6)
    torch.testing.assert_close(build(residual=False)(x) + x, build()(x))
    torch.testing.assert_close(build(residual=False, rescale=True)(x), 30 * build(residual=False)(x))


def test_running_statistics_are_not_the_last_batch_alone():
    mixer = build().train()
    mixer(10 + torch.randn(2, 12, 5, 6))
    assert mixer.depthwise_norm.momentum == mixer.pointwise_norm.momentum == 0.1


def test_subspaces_that_do_not_divide_the_channels_are_refused():
    with pytest.raises(BadInputError, match='num_subspaces=5 must divide the 32 channels'):
        SubspaceAttention(32, (14, 14), num_subspaces=5)
