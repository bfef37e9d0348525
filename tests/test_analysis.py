"""Numbers about trained attention, and the pictures made of them."""

import matplotlib.image
import numpy as np
import pytest
import torch

from vik_mm import ViTKArAt
from vik_mm.analysis import attention_maps, edge_functions, singular_values
from vik_mm.visualization import draw_attention, draw_edge_functions, draw_singular_values

ARCH = dict(embed_dims=24, num_layers=2, num_heads=3, feedforward_channels=48)
KARAT = dict(type='KArAt', grid_size=2, hidden_dim=4, base_activation='silu')


def make(attn_cfg, **options):
    torch.manual_seed(0)
    return ViTKArAt(ARCH, img_size=32, patch_size=8, attn_cfg=attn_cfg, **options)


@pytest.mark.parametrize(
    'attn_cfg', [dict(type='Softmax'), KARAT, KARAT | dict(universal=True)], ids=['softmax', 'blockwise', 'universal']
)
def test_weights_are_those_that_the_block_weighs_its_values_with(attn_cfg):
    model = make(attn_cfg).train()
    images = torch.randn(2, 3, 40, 32)
    maps = attention_maps(model, images, block=0)
    assert model.training
    assert (maps.token_grid, maps.num_prefix_tokens) == ((5, 4), 1)
    assert maps.scores.shape == maps.weights.shape == (2, 3, 21, 21)
    attention = model.eval().layers[0].attn
    seen = []
    attention.register_forward_hook(lambda module, inputs, output: seen.extend([inputs[0], output]))
    with torch.no_grad():
        model(images)
        values = attention.project(seen[0])[2]
        answer = attention.proj((torch.from_numpy(maps.weights) @ values).transpose(1, 2).flatten(2))
    torch.testing.assert_close(answer, seen[1])


def test_edges_sum_up_to_the_hidden_features():
    operator = make(KARAT).layers[0].attn.operator
    x = np.linspace(-2, 2, 5)
    curves = edge_functions(operator, 1, x)
    assert curves.shape == (4, 17, 5)
    scores = torch.from_numpy(x).float()[None, None, :, None].expand(1, 3, 5, 17)
    with torch.no_grad():
        expected = operator.hidden(scores)[0, 1].numpy()
    np.testing.assert_allclose(curves.sum(1).T, expected, rtol=1e-4, atol=1e-5)


def test_singular_values_of_a_matrix_of_rank_one():
    weights = np.outer(np.arange(1.0, 5), np.ones(4))
    np.testing.assert_allclose(singular_values(weights), [1, 0, 0, 0], atol=1e-12)


def test_pictures(tmp_path):
    model = make(KARAT)
    maps = attention_maps(model, torch.randn(1, 3, 32, 32))
    image = np.zeros((32, 32, 3), np.uint8)
    x = np.linspace(-3, 3, 20)
    pictures = [
        draw_attention(tmp_path / 'a/maps.png', image, maps.scores[0], maps.weights[0], maps.token_grid),
        draw_edge_functions(tmp_path / 'edges.png', x, edge_functions(model.layers[0].attn.operator, 0, x)),
        draw_singular_values(tmp_path / 'values.png', dict(KArAt=singular_values(maps.weights))),
    ]
    for picture in pictures:
        assert matplotlib.image.imread(picture).std() > 0.01


def test_what_cannot_be_looked_at_is_named(tmp_path):
    model, images = make(KARAT), torch.zeros(1, 3, 32, 32)
    with pytest.raises(ValueError, match='block=2 must be from -2 to 1'):
        attention_maps(model, images, 2)
    with pytest.raises(ValueError, match='no attention'):
        attention_maps(make(dict(type='MultiPatchRBFKAN', patch_size=4)), images)
    with pytest.raises(ValueError, match='head=3 must be from 0 to 2'):
        edge_functions(model.layers[0].attn.operator, 3, np.zeros(1))
    maps = attention_maps(model, images)
    with pytest.raises(ValueError, match='query=17'):
        draw_attention(tmp_path / 'x.png', np.zeros((2, 2, 3)), maps.scores[0], maps.weights[0], (4, 4), query=17)
