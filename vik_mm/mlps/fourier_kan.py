"""FourierKAN as a channel MLP.

Shape letters: ``R`` rows, one for each pixel, ``I`` in features, ``O`` out features, ``G`` frequencies.
"""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import fourier_kan

from .base import KANMLP


class FourierLayer(nn.Module):
    r"""Kolmogorov-Arnold layer over cosines and sines of each input's multiples.

    .. math:: y_o = b_o + \sum_i \sum_{g=1}^{G} a_{oig} \cos(g x_i) + s_{oig} \sin(g x_i)

    Args:
        in_features (int): ``I``.
        out_features (int): ``O``.
        num_frequencies (int): ``G``.
        smooth_start (bool): Whether coefficients start smaller with the square of the frequency.
        backend (str, optional): Backend of :func:`vik_mm.ops.fourier_kan`; None chooses.

    Shape:
        - Input: ``[R, I]``, in radians.
        - Output: ``[R, O]``.
    """

    def __init__(
        self, in_features: int, out_features: int, num_frequencies: int, smooth_start: bool, backend: str | None
    ):
        super().__init__()
        self.num_bases = 2 * num_frequencies
        self.backend = backend
        self.coefficients = nn.Parameter(torch.randn(2, out_features, in_features, num_frequencies))  # cosines, sines
        self.bias = nn.Parameter(torch.zeros(out_features))
        orders = torch.arange(1, num_frequencies + 1)
        self.coefficients.data /= in_features**0.5 * (orders**2 if smooth_start else num_frequencies**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[R, I]`` to ``[R, O]``."""
        weight = self.coefficients.permute(0, 3, 2, 1).flatten(0, 1)  # [2 * G, I, O]
        return fourier_kan(x[None, None], weight[None], backend=self.backend)[0, 0] + self.bias


@MODELS.register_module()
class FourierKAN(KANMLP):
    """Two Kolmogorov-Arnold layers over Fourier features.

    Its weights are ``2 * num_frequencies`` times those of :class:`ConvMLP` with the same hidden channels;
    ``mlp_ratio=0.5`` makes it comparable.

    Args:
        embed_dims (int): Channels ``C`` of input and output.
        hidden_dims (int): Channels between the two layers.
        act_cfg (dict): Not used: the layers are activations themselves. Defaults to ``dict(type='GELU')``.
        drop_rate (float): Dropout after each layer. Defaults to 0.
        num_frequencies (int): Frequencies of each input. Defaults to 5.
        smooth_start (bool): Whether coefficients start smaller with the square of the frequency. Defaults to False.
        backend (str, optional): Backend of :func:`vik_mm.ops.fourier_kan`; None chooses. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``.

    Raises:
        BadInputError: If ``num_frequencies < 1``.

    Source:
        arXiv 2503.01124 names the layer; the layer is ``NaiveFourierKANLayer`` of GistNoesis' FourierKAN, whose weights
        can be loaded.
    """

    original_names = ((r'^layers\.', ''), (r'\.coefficients$', '.fouriercoeffs'))

    def __init__(
        self,
        embed_dims: int,
        hidden_dims: int,
        act_cfg: dict = dict(type='GELU'),
        drop_rate: float = 0.0,
        num_frequencies: int = 5,
        smooth_start: bool = False,
        backend: str | None = None,
    ):
        if num_frequencies < 1:
            raise BadInputError(f'num_frequencies={num_frequencies} must be at least 1')
        layers = (
            FourierLayer(embed_dims, hidden_dims, num_frequencies, smooth_start, backend),
            FourierLayer(hidden_dims, embed_dims, num_frequencies, smooth_start, backend),
        )
        super().__init__(layers, embed_dims, hidden_dims, act_cfg, drop_rate)
