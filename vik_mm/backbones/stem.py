"""The first convolution of ViK.

Shape letters: ``B`` images, ``C`` channels, ``H`` and ``W`` in pixels.
"""

from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import pad_to_multiple

from .arguments import check_at_least


class Stem(nn.Module):
    """Strided convolution from the image to the first map.

    The image is zero-padded right and below to a multiple of the stride first: the released stem drops pixels,
    33 rows giving 8.

    Args:
        in_channels (int): Channels of the image.
        embed_dims (int): Channels ``C`` of the map.
        kernel_size (int): In pixels. Defaults to 7.
        stride (int): In pixels. Defaults to 4.
        padding (int): Zeros on each side, in pixels. Defaults to 2.

    Shape:
        - Input: ``[B, in_channels, H, W]``.
        - Output: ``[B, C, ceil(H / stride), ceil(W / stride)]``.

    Raises:
        ValueError: If the three numbers do not give that output size.
    """

    def __init__(self, in_channels: int, embed_dims: int, kernel_size: int = 7, stride: int = 4, padding: int = 2):
        super().__init__()
        for name, value, least in (('kernel_size', kernel_size, 1), ('stride', stride, 1), ('padding', padding, 0)):
            check_at_least(f'stem.{name}', value, least)
        if not kernel_size - stride <= 2 * padding < kernel_size:
            raise BadInputError(
                f'stem=dict(kernel_size={kernel_size}, stride={stride}, padding={padding}) does not map H pixels to '
                'ceil(H / stride); choose kernel_size - stride <= 2 * padding < kernel_size'
            )
        self.stride = stride
        self.conv = nn.Conv2d(in_channels, embed_dims, kernel_size, stride=stride, padding=padding)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, in_channels, H, W]`` to ``[B, C, ceil(H / stride), ceil(W / stride)]``."""
        return self.conv(pad_to_multiple(x, self.stride))
