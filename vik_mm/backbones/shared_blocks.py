"""Blocks that a backbone applies several times in a row.

A *layer* is one application of a block; a *phase* is the row of layers that one block serves.
"""

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vik_mm.errors import BadInputError


def assign_blocks(depth: int, share_blocks: int | None, phases: Sequence[int] | None) -> list[int]:
    """Tell which block serves each layer of a stage.

    Args:
        depth (int): Layers of the stage.
        share_blocks (int, optional): Number of blocks; the phases are then as long as each other, the first ones by one
            layer longer where the number does not divide the depth. More blocks than layers are one for each layer.
        phases (Sequence[int], optional): Layers that each block serves, in the place of ``share_blocks``.

    Returns:
        list[int]: Number of the block of each layer; every layer has its own where both are None.

    Raises:
        BadInputError: If both are given, ``share_blocks`` is less than 1, or ``phases`` are not positive numbers that
            add up to the depth.
    """
    if share_blocks is not None and phases is not None:
        raise BadInputError(f'give share_blocks={share_blocks} or phases={tuple(phases)}, not both')
    if phases is not None:
        if any(not isinstance(size, int) or size < 1 for size in phases) or sum(phases) != depth:
            raise BadInputError(f'phases={tuple(phases)} must be positive integers that add up to the {depth} layers')
    elif share_blocks is not None:
        if not isinstance(share_blocks, int) or share_blocks < 1:
            raise BadInputError(f'share_blocks={share_blocks!r} must be an integer of at least 1, or None')
        blocks = min(share_blocks, depth)
        phases = [depth // blocks + (block < depth % blocks) for block in range(blocks)]
    else:
        phases = [1] * depth
    return [block for block, size in enumerate(phases) for _ in range(size)]


def refuse_shared_batch_norm(blocks: nn.Module) -> None:
    """Refuse batch norm in blocks that serve several layers, whose statistics it would mix.

    Raises:
        BadInputError: If there is one.
    """
    name = next((name for name, module in blocks.named_modules() if isinstance(module, _BatchNorm)), None)
    if name is not None:
        raise BadInputError(
            f'{name} of a shared block is a batch norm, whose statistics would be a mixture of several layers; choose '
            'another norm for the mixer, or share_blocks=None'
        )


class SharedBlocks(nn.Module):
    """A row of layers of ViK, several of which have one block.

    Args:
        blocks (Sequence[nn.Module]): A block for each layer, with ``layer_scale1``, ``layer_scale2`` and ``drop_path``,
            which stay the layer's own. The first one of each phase is kept.
        block_of_layer (Sequence[int]): As of :func:`assign_blocks`.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If a block has a batch norm.
    """

    def __init__(self, blocks: Sequence[nn.Module], block_of_layer: Sequence[int]):
        super().__init__()
        self.block_of_layer = list(block_of_layer)
        self.layer_parts = nn.ModuleList()
        for block in blocks:
            parts = nn.Module()
            for name in ('layer_scale1', 'layer_scale2', 'drop_path'):
                parts.add_module(name, block.get_submodule(name))
                setattr(block, name, nn.Identity())
            self.layer_parts.append(parts)
        for number in range(self.block_of_layer[-1] + 1):
            self.add_module(str(number), blocks[self.block_of_layer.index(number)])
        refuse_shared_batch_norm(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, C, H, W]``."""
        for number, parts in zip(self.block_of_layer, self.layer_parts):
            x = self.get_submodule(str(number))(x, parts)
        return x


class LayerParts(nn.Module):
    """What a layer has of its own when its block is shared: layer scales and stochastic depth.

    Args:
        scale1 (nn.Module): Layer scale of the attention.
        drop1 (nn.Module): Stochastic depth of the attention.
        scale2 (nn.Module): Layer scale of the feed-forward network.
        drop2 (nn.Module): Stochastic depth of the feed-forward network.
    """

    def __init__(self, scale1: nn.Module, drop1: nn.Module, scale2: nn.Module, drop2: nn.Module):
        super().__init__()
        self.scale1, self.drop1, self.scale2, self.drop2 = scale1, drop1, scale2, drop2

    def attn(self, branch: Tensor) -> Tensor:
        """Scale and drop the answer of the attention."""
        return self.drop1(self.scale1(branch))

    def ffn(self, branch: Tensor) -> Tensor:
        """Scale and drop the answer of the feed-forward network."""
        return self.drop2(self.scale2(branch))
