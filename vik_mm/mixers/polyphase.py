"""Adaptive polyphase anchoring: windows that move with the image.

Shape letters: ``B`` images, ``C`` channels, ``s`` stride.
"""

import torch
from mmpretrain.registry import MODELS
from torch import Tensor, nn

from vik_mm.errors import BadInputError
from vik_mm.ops import is_traced, pad_to_multiple
from vik_mm.ops.backends import compute_dtype

from .base import TokenMixer, build_token_mixer


@MODELS.register_module()
class PolyphaseAnchoring(TokenMixer):
    """Another mixer with windows, whose first row and column each image chooses by itself.

    .. code-block:: text

        energy[p, q] = sum of squares of the pixels p, p + s, p + 2 s, ... down and q, q + s, ... across
        (p, q)       = argmax energy
        y            = roll(mixer(roll(x, -p, -q)), p, q)

    A circular shift of the image then shifts the answer and changes nothing else, where three things hold: the stride
    divides both sides, the mixer commutes with circular shifts by whole strides, and one energy is larger than the
    others. Window attention commutes, as in ``dict(type='MaxViTAttention', partition='block')``. Zero-padded
    convolutions and grid attention do not: they see the edge of the map. ``circular_convs`` mends convolutions.

    Where ``s`` does not divide a side, energies are those of the zero-padded map, and the roll goes around the map
    itself; equivariance is then not exact. There are no parameters besides those of the mixer.

    Args:
        embed_dims (int): Channels ``C`` of the map.
        grid_size (tuple[int, int]): Height and width of the map at the backbone's ``img_size``, for the mixer.
        mixer (dict): Config of the mixer, such as ``dict(type='MaxViTAttention', partition='block')``.
        stride (int, optional): ``s``, in pixels: the side of the mixer's windows, or the reduction of a sub-sampled
            one. None takes the mixer's ``window_size``. Defaults to None.
        roll_back (bool): Whether the answer is rolled back to the places of the input. The authors leave it rolled,
            which is enough before global pooling only. Defaults to True.
        circular_convs (bool): Whether the mixer's padded convolutions take their padding from the opposite edge, as the
            authors' positional convolutions do. Maps smaller than the padding are refused. Defaults to False.
        init_cfg (dict, optional): Initialization config of MMEngine. Defaults to None.

    Shape:
        - Input and output: ``[B, C, H, W]``, any size that the mixer takes.

    Raises:
        BadInputError: If ``stride`` is less than 1, or None and the mixer has no ``window_size``; if
            ``circular_convs`` finds no padded convolution, or a map smaller than the padding.

    Source:
        arXiv 2306.07470, section 3.2; ``PolyOrder`` of willding123/Shift-Equivariant-Vision-Transformers, which takes
        square maps only.
    """

    def __init__(
        self,
        embed_dims: int,
        grid_size: tuple[int, int],
        mixer: dict,
        stride: int | None = None,
        roll_back: bool = True,
        circular_convs: bool = False,
        init_cfg=None,
    ):
        super().__init__(embed_dims, grid_size, init_cfg=init_cfg)
        self.mixer = build_token_mixer(mixer, embed_dims, grid_size)
        if stride is None:
            stride = getattr(self.mixer, 'window_size', None)
            if stride is None:
                raise BadInputError(
                    f'{type(self.mixer).__name__} has no window_size to anchor; give stride=, the side in pixels of '
                    'what it divides the map into, or take a mixer with windows, such as MaxViTAttention'
                )
        if not isinstance(stride, int) or stride < 1:
            raise BadInputError(f'stride={stride!r} must be an integer of at least 1, in pixels')
        self.stride, self.roll_back = stride, roll_back
        self.min_side = _make_circular(self.mixer) if circular_convs else 1

    @property
    def original_names(self) -> tuple[tuple[str, str], ...]:
        """The names of the mixer's original: anchoring has no tensors."""
        return ((r'^mixer\.', ''), *getattr(self.mixer, 'original_names', ()))

    @property
    def original_unused(self) -> tuple[str, ...]:
        """What the mixer's original has and the mixer does not need."""
        return getattr(self.mixer, 'original_unused', ())

    def from_original(self, name: str, value: Tensor) -> Tensor:
        """Bring a tensor of the mixer's original into the shape and order used here."""
        convert = getattr(self.mixer, 'from_original', None)
        return convert(name.removeprefix('mixer.'), value) if convert else value

    def forward(self, x: Tensor) -> Tensor:
        """Mix ``[B, C, H, W]``."""
        if not is_traced() and min(x.shape[2:]) < self.min_side:
            raise BadInputError(
                f'circular_convs=True pads {self.min_side} pixels from the opposite edge, and the map has '
                f'{x.shape[2]}x{x.shape[3]}; give larger images, or leave circular_convs out in this stage'
            )
        anchors = find_anchors(x, self.stride)
        y = self.mixer(roll_each(x, -anchors))
        return roll_each(y, anchors) if self.roll_back else y


@torch.no_grad()
def find_anchors(x: Tensor, stride: int) -> Tensor:
    """Find the offset of the strongest of each image's ``s * s`` polyphase components.

    Args:
        x (Tensor): ``[B, C, H, W]``.
        stride (int): ``s``, in pixels.

    Returns:
        Tensor: ``[B, 2]``, row and column from 0 to ``s - 1``, the first in row-major order at a tie.
    """
    energy = pad_to_multiple(x.to(compute_dtype(x)).square().sum(dim=1), stride)  # [B, H', W']
    batch, height, width = energy.shape
    energy = energy.reshape(batch, height // stride, stride, width // stride, stride).sum(dim=(1, 3))
    best = energy.flatten(1).argmax(dim=1)
    return torch.stack([best // stride, best % stride], dim=1)


def roll_each(x: Tensor, shifts: Tensor) -> Tensor:
    """Roll each image by a shift of its own, as :func:`torch.roll` does.

    Args:
        x (Tensor): ``[B, C, H, W]``.
        shifts (Tensor): ``[B, 2]``, pixels down and across.

    Returns:
        Tensor: ``[B, C, H, W]``.
    """
    return _gather(x, shifts) if is_traced() else _Roll.apply(x, shifts)


class _Roll(torch.autograd.Function):
    """The gradient of a roll is the opposite roll; that of a gather would add up values one by one."""

    @staticmethod
    def forward(ctx, x, shifts):
        ctx.save_for_backward(shifts)
        return _gather(x, shifts)

    @staticmethod
    def backward(ctx, gradient):
        (shifts,) = ctx.saved_tensors
        return _Roll.apply(gradient, -shifts), None


def _gather(x: Tensor, shifts: Tensor) -> Tensor:
    batch, channels, height, width = x.shape
    axes = [torch.arange(length, device=x.device) for length in (height, width)]
    # Divided by a tensor, not by the length itself, for which ONNX's translator knows no remainder.
    rows, columns = ((axis - shift[:, None]) % (axis[-1:] + 1) for axis, shift in zip(axes, shifts.unbind(1)))
    places = (rows[:, :, None] * width + columns[:, None]).flatten(1)  # [B, H W]
    return x.flatten(2).gather(2, places[:, None].expand(-1, channels, -1)).view(x.shape)


def _make_circular(mixer: nn.Module) -> int:
    """Let padded convolutions of a mixer pad with the opposite edge; returns the most pixels that one pads."""
    convs = [m for m in mixer.modules() if isinstance(m, nn.Conv2d) and m.padding != 'valid' and any(_padding(m))]
    if not convs:
        raise BadInputError(f'circular_convs=True, and {type(mixer).__name__} has no padded convolution; leave it out')
    for conv in convs:
        conv.padding_mode = 'circular'
    return max(max(_padding(conv)) for conv in convs)


def _padding(conv: nn.Conv2d) -> tuple[int, ...]:
    """Pixels that a convolution pads along height and width; not for ``padding='valid'``."""
    if isinstance(conv.padding, str):  # 'same'
        return tuple(dilation * side // 2 for dilation, side in zip(conv.dilation, conv.kernel_size))
    return conv.padding
