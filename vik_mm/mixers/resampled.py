"""One line in the log for all mixers whose weights a checkpoint has in another size."""

from typing import Any

from mmengine.logging import print_log
from torch import nn


def log_resampled_mixers(model: nn.Module, _=None) -> None:
    """Say how many mixers of a model resampled what they loaded.

    A backbone registers it by ``register_load_state_dict_post_hook``: it runs after all mixers have loaded.

    Args:
        model (nn.Module): What holds the mixers.
        _ (Any): Missing and unexpected keys, which PyTorch hands to such hooks.
    """
    mixers: list[Any] = [m for m in model.modules() if getattr(m, 'resampled_from', None) is not None]
    if not mixers:
        return
    number = '1 token mixer was' if len(mixers) == 1 else f'{len(mixers)} token mixers were'
    print_log(
        f'the checkpoint is of another image size: {number} resampled, the first one: {mixers[0].resampled_from}',
        logger='current',
    )
    for mixer in mixers:
        mixer.resampled_from = None
