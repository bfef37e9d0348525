"""Mixture-of-head attention."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from golden_parts import GoldenPart
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original
from vik_mm.mixers import MixtureOfHeadAttention


class TestFull(MixerContract):
    mixer = dict(type='MixtureOfHeadAttention', sr_ratio=1)
    parameters = 6916
    without_gradient = (r'gates\.routed',)  # a softmax of one head is 1
    golden = {'moh': dict(head_dims=8, shared_heads=1, routed_heads=2)}


class TestAggregated(MixerContract):
    mixer = dict(type='MixtureOfHeadAttention', sr_ratio=2)
    parameters = 8360
    without_gradient = (r'gates\.routed',)
    golden = {'moh_aggregated': dict(head_dims=8, shared_heads=2, routed_heads=1)}


def build(channels=16, grid_size=(6, 6), **options):
    torch.manual_seed(0)
    mixer = MixtureOfHeadAttention(channels, grid_size, **{'head_dims': 4, **options}).double()
    for name, parameter in mixer.named_parameters():
        torch.nn.init.normal_(parameter, std=0.1 if name.startswith('cpb') else 0.5)
    return mixer


def apply(conv, x):
    """A 1x1 convolution on ``[N, C]``."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def bias_of(mixer, dy, dx):
    offset = [d * 8 / max(1, side - 1) for d, side in zip((dy, dx), mixer.grid_size)]
    offset = torch.tensor(offset, dtype=torch.float64)
    return mixer.cpb(offset.sign() * (offset.abs() + 1).log2() / 3)  # [h]


def cells_of(length, count):
    """Pixels that adaptive pooling averages in each cell."""
    return [range(i * length // count, -(-(i + 1) * length // count)) for i in range(count)]


def by_formula(mixer, x, cells=None):
    """Pixel by pixel and head by head, for one image ``[C, H, W]``; ``cells`` of the aggregated form."""
    channels, height, width = x.shape
    heads, tokens = mixer.num_heads, x.flatten(1).t()
    scale = F.softplus(mixer.temperature)[:, 0, 0]

    def split(tokens):
        return tokens.unflatten(1, (heads, -1)).transpose(0, 1)  # [h, N, d]

    if cells is None:
        q, k, v = (split(part) for part in apply(mixer.qkv, tokens).chunk(3, dim=1))
        keys = [(y, x_, None) for y in range(height) for x_ in range(width)]
        pooled_k, pooled_v = k, v
    else:
        q, (k, v) = split(apply(mixer.q, tokens)), (split(part) for part in apply(mixer.kv, tokens).chunk(2, dim=1))
        z = F.adaptive_avg_pool2d(F.gelu(apply(mixer.pool, tokens)).t().view_as(x)[None], cells)[0].flatten(1).t()
        pooled_k, pooled_v = (split(part) for part in apply(mixer.kv, mixer.pool_norm(z)).chunk(2, dim=1))
        means = [[sum(cell) / len(cell) for cell in cells_of(*axis)] for axis in zip((height, width), cells)]
        keys = [(y, x_, None) for y in means[0] for x_ in means[1]]
    gates, out = mixer.gates(x[None]), torch.empty(heads, height * width, channels // heads, dtype=x.dtype)
    unit = F.normalize(q, dim=2)
    for pixel in range(height * width):
        y, x_ = divmod(pixel, width)
        near = (
            []
            if cells is None
            else [
                (tap, (y + tap // 3 - 1) * width + x_ + tap % 3 - 1)
                for tap in range(9)
                if 0 <= y + tap // 3 - 1 < height and 0 <= x_ + tap % 3 - 1 < width
            ]
        )
        far_bias = torch.stack([bias_of(mixer, y - ky, x_ - kx) for ky, kx, _ in keys], dim=1)  # [h, P]
        for head in range(heads):
            query = unit[head, pixel] + mixer.query_embedding[head, 0]
            query = query * scale[head] * torch.tensor(float(len(near) + len(keys))).double().log()
            scores = F.normalize(pooled_k[head], dim=1) @ query + far_bias[head]
            local = [F.normalize(k[head, at], dim=0) @ query + mixer.local_bias[head, tap] for tap, at in near]
            weights = torch.cat([torch.stack(local), scores] if near else [scores]).softmax(0)
            total = weights[len(near) :] @ pooled_v[head]
            for weight, (tap, at) in zip(weights, near):
                token = unit[head, pixel] @ mixer.local_tokens[head, :, tap] + mixer.local_weights[head, 0, tap]
                total = total + (weight + token) * v[head, at]
            out[head, pixel] = total if gates is None else total * gates[0, head, pixel]
    return apply(mixer.proj, out.transpose(0, 1).flatten(1)).t().view_as(x)


@torch.no_grad()
@pytest.mark.parametrize(
    ('size', 'options', 'cells'),
    [
        ((1, 1), dict(sr_ratio=1), None),
        ((3, 5), dict(sr_ratio=1), None),
        ((3, 2), dict(sr_ratio=1, grid_size=(1, 4)), None),
        ((1, 1), dict(sr_ratio=4), (1, 1)),
        ((1, 5), dict(sr_ratio=2), (1, 2)),
        ((5, 7), dict(sr_ratio=3, qkv_bias=False), (1, 2)),
        ((4, 5), dict(sr_ratio=2, pool_size=3), (3, 3)),
        ((2, 5), dict(sr_ratio=2, pool_size=3), (2, 3)),
    ],
    ids=str,
)
def test_any_size_equals_the_formula_pixel_by_pixel(size, options, cells):
    mixer = build(**options)
    x = torch.randn(1, 16, *size, dtype=torch.float64)
    torch.testing.assert_close(mixer(x)[0], by_formula(mixer, x[0], cells), rtol=1e-8, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize(
    ('heads', 'shared', 'routed'), [(4, 1, 2), (4, 2, 1), (4, 0, 3), (4, 4, 0), (2, 1, 1), (6, 2, 4)]
)
def test_gates_are_the_codes(heads, shared, routed):
    mixer, x = build(heads * 4, shared_heads=shared, routed_heads=routed), torch.randn(heads * 4, 3, 5).double()
    tokens, gates = x.flatten(1).t(), mixer.gates(x[None])[0, :, :, 0].t()  # [N, h]
    for token, gate in zip(tokens, gates):
        expected = []
        kinds = 2 * apply(mixer.gates.kinds, token).softmax(0) if shared and routed else [1, 1]
        if shared:
            even = torch.ones(1).double()
            expected += list(kinds[0] * (shared * apply(mixer.gates.shared, token).softmax(0) if shared > 1 else even))
        if routed:
            shares = apply(mixer.gates.routed, token).softmax(0)
            kept = shares.topk(routed).indices.tolist()
            total = shares[kept].sum()
            expected += [kinds[1] * routed * shares[e] / total if e in kept else 0.0 for e in range(heads - shared)]
        torch.testing.assert_close(gate, torch.tensor([float(value) for value in expected]).double())


def test_a_single_head_has_no_gate_and_the_defaults_follow_the_heads():
    assert build(4).gates(torch.randn(1, 4, 2, 2).double()) is None
    kept = {heads: (g.shared_heads, g.routed_heads) for heads in (2, 3, 4, 8, 16) for g in [build(4 * heads).gates]}
    assert kept == {2: (1, 1), 3: (1, 1), 4: (1, 2), 8: (2, 4), 16: (4, 8)}
    assert [build(4, (side, side)).sr_ratio for side in (56, 28, 14, 7, 3)] == [8, 4, 2, 1, 1]


def test_the_balance_loss_is_the_originals_and_has_a_gradient():
    golden = GoldenPart('moh')
    mixer = MixtureOfHeadAttention(32, (14, 14), head_dims=8, shared_heads=1, routed_heads=2, sr_ratio=1)
    load_original(mixer, golden.weights(mixer))
    mixer.eval()(golden.arrays['x'])
    assert mixer.balance_loss is None
    mixer.train()(golden.arrays['x'])
    assert mixer.balance_loss.item() == pytest.approx(golden.info['aux_loss_train_mode'], abs=2e-5)
    mixer.balance_loss.backward()
    assert mixer.gates.routed.weight.grad.any()


def test_a_mixer_with_a_balance_loss_can_be_copied_and_pickled():
    mixer = build().train()
    mixer(torch.randn(1, 16, 3, 3).double())
    assert mixer.balance_loss is not None
    for other in (copy.deepcopy(mixer), pickle.loads(pickle.dumps(mixer))):
        assert other.balance_loss is None
        assert torch.equal(other.gates.routed.weight, mixer.gates.routed.weight)


def test_with_a_pool_size_the_cost_grows_linearly():
    mixer = build(pool_size=3, sr_ratio=2, max_tokens=100)
    mixer(torch.randn(1, 16, 33, 33).double())  # 33 * 33 * 9 pairs
    with pytest.raises(BadInputError, match='would compare 1089 pixels with 256 each'):
        build(sr_ratio=2, max_tokens=100)(torch.randn(1, 16, 33, 33).double())
    with pytest.raises(BadInputError, match='would compare 110 pixels with 110 each'):
        build(sr_ratio=1, max_tokens=100)(torch.randn(1, 16, 10, 11).double())


def test_a_checkpoint_of_the_other_attention_is_named():
    full, pooled = build(sr_ratio=1), build(sr_ratio=2)
    with pytest.raises(BadInputError, match='was made with an sr_ratio of more than 1, this mixer has 1'):
        full.load_state_dict(pooled.state_dict())
    with pytest.raises(BadInputError, match='was made with an sr_ratio of 1, this mixer has 2'):
        pooled.load_state_dict(full.state_dict())


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=5), 'head_dims=5 must divide the 16 channels'),
        (dict(shared_heads=5), 'shared_heads=5 must be from 0 to the 4 heads'),
        (dict(shared_heads=2, routed_heads=3), 'routed_heads=3 must be from 0 to the 2 heads that shared_heads=2'),
        (dict(shared_heads=2, routed_heads=0), 'leaves 2 heads that no pixel keeps; set shared_heads=4'),
        (dict(sr_ratio=0), 'sr_ratio=0 and pool_size=None must be at least 1'),
        (dict(pool_size=0), 'pool_size=0 must be at least 1'),
    ],
    ids=['heads', 'shared', 'routed', 'unused', 'ratio', 'pool'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        MixtureOfHeadAttention(16, (14, 14), **{'head_dims': 4, **options})
