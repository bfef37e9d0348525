import shutil

import pytest
import torch
from torch._dynamo.testing import CompileCounterWithBackend

SIZES = [(64, 64), (50, 77)]


@pytest.fixture
def model(make_vik):
    return make_vik(img_size=64, out_indices=(0, 1, 2, 3)).eval()


@pytest.fixture(params=SIZES, ids=str)
def image(request):
    torch.manual_seed(1)
    return torch.randn(2, 3, *request.param)


def assert_same(got, expected):
    for ours, theirs in zip(got, expected):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_jit_trace(model, image):
    traced = torch.jit.trace(model, image)
    assert_same(traced(image + 1), model(image + 1))


@torch.no_grad()
def test_torch_export(model, image):
    program = torch.export.export(model, (image,))
    assert_same(program.module()(image + 1), model(image + 1))


# Without a C++ compiler there is no inductor on the CPU; 'aot_eager' takes the same graph, forward and backward.
BACKENDS = ['aot_eager', *(['inductor'] if shutil.which('g++') else [])]


@pytest.mark.parametrize('backend', BACKENDS)
def test_compile_without_graph_break(make_vik, backend):
    torch._dynamo.reset()
    # Two stages hold every kind of layer; more of them only take the compiler longer.
    model = make_vik(arch=dict(depths=(1, 1), embed_dims=(8, 16)), img_size=64, out_indices=(0, 1))
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    x = torch.randn(2, 3, 50, 77)
    maps = compiled(x)
    assert_same(maps, model(x))
    sum(m.square().mean() for m in maps).backward()
    gradients = [p.grad for p in model.parameters()]
    model.zero_grad()
    sum(m.square().mean() for m in model(x)).backward()
    for gradient, parameter in zip(gradients, model.parameters()):
        torch.testing.assert_close(gradient, parameter.grad, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('training', [True, False], ids=['training', 'evaluation'])
@torch.fx.experimental._config.patch(use_duck_shape=False)  # as CompileHook does
def test_one_graph_serves_all_image_sizes(make_vik, training):
    torch._dynamo.reset()
    model = make_vik(
        arch=dict(depths=(1, 1), embed_dims=(8, 16)), img_size=64, out_indices=(0, 1), drop_path_rate=0.0
    ).train(training)
    counter = CompileCounterWithBackend('aot_eager')
    compiled = torch.compile(model, backend=counter, dynamic=True, fullgraph=True)
    graphs = set()
    # The native size, others, odd sides, a square one, maps smaller than the native grid, and other batches.
    for shape in [(2, 64, 64), (2, 64, 96), (3, 50, 77), (2, 33, 33), (4, 32, 57), (2, 200, 40)]:
        x = torch.randn(shape[0], 3, *shape[1:])
        with torch.set_grad_enabled(training):
            assert_same(compiled(x), model(x))
        graphs.add(counter.frame_count)
    assert len(graphs) == 1
