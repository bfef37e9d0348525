import math

import pytest
import torch
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.mixers import DeformableAttention


class TestDeformableAttention(MixerContract):
    mixer = dict(type='DeformableAttention')
    parameters = 5913
    golden = {'datpp': dict(head_dims=16, num_groups=2)}


@pytest.mark.parametrize(
    ('side', 'stride', 'kernel'), [(56, 8, 9), (28, 4, 7), (14, 2, 5), (7, 1, 3), (2, 1, 3), (60, 8, 9), (16, 2, 5)]
)
def test_stride_and_kernel_follow_the_authors(side, stride, kernel):
    mixer = DeformableAttention(32, (side, side + 3))
    assert mixer.offset_depthwise.stride == (stride, stride)
    assert mixer.offset_depthwise.kernel_size == (kernel, kernel)


def test_groups_are_half_of_the_heads_where_that_divides_them():
    groups = [DeformableAttention(32 * heads, (7, 7)).num_groups for heads in (1, 2, 4, 5, 6, 8, 9, 10)]
    assert groups == [1, 1, 2, 1, 3, 4, 3, 5]


def sampled(image, y, x):
    """Value of ``[H, W]`` linearly between pixels, ``y`` and ``x`` in pixels; zero beyond the map."""
    height, width = image.shape
    value = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                value += (1 - abs(y - row)) * (1 - abs(x - column)) * image[row, column]
    return value


def in_pixels(position, length):
    """Pixels of a position from -1 to 1, the ends being the outermost pixels."""
    return (position + 1) / 2 * (length - 1)


def points_by_loops(mixer, q):
    """Points of one image for each group, (y, x) from -1 to 1, from the definition; ``q`` is ``[C, H, W]``."""
    points = []
    for part in q.chunk(mixer.num_groups):
        moves = mixer.offset_norm(mixer.offset_depthwise(part[None]))
        moves = mixer.offset_pointwise(torch.nn.functional.gelu(moves))[0]
        counts = moves.shape[1:]
        steps = [max(count - 1, 1) for count in counts]
        points.append([])
        for place in [(i, j) for i in range(counts[0]) for j in range(counts[1])]:
            start = [2 * (n + 0.5) / (count - 1) - 1 if count > 1 else 0 for n, count in zip(place, counts)]
            move = moves[:, place[0], place[1]].tolist()
            if mixer.offset_range is None:
                points[-1].append([max(-1.0, min(1.0, s + m)) for s, m in zip(start, move)])
            else:
                ranges = [mixer.offset_range / step for step in steps]
                points[-1].append([s + math.tanh(m) * r for s, m, r in zip(start, move, ranges)])
    return points


def attend_by_loops(mixer, x):
    """Mix one image ``[C, H, W]``, from the definition."""
    channels, height, width = x.shape
    q = mixer.proj_q(x[None])[0]
    points = points_by_loops(mixer, q)
    samples = torch.zeros(1, channels, 1, len(points[0]), dtype=x.dtype)
    for channel in range(channels):
        of_group = points[channel // (channels // mixer.num_groups)]
        for number, (y, z) in enumerate(of_group):
            samples[0, channel, 0, number] = sampled(x[channel], in_pixels(y, height), in_pixels(z, width))
    keys, values = (proj(samples)[0, :, 0] for proj in (mixer.proj_k, mixer.proj_v))
    dims = channels // mixer.num_heads
    answer = torch.empty_like(x)
    for head, table in enumerate(mixer.bias_table):
        part = slice(head * dims, (head + 1) * dims)
        of_group = points[head // (mixer.num_heads // mixer.num_groups)]
        for row in range(height):
            for column in range(width):
                pixel = [2 * n / (side - 1) - 1 if side > 1 else 0 for n, side in ((row, height), (column, width))]
                shifts = [[(p - s) / 2 for p, s in zip(pixel, point)] for point in of_group]
                bias = [float(sampled(table, *map(in_pixels, shift, table.shape))) for shift in shifts]
                scores = q[part, row, column] @ keys[part] * dims**-0.5 + torch.tensor(bias).to(x)
                answer[part, row, column] = values[part] @ scores.softmax(0)
    return mixer.proj_out(answer[None])[0]


@pytest.mark.parametrize('offset_range', [None, 2.0], ids=['free', 'bounded'])
@pytest.mark.parametrize(
    ('heads', 'groups', 'size'),
    [
        (4, 2, (5, 6)),  # two heads a group
        (4, 1, (7, 3)),
        (2, 2, (1, 6)),  # an axis of one pixel has no step
        (2, 1, (2, 5)),  # an axis of one point
        (2, 2, (1, 1)),
    ],
    ids=str,
)
@torch.no_grad()
def test_attention_equals_loops_over_pixels_and_points(heads, groups, size, offset_range):
    torch.manual_seed(0)
    mixer = DeformableAttention(
        8, (6, 5), head_dims=8 // heads, num_groups=groups, stride=2, offset_range=offset_range
    ).double()
    for parameter in (mixer.bias_table, mixer.offset_pointwise.weight):
        torch.nn.init.normal_(parameter)
    x = torch.randn(8, *size, dtype=torch.float64)
    torch.testing.assert_close(mixer(x[None])[0], attend_by_loops(mixer, x))


@torch.no_grad()
def test_points_are_positions_on_the_map_however_far_they_are_moved():
    mixer = DeformableAttention(32, (14, 14))
    torch.nn.init.constant_(mixer.offset_pointwise.weight, 50.0)
    points = mixer.sample_points(torch.randn(2, 32, 9, 11))
    assert points.shape == (2, 5 * 6, 2)
    assert points.abs().max() == 1


@torch.no_grad()
def test_half_precision_samples_at_points_in_single_precision():
    torch.manual_seed(0)
    mixer = DeformableAttention(32, (14, 14)).bfloat16()
    x = torch.randn(1, 32, 33, 57).bfloat16()
    assert mixer.sample_points(x).dtype == torch.float32
    assert mixer(x).dtype == torch.bfloat16
    torch.testing.assert_close(mixer(x).float(), mixer.float()(x.float()), rtol=0.05, atol=0.02)


@torch.no_grad()
def test_a_checkpoint_of_another_grid_keeps_the_sum_of_kernels_and_the_ends_of_tables():
    old, new = DeformableAttention(32, (14, 14)), DeformableAttention(32, (28, 20))
    ramp = torch.linspace(-1, 1, 27)
    old.bias_table.copy_(ramp[None, :, None] + 2 * ramp)
    new.load_state_dict(old.state_dict())
    assert new.bias_table.shape == (1, 55, 39)
    torch.testing.assert_close(new.bias_table[0, 27, 19], torch.zeros(()), rtol=0, atol=1e-5)
    assert (new.bias_table.diff(dim=1).mean(), new.bias_table.diff(dim=2).mean()) == (
        pytest.approx(2 / 54, rel=0.05),
        pytest.approx(4 / 38, rel=0.05),
    )
    wide = DeformableAttention(32, (28, 28))
    assert wide.offset_depthwise.kernel_size != old.offset_depthwise.kernel_size
    wide.load_state_dict(old.state_dict())
    sums = [mixer.offset_depthwise.weight.sum((2, 3)) for mixer in (wide, old)]
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-5)


def test_a_checkpoint_of_other_heads_is_no_other_grid():
    with pytest.raises(RuntimeError, match='size mismatch for bias_table'):
        DeformableAttention(32, (14, 14)).load_state_dict(DeformableAttention(32, (7, 7), head_dims=16).state_dict())


def test_a_map_with_too_many_pairs_is_refused():
    mixer = DeformableAttention(32, (14, 14), stride=2, max_tokens=500)
    with pytest.raises(BadInputError, match='compare 1600 pixels with 400 each.*max_tokens=500'):
        mixer(torch.randn(1, 32, 40, 40))


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=12), 'head_dims=12 must divide the 32 channels'),
        (dict(head_dims=8, num_groups=3), 'num_groups=3 must divide the 4 heads'),
        (dict(stride=0), 'stride=0 must be at least 1'),
        (dict(offset_kernel=4), 'offset_kernel=4 must be a positive odd number'),
        (dict(offset_range=-1), 'offset_range=-1 must be 0 or more, or None'),
    ],
    ids=lambda value: next(reversed(value)) if isinstance(value, dict) else '',
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        DeformableAttention(32, (14, 14), **options)
