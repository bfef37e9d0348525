"""What a backbone asks of a token mixer."""

from mmengine.model import BaseModule
from torch import nn

from vik_mm.parts import build_part

from .resampled import log_resampled_mixers


class TokenMixer(BaseModule):
    """Base of the token mixers: mixes the pixels of a map and keeps its shape.

    To add one, subclass, keep the first two arguments, register it in ``mmpretrain.registry.MODELS``, and name it in
    ``ViK(token_mixer=dict(type=...))``. All parameters must exist after ``__init__``, and maps of every size must be
    taken.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Attributes:
        resampled_from (str, optional): What loading a checkpoint resampled, from which size to which, such as
            'rel_bias from a grid of (7, 7) to (14, 14)'; :func:`vik_mm.mixers.log_resampled_mixers` reads it.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    resampled_from: str | None = None

    def __init__(self, embed_dims: int, grid_size: tuple[int, int], init_cfg=None):
        super().__init__(init_cfg=init_cfg)
        self.embed_dims = embed_dims
        self.grid_size = grid_size

    def load_state_dict(self, *args, **kwargs):
        """Load a mixer's own state dict, and log what was resampled; a backbone logs it for all of its mixers."""
        result = super().load_state_dict(*args, **kwargs)
        log_resampled_mixers(self)
        return result


def build_token_mixer(cfg: dict, embed_dims: int, grid_size: tuple[int, int]) -> nn.Module:
    """Build a token mixer from its config, whatever package the surrounding config belongs to.

    Args:
        cfg (dict): ``type``, the name of a mixer in MMPretrain's registry, and the mixer's own options.
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``.

    Returns:
        nn.Module: The mixer.

    Raises:
        BadTypeError: If ``cfg`` is no dict with a ``type``, or has an option that the mixer does not know.
        BadInputError: If the type is not registered or is no mixer, or the mixer refuses a value.
    """
    given = dict(embed_dims=embed_dims, grid_size=grid_size)
    return build_part(cfg, 'token_mixer', 'token mixer', TokenMixer, 'MultiPatchRBFKAN', **given)
