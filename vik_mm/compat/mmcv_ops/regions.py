"""Regions of interest: RoIAlign and RoIPool.

``K`` regions ``(image, x1, y1, x2, y2)`` in image pixels, ``C`` channels, maps ``[B, C, H, W]``, bins ``[K, C, h, w]``.
"""

import torch
from torch import Tensor

# Values gathered at once where every sample of every bin is laid out.
_BLOCK = 1 << 23


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``output`` ``[K, C, h, w]``; for the maximum (``pool_mode`` 0) also where each was found."""
    rois, size = rois.to(input.dtype), (aligned_height, aligned_width)
    if pool_mode == 1:
        output.copy_(torch.ops.torchvision.roi_align(input, rois, spatial_scale, *size, sampling_ratio, aligned))
        return
    starts, bins, grids = _bins(rois, size, spatial_scale, sampling_ratio, aligned)
    # Regions that are sampled alike go together.
    for grid in grids.unique(dim=0).tolist():
        if 0 in grid:
            continue  # a region without extent has no samples: zeros, as the caller made them
        members = torch.nonzero((grids == grids.new_tensor(grid)).all(1))[:, 0]
        samples = input.shape[1] * size[0] * grid[0] * size[1] * grid[1]
        for rows in members.split(max(1, _BLOCK // samples)):
            y, x = (
                start[:, None] + extent[:, None] * (torch.arange(n * per, device=rois.device) + 0.5) / per
                for start, extent, n, per in zip(starts[rows].T, bins[rows].T, size, grid)
            )
            values = _bilinear(input, rois[rows, 0].long(), y, x)
            best, place = _max_of_bins(values, size, grid)
            output[rows] = best
            argmax_y[rows] = y[:, None, None].expand(*best.shape[:3], -1).gather(3, place[0])
            argmax_x[rows] = x[:, None, None].expand(*best.shape[:3], -1).gather(3, place[1])


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Fill ``grad_input`` ``[B, C, H, W]``."""
    rois, size = rois.to(grad_output.dtype), (aligned_height, aligned_width)
    if pool_mode == 1:
        grad_input.copy_(
            torch.ops.torchvision._roi_align_backward(
                grad_output, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned
            )
        )
        return
    image = rois[:, 0].long()[:, None, None, None].expand_as(grad_output)
    channel = torch.arange(grad_input.shape[1], device=rois.device)[None, :, None, None].expand_as(grad_output)
    _, _, grids = _bins(rois, size, spatial_scale, sampling_ratio, aligned)
    sampled = (grids > 0).all(1)[:, None, None, None]
    for y, weight_y in _neighbours(argmax_y, grad_input.shape[2]):
        for x, weight_x in _neighbours(argmax_x, grad_input.shape[3]):
            grad = torch.where(sampled, grad_output * weight_y * weight_x, 0)
            grad_input.index_put_((image, channel, y, x), grad.to(grad_input.dtype), accumulate=True)


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``output`` and ``argmax`` ``[K, C, h, w]``; a place is ``y * W + x``, or -1 for an empty bin.

    torchvision's operator rounds regions otherwise than MMCV's, so this one is written out.
    """
    size, limits = (pooled_height, pooled_width), input.shape[2:]
    starts = rois[:, [2, 1]] * spatial_scale
    bins = ((rois[:, [4, 3]] + 1) * spatial_scale - starts) / rois.new_tensor(size)
    exists = (bins > 0).all(1)
    first, last, longest = [], [], []
    for axis in (0, 1):
        steps = torch.arange(size[axis], device=rois.device)
        start, extent = starts[:, axis, None], bins[:, axis, None]
        first.append((steps * extent + start).floor().clamp(0, limits[axis]).long())
        last.append(((steps + 1) * extent + start).ceil().clamp(0, limits[axis]).long())
        longest.append(max(1, int((last[axis] - first[axis]).max())) if len(rois) else 1)
    samples = input.shape[1] * size[0] * longest[0] * size[1] * longest[1]
    for rows in torch.nonzero(exists)[:, 0].split(max(1, _BLOCK // samples)):
        index, inside = [], []
        for axis in (0, 1):
            cells = first[axis][rows][..., None] + torch.arange(longest[axis], device=rois.device)
            inside.append((cells < last[axis][rows][..., None]).flatten(1))
            index.append(cells.clamp(max=limits[axis] - 1).flatten(1))
        values = input[rois[rows, 0].long()[:, None, None], :, index[0][:, :, None], index[1][:, None, :]]
        mask = inside[0][:, :, None] & inside[1][:, None, :]
        values = values.masked_fill(~mask[..., None], -torch.inf).permute(0, 3, 1, 2)
        best, place = _max_of_bins(values, size, longest)
        y = index[0][:, None, None].expand(*best.shape[:3], -1).gather(3, place[0])
        x = index[1][:, None, None].expand(*best.shape[:3], -1).gather(3, place[1])
        empty = best == -torch.inf
        output[rows] = best.masked_fill(empty, 0)
        argmax[rows] = (y * limits[1] + x).masked_fill(empty, -1).to(argmax.dtype)
    argmax[~exists] = -1


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Fill ``grad_input`` ``[B, C, H, W]``."""
    image, channel = torch.meshgrid(
        rois[:, 0].long(), torch.arange(grad_input.shape[1], device=rois.device), indexing='ij'
    )
    grad = torch.where(argmax >= 0, grad_output, 0).flatten(2)
    place = argmax.long().clamp(min=0).flatten(2)
    flat = grad_input.view(*grad_input.shape[:2], -1)
    index = (image[..., None].expand_as(place), channel[..., None].expand_as(place), place)
    flat.index_put_(index, grad.to(flat.dtype), accumulate=True)


def _bins(rois, size, spatial_scale, sampling_ratio, aligned):
    """Start ``[K, 2]``, extent of a bin ``[K, 2]`` and samples per bin ``[K, 2]`` of each region, y before x."""
    shift = 0.5 if aligned else 0.0
    starts = rois[:, [2, 1]] * spatial_scale - shift
    extents = rois[:, [4, 3]] * spatial_scale - shift - starts
    if not aligned:
        extents = extents.clamp(min=1)
    bins = extents / rois.new_tensor(size)
    if sampling_ratio > 0:
        return starts, bins, torch.full_like(bins, sampling_ratio, dtype=torch.long)
    return starts, bins, bins.ceil().clamp(min=0).long()


def _neighbours(at: Tensor, size: int):
    """Yield the two cells beside each coordinate and their weights; both weights are 0 off the map."""
    on_map = (at >= -1) & (at <= size)
    at = at.clamp(0, size - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=size - 1)
    fraction = at - low
    yield low, (1 - fraction) * on_map
    yield high, fraction * on_map


def _bilinear(maps: Tensor, image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Sample maps on a grid for each region: ``y`` ``[K, n]`` and ``x`` ``[K, m]`` give ``[K, C, n, m]``."""
    total = maps.new_zeros(())
    for row, weight_y in _neighbours(y, maps.shape[2]):
        for column, weight_x in _neighbours(x, maps.shape[3]):
            values = maps[image[:, None, None], :, row[:, :, None], column[:, None, :]]
            total = total + values * (weight_y[:, :, None] * weight_x[:, None, :])[..., None]
    return total.permute(0, 3, 1, 2)


def _max_of_bins(values: Tensor, size, grid):
    """Maxima of ``[K, C, h * gh, w * gw]`` in each bin ``[K, C, h, w]``, and their rows and columns."""
    (height, width), (grid_y, grid_x) = size, grid
    cells = values.unflatten(3, (width, grid_x)).unflatten(2, (height, grid_y)).transpose(3, 4).flatten(4)
    best, place = cells.max(-1)
    row = place // grid_x + torch.arange(height, device=values.device)[:, None] * grid_y
    column = place % grid_x + torch.arange(width, device=values.device) * grid_x
    return best, (row, column)
