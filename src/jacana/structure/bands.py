"""Parts of matrices of which the places are known, such as the band of a convolution: where they have entries.

Such a matrix stays one factor of a term while terms are composed. A sum over its rows or columns has something to sum
nearly everywhere; where it has not, that is structure, and said by a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from ..graph.build import constant_array, linear_map
from ..graph.index import Index, IntArray, axes_of, evaluate, rename
from ..graph.node import Array, Factor, Node
from .joining import Arrangement

ENUMERATED = 2**22  # pairs of rows and columns up to which places are enumerated


class Part(NamedTuple):
    """Some rows and columns of a matrix that is left whole, over the axes of a domain.

    ``batch``: the axes that tell which matrix of several. ``band``: the least and the greatest ``row - column``.
    """

    matrix: Node
    batch: tuple[int, ...]
    row: Index
    col: Index
    band: tuple[int, int] | None

    @property
    def axes(self) -> tuple[int, ...]:
        """The axes of rows and columns."""
        return tuple(sorted({*axes_of(self.row), *axes_of(self.col)}))


def parts_of_maps(factors: Iterable[Factor]) -> list[Part]:
    """The factors that are such parts."""
    result = []
    for node, axes in factors:
        found = linear_map(node)
        if found is not None and (record := found.matrix.op.matrix) is not None and record.late:
            names = dict(enumerate(axes))
            (row,), (col,) = found.rows, found.cols
            band = None if record.band is None else record.band(found.matrix)
            result.append(Part(found.matrix, axes[: found.batch], rename(row, names), rename(col, names), band))
    return result


def off_band(part: Part, domain: Sequence[int]) -> Factor | None:
    """Where a part is in its band, over its rows and columns; None if that is everywhere, or too much to enumerate.

    None as well where the matrix tells of its places itself.
    """
    sizes = [domain[a] for a in part.axes]
    assert part.matrix.op.matrix is not None
    if part.band is None or part.matrix.op.matrix.support is not None or math.prod(sizes) > ENUMERATED:
        return None
    inside = _in_band(part, sizes)
    return None if inside.all() else (constant_array(inside), part.axes)


def met_parts(
    factors: Sequence[Factor],
    masks: Sequence[tuple[Array, tuple[int, ...]]],
    found: Arrangement,
    zeros: Callable[[Node], Array | None],
) -> tuple[Factor, ...]:
    """Where a sum has something to sum, as far as such matrices can tell: a mask over axes that are not summed.

    ``masks``: those of the sum that are known. ``zeros``: where a matrix can be other than zero, if its band does not
    tell all.
    """
    domain, kept = found.domain, found.kept
    masks = [(mask, axes) for mask, axes in masks if any(a >= kept for a in axes)]
    parts = [(p, zeros(p.matrix)) for p in parts_of_maps(factors) if any(a >= kept for a in p.axes)]
    parts = [(part, known) for part, known in parts if known is not None or part.band is not None]
    if not parts:
        return ()
    if len(parts) == 1 and parts[0][1] is None and not masks and (only := _meets_band(parts[0][0], found)) is not None:
        met, left = only
    else:
        used = [(*p.batch, *p.axes) if known is not None else p.axes for p, known in parts]
        used += [axes for _, axes in masks]
        left = tuple(sorted({a for axes in used for a in axes if a < kept}))
        if any(math.prod(domain[a] for a in axes) > ENUMERATED for axes in (left, *used)):
            return ()
        inside: list[object] = [x for mask, axes in masks for x in (mask.astype(np.float32), axes)]
        for (part, known), axes in zip(parts, used, strict=False):
            sizes = [domain[a] for a in axes]
            if known is None:
                there = _in_band(part, sizes)
            else:
                at = (_places(e, axes, sizes) for e in (part.row, part.col))
                there = known[(*np.ix_(*map(range, sizes))[: len(part.batch)], *at)]
            inside += [there.astype(np.float32), axes]
        met = np.asarray(np.einsum(*inside, left, optimize=True) > 0)  # type: ignore[call-overload]
    return () if met.all() else ((constant_array(met), left),)


def _meets_band(part: Part, found: Arrangement) -> tuple[Array, tuple[int, ...]] | None:
    """Which rows (columns) have a column (row) in the band among those that are summed; None if no side is all summed.

    The places that are summed are sorted, so that no pair is looked at.
    """
    assert part.band is not None
    over_rows, over_cols = (all(a >= found.kept for a in axes_of(e)) for e in (part.row, part.col))
    kept, summed = (part.col, part.row) if over_rows else (part.row, part.col)
    own = axes_of(kept)
    if over_rows == over_cols or any(a >= found.kept for a in own):
        return None
    low, high = part.band if over_rows else (-part.band[1], -part.band[0])
    at = _places(kept, own, [found.domain[a] for a in own])
    there = np.sort(_places(summed, axes_of(summed), [found.domain[a] for a in axes_of(summed)]), axis=None)
    first = np.searchsorted(there, at + low)
    return (first < there.size) & (there[np.minimum(first, there.size - 1)] <= at + high), own


def _in_band(part: Part, sizes: Sequence[int]) -> Array:
    assert part.band is not None
    offset = _places(part.row, part.axes, sizes) - _places(part.col, part.axes, sizes)
    return np.asarray((part.band[0] <= offset) & (offset <= part.band[1]))


def _places(index: Index, axes: Sequence[int], sizes: Sequence[int]) -> IntArray:
    """The index at every point of some axes that include its own."""
    return evaluate(rename(index, {a: k for k, a in enumerate(axes)}), sizes)


__all__ = ["Part", "met_parts", "off_band", "parts_of_maps"]
