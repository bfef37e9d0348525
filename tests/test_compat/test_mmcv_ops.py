"""MMCV's operators without a compiler: against published figures, against plain loops, against compiled MMCV."""

import importlib.util
import os
import subprocess
import sys

import mmcv.ops
import numpy as np
import pytest
import torch
from mmcv.ops import multi_scale_deform_attn
from torch.nn import functional as F

from vik_mm.compat import mmcv_ops
from vik_mm.compat.mmcv_ops import MMCV_OPS, attention, losses, regions
from vik_mm.compat.mmcv_ops.__init__ import _Operators

SERVED = isinstance(sys.modules.get('mmcv._ext'), _Operators)
DEVICES = ['cpu', pytest.param('cuda', marks=pytest.mark.gpu)]


@pytest.fixture(params=DEVICES)
def device(request):
    return request.param


@pytest.fixture(autouse=True)
def served(monkeypatch):
    """Every test but the parity tests runs on our operators, also where MMCV has its own."""
    operators = _Operators()
    for name, module in list(sys.modules.items()):
        if name.startswith('mmcv.ops.') and hasattr(module, 'ext_module'):
            monkeypatch.setattr(module, 'ext_module', operators)
    return operators


# Expectations of MMCV's own tests, tests/test_ops/test_{nms,roi_align,roi_pool,deform_conv,modulated_deform_conv}.py.
BOXES = [[6.0, 3.0, 8.0, 7.0], [3.0, 6.0, 9.0, 11.0], [3.0, 7.0, 10.0, 12.0], [1.0, 4.0, 13.0, 7.0]]
SCORES = [0.6, 0.9, 0.7, 0.2]
MAPS = [
    [[[[1.0, 2.0], [3.0, 4.0]]]],
    [[[[1.0, 2.0], [3.0, 4.0]], [[4.0, 3.0], [2.0, 1.0]]]],
    [[[[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0], [9.0, 10.0, 13.0, 14.0], [11.0, 12.0, 15.0, 16.0]]]],
]
ENDS = [1.0, 1.0, 3.0]


def test_nms_as_mmcv_expects(device):
    boxes, scores = torch.tensor(BOXES, device=device), torch.tensor(SCORES, device=device)
    dets, keep = mmcv.ops.nms(boxes, scores, iou_threshold=0.3, offset=0)
    assert keep.tolist() == [1, 0, 3]
    assert torch.equal(dets, torch.cat([boxes, scores[:, None]], 1)[keep])


@pytest.mark.parametrize(
    ('method', 'scores', 'keep'),
    [
        ('linear', [0.9, 0.6, 0.29024392, 0.2], [1, 0, 2, 3]),
        ('gaussian', [0.9, 0.59630775, 0.35275510, 0.18650459], [1, 0, 2, 3]),
        ('naive', [0.9, 0.6, 0.2], [1, 0, 3]),
    ],
)
def test_soft_nms_as_mmcv_expects(device, method, scores, keep):
    boxes = torch.tensor(BOXES, device=device)
    dets, inds = mmcv.ops.soft_nms(boxes, torch.tensor(SCORES, device=device), 0.3, 0.5, 0.01, method)
    assert inds.tolist() == keep
    torch.testing.assert_close(dets[:, 4].cpu(), torch.tensor(scores))
    assert torch.equal(dets[:, :4], boxes[inds])


def test_nms_match_groups_by_survivor():
    dets = torch.tensor(
        [
            [49.1, 32.4, 51.0, 35.9, 0.9],
            [49.3, 32.9, 51.0, 35.3, 0.8],
            [35.3, 11.5, 39.9, 14.5, 0.4],
            [35.2, 11.7, 39.7, 15.7, 0.3],
        ]
    )
    groups = mmcv.ops.nms_match(dets, 0.6)
    assert [group.tolist() for group in groups] == [[0, 1], [2, 3]]


@pytest.mark.parametrize(
    ('case', 'output', 'grad'),
    [
        (0, [[[1.0, 1.25], [1.5, 1.75]]], [[[3.0625, 0.4375], [0.4375, 0.0625]]]),
        (1, [[[1.0, 1.25], [1.5, 1.75]], [[4.0, 3.75], [3.5, 3.25]]], [[[3.0625, 0.4375], [0.4375, 0.0625]]] * 2),
        (
            2,
            [[[1.9375, 4.75], [7.5625, 10.375]]],
            np.outer([0.6875, 0.625, 0.625, 0.0625], [0.6875, 0.625, 0.625, 0.0625])[None].tolist(),
        ),
    ],
)
def test_roi_align_as_mmcv_expects(device, case, output, grad):
    x = torch.tensor(MAPS[case], device=device, requires_grad=True)
    rois = torch.tensor([[0.0, 0.0, 0.0, ENDS[case], ENDS[case]]], device=device)
    out = mmcv.ops.roi_align(x, rois, (2, 2), 1.0, 2, 'avg', True)
    out.sum().backward()
    torch.testing.assert_close(out.detach().cpu(), torch.tensor([output]))
    torch.testing.assert_close(x.grad.cpu(), torch.tensor([grad]), check_dtype=False)


@pytest.mark.parametrize(
    ('case', 'output', 'grad'),
    [
        (0, MAPS[0][0], [[[1.0, 1.0], [1.0, 1.0]]]),
        (1, MAPS[1][0], [[[1.0, 1.0], [1.0, 1.0]]] * 2),
        (
            2,
            [[[4.0, 8.0], [12.0, 16.0]]],
            [[[0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 1.0]]],
        ),
    ],
)
def test_roi_pool_as_mmcv_expects(device, case, output, grad):
    x = torch.tensor(MAPS[case], device=device, requires_grad=True)
    rois = torch.tensor([[0.0, 0.0, 0.0, ENDS[case], ENDS[case]]], device=device)
    out = mmcv.ops.roi_pool(x, rois, (2, 2), 1.0)
    out.sum().backward()
    assert out[0].tolist() == output
    assert x.grad[0].tolist() == grad


def test_deform_conv_as_mmcv_expects(device):
    model = mmcv.ops.DeformConv2dPack(1, 1, kernel_size=2, stride=1, padding=0, im2col_step=2)
    offset_weight = [
        *([0.1, 0.4, 0.6, 0.1], [0.3, 0.2, 0.1, 0.3], [0.5, 0.5, 0.2, 0.8], [0.8, 0.3, 0.9, 0.1]),
        *([0.3, 0.1, 0.2, 0.5], [0.3, 0.7, 0.5, 0.3], [0.6, 0.2, 0.5, 0.3], [0.4, 0.1, 0.8, 0.4]),
    ]
    model.conv_offset.weight.data = torch.tensor(offset_weight).reshape(8, 1, 2, 2)
    model.conv_offset.bias.data = torch.tensor([0.7, 0.1, 0.8, 0.5, 0.6, 0.5, 0.4, 0.7])
    model.weight.data = torch.tensor([0.4, 0.2, 0.1, 0.9]).reshape(1, 1, 2, 2)
    model = model.double().to(device)
    batch = 10
    x = torch.tensor([[[[1.0, 2.0, 3.0], [0.0, 1.0, 2.0], [3.0, 5.0, 2.0]]]], dtype=torch.double)
    x = x.repeat(batch, 1, 1, 1).to(device).requires_grad_()
    out = model(x)
    out.sum().backward()

    def close(actual, expected):
        # The published figures have three decimals.
        np.testing.assert_allclose(actual.detach().cpu().numpy().ravel(), np.ravel(expected), rtol=1e-3, atol=1e-8)

    close(out[0], [1.650, 0.0, 0.0, 0.0])
    close(x.grad[3], [-0.666, 0.204, 0.0, 0.030, -0.416, 0.012, 0.0, 0.252, 0.129])
    bias = [1.44, -0.72, 0.0, 0.0, -0.10, -0.08, -0.54, -0.54]
    close(model.conv_offset.bias.grad / batch, bias)
    close(model.conv_offset.weight.grad / batch, np.outer(bias, [1, 2, 0, 1]))
    close(model.weight.grad / batch, [3.62, 0.0, 0.40, 0.18])


def test_modulated_deform_conv_as_mmcv_expects(device):
    x = torch.tensor([[[[1.0, 2.0, 3.0]] * 3]], device=device, requires_grad=True)
    dcn = mmcv.ops.ModulatedDeformConv2dPack(1, 1, (2, 2), stride=1, padding=1, deform_groups=1, bias=False).to(device)
    dcn.weight.data.fill_(1.0)
    out = dcn(x)
    out.sum().backward()
    rows = [[0.5, 1.5, 2.5, 1.5], [1.0, 3.0, 5.0, 3.0], [1.0, 3.0, 5.0, 3.0], [0.5, 1.5, 2.5, 1.5]]
    torch.testing.assert_close(out[0, 0].cpu(), torch.tensor(rows))
    torch.testing.assert_close(x.grad.cpu(), torch.full((1, 1, 3, 3), 2.0))
    torch.testing.assert_close(dcn.weight.grad.cpu(), torch.full((1, 1, 2, 2), 9.0))
    bias = torch.tensor([-3.0, -1.5] * 4 + [4.5] * 4)
    torch.testing.assert_close(dcn.conv_offset.bias.grad.cpu(), bias)
    first, last = dcn.conv_offset.weight.grad[0, 0].cpu(), dcn.conv_offset.weight.grad[11, 0].cpu()
    assert first.tolist() == [[-7.0, -4.0], [0.0, 0.0]]
    assert last.tolist() == [[4.0, 7.0], [6.0, 10.5]]


ROIS = [[0, 1.3, 2.2, 11.7, 9.1], [1, -3.0, -2.0, 4.5, 30.0], [0, 5.0, 5.0, 5.4, 5.2], [1, 40.0, 3.0, 55.0, 9.0]]


def roi_pool_by_loops(x, rois, size, scale):
    """RoIPool as MMCV's CUDA kernel words it."""
    out = torch.zeros(len(rois), x.shape[1], *size, dtype=x.dtype)
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = box[0] * scale, box[1] * scale, (box[2] + 1) * scale, (box[3] + 1) * scale
        for i in range(size[0]):
            for j in range(size[1]):
                rows = [int(np.floor(i * (y2 - y1) / size[0] + y1)), int(np.ceil((i + 1) * (y2 - y1) / size[0] + y1))]
                cols = [int(np.floor(j * (x2 - x1) / size[1] + x1)), int(np.ceil((j + 1) * (x2 - x1) / size[1] + x1))]
                rows, cols = np.clip(rows, 0, x.shape[2]), np.clip(cols, 0, x.shape[3])
                cell = x[int(image), :, rows[0] : rows[1], cols[0] : cols[1]]
                if cell.numel():
                    out[k, :, i, j] = cell.amax((1, 2))
    return out


@pytest.mark.parametrize('block', [1, 1 << 23], ids=['one region at a time', 'all at once'])
def test_roi_pool_by_loops_and_gradcheck(monkeypatch, block):
    monkeypatch.setattr(regions, '_BLOCK', block)
    x = torch.randn(2, 3, 7, 11, dtype=torch.double, requires_grad=True)
    rois = torch.tensor(ROIS, dtype=torch.double)
    out = mmcv.ops.roi_pool(x, rois, (3, 2), 0.25)
    torch.testing.assert_close(out, roi_pool_by_loops(x.detach(), rois, (3, 2), 0.25))
    assert torch.autograd.gradcheck(lambda x: mmcv.ops.roi_pool(x, rois, (3, 2), 0.25), x)


def bilinear(plane, y, x):
    """One value of ``[C, H, W]``, as RoIAlign interpolates."""
    height, width = plane.shape[1:]
    if not (-1 <= y <= height and -1 <= x <= width):
        return torch.zeros(plane.shape[0], dtype=plane.dtype)
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    below, right = min(top + 1, height - 1), min(left + 1, width - 1)
    a, b = y - top, x - left
    upper = plane[:, top, left] * (1 - b) + plane[:, top, right] * b
    lower = plane[:, below, left] * (1 - b) + plane[:, below, right] * b
    return upper * (1 - a) + lower * a


@pytest.mark.parametrize('sampling_ratio', [0, 2])
@pytest.mark.parametrize('aligned', [True, False])
@pytest.mark.parametrize('mode', ['max', 'avg'])
def test_roi_align_by_loops_and_gradcheck(sampling_ratio, aligned, mode):
    x = torch.randn(2, 3, 7, 11, dtype=torch.double, requires_grad=True)
    rois, size, scale = torch.tensor(ROIS, dtype=torch.double), (3, 2), 0.25
    expected = torch.zeros(len(rois), 3, *size, dtype=torch.double)
    for k, (image, *box) in enumerate(rois.tolist()):
        x1, y1, x2, y2 = (v * scale - (0.5 if aligned else 0.0) for v in box)
        height, width = y2 - y1, x2 - x1
        if not aligned:
            height, width = max(height, 1.0), max(width, 1.0)
        per = [sampling_ratio or int(np.ceil(side / n)) for side, n in zip((height, width), size)]
        for i in range(size[0]):
            for j in range(size[1]):
                samples = [
                    bilinear(
                        x[int(image)].detach(),
                        y1 + (i + (p + 0.5) / per[0]) * height / size[0],
                        x1 + (j + (q + 0.5) / per[1]) * width / size[1],
                    )
                    for p in range(per[0])
                    for q in range(per[1])
                ]
                stack = torch.stack(samples)
                expected[k, :, i, j] = stack.amax(0) if mode == 'max' else stack.mean(0)

    def align(x):
        return mmcv.ops.roi_align(x, rois, size, scale, sampling_ratio, mode, aligned)

    torch.testing.assert_close(align(x), expected)
    assert torch.autograd.gradcheck(align, x)


def test_roi_align_without_regions_and_with_an_empty_one():
    x = torch.randn(1, 2, 5, 5, requires_grad=True)
    for mode in ('avg', 'max'):
        assert mmcv.ops.roi_align(x, torch.zeros(0, 5), 2, 1.0, 0, mode).shape == (0, 2, 2, 2)
        out = mmcv.ops.roi_align(x, torch.tensor([[0.0, 2.0, 2.0, 2.0, 2.0]]), 2, 1.0, 0, mode)
        out.sum().backward()
        assert out.abs().sum() == 0
        assert x.grad.abs().sum() == 0
    assert mmcv.ops.roi_pool(x, torch.zeros(0, 5), 2).shape == (0, 2, 2, 2)


@pytest.mark.parametrize('modulated', [False, True], ids=['v1', 'v2'])
@pytest.mark.parametrize('groups', [(1, 1), (2, 2)], ids=['groups 1', 'groups 2'])
def test_deform_conv_without_offsets_is_a_convolution(modulated, groups):
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 8, dtype=torch.double, requires_grad=True)
    weight = torch.randn(6, 4 // groups[0], 3, 3, dtype=torch.double, requires_grad=True)
    out_size = F.conv2d(x, weight, None, 2, 1, 1, groups[0]).shape[2:]
    offset = torch.zeros(2, 18 * groups[1], *out_size, dtype=torch.double)
    if modulated:
        mask, bias = torch.ones(2, 9 * groups[1], *out_size, dtype=torch.double), torch.randn(6, dtype=torch.double)
        out = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 2, 1, 1, groups[0], groups[1])
    else:
        bias = None
        out = mmcv.ops.deform_conv2d(x, offset, weight, 2, 1, 1, groups[0], groups[1])
    expected = F.conv2d(x, weight, bias, 2, 1, 1, groups[0])
    torch.testing.assert_close(out, expected)
    ours = torch.autograd.grad(out.square().sum(), (x, weight))
    theirs = torch.autograd.grad(expected.square().sum(), (x, weight))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


def test_masked_convolution_is_the_convolution_at_masked_places(device):
    layer = mmcv.ops.MaskedConv2d(3, 5, 3, padding=1).to(device).eval()
    x, mask = torch.randn(1, 3, 6, 7, device=device), (torch.rand(1, 6, 7, device=device) > 0.5).float()
    expected = F.conv2d(x, layer.weight, layer.bias, padding=1) * mask[:, None]
    torch.testing.assert_close(layer(x, mask), expected)


@pytest.mark.parametrize('weighted', [False, True])
def test_sigmoid_focal_loss_and_its_gradient(device, weighted):
    torch.manual_seed(0)
    logits = (3 * torch.randn(6, 4, dtype=torch.double, device=device)).requires_grad_()
    target = torch.tensor([0, 1, 2, 3, 4, 1], device=device)  # 4 is background
    weight = torch.tensor([0.5, 1.0, 2.0, 3.0], dtype=torch.double, device=device) if weighted else None
    one_hot = F.one_hot(target, 5)[:, :4].double()
    p = logits.sigmoid()
    expected = -0.25 * one_hot * (1 - p) ** 2 * p.log() - 0.75 * (1 - one_hot) * p**2 * (1 - p).log()
    if weighted:
        expected = expected * torch.cat([weight, weight.new_ones(1)])[target][:, None]
    out = mmcv.ops.sigmoid_focal_loss(logits, target, 2.0, 0.25, weight, 'none')
    torch.testing.assert_close(out, expected)
    (ours,) = torch.autograd.grad(out.sum(), logits)
    (theirs,) = torch.autograd.grad(expected.sum(), logits)
    torch.testing.assert_close(ours, theirs)


def test_softmax_focal_loss_and_its_gradient(device):
    torch.manual_seed(0)
    logits = torch.randn(6, 4, dtype=torch.double, device=device, requires_grad=True)
    target = torch.tensor([0, 1, 2, 3, 3, 1], device=device)
    p = logits.softmax(1).gather(1, target[:, None])[:, 0]
    expected = (-0.25 * (1 - p) ** 2 * p.log()).mean()
    out = mmcv.ops.softmax_focal_loss(logits.clone(), target, 2.0, 0.25, None, 'mean')
    torch.testing.assert_close(out, expected)
    (ours,) = torch.autograd.grad(out, logits)
    (theirs,) = torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)


def test_focal_loss_stays_finite_for_certain_logits():
    logits = torch.tensor([[200.0, -200.0]])
    for target in (0, 1, 2):
        out, grad = torch.empty_like(logits), torch.empty_like(logits)
        losses.sigmoid_focal_loss_forward(logits, torch.tensor([target]), torch.empty(0), out, 2.0, 0.25)
        losses.sigmoid_focal_loss_backward(logits, torch.tensor([target]), torch.empty(0), grad, 2.0, 0.25)
        assert out.isfinite().all() and grad.isfinite().all()


def test_multi_scale_deformable_attention_and_its_gradient(device):
    torch.manual_seed(0)
    shapes = torch.tensor([[5, 4], [3, 2]], device=device)
    start = torch.tensor([0, 20], device=device)
    value = torch.randn(2, 26, 3, 4, dtype=torch.double, device=device, requires_grad=True)
    places = (1.4 * torch.rand(2, 7, 3, 2, 2, 2, dtype=torch.double, device=device) - 0.2).requires_grad_()
    weights = torch.rand(2, 7, 3, 2, 2, dtype=torch.double, device=device, requires_grad=True)
    expected = multi_scale_deform_attn.multi_scale_deformable_attn_pytorch(value, shapes, places, weights)
    out = multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply(value, shapes, start, places, weights, 64)
    torch.testing.assert_close(out, expected)
    ours = torch.autograd.grad(out.square().sum(), (value, places, weights))
    theirs = torch.autograd.grad(expected.square().sum(), (value, places, weights))
    for a, b in zip(ours, theirs):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize('kind', ['collect', 'distribute'])
def test_psa_mask_by_loops_and_gradcheck(kind):
    height, width, mask = 4, 5, (5, 3)
    x = torch.randn(2, mask[0] * mask[1], height, width, dtype=torch.double, requires_grad=True)
    layer = mmcv.ops.PSAMask(kind, mask)
    expected = torch.zeros(2, height * width, height, width, dtype=torch.double)
    for h in range(height):
        for w in range(width):
            for i in range(mask[0]):
                for j in range(mask[1]):
                    y, z = h + i - mask[0] // 2, w + j - mask[1] // 2
                    if 0 <= y < height and 0 <= z < width:
                        value = x[:, i * mask[1] + j, h, w]
                        if kind == 'collect':
                            expected[:, y * width + z, h, w] = value
                        else:
                            expected[:, h * width + w, y, z] = value
    torch.testing.assert_close(layer(x), expected)
    assert torch.autograd.gradcheck(layer, x)


@pytest.mark.parametrize('mode', ['iou', 'iof'])
@pytest.mark.parametrize('offset', [0, 1])
def test_bbox_overlaps(device, mode, offset):
    one = torch.tensor([[0.0, 0.0, 9.0, 9.0], [10.0, 10.0, 19.0, 19.0]], device=device)
    two = torch.tensor([[0.0, 0.0, 9.0, 4.0], [10.0, 10.0, 19.0, 19.0], [50.0, 50.0, 60.0, 60.0]], device=device)
    side = 9 + offset
    part = side * (4 + offset) / side**2
    expected = torch.tensor([[part, 0.0, 0.0], [0.0, 1.0, 0.0]], device=device)
    torch.testing.assert_close(mmcv.ops.bbox_overlaps(one, two, mode, offset=offset), expected)
    pairs = mmcv.ops.bbox_overlaps(one, two[:2], mode, aligned=True, offset=offset)
    torch.testing.assert_close(pairs, torch.tensor([part, 1.0], device=device))


def test_an_operator_that_is_not_there_says_how_to_get_it(served):
    with pytest.raises(NotImplementedError, match=r"'carafe_forward'.*pip install"):
        served.carafe_forward(1, 2)


def test_the_log_says_so_once(served, capsys):
    boxes = torch.tensor(BOXES)
    for _ in range(2):
        mmcv.ops.nms(boxes, torch.tensor(SCORES), 0.3)
    assert capsys.readouterr().out.count('MMCV has no compiled operators') <= 1
    assert served.announced


COMPILED_FOR_ANOTHER = """
import sys
from importlib.machinery import ModuleSpec

class Finder:
    def find_spec(name, path=None, target=None):
        return ModuleSpec(name, Finder) if name == 'mmcv._ext' else None

    def create_module(spec):
        raise ImportError('undefined symbol: _ZN3c10')

    def exec_module(module):
        pass

sys.meta_path.insert(0, Finder)
import vik_mm
"""


def test_operators_compiled_for_another_torch_are_named_at_import():
    result = subprocess.run([sys.executable, '-c', COMPILED_FOR_ANOTHER], capture_output=True, text=True)
    line = result.stderr.splitlines()[-1]
    assert line.startswith("ImportError: MMCV's operators were not compiled for torch ")
    assert '(undefined symbol: _ZN3c10): ' in line and '--no-build-isolation' in line


@pytest.mark.skipif(not SERVED, reason='MMCV has compiled operators here')
def test_it_can_be_switched_off():
    code = 'import vik_mm; import mmcv.ops'
    env = {**os.environ, 'VIK_MM_MMCV_OPS': '0'}
    result = subprocess.run([sys.executable, '-c', code], env=env, capture_output=True, text=True)
    assert 'mmcv._ext' in result.stderr.splitlines()[-1]
    assert mmcv_ops.serve_mmcv_ops()


def on_both(function, served, module):
    """Run with MMCV's compiled operators and with ours; return values and gradients of each."""
    results = []
    for operators in (importlib.import_module('mmcv._ext'), served):
        module.ext_module = operators
        leaves, output = function()
        output = output if isinstance(output, (list, tuple)) else [output]
        floats = [t for t in output if t.is_floating_point() and t.requires_grad]
        grads = torch.autograd.grad([t.square().sum() for t in floats], leaves) if leaves else []
        results.append([*output, *grads])
    return results


def random_boxes(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    corner, side = 60 * torch.rand(count, 2, generator=generator), 1 + 30 * torch.rand(count, 2, generator=generator)
    return torch.cat([corner, corner + side], 1), torch.rand(count, generator=generator)


def leaf(*shape, seed=0, scale=1.0):
    return (scale * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))).requires_grad_()


def dcn_case(modulated, scale=2.0, size=(5, 4)):
    def case():
        x, weight, offset = leaf(2, 4, 9, 8), leaf(6, 2, 3, 3, seed=1), leaf(2, 36, *size, seed=2, scale=scale)
        if not modulated:
            return (x, offset, weight), mmcv.ops.deform_conv2d(x, offset, weight, 2, 1, 1, 2, 2)
        mask, bias = leaf(2, 18, *size, seed=3), leaf(6, seed=4)
        out = mmcv.ops.modulated_deform_conv2d(x, offset, mask, weight, bias, 2, 1, 1, 2, 2)
        return (x, offset, mask, weight, bias), out

    return case


def roi_case(mode, aligned, ratio):
    def case():
        x = leaf(2, 3, 16, 20)
        boxes, _ = random_boxes(30)
        rois = torch.cat([torch.arange(30)[:, None] % 2, boxes], 1)
        return (x,), mmcv.ops.roi_align(x, rois, (7, 5), 0.25, ratio, mode, aligned)

    return case


def soft_case(method):
    return lambda: ((), mmcv.ops.soft_nms(*random_boxes(200), 0.3, 0.5, 0.2, method))


PARITY = {
    'nms': ('nms', lambda: ((), mmcv.ops.nms(*random_boxes(300), 0.4))),
    'nms with offset': ('nms', lambda: ((), mmcv.ops.nms(*random_boxes(300), 0.4, offset=1))),
    **{f'soft nms, {m}': ('nms', soft_case(m)) for m in ('naive', 'linear', 'gaussian')},
    'nms match': (
        'nms',
        lambda: ((), mmcv.ops.nms_match(torch.cat([(b := random_boxes(200))[0], b[1][:, None]], 1), 0.4)),
    ),
    **{
        f'roi align, {m}, aligned {a}, ratio {r}': ('roi_align', roi_case(m, a, r))
        for m in ('avg', 'max')
        for a in (True, False)
        for r in (0, 2)
    },
    'deform conv v1': ('deform_conv', dcn_case(False)),
    'deform conv v2': ('modulated_deform_conv', dcn_case(True)),
    'deform conv at the start': ('modulated_deform_conv', dcn_case(True, 0.0)),
    'deform conv v2, offsets of a larger map': ('modulated_deform_conv', dcn_case(True, size=(9, 8))),
    'bbox overlaps': ('bbox', lambda: ((), mmcv.ops.bbox_overlaps(random_boxes(9)[0], random_boxes(8, 1)[0]))),
    'psa mask': ('psa_mask', lambda: ((x := leaf(2, 15, 4, 5),), mmcv.ops.PSAMask('distribute', (5, 3))(x))),
}


@pytest.mark.skipif(SERVED, reason='compares with compiled MMCV, which is not installed')
@pytest.mark.parametrize('name', PARITY)
def test_parity_with_compiled_mmcv(monkeypatch, served, name):
    module, function = PARITY[name]
    module = sys.modules[f'mmcv.ops.{module}']
    monkeypatch.setattr(module, 'ext_module', None)
    compiled, ours = on_both(function, served, module)
    assert len(compiled) == len(ours)
    for a, b in zip(ours, compiled):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_every_operator_of_the_list_is_served():
    needed = ['nms', 'softnms', 'nms_match', 'bbox_overlaps', 'masked_im2col_forward', 'masked_col2im_forward']
    for name in ('roi_align', 'roi_pool', 'sigmoid_focal_loss', 'softmax_focal_loss', 'ms_deform_attn', 'psamask'):
        needed += [f'{name}_forward', f'{name}_backward']
    needed += ['deform_conv_forward', 'deform_conv_backward_input', 'deform_conv_backward_parameters']
    needed += ['modulated_deform_conv_forward', 'modulated_deform_conv_backward']
    assert set(needed) == set(MMCV_OPS)
    assert attention.psamask_forward is MMCV_OPS['psamask_forward']
