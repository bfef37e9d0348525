"""What a block asks of a channel MLP.

Shape letters: ``B`` images, ``C`` channels, ``R`` rows, one for each pixel.
"""

from typing import Any

import torch
from torch import Tensor, nn

from vik_mm.parts import build_part

from .strips import map_strips


class ChannelMLP(nn.Module):
    """Base of the channel MLPs: maps the channels of each pixel by itself.

    To add one, subclass, keep the four arguments, write :meth:`map_rows`, register the class in
    ``mmpretrain.registry.MODELS``, and name it in ``ViK(mlp=dict(type=...))``.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Config of the activation that the block asks for. Types whose layers are activations themselves
            have no use for it.
        drop_rate (float): Dropout.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, hidden_dims: int, act_cfg: dict, drop_rate: float):
        super().__init__()
        self.embed_dims = embed_dims
        self.hidden_dims = hidden_dims
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]`` to ``[B, C, H, W]``; where no gradient is asked for, a strip of pixels at a time."""
        rows = x.permute(0, 2, 3, 1).flatten(0, 2)
        # In training layers keep less by themselves: dropout must draw the same numbers twice.
        in_training = torch.is_grad_enabled()
        answers = self.map_rows(rows) if in_training else map_strips(self.map_rows, rows, self.row_width())
        return answers.reshape(x.shape[0], *x.shape[2:], -1).permute(0, 3, 1, 2).contiguous()

    def map_rows(self, rows: Tensor) -> Tensor:
        """Map ``[R, C]`` to ``[R, C]``, each row by itself."""
        raise NotImplementedError

    def row_width(self) -> int:
        """Count the values that :meth:`map_rows` makes for one row at the same time; the hidden channels, or more."""
        return self.hidden_dims


class KANMLP(ChannelMLP):
    """Base of the MLPs of two Kolmogorov-Arnold layers with nothing between but dropout.

    Args:
        layers (tuple[nn.Module, nn.Module]): ``[R, C] -> [R, hidden_dims]`` and back; each has ``num_bases``, the basis
            functions of each of its inputs.
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: the layers are activations themselves.
        drop_rate (float): Dropout after each layer.
    """

    def __init__(
        self,
        layers: tuple[nn.Module, nn.Module],
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict,
        drop_rate: float,
    ):
        super().__init__(embed_dims, hidden_dims, act_cfg, drop_rate)
        self.layers = nn.ModuleList(layers)

    def map_rows(self, rows: Tensor) -> Tensor:
        """Map ``[R, C]`` to ``[R, C]``."""
        for layer in self.layers:
            rows = self.drop(layer(rows))
        return rows

    def row_width(self) -> int:
        """Count the basis functions of both layers."""
        layers: Any = self.layers
        first, second = layers
        return first.num_bases * self.embed_dims + second.num_bases * self.hidden_dims


def build_mlp(cfg: dict, embed_dims: int, hidden_dims: int, act_cfg: dict, drop_rate: float = 0.0) -> nn.Module:
    """Build a channel MLP from its config, whatever package the surrounding config belongs to.

    Args:
        cfg (dict): ``type``, the name of an MLP in MMPretrain's registry, and the MLP's own options.
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Config of the activation, for types that have one.
        drop_rate (float): Dropout. Defaults to 0.

    Returns:
        nn.Module: The MLP.

    Raises:
        TypeError: If ``cfg`` is no dict with a ``type``, or has an option that the MLP does not know.
        ValueError: If the type is not registered or is no MLP, or the MLP refuses a value.
    """
    given = dict(embed_dims=embed_dims, hidden_dims=hidden_dims, act_cfg=act_cfg, drop_rate=drop_rate)
    return build_part(cfg, 'mlp', 'channel MLP', ChannelMLP, 'ConvMLP', **given)
