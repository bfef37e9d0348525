"""One line in the log for all mixers whose weights a checkpoint has in another size."""

from mmengine.logging import print_log
from torch import nn

from .base import TokenMixer


def log_resampled_mixers(model: nn.Module, _=None) -> None:
    """Say how many mixers of a model resampled what they loaded.

    A backbone registers it by ``register_load_state_dict_post_hook``: it runs after all mixers have loaded.

    Args:
        model (nn.Module): What holds the mixers.
        _ (Any): Missing and unexpected keys, which PyTorch hands to such hooks.
    """
    mixers = [m for m in model.modules() if isinstance(m, TokenMixer) and m.resampled_from is not None]
    if not mixers:
        return
    print_log(
        f'the checkpoint is of another image size: {len(mixers)} token mixers were resampled, the first one: '
        f'{mixers[0].resampled_from}',
        logger='current',
    )
    for mixer in mixers:
        mixer.resampled_from = None
