"""Where the cells of a tile lie: what the kernels of this operator share.

Map and rows differ only in their addresses: a row of a map is a patch, its pixels are read from and written to the
``[B, C, H, W]`` map itself, and pixels outside of the map count as zero.

Shape letters: as in ``triton.py``.
"""

import triton
import triton.language as tl

from vik_mm.ops.launch import quotient

# Sizes and their reciprocals change with every image size; a kernel for each kind of number would be compiled again.
SIZES = (
    'num_rows',
    'height',
    'width',
    'across',
    'across_by',
    'across_shift',
    'patches',
    'patches_by',
    'patches_shift',
)
jit = triton.jit(do_not_specialize=[*SIZES, 'num_tiles'])


@triton.jit
def tile_starts(
    rows, height, width, across, across_by, across_shift, patches, patches_by, patches_shift,
    COLUMNS: tl.constexpr, SIDE: tl.constexpr, OFFSET: tl.constexpr,
):  # fmt: skip
    """Where rows start in memory, and in their map; rows of a matrix where ``SIDE`` is 0, patches of a map else."""
    if SIDE == 0:
        return rows.to(OFFSET) * COLUMNS, rows, rows
    m = quotient(rows, patches_by, patches_shift)
    rest = rows - m * patches
    i = quotient(rest, across_by, across_shift)
    start = rows.to(OFFSET) * SIDE
    start += m.to(OFFSET) * (height * width - patches * SIDE)
    start += i.to(OFFSET) * ((width - across) * SIDE)
    return start, i * SIDE, (rest - i * across) * SIDE


@triton.jit
def tile_columns(width, BLOCK: tl.constexpr, SIDE: tl.constexpr):
    """How far the columns of a row lie behind its start."""
    column = tl.arange(0, BLOCK)
    if SIDE == 0:
        return column
    return (column // SIDE) * width + column % SIDE


@triton.jit
def tile_mask(
    rows, top, left, num_rows, height, width, COLUMNS: tl.constexpr, BLOCK: tl.constexpr, SIDE: tl.constexpr,
    WHOLE: tl.constexpr,
):  # fmt: skip
    """Which cells of a tile ``[rows, BLOCK]`` exist; no patch is cut by the map's border where ``WHOLE``."""
    column = tl.arange(0, BLOCK)
    mask = (rows < num_rows)[:, None] & (column < COLUMNS)[None, :]
    if SIDE != 0 and not WHOLE:
        mask &= (top[:, None] < (height - column // SIDE)[None, :]) & (left[:, None] < (width - column % SIDE)[None, :])
    return mask


@triton.jit
def tile_slice(table, k, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Matrix ``k`` of a packed table ``[K, ROWS, COLUMNS]``."""
    row, column = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    return tl.load(table + (k * ROWS + row)[:, None] * COLUMNS + column[None, :])
