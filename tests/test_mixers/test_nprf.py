import math

import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import NPRFAttention
from vik_mm.mixers.nprf import resize_offsets


class TestNPRFAttention(MixerContract):
    mixer = dict(type='NPRFAttention')
    parameters = 4953
    golden = {'nprf': dict(head_dims=16)}


class TestNPRFByFFT(MixerContract):
    mixer = dict(type='NPRFAttention', backend='fft', head_dims=16, num_features=6)
    parameters = 5682
    golden = {'nprf': dict(num_features=32)}
    no_export = "not with `backend='fft'`, a graph fixes the lengths of transforms"


def mixer_of(size, **options):
    torch.manual_seed(0)
    mixer = NPRFAttention(16, size, **{'head_dims': 8, 'num_features': 6, **options}).double()
    mixer.rel_bias.data.normal_()
    return mixer


@pytest.mark.parametrize('size', [(1, 1), (1, 7), (5, 5), (14, 14), (20, 12), (11, 23)], ids=str)
def test_the_fft_form_equals_the_dense_form(size):
    mixer = mixer_of((14, 14))
    x = torch.randn(2, 16, *size, dtype=torch.double, requires_grad=True)
    w, results = torch.randn(2, 16, *size, dtype=torch.double), []
    for mixer.backend in ('dense', 'fft'):
        y = mixer(x)
        results.append([y, *torch.autograd.grad((y * w).sum(), [x, *mixer.parameters()])])
    for dense, fft in zip(*results):
        assert (dense - fft).abs().max() <= 1e-6 * max(1, dense.abs().max())


@torch.no_grad()
def test_the_answer_is_the_sum_of_the_definition():
    mixer = mixer_of((3, 4))
    x = torch.randn(1, 16, 3, 4, dtype=torch.double)
    q, k, v = mixer.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, 2, 8))[0].unbind(1)  # [N, h, d]

    def phi(z, head):
        z = z / z.norm()
        return (mixer.features[head] @ z).exp() * math.exp(-0.5) / 6**0.5

    answer = torch.zeros(12, 2, 8, dtype=torch.double)
    for head in range(2):
        for i in range(12):
            total = 0
            for j in range(12):
                bias = mixer.rel_bias[head, j // 4 - i // 4 + 2, j % 4 - i % 4 + 3]
                weight = bias.exp() * phi(q[i, head], head) @ phi(k[j, head], head)
                answer[i, head] += weight * v[j, head]
                total += weight
            answer[i, head] /= total
    expected = mixer.proj(answer.flatten(1)).t().view(1, 16, 3, 4)
    for mixer.backend in ('dense', 'fft'):
        torch.testing.assert_close(mixer(x), expected)


@pytest.mark.parametrize('new', [(14, 14), (3, 5), (6, 2), (9, 4)], ids=str)
def test_offsets_are_resized_linearly_around_offset_0(new):
    table = torch.randn(2, 7, 9)
    resized = resize_offsets(table, new)
    size = tuple(2 * side - 1 for side in new)
    expected = F.interpolate(table[None], size, mode='bilinear', align_corners=True)[0]
    torch.testing.assert_close(resized, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(resized[:, new[0] - 1, new[1] - 1], table[:, 3, 4])


def test_a_side_of_1_takes_the_row_of_offset_0():
    table = torch.randn(2, 7, 9)
    assert torch.equal(resize_offsets(table, (1, 5)), table[:, 3:4])
    assert torch.equal(resize_offsets(table, (1, 1)), table[:, 3:4, 4:5])
    assert torch.equal(resize_offsets(table[:, 3:4], (3, 5)), table[:, 3:4].expand(2, 5, 9))


def test_a_checkpoint_of_another_grid_keeps_its_biases_by_relative_offset():
    old, new = mixer_of((4, 5)), mixer_of((7, 9))
    new.load_state_dict(old.state_dict())
    torch.testing.assert_close(new.rel_bias.data, resize_offsets(old.rel_bias.data, (7, 9)))
    assert torch.equal(new.features, old.features)
    other_heads = mixer_of((4, 5), head_dims=4)
    with pytest.raises(RuntimeError, match='size mismatch for rel_bias'):
        new.load_state_dict(other_heads.state_dict())


@torch.no_grad()
@pytest.mark.parametrize('backend', ['dense', 'fft'])
def test_large_biases_do_not_overflow(backend):
    mixer, x = mixer_of((5, 6), backend=backend).float(), torch.randn(1, 16, 5, 6)
    expected = mixer(x)
    mixer.rel_bias += 200  # a common factor, which cancels
    torch.testing.assert_close(mixer(x), expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('backend', ['dense', 'fft'])
def test_sums_are_in_float32_under_autocast(backend):
    mixer, x = mixer_of((5, 6), backend=backend).float(), torch.randn(1, 16, 5, 6)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        y = mixer(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), mixer(x), rtol=0.05, atol=0.02)


def test_the_backend_follows_the_pixels_unless_it_is_named():
    mixer = mixer_of((4, 4))
    side = math.isqrt(NPRFAttention.dense_tokens)
    assert mixer.choose_backend((side, side)) == 'dense'
    assert mixer.choose_backend((side, side + 1)) == 'fft'
    assert mixer_of((4, 4), backend='fft').choose_backend((2, 2)) == 'fft'


def test_the_dense_form_refuses_maps_with_too_many_pixels():
    mixer = mixer_of((4, 4), backend='dense', max_tokens=48)
    with pytest.raises(BadInputError, match='max_tokens=48'):
        mixer(torch.randn(1, 16, 7, 7, dtype=torch.double))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(num_features=0), 'num_features=0 must be an integer of at least 1'),
        (dict(backend='triton'), r"backend='triton' is unknown; choose one of \['dense', 'fft'\], or None"),
        (dict(head_dims=5), 'head_dims=5 must divide the 16 channels'),
    ],
    ids=['features', 'backend', 'heads'],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        mixer_of((4, 4), **options)
