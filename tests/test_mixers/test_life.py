import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import LIFEAttention


class TestLIFEAttention(MixerContract):
    mixer = dict(type='LIFEAttention', head_dims=16)
    parameters = 5298
    golden = 'life'


@pytest.mark.parametrize(('embed_dims', 'parameters'), [(32, 5298), (48, 10944)])
def test_the_number_of_parameters_is_exact_whether_or_not_3_divides_the_width(embed_dims, parameters):
    mixer = LIFEAttention(embed_dims, (14, 14), head_dims=16)
    assert sum(p.numel() for p in mixer.parameters()) == parameters


@pytest.mark.parametrize(
    ('embed_dims', 'channels'), [(12, (4, 4, 4)), (10, (4, 3, 3)), (8, (4, 2, 2))], ids=['12', '10', '8']
)
@torch.no_grad()
def test_scales_are_a_chain_and_each_has_queries_keys_and_values(embed_dims, channels):
    torch.manual_seed(0)
    mixer = LIFEAttention(embed_dims, (14, 14), head_dims=embed_dims // 2)
    x = torch.randn(1, embed_dims, 3, 5)
    maps = [mixer.scale1(x)]
    maps.append(mixer.pointwise2(mixer.depthwise2(maps[0])))
    maps.append(mixer.pointwise3(mixer.depthwise3(maps[1])))
    assert [each.shape[1] for each in maps] == [3 * width for width in channels]
    q, k, v = (
        torch.cat([each[0, part * width : (part + 1) * width].flatten(1) for each, width in zip(maps, channels)])
        for part in range(3)
    )
    heads = []
    for first in (0, embed_dims // 2):
        head = slice(first, first + embed_dims // 2)
        weights = (q[head].T @ k[head] * (embed_dims // 2) ** -0.5).softmax(1)
        heads.append(v[head] @ weights.T)
    expected = mixer.proj(torch.cat(heads).view(1, embed_dims, 3, 5))
    torch.testing.assert_close(mixer(x), expected)


def test_a_map_of_too_many_pixels_is_refused():
    with pytest.raises(BadInputError, match='compare 2116 pixels with 2116 each.*max_tokens=2000'):
        LIFEAttention(32, (14, 14), max_tokens=2000)(torch.randn(1, 32, 46, 46))


@pytest.mark.parametrize(
    ('embed_dims', 'text'), [(2, 'embed_dims=2 must be at least 3'), (40, 'head_dims=32 must divide the 40 channels')]
)
def test_a_wrong_width_is_named(embed_dims, text):
    with pytest.raises(BadInputError, match=text):
        LIFEAttention(embed_dims, (14, 14))
