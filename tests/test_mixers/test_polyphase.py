import pytest
import torch
from golden_parts import GoldenPart
from mixer_contract import MixerContract

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original, original_name
from vik_mm.mixers import PolyphaseAnchoring, build_token_mixer
from vik_mm.mixers.polyphase import find_anchors, roll_each

WINDOWS = dict(type='MaxViTAttention', partition='block')


class TestPolyphaseAnchoring(MixerContract):
    mixer = dict(type='PolyphaseAnchoring', mixer=WINDOWS)
    parameters = 4393
    golden = {'polyphase': dict(mixer=dict(type='Identity'), stride=7, roll_back=False)}


def mixer_of(inner=WINDOWS, **options):
    torch.manual_seed(0)
    mixer = build_token_mixer(dict(type='PolyphaseAnchoring', mixer=inner, **options), 32, (14, 14)).eval()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return mixer


@torch.no_grad()
@pytest.mark.parametrize('shift', [(3, 5), (7, 0), (-1, 20), (13, 1)], ids=str)
def test_a_circular_shift_of_the_image_shifts_the_answer(shift):
    mixer, x = mixer_of(), torch.randn(2, 32, 14, 21)
    moved = x.roll(shift, (2, 3))
    expected = mixer(x).roll(shift, (2, 3))
    assert (mixer(moved) - expected).abs().max() == 0
    if any(pixels % 7 for pixels in shift):
        assert (mixer.mixer(moved) - mixer.mixer(x).roll(shift, (2, 3))).abs().max() > 0.01


@torch.no_grad()
def test_circular_convolutions_keep_the_answer_equivariant():
    inner, shift = dict(type='DaViTAttention'), (3, 5)
    x = torch.randn(2, 32, 14, 14)
    for circular, low, high in ((True, 0, 1e-5), (False, 0.001, float('inf'))):
        mixer = mixer_of(inner, circular_convs=circular)
        difference = (mixer(x.roll(shift, (2, 3))) - mixer(x).roll(shift, (2, 3))).abs().max()
        assert low <= difference / mixer(x).abs().max() <= high


def test_anchors_are_the_originals():
    golden = GoldenPart('polyphase')
    anchors = find_anchors(golden.arrays['x'], 7)
    assert torch.equal(anchors, golden.arrays['anchor'].to(anchors.dtype))


def test_the_anchor_is_the_strongest_component_and_the_first_at_a_tie():
    x = torch.zeros(3, 2, 6, 4)
    x[0, 1, 5, 2] = -2  # residues 5 % 2 and 2 % 2
    x[1, :, ::2, 1::2] = 1
    assert find_anchors(x, 2).tolist() == [[1, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize('size', [(5, 7), (1, 1), (4, 4)], ids=str)
def test_each_image_is_rolled_by_its_own_shift_forward_and_backward(size):
    x = torch.randn(3, 2, *size, dtype=torch.double, requires_grad=True)
    shifts = torch.tensor([[1, 2], [-9, 4], [0, -1]])
    expected = torch.stack([image.roll(tuple(shift), (1, 2)) for image, shift in zip(x, shifts.tolist())])
    y = roll_each(x, shifts)
    assert torch.equal(y, expected)
    w = torch.randn_like(y)
    assert torch.equal(*(torch.autograd.grad((answer * w).sum(), x, retain_graph=True)[0] for answer in (y, expected)))
    assert torch.autograd.gradcheck(roll_each, (x, shifts))
    assert torch.autograd.gradgradcheck(roll_each, (x, shifts))


@torch.no_grad()
@pytest.mark.parametrize('size', [(5, 5), (9, 16), (1, 3)], ids=str)
def test_no_pixel_is_lost_where_the_stride_does_not_divide(size):
    x = torch.randn(2, 32, *size)
    assert torch.equal(mixer_of(dict(type='Identity'), stride=7)(x), x)
    rolled = mixer_of(dict(type='Identity'), stride=7, roll_back=False)(x)
    assert torch.equal(rolled.flatten(2).sort()[0], x.flatten(2).sort()[0])


def test_the_answer_stays_rolled_only_when_asked_to():
    x = torch.randn(2, 32, 14, 14)
    back, rolled = mixer_of()(x), mixer_of(roll_back=False)(x)
    torch.testing.assert_close(roll_each(rolled, find_anchors(x, 7)), back, rtol=0, atol=0)


def test_the_mixers_original_fills_the_mixer_inside():
    mixer, alone = mixer_of(), build_token_mixer(WINDOWS, 32, (14, 14))
    load_original(mixer, {original_name(alone, name): value for name, value in alone.state_dict().items()})
    for name, value in alone.state_dict().items():
        assert torch.equal(mixer.mixer.state_dict()[name], value)


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(inner=dict(type='Pooling')), 'Pooling has no window_size to anchor; give stride='),
        (dict(inner=dict(type='LocalRelation')), 'LocalRelation has no window_size to anchor; give stride='),
        (dict(stride=0), 'stride=0 must be an integer of at least 1'),
        (dict(circular_convs=True), 'MaxViTAttention has no padded convolution'),
    ],
    ids=['no-window', 'sliding-window', 'stride', 'no-convolution'],
)
def test_bad_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        mixer_of(**options)


def test_a_map_smaller_than_circular_padding_is_refused():
    mixer = mixer_of(dict(type='L2ViTGlobalAttention'), stride=2, circular_convs=True)
    with pytest.raises(BadInputError, match='pads 3 pixels from the opposite edge, and the map has 2x9'):
        mixer(torch.randn(1, 32, 2, 9))


def test_an_unknown_option_of_the_mixer_inside_is_named():
    with pytest.raises(TypeError, match=r"'MaxViTAttention' has no option \['window'\]"):
        PolyphaseAnchoring(32, (14, 14), mixer=dict(type='MaxViTAttention', window=7))
