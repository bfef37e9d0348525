"""The functions that an edge of a Kolmogorov-Arnold operator may be.

An operator has a function ``f_pq`` for each pair of a hidden feature ``p`` and a token ``q``, for each head. A basis
holds what the functions learn, and evaluates their sum over the tokens. Every parameter is ``[H, K, F, O]``, so that
all can be resampled along the tokens alike.

Shape letters: ``B`` images, ``H`` heads, ``T`` rows of a head, ``F`` in features (tokens), ``O`` out features (hidden),
``K`` numbers that a function has of a kind, ``G`` the basis's ``grid_size``.
"""

import math

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vik_mm.ops import fourier_kan

# Values of functions that exist at a time; 16 MB of float32.
BLOCK_ELEMENTS = 4_000_000


class Basis(nn.Module):
    """Base of the bases: linear weights and, in some, shapes of the functions that they weigh.

    Args:
        num_heads (int): ``H``.
        num_tokens (int): ``F``.
        hidden_dim (int): ``O``.
        grid_size (int): ``G``: frequencies, intervals or wavelets of a function.

    Attributes:
        coefficients (Parameter): Linear weights, ``[H, K, F, O]``.
        shapes (ParameterList): Further parameters of the functions, each ``[H, K, F, O]``.
    """

    def __init__(self, num_heads: int, num_tokens: int, hidden_dim: int, grid_size: int):
        super().__init__()
        self._sizes = (num_heads, num_tokens, hidden_dim)
        self.grid_size = grid_size
        self.shapes = nn.ParameterList()

    def _draw(self, count: int, std: float = 1.0) -> nn.Parameter:
        heads, tokens, hidden = self._sizes
        return nn.Parameter(torch.randn(heads, count, tokens, hidden) * std)

    def _draw_coefficients(self, count: int, terms: int) -> nn.Parameter:
        """Draw weights so that the sum of ``terms`` functions of size one over all tokens has variance one."""
        return self._draw(count, (self._sizes[1] * terms) ** -0.5)

    def functions(self, x: Tensor, *shapes: Tensor) -> Tensor:
        """Evaluate the functions, ``[B, H, T, 1, F, 1] -> [B, H, T, K, F, O]``, ``O`` being 1 where no shape has it."""
        raise NotImplementedError

    def forward(self, x: Tensor, weights: Tensor, shapes: list[Tensor]) -> Tensor:
        """Sum the functions over the tokens, a few rows at a time, computed again in the backward pass.

        Args:
            x (Tensor): Scores, ``[B, H, T, F]``.
            weights (Tensor): ``coefficients`` times the edges' scale, perhaps resampled, ``[H, K, F, O]``.
            shapes (list[Tensor]): ``shapes``, perhaps resampled.

        Returns:
            Tensor: ``[B, H, T, O]``.
        """
        per_row = x.shape[0] * weights.numel()
        rows = max(1, BLOCK_ELEMENTS // max(1, per_row))

        def evaluate(part, weights, *shapes):
            values = self.functions(part[:, :, :, None, :, None], *(shape.unsqueeze(1) for shape in shapes))
            if values.shape[-1] == 1:
                return torch.einsum('bhtkf,hkfo->bhto', values.squeeze(-1), weights)
            return torch.einsum('bhtkfo,hkfo->bhto', values, weights)

        answers = [checkpoint(evaluate, part, weights, *shapes, use_reentrant=False) for part in x.split(rows, dim=2)]
        return torch.cat(answers, dim=2)


class Fourier(Basis):
    r""":math:`\sum_{m=1}^{G} a_m \cos(m x) + b_m \sin(m x)`, the cosines' weights before the sines'."""

    def __init__(self, *sizes, backend: str | None = None):
        super().__init__(*sizes)
        self.backend = backend
        self.coefficients = self._draw_coefficients(2 * self.grid_size, self.grid_size)

    def forward(self, x: Tensor, weights: Tensor, shapes: list[Tensor]) -> Tensor:
        """Sum over the tokens through :func:`vik_mm.ops.fourier_kan`."""
        return fourier_kan(x, weights, backend=self.backend)


class Rational(Basis):
    r""":math:`(a_0 + \cdots + a_m x^m) / (1 + |b_1 x + \cdots + b_n x^n|)` with ``m = G + 2`` and ``n = G + 1``.

    ``grid_size=3`` gives the degrees (5, 4) that are usual (arXiv 1907.06732).
    """

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.coefficients = self._draw_coefficients(1, 1)
        # Powers beyond the first start small: a score of 3 would have them drown the others.
        damping = torch.tensor([math.factorial(i) for i in range(self.grid_size + 3)])[:, None, None]
        self.shapes.append(nn.Parameter(self._draw(self.grid_size + 3).data / damping))
        self.shapes.append(nn.Parameter(self._draw(self.grid_size + 1).data / damping[1:-1]))

    def functions(self, x: Tensor, *shapes: Tensor) -> Tensor:
        """Evaluate by Horner's rule."""
        numerator, denominator = shapes
        top, bottom = torch.zeros_like(x), torch.zeros_like(x)
        for a in numerator.flip(2).split(1, dim=2):
            top = top * x + a
        for b in denominator.flip(2).split(1, dim=2):
            bottom = (bottom + b) * x
        return top / (1 + bottom.abs())


class BSpline(Basis):
    """Cubic B-splines on ``G`` equal intervals of [-4, 4], zero outside of them and the three beside."""

    RANGE = (-4.0, 4.0)

    def __init__(self, *sizes):
        super().__init__(*sizes)
        # About two thirds of the splines' sum of squares is one spline's.
        self.coefficients = self._draw_coefficients(self.grid_size + 3, 1)

    def functions(self, x: Tensor, *shapes: Tensor) -> Tensor:
        """Evaluate the splines by their common piecewise polynomial."""
        first, last = self.RANGE
        step = (last - first) / self.grid_size
        centers = first + step * torch.arange(-1, self.grid_size + 2, device=x.device, dtype=x.dtype)
        t = ((x - centers[:, None, None]) / step).abs()
        inner, outer = (4 - 6 * t**2 + 3 * t**3) / 6, (2 - t).clamp(min=0) ** 3 / 6
        return torch.where(t < 1, inner, outer)


class _Wavelets(Basis):
    """Sums of ``G`` wavelets ``w psi((x - tau) / s)``."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.coefficients = self._draw_coefficients(self.grid_size, self.grid_size)
        self.shapes.append(self._draw(self.grid_size))  # tau: scores start near 0, where several wavelets vanish
        self.shapes.append(nn.Parameter(torch.ones_like(self.shapes[0])))  # s

    def functions(self, x: Tensor, *shapes: Tensor) -> Tensor:
        """Evaluate the wavelets."""
        shift, scale = shapes
        return self._wavelet((x - shift) / scale)

    def _wavelet(self, t: Tensor) -> Tensor:
        raise NotImplementedError


class MexicanHat(_Wavelets):
    r""":math:`2 \pi^{-1/4} 3^{-1/2} (1 - t^2) e^{-t^2/2}`."""

    def _wavelet(self, t: Tensor) -> Tensor:
        return 2 / (math.pi**0.25 * math.sqrt(3)) * (1 - t**2) * torch.exp(-(t**2) / 2)


class Morlet(_Wavelets):
    r""":math:`\cos(5 t) e^{-t^2/2}`."""

    def _wavelet(self, t: Tensor) -> Tensor:
        return torch.cos(5 * t) * torch.exp(-(t**2) / 2)


class DerivativeOfGaussian(_Wavelets):
    r""":math:`-\frac{d}{dx} e^{-t^2/2} = \frac{t}{s} e^{-t^2/2}`."""

    def functions(self, x: Tensor, *shapes: Tensor) -> Tensor:
        """Evaluate the wavelets."""
        shift, scale = shapes
        t = (x - shift) / scale
        return t * torch.exp(-(t**2) / 2) / scale


class Meyer(_Wavelets):
    r""":math:`\sin(\pi |t|)\, m(|t|)`, ``m`` falling from 1 at 1/2 to 0 at 1.

    .. math:: m(v) = \cos(\tfrac{\pi}{2} \nu(2 v - 1)), \quad \nu(u) = u^4 (35 - 84 u + 70 u^2 - 20 u^3)
    """

    def _wavelet(self, t: Tensor) -> Tensor:
        v = t.abs()
        u = (2 * v - 1).clamp(0, 1)
        nu = u**4 * (35 - 84 * u + 70 * u**2 - 20 * u**3)
        return torch.sin(math.pi * v) * torch.cos(math.pi / 2 * nu)


class Shannon(_Wavelets):
    r""":math:`\mathrm{sinc}(t / \pi)` times a symmetric Hamming window along the tokens."""

    def _wavelet(self, t: Tensor) -> Tensor:
        window = torch.hamming_window(t.shape[-2], periodic=False, dtype=t.dtype, device=t.device)
        return torch.sinc(t / math.pi) * window[:, None]


#: The classes by the name that ``KArAt(basis=...)`` takes.
BASES = dict(
    fourier=Fourier,
    rational=Rational,
    mexican_hat=MexicanHat,
    morlet=Morlet,
    dog=DerivativeOfGaussian,
    meyer=Meyer,
    shannon=Shannon,
    b_spline=BSpline,
)
