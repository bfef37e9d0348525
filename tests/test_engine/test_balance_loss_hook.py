import copy
import types

import pytest
import torch
from mmengine.logging import MMLogger
from mmpretrain.registry import MODELS
from mmpretrain.structures import DataSample

import vik_mm
from vik_mm.engine.hooks import BalanceLossHook
from vik_mm.errors import BadInputError


def build(with_cp=False, mixer='MixtureOfHeadAttention'):
    torch.manual_seed(0)
    options = dict(head_dims=4) if mixer == 'MixtureOfHeadAttention' else {}
    backbone = dict(
        type='ViK',
        arch=dict(depths=(1, 2), embed_dims=(16, 16)),
        img_size=64,
        token_mixer=dict(type=mixer, **options),
        layer_scale_init_value=1.0,
        out_indices=(1,),
        with_cp=with_cp,
    )
    head = dict(type='LinearClsHead', num_classes=3, in_channels=16)
    return MODELS.build(
        dict(type='ImageClassifier', backbone=backbone, neck=dict(type='GlobalAveragePooling'), head=head)
    ).train()


def attach(model, **options):
    hook = BalanceLossHook(**options)
    hook.before_train(types.SimpleNamespace(model=model))
    return hook


def losses_of(model, mode='loss'):
    torch.manual_seed(1)
    samples = [DataSample().set_gt_label(label) for label in (0, 2)]
    return model(torch.randn(2, 3, 48, 64), samples, mode=mode)


def gates_of(model):
    return [module for module in model.modules() if hasattr(module, 'keeps_balance_loss')]


@pytest.mark.parametrize('with_cp', [False, True], ids=['plain', 'checkpointed'])
def test_the_loss_is_added_once_and_reaches_the_gates(with_cp):
    plain, model = build(), build(with_cp)
    expected = losses_of(plain)
    balance = 0.5 * torch.stack([gate.balance_loss for gate in gates_of(plain)]).mean()
    (expected['loss'] + balance).backward()

    attach(model, weight=0.5)
    losses = losses_of(model)
    torch.testing.assert_close(losses['loss_balance'], balance)
    model.parse_losses(losses)[0].backward()
    for ours, theirs in zip(model.parameters(), plain.parameters()):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-6)
    # Blocks that the backward pass computed again have kept no graph.
    assert not any(gate.balance_loss is not None and gate.balance_loss.requires_grad for gate in gates_of(model))
    copy.deepcopy(model)


def test_validation_has_no_such_loss():
    model = build()
    attach(model)
    model.eval()
    assert len(losses_of(model, 'predict')) == 2
    assert losses_of(model, 'tensor').shape == (2, 3)
    assert all(gate.balance_loss is None for gate in gates_of(model))


def test_after_training_the_model_is_as_before():
    model = build()
    attach(model).after_train(None)
    assert 'loss_balance' not in losses_of(model)
    assert all(gate.balance_loss.requires_grad for gate in gates_of(model))


def test_a_model_without_routed_layers_is_named(caplog):
    logger = MMLogger.get_current_instance()
    logger.addHandler(caplog.handler)
    model = build(mixer='Pooling')
    try:
        hook = attach(model)
    finally:
        logger.removeHandler(caplog.handler)
    assert 'found no routed layer' in caplog.text
    assert set(losses_of(model)) == {'loss'}
    hook.after_train(None)


@pytest.mark.parametrize('weight', [-1, float('nan'), float('inf'), '0.1'])
def test_a_wrong_weight_is_named(weight):
    with pytest.raises(BadInputError, match='weight=.* must be a finite number'):
        BalanceLossHook(weight=weight)


def test_images_of_unlike_sizes_add_their_passes_to_the_balance_loss():
    torch.manual_seed(0)
    mixer = dict(type='MixtureOfHeadAttention', head_dims=8)
    arch = dict(depths=(1,), embed_dims=(32,))
    model = vik_mm.ViK(arch, img_size=64, token_mixer=mixer, out_indices=(0,), ignore_padding=True)
    batch = torch.randn(2, 3, 64, 64)
    batch[1, :, :, 40:] = 0
    (gate,) = gates_of(model)
    each = []
    for image in (batch[:1], batch[1:, :, :, :40]):
        model(image)
        each.append(gate.balance_loss.item())
    hook = BalanceLossHook()
    hook.before_train(types.SimpleNamespace(model=model))
    hook._begin(model, ())
    model(batch)
    losses = hook._add(model, (), {})
    assert losses['loss_balance'].item() == pytest.approx(0.01 * sum(each) / 2)
    assert gate.passes is None
    hook.after_train(types.SimpleNamespace(model=model))
