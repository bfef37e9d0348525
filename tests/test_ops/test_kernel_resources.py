"""The Triton kernels compiled for real chips, of which none needs to be there, and the arithmetic that they share."""

import csv
import io
import os
import subprocess
import sys
from importlib import metadata

import numpy as np
import pytest
import torch
from packaging.version import Version

pytestmark = pytest.mark.triton

SHARED_KB = {'75': 64, '80': 163, '86': 99, '89': 99, '90': 227, '100': 227, '120': 99, 'gfx942': 64}
FEW_BYTES = 64  # of stack, a thread


def compile_kernels(root, *arguments):
    """In a process of its own: under the interpreter, which this one has, nothing is compiled."""
    if Version(metadata.version('triton')) < Version('3.8'):
        pytest.skip('needs Triton 3.8: the launch settings were chosen by what it compiles')
    environment = {key: value for key, value in os.environ.items() if key != 'TRITON_INTERPRET'}
    environment['PYTHONPATH'] = str(root)
    tool = root / 'tools' / 'analysis_tools' / 'kernel_resources.py'
    run = subprocess.run([sys.executable, str(tool), *arguments], env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    return list(csv.DictReader(io.StringIO(run.stdout)))


def faults(rows, stack):
    return [r for r in rows if int(r['stack']) > stack or int(r['shared']) > 1024 * SHARED_KB[r['chip']]]


def test_kernels_of_common_sizes_spill_nothing_and_fit_their_chips(root):
    cases = ['rbf_kan patches 7x7', 'fourier_kan 197 tokens', 'plus_conv2d 56x56']
    rows = compile_kernels(root, '--chips', '80', '90', '--dtypes', 'bf16', 'tf32', '--cases', *cases)
    assert len(rows) == 30
    assert not faults(rows, stack=0)


@pytest.mark.slow
@pytest.mark.parametrize('chip', SHARED_KB)
def test_kernels_of_all_sizes_spill_next_to_nothing_and_fit_each_chip(root, chip):
    rows = compile_kernels(root, '--chips', chip)
    assert len(rows) >= 54
    assert not faults(rows, stack=FEW_BYTES)


@pytest.fixture
def apply():
    """Run a function of the kernels elementwise, on a CPU."""
    import triton
    import triton.language as tl

    @triton.jit
    def kernel(function: tl.constexpr, x_ptr, first_ptr, second_ptr, BLOCK: tl.constexpr):
        i = tl.arange(0, BLOCK)
        first, second = function(tl.load(x_ptr + i))
        tl.store(first_ptr + i, first)
        tl.store(second_ptr + i, second)

    def run(function, x):
        outs = torch.empty_like(x), torch.empty_like(x)
        kernel[(1,)](function, x, *outs, BLOCK=x.numel())
        return outs

    return run


@pytest.mark.skipif(torch.cuda.is_available(), reason='the interpreter runs on a CPU')
def test_cosine_and_sine_of_the_kernels_are_right_to_the_last_bits(apply):
    from vik_mm.ops.fourier_kan.triton import _cos_sin

    x = torch.cat([torch.linspace(-8000, 8000, 4096), torch.linspace(-4, 4, 4096)])
    for got, expected in zip(apply(_cos_sin, x), (x.double().cos(), x.double().sin())):
        assert (got.double() - expected).abs().max() < 1.5e-7
    for got in apply(_cos_sin, torch.tensor([torch.nan, torch.inf])):
        assert got.isnan().all()


@pytest.mark.skipif(torch.cuda.is_available(), reason='the interpreter runs on a CPU')
def test_sigmoid_of_the_kernels_is_right_from_end_to_end(apply):
    from vik_mm.ops.launch import sigmoid

    x = torch.cat([torch.linspace(-80, 80, 510), torch.tensor([-1e30, 1e30])])
    got, _ = apply(lambda x: (sigmoid(x), x), x)
    torch.testing.assert_close(got, x.sigmoid(), rtol=2e-5, atol=1e-30)


def test_division_by_reciprocals_is_exact():
    from vik_mm.ops.launch import reciprocal

    generator = np.random.default_rng(0)
    largest = 2**31 - 1
    divisors = np.concatenate([np.arange(1, 300), 2 ** np.arange(31), generator.integers(1, largest, 2000), [largest]])
    for divisor in divisors.tolist():
        multiplier, shift = reciprocal(divisor)
        assert -(2**31) <= multiplier < 0
        n = generator.integers(0, largest, 50)
        n = np.concatenate([n, np.minimum(n // divisor * divisor + divisor - 1, largest), [0, divisor - 1, largest]])
        high = (2 * n.astype(np.uint64) * np.uint64(multiplier + 2**32)) >> np.uint64(32)
        assert (high >> np.uint64(shift) == (n // divisor).astype(np.uint64)).all()


@pytest.mark.parametrize('name', ['rows-prime', 'patches-whole', 'patches-cut-by-both-borders'])
def test_offsets_of_64_bits_change_nothing(name, monkeypatch):
    from test_backends import CASES, build, output_and_gradients

    from vik_mm.ops.rbf_kan import triton as rbf_kan

    torch.manual_seed(0)
    arguments = build(CASES[name], torch.float32)
    expected = output_and_gradients(CASES[name], arguments, 'triton')
    monkeypatch.setattr(rbf_kan, 'LARGEST_INT32', 0)
    assert all(torch.equal(a, b) for a, b in zip(expected, output_and_gradients(CASES[name], arguments, 'triton')))
