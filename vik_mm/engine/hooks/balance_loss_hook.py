"""Brings the balance losses of routed layers into the training's loss."""

import logging
import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.logging import print_log
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from torch import nn

from vik_mm.errors import BadInputError


@HOOKS.register_module()
class BalanceLossHook(Hook):
    """Add ``loss_balance``, the mean balance loss of all routed layers times ``weight``, to the model's losses.

    A routed layer has the attributes ``balance_loss``, the loss of its passes in training or None,
    ``keeps_balance_loss``, whether it keeps it, and ``passes``, a list to take the mean of several passes or None;
    :class:`vik_mm.mixers.MixtureOfHeadAttention` contains such a layer.
    The losses are kept from the beginning of a forward pass to its end, and not when activation checkpointing computes
    blocks again. Afterwards the layers hold the values without their graphs.

    Args:
        weight (float): Factor of the mean. Defaults to 0.01, as in the release of mixture-of-head attention.

    Raises:
        BadInputError: If ``weight`` is negative or not finite.
    """

    def __init__(self, weight: float = 0.01):
        if not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise BadInputError(f'weight={weight!r} of BalanceLossHook must be a finite number from 0 up, such as 0.01')
        self.weight = weight
        self._layers: list[Any] = []
        self._handles: list[Any] = []

    def before_train(self, runner) -> None:
        """Attach to the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._layers = [module for module in model.modules() if hasattr(module, 'keeps_balance_loss')]
        if not self._layers:
            print_log(
                'BalanceLossHook found no routed layer in the model and adds no loss; take it out of custom_hooks',
                logger='current',
                level=logging.WARNING,
            )
            return
        self._keep(False)
        self._handles = [model.register_forward_pre_hook(self._begin), model.register_forward_hook(self._add)]

    def after_train(self, runner) -> None:
        """Detach from the model."""
        for handle in self._handles:
            handle.remove()
        self._keep(True)
        self._handles, self._layers = [], []

    def _keep(self, keeps: bool) -> None:
        for layer in self._layers:
            layer.keeps_balance_loss = keeps

    def _begin(self, model: nn.Module, args: tuple) -> None:
        self._keep(True)
        for layer in self._layers:
            layer.balance_loss, layer.passes = None, []

    def _add(self, model: nn.Module, args: tuple, output: Any) -> Any:
        """Add the loss to a dict of losses; predictions and maps pass."""
        self._keep(False)
        losses = [layer.balance_loss for layer in self._layers if layer.balance_loss is not None]
        for layer in self._layers:
            layer.passes = None
            if layer.balance_loss is not None:
                layer.balance_loss = layer.balance_loss.detach()
        if not losses or not isinstance(output, dict):
            return output
        return {**output, 'loss_balance': self.weight * torch.stack(losses).mean()}
