"""Multiply-adds: of the operators, and of the archs as the metafile has them."""

import pytest
import torch
import yaml
from mmengine.config import Config
from mmpretrain.registry import MODELS
from torch.utils.flop_counter import FlopCounterMode

from vik_mm import ViK
from vik_mm.ops import fourier_kan, patch_rbf_kan, plus_conv2d, rbf_kan

ROWS = [torch.randn(10, 9), torch.randn(9, 4), torch.rand(9, 4) + 0.5]
PATCHES = [torch.randn(36, 9), torch.randn(9, 9), torch.randn(9), 3]
# Operator, arguments, multiply-adds counted by hand.
CASES = {
    'rows': (rbf_kan, [*ROWS, torch.randn(36, 5)], 10 * 9 * 4 * 5),
    'patches': (patch_rbf_kan, [torch.randn(2, 3, 6, 9), *ROWS[1:], *PATCHES], 2 * 3 * 2 * 3 * 9 * (4 + 1) * 9),
    'patches-cut': (patch_rbf_kan, [torch.randn(2, 3, 7, 7), *ROWS[1:], *PATCHES], 2 * 3 * 3 * 3 * 9 * (4 + 1) * 9),
    'fourier': (fourier_kan, [torch.randn(2, 3, 5, 7), torch.randn(3, 4, 7, 6)], 2 * 3 * 5 * 4 * 7 * 6),
    'plus': (plus_conv2d, [torch.randn(2, 3, 5, 4), torch.randn(2, 3, 2, 3), torch.randn(2, 3)], 2 * 3 * 5 * 4 * 6),
}


@pytest.mark.parametrize('backend', ['chunked', pytest.param('triton', marks=pytest.mark.triton)])
@pytest.mark.parametrize(('operator', 'arguments', 'expected'), CASES.values(), ids=CASES)
def test_the_counter_sees_an_operator_and_its_gradients(operator, arguments, expected, backend):
    arguments = [a.clone().requires_grad_() if isinstance(a, torch.Tensor) else a for a in arguments]
    with FlopCounterMode(display=False) as counter:
        out = operator(*arguments, backend=backend)
    assert counter.get_total_flops() == 2 * expected
    with FlopCounterMode(display=False) as counter:
        out.sum().backward()
    assert counter.get_total_flops() == 2 * 2 * expected


def vik_entries(root):
    meta = yaml.safe_load((root / 'configs/vik/metafile.yml').read_text())
    return {entry['Name']: entry for entry in meta['Models'] if 'FLOPs' in entry['Metadata']}


def test_every_arch_has_the_multiply_adds_of_the_metafile(root, load_tool):
    count, archs = load_tool('analysis_tools/get_flops.py').count, set()
    for name, entry in vik_entries(root).items():
        cfg = Config.fromfile(root / entry['Config']).model
        size = cfg.backbone.get('img_size', 224)
        with torch.device('meta'):  # only shapes are needed
            model = MODELS.build(cfg)
        assert count(model, size, size) == (entry['Metadata']['Parameters'], entry['Metadata']['FLOPs']), name
        archs.add(str(cfg.backbone.arch))
    assert archs >= set(ViK.arch_settings)


def test_the_count_holds_for_images_that_are_computed(root, load_tool):
    entry = vik_entries(root)['vik-tiny_cifar10']
    model = MODELS.build(Config.fromfile(root / entry['Config']).model)
    assert load_tool('analysis_tools/get_flops.py').count(model, 32, 32)[1] == entry['Metadata']['FLOPs']
