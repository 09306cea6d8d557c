"""Pictures of a pattern: dots and braille for a terminal, SVG for a notebook, matplotlib for paper."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.node import Array

if TYPE_CHECKING:
    from .structure import Structure

__all__ = ["braille", "cells", "dots", "framed", "grid_size", "plot", "svg"]

EXACT_ROWS, EXACT_COLUMNS = 24, 48  # the largest matrix that is drawn entry by entry in text
TEXT_ROWS, TEXT_COLUMNS = 24, 60  # characters of a picture in text
SVG_SIZE = 320  # units of the longer side of an SVG
SVG_CELLS = 160  # cells along the longer side of an SVG at most
PLOT_CELLS = 1024  # the same for a plot
MAX_MARKS = 200  # blocks and leaves that are outlined at most


def grid_size(shape: tuple[int, int], height: int, width: int) -> tuple[int, int]:
    """The grid that a matrix is drawn on: no more than one cell an entry, its proportions kept within reason."""
    rows, columns = max(shape[0], 1), max(shape[1], 1)
    scale = min(height / rows, width / columns, 1.0)
    # A side of a very long matrix keeps some width, or nothing would be seen of it.
    least = max(height, width, 8) // 8
    return (
        min(height, rows, max(round(rows * scale), least)),
        min(width, columns, max(round(columns * scale), least)),
    )


def cells(rows: Array, columns: Array, shape: tuple[int, int], grid: tuple[int, int]) -> Array:
    """A boolean grid that is true wherever an entry falls.

    >>> cells(np.array([0, 5]), np.array([1, 7]), (6, 8), (2, 4))
    array([[ True, False, False, False],
           [False, False, False,  True]])
    """
    found = np.zeros(grid, dtype=bool)
    for start in range(0, len(rows), 2**18):  # in pieces that stay in the cache
        here = slice(start, start + 2**18)
        r = rows[here].astype(np.int64) * grid[0] // max(shape[0], 1)
        c = columns[here].astype(np.int64) * grid[1] // max(shape[1], 1)
        found[r, c] = True
    return found


def dots(grid: Array) -> list[str]:
    """One character an entry.

    >>> print("\\n".join(dots(np.eye(2, 3, dtype=bool))))
    •··
    ·•·
    """
    return ["".join("•" if on else "·" for on in row) for row in grid]


_BRAILLE = np.array([[0x01, 0x08], [0x02, 0x10], [0x04, 0x20], [0x40, 0x80]])


def braille(grid: Array) -> list[str]:
    """Two by four cells a character.

    >>> braille(np.eye(4, dtype=bool))
    ['⠑⢄']
    """
    height, width = -(-grid.shape[0] // 4), -(-grid.shape[1] // 2)
    padded = np.zeros((height * 4, width * 2), dtype=np.int64)
    padded[: grid.shape[0], : grid.shape[1]] = grid
    codes = np.einsum("iajb,ab->ij", padded.reshape(height, 4, width, 2), _BRAILLE)
    return ["".join(chr(0x2800 + int(code)) for code in row) for row in codes]


def framed(lines: Sequence[str]) -> list[str]:
    """The picture in a frame."""
    width = max(map(len, lines), default=0)
    return [f"┌{'─' * width}┐", *(f"│{line}│" for line in lines), f"└{'─' * width}┘"]


def svg(structure: Structure) -> str:
    """The pattern as an SVG image: each run of cells a rectangle, blocks outlined, leaves told apart by lines."""
    shape = structure.shape
    grid = structure.grid(SVG_CELLS, SVG_CELLS)
    scale = SVG_SIZE / max(*grid.shape, 1)
    high, wide = grid.shape[0] * scale, grid.shape[1] * scale
    runs = []
    for k, line in enumerate(grid):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
        runs += [f"M{a} {k}h{b - a}v1h{a - b}z" for a, b in edges.reshape(-1, 2)]
    marks = [
        f'<rect x="{c * wide / shape[1]:.2f}" y="{r * high / shape[0]:.2f}" width="{n * wide / shape[1]:.2f}" '
        f'height="{m * high / shape[0]:.2f}" fill="none" stroke="#d9822b"/>'
        for r, c, m, n in _outlines(structure)
    ]
    marks += [
        f'<line x1="0" x2="{wide:.2f}" y1="{p:.2f}" y2="{p:.2f}" stroke="#999" stroke-dasharray="3"/>'
        for p in (r.start * high / shape[0] for r in _inner(structure.rows))
    ]
    marks += [
        f'<line y1="0" y2="{high:.2f}" x1="{p:.2f}" x2="{p:.2f}" stroke="#999" stroke-dasharray="3"/>'
        for p in (c.start * wide / shape[1] for c in _inner(structure.columns))
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide + 2:.0f}" height="{high + 2:.0f}" '
        f'viewBox="-1 -1 {wide + 2:.2f} {high + 2:.2f}">'
        f'<rect width="{wide:.2f}" height="{high:.2f}" fill="#fff" stroke="#444"/>'
        f'<path transform="scale({scale:.6g})" fill="#1f4e8c" d="{"".join(runs)}"/>{"".join(marks)}</svg>'
    )


def _inner(ranges: Any) -> list[range]:
    """Where leaves meet: every range that does not begin at 0, unless there are too many to be told apart."""
    found = [r for r in ranges.values() if r.start and len(r)]
    return found if len(found) <= MAX_MARKS else []


def _outlines(structure: Structure) -> list[tuple[int, int, int, int]]:
    """``(row, column, rows, columns)`` of each diagonal block, if there are few enough to be seen."""
    if structure.blocks is None or len(structure.blocks) > MAX_MARKS:
        return []
    ends = np.cumsum(structure.blocks, axis=0)
    return [
        (int(r - m), int(c - n), int(m), int(n)) for (r, c), (m, n) in zip(ends, structure.blocks, strict=True) if m * n
    ]


def plot(structure: Structure, ax: Any = None) -> Any:
    """Draw the pattern with matplotlib, blocks outlined and the band between dashed lines; returns the axes."""
    try:
        # By name: matplotlib is not there when types are checked.
        pyplot, colors, patches = (
            importlib.import_module(f"matplotlib.{name}") for name in ("pyplot", "colors", "patches")
        )
    except ImportError:
        raise ImportError("plotting a structure needs matplotlib: pip install 'jacana[plot]'") from None
    if ax is None:
        _, ax = pyplot.subplots()
    rows, columns = structure.shape
    grid = structure.grid(PLOT_CELLS, PLOT_CELLS)
    if grid.size:
        ax.imshow(
            np.where(grid, 1.0, 0.0),
            cmap=colors.ListedColormap(["#ffffff", "#1f4e8c"]),
            vmin=0,
            vmax=1,
            interpolation="nearest",
            extent=(-0.5, columns - 0.5, rows - 0.5, -0.5),
            aspect="equal" if 1 / 8 <= rows / max(columns, 1) <= 8 else "auto",
        )
    for r, c, m, n in _outlines(structure):
        ax.add_patch(patches.Rectangle((c - 0.5, r - 0.5), n, m, fill=False, edgecolor="#d9822b", linewidth=1.0))
    lower, upper = structure.bandwidth
    for offset, used in ((-lower - 0.5, lower), (upper + 0.5, upper)):
        if structure.nnz and used < max(rows, columns) // 2:
            # Row r meets the edge of the band at column r + offset.
            start, stop = max(0.0, -offset), min(rows - 1.0, columns - 1.0 - offset)
            if stop > start:
                ax.plot([start + offset, stop + offset], [start, stop], "--", color="#c23030", linewidth=0.8)
    for line in _inner(structure.rows):
        ax.axhline(line.start - 0.5, color="#999999", linewidth=0.6, linestyle=":")
    for line in _inner(structure.columns):
        ax.axvline(line.start - 0.5, color="#999999", linewidth=0.6, linestyle=":")
    ax.xaxis.tick_top()
    share = "" if math.isnan(structure.density) else f" ({structure.density:.3%})"
    ax.set_title(f"{structure.name}: {rows:,} x {columns:,}, {structure.nnz:,} entries{share}", fontsize=10)
    return ax
