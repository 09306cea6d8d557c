"""Arrays that a program captures: by reference when that is safe, by value when it is not.

A captured array may change while the program is recorded (a work buffer), between two calls of the compiled program
(data that the user updates in place), or never. The first use takes a snapshot. When the recording ends:

* nobody else holds the array any more: the snapshot is the constant;
* somebody does and the content is still the snapshot: the *live* array is the constant, so that a later change is seen;
* somebody does and the content changed meanwhile: the snapshots stay, and a watch on the array invalidates the
  recording as soon as its content differs from what it was at the end.

Arrays used as indices are structure, baked into the graph, and so are the places of the zeros in masks and in matrices
of few numbers (``has_structure``); those that live on are watched in the same way.
"""

from __future__ import annotations

import sys
from types import CodeType
from typing import Any

import numpy as np

from ..graph.build import constant, has_structure
from ..graph.node import Array, Node
from .location import user_frame


class Captured:
    """The owner of one captured array: equal to nothing but itself, so that equal arrays may come to differ."""

    __slots__ = ("_array", "live", "structural")

    def __init__(self, array: Array, structural: bool = False) -> None:
        self._array = array
        self.live = False  # whether somebody else holds the array and may write into it
        self.structural = structural  # whether its zeros may be taken for structure: its content is watched

    def value(self) -> Array:
        """The array as it is now."""
        return self._array

    def refer_to(self, array: Array) -> None:
        """Follow a live array from now on."""
        self._array = array
        self.live = True


def snapshot(array: Array) -> Array:
    """A copy that keeps the order of the axes in memory (the same sums in the same order)."""
    return np.array(array, order="K", copy=True, subok=False)


def same_content(a: Array, b: Array) -> bool:
    """Whether two arrays are equal bit by bit (NaN equals NaN, 0.0 is not -0.0)."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if a.dtype.hasobject:
        return bool(np.array_equal(a, b))
    if a.nbytes <= 1024:
        return a.tobytes() == b.tobytes()
    if not (a.flags.c_contiguous and b.flags.c_contiguous):
        if not (a.flags.f_contiguous and b.flags.f_contiguous):
            a, b = np.ascontiguousarray(a), np.ascontiguousarray(b)
        else:
            a, b = a.T, b.T
    word = np.int64 if a.nbytes % 8 == 0 else np.uint8
    return bool(np.array_equal(a.reshape(-1).view(np.uint8).view(word), b.reshape(-1).view(np.uint8).view(word)))


class Entry:
    """One array object seen during a recording, with everything that was taken from it."""

    __slots__ = ("array", "captures", "changed", "nonzero", "sites", "structure")

    def __init__(self, array: Array) -> None:
        self.array = array
        self.captures: list[tuple[Array, Node]] = []
        self.changed = False
        self.structure: Array | None = None
        self.nonzero: Array | None = None
        self.sites: set[tuple[CodeType, int]] = set()


class Captures:
    """The arrays captured by one recording. Holds every one of them until ``settle``, so that identities are unique."""

    def __init__(self) -> None:
        self._entries: dict[int, Entry] = {}
        self._layouts: dict[tuple[Any, ...], Entry] = {}

    def _entry(self, array: Array) -> Entry:
        entry = self._entries.get(id(array))
        if entry is None:
            # The same memory may come as a new object at each use (``W.T``): found by address, shape and strides.
            layout = (array.__array_interface__["data"][0], array.shape, array.strides, array.dtype)
            entry = self._layouts.get(layout) if array.size else None
            if entry is None:
                entry = self._layouts[layout] = self._entries[id(array)] = Entry(array)
        return entry

    def node(self, array: Array, structural: bool = False) -> Node:
        """The constant node for the present content of ``array``; ``structural``: its zeros count."""
        entry = self._entry(array)
        frame = user_frame()
        if frame is not None:
            entry.sites.add((frame.f_code, frame.f_lasti))
        for taken, node in entry.captures:
            if same_content(taken, array):
                return node
        entry.changed = entry.changed or bool(entry.captures)
        taken = snapshot(array)
        structural = structural or has_structure(array)
        if structural and not entry.captures:
            entry.nonzero = taken != 0
        node = constant(Captured(taken, structural), array.shape, array.dtype)
        entry.captures.append((taken, node))
        return node

    def table(self, array: Array) -> None:
        """Note that the present content of ``array`` became part of the structure."""
        entry = self._entry(array)
        if entry.structure is None:
            entry.structure = snapshot(array)
        elif not same_content(entry.structure, array):
            entry.changed = True

    def settle(self) -> tuple[list[tuple[Array, set[tuple[CodeType, int]]]], list[Array], list[tuple[Array, Array]]]:
        """Decide for every array between reference and snapshot.

        Returns:
            The live arrays that are followed by reference, each with the places of the user's code that used it
            (code object and offset of the instruction), the live arrays whose content has to be watched, and those of
            which it is enough to watch where they are zero, each with where it is not.
        """
        entries = list(self._layouts.values())
        self._layouts.clear()
        self._entries.clear()
        counts = _references(entries)
        bases: dict[int, int] = {}
        for entry in entries:
            bases[id(entry.array.base)] = bases.get(id(entry.array.base), 0) + 1
        followed: list[tuple[Array, set[tuple[CodeType, int]]]] = []
        watched: list[Array] = []
        zeros: list[tuple[Array, Array]] = []
        for entry, (own, base) in zip(entries, counts, strict=True):
            array = entry.array
            if own <= 0 and base - bases[id(array.base)] <= 0:
                continue
            if entry.captures and not entry.changed and same_content(entry.captures[0][0], array):
                for _, node in entry.captures:
                    node.params.owner.refer_to(array)
                followed.append((array, entry.sites))
                if entry.nonzero is not None:
                    zeros.append((array, entry.nonzero))
            elif entry.captures:
                watched.append(array)
            if entry.structure is not None:
                watched.append(array)
        return followed, watched, zeros


def _raw_references(entries: list[Entry]) -> list[tuple[int, int]]:
    result = []
    for entry in entries:
        base = entry.array.base
        result.append((sys.getrefcount(entry.array), 0 if base is None else sys.getrefcount(base)))
        del base
    return result


# How many references the counting itself makes differs between Python versions, so it is measured: the first probe is
# held by its entry alone, the base of the second by one view alone.
_OWN = _raw_references([Entry(np.empty(1))])[0][0]
_BASE = _raw_references([Entry(np.empty(2)[:1])])[0][1] - 1


def _references(entries: list[Entry]) -> list[tuple[int, int]]:
    """For each array, the references to it and to its base by anybody but the entries (and but our own views)."""
    result = []
    for (own, base), entry in zip(_raw_references(entries), entries, strict=True):
        known = entry.array.base is None or isinstance(entry.array.base, np.ndarray)
        result.append((own - _OWN, (base - _BASE if base else 0) if known else sys.maxsize))
    return result
