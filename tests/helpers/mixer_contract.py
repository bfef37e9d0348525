"""What every token mixer is tested for: a subclass states the mixer, and gets all of it.

.. code-block:: python

    class TestPooling(MixerContract):
        mixer = dict(type='Pooling')
        parameters = 0
"""

import logging
import re
import sys
from contextlib import contextmanager

import pytest
import torch
import torch.distributed as dist
from golden_parts import GoldenPart
from mmengine.logging import MMLogger
from mmengine.registry import DefaultScope
from mmpretrain.registry import MODELS
from torch.export import Dim
from torch.nn.parallel import DistributedDataParallel

import vik_mm
from vik_mm.layers import load_original
from vik_mm.mixers import build_token_mixer
from vik_mm.ops import reference_operators

SIZES = [
    (1, 1),
    (1, 7),  # one row
    (5, 5),  # smaller than the usual window of 7
    (14, 14),  # the native grid, whole windows
    (20, 12),  # even, cut windows
    (33, 57),  # odd, larger than the native grid
]


class MixerContract:
    """Tests of one token mixer.

    Attributes:
        mixer (dict): Config of the mixer.
        parameters (int): Number of parameters at ``embed_dims`` and ``grid_size``.
        embed_dims (int): Channels of the maps.
        grid_size (tuple): Native grid of the mixer.
        golden (str | dict): Part of tests/data/mixers that the mixer reproduces; or parts, and for each the options
            that differ from ``mixer``. Channels and grid are the part's. None where there is no original.
        without_gradient (tuple): Regular expressions: names of parameters whose gradient is zero by construction.
        no_export (str): Why the mixer cannot be exported; its docstring and the table in docs/mixers.md must say so
            too. None where it can.
        no_onnx (str): Why the exported program cannot be written as an ONNX file, as the table must say. None where it
            can.
        padding_options (dict): Options that ``ViK(ignore_padding=True)`` asks for, such as another norm than batch
            norm. None where the mixer has batch norm in any case, and ViK must refuse.
    """

    mixer: dict
    parameters: int
    embed_dims = 32
    grid_size = (14, 14)
    golden: str | dict | None = None
    without_gradient: tuple = ()
    no_export: str | None = None
    no_onnx: str | None = None
    padding_options: dict | None = {}

    def pytest_generate_tests(self, metafunc):
        if 'part' in metafunc.fixturenames:
            metafunc.parametrize('part', self.golden_parts() or [None])

    def golden_parts(self):
        return {self.golden: {}} if isinstance(self.golden, str) else self.golden or {}

    def build(self, embed_dims=None, grid_size=None, **options):
        """The mixer, moved off its start values: a branch that starts at zero would hide what is behind it."""
        torch.manual_seed(0)
        mixer = build_token_mixer({**self.mixer, **options}, embed_dims or self.embed_dims, grid_size or self.grid_size)
        return move(mixer).eval()

    def map(self, size=None, batch=2):
        torch.manual_seed(1)
        return torch.randn(batch, self.embed_dims, *(size or self.grid_size))

    def must_have_gradient(self, name):
        return not any(re.search(pattern, name) for pattern in self.without_gradient)

    @pytest.mark.parametrize('size', SIZES, ids=lambda size: '{}x{}'.format(*size))
    def test_a_map_of_any_size_keeps_its_shape_and_has_finite_gradients(self, size):
        mixer, x = self.build(), self.map(size).requires_grad_()
        y = mixer(x)
        assert y.shape == x.shape
        assert y.dtype == x.dtype
        assert y.isfinite().all()
        (y * torch.randn_like(y)).sum().backward()
        assert x.grad.isfinite().all()
        for name, parameter in mixer.named_parameters():
            if parameter.requires_grad and self.must_have_gradient(name):
                assert parameter.grad is not None, f'{name} has no gradient'
            assert parameter.grad is None or parameter.grad.isfinite().all(), f'the gradient of {name} is not finite'

    def test_every_parameter_learns(self):
        mixer, x = self.build().train(), self.map().requires_grad_()
        y = mixer(x)
        assert y.shape == x.shape
        (y * torch.randn_like(y)).sum().backward()
        gradients = {name: p.grad for name, p in mixer.named_parameters() if p.requires_grad}
        still = [name for name, gradient in gradients.items() if gradient is None or not gradient.any()]
        assert not [name for name in still if self.must_have_gradient(name)], f'no gradient reaches {still}'

    def test_the_number_of_parameters_is_exact(self):
        assert sum(p.numel() for p in self.build().parameters()) == self.parameters

    def test_the_originals_weights_give_the_originals_output_and_gradient(self, part):
        if part is None:
            pytest.skip('the mixer has no golden values')
        golden = GoldenPart(part)
        x = golden.arrays['x'].requires_grad_()
        mixer = self.build(x.shape[1], tuple(x.shape[2:]), **self.golden_parts()[part])
        load_original(mixer, golden.weights(self.build_at_start(x, part)))
        y = mixer(x)
        golden.check('out', y, bar=2e-5)
        (y * golden.arrays['w']).sum().backward()
        golden.check('grad_x', x.grad, bar=2e-4)

    def build_at_start(self, x, part):
        cfg = {**self.mixer, **self.golden_parts()[part]}
        return build_token_mixer(cfg, x.shape[1], tuple(x.shape[2:]))

    @torch.no_grad()
    def test_forward_leaves_the_state_dict_alone(self):
        mixer = self.build()
        before = {name: value.clone() for name, value in mixer.state_dict().items()}
        parameters = [id(p) for p in mixer.parameters()]
        for size in SIZES[-2:]:
            mixer(self.map(size))
        after = mixer.state_dict()
        assert list(after) == list(before)
        assert [id(p) for p in mixer.parameters()] == parameters
        assert all(torch.equal(after[name], before[name]) for name in before)

    @torch.no_grad()
    def test_the_images_of_a_batch_do_not_meet(self):
        mixer, x = self.build(), self.map((20, 12))
        torch.testing.assert_close(mixer(x)[:1], mixer(x[:1]), rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_a_checkpoint_of_another_grid_size_loads_and_what_is_resampled_is_said(self, caplog):
        ours, theirs = self.backbone(img_size=56), self.backbone(img_size=(36, 48))
        state = move(theirs).state_dict()
        logger = MMLogger.get_current_instance()
        logger.addHandler(caplog.handler)
        try:
            with caplog.at_level(logging.INFO, logger.name):
                ours.load_state_dict(state)
        finally:
            logger.removeHandler(caplog.handler)
        if any(value.shape != state[name].shape for name, value in ours.state_dict().items()):
            said = re.findall(r'token mixers? (?:was|were) resampled', caplog.text)
            assert len(said) == 1, 'a table was fitted without a word, or many'
        assert ours(torch.randn(2, 3, 56, 56))[0].isfinite().all()

    @torch.no_grad()
    def test_one_exported_program_serves_all_sizes(self):
        mixer, program = self.build(), self.export()
        program = program.module()
        for size in [(20, 12), (33, 57), (14, 14)]:
            x = self.map(size) + 1
            torch.testing.assert_close(program(x), mixer(x), rtol=1e-4, atol=1e-5)

    @pytest.mark.slow
    @torch.no_grad()
    def test_one_onnx_graph_serves_all_sizes(self, tmp_path):
        self.check_onnx(tmp_path / 'mixer.onnx')

    def check_onnx(self, path):
        """The graph in ONNX Runtime gives what the mixer gives, on maps of sizes that it was not exported with."""
        if self.no_onnx:
            pytest.skip(self.no_onnx)
        if not hasattr(Dim, 'AUTO'):
            pytest.skip('ONNX files for any size need PyTorch 2.6')
        runtime = pytest.importorskip('onnxruntime')
        pytest.importorskip('onnxscript')
        mixer = self.build()
        with reference_operators():  # ONNX has no operators of this package
            program = self.export()
        torch.onnx.export(program, dynamo=True, input_names=['x'], verbose=False, optimize=False).save(str(path))
        session = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider'])
        for size in [(20, 12), (14, 14), (9, 23)]:
            x = self.map(size) + 1
            (y,) = session.run(None, {'x': x.numpy()})
            torch.testing.assert_close(torch.from_numpy(y), mixer(x), rtol=1e-4, atol=1e-4)

    @torch.no_grad()
    def export(self):
        """The mixer as a program for maps of any size."""
        if self.no_export:
            assert 'export' in (MODELS.get(self.mixer['type']).__doc__ or ''), 'the docstring must say so too'
            pytest.skip(self.no_export)
        any_size = getattr(Dim, 'AUTO', None)
        height, width = (any_size or Dim(name, min=2, max=4096) for name in ('height', 'width'))
        return torch.export.export(self.build(), (self.map((20, 12)),), dynamic_shapes=({2: height, 3: width},))

    @pytest.mark.slow
    @torch.no_grad()
    def test_compiled_code_for_any_size_gives_the_same(self):
        self.check_compiled()

    def check_compiled(self):
        """One graph, compiled for any size, gives what the mixer gives."""
        if sys.version_info >= (3, 13) and not hasattr(Dim, 'AUTO'):
            pytest.skip('PyTorch 2.5 cannot compile on Python 3.13')
        mixer = self.build()
        torch.compiler.reset()
        compiled = torch.compile(mixer, backend='aot_eager', fullgraph=True, dynamic=True)
        for size in [(10, 6), (9, 11)]:
            x = self.map(size, batch=1)
            torch.testing.assert_close(compiled(x), mixer(x), rtol=1e-4, atol=1e-5)

    def test_distributed_training_finds_a_gradient_for_every_parameter(self):
        mixer = self.build().train()
        if not any(p.requires_grad for p in mixer.parameters()):
            pytest.skip('the mixer has no parameters')
        with one_process():
            model = DistributedDataParallel(mixer)
            for _ in range(2):  # the second step fails where the first one left a parameter without gradient
                model(self.map((7, 6))).square().sum().backward()
        assert all(p.grad is not None for p in mixer.parameters() if p.requires_grad)

    def test_an_unknown_option_is_named(self):
        with pytest.raises(TypeError, match=r"no option \['no_such_option'\]"):
            self.build(no_such_option=1)

    @pytest.mark.parametrize('scope', ['mmdet', 'mmseg'])
    def test_the_type_is_found_from_the_scope_of_any_package(self, scope):
        pytest.importorskip(scope)
        with DefaultScope.overwrite_default_scope(scope):
            assert isinstance(self.build(), MODELS.get(self.mixer['type']))

    @torch.no_grad()
    def test_an_image_does_not_depend_on_the_padding_of_its_neighbours(self):
        if self.padding_options is None:
            with pytest.raises(ValueError, match='batch norm'):
                self.backbone(img_size=64, ignore_padding=True)
            return
        backbone = move(self.backbone(img_size=64, ignore_padding=True, **self.padding_options))
        high, wide = torch.randn(3, 64, 36), torch.randn(3, 40, 64)
        batch = torch.zeros(2, 3, 64, 64)
        batch[0, :, :, :36], batch[1, :, :40] = high, wide
        for together, alone in zip(backbone(batch), backbone(wide[None])):
            rows, columns = alone.shape[2:]
            torch.testing.assert_close(together[1:, :, :rows, :columns], alone, rtol=1e-4, atol=1e-5)

    def backbone(self, img_size, ignore_padding=False, **options):
        torch.manual_seed(0)
        return vik_mm.ViK(
            arch=dict(depths=(1, 1), embed_dims=(self.embed_dims, self.embed_dims)),
            img_size=img_size,
            token_mixer={**self.mixer, **options},
            layer_scale_init_value=1.0,
            out_indices=(0, 1),
            ignore_padding=ignore_padding,
        ).eval()


@contextmanager
def one_process():
    """A process group of this process only."""
    dist.init_process_group('gloo', store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@torch.no_grad()
def move(module):
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module
