"""Modules whose traces would hold for one image size only."""

import pytest
import torch
from torch import nn

from vik_mm.compat.tracing import trace_sizes


@pytest.mark.parametrize('size', [(8, 6), (9, 31), (2, 2)], ids=str)
@torch.no_grad()
def test_average_pooling_in_a_trace_takes_maps_of_any_size(size):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(3))
    x = torch.randn(2, 4, *size)
    expected = model(x)
    trace_sizes(model)
    traced = torch.jit.trace(model, torch.randn(1, 4, 12, 12))
    torch.testing.assert_close(traced(x), expected)
    torch.testing.assert_close(model(x), expected)
