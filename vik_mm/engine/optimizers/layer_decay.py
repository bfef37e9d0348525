"""Layer-wise learning-rate decay, one implementation for the models of all mm packages."""

from typing import Any

import torch
from mmengine.logging import print_log
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS
from torch import nn

from vik_mm.errors import BadInputError


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class LayerDecayOptimWrapperConstructor(DefaultOptimWrapperConstructor):
    r"""Give deeper layers of the backbone a larger learning rate than the ones near the image.

    The learning rate of a parameter is multiplied by ``layer_decay_rate ** (num_layers - 1 - depth)``. Depths come from
    the backbone itself: from ``get_layer_depth(param_name, prefix)``, which backbones of this project and of MMPretrain
    have. What lies outside the backbone keeps its rate.

    Args:
        optim_wrapper_cfg (dict): As MMEngine's default constructor takes it.
        paramwise_cfg (dict): ``layer_decay_rate`` (float, in (0, 1]), and what MMEngine's default constructor takes:
            ``custom_keys``, ``flat_decay_mult``, ``norm_decay_mult`` and so on, with the same meaning.

    Raises:
        BadInputError: If ``layer_decay_rate`` is missing or not in (0, 1], or no part of the model has
            ``get_layer_depth``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: dict | None = None):
        paramwise_cfg = dict(paramwise_cfg or {})
        rate = paramwise_cfg.pop('layer_decay_rate', None)
        if rate is None or not 0 < rate <= 1:
            raise BadInputError(f'optim_wrapper.paramwise_cfg.layer_decay_rate={rate} must be a number in (0, 1]')
        super().__init__(optim_wrapper_cfg, paramwise_cfg)
        self.layer_decay_rate: float = rate
        # Without any option MMEngine hands over the parameters unseen.
        self.paramwise_cfg.setdefault('custom_keys', {})

    def add_params(self, params: list[dict], module: nn.Module, prefix: str = '', is_dcn_module=None) -> None:
        """Add the parameters of a module, the whole model's with their decayed rates.

        Args:
            params (list[dict]): Parameter groups; changed in place.
            module (nn.Module): The model, or, as MMEngine recurses, a part of it.
            prefix (str): The part's name; '' for the model. Defaults to ''.
            is_dcn_module (bool, optional): Whether the part belongs to a deformable convolution. Defaults to None.
        """
        super().add_params(params, module, prefix=prefix, is_dcn_module=is_dcn_module)
        if not prefix:
            scales = self._scales(module)
            for group in params:
                (param,) = group['params']
                rate: Any = group.get('lr', self.base_lr)
                group['lr'] = rate * scales.get(param, 1.0)
            params[:] = _merge(params)

    def _scales(self, model: nn.Module) -> dict[torch.Tensor, float]:
        scales = {}
        for name, module in model.named_modules():
            # A whole classifier of MMPretrain has the method too, and passes on to its backbone.
            if not hasattr(module, 'get_layer_depth') or hasattr(module, 'backbone'):
                continue
            prefix = f'{name}.' if name else ''
            for key, param in module.named_parameters():
                depth, num_layers = module.get_layer_depth(prefix + key, prefix)
                scales[param] = self.layer_decay_rate ** (num_layers - 1 - depth)
        if not scales:
            kind = type(getattr(model, 'backbone', model)).__name__
            raise BadInputError(
                f'layer-wise decay needs a backbone with get_layer_depth, and {kind} has none; take one that does '
                "(ViK, those of MMPretrain), or remove optim_wrapper.constructor and paramwise_cfg's layer_decay_rate"
            )
        print_log(
            f'layer-wise decay: learning rates of {len(scales)} backbone parameters x {min(scales.values()):.3f} to '
            f'{max(scales.values()):.3f}',
            logger='current',
        )
        return scales


def _merge(groups: list[dict]) -> list[dict]:
    """Join groups of the same options: an optimizer step costs by the group."""
    merged: dict[str, dict] = {}
    for group in groups:
        options = {key: value for key, value in group.items() if key != 'params'}
        known = merged.setdefault(repr(sorted(options.items())), {'params': [], **options})
        known['params'].extend(group['params'])
    return list(merged.values())
