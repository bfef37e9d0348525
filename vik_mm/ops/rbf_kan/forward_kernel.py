"""The forward pass of the RBF-KAN operator as a Triton kernel.

One program holds a tile of rows. For each Gaussian it computes the tile's basis, a multiply-add, a square and an
exponential to base two, and multiplies it with that Gaussian's slice of the weight on the matrix units, summing in
float32. The base branch, its bias and the residual belong to the same pass over the map.

Shape letters: as in ``triton.py``.
"""

import triton.language as tl

from vik_mm.ops.launch import sigmoid

from .tiles import jit, tile_columns, tile_mask, tile_slice, tile_starts


@jit
def forward_kernel(
    x_ptr, out_ptr, scale, shift, table, bias, num_rows,
    height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    IN: tl.constexpr, OUT: tl.constexpr, G: tl.constexpr, SIDE: tl.constexpr, WHOLE: tl.constexpr, BASE: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_F: tl.constexpr, BLOCK_O: tl.constexpr,
    OFFSET: tl.constexpr, DOT: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Compute a tile of the output."""
    rows = tl.program_id(0) * BLOCK_R + tl.arange(0, BLOCK_R)
    start, top, left = tile_starts(
        rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, IN, SIDE, OFFSET
    )
    mask = tile_mask(rows, top, left, num_rows, height, width, IN, BLOCK_F, SIDE, WHOLE)
    columns = tile_columns(width, BLOCK_F, SIDE)
    x = tl.load(x_ptr + start[:, None] + columns[None, :], mask=mask, other=0.0).to(tl.float32)
    f, o = tl.arange(0, BLOCK_F), tl.arange(0, BLOCK_O)
    out = tl.zeros((BLOCK_R, BLOCK_O), tl.float32)
    if BASE:
        w = tl.trans(tile_slice(table, G, BLOCK_O, BLOCK_F))
        out = tl.dot((x * sigmoid(x)).to(DOT), w, out, input_precision=PRECISION)
    for g in range(G):
        a = tl.load(scale + g * IN + f, mask=f < IN, other=0.0)
        b = tl.load(shift + g * IN + f, mask=f < IN, other=0.0)
        t = x * a[None, :] - b[None, :]
        w = tl.trans(tile_slice(table, g, BLOCK_O, BLOCK_F))
        out = tl.dot(tl.exp2(-t * t).to(DOT), w, out, input_precision=PRECISION)
    if BASE:
        out += tl.load(bias + o, mask=o < OUT, other=0.0)[None, :]
        out += x  # in and out features are the patch's pixels
    else:
        start, top, left = tile_starts(
            rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift, OUT, SIDE, OFFSET
        )
        mask = tile_mask(rows, top, left, num_rows, height, width, OUT, BLOCK_O, SIDE, WHOLE)
    address = out_ptr + start[:, None] + tile_columns(width, BLOCK_O, SIDE)[None, :]
    tl.store(address, out.to(out_ptr.dtype.element_ty), mask=mask)
