"""Agent attention."""

import pytest
import torch
import torch.nn.functional as F
from mixer_contract import MixerContract, move

from vik_mm.errors import BadInputError
from vik_mm.mixers import AgentAttention


class TestAgent(MixerContract):
    mixer = dict(type='AgentAttention')
    parameters = 12090
    golden = {'agent': dict(head_dims=16)}


class TestAgentsByStage(MixerContract):
    mixer = dict(type='AgentAttention', agents=9, head_dims=16, qkv_bias=False)
    grid_size = (5, 3)
    parameters = 4 * 32 * 32 + 32 + 10 * 32 + 98 * 2 * 9 + 2 * 2 * 9 * (5 + 3)
    test_one_exported_program_serves_all_sizes = None  # as above


def by_formula(mixer, x):
    """The authors' form: whole bias maps, resized as maps; ``[B, C, H, W]``."""
    batch, channels, height, width = x.shape
    heads, agents = mixer.num_heads, mixer.agents
    tokens = x.flatten(2).transpose(1, 2)

    def split(tokens):
        return tokens.unflatten(2, (heads, -1)).transpose(1, 2)

    q = tokens @ mixer.q.weight[..., 0, 0].t() + mixer.q.bias
    k, v = (tokens @ mixer.kv.weight[..., 0, 0].t() + mixer.kv.bias).chunk(2, dim=2)
    side = round(agents**0.5)
    pooled = F.adaptive_avg_pool2d(q.transpose(1, 2).view_as(x), (side, side)).flatten(2).transpose(1, 2)

    def resize(maps):
        return F.interpolate(maps, (height, width), mode='bilinear', align_corners=False)

    rows_and_columns = (mixer.ah_bias + mixer.aw_bias)[0]
    first = (resize(mixer.an_bias) + resize(rows_and_columns)).flatten(2)  # [h, n, N]
    rows_and_columns = (mixer.ha_bias + mixer.wa_bias)[0].permute(0, 3, 1, 2)
    second = (resize(mixer.na_bias) + resize(rows_and_columns)).flatten(2).transpose(1, 2)  # [h, N, n]
    scale = (channels // heads) ** -0.5
    gathered = (split(pooled) @ split(k).transpose(2, 3) * scale + first).softmax(3) @ split(v)
    out = (split(q) @ split(pooled).transpose(2, 3) * scale + second).softmax(3) @ gathered
    out = out.transpose(1, 2).flatten(2).transpose(1, 2).view_as(x) + mixer.dwc(v.transpose(1, 2).view_as(x))
    out = out.flatten(2).transpose(1, 2) @ mixer.proj.weight[..., 0, 0].t() + mixer.proj.bias
    return out.transpose(1, 2).view_as(x)


@torch.no_grad()
@pytest.mark.parametrize('size', [(6, 9), (3, 4), (20, 13)], ids=lambda size: '{}x{}'.format(*size))
def test_tables_resized_axis_by_axis_equal_resized_bias_maps(size):
    torch.manual_seed(0)
    mixer = AgentAttention(8, (6, 9), head_dims=4, agents=4).double()
    for parameter in mixer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 8, *size).double()
    torch.testing.assert_close(mixer(x), by_formula(mixer, x), rtol=1e-9, atol=1e-10)


@torch.no_grad()
def test_a_checkpoint_of_another_grid_answers_as_it_did_at_the_new_size():
    torch.manual_seed(0)
    theirs, ours = move(AgentAttention(32, (14, 14))).eval(), AgentAttention(32, (20, 9)).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(1, 32, 20, 9)
    torch.testing.assert_close(ours(x), theirs(x))


@pytest.mark.parametrize(('side', 'agents'), [(56, 9), (28, 16), (27, 49), (7, 49)])
def test_agents_of_none_follow_the_authors_stages(side, agents):
    assert AgentAttention(32, (side, 2 * side), agents=None).agents == agents


@pytest.mark.parametrize(
    ('options', 'text'),
    [
        (dict(head_dims=24), 'head_dims=24 must divide the 32 channels; choose one of'),
        (dict(agents=50), 'agents=50 must be a square number'),
        (dict(agents=0), 'agents=0 must be a square number'),
    ],
    ids=['heads', 'square', 'none'],
)
def test_wrong_options_are_named(options, text):
    with pytest.raises(BadInputError, match=text):
        AgentAttention(32, (14, 14), **options)


@torch.no_grad()
def test_a_checkpoint_with_other_agents_of_the_grid_loads_and_keeps_even_tables():
    small, large = (AgentAttention(32, grid, agents=None) for grid in ((14, 14), (56, 56)))
    assert (small.agents, large.agents) == (49, 9)
    state = {name: torch.full_like(value, 0.5) for name, value in small.state_dict().items()}
    large.load_state_dict(state)
    torch.testing.assert_close(large.wa_bias, torch.full_like(large.wa_bias, 0.5))
    with pytest.raises(RuntimeError, match='size mismatch'):
        AgentAttention(32, (56, 56), agents=9).load_state_dict(dict(state))
