"""Pictures of attention maps, learned functions and singular values."""

import os
from pathlib import Path

import numpy as np


def draw_attention(
    path: str | os.PathLike,
    image: np.ndarray,
    scores: np.ndarray,
    weights: np.ndarray,
    token_grid: tuple[int, int],
    num_prefix_tokens: int = 1,
    query: int = 0,
) -> Path:
    """Draw what a token attends to, before and after the activation, a row for each head.

    Args:
        path (str | PathLike): Picture to write; its ending gives the format.
        image (np.ndarray): ``[H, W, 3]``, uint8, RGB.
        scores (np.ndarray): Of one image, ``[heads, N, N]``.
        weights (np.ndarray): Of one image, ``[heads, N, N]``.
        token_grid (tuple[int, int]): Height and width of the tokens' grid.
        num_prefix_tokens (int): Class tokens before those of the grid; they are left out. Defaults to 1.
        query (int): The token that attends; 0 is the class token, where there is one. Defaults to 0.

    Returns:
        Path: ``path``.

    Raises:
        ValueError: If there is no such token.
    """
    if not 0 <= query < scores.shape[-2]:
        raise ValueError(f'query={query} must be a token from 0 to {scores.shape[-2] - 1}')
    heads = len(scores)
    figure = _figure(6.6, 2.0 * heads)
    axes = figure.subplots(heads, 3, squeeze=False)
    for head, row in enumerate(axes):
        row[0].imshow(image)
        row[0].set_ylabel(f'head {head}')
        for axis, values, title in ((row[1], scores, 'scores'), (row[2], weights, 'weights')):
            grid = values[head, query, num_prefix_tokens:].reshape(token_grid)
            bound = max(abs(grid).max(), np.finfo(grid.dtype).tiny)
            # Weights of a learned operator may be negative.
            shown = axis.imshow(grid, cmap='RdBu_r', vmin=-bound, vmax=bound)
            figure.colorbar(shown, ax=axis, shrink=0.8)
            if head == 0:
                axis.set_title(title)
        for axis in row:
            axis.set_xticks([])
            axis.set_yticks([])
    return _save(figure, path)


def draw_edge_functions(path: str | os.PathLike, x: np.ndarray, curves: np.ndarray, count: int = 12) -> Path:
    """Draw what the edges of some hidden features have learned, a panel each, strongest edges in front.

    Args:
        path (str | PathLike): Picture to write; its ending gives the format.
        x (np.ndarray): Scores, ``[X]``.
        curves (np.ndarray): Of one head, ``[R, N, X]``.
        count (int): Edges of a panel. Defaults to 12.

    Returns:
        Path: ``path``.
    """
    columns = min(4, len(curves))
    rows = -(-len(curves) // columns)
    figure = _figure(2.6 * columns, 2.0 * rows)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).ravel()
    for p, (axis, edges) in enumerate(zip(axes, curves)):
        strongest = np.argsort(edges.std(1))[-count:]
        for k, q in enumerate(strongest):
            axis.plot(x, edges[q], color='tab:blue', alpha=(k + 1) / len(strongest), linewidth=1)
        axis.set_title(f'hidden feature {p}', fontsize=9)
    for axis in axes[len(curves) :]:
        axis.axis('off')
    figure.supxlabel('score')
    figure.supylabel('$\\phi_{pq}$')
    return _save(figure, path)


def draw_singular_values(path: str | os.PathLike, values: dict[str, np.ndarray]) -> Path:
    """Draw falling singular values, a line for each attention.

    Args:
        path (str | PathLike): Picture to write; its ending gives the format.
        values (dict[str, np.ndarray]): Name and values, ``[..., N]``, whose median is drawn between quartiles.

    Returns:
        Path: ``path``.
    """
    figure = _figure(5, 3.4)
    axis = figure.subplots()
    for name, shares in values.items():
        shares = shares.reshape(-1, shares.shape[-1])
        low, middle, high = np.quantile(shares, [0.25, 0.5, 0.75], axis=0)
        ranks = np.arange(1, len(middle) + 1)
        axis.plot(ranks, middle, label=name)
        axis.fill_between(ranks, low, high, alpha=0.2)
    axis.set_yscale('log')
    axis.set_ylim(1e-6, 1.5)
    axis.set_xlabel('number')
    axis.set_ylabel('singular value / largest')
    axis.legend()
    return _save(figure, path)


def _figure(width: float, height: float):
    # The object interface: no global figure, and no screen needed.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout='constrained')
    FigureCanvasAgg(figure)
    return figure


def _save(figure, path: str | os.PathLike) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    return path
