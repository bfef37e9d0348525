"""The RBF-KAN operator in blocks of rows, so that the basis never exists as a whole.

The forward pass evaluates the Gaussians of one block, multiplies them with the weight and drops them; the backward pass
evaluates them again. Autograd keeps only the input, an eighth of what the reference keeps once.

With ``a = sqrt(log2(e) / 2) / w`` and ``b = c a`` a Gaussian is ``2 ** -(a x - b) ** 2``: one multiply-add, a square
and an exponential to base two, which PyTorch computes a multiple faster than the natural one. Inside a block the basis
lies as ``[rows, G, F]``, so that ``x`` is read along its fast axis; ``SiLU(x)`` of the base branch, where there is one,
lies behind the Gaussians, so that one matrix product serves both.

Shape letters: ``R`` rows, ``F`` in features, ``G`` Gaussians per feature, ``K`` Gaussians and base branch together
(``G`` or ``G + 1``), ``O`` out features, ``P`` patch side, ``M`` images times channels, ``I`` and ``J`` patches along
height and width.
"""

import math

import torch
from torch import Tensor

from vik_mm.ops.backends import compute_dtype, plain_or_operator, without_autocast
from vik_mm.ops.narrow_linear import linear
from vik_mm.ops.patches import merge_patches, pad_to_multiple, split_patches

# A block of 2048 x 8 x 49 float32 values is 3 MB: it stays in the caches of the cores that made it.
BLOCK_ELEMENTS = 2048 * 8 * 49


def rbf_kan_chunked(x: Tensor, centers: Tensor, widths: Tensor, weight: Tensor) -> Tensor:
    """Evaluate the operator block by block; see :func:`vik_mm.ops.rbf_kan` for arguments and result."""
    scale, shift, table = fold(centers, widths, weight)
    rows = x.reshape(-1, x.shape[-1])
    forward = plain_or_operator(_rows_forward, _rows_operator)
    return forward(rows, scale, shift, table).unflatten(0, x.shape[:-1])


def patch_rbf_kan_chunked(
    x: Tensor,
    centers: Tensor,
    widths: Tensor,
    weight: Tensor,
    base_weight: Tensor,
    base_bias: Tensor,
    patch_size: int,
) -> Tensor:
    """Evaluate the patch step block by block; see :func:`vik_mm.ops.patch_rbf_kan` for arguments and result."""
    scale, shift, table = fold(centers, widths, weight, base_weight)
    forward = plain_or_operator(_map_forward, _map_operator)
    return forward(x, scale, shift, table, base_bias, patch_size)


def fold(
    centers: Tensor, widths: Tensor, weight: Tensor, base_weight: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Fold centres and widths into a multiply-add, and order the weights as the basis lies.

    Args:
        centers (Tensor): ``[F, G]``.
        widths (Tensor): ``[F, G]``.
        weight (Tensor): ``[F * G, O]``.
        base_weight (Tensor, optional): ``[O, F]``, weight of the base branch. Defaults to None.

    Returns:
        tuple[Tensor, Tensor, Tensor]: ``scale`` and ``shift``, ``[G, F]``; ``table``, ``[O, K, F]``.
    """
    scale = (math.sqrt(math.log2(math.e) / 2) / widths).t().contiguous()
    shift = centers.t().contiguous() * scale
    table = weight.reshape(*centers.shape, -1).permute(2, 1, 0)
    if base_weight is not None:
        table = torch.cat([table, base_weight.unsqueeze(1)], dim=1)
    return scale, shift, table.contiguous()


class _Blocks:
    """What one pass over the blocks shares: the parameters in the dtype of the computation, and buffers.

    Args:
        scale (Tensor): ``[G, F]``.
        shift (Tensor): ``[G, F]``.
        table (Tensor): ``[O, K, F]``.
        dtype (torch.dtype): Dtype of the computation.
        num_rows (int): Rows of all blocks together.
    """

    def __init__(self, scale: Tensor, shift: Tensor, table: Tensor, dtype: torch.dtype, num_rows: int):
        self.scale, self.neg_shift, self.table = scale.to(dtype), shift.neg().to(dtype), table.flatten(1).to(dtype)
        self.num_grids, self.num_in = scale.shape
        self.has_base = table.shape[1] > self.num_grids
        self.size = max(1, BLOCK_ELEMENTS // scale.numel())
        self.zero = self.scale.new_zeros(())
        self._shape = (min(self.size, num_rows), self.num_grids + self.has_base, self.num_in)
        self._features = self.scale.new_empty(self._shape)

    def argument(self, rows: Tensor, out: Tensor) -> Tensor:
        """Compute the distance of each value from each centre in units of the widths, ``[R, G, F]``."""
        return torch.addcmul(self.neg_shift, rows.unsqueeze(1), self.scale, out=out)

    def features(self, rows: Tensor, argument: Tensor | None = None) -> Tensor:
        """Compute Gaussians and base branch of ``rows``, ``[R, F] -> [R, K, F]``; valid until the next call."""
        features = self._features[: rows.shape[0]]
        gaussians = features[:, : self.num_grids]
        if argument is None:
            argument = self.argument(rows, gaussians)
        torch.addcmul(self.zero, argument, argument, value=-1, out=gaussians)
        torch.exp2(gaussians, out=gaussians)
        if self.has_base:
            torch.ops.aten.silu.out(rows, out=features[:, self.num_grids])
        return features

    def start_gradients(self):
        """Prepare buffers and sums of a backward pass."""
        self._argument = self.scale.new_empty(self._shape[0], self.num_grids, self.num_in)
        self._grad_features = torch.empty_like(self._features)
        self.grad_scale, self.grad_shift = torch.zeros_like(self.scale), torch.zeros_like(self.scale)
        self.grad_table = torch.zeros_like(self.table)

    def backward(self, rows: Tensor, grad: Tensor) -> Tensor:
        """Add a block's share to the parameters' gradients; ``[R, F], [R, O] -> [R, F]``."""
        argument = self.argument(rows, self._argument[: rows.shape[0]])
        features = self.features(rows, argument)
        self.grad_table.addmm_(grad.t(), features.flatten(1))
        grad_features = self._grad_features[: rows.shape[0]]
        torch.mm(grad, self.table, out=grad_features.flatten(1))
        gaussians, grad_gaussians = features[:, : self.num_grids], grad_features[:, : self.num_grids]
        # d 2 ** -t^2 / dt = -2 ln(2) t 2 ** -t^2, t = scale * x - shift; the constant follows in the sums
        grad_argument = grad_gaussians.mul_(gaussians).mul_(argument)
        self.grad_shift.add_(grad_argument.sum(0))
        torch.mul(grad_argument, rows.unsqueeze(1), out=gaussians)
        self.grad_scale.add_(gaussians.sum(0))
        grad_rows = grad_argument.mul_(self.scale).sum(1).mul_(-2 * math.log(2))
        if self.has_base:
            grad_rows += torch.ops.aten.silu_backward(grad_features[:, self.num_grids], rows)
        return grad_rows

    def gradients(self, scale: Tensor, shift: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the sums in the dtypes of the parameters."""
        constant = -2 * math.log(2)
        return (
            self.grad_scale.mul(constant).to(scale.dtype),
            self.grad_shift.mul(-constant).to(shift.dtype),
            self.grad_table.view_as(table).to(table.dtype),
        )


def _rows_forward(x: Tensor, scale: Tensor, shift: Tensor, table: Tensor) -> Tensor:
    dtype = compute_dtype(x)
    blocks = _Blocks(scale, shift, table, dtype, x.shape[0])
    out = x.new_empty(x.shape[0], table.shape[0])
    with without_autocast(x):
        for rows, answer in zip(x.split(blocks.size), out.split(blocks.size)):
            answer.copy_(linear(blocks.features(rows.to(dtype)).flatten(1), blocks.table))
    return out


_rows_operator = torch.library.custom_op('vik_mm::rbf_kan_chunked', _rows_forward, mutates_args=())


@_rows_operator.register_fake
def _(x, scale, shift, table):
    return x.new_empty(x.shape[0], table.shape[0])


@torch.library.custom_op('vik_mm::rbf_kan_chunked_backward', mutates_args=())
def _rows_backward(
    grad_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, table: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x)
    blocks = _Blocks(scale, shift, table, dtype, x.shape[0])
    blocks.start_gradients()
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    for rows, grad, answer in zip(*(t.split(blocks.size) for t in (x, grad_out, grad_x))):
        answer.copy_(blocks.backward(rows.to(dtype), grad.to(dtype)))
    return grad_x, *blocks.gradients(scale, shift, table)


@_rows_backward.register_fake
def _(grad_out, x, scale, shift, table):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, torch.empty_like(scale), torch.empty_like(shift), torch.empty_like(table)


class _Patches:
    """Blocks of a map's patches, as rows and back; a block is a few channels, or a few patch rows of one.

    Args:
        patch_size (int): ``P``.
        size (int): Patches that a block should have.
        shape (torch.Size): ``[M, H, W]``.
    """

    def __init__(self, patch_size: int, size: int, shape: torch.Size):
        num_maps, self.height, self.width = shape
        self.patch_size = patch_size
        num_down, self.num_across = -(-self.height // patch_size), -(-self.width // patch_size)
        maps = max(1, size // max(1, num_down * self.num_across))
        down = num_down if maps > 1 else max(1, min(num_down, size // max(1, self.num_across)))
        self.blocks = [
            (slice(m, m + maps), slice(i * patch_size, (i + down) * patch_size))
            for m in range(0, num_maps, maps)
            for i in range(0, num_down, down)
        ]
        self.largest = min(num_maps, maps) * down * self.num_across

    def rows(self, x: Tensor, block: tuple[slice, slice], dtype: torch.dtype) -> Tensor:
        """Cut a block of ``x`` into rows, ``[M, H, W] -> [R, P * P]``; what lies outside the map is zero."""
        part = pad_to_multiple(x[block].to(dtype), self.patch_size)
        return split_patches(part, self.patch_size).view(-1, self.patch_size**2)

    def put(self, rows: Tensor, out: Tensor, block: tuple[slice, slice]) -> None:
        """Write rows to where :meth:`rows` cut them, and drop what lies outside the map."""
        target, side = out[block], self.patch_size
        patches = rows.view(target.shape[0], -1, self.num_across, side**2)
        if target.shape[1] % side or self.width % side:
            target.copy_(merge_patches(patches, side)[:, : target.shape[1], : self.width])
        else:  # write in place what merging would copy first
            maps, down, across = patches.shape[:3]
            target = target.view(maps, down, side, across, side).transpose(2, 3)
            target.copy_(patches.view(maps, down, across, side, side))


def _map_forward(x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, bias: Tensor, patch_size: int) -> Tensor:
    dtype = compute_dtype(x)
    out = torch.empty_like(x, memory_format=torch.contiguous_format)
    maps, answers = x.reshape(-1, *x.shape[2:]), out.view(-1, *x.shape[2:])
    patches = _Patches(patch_size, max(1, BLOCK_ELEMENTS // scale.numel()), maps.shape)
    blocks = _Blocks(scale, shift, table, dtype, patches.largest)
    bias = bias.to(dtype)
    with without_autocast(x):
        for block in patches.blocks:
            rows = patches.rows(maps, block, dtype)
            patches.put(linear(blocks.features(rows).flatten(1), blocks.table, bias).add_(rows), answers, block)
    return out


_map_operator = torch.library.custom_op('vik_mm::patch_rbf_kan_chunked', _map_forward, mutates_args=())


@_map_operator.register_fake
def _(x, scale, shift, table, bias, patch_size):
    return torch.empty_like(x, memory_format=torch.contiguous_format)


@torch.library.custom_op('vik_mm::patch_rbf_kan_chunked_backward', mutates_args=())
def _map_backward(
    grad_out: Tensor, x: Tensor, scale: Tensor, shift: Tensor, table: Tensor, bias: Tensor, patch_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    dtype = compute_dtype(x)
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    maps, grads = x.reshape(-1, *x.shape[2:]), grad_out.reshape(-1, *x.shape[2:])
    answers = grad_x.view(-1, *x.shape[2:])
    patches = _Patches(patch_size, max(1, BLOCK_ELEMENTS // scale.numel()), maps.shape)
    blocks = _Blocks(scale, shift, table, dtype, patches.largest)
    blocks.start_gradients()
    grad_bias = torch.zeros(bias.shape, dtype=dtype, device=x.device)
    for block in patches.blocks:
        grad = patches.rows(grads, block, dtype)
        grad_bias += grad.sum(0)
        patches.put(blocks.backward(patches.rows(maps, block, dtype), grad).add_(grad), answers, block)
    return grad_x, *blocks.gradients(scale, shift, table), grad_bias.to(bias.dtype)


@_map_backward.register_fake
def _(grad_out, x, scale, shift, table, bias, patch_size):
    grad_x = torch.empty_like(x, memory_format=torch.contiguous_format)
    return grad_x, *(torch.empty_like(t) for t in (scale, shift, table, bias))


def _save_rows(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _save_map(ctx, inputs, output):
    *tensors, ctx.patch_size = inputs
    ctx.save_for_backward(*tensors)


_rows_operator.register_autograd(lambda ctx, grad: _rows_backward(grad, *ctx.saved_tensors), setup_context=_save_rows)
_map_operator.register_autograd(
    lambda ctx, grad: (*_map_backward(grad, *ctx.saved_tensors, ctx.patch_size), None), setup_context=_save_map
)
