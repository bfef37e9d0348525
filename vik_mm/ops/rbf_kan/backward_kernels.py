"""The backward pass of the RBF-KAN operator as Triton kernels, which compute the basis again.

One is for the input, with partial sums for centres, widths and bias, one for the weight. Each program walks its tiles
in a fixed order and writes its own partial sums, which one reduction joins: the gradients are the same bits in every
run.

Shape letters: as in ``triton.py``.
"""

import triton.language as tl

from vik_mm.ops.launch import sigmoid

from .tiles import jit, tile_columns, tile_mask, tile_slice, tile_starts


@jit
def backward_input_kernel(
    grad_ptr, x_ptr, grad_x_ptr, scale, shift, table, part_scale, part_shift, part_bias, num_tiles, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    CONSTANT: tl.constexpr, OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute the gradient of tiles of the input, and a program's sums of those of scale, shift and bias."""
    # Rows are the columns of all tiles here: sums over rows then run along a thread's registers.
    walker = tl.program_id(0)
    f, o, grids = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O), tl.arange(0, BLOCK_G)
    sum_scale = tl.zeros((BLOCK_F, BLOCK_G), tl.float32)
    sum_shift = tl.zeros((BLOCK_F, BLOCK_G), tl.float32)
    sum_bias = tl.zeros((BLOCK_O,), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(0)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        start, top, left = tile_starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
        )
        mask = tile_mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
        columns = tile_columns(width, BLOCK_F, SIDE)
        x = tl.load(x_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        x = tl.trans(x).to(tl.float32)
        if BASE:
            grad = tl.load(grad_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        else:
            start_o, top, left = tile_starts(
                rows,
                height,
                width,
                across,
                across_by,
                across_shift,
                patches,
                patches_by,
                patches_shift,
                OUT,
                SIDE,
                OFFSET,
            )
            mask_o = tile_mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
            columns_o = tile_columns(width, BLOCK_O, SIDE)
            grad = tl.load(grad_ptr + start_o[:, None] + columns_o[None, :], mask=mask_o, other=0.0)
        grad = tl.trans(grad)
        grad_x = tl.zeros((BLOCK_F, BLOCK_R), tl.float32)
        for g in range(G):
            a = tl.load(scale + g * IN + f, mask=f < IN, other=0.0)
            b = tl.load(shift + g * IN + f, mask=f < IN, other=0.0)
            t = x * a[:, None] - b[:, None]
            w = tile_slice(table, g, BLOCK_F, BLOCK_O)
            # d 2 ** -t^2 / dt = -2 ln(2) t 2 ** -t^2; the constant follows in the sums
            grad_t = tl.dot(w, grad.to(DOT), input_precision=PRECISION) * (t * tl.exp2(-t * t))
            grad_x += grad_t * a[:, None]
            mine = (grids == g)[None, :]
            sum_scale += tl.where(mine, tl.sum(grad_t * x, 1)[:, None], 0.0)
            sum_shift += tl.where(mine, tl.sum(grad_t, 1)[:, None], 0.0)
        grad_x *= CONSTANT
        if BASE:
            grad_silu = tl.dot(tile_slice(table, G, BLOCK_F, BLOCK_O), grad.to(DOT), input_precision=PRECISION)
            slope = sigmoid(x)
            grad_x += grad_silu * slope * (1 + x * (1 - slope))
            grad_x += grad.to(tl.float32)
            sum_bias += tl.sum(grad.to(tl.float32), 1)
        address = grad_x_ptr + start[:, None] + columns[None, :]
        tl.store(address, tl.trans(grad_x).to(grad_x_ptr.dtype.element_ty), mask=mask)
    mine = walker * G * IN + grids[None, :] * IN + f[:, None]
    mask = (grids < G)[None, :] & (f < IN)[:, None]
    tl.store(part_scale + mine, CONSTANT * sum_scale, mask=mask)
    tl.store(part_shift + mine, -CONSTANT * sum_shift, mask=mask)
    if BASE:
        tl.store(part_bias + walker * OUT + o, sum_bias, mask=o < OUT)


@jit
def backward_weight_kernel(
    grad_ptr, x_ptr, scale, shift, part_table, num_tiles, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr, BLOCK_G: tl.constexpr,
    OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a program's sums of the table's gradient, for one group of Gaussians."""
    walker = tl.program_id(0)
    first = tl.program_id(1) * BLOCK_G
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    # The Gaussians of a group lie one below the other, so that one product serves all.
    k = tl.arange(0, BLOCK_G * BLOCK_F)
    grid, feature = first + k // BLOCK_F, k % BLOCK_F
    exists = (grid < G) & (feature < IN)
    grids = first + tl.arange(0, BLOCK_G)
    inside = (grids < G)[:, None] & (f < IN)[None, :]
    a = tl.load(scale + grids[:, None] * IN + f[None, :], mask=inside, other=0.0)
    b = tl.load(shift + grids[:, None] * IN + f[None, :], mask=inside, other=0.0)
    total = tl.zeros((BLOCK_G * BLOCK_F, BLOCK_O), tl.float32)
    total_base = tl.zeros((BLOCK_F, BLOCK_O), tl.float32)
    for tile in range(walker, num_tiles, tl.num_programs(0)):
        rows = tile * BLOCK_R + tl.arange(0, BLOCK_R)
        start, top, left = tile_starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
        )
        mask = tile_mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
        columns = tile_columns(width, BLOCK_F, SIDE)
        x = tl.load(x_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0).to(tl.float32)
        if BASE:
            grad = tl.load(grad_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        else:
            start, top, left = tile_starts(
                rows,
                height,
                width,
                across,
                across_by,
                across_shift,
                patches,
                patches_by,
                patches_shift,
                OUT,
                SIDE,
                OFFSET,
            )
            mask = tile_mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
            columns = tile_columns(width, BLOCK_O, SIDE)
            grad = tl.load(grad_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0)
        t = x[:, None, :] * a[None, :, :] - b[None, :, :]
        gaussians = tl.reshape(tl.exp2(-t * t), (BLOCK_R, BLOCK_G * BLOCK_F))
        total = tl.dot(tl.trans(gaussians.to(DOT)), grad.to(DOT), total, input_precision=PRECISION)
        if BASE:
            silu = tl.zeros_like(x)
            if first == 0:
                silu = x * sigmoid(x)
            total_base = tl.dot(tl.trans(silu.to(DOT)), grad.to(DOT), total_base, input_precision=PRECISION)
    part_table += walker * (G + BASE) * IN * OUT
    mask = exists[:, None] & (o < OUT)[None, :]
    tl.store(part_table + (grid * IN + feature)[:, None] * OUT + o[None, :], total, mask=mask)
    if BASE:
        mask = (f < IN)[:, None] & (o < OUT)[None, :] & (first == 0)
        tl.store(part_table + (G * IN + f)[:, None] * OUT + o[None, :], total_base, mask=mask)
