import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vik_mm.errors import BadInputError
from vik_mm.layers import load_original, original_name


class Original(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(4, 12)
        self.proj = nn.Linear(4, 4)
        self.register_buffer('index', torch.arange(4))


class Ours(nn.Module):
    original_names = ((r'^to_(\w+)\.', r'\1.'), (r'^out\.', 'proj.'))
    original_unused = (r'index',)

    def __init__(self):
        super().__init__()
        self.to_qkv = nn.Conv2d(4, 12, 1)
        self.out = nn.Linear(4, 4)


class OriginalGroups(nn.Module):
    """A layer for each group of channels, more than ten of them."""

    def __init__(self):
        super().__init__()
        self.groups = nn.ModuleList(
            nn.ModuleDict(dict(conv=nn.Conv2d(2, 1, 1), bn=nn.BatchNorm2d(1))) for _ in range(12)
        )


class Grouped(nn.Module):
    original_names = ((r'^(conv|bn)\.', r'groups.*.\1.'),)

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(24, 12, 1, groups=12)
        self.bn = nn.BatchNorm2d(12)


class Transposed(nn.Module):
    original_names = (('table', 'weight'),)

    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(3, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def from_original(self, name, value):
        return value.t() if name == 'table' else value


class Resampled(nn.Module):
    """A table that follows the grid, as position tables do."""

    def __init__(self, side):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(1, side))
        self.scale = nn.Parameter(torch.ones(2))
        self._register_load_state_dict_pre_hook(self._resample)

    def _resample(self, state_dict, prefix, *_):
        table = state_dict[prefix + 'table']
        if table.ndim == 2:
            state_dict[prefix + 'table'] = F.interpolate(table[None], self.table.shape[1])[0]


def test_names_are_replaced_in_turn_and_a_linear_weight_fits_a_1x1_convolution():
    original, ours = Original(), Ours()
    assert original_name(ours, 'to_qkv.weight') == 'qkv.weight'
    load_original(ours, original.state_dict())
    x = torch.randn(2, 4, 5, 5)
    expected = original.qkv(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    torch.testing.assert_close(ours.to_qkv(x), expected)
    assert torch.equal(ours.out.weight, original.proj.weight)


def test_a_part_is_taken_out_of_a_whole_network():
    original, ours = Original(), Ours()
    whole = {f'blocks.1.{name}': value for name, value in original.state_dict().items()}
    load_original(ours, {**whole, 'blocks.0.qkv.weight': torch.zeros(1)}, prefix='blocks.1.')
    assert torch.equal(ours.out.bias, original.proj.bias)


def test_a_module_brings_values_into_its_own_order():
    ours, weight = Transposed(), torch.randn(2, 3)
    load_original(ours, dict(weight=weight, bias=torch.ones(2)))
    assert torch.equal(ours.table, weight.t())
    assert ours.bias.eq(1).all()


def test_load_hooks_may_resample_a_table_of_another_size():
    ours = Resampled(4)
    load_original(ours, dict(table=torch.tensor([[1.0, 2.0]]), scale=torch.zeros(2)))
    assert ours.table.tolist() == [[1, 1, 2, 2]]


def test_numbered_layers_are_joined_in_the_order_of_their_numbers():
    original, ours = OriginalGroups().eval(), Grouped().eval()
    for group in original.groups:
        group.bn.running_mean.normal_()
    load_original(ours, original.state_dict())
    x = torch.randn(2, 24, 3, 3)
    parts = [group.bn(group.conv(part)) for group, part in zip(original.groups, x.chunk(12, dim=1))]
    torch.testing.assert_close(ours.bn(ours.conv(x)), torch.cat(parts, dim=1))


def test_a_numbered_layer_too_few_and_none_at_all_are_named():
    state = OriginalGroups().state_dict()
    fewer = {name: value for name, value in state.items() if not name.startswith('groups.11.')}
    with pytest.raises(
        BadInputError, match=r'misshapen: groups\.\*\.conv\.weight \[11, 2, 1, 1\], conv\.weight here is'
    ):
        load_original(Grouped(), fewer)
    with pytest.raises(BadInputError, match=r'missing: groups\.\*\.conv\.bias, groups\.\*\.conv\.weight\. Give'):
        load_original(Grouped(), {name: value for name, value in state.items() if '.bn.' in name})


def change(**values):
    state = Original().state_dict()
    for name, value in values.items():
        name = name.replace('__', '.')
        if value is None:
            state.pop(name)
        else:
            state[name] = value
    return state


@pytest.mark.parametrize(
    ('state', 'text'),
    [
        (change(qkv__bias=None), r'does not fit Ours\. missing: qkv\.bias\. Give'),
        (change(head__weight=torch.ones(1)), r'does not fit Ours\. unknown: head\.weight\. Give'),
        (change(proj__weight=torch.ones(4, 5)), r'misshapen: proj\.weight \[4, 5\], out\.weight here is \[4, 4\]\.'),
        (dict(state_dict=Original().state_dict()), r'missing: proj\.bias, .*; unknown: state_dict\.'),
        (change(**{f'extra{i}': torch.ones(1) for i in range(10)}), r'unknown: extra0, .*, extra7, and 2 more\.'),
    ],
    ids=['missing', 'unknown', 'misshapen', 'checkpoint', 'many'],
)
def test_wrong_tensors_are_named(state, text):
    with pytest.raises(BadInputError, match=text):
        load_original(Ours(), state)


def test_the_prefix_that_was_looked_under_is_named():
    with pytest.raises(BadInputError, match=r"under the prefix 'blocks\.0\.' does not fit Ours\. missing: proj\.bias"):
        load_original(Ours(), Original().state_dict(), prefix='blocks.0.')


def test_a_misfit_beside_a_resampled_table_is_the_only_one_named():
    with pytest.raises(BadInputError, match=r'misshapen: scale \[3\], scale here is \[2\]\. Give'):
        load_original(Resampled(4), dict(table=torch.ones(1, 2), scale=torch.zeros(3)))
