"""Multi-scale deformable attention, and the mask of point-wise spatial attention."""

import torch
from torch import Tensor
from torch.nn import functional as F


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Weigh samples of each level's map.

    ``value`` is ``[B, keys, heads, D]``, ``sampling_locations`` ``[B, Q, heads, levels, points, 2]`` as ``(x, y)`` in
    0 to 1, ``attention_weights`` the same without the last dimension; the answer is ``[B, Q, heads * D]``.
    """
    batch, _, heads, dims = value.shape
    queries, points = sampling_locations.shape[1], sampling_locations.shape[4]
    # [B, Q, heads, levels, points, 2] -> [levels, B * heads, Q, points, 2], in -1 to 1
    grids = (2 * sampling_locations - 1).permute(3, 0, 2, 1, 4, 5).flatten(1, 2)
    weights = attention_weights.permute(3, 0, 2, 1, 4).reshape(-1, batch * heads, 1, queries, points)
    total = value.new_zeros(())
    for level, ((height, width), start) in enumerate(
        zip(value_spatial_shapes.tolist(), value_level_start_index.tolist())
    ):
        keys = value[:, start : start + height * width]
        keys = keys.permute(0, 2, 3, 1).reshape(batch * heads, dims, height, width)
        samples = F.grid_sample(keys, grids[level], mode='bilinear', padding_mode='zeros', align_corners=False)
        total = total + (samples * weights[level]).sum(-1)
    return total.view(batch, heads * dims, queries).transpose(1, 2).contiguous()


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the three gradients, by running the forward again under autograd."""
    leaves = [t.detach().requires_grad_() for t in (value, sampling_locations, attention_weights)]
    with torch.enable_grad():
        output = ms_deform_attn_forward(
            leaves[0], value_spatial_shapes, value_level_start_index, leaves[1], leaves[2], im2col_step=1
        )
    grads = torch.autograd.grad(output, leaves, grad_output.view_as(output))
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        target.copy_(grad)


def psamask_forward(
    input: Tensor,
    output: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Spread a mask around each position over the whole map.

    ``input`` is ``[B, h_mask * w_mask, H, W]``, ``output`` ``[B, H * W, H, W]``: from all positions (collect, type 0)
    or to all positions (distribute, type 1).
    """
    index, inside = _window(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, input.device)
    spread = torch.where(inside, input.gather(1, index.expand(num_, -1, -1, -1)), 0)
    output.copy_(spread if psa_type == 0 else _swap(spread))


def psamask_backward(
    grad_output: Tensor,
    grad_input: Tensor,
    psa_type: int,
    num_: int,
    h_feature: int,
    w_feature: int,
    h_mask: int,
    w_mask: int,
    half_h_mask: int,
    half_w_mask: int,
) -> None:
    """Fill ``grad_input`` ``[B, h_mask * w_mask, H, W]``."""
    grad = grad_output if psa_type == 0 else _swap(grad_output)
    index, inside = _window(h_feature, w_feature, h_mask, w_mask, half_h_mask, half_w_mask, grad.device)
    grad_input.zero_()
    grad_input.scatter_add_(1, index.expand(num_, -1, -1, -1), torch.where(inside, grad, 0))


def _window(height, width, mask_height, mask_width, half_height, half_width, device):
    """Cell of the mask at ``[h, w]`` that belongs to each position, ``[1, H * W, H, W]``, and whether there is one."""
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    y = rows[:, None] - rows[None] + half_height  # [to, from]
    x = columns[:, None] - columns[None] + half_width
    inside_y, inside_x = (y >= 0) & (y < mask_height), (x >= 0) & (x < mask_width)
    index = y.clamp(0, mask_height - 1)[:, None, :, None] * mask_width + x.clamp(0, mask_width - 1)[None, :, None, :]
    inside = inside_y[:, None, :, None] & inside_x[None, :, None, :]
    return index.reshape(1, -1, height, width), inside.reshape(1, -1, height, width)


def _swap(spread: Tensor) -> Tensor:
    """Exchange the two positions of ``[B, H * W, H, W]``."""
    return spread.flatten(2).transpose(1, 2).reshape(spread.shape)
