import json

import pytest
import torch
from golden_parts import DATA
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import Fibottention
from vik_mm.mixers.fibottention import head_order, wythoff_offsets

TABLE = json.loads((DATA / 'mixers' / 'fibottention_offsets.json').read_text())


class TestFibottention(MixerContract):
    mixer = dict(type='Fibottention', head_dims=8)
    parameters = 4224
    golden = {'fibottention': dict(masking='multiply'), 'fibottention_exclude': {}}


@pytest.mark.parametrize(
    'row', TABLE, ids=lambda row: '{tokens}-{heads}-{kind}'.format(kind='modified' if row['modified'] else '', **row)
)
def test_distances_and_the_order_of_heads_are_the_authors(row):
    offsets = wythoff_offsets(row['heads'], row['tokens'], modified=row['modified'])
    assert [list(each) for each in offsets] == row['before_shuffle']
    for depth, order in row['order_at_depth'].items():
        assert list(head_order(row['heads'], int(depth))) == order


def mask_of(offsets, num_tokens):
    """Pairs of pixels that each head takes, from the definition."""
    mask = torch.zeros(len(offsets), num_tokens, num_tokens, dtype=torch.bool)
    for head, row in enumerate(offsets):
        for p in range(num_tokens):
            partners = {p - o for o in row} | {p + o for o in row}
            partners = {q for q in partners if 0 <= q < num_tokens} or {p}
            mask[head, p, list(partners)] = True
    return mask


@pytest.mark.parametrize('modified', [False, True], ids=['', 'modified'])
@pytest.mark.parametrize(
    ('heads', 'size'),
    [
        (4, (12, 20)),  # sparse
        (1, (9, 16)),  # sparse, with the window of a single head
        (16, (7, 7)),  # dense, and some pixels have no partner
        (4, (2, 2)),  # distances beyond the map
        (2, (1, 1)),
    ],
    ids=str,
)
def test_attention_equals_a_brute_force_mask(heads, size, modified):
    torch.manual_seed(0)
    mixer = Fibottention(2 * heads, size, head_dims=2, modified=modified, depth_id=3).double()
    x = torch.randn(2, 2 * heads, *size, dtype=torch.float64, requires_grad=True)
    factors = torch.randn_like(x)

    rows = wythoff_offsets(heads, size[0] * size[1], modified=modified)
    mask = mask_of([rows[row] for row in head_order(heads, 3)], size[0] * size[1])
    q, k, v = mixer.qkv(x).flatten(2).unflatten(1, (3, heads, 2)).unbind(1)
    scores = torch.einsum('bhdn,bhdm->bhnm', q, k) * 2**-0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(3)
    expected = mixer.proj(torch.einsum('bhnm,bhdm->bhdn', weights, v).flatten(1, 2).view_as(x))

    out = mixer(x)
    torch.testing.assert_close(out, expected)
    grads = [torch.autograd.grad((y * factors).sum(), x)[0] for y in (out, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize('num_tokens', [1, 4, 49, 240, 784])
@pytest.mark.parametrize('heads', [1, 2, 16])
def test_the_mask_of_traced_models_holds_the_same_distances(heads, num_tokens):
    mixer = Fibottention(heads, (14, 14), head_dims=1, masking='multiply', depth_id=1)
    mask = mixer.dense_mask(num_tokens, torch.device('cpu'))
    numbers = torch.arange(num_tokens)
    distance = (numbers[:, None] - numbers).abs()
    for head, row in enumerate(mixer.offsets(num_tokens)):
        assert torch.equal(mask[head], torch.isin(distance, torch.tensor(row)))


def test_only_the_form_with_multiplied_masks_refuses_large_maps():
    x = torch.randn(1, 8, 40, 40)
    Fibottention(8, (14, 14), head_dims=8, max_tokens=1500)(x)
    with pytest.raises(BadInputError, match='compare 1600 pixels with 1600 each.*max_tokens=1500'):
        Fibottention(8, (14, 14), head_dims=8, max_tokens=1500, masking='multiply')(x)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=12), 'head_dims=12 must divide the 32 channels'),
        (dict(masking='add'), "masking='add' is unknown; choose 'exclude' or 'multiply'"),
        (dict(min_window=0), 'min_window=0 must be at least 1'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        Fibottention(32, (14, 14), **options)
