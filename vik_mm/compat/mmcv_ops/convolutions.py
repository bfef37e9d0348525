"""Deformable convolution, v1 and v2, and masked convolution. ``B`` images, ``C`` channels in, ``O`` out."""

import torch
from torch import Tensor
from torch.nn import functional as F


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill ``output`` ``[B, O, H', W']``. ``columns``, ``ones`` and ``im2col_step`` are the compiled one's buffers."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, None, geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Fill ``gradInput`` and ``gradOffset``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _backward(gradOutput, input, weight, offset, None, None, geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the gradient to ``gradWeight``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    # The gradient of the weights does not depend on them.
    weight = torch.zeros_like(gradWeight)
    gradWeight.add_(_backward(gradOutput, input, weight, offset, None, None, geometry)[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill ``output`` ``[B, O, H', W']``.

    Offsets and mask of a larger map are read like the compiled operator reads them: their memory as if it were of
    ``[H', W']``. DyHead relies on it.
    """
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    offset, mask = (_as_if_of(values, output.shape[2:]) for values in (offset, mask))
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else None, geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Fill the five gradients; ``grad_bias`` only ``with_bias``."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    offset, mask = (_as_if_of(values, grad_output.shape[2:]) for values in (offset, mask))
    grads = _backward(grad_output, input, weight, offset, mask, bias if with_bias else None, geometry)
    grad_input.copy_(grads[0])
    grad_weight.copy_(grads[1])
    for target, grad in zip((grad_offset, grad_mask), grads[2:4]):
        target.flatten(1)[:, : grad[0].numel()] = grad.flatten(1)
    if with_bias:
        grad_bias.copy_(grads[4])


def masked_im2col_forward(
    im: Tensor,
    mask_h_idx: Tensor,
    mask_w_idx: Tensor,
    col: Tensor,
    kernel_h: int,
    kernel_w: int,
    pad_h: int,
    pad_w: int,
) -> None:
    """Fill ``col`` ``[C * kh * kw, n]`` with the windows of ``im`` ``[1, C, H, W]`` at ``n`` places."""
    padded = F.pad(im[0], (pad_w, pad_w, pad_h, pad_h))
    rows = mask_h_idx[None] + torch.arange(kernel_h, device=im.device)[:, None]
    columns = mask_w_idx[None] + torch.arange(kernel_w, device=im.device)[:, None]
    col.copy_(padded[:, rows[:, None], columns[None]].flatten(0, 2))


def masked_col2im_forward(
    col: Tensor, mask_h_idx: Tensor, mask_w_idx: Tensor, im: Tensor, height: int, width: int, channels: int
) -> None:
    """Put ``col`` ``[C, n]`` back to its ``n`` places of ``im`` ``[1, C, H, W]``."""
    im[0, :, mask_h_idx, mask_w_idx] = col


def _as_if_of(values, size):
    """Read the memory of each image ``[C, H, W]`` as ``[C, *size]``, from its start."""
    if values.shape[2:] == size:
        return values
    batch, channels = values.shape[:2]
    return values.contiguous().flatten(1)[:, : channels * size.numel()].reshape(batch, channels, *size)


def _arguments(input, weight, offset, mask, bias):
    """Torchvision's form: no mask and no bias are stand-ins of the right size."""
    if bias is None:
        bias = input.new_zeros(weight.shape[0])
    if mask is None:
        mask = input.new_zeros(input.shape[0], 1)
    return input, weight, offset, mask, bias


def _forward(input, weight, offset, mask, bias, geometry):
    arguments = _arguments(input, weight, offset, mask, bias)
    return torch.ops.torchvision.deform_conv2d(*arguments, *geometry, mask is not None)


def _backward(grad, input, weight, offset, mask, bias, geometry):
    """Gradients of input, weight, offset, mask and bias."""
    arguments = _arguments(input, weight, offset, mask, bias)
    grads = list(torch.ops.torchvision._deform_conv2d_backward(grad, *arguments, *geometry, mask is not None))
    on_map = _samples_on_map(offset, input.shape[2:], weight.shape[2:], geometry)
    grads[2] = torch.where(on_map, grads[2], 0)
    return grads


def _samples_on_map(offset, size, kernel, geometry):
    """Tell which samples lie on the map or less than a pixel beside it, in the shape of ``offset``.

    On exactly one pixel beside it, where every layer with padding starts, torchvision takes the slope towards the map
    and MMCV takes none.
    """
    stride, padding, dilation = geometry[:2], geometry[2:4], geometry[4:6]
    # [B, deformable groups, kh, kw, (y, x), H', W']
    places = offset.unflatten(1, (-1, *kernel, 2))
    on_map = []
    for axis in (0, 1):
        start = torch.arange(places.shape[5 + axis], device=offset.device) * stride[axis] - padding[axis]
        tap = torch.arange(kernel[axis], device=offset.device) * dilation[axis]
        start = start[:, None] if axis == 0 else start
        tap = tap[:, None, None, None] if axis == 0 else tap[:, None, None]
        at = places[:, :, :, :, axis] + start + tap
        on_map.append((at > -1) & (at < size[axis]))
    return (on_map[0] & on_map[1]).unsqueeze(4).expand_as(places).flatten(1, 4)
