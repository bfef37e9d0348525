import pytest
import torch
from mixer_contract import MixerContract

import vik_mm
from vik_mm.mixers import ConvAdditiveAttention


class TestConvAdditiveAttention(MixerContract):
    mixer = dict(type='ConvAdditiveAttention')
    parameters = 6592
    golden = 'casvit'
    padding_options = dict(norm_cfg=dict(type='GN', num_groups=1))


def test_the_backbone_refuses_the_batch_norm_inside_where_padding_is_ignored():
    arch = dict(depths=(1,), embed_dims=(8,))
    with pytest.raises(ValueError, match='batch norm'):
        vik_mm.ViK(arch=arch, out_indices=(0,), token_mixer=dict(type='ConvAdditiveAttention'), ignore_padding=True)


def test_the_norm_and_the_bias_are_options():
    mixer = ConvAdditiveAttention(16, (14, 14), qkv_bias=True, norm_cfg=dict(type='SyncBN'))
    assert isinstance(mixer.gate_q.norm, torch.nn.SyncBatchNorm)
    assert mixer.qkv.bias.shape == (48,)


def test_training_uses_the_statistics_of_the_batch():
    torch.manual_seed(0)
    mixer = ConvAdditiveAttention(16, (14, 14)).train()
    mixer(torch.randn(2, 16, 6, 5))
    for gate in (mixer.gate_q, mixer.gate_k):
        assert gate.norm.num_batches_tracked == 1
        assert gate.norm.momentum == 0.1
        assert gate.norm.running_mean.any()
