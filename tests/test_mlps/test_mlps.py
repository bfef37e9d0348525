import pytest
import torch
import torch.nn.functional as F
from golden_parts import GoldenPart
from mixer_contract import SIZES, move
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch.export import Dim

import vik_mm
from vik_mm.errors import BadInputError
from vik_mm.layers import load_original
from vik_mm.mlps import ConvMLP, build_mlp, strips
from vik_mm.mlps.efficient_kan import cubic_splines
from vik_mm.mlps.gr_kan import STARTS, GroupRational

# Parameters with 32 channels and 128 hidden ones. FastKAN's 16 centres, fixed parameters in the original, are buffers.
COUNTS = dict(ConvMLP=8352, GRKAN=8428, EfficientKAN=81920, FastKAN=74224 - 16, SineKAN=65712, FourierKAN=82080)
GOLDEN = dict(
    GRKAN=('grkan', 128),
    EfficientKAN=('kan_efficient', 64),
    FastKAN=('kan_fast', 64),
    SineKAN=('kan_sine', 64),
    FourierKAN=('kan_fourier', 64),
)
every_type = pytest.mark.parametrize('kind', COUNTS)


def build(kind, embed_dims=16, hidden_dims=32, drop_rate=0.0, **options):
    torch.manual_seed(0)
    return build_mlp(dict(type=kind, **options), embed_dims, hidden_dims, dict(type='GELU'), drop_rate)


@pytest.mark.parametrize('kind', GOLDEN)
def test_the_originals_weights_give_the_originals_output_and_gradient(kind):
    part, hidden_dims = GOLDEN[kind]
    golden, mlp = GoldenPart(part), build(kind, 32, hidden_dims)
    load_original(mlp, golden.weights(mlp))
    x = golden.arrays['x'].requires_grad_()
    y = mlp(x)
    golden.check('out', y, bar=2e-5)
    (y * golden.arrays['w']).sum().backward()
    golden.check('grad_x', x.grad, bar=2e-4)


@every_type
def test_the_number_of_parameters_is_exact(kind):
    assert sum(p.numel() for p in build(kind, 32, 128).parameters()) == COUNTS[kind]


@every_type
@pytest.mark.parametrize('size', SIZES, ids=lambda size: '{}x{}'.format(*size))
def test_a_map_of_any_size_keeps_its_shape_and_every_parameter_learns(kind, size):
    mlp = move(build(kind))
    names = list(mlp.state_dict())
    x = torch.randn(2, 16, *size, requires_grad=True)
    y = mlp(x)
    assert y.shape == x.shape
    assert y.isfinite().all()
    (y * torch.randn_like(y)).sum().backward()
    for name, parameter in [('x', x), *mlp.named_parameters()]:
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert list(mlp.state_dict()) == names


@every_type
@pytest.mark.parametrize('with_gradients', [True, False], ids=['training', 'inference'])
def test_layouts_and_strips_give_one_answer(monkeypatch, kind, with_gradients):
    mlp, x = move(build(kind, 8, 24)), torch.randn(2, 8, 9, 7, requires_grad=True)
    pixels = x.permute(0, 2, 3, 1).reshape(-1, 8, 1, 1)
    expected = mlp(pixels).view(2, 9, 7, 8).permute(0, 3, 1, 2)
    parameters = [x, *mlp.parameters()]
    gradients = torch.autograd.grad(expected.square().sum(), parameters)
    lengths = []

    def short(rows, width):
        lengths.append(rows.shape[0])
        return 8  # the last strip is not full

    monkeypatch.setattr(strips, 'strip_length', short)
    monkeypatch.setattr('vik_mm.mlps.conv_mlp.strip_length', short)
    with torch.set_grad_enabled(with_gradients):
        for layout in (torch.contiguous_format, torch.channels_last):
            answer = mlp(x.contiguous(memory_format=layout))
            torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5)
    if with_gradients:
        for got, wanted in zip(torch.autograd.grad(answer.square().sum(), parameters), gradients):
            torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-4)
    assert lengths or kind in ('FastKAN', 'FourierKAN')  # whose operators work in blocks of their own


@every_type
@torch.no_grad()
def test_one_exported_program_serves_all_sizes(kind):
    mlp, any_size = move(build(kind)).eval(), getattr(Dim, 'AUTO', None)
    height, width = (any_size or Dim(name, min=2, max=4096) for name in ('height', 'width'))
    example = torch.randn(2, 16, 6, 4)
    program = torch.export.export(mlp, (example,), dynamic_shapes=({2: height, 3: width},)).module()
    for size in [(6, 4), (9, 13), (3, 3)]:
        x = torch.randn(2, 16, *size)
        torch.testing.assert_close(program(x), mlp(x), rtol=1e-4, atol=1e-5)


@every_type
def test_autocast_changes_the_answer_by_rounding_only(kind):
    mlp, x = move(build(kind)), torch.randn(2, 16, 5, 5)
    expected = mlp(x)
    with torch.autocast('cpu', torch.bfloat16):
        answer = mlp(x)
    assert (answer - expected).abs().max() <= 0.05 * expected.abs().max()


@pytest.mark.triton
@pytest.mark.parametrize('kind', ['FastKAN', 'FourierKAN'])
def test_every_backend_gives_one_answer(kind):
    x, answers = torch.randn(1, 8, 5, 3), []
    for backend in ('reference', 'chunked', 'triton'):
        mlp = move(build(kind, 8, 12, backend=backend))
        y = mlp(x)
        answers.append((y, *torch.autograd.grad(y.square().sum(), list(mlp.parameters()))))
    for other in answers[1:]:
        torch.testing.assert_close(other, answers[0], rtol=1e-3, atol=1e-4)


@every_type
def test_a_model_of_shapes_only_is_built_without_values(kind):
    with torch.device('meta'):
        mlp = build(kind)
    assert all(value.is_meta for value in mlp.state_dict().values())


@every_type
def test_dropout_acts_in_training(kind):
    mlp, x = build(kind, drop_rate=0.5), torch.randn(2, 16, 5, 5)
    assert not torch.equal(mlp.train()(x), mlp(x))
    assert torch.equal(mlp.eval()(x), mlp(x))


@pytest.mark.parametrize('scope', ['mmdet', 'mmseg', 'mmengine'])
def test_types_are_found_from_the_scope_of_any_package(scope):
    with DefaultScope.overwrite_default_scope(scope):
        assert isinstance(build('ConvMLP'), ConvMLP)


@pytest.mark.parametrize(
    ('cfg', 'error', 'text'),
    [
        (dict(type='KAN2'), ValueError, "'KAN2' is unknown; registered are .*'ConvMLP', 'EfficientKAN', .*'GRKAN'"),
        (dict(type='Pooling'), ValueError, r"'Pooling' is no channel MLP: it does not take \['act_cfg', .*'ConvMLP'"),
        ('GRKAN', TypeError, r"mlp must be a dict with a type, such as dict\(type='ConvMLP'\), got 'GRKAN'"),
        (dict(type='GRKAN', groups=4), TypeError, r"no option \['groups'\]; it takes \['act_start', .*_delete_=True"),
        (dict(type='GRKAN', num_groups=3), ValueError, 'num_groups=3 must divide .* 16 outside and 32 inside'),
        (dict(type='GRKAN', act_start='ReLU'), ValueError, "act_start='ReLU' is unknown"),
        (dict(type='GRKAN', init='zeros'), ValueError, "init='zeros' is unknown"),
        (dict(type='EfficientKAN', num_intervals=0), ValueError, 'num_intervals=0'),
        (dict(type='EfficientKAN', grid_range=(1, -1)), ValueError, 'must increase'),
        (dict(type='FastKAN', num_grids=1), ValueError, 'num_grids=1'),
        (dict(type='FastKAN', grid_range=(1, 1)), ValueError, 'must increase'),
        (dict(type='SineKAN', num_sines=0), ValueError, 'num_sines=0'),
        (dict(type='FourierKAN', num_frequencies=0), ValueError, 'num_frequencies=0'),
    ],
    ids=lambda value: ''.join(map(str, value.values())) if isinstance(value, dict) else '',
)
def test_bad_configs_are_named(cfg, error, text):
    with pytest.raises(error, match=text):
        build_mlp(cfg, 16, 32, dict(type='GELU'))


def test_the_backbone_takes_another_mlp_and_the_default_has_the_releases_names(make_vik):
    default, other = make_vik(img_size=64), make_vik(img_size=64, mlp=dict(type='GRKAN', num_groups=4))
    assert 'stages.0.blocks.0.mlp.fc1.weight' in default.state_dict()
    assert isinstance(other.stages[1].blocks[0].mlp, MODELS.get('GRKAN'))
    assert other.stages[1].blocks[0].mlp.hidden_dims == 48
    other(torch.randn(2, 3, 64, 64))[0].sum().backward()
    assert all(p.grad is not None for p in other.stages.parameters())


def test_the_backbone_lists_the_known_mlps():
    with pytest.raises(ValueError, match="channel MLP 'MLP' is unknown; registered are .*'ConvMLP'.*'SineKAN'"):
        vik_mm.ViK(arch='tiny', mlp=dict(type='MLP'))


def test_splines_are_those_of_the_recursion():
    x = torch.linspace(-1, 14, 301, dtype=torch.float64)
    x = x[(x - x.round()).abs() > 1e-9]  # at a knot the recursion's steps are a matter of rounding
    knots = torch.arange(12)
    bases = ((x[:, None] >= knots[:-1]) & (x[:, None] < knots[1:])).double()
    for order in (1, 2, 3):
        n = torch.arange(11 - order)
        bases = (x[:, None] - n) / order * bases[:, :-1] + (n + order + 1 - x[:, None]) / order * bases[:, 1:]
    torch.testing.assert_close(cubic_splines(x[None], 8).t(), bases, rtol=0, atol=1e-12)
    inside = (x > 3) & (x < 8)
    torch.testing.assert_close(bases[inside].sum(1), torch.ones(int(inside.sum()), dtype=torch.float64))


def test_beyond_the_splines_only_the_branch_of_silu_acts():
    layer = build('EfficientKAN').layers[0]
    x = torch.randn(5, 16).sign() * 2.3
    torch.testing.assert_close(layer(x), F.silu(x) @ layer.base_weight.t())


def test_knots_that_were_moved_to_the_data_are_refused():
    mlp = build('EfficientKAN', 32, 64)
    state = GoldenPart('kan_efficient').weights(mlp)
    state['layers.0.grid'][3, 4] += 0.1
    with pytest.raises(BadInputError, match=r'knots layers\.0\.grid .*update_grid'):
        load_original(mlp, state)


@pytest.mark.parametrize(('num_sines', 'scale'), [(8, 7.7413121), (5, 4.8610563)])
def test_sines_start_at_the_phases_of_the_paper(num_sines, scale):
    first, second = build('SineKAN', num_sines=num_sines).layers
    assert first.phase[0, 0].item() == pytest.approx(scale / (num_sines + 1), rel=1e-6)
    assert first.phase[-1, 0].item() == pytest.approx(scale * (torch.pi + 1 / (num_sines + 1)), rel=1e-6)
    assert first.freq.tolist() == list(range(1, num_sines + 1))
    torch.testing.assert_close(second.freq, first.freq / (num_sines + 1))
    assert build('SineKAN', embed_dims=1).layers[0].phase[0, 0] > 0  # one channel has a phase too


@pytest.mark.parametrize(('start', 'function', 'error'), [('SiLU', F.silu, 2e-6), ('GELU', F.gelu, 5e-3)])
def test_rational_functions_start_close_to_activations(start, function, error):
    x = torch.linspace(-3, 3, 601).view(1, -1).repeat(8, 1).t().contiguous()
    rational = GroupRational(8, 8, start, True)
    assert (rational(x) - function(x)).abs().max() < error
    x = torch.randn(200_000, 8)
    gain = (x.var() / rational(x).square().mean()).item()
    assert gain == pytest.approx(STARTS[start][2], rel=0.01)


def test_a_rational_function_of_half_precision_does_not_overflow():
    x = torch.full((1, 8), 20.0, dtype=torch.float16)  # 20 ** 5 is no float16
    answer = GroupRational(8, 8, 'SiLU', True)(x)
    assert answer.dtype == torch.float16
    assert answer.isfinite().all()


def test_groups_have_their_own_denominators_and_numerators_on_request():
    mlp = build('GRKAN', share_numerator=False)
    assert mlp.act1.numerator.shape == (8, 6)
    mlp.act1.denominator.data[0] = 1.0
    x = torch.randn(3, 16)
    changed = (mlp.act1(x) - x).abs() > 1e-6
    assert changed[:, :2].all()
    assert not changed[:, 2:].any()


def test_variance_of_a_normal_input_passes_both_layers():
    mlp, x = build('GRKAN', 64, 256), torch.randn(4000, 64)
    assert mlp.fc1(mlp.act1(x)).var().item() == pytest.approx(1, rel=0.1)
    assert mlp.map_rows(x).var().item() == pytest.approx(1, rel=0.1)
    assert build('GRKAN', 64, 256, init='trunc_normal').fc1.weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_the_spline_starts_with_small_noise_at_the_inner_knots():
    layer = build('EfficientKAN', 64, 64).layers[0]
    at_knots = cubic_splines(torch.arange(3.0, 9.0)[None], 8)
    noise = layer.spline_weight @ at_knots
    assert noise.abs().max().item() <= 0.01 + 1e-6
    assert noise.std().item() == pytest.approx(0.02 / 12**0.5, rel=0.05)


def test_fourier_coefficients_start_with_outputs_of_unit_variance():
    mlp, x = build('FourierKAN', 64, 256), torch.randn(2000, 64)
    assert mlp.map_rows(x).var().item() == pytest.approx(1, rel=0.15)
    smooth = build('FourierKAN', 64, 256, smooth_start=True).layers[0].coefficients
    assert smooth[..., 2].std().item() == pytest.approx(1 / 8 / 9, rel=0.1)
