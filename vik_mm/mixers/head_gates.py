"""How each pixel weighs the heads of mixture-of-head attention.

Shape letters: ``B`` images, ``C`` channels, ``N`` pixels, ``h`` heads, ``s`` shared heads, ``E = h - s`` routed ones,
``k`` routed heads that a pixel keeps.
"""

import torch
from torch import Tensor, nn

from vik_mm.errors import BadInputError

from .convolutions import pointwise


class HeadGates(nn.Module):
    """Weights of the heads: about 1 on the mean over the heads that a pixel keeps, 0 for the others.

    The gates of shared heads are ``s`` times a softmax; those of the ``k`` strongest routed heads are a softmax,
    divided by its sum over the ``k``, times ``k``. A third gate, twice a softmax of two, weighs the two kinds.
    Gradients pass through the gates and not through the choice.

    Args:
        embed_dims (int): ``C``.
        num_heads (int): ``h``.
        shared_heads (int, optional): ``s``. None is ``max(1, h // 4)``. Defaults to None.
        routed_heads (int, optional): ``k``. None is ``max(1, h // 2)``, and at most ``E``. Defaults to None.

    Attributes:
        balance_loss (Tensor, optional): ``E * sum_e mean(softmax_e) * share_e`` of the last pass in training, over
            images and pixels, ``share_e`` being the share of pixels that keep head ``e``. It is ``k`` where all heads
            are kept evenly. None before, in evaluation, or where no head is routed.
        passes (list[Tensor], optional): Losses of several passes, whose mean ``balance_loss`` then is: a layer runs
            several times where images are computed one after the other, or blocks are shared. The one who takes the
            losses sets an empty list before, and None afterwards. None keeps the last pass only.
        keeps_balance_loss (bool): Whether to keep it. It holds on to a part of the graph of the pass: activation
            checkpointing, which computes a pass again in the backward pass, should not keep it a second time.

    Shape:
        - Input: ``[B, C, H, W]``.
        - Output: ``[B, h, N, 1]``, or None where there is a single head.

    Raises:
        BadInputError: If there are not so many heads, or one would never be kept.

    Source:
        arXiv 2410.11842; ``MoH-ViT/attention.py``. The factors that bring the mean gate to 1 are the code's.
    """

    def __init__(
        self, embed_dims: int, num_heads: int, shared_heads: int | None = None, routed_heads: int | None = None
    ):
        super().__init__()
        shared = max(1, num_heads // 4) if shared_heads is None else shared_heads
        if not 0 <= shared <= num_heads:
            raise BadInputError(f'shared_heads={shared} must be from 0 to the {num_heads} heads')
        routable = num_heads - shared
        kept = min(max(1, num_heads // 2), routable) if routed_heads is None else routed_heads
        if not 0 <= kept <= routable:
            raise BadInputError(
                f'routed_heads={kept} must be from 0 to the {routable} heads that shared_heads={shared} leaves'
            )
        if kept == 0 and routable:
            raise BadInputError(
                f'routed_heads=0 leaves {routable} heads that no pixel keeps; set shared_heads={num_heads}, '
                'or routed_heads to at least 1'
            )
        self.shared_heads, self.routed_heads = shared, kept
        self.keeps_balance_loss = True
        self.balance_loss: Tensor | None = None
        self.passes: list[Tensor] | None = None
        self.shared = pointwise(embed_dims, shared, bias=False) if shared > 1 else None
        self.routed = pointwise(embed_dims, routable, bias=False) if kept else None
        self.kinds = pointwise(embed_dims, 2, bias=False) if kept and shared else None

    def forward(self, x: Tensor) -> Tensor | None:
        """Map ``[B, C, H, W]`` to the gates."""
        if self.shared is None and self.routed is None:
            return None
        parts = []
        if self.shared_heads:
            even = x.new_ones(x.shape[0], 1, *x.shape[2:])
            parts.append(even if self.shared is None else self.shared_heads * self.shared(x).softmax(1))
        if self.routed is not None:
            parts.append(self._route(self.routed(x).softmax(1)))
        if self.kinds is not None:
            parts = [part * kind for part, kind in zip(parts, (2 * self.kinds(x).softmax(1)).split(1, dim=1))]
        return torch.cat(parts, dim=1).flatten(2)[..., None].to(x.dtype)

    def _route(self, shares: Tensor) -> Tensor:
        """Keep the ``k`` largest shares of each pixel, ``[B, E, H, W]``."""
        chosen = shares.topk(self.routed_heads, dim=1).indices
        kept = torch.zeros_like(shares).scatter(1, chosen, 1.0)
        self.balance_loss = None
        if self.training:
            # Also where it is not kept: activation checkpointing wants both passes to compute the same.
            loss = shares.shape[1] * (shares.mean((0, 2, 3)) * kept.mean((0, 2, 3))).sum()
            if self.keeps_balance_loss:
                if self.passes is not None:
                    self.passes.append(loss)
                    loss = torch.stack(self.passes).mean()
                self.balance_loss = loss
        gates = shares * kept
        smallest = torch.finfo(shares.dtype).eps
        return self.routed_heads * gates / gates.sum(1, keepdim=True).clamp(min=smallest)

    def __getstate__(self):
        """Leave the last loss out: a tensor with a graph can be neither copied nor pickled."""
        return {**super().__getstate__(), 'balance_loss': None, 'passes': None}
