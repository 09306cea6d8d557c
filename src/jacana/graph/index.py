"""Index expressions: how a point of a domain of named axes picks one index of one array axis.

A domain is a tuple of sizes; its axes are named by their position. An index expression is either

* ``Affine(offset, ((axis, stride), ...))``: ``offset + sum(stride * axis)``, strides sorted by axis and never zero, or
* ``Lookup(table, axes)``: ``table[axis, axis, ...]``, an integer table that is known when the graph is recorded.

Both are closed under substitution of axes by other index expressions, which is all that composition of terms needs.
Both are plain tuples, so that equality and hashing cost nothing.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

IntArray: TypeAlias = NDArray[np.int64]
Key = TypeVar("Key")
Value = TypeVar("Value")

HASHED = 32  # elements of a table that its hash looks at
ANSWER = 64  # elements of a table that take as much memory as an answer without tables


class Table:
    """An immutable integer array, equal to another by content."""

    __slots__ = ("_bounds", "_digest", "_hash", "values")

    def __init__(self, values: NDArray[np.integer]) -> None:
        array = np.array(values, dtype=np.int64, order="C")
        array.flags.writeable = False
        self.values: IntArray = array
        self._digest: bytes | None = None
        self._bounds: tuple[int, int] | None = None
        # A few of its elements: most tables are never compared, and those that are differ early.
        self._hash = hash((array.shape, array.reshape(-1)[:: array.size // HASHED + 1].tobytes()))

    @property
    def digest(self) -> bytes:
        """The content in sixteen bytes: what tells it from others in another process."""
        if self._digest is None:
            self._digest = hashlib.blake2b(self.values.data, digest_size=16).digest()
        return self._digest

    @property
    def bounds(self) -> tuple[int, int]:
        """The least and the greatest element."""
        if self._bounds is None:
            self._bounds = int(self.values.min()), int(self.values.max())
        return self._bounds

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Table) and self._hash == other._hash and np.array_equal(self.values, other.values)
        )

    def __repr__(self) -> str:
        return f"Table({self.values.tolist()})" if self.values.size <= 8 else f"Table<{self.digest.hex()[:8]}>"


class Affine(NamedTuple):
    """``offset + sum(stride * axis)``."""

    offset: int
    strides: tuple[tuple[int, int], ...] = ()


class Lookup(NamedTuple):
    """``table[axes]``: one table axis for each named axis."""

    table: Table
    axes: tuple[int, ...]


Index: TypeAlias = Affine | Lookup


class Memory(Generic[Key, Value]):
    """Answers worth keeping while a program is planned, all of them forgotten when there are many.

    The same few expressions meet thousands of times in one elimination, and hardly ever in another program.
    ``room``: the elements of tables that are kept, each answer counting as ``ANSWER`` more.
    """

    def __init__(self, room: int = 2**20) -> None:
        self._room, self._taken = room, 0
        self._kept: dict[Key, Value] = {}
        self.get = self._kept.get

    def takes(self, weight: int) -> bool:
        """Whether one more answer with tables of ``weight`` elements may be kept; older ones may have to go for it."""
        weight += ANSWER
        if weight > self._room // 16:
            return False
        if self._taken + weight > self._room:
            self.clear()
        self._taken += weight
        return True

    def put(self, key: Key, value: Value, weight: int) -> None:
        """Keep an answer, if it is not too large."""
        if self.takes(weight):
            self._kept[key] = value

    def clear(self) -> None:
        """Forget all answers."""
        self._kept.clear()
        self._taken = 0


tabulated: Memory[tuple[Index, tuple[Index, ...], tuple[int, ...]], Index] = Memory()

_AXES = tuple(Affine(0, ((a, 1),)) for a in range(64))
_IDENTITIES: tuple[tuple[Index, ...], ...] = tuple(_AXES[:rank] for rank in range(65))


def axis(a: int) -> Affine:
    """The expression that is the axis itself."""
    return _AXES[a]


def identity(rank: int) -> tuple[Index, ...]:
    """One plain axis for each of ``rank`` array axes."""
    return _IDENTITIES[rank]


def axes_of(index: Index) -> tuple[int, ...]:
    """The axes that an expression mentions."""
    if isinstance(index, Lookup):
        return index.axes
    strides = index.strides
    if len(strides) == 1:  # nearly always, and asked all the time
        return (strides[0][0],)
    return tuple([a for a, _ in strides])


def plain_axis(index: Index) -> int | None:
    """The axis, if the expression is that axis and nothing else."""
    if isinstance(index, Affine):
        offset, strides = index
        if offset == 0 and len(strides) == 1 and strides[0][1] == 1:
            return strides[0][0]
    return None


def shift_axes(index: Index, by: int) -> Index:
    """The same expression over axes renumbered by adding ``by``."""
    if isinstance(index, Lookup):
        return Lookup(index.table, tuple(a + by for a in index.axes))
    if not index.strides or not by:
        return index
    plain = plain_axis(index)
    if plain is not None:
        return _AXES[plain + by]
    return Affine(index.offset, tuple([(a + by, s) for a, s in index.strides]))


def evaluate(index: Index, sizes: Sequence[int]) -> IntArray:
    """The index at every point of the domain, of rank ``len(sizes)`` and length 1 along axes not mentioned."""
    rank = len(sizes)
    if isinstance(index, Lookup):
        # A slice that starts at 0 shortens an axis of the domain and leaves the table as it is.
        values = index.table.values[tuple(slice(0, sizes[a]) for a in index.axes)]
        order = sorted(range(len(index.axes)), key=lambda k: index.axes[k])
        shape = [1] * rank
        for k in order:
            shape[index.axes[k]] = sizes[index.axes[k]]
        return values.transpose(order).reshape(shape)
    offset, strides = index
    if len(strides) == 1:  # nearly always
        a, stride = strides[0]
        line = np.arange(offset, offset + stride * sizes[a], stride, dtype=np.int64)
        return line if rank == 1 else line.reshape([-1 if k == a else 1 for k in range(rank)])
    total = np.full((1,) * rank, offset, dtype=np.int64)
    for a, stride in strides:
        shape = [1] * rank
        shape[a] = sizes[a]
        total = total + (stride * np.arange(sizes[a], dtype=np.int64)).reshape(shape)
    return total


def bounds(index: Index, sizes: Sequence[int]) -> tuple[int, int]:
    """The least and the greatest index over a domain that is not empty."""
    if isinstance(index, Lookup):
        return index.table.bounds
    low = high = index.offset
    for a, stride in index.strides:
        end = stride * (sizes[a] - 1)
        low, high = low + min(end, 0), high + max(end, 0)
    return low, high


def from_table(values: NDArray[np.integer], axes: Sequence[int]) -> Index:
    """The expression ``values[axes]``: affine where the values are, else a lookup. Axes of no influence are dropped."""
    if values.size == 0:
        return Affine(0)
    keep = [k for k in range(values.ndim) if values.shape[k] > 1]
    values = values.reshape([values.shape[k] for k in keep])
    axes = [axes[k] for k in keep]
    origin = int(values.flat[0])
    strides = []
    for k in range(values.ndim):
        step = tuple(1 if j == k else 0 for j in range(values.ndim))
        strides.append(int(values[step]) - origin)
    if int(values.flat[-1]) != origin + sum([s * (n - 1) for s, n in zip(strides, values.shape, strict=True)]):
        return Lookup(Table(values), tuple(axes))  # as most that are not affine show in their last element
    expected: NDArray[np.int64] = np.array(origin, dtype=np.int64)
    for k, stride in enumerate(strides):
        ramp = stride * np.arange(values.shape[k], dtype=np.int64)
        expected = expected + ramp.reshape([-1 if j == k else 1 for j in range(values.ndim)])
    if np.array_equal(expected, values):
        return Affine(origin, tuple(sorted((a, s) for a, s in zip(axes, strides, strict=True) if s)))
    return Lookup(Table(values), tuple(axes))


def substitute(index: Index, replacement: Sequence[Index], sizes: Sequence[int]) -> Index:
    """The expression with every axis ``a`` replaced by ``replacement[a]``, itself over a domain of ``sizes``."""
    if isinstance(index, Affine):
        offset, written = index
        if not written:
            return index
        if len(written) == 1:
            a, stride = written[0]
            inner = replacement[a]
            if stride == 1 and offset == 0:
                return inner
            if isinstance(inner, Affine):
                start, steps = inner
                if stride == 1:
                    return Affine(offset + start, steps)
                return Affine(offset + stride * start, tuple([(b, stride * s) for b, s in steps]))
        if all(isinstance(replacement[a], Affine) for a, _ in written):
            strides: dict[int, int] = {}
            for a, stride in written:
                inner = replacement[a]
                assert isinstance(inner, Affine)
                offset += stride * inner.offset
                for b, s in inner.strides:
                    strides[b] = strides.get(b, 0) + stride * s
            return Affine(offset, tuple(sorted((b, s) for b, s in strides.items() if s)))
    else:
        plain = [p for p in (plain_axis(replacement[a]) for a in index.axes) if p is not None]
        # An axis that has been cropped takes its share of the table with it, so that a table always fits its axes.
        whole = index.table.values.shape == tuple(sizes[p] for p in plain)
        if whole and len(set(plain)) == len(plain):
            return Lookup(index.table, tuple(plain))
    # Something has to be tabulated: only over the axes that take part, never over the whole domain.
    mentioned = axes_of(index)
    parts = tuple([replacement[a] for a in mentioned])
    used = sorted({b for e in parts for b in axes_of(e)})
    small = tuple([sizes[b] for b in used])
    key = (index, parts, small)
    found = tabulated.get(key)
    if found is None:
        found = _tabulated(index, parts, used, small)
        tabulated.put(key, found, math.prod(small))
    return found


def _tabulated(index: Index, inner: Sequence[Index], used: Sequence[int], sizes: Sequence[int]) -> Index:
    """``substitute`` by the numbers: ``inner`` in place of the axes that are mentioned, over the axes ``used``."""
    compact = {b: k for k, b in enumerate(used)}
    parts = [evaluate(rename(e, compact), sizes) for e in inner]
    if isinstance(index, Lookup):
        values = index.table.values[tuple(parts)]
    else:
        terms = [s * part for (_, s), part in zip(index.strides, parts, strict=True)]
        values = sum(terms, np.array(index.offset, dtype=np.int64))
    return from_table(values if values.shape == sizes else np.broadcast_to(values, sizes), used)


def unraveled(positions: IntArray, shape: Sequence[int]) -> tuple[IntArray, ...]:
    """The coordinates of C-order positions in an array of ``shape``.

    ``np.unravel_index`` of NumPy 2.4.6 gives wrong ones after the first 8,192 elements where the positions have a last
    axis of length one.
    """
    found: list[IntArray] = []
    for size in reversed(shape[1:]):
        positions, place = np.divmod(positions, size)
        found.append(place)
    return (positions, *reversed(found)) if shape else ()


def rename(index: Index, names: dict[int, int]) -> Index:
    """The same expression with its axes renamed one to one."""
    if isinstance(index, Lookup):
        return Lookup(index.table, tuple(names[a] for a in index.axes))
    if not index.strides:
        return index
    if len(index.strides) == 1:
        a, s = index.strides[0]
        return _AXES[names[a]] if s == 1 and index.offset == 0 else Affine(index.offset, ((names[a], s),))
    return Affine(index.offset, tuple(sorted([(names[a], s) for a, s in index.strides])))


def flatten(indices: Sequence[Index], shape: Sequence[int], sizes: Sequence[int]) -> Index:
    """The C-order position of ``indices`` in an array of ``shape``, as one expression over a domain of ``sizes``."""
    strides = [math.prod(shape[k + 1 :]) for k in range(len(shape))]
    if len(indices) == 1:
        return indices[0]
    outer = Affine(0, tuple((k, s) for k, s in enumerate(strides) if s))
    return substitute(outer, indices, sizes)


def flat_positions(indices: Sequence[Index], shape: Sequence[int], sizes: Sequence[int]) -> IntArray:
    """What ``evaluate`` gives for ``flatten``, without an expression in between."""
    total: IntArray | None = None
    stride = 1
    for index, length in zip(reversed(indices), reversed(shape), strict=True):
        part = evaluate(index, sizes)
        if stride != 1:
            part = part * stride
        total = part if total is None else total + part
        stride *= length
    return np.zeros((1,) * len(sizes), np.int64) if total is None else total
