"""The contract on the mixers that came first, and what it catches."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from golden_parts import DATA, GoldenPart, pack, sample
from mixer_contract import MixerContract
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from torch import nn

from vik_mm.mixers import TokenMixer, build_token_mixer


class TestMultiPatchRBFKAN(MixerContract):
    mixer = dict(type='MultiPatchRBFKAN')
    embed_dims = 16
    # The RBF-KAN of 49 pixels; a 3x1 and a 1x3 convolution of each channel; the gate; the global map's two halves.
    parameters = (2 * 49 * 8 + 49 * 8 * 49 + 49 * 49 + 49) + 2 * (3 * 16 + 16) + (16 * 8 + 8 + 8 * 2 + 2) + 2 * 64 * 196


class TestPooling(MixerContract):
    mixer = dict(type='Pooling')
    parameters = 0


class TestIdentity(MixerContract):
    mixer = dict(type='Identity')
    parameters = 0


class TestSelfAttention(MixerContract):
    mixer = dict(type='SelfAttention', head_dims=16)
    parameters = 4 * 32 * 32 + 4 * 32


@pytest.mark.parametrize('mixer', ['MultiPatchRBFKAN', 'ConvAdditiveAttention'])
@torch.no_grad()
def test_one_onnx_graph_and_one_compiled_graph_of_two_mixers_serve_all_sizes(mixer, tmp_path):
    """The nightly tests have it of all mixers."""
    contract = type('Contract', (MixerContract,), dict(mixer=dict(type=mixer), embed_dims=16))()
    contract.check_onnx(tmp_path / 'mixer.onnx')
    contract.check_compiled()


PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'mixers.md'


def contracts_by_type():
    """The classes of this folder that test a mixer, for each mixer's type."""
    found = {}
    for path in sorted(Path(__file__).parent.glob('test_*.py')):
        if not re.search(r'^class Test\w*\(MixerContract\)', path.read_text(), re.MULTILINE):
            continue
        spec = importlib.util.spec_from_file_location(f'contracts_{path.stem}', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for value in vars(module).values():
            if isinstance(value, type) and issubclass(value, MixerContract) and value is not MixerContract:
                found.setdefault(value.mixer['type'], []).append(value)
    return found


def test_the_table_of_the_docs_says_of_each_mixer_what_can_be_exported():
    contracts, listed = contracts_by_type(), set()
    header, *rows = [line.strip('| \n').split(' | ') for line in PAGE.read_text().splitlines() if line[:2] == '| ']
    for row in rows[: next(i for i, row in enumerate(rows) if row[0] == 'study')]:
        types = re.findall(r'`(\w+)`', row[1])
        tested = [contract for kind in types for contract in contracts[kind]]
        reasons = {reason for contract in tested for reason in (contract.no_export, contract.no_onnx) if reason}
        can = any(not contract.no_export for contract in tested)
        expected = ['both' if can else 'none', *sorted(reasons)]
        assert row[header.index('export')] == '; '.join(expected), row[0]
        listed |= set(types)
    missing = {kind for kind in contracts if kind not in listed} - {'MultiPatchRBFKAN', 'Identity', 'SelfAttention'}
    assert not missing, f'docs/mixers.md has no row for {missing}'


class Flawed(TokenMixer):
    """A convolution with one flaw."""

    original_names = ((r'^conv\.', 'dw.'),)
    flaw = None

    def __init__(self, embed_dims, grid_size, init_cfg=None):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.conv = nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
        if self.flaw == 'unused':
            self.scale = nn.Parameter(torch.ones(1))
        if self.flaw == 'apart':
            self.apart = nn.Parameter(torch.ones(1))
        if self.flaw == 'no hook':
            self.table = nn.Parameter(torch.zeros(1, 1, *grid_size))

    def forward(self, x):
        if self.flaw == 'late':
            self.late = nn.Parameter(torch.ones(1))
        if self.flaw == 'batch':
            x = x - x.mean((0, 2, 3), keepdim=True)
        if self.flaw == 'nan':
            x = x / (x.shape[2] - 1)
        if self.flaw == 'size':
            x = x + torch.zeros(int(x.shape[2]), 1)
        if self.flaw == 'unused':
            x = x + 0 * self.scale
        if self.flaw == 'break' and x.sum() > 0:
            x = x + 1
        if self.flaw == 'no hook':
            x = x + nn.functional.interpolate(self.table, x.shape[2:])
        return self.conv(x)


@pytest.fixture
def contract(request):
    """The contract of a mixer with the flaw asked for."""
    MODELS.register_module('Flawed', module=type('Flawed', (Flawed,), dict(flaw=request.param)))
    yield type('Contract', (MixerContract,), dict(mixer=dict(type='Flawed'), embed_dims=4, parameters=40))()
    MODELS.module_dict.pop('Flawed')


@pytest.mark.parametrize('contract', [None], indirect=True, ids=['none'])
def test_the_contract_passes_a_mixer_without_a_flaw(contract):
    contract.test_a_map_of_any_size_keeps_its_shape_and_has_finite_gradients((1, 7))
    contract.test_every_parameter_learns()
    contract.test_the_number_of_parameters_is_exact()
    contract.test_forward_leaves_the_state_dict_alone()
    contract.test_the_images_of_a_batch_do_not_meet()
    contract.test_one_exported_program_serves_all_sizes()
    contract.test_compiled_code_for_any_size_gives_the_same()
    contract.test_distributed_training_finds_a_gradient_for_every_parameter()


@pytest.mark.parametrize(
    ('contract', 'test', 'arguments', 'error'),
    [
        ('nan', 'a_map_of_any_size_keeps_its_shape_and_has_finite_gradients', dict(size=(1, 7)), AssertionError),
        ('unused', 'every_parameter_learns', {}, AssertionError),
        ('unused', 'the_number_of_parameters_is_exact', {}, AssertionError),
        ('late', 'forward_leaves_the_state_dict_alone', {}, AssertionError),
        ('batch', 'the_images_of_a_batch_do_not_meet', {}, AssertionError),
        ('size', 'one_exported_program_serves_all_sizes', {}, AssertionError),
        ('apart', 'distributed_training_finds_a_gradient_for_every_parameter', {}, RuntimeError),
        ('break', 'compiled_code_for_any_size_gives_the_same', {}, torch._dynamo.exc.Unsupported),
    ],
    indirect=['contract'],
    ids=['nan', 'unused', 'count', 'late', 'batch', 'size', 'apart', 'break'],
)
def test_the_contract_finds_a_flaw(contract, test, arguments, error):
    with pytest.raises(error):
        getattr(contract, f'test_{test}')(**arguments)


@pytest.mark.parametrize('contract', ['no hook'], indirect=True)
def test_the_contract_finds_a_table_that_is_bound_to_its_grid(contract, caplog):
    with pytest.raises(RuntimeError, match='size mismatch'):
        contract.test_a_checkpoint_of_another_grid_size_loads_and_what_is_resampled_is_said(caplog)


def test_a_mixer_that_is_loaded_by_itself_says_what_it_resampled(caplog):
    small, large = (build_token_mixer(dict(type='NPRFAttention', head_dims=8), 8, side) for side in [(3, 4), (5, 5)])
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    large.load_state_dict(small.state_dict())
    large.load_state_dict(large.state_dict())
    logger.removeHandler(caplog.handler)
    lines = [record.getMessage() for record in caplog.records if 'resampled' in record.getMessage()]
    assert len(lines) == 1
    assert '1 token mixer was resampled, the first one: rel_bias from a grid of (3, 4) to (5, 5)' in lines[0]


@pytest.fixture
def stored(tmp_path):
    """Golden values of a depthwise convolution, packed as those of the parts are."""
    weights = {'dw.weight': (4, 1, 3, 3), 'dw.bias': (4,), 'shift': (2, 2)}
    (tmp_path / 'toy_keys.json').write_text(json.dumps(dict(state_dict=weights, not_filled=['shift'])))
    x, w = (np.random.RandomState(seed).standard_normal((2, 4, 50, 50)).astype(np.float32) for seed in (0, 1))
    part = dict(x=x, w=w, out=x, grad_x=w, shift=np.eye(2, dtype=np.float32))
    np.savez(tmp_path / 'toy_c4_50.npz', **part)
    pack(tmp_path, 'toy', tmp_path)
    return GoldenPart('toy', tmp_path), part


def test_golden_inputs_are_drawn_again_and_outputs_are_sampled(stored):
    golden, part = stored
    for name in ('x', 'w', 'shift'):
        assert np.array_equal(golden.arrays[name].numpy(), part[name])
    assert 'x' not in golden.measured
    assert golden.measured['out']['sample'].shape == (4096,)
    golden.check('out', torch.from_numpy(part['out']), bar=1e-7)


def test_golden_values_find_a_difference_between_the_samples(stored):
    golden, part = stored
    index = np.setdiff1d(np.arange(part['out'].size), sample(np.arange(part['out'].size)))[0]
    for place, text in ((0, 'differs by 0.5'), (index, 'the norm')):
        out = torch.from_numpy(part['out'].copy())
        out.view(-1)[place] += 0.5 if not place else 50.0
        with pytest.raises(AssertionError, match=text):
            golden.check('out', out, bar=2e-5)


def test_weights_are_filled_by_the_originals_names(stored):
    part, arrays = stored
    weights = part.weights(Flawed(4, (14, 14)))
    assert list(weights) == ['dw.weight', 'dw.bias', 'shift']
    assert torch.equal(weights['shift'], torch.from_numpy(arrays['shift']))
    assert weights['dw.weight'].std() > 0.1


def test_the_golden_files_of_all_parts_stay_small():
    assert sum(path.stat().st_size for path in (DATA / 'mixers').glob('*')) <= 3e6
