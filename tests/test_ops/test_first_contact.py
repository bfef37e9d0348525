"""The first use of Triton kernels on a device, with its failures faked; the kernels run under the interpreter."""

import threading
import warnings

import pytest
import torch

from vik_mm.ops import (
    backends,
    first_contact,
    fourier_kan,
    fourier_kan_backend,
    patch_rbf_kan,
    plus_conv2d,
    plus_conv2d_backend,
    rbf_kan,
    rbf_kan_backend,
)

pytestmark = pytest.mark.triton

ROWS = [torch.randn(3, 5), torch.randn(5, 3), torch.rand(5, 3) + 0.5, torch.randn(15, 7)]
MAPS = [torch.randn(1, 2, 5, 4), torch.randn(1, 2, 2, 3), torch.randn(1, 2)]
SCORES = [torch.randn(1, 2, 4, 6), torch.randn(2, 4, 6, 3)]
PATCHES = [
    torch.randn(1, 2, 5, 4), torch.randn(9, 3), torch.rand(9, 3) + 0.5, torch.randn(27, 9), torch.randn(9, 9),
    torch.randn(9), 3,
]  # fmt: skip
OPERATORS = {
    'rbf_kan': (rbf_kan, ROWS),
    'patch_rbf_kan': (patch_rbf_kan, PATCHES),
    'fourier_kan': (fourier_kan, SCORES),
    'plus_conv2d': (plus_conv2d, MAPS),
}


@pytest.fixture(autouse=True)
def first_time(monkeypatch):
    """A process that has used no kernel yet, on a machine whose CPU passes for a GPU."""
    monkeypatch.setattr(backends, 'is_on_gpu', lambda x: True)
    monkeypatch.setattr(first_contact, '_outcomes', {})


@pytest.fixture
def launch(monkeypatch):
    """Replace what a launch does; count the launches."""
    from vik_mm.ops.launch import Launch

    run = Launch.run
    calls = []

    def replace(fake=None):
        def faked(self):
            calls.append(self)
            run(self) if fake is None else fake(self, run)

        monkeypatch.setattr(Launch, 'run', faked)
        return calls

    return replace


def out_of_resources(launch, run):
    from triton.runtime.errors import OutOfResources

    raise OutOfResources(81920, 65536, 'shared memory')


def no_compiler(launch, run):
    raise RuntimeError('Failed to find C compiler')


def wrong_output(launch, run):
    run(launch)
    if 'out_ptr' in launch.arguments:
        launch.arguments['out_ptr'].mul_(1.5)


def unwritten_output(launch, run):
    if 'out_ptr' in launch.arguments:
        launch.arguments['out_ptr'].fill_(torch.nan)
    else:
        run(launch)


def wrong_gradient(launch, run):
    run(launch)
    if 'grad_x_ptr' in launch.arguments:
        launch.arguments['grad_x_ptr'].zero_()


FAILURES = {
    'out-of-resources': (out_of_resources, 'OutOfResources.*81920'),
    'compile-error': (no_compiler, 'RuntimeError: Failed to find C compiler'),
    'wrong-output': (wrong_output, 'wrong values: the output is off by 0.5'),
    'unwritten-output': (unwritten_output, 'wrong values: the output is off by nan'),
    'wrong-gradient': (wrong_gradient, 'wrong values: the gradient of argument 1 is off by 1 '),
}


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize('operator', OPERATORS)
def test_right_kernels_are_checked_once_and_taken(operator, dtype, launch, monkeypatch):
    function, arguments = OPERATORS[operator]
    calls = launch()
    x, *rest = arguments
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        first = function(x.to(dtype), *rest)
        used_first = len(calls)
        second = function(x.to(dtype), *rest)
    assert used_first > 2  # forward and backward of the check, and the call
    assert len(calls) - used_first == 1  # the call
    assert torch.equal(first, second)
    assert list(first_contact._outcomes.values()) == [None]


@pytest.mark.parametrize('failure', FAILURES)
@pytest.mark.parametrize('operator', OPERATORS)
def test_failing_kernels_give_way_to_chunked_with_one_warning(operator, failure, launch):
    if (operator, failure) == ('plus_conv2d', 'wrong-gradient'):
        pytest.skip('its gradient is the forward kernel')
    function, arguments = OPERATORS[operator]
    fake, error = FAILURES[failure]
    launch(fake)
    name = operator.split('-')[0]
    with pytest.warns(UserWarning, match=f'(?s)kernels of {name} do not work here.*report.*torch.*float32.*{error}'):
        out = function(*arguments)
    assert torch.equal(out, function(*arguments, backend='chunked'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert torch.equal(out, function(*arguments))


def test_the_choice_tells_what_failed(launch):
    launch(out_of_resources)
    with pytest.warns(UserWarning):
        name, reason = rbf_kan_backend(*ROWS)
    assert name == 'chunked'
    assert 'its first use failed: OutOfResources' in reason
    with pytest.warns(UserWarning):
        assert fourier_kan_backend(*SCORES).name == 'chunked'
    with pytest.warns(UserWarning):
        assert plus_conv2d_backend(MAPS[0]).name == 'chunked'


def test_a_failure_in_one_dtype_leaves_the_others(launch):
    def fail_in_half(launch, run):
        if launch.arguments['x_ptr'].dtype == torch.float16:
            no_compiler(launch, run)
        run(launch)

    launch(fail_in_half)
    with pytest.warns(UserWarning, match='float16'):
        assert plus_conv2d_backend(MAPS[0].half()).name == 'chunked'
    assert plus_conv2d_backend(MAPS[0]).name == 'triton'


@pytest.mark.parametrize('failure', FAILURES)
def test_a_backend_forced_by_name_raises_where_its_kernels_fail(failure, launch):
    fake, error = FAILURES[failure]
    launch(fake)
    with pytest.warns(UserWarning), pytest.raises(RuntimeError, match=f"backend='triton' cannot run here.*{error}"):
        rbf_kan(*ROWS, backend='triton')
    with pytest.raises(RuntimeError, match=error):
        rbf_kan(*ROWS, backend='triton')


def test_a_full_memory_says_nothing_about_the_kernels(launch):
    def full(launch, run):
        raise torch.OutOfMemoryError('CUDA out of memory')

    launch(full)
    with pytest.raises(torch.OutOfMemoryError):
        rbf_kan_backend(*ROWS)
    assert not first_contact._outcomes


def test_nothing_is_checked_while_a_graph_is_captured(launch, monkeypatch):
    calls = launch()
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, 'is_available', lambda: True)
        patch.setattr(torch.cuda, 'is_current_stream_capturing', lambda: True)
        assert rbf_kan_backend(*ROWS).name == 'triton'
    assert not calls
    assert not first_contact._outcomes
    rbf_kan_backend(*ROWS)
    assert calls


def test_a_compiler_sees_the_outcome_and_no_check(launch):
    calls = launch(out_of_resources)

    def name():
        torch._dynamo.reset()
        return torch.compile(lambda *a: (a[0] + 1, rbf_kan_backend(*a).name), backend='eager', fullgraph=True)(*ROWS)[1]

    assert name() == 'triton'
    assert not calls
    with pytest.warns(UserWarning):
        rbf_kan_backend(*ROWS)
    assert name() == 'chunked'


def test_a_fake_tensor_is_not_checked(launch):
    calls = launch()
    with torch._subclasses.FakeTensorMode() as mode:
        assert rbf_kan_backend(*(mode.from_tensor(t) for t in ROWS)).name == 'triton'
    assert not calls


def test_threads_that_meet_the_kernels_at_once_warn_once(launch):
    barrier = threading.Barrier(4)

    def fail(launch, run):
        barrier.wait(30)
        no_compiler(launch, run)

    launch(fail)
    names = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        threads = [threading.Thread(target=lambda: names.append(rbf_kan_backend(*ROWS).name)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert names == ['chunked'] * 4
    assert len(caught) == 1


@pytest.mark.parametrize('mode', [torch.no_grad, torch.inference_mode, lambda: torch.autocast('cpu')])
def test_the_check_changes_nothing_for_the_caller(mode, launch):
    launch()
    state = torch.get_rng_state()
    with mode():
        is_grad_enabled, is_autocast_enabled = torch.is_grad_enabled(), torch.is_autocast_enabled('cpu')
        assert rbf_kan_backend(*ROWS).name == 'triton'
        assert torch.is_grad_enabled() == is_grad_enabled
        assert torch.is_autocast_enabled('cpu') == is_autocast_enabled
    assert torch.equal(torch.get_rng_state(), state)
