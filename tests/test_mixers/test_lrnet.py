import pytest
import torch
from golden_parts import GoldenPart
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import LocalRelation
from vik_mm.mixers.lrnet import local_relation


class TestLocalRelation(MixerContract):
    mixer = dict(type='LocalRelation')
    parameters = 492

    def test_one_exported_program_serves_all_sizes(self):
        self.mixer = dict(type='LocalRelation', window_size=3)  # 9 neighbours instead of 49: a fifth of the time
        super().test_one_exported_program_serves_all_sizes()


@pytest.mark.parametrize(
    ('part', 'similarity'), [('lrnet_op_mult', 'multiply'), ('lrnet_op', 'squared'), ('lrnet_op_abs', 'abs')]
)
def test_the_operator_gives_the_originals_output_and_gradients(part, similarity):
    golden = GoldenPart(part)
    inputs = {name: golden.arrays[name].requires_grad_() for name in ('q', 'k', 'x', 'prior')}
    out = local_relation(*inputs.values(), similarity)
    golden.check('out', out, bar=2e-5)
    (out * golden.arrays['w']).sum().backward()
    for name, value in inputs.items():
        golden.check(f'grad_{name}', value.grad, bar=2e-4)


@pytest.mark.parametrize('similarity', ['multiply', 'squared', 'abs'])
@pytest.mark.parametrize('size', [(4, 5), (1, 7), (9, 3)], ids=str)
def test_the_softmax_is_over_the_pixels_of_the_map_only(size, similarity):
    torch.manual_seed(0)
    q, k, v = (torch.randn(channels, *size, dtype=torch.float64) for channels in (2, 2, 6))
    prior = torch.randn(2, 5, 5, dtype=torch.float64)
    relate = dict(multiply=lambda a, b: a * b, squared=lambda a, b: -((a - b) ** 2), abs=lambda a, b: -(a - b).abs())
    expected = torch.empty_like(v)
    for y in range(size[0]):
        for x in range(size[1]):
            near = [(a, b) for a in range(y - 2, y + 3) for b in range(x - 2, x + 3)]
            near = [(a, b) for a, b in near if 0 <= a < size[0] and 0 <= b < size[1]]
            for c in range(6):
                g = c // 3
                scores = [relate[similarity](q[g, y, x], k[g, a, b]) + prior[g, a - y + 2, b - x + 2] for a, b in near]
                weights = torch.stack(scores).softmax(0)
                expected[c, y, x] = (weights * torch.stack([v[c, a, b] for a, b in near])).sum()
    out = local_relation(q[None], k[None], v[None], prior, similarity)[0]
    torch.testing.assert_close(out, expected)


def test_weights_add_up_to_one_however_low_the_scores_are():
    """The operator gives pixels outside of the map the score -100, and lower scores lose weight to them."""
    q, k = torch.full((1, 1, 3, 3), 40.0), torch.zeros(1, 1, 3, 3)
    out = local_relation(q, k, torch.ones(1, 8, 3, 3), torch.zeros(1, 7, 7), 'squared')
    torch.testing.assert_close(out, torch.ones(1, 8, 3, 3))


def test_the_prior_is_indexed_as_a_convolutions_kernel_is():
    prior = torch.zeros(1, 3, 3)
    prior[0, 0, 2] = 100.0  # the neighbour above to the right
    zeros, v = torch.zeros(1, 1, 5, 5), torch.randn(1, 4, 5, 5)
    out = local_relation(zeros, zeros, v, prior)
    torch.testing.assert_close(out[..., 1:, :-1], v[..., :-1, 1:])


@pytest.mark.parametrize(
    ('options', 'parameters'), [(dict(proj=True), 2604), (dict(prior='table'), 264 + 4 * 49)], ids=['proj', 'table']
)
def test_options_have_the_parameters_of_the_definition(options, parameters):
    mixer = LocalRelation(32, (14, 14), **options)
    assert sum(p.numel() for p in mixer.parameters()) == parameters
    x = torch.randn(1, 32, 4, 6)
    assert mixer(x).shape == x.shape


def test_a_table_of_zeros_is_a_prior_of_nothing():
    assert not LocalRelation(32, (14, 14), prior='table').position_prior().any()


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(window_size=4), 'window_size=4 must be a positive odd number'),
        (dict(channels_per_group=12), 'channels_per_group=12 must divide the 32 channels'),
        (dict(similarity='cosine'), r"similarity='cosine' is unknown; choose one of \['multiply', 'squared', 'abs'\]"),
        (dict(prior='sine'), "prior='sine' is unknown; choose 'mlp' or 'table'"),
        (dict(prior_dims=0), 'prior_dims=0 must be at least 1'),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        LocalRelation(32, (14, 14), **options)
