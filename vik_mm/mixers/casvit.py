"""Convolutional additive self-attention, the token mixer of CAS-ViT.

Shape letters: ``B`` images, ``C`` channels.
"""

from mmpretrain.models.utils import build_norm_layer
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from .base import TokenMixer


class SpatialAndChannelGate(nn.Module):
    """A gate for each pixel, then a gate for each channel of what that leaves.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        norm_cfg (dict): Config of the norm before the spatial gate.

    Shape:
        - Input and output: ``[B, C, H, W]``.
    """

    def __init__(self, embed_dims: int, norm_cfg: dict):
        super().__init__()
        self.depthwise = _depthwise(embed_dims)
        self.norm = build_norm_layer(norm_cfg, embed_dims)
        self.act = nn.ReLU()
        self.spatial = nn.Conv2d(embed_dims, 1, 1, bias=False)
        self.channel = nn.Conv2d(embed_dims, embed_dims, 1, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        """Gate ``[B, C, H, W]``."""
        z = z * self.spatial(self.act(self.norm(self.depthwise(z)))).sigmoid()
        return z * self.channel(z.mean((2, 3), keepdim=True)).sigmoid()


@MODELS.register_module()
class ConvAdditiveAttention(TokenMixer):
    """Attention whose weights are gates of convolutions: linear in pixels, without softmax and without heads.

    ``out = DW(DW(gate_q(q) + gate_k(k)) * v)``, ``DW`` depthwise 3x3 convolutions. No 1x1 convolution follows: channels
    meet in the projection to ``q``, ``k`` and ``v`` and in the channel gates.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Unused: the layer is the same at every size.
        qkv_bias (bool): Whether the projection to ``q``, ``k`` and ``v`` has a bias. Defaults to False.
        norm_cfg (dict): Config of the norm inside the gates. Small batches want ``dict(type='SyncBN')``; with
            ``ignore_padding=True`` the backbone refuses batch norms, and ``dict(type='GN', num_groups=1)`` serves.
            Defaults to ``dict(type='BN')``, as the authors have it.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any ``H`` and ``W``. In training, batch norm needs more than one pixel.

    Source:
        arXiv 2408.03703; ``AdditiveTokenMixer`` in ``classification/model/rcvit.py`` of Tianfang-Zhang/CAS-ViT (commit
        041d2d6, MIT). The local convolutions before the norm belong to the authors' block and are not part of it.
    """

    original_names = (
        (r'^gate_([qk])\.depthwise\.', r'oper_\1.0.block.0.'),
        (r'^gate_([qk])\.norm\.', r'oper_\1.0.block.1.'),
        (r'^gate_([qk])\.spatial\.', r'oper_\1.0.block.3.'),
        (r'^gate_([qk])\.channel\.', r'oper_\1.1.block.1.'),
        (r'^inner\.', 'dwc.'),
        (r'^outer\.', 'proj.'),
    )

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        qkv_bias: bool = False,
        norm_cfg: dict = dict(type='BN'),
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.qkv = nn.Conv2d(embed_dims, 3 * embed_dims, 1, bias=qkv_bias)
        self.gate_q = SpatialAndChannelGate(embed_dims, norm_cfg)
        self.gate_k = SpatialAndChannelGate(embed_dims, norm_cfg)
        self.inner = _depthwise(embed_dims)
        self.outer = _depthwise(embed_dims)

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        q, k, v = self.qkv(x).chunk(3, dim=1)
        return self.outer(self.inner(self.gate_q(q) + self.gate_k(k)) * v)


def _depthwise(embed_dims: int) -> nn.Conv2d:
    return nn.Conv2d(embed_dims, embed_dims, 3, padding=1, groups=embed_dims)
