import pytest
import torch
from mixer_contract import MixerContract, move

import vik_mm
from vik_mm.errors import BadInputError
from vik_mm.mixers import Identity, RIFormerAffine, fold_affine


class TestRIFormerAffine(MixerContract):
    mixer = dict(type='RIFormerAffine')
    parameters = 64
    golden = 'riformer'


def test_it_starts_near_the_negative_of_its_input():
    torch.manual_seed(0)
    mixer, x = RIFormerAffine(32, (14, 14)), torch.ones(1, 32, 2, 2)
    assert not mixer.affine.affine.bias.any()
    assert 0.01 < mixer.affine.affine.weight.std() < 0.04
    assert (mixer(x) + x).abs().max() < 0.1


def vik(mixer, norm_cfg):
    torch.manual_seed(0)
    arch = dict(depths=(1, 2), embed_dims=(8, 16))
    return vik_mm.ViK(
        arch, 64, token_mixer=dict(type=mixer), norm_cfg=norm_cfg, layer_scale_init_value=1.0, out_indices=(0, 1)
    ).eval()


@pytest.mark.parametrize('norm_cfg', [dict(type='GN', num_groups=1), dict(type='LN2d')], ids=['GN', 'LN2d'])
@torch.no_grad()
def test_folding_moves_the_mixer_into_the_norm_and_keeps_the_answers(norm_cfg):
    model, x = move(vik('RIFormerAffine', norm_cfg)), torch.randn(2, 3, 64, 48)
    before = model(x)
    assert fold_affine(model) == 3
    assert all(isinstance(block.token_mixer, Identity) for stage in model.stages for block in stage.blocks)
    for ours, theirs in zip(model(x), before):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    plain = vik('Identity', norm_cfg)
    plain.load_state_dict(model.state_dict())
    torch.testing.assert_close(plain(x), model(x), rtol=0, atol=0)


def test_folding_says_where_there_is_no_norm_to_fold_into():
    model = vik('RIFormerAffine', dict(type='GN', num_groups=1, affine=False))
    with pytest.raises(BadInputError, match='norm1 of .* has no weight and bias'):
        fold_affine(model)
    assert isinstance(model.stages[0].blocks[0].token_mixer, RIFormerAffine)
