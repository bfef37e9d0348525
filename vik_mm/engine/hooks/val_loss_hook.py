"""The loss on the validation split."""

from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS

from vik_mm.errors import BadInputError


@HOOKS.register_module()
class ValLossHook(Hook):
    """Log ``val/loss`` with each validation: the sum of the model's losses, as training has it.

    It runs before averages of weights give way to the weights themselves, so that with an ``EMAHook`` it is of what the
    other figures are of.

    Args:
        dataloader (dict): Config of a loader of the validation split, whose pipeline scales the truth with the image.

    Raises:
        BadInputError: While it runs, if the model gives no loss for these data.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, dataloader: dict):
        self.dataloader = dataloader
        self._loader: Any = None

    def after_val_epoch(self, runner, metrics=None):
        """Go through the split once more."""
        if self._loader is None:
            self._loader = runner.build_dataloader(self.dataloader, seed=runner.seed)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        sums = torch.zeros(2, dtype=torch.float64)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            for batch in self._loader:
                count = len(batch['inputs'])
                data = model.data_preprocessor(batch, training=True)
                losses = model(**data, mode='loss')
                try:
                    loss, _ = model.parse_losses(losses)
                except TypeError as error:
                    raise BadInputError(f'ValLossHook: {type(model).__name__} gives no losses ({error})') from error
                sums += torch.tensor([float(loss) * count, count], dtype=torch.float64)
        model.train(was_training)
        all_reduce(sums)
        value = float(sums[0] / sums[1])
        runner.message_hub.update_scalar('val/loss', value)
        if metrics is not None:
            metrics['loss'] = value  # so that it can choose the best checkpoint
