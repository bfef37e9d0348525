"""Channel MLPs: ``[B, C, H, W] -> [B, C, H, W]``, each pixel by itself, registered, chosen by ``ViK(mlp=...)``."""

from .base import ChannelMLP, build_mlp
from .conv_mlp import ConvMLP
from .efficient_kan import EfficientKAN
from .fast_kan import FastKAN
from .fourier_kan import FourierKAN
from .gr_kan import GRKAN
from .sine_kan import SineKAN

__all__ = ['GRKAN', 'ChannelMLP', 'ConvMLP', 'EfficientKAN', 'FastKAN', 'FourierKAN', 'SineKAN', 'build_mlp']
