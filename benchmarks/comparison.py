"""What a benchmark is made of: a step, and the contenders that take one in turn."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Step(NamedTuple):
    """What a contender does once.

    Attributes:
        run: Does it; returns the tensors that a caller gets (their bytes are no working memory).
        answer: Computes what must agree with the first contender's; None where nothing must.
        module: The model, for parameters and MACs; None where there is none.
        image: Its input.
        products: Multiply-adds of a step; 0 where they follow from the module, or are not known.
        traffic: Bytes that a step reads or writes at least; 0 where they are not known.
    """

    run: Callable
    answer: Callable | None
    module: torch.nn.Module | None
    image: torch.Tensor
    products: float = 0
    traffic: float = 0


class Comparison(NamedTuple):
    """Contenders measured in turn, the first being the baseline.

    Attributes:
        name: In tables.
        contenders: Builders, called with the device; each returns a :class:`Step`.
        images: Images of a step.
        rounds: Rounds by default; big cases take fewer.
        small: Whether ``make bench`` measures it.
        memory: Whether peak memory is measured, each contender in a process of its own.
        agree: Contenders that do the same arithmetic; nothing is measured where they differ.
    """

    name: str
    contenders: dict[str, Callable]
    images: int = 0
    rounds: int = 15
    small: bool = False
    memory: bool = True
    agree: tuple[str, ...] = ()
