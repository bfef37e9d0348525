"""What the heads of a transformer attend to, and what their operators have learned.

Shape letters: ``B`` images, ``H`` and ``W`` in pixels, ``N`` tokens, ``h`` heads, ``R`` hidden features, ``X`` scores.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from vik_mm.attention import BASE_ACTIVATIONS, KArAt, TokenAttention


class AttentionMaps(NamedTuple):
    """A block's attention on some images.

    Attributes:
        scores (np.ndarray): ``Q K^T / sqrt(d)``, ``[B, h, N, N]``.
        weights (np.ndarray): Softmax or operator of the scores, ``[B, h, N, N]``.
        token_grid (tuple[int, int]): Height and width of the tokens' grid.
        num_prefix_tokens (int): Class tokens before those of the grid.
    """

    scores: np.ndarray
    weights: np.ndarray
    token_grid: tuple[int, int]
    num_prefix_tokens: int


def attention_maps(backbone: nn.Module, images: Tensor, block: int = -1) -> AttentionMaps:
    """Compute a block's scores and weights.

    Args:
        backbone (ViTKArAt): The transformer, with softmax attention or KArAt.
        images (Tensor): ``[B, 3, H, W]``, normalised as for training.
        block (int): Number of the block, negative from the end; of the layer, where blocks are shared. Defaults to -1.

    Returns:
        AttentionMaps: Scores and weights.

    Raises:
        ValueError: If there is no such block, or it has a token mixer or windows instead of attention over the grid.
    """
    block_of_layer: Any = backbone.block_of_layer
    if not -len(block_of_layer) <= block < len(block_of_layer):
        raise ValueError(f'block={block} must be from {-len(block_of_layer)} to {len(block_of_layer) - 1}')
    layer, owner = block % len(block_of_layer), block_of_layer[block]
    layers: Any = backbone.layers
    attention = layers[owner].attn
    if not isinstance(attention, TokenAttention) or attention.window_size:
        raise ValueError(f'block {block} is no attention over the whole grid')
    seen = []
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    training = backbone.training
    try:
        with torch.no_grad():
            backbone.eval()(images)
            x, token_grid, operator = seen[layer - block_of_layer.index(owner)]
            q, k, _ = attention.project(x)
            scores = attention.scores(q, k)
            operator = attention.operator or operator
            weights = scores.softmax(-1) if operator is None else operator(scores, token_grid)
    finally:
        handle.remove()
        backbone.train(training)
    prefix = scores.shape[-1] - token_grid[0] * token_grid[1]
    return AttentionMaps(scores.cpu().numpy(), weights.cpu().numpy(), tuple(token_grid), prefix)


def edge_functions(operator: KArAt, head: int, x: np.ndarray) -> np.ndarray:
    """Evaluate what an edge adds to a hidden feature, ``w^b b(x) + w^s f_pq(x)``, for all edges of a head.

    Args:
        operator (KArAt): The operator.
        head (int): Number of the head.
        x (np.ndarray): Scores, ``[X]``.

    Returns:
        np.ndarray: ``[R, N, X]``: hidden feature ``p``, token ``q``, score.

    Raises:
        ValueError: If there is no such head.
    """
    if not 0 <= head < operator.num_heads:
        raise ValueError(f'head={head} must be from 0 to {operator.num_heads - 1}')
    coefficients = operator.basis.coefficients
    scores = torch.as_tensor(x).to(coefficients)
    curves = []
    with torch.no_grad():
        weights = coefficients * operator.scale.unsqueeze(1)
        for q in range(operator.num_tokens):
            single = torch.zeros_like(weights)  # the other tokens weigh nothing
            single[:, :, q] = weights[:, :, q]
            rows = scores[None, None, :, None].expand(1, operator.num_heads, -1, operator.num_tokens)
            curves.append(operator.basis(rows, single, list(operator.basis.shapes))[0, head])  # [X, R]
        values = torch.stack(curves).permute(2, 0, 1)  # [R, N, X]
        if activation := BASE_ACTIVATIONS[operator.base_activation]:
            values += operator.base_weight[head].t()[..., None] * activation(scores)
    return values.cpu().numpy()


def singular_values(weights: np.ndarray) -> np.ndarray:
    """Compute the singular values of attention matrices.

    Args:
        weights (np.ndarray): ``[..., N, N]``.

    Returns:
        np.ndarray: ``[..., N]``, falling, as shares of the largest.
    """
    values = np.linalg.svd(weights, compute_uv=False)
    return values / np.maximum(values[..., :1], np.finfo(values.dtype).tiny)
