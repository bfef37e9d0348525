"""Heads of attention over maps, and how many pairs of pixels they may compare.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels in raster order, ``h`` heads, ``d = C / h``.
"""

from collections.abc import Sequence

from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced


def count_heads(embed_dims: int, head_dims: int) -> int:
    """Count the heads of ``head_dims`` channels among ``embed_dims`` channels.

    Args:
        embed_dims (int): ``C``.
        head_dims (int): ``d``.

    Returns:
        int: ``h``.

    Raises:
        BadInputError: If ``head_dims`` does not divide ``embed_dims``.
    """
    if not isinstance(head_dims, int) or head_dims < 1 or embed_dims % head_dims:
        divisors = [d for d in range(1, embed_dims + 1) if embed_dims % d == 0]
        raise BadInputError(f'head_dims={head_dims} must divide the {embed_dims} channels; choose one of {divisors}')
    return embed_dims // head_dims


def split_heads(x: Tensor, num_heads: int) -> Tensor:
    """Cut the channels of a map into heads, contiguous runs of channels, ``[B, C, H, W] -> [B, h, N, d]``."""
    return x.flatten(2).unflatten(1, (num_heads, -1)).transpose(2, 3)


def join_heads(x: Tensor, size: Sequence[int]) -> Tensor:
    """Put heads together to a map of height and width ``size``, ``[B, h, N, d] -> [B, C, H, W]``."""
    return x.transpose(2, 3).flatten(1, 2).unflatten(2, size)


def check_pairs(mixer: nn.Module, queries: int, keys: int, max_tokens: int, remedy: str = '') -> None:
    """Refuse a map whose attention would eat all memory.

    Traced models are not checked, as a question about the sizes would bind the graph to the answer.

    Args:
        mixer (nn.Module): Whose attention it is, for the message.
        queries (int): Pixels that attend.
        keys (int): Pixels or samples that each of them attends to.
        max_tokens (int): As many pairs are taken as attention of all among ``max_tokens`` pixels has.
        remedy (str): What else can be done with this mixer, for the message. Defaults to ''.

    Raises:
        BadInputError: If there are more pairs.
    """
    if not is_traced() and queries * keys > max_tokens**2:
        raise BadInputError(
            f'{type(mixer).__name__} would compare {queries} pixels with {keys} each, more pairs than '
            f'max_tokens={max_tokens} squared. Give smaller images; {remedy}or take a mixer that is linear in pixels '
            'in this stage (token_mixer takes a list, one config a stage); or raise max_tokens if there is memory'
        )
