import math

import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import BiLevelRoutingAttention


class TestBiLevelRoutingAttention(MixerContract):
    mixer = dict(type='BiLevelRoutingAttention', head_dims=16)
    parameters = 5056
    golden = {'biformer': dict(topk=4)}


def attend_by_mask(mixer, qkv):
    """Dense attention of all pixels under a mask, region by region from the definition."""
    _, _, height, width = qkv.shape
    rows, columns = (
        math.ceil(side / mixer.num_regions)
        for side in ((height, width) if mixer.region == 'count' else mixer.grid_size)
    )
    across = math.ceil(width / columns)
    region = torch.tensor([[y // rows * across + x // columns for x in range(width)] for y in range(height)]).flatten()
    outs = []
    for image in qkv.flatten(2):
        q, k, v = image.chunk(3)  # [C, N]
        mean_q, mean_k = (torch.stack([part[:, region == r].mean(1) for r in region.unique()]) for part in (q, k))
        affinity = mean_q @ mean_k.T
        chosen = affinity.topk(min(mixer.topk, len(affinity)), dim=1).indices
        allowed = torch.zeros_like(affinity, dtype=torch.bool).scatter(1, chosen, True)[region][:, region]
        q, k, v = (part.unflatten(0, (mixer.num_heads, -1)) for part in (q, k, v))
        scores = torch.einsum('hdn,hdm->hnm', q, k) * mixer.embed_dims**-0.5
        weights = scores.masked_fill(~allowed, -torch.inf).softmax(2)
        outs.append(torch.einsum('hnm,hdm->hdn', weights, v).flatten(0, 1))
    return torch.stack(outs).unflatten(2, (height, width))


@pytest.mark.parametrize('region', ['size', 'count'])
@pytest.mark.parametrize(
    ('grid_size', 'size'),
    [
        ((14, 14), (14, 14)),  # regions divide the map
        ((14, 14), (17, 23)),  # the last regions are cut
        ((28, 20), (9, 30)),  # regions that are not square
        ((14, 14), (1, 3)),  # fewer pixels than regions
        ((14, 14), (3, 20)),
    ],
    ids=str,
)
def test_routing_equals_a_brute_force_mask(region, grid_size, size):
    torch.manual_seed(0)
    mixer = BiLevelRoutingAttention(16, grid_size, head_dims=8, topk=3, region=region)
    qkv = torch.randn(2, 48, *size, dtype=torch.float64, requires_grad=True)
    factors = torch.randn(2, 16, *size, dtype=torch.float64)
    out, expected = mixer.attend(qkv), attend_by_mask(mixer, qkv)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad((y * factors).sum(), qkv)[0] for y in (out, expected)]
    torch.testing.assert_close(*grads)


def test_topk_follows_the_authors_at_224_pixels():
    grids = [56, 28, 14, 7]
    assert [BiLevelRoutingAttention(32, (side, side)).topk for side in grids] == [1, 4, 16, 49]
    assert BiLevelRoutingAttention(32, (1, 1)).topk == 49
    assert BiLevelRoutingAttention(32, (200, 200)).topk == 1


@torch.no_grad()
def test_regions_by_size_and_by_count_agree_on_the_native_grid():
    torch.manual_seed(0)
    by_size = BiLevelRoutingAttention(32, (12, 20))
    by_count = BiLevelRoutingAttention(32, (12, 20), region='count')
    by_count.load_state_dict(by_size.state_dict())
    x = torch.randn(1, 32, 12, 20)
    torch.testing.assert_close(by_size(x), by_count(x), rtol=0, atol=0)
    assert by_size.region_size((48, 80)) == by_size.region_size((12, 20)) == (2, 3)
    assert by_count.region_size((48, 80)) == (7, 12)


@torch.no_grad()
def test_half_precision_chooses_the_regions_that_single_precision_chooses():
    torch.manual_seed(0)
    mixer = BiLevelRoutingAttention(32, (14, 14))
    cut = 1 + 0.05 * torch.randn(4, 49, 4, 96).bfloat16()  # queries and keys of all regions are alike
    is_real = torch.ones(49, 4, dtype=torch.bool)
    expected = mixer.route(cut.float(), is_real, 3).sort().values
    assert torch.equal(mixer.route(cut, is_real, 3).sort().values, expected)
    with torch.autocast('cpu', torch.bfloat16):
        assert torch.equal(mixer.route(cut.float(), is_real, 3).sort().values, expected)


@torch.no_grad()
def test_a_map_with_too_many_pairs_is_refused():
    mixer = BiLevelRoutingAttention(32, (14, 14), region='count', max_tokens=200)
    mixer(torch.randn(1, 32, 14, 14))
    with pytest.raises(BadInputError, match='max_tokens=200 squared.*smaller images.*token_mixer takes a list'):
        mixer(torch.randn(1, 32, 32, 32))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=12), r'head_dims=12 must divide the 32 channels; choose one of \[1, 2, 4, 8, 16, 32\]'),
        (dict(num_regions=0), 'num_regions=0 must be at least 1'),
        (dict(topk=0), 'topk=0 must be at least 1'),
        (dict(region='window'), "region='window' is unknown; choose 'size' or 'count'"),
        (dict(local_kernel=4), 'local_kernel=4 must be a positive odd number'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        BiLevelRoutingAttention(32, (14, 14), **options)
