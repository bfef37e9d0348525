"""Linear map of learned Gaussian features, the operator at the heart of ViK."""

from typing import NamedTuple

from torch import Tensor

from .chunked import rbf_kan_chunked
from .reference import rbf_kan_reference

BACKENDS = {'reference': rbf_kan_reference, 'chunked': rbf_kan_chunked}


class Backend(NamedTuple):
    """A backend's name and why it was taken."""

    name: str
    reason: str


def rbf_kan_backend(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor, backend: str | None = None) -> Backend:
    """Tell which backend :func:`rbf_kan` runs on these tensors, and why.

    Args:
        x (Tensor): As for :func:`rbf_kan`, like the next three.
        centers (Tensor): See above.
        widths (Tensor): See above.
        weight (Tensor): See above.
        backend (str, optional): The backend asked for; None leaves the choice to this function. Defaults to None.

    Returns:
        Backend: ``(name, reason)``.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.
    """
    if backend is not None and backend not in BACKENDS:
        raise ValueError(f'backend={backend!r} is unknown; choose one of {sorted(BACKENDS)}, or None for the default')
    if not x.is_floating_point():
        raise TypeError(f'rbf_kan takes floating-point x, got {x.dtype}')
    if centers.ndim != 2 or widths.shape != centers.shape:
        raise ValueError(
            f'centers and widths must both be [F, G], got {tuple(centers.shape)} and {tuple(widths.shape)}'
        )
    num_in, num_grids = centers.shape
    if x.shape[-1] != num_in:
        raise ValueError(f'x has {x.shape[-1]} features in its last dimension, centers are for {num_in}')
    if weight.ndim != 2 or weight.shape[0] != num_in * num_grids:
        raise ValueError(f'weight must be [F * G, O] = [{num_in * num_grids}, O], got {tuple(weight.shape)}')
    if backend is not None:
        return Backend(backend, 'asked for by name')
    return Backend('chunked', 'runs on any device and stores no basis')


def rbf_kan(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor, backend: str | None = None) -> Tensor:
    r"""Map Gaussian features of each input linearly.

    .. math:: y_o = \sum_{f,g} w_{(f,g),o} \exp(-\tfrac12 ((x_f - \mu_{fg}) / \sigma_{fg})^2)

    Args:
        x (Tensor): ``[..., F]``, any floating dtype.
        centers (Tensor): ``[F, G]``, in units of ``x``.
        widths (Tensor): ``[F, G]``, standard deviations in units of ``x``; positive.
        weight (Tensor): ``[F * G, O]``, the Gaussians of one feature lying together.
        backend (str, optional): ``'reference'`` or ``'chunked'``; None chooses. Defaults to None.

    Returns:
        Tensor: ``[..., O]`` in the dtype of ``x``; float16 and bfloat16 are computed in float32.

    Raises:
        ValueError: If ``backend`` is unknown or the shapes do not belong together.
        TypeError: If ``x`` is not of a floating dtype.

    Source:
        arXiv 2601.21541; ``RBFLinear`` of the authors' ``vik.py``.
    """
    name = rbf_kan_backend(x, centers, widths, weight, backend).name
    return BACKENDS[name](x, centers, widths, weight)
