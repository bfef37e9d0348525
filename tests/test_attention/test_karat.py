"""The operator of Kolmogorov-Arnold attention: formulas, gradients, start values, resampling, refusals."""

import weakref

import numpy as np
import pytest
import scipy.interpolate
import torch

from vik_mm.attention import BASES, KArAt, TokenAttention, resample_tokens
from vik_mm.attention import bases as bases_module


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(basis='fourier', heads=2, grid=(3, 4), hidden=5, dtype=torch.float64, **options):
    return KArAt(heads, grid, basis=basis, hidden_dim=hidden, **options).to(dtype)


# The functions of an edge in numpy: a value, the shapes of one edge, the token's number and the number of tokens.
def _t(x, shapes):
    return (x - shapes[0]) / shapes[1]


def _meyer(t):
    v = np.abs(t)
    u = 2 * v - 1
    nu = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
    return np.sin(np.pi * v) * np.where(v <= 0.5, 1, np.where(v >= 1, 0, np.cos(np.pi / 2 * nu)))


def _splines(x, count):
    grid_size = count - 3
    step = 8 / grid_size
    knots = -4 + step * np.arange(-3, grid_size + 4)
    return [scipy.interpolate.BSpline.basis_element(knots[k : k + 5], extrapolate=False)(x) for k in range(count)]


NUMPY = {
    'fourier': lambda x, s, q, n, k: (
        [np.cos(m * x) for m in range(1, k // 2 + 1)] + [np.sin(m * x) for m in range(1, k // 2 + 1)]
    ),
    'rational': lambda x, s, q, n, k: [
        np.polynomial.polynomial.polyval(x, s[0])
        / (1 + abs(np.polynomial.polynomial.polyval(x, np.concatenate([[0], s[1]]))))
    ],
    'mexican_hat': lambda x, s, q, n, k: (
        2 / (np.pi**0.25 * np.sqrt(3)) * (1 - _t(x, s) ** 2) * np.exp(-(_t(x, s) ** 2) / 2)
    ),
    'morlet': lambda x, s, q, n, k: np.cos(5 * _t(x, s)) * np.exp(-(_t(x, s) ** 2) / 2),
    'dog': lambda x, s, q, n, k: _t(x, s) / s[1] * np.exp(-(_t(x, s) ** 2) / 2),
    'meyer': lambda x, s, q, n, k: _meyer(_t(x, s)),
    'shannon': lambda x, s, q, n, k: np.sinc(_t(x, s) / np.pi) * np.hamming(n)[q],
    'b_spline': lambda x, s, q, n, k: np.nan_to_num(_splines(x, k)),
}


def test_every_basis_has_its_formula_here():
    assert set(NUMPY) == set(BASES)


@pytest.mark.parametrize('grid_size', [1, 3])
@pytest.mark.parametrize('base', ['zero', 'silu', 'identity'])
@pytest.mark.parametrize('basis', BASES)
def test_hidden_features_are_the_papers_formula(basis, base, grid_size):
    operator = make(basis, heads=2, grid=(1, 2), hidden=3, base_activation=base, grid_size=grid_size)
    for parameter in operator.parameters():
        parameter.data += 0.1 * torch.rand_like(parameter)
    scores = 1.5 * torch.randn(2, 2, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        got = operator.hidden(scores).numpy()
    coefficients, scale, base_weight = (
        p.detach().numpy() for p in (operator.basis.coefficients, operator.scale, operator.base_weight)
    )
    shapes = [p.detach().numpy() for p in operator.basis.shapes]
    b = dict(zero=lambda x: 0, silu=lambda x: x / (1 + np.exp(-x)), identity=lambda x: x)[base]
    for index in np.ndindex(got.shape):
        image, head, row, p = index
        expected = 0
        for q in range(3):
            x = scores[image, head, row, q].item()
            edge = [s[head, :, q, p] for s in shapes]
            f = np.dot(coefficients[head, :, q, p], NUMPY[basis](x, edge, q, 3, coefficients.shape[1]))
            expected += base_weight[head, q, p] * b(x) + scale[head, q, p] * f
        assert got[index] == pytest.approx(expected, rel=1e-9, abs=1e-9)


def test_the_derivative_of_gaussian_is_one():
    x = torch.linspace(-3, 3, 50, dtype=torch.float64, requires_grad=True)
    shift, scale = 0.3, 0.7
    (expected,) = torch.autograd.grad(-torch.exp(-(((x - shift) / scale) ** 2) / 2).sum(), x)
    got = BASES['dog'](1, 1, 1, 1).functions(x.detach(), torch.tensor(shift), torch.tensor(scale))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize('basis', BASES)
def test_gradients_agree_with_finite_differences(basis):
    operator = make(basis, heads=1, grid=(1, 2), hidden=2, grid_size=2, base_activation='silu')
    names = [name for name, _ in operator.named_parameters()]
    scores = torch.randn(1, 1, 2, 3, dtype=torch.float64)
    values = torch.randn(1, 1, 3, 2, dtype=torch.float64)

    def attend(scores, values, *parameters):
        with torch.nn.utils.stateless._reparametrize_module(operator, dict(zip(names, parameters))):
            return operator.attend(scores, values)

    inputs = [scores, values, *(p.detach().clone() for p in operator.parameters())]
    assert torch.autograd.gradcheck(attend, [x.requires_grad_() for x in inputs])


@pytest.mark.parametrize('basis', BASES)
def test_blocks_of_rows_change_nothing(basis, monkeypatch):
    operator, scores = make(basis), torch.randn(2, 2, 13, 13, dtype=torch.float64)
    expected = operator.hidden(scores)
    monkeypatch.setattr(bases_module, 'BLOCK_ELEMENTS', 1)
    torch.testing.assert_close(operator.hidden(scores), expected)


def test_attending_is_weighing_the_values():
    operator = make(base_activation='identity')
    scores = torch.randn(2, 2, 13, 13, dtype=torch.float64)
    values = torch.randn(2, 2, 13, 6, dtype=torch.float64)
    torch.testing.assert_close(operator.attend(scores, values), operator(scores) @ values)


@pytest.mark.parametrize('basis', BASES)
def test_answers_start_with_the_variance_of_the_values(basis):
    operator = KArAt(3, (14, 14), basis=basis)
    values = torch.randn(8, 3, 197, 64)
    with torch.no_grad():
        for scores in (0.02 * torch.randn(8, 3, 197, 197), torch.randn(8, 3, 197, 197)):
            ratio = operator.attend(scores, values).var() / values.var()
            assert 0.1 < ratio < 10


@pytest.mark.parametrize('sums', [True, False], ids=['sums', 'values'])
def test_a_constant_parameter_stays_constant_and_the_prefix_alone(sums):
    parameter = torch.full((1, 2, 1 + 9, 3), 2.0)
    parameter[:, :, 0] = 7
    new = resample_tokens(parameter, 1, (3, 3), (6, 5), sums)
    assert new.shape == (1, 2, 31, 3)
    assert (new[:, :, 0] == 7).all()
    torch.testing.assert_close(new[:, :, 1:], torch.full((1, 2, 30, 3), 2.0 * 9 / 30 if sums else 2.0))


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_is_resampled_on_cpus(dtype):
    parameter = torch.randn(2, 1 + 9, 3).to(dtype)
    new = resample_tokens(parameter, 1, (3, 3), (6, 5), sums=True)
    assert new.dtype == dtype
    torch.testing.assert_close(
        new.float(), resample_tokens(parameter.float(), 1, (3, 3), (6, 5), sums=True), rtol=1e-2, atol=1e-2
    )


@pytest.mark.parametrize('basis', BASES)
def test_an_image_of_one_colour_gets_the_same_answer_on_another_grid(basis):
    """Scores and values that are the same for all tokens of a grid: sums over tokens are what matters."""
    operator = make(basis, grid=(3, 3), base_activation='silu')
    for shape in operator.basis.shapes:  # an answer of resampled shapes is no resampled answer
        shape.data[:, :, 1:] = shape.data[:, :, 1:2]
    answers = []
    for grid in ((3, 3), (5, 7)):
        num_tokens = 1 + grid[0] * grid[1]
        scores, values = torch.full((1, 2, 2, num_tokens), 0.4), torch.full((1, 2, num_tokens, 4), 0.5)
        scores[..., 0], values[:, :, 0] = -0.3, 1.5
        answers.append(operator.attend(scores.double(), values.double(), grid))
    if basis == 'shannon':  # its window belongs to the number of tokens
        assert answers[0].shape == answers[1].shape
    else:
        torch.testing.assert_close(answers[1], answers[0])


@pytest.mark.parametrize('basis', ['fourier', 'morlet'])
def test_a_checkpoint_of_another_grid_loads(basis):
    old, new = make(basis, grid=(3, 3)), make(basis, grid=(6, 6))
    new.load_state_dict(old.state_dict())
    scores, values = torch.randn(1, 2, 37, 37, dtype=torch.float64), torch.randn(1, 2, 37, 4, dtype=torch.float64)
    if basis == 'fourier':
        assert new.basis.coefficients.shape == (2, 6, 37, 5)
    assert new.attend(scores, values).isfinite().all()
    torch.testing.assert_close(new.out_weight[:, 1:].sum(1), old.out_weight[:, 1:].sum(1))


def test_a_checkpoint_with_another_rank_is_refused():
    with pytest.raises(RuntimeError, match='size mismatch'):
        make(hidden=5).load_state_dict(make(hidden=4).state_dict())


def test_an_unused_base_weight_has_no_gradient():
    assert not make().base_weight.requires_grad
    assert make(base_activation='silu').base_weight.requires_grad


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(basis='chebyshev'), "'chebyshev' is unknown.*b_spline.*fourier"),
        (dict(base_activation='gelu'), "'gelu' is unknown.*identity.*silu.*zero"),
        (dict(grid_size=0), 'grid_size=0 must be at least 1'),
        (dict(hidden_dim=14), 'hidden_dim=14 must be from 1 to the number of tokens, 13'),
        (dict(hidden_dim=0), 'hidden_dim=0'),
    ],
    ids=lambda x: str(x)[:20],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(ValueError, match=text):
        KArAt(2, (3, 4), **options)


def test_another_number_of_tokens_needs_its_grid_and_resampling():
    scores = torch.randn(1, 2, 3, 21, dtype=torch.float64)
    with pytest.raises(ValueError, match=r'21 tokens do not fit a grid \(3, 4\) with 1 tokens before it; give token_'):
        make().hidden(scores)
    with pytest.raises(ValueError, match=r'for a grid \(3, 4\) of tokens, the input has \(4, 5\); resample=True'):
        make(resample=False).hidden(scores, (4, 5))
    assert make().hidden(scores, (4, 5)).shape == (1, 2, 3, 5)


def test_softmax_attention_is_mmpretrains():
    from mmpretrain.models.utils import MultiheadAttention

    ours, theirs = TokenAttention(embed_dims=12, num_heads=3), MultiheadAttention(12, 3)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(2, 7, 12)
    torch.testing.assert_close(ours(x), theirs(x))


def test_dropout_of_weights_keeps_the_mean():
    operator = KArAt(2, (2, 2), hidden_dim=2)
    attention = TokenAttention(operator=operator, embed_dims=8, num_heads=2, attn_drop=0.5)
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        mean = torch.stack([attention(x) for _ in range(4000)]).mean(0)
        torch.testing.assert_close(mean, attention.eval()(x), rtol=0.1, atol=2e-3)


@pytest.mark.parametrize('base', ['zero', 'silu'])
def test_scores_queries_keys_and_values_are_not_kept_for_the_backward_pass(monkeypatch, base):
    operator = KArAt(2, (3, 3), hidden_dim=4, base_activation=base)
    attention = TokenAttention(operator=operator, embed_dims=8, num_heads=2)
    kept, attend = [], operator.attend

    def spy(scores, values, *rest):
        kept.extend([weakref.ref(scores), weakref.ref(values.untyped_storage())])
        return attend(scores, values, *rest)

    monkeypatch.setattr(operator, 'attend', spy)
    out = attention(torch.randn(2, 10, 8))
    assert out.requires_grad
    assert [each() for each in kept] == [None, None]


@pytest.mark.parametrize('base', ['zero', 'silu'])
@pytest.mark.parametrize('is_autocast', [False, True], ids=['float32', 'autocast'])
@pytest.mark.parametrize('frozen', ['', 'qkv', 'operator'])
def test_gradients_are_those_of_kept_tensors_twice_through_one_graph(base, is_autocast, frozen):
    operator = KArAt(2, (3, 3), hidden_dim=4, base_activation=base)
    attention = TokenAttention(operator=operator, embed_dims=8, num_heads=2)
    if frozen:
        getattr(attention, frozen).requires_grad_(False)
    x = torch.randn(2, 10, 8, requires_grad=True)
    inputs = [x, *(p for p in attention.parameters() if p.requires_grad)]
    answers = {}
    for attention.recompute in (False, True):
        with torch.autocast('cpu', torch.bfloat16, enabled=is_autocast):
            out = attention(x)
        loss = out.float().square().sum()
        first = torch.autograd.grad(loss, inputs, retain_graph=True)
        answers[attention.recompute] = [out, *first, *torch.autograd.grad(loss, inputs)]
    for again, kept in zip(answers[True], answers[False]):
        assert torch.equal(again, kept)
