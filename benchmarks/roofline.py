"""What a machine can do at best, measured, and the share of it that a step reaches."""

import time
from functools import cache

import torch

SIZES = {'cuda': (8192, 2**28), 'cpu': (1024, 2**23)}  # side of a square product, values of a copy


def best_seconds(function, device: str, rounds: int = 7) -> float:
    """Shortest time of a call, the first one left out."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        function()
        if device == 'cuda':
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return min(times[1:])


@cache
def limits(device: str, dtype: str) -> tuple[float, float]:
    """Multiply-adds and bytes a second: of a large square product in ``dtype``, and of a large copy."""
    side, length = SIZES[device]
    a = torch.randn(side, side, device=device, dtype=getattr(torch, dtype))
    source = torch.randn(length, device=device)
    target = torch.empty_like(source)
    products = side**3 / best_seconds(lambda: a @ a, device)
    return products, 2 * source.nbytes / best_seconds(lambda: target.copy_(source), device)


def share(products: float, traffic: float, seconds: float, device: str, dtype: str) -> float:
    """Least time that products or memory traffic would take, over the time measured.

    Args:
        products (float): Multiply-adds of a step.
        traffic (float): Bytes that it reads or writes at least.
        seconds (float): What it took.
        device (str): 'cuda' or 'cpu'.
        dtype (str): Name of the dtype of the products.

    Returns:
        float: 1 is the limit.
    """
    per_second, bytes_per_second = limits(device, dtype)
    return max(products / per_second, traffic / bytes_per_second) / seconds
