"""Which sums and other reductions become loops, along which axis their lanes run, and how they are cut into tiles.

A long sum is cut into tiles of a fixed length and its lanes are a fixed number of partial sums, so that the order of
the additions depends on nothing but the program: not on the width of the vectors, not on the number of threads.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from ..graph.index import Affine, Index, identity
from ..graph.node import Node, Shape
from ..graph.ops.contraction import contract
from ..graph.ops.movement import index
from ..graph.ops.reduction import norm, prod, reduce_all, reduce_any, reduce_max, reduce_min

TILE = 8192  # elements for each tile, about: what several kernels share should stay in the second cache
LEAST_TILE = 8
SPLIT_TILES = 4  # a sum over fewer tiles than this is not cut
UNROLL_REDUCED = 8  # points of the other axes that are unrolled in the loop of a reduction

COMBINE = {contract: "add", norm: "add", prod: "mul", reduce_max: "maximum", reduce_min: "minimum"}
COMBINE_LOGIC = {reduce_any: "either", reduce_all: "both"}


class Reduction(NamedTuple):
    """A node as a combination over ``summed`` axes of a domain, of the product of ``factors``."""

    domain: Shape
    kept: tuple[int, ...]  # the axes of the domain that the axes of the result stand for
    summed: tuple[int, ...]
    factors: tuple[tuple[Node, tuple[int, ...]], ...]
    combine: str
    finish: str = ""

    @property
    def rows(self) -> tuple[Index, ...]:
        axes = identity(len(self.domain))
        return tuple(axes[a] for a in self.kept)


def reduction_of(node: Node, kinds: tuple[object, ...]) -> Reduction | None:
    """The node as a reduction in loops, or None where that is not possible or NumPy does it better.

    A product of matrices, in which no factor has all the axes, is left to BLAS: it reads each number many times and
    needs blocks for that. Where one factor has all the axes, each of its numbers is read once, and the memory sets
    the pace of any loop.
    """
    if any(i.dtype not in kinds for i in node.inputs):
        return None
    if node.op is contract:
        params = node.params
        everything = len(params.sizes)
        if node.dtype.kind != "f" or not any(len(labels) == everything for labels in params.labels):
            return None
        summed = tuple(x for x in range(everything) if x not in params.out)
        factors = tuple(zip(node.inputs, params.labels, strict=True))
        found = Reduction(params.sizes, params.out, summed, factors, "add")
    elif node.op in COMBINE or node.op in COMBINE_LOGIC:
        (x,) = node.inputs
        if x.dtype.kind != ("f" if node.op in COMBINE else "b"):
            return None
        combine = COMBINE.get(node.op) or COMBINE_LOGIC[node.op]
        every = tuple(range(x.ndim))
        summed = node.params.axes
        kept = tuple(a for a in every if a not in summed)
        squared = node.op is norm
        factors = ((x, every), (x, every)) if squared else ((x, every),)
        found = Reduction(x.shape, kept, summed, factors, combine, "sqrt" if squared else "")
    else:
        return None
    return found if 0 not in found.domain and found.summed else None


def contiguous_axes(node: Node, axes: tuple[int, ...]) -> set[int]:
    """The axes of a domain along which what a factor reads most of lies in memory without gaps."""
    while True:
        if node.op is index:
            source = node.inputs[0]
            if not source.ndim:
                return set()
            last = node.params.indices[-1]
            if isinstance(last, Affine) and len(last.strides) == 1 and last.strides[0][1] == 1:
                moved = last.strides[0][0]
                if source.op is index or source.op.family == "elementwise":
                    # What lies under the source may be moved again; only its last axis matters here.
                    node, axes = source, tuple(axes[moved] if k == source.ndim - 1 else -1 for k in range(source.ndim))
                    continue
                return {axes[moved]} - {-1}
            return set()
        if node.op.family == "elementwise":
            solid = [i for i in node.inputs if not (i.op is index and i.inputs[0].size * 4 <= i.size)]
            if not solid:
                return set()
            node = solid[0]
            continue
        return {axes[-1]} - {-1} if axes else set()


def choose_lane(reduction: Reduction, least: int) -> int:
    """The axis for the lanes: one that lies in memory without gaps if it is long enough, else the longest."""
    sizes = reduction.domain
    longest = max(range(len(sizes)), key=lambda a: (sizes[a], a))
    whole = [(n, axes) for n, axes in reduction.factors if len(axes) == len(sizes)]
    for node, axes in whole:
        for a in contiguous_axes(node, axes):
            if sizes[a] >= least:
                return a
    return longest


def tile_length(inner: float) -> int:
    """How many indices of an axis make a tile, if each stands for ``inner`` elements: a power of two."""
    return max(LEAST_TILE, 1 << int(math.log2(max(TILE / inner, 1.0))))
