"""Where a fused loop reads: a node at a symbolic point, whose coordinates are affine in loop counters and lookups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np

from ..graph.index import Affine, Index, Lookup, Table
from ..graph.node import LITERAL, Node, Shape, literal, literal_array


class At(NamedTuple):
    """``offset + sum(coefficient * atom)``; atoms are loop counters (by number) or lookups."""

    offset: int
    terms: tuple[tuple[Atom, int], ...] = ()


class Gather(NamedTuple):
    """``table[args]``, read when the loop runs."""

    table: Table
    args: tuple[At, ...]


Atom: TypeAlias = "int | Gather"
Point: TypeAlias = tuple[At, ...]


def counter(loop: int) -> At:
    """The counter of a loop."""
    return At(0, ((loop, 1),))


def combine(offset: int, parts: Sequence[tuple[At, int]]) -> At:
    """``offset + sum(factor * part)``."""
    terms: dict[Atom, int] = {}
    for part, factor in parts:
        offset += factor * part.offset
        for atom, c in part.terms:
            terms[atom] = terms.get(atom, 0) + factor * c
    ordered = sorted(
        ((a, c) for a, c in terms.items() if c), key=lambda t: (0, t[0]) if isinstance(t[0], int) else (1, hash(t[0]))
    )
    return At(offset, tuple(ordered))


def resolve(index: Index, point: Point) -> At:
    """An index expression over a node's axes, at a point of the node."""
    if isinstance(index, Affine):
        if not index.strides:
            return At(index.offset)
        if len(index.strides) == 1:
            a, s = index.strides[0]
            here = point[a]
            if s == 1:
                return here if index.offset == 0 else At(here.offset + index.offset, here.terms)
            return At(index.offset + s * here.offset, tuple((atom, s * c) for atom, c in here.terms))
        return combine(index.offset, [(point[a], s) for a, s in index.strides])
    assert isinstance(index, Lookup)
    args = tuple(point[a] for a in index.axes)
    if all(not a.terms for a in args):
        return At(int(index.table.values[tuple(a.offset for a in args)]))
    return At(0, ((Gather(index.table, args), 1),))


def flat(point: Point, shape: Shape) -> At:
    """The C-order position of a point of an array."""
    stride = 1
    parts = []
    for here, n in zip(reversed(point), reversed(shape), strict=True):
        parts.append((here, stride))
        stride *= n
    return combine(0, parts)


def gathers(at: At) -> Iterator[Gather]:
    """Every lookup that a coordinate needs, the inner ones first."""
    for atom, _ in at.terms:
        if isinstance(atom, Gather):
            for argument in atom.args:
                yield from gathers(argument)
            yield atom


ZERO = object()


def locate(node: Node, point: Point) -> tuple[Node, Point] | object | None:
    """Which part of an assembled array is read at ``point``, and where in it.

    Returns ``ZERO`` where no part has been written, None where it depends on a loop counter.
    """
    undecided = False
    for part, rows in zip(node.inputs, node.params.rows, strict=True):
        inner = _invert(rows, point, part.shape, node.shape)
        if inner is False:
            continue
        if inner is None:
            undecided = True
            continue
        assert isinstance(inner, tuple)
        return part, inner
    return None if undecided else ZERO


def _invert(rows: Sequence[Index], point: Point, sizes: Shape, shape: Shape) -> Point | bool | None:
    """The point of the part that lands on ``point``; False if none does, None if that cannot be told."""
    inner: list[At | None] = [At(0) if n == 1 else None for n in sizes]
    for row, here, length in zip(rows, point, shape, strict=True):
        if isinstance(row, Lookup):
            return None
        if not row.strides:
            if here.terms:
                return None
            if here.offset != row.offset:
                return False
            continue
        rest = At(here.offset - row.offset, here.terms)
        digits = sorted(((s, a) for a, s in row.strides), reverse=True)
        reach = 0
        for s, a in reversed(digits):
            if s <= reach:
                return None  # not a mixed radix (or a negative stride): places have no unique digits
            reach += s * (sizes[a] - 1)
        whole = sum(s * (sizes[a] - 1) for s, a in digits) + 1 == length and row.offset == 0
        for position, (s, a) in enumerate(digits):
            taken = tuple((atom, c // s) for atom, c in rest.terms if c % s == 0)
            left = tuple((atom, c) for atom, c in rest.terms if c % s)
            last = position == len(digits) - 1
            if left and last:
                return None
            if left:
                return None  # a counter that crosses digits
            quotient, remainder = divmod(rest.offset, s)
            if last and remainder:
                return False if not rest.terms else None
            digit = At(quotient, taken)
            if not taken:
                if not 0 <= quotient < sizes[a]:
                    return False
            elif not whole:
                return None
            if inner[a] is not None and inner[a] != digit:
                return None
            inner[a] = digit
            rest = At(remainder, ())
    if any(e is None for e in inner):
        return None
    return tuple(e for e in inner if e is not None)


def known(node: Node, depth: int = 3) -> Node | None:
    """A number that is computed from literals alone, in a few steps, as a literal; None for everything else."""
    if node.op is LITERAL:
        return node
    if node.ndim or not depth or node.op.family != "elementwise":
        return None
    inputs = []
    for i in node.inputs:
        inputs.append(known(i, depth - 1))
        if inputs[-1] is None:
            return None
    with np.errstate(all="ignore"):
        value = node.op.evaluate(node.params, *(literal_array(i.params) for i in inputs if i is not None))
    return literal(value, node.dtype)


def unrolled(sizes: Sequence[int]) -> Iterator[tuple[int, ...]]:
    """Every point of a small domain."""
    return itertools.product(*(range(n) for n in sizes))
