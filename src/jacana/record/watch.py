"""The plain Python state that a function reads besides its arguments, and whether it is still the same.

A recording is replayed without running Python, so it holds only while everything the function would read says the
same. What that is, ``reach`` finds. Numbers, strings and objects are compared by identity (numbers also by value),
containers by the identities of their items, buffers by their bytes, arrays by content, except those that the recording
follows by reference and that it can be shown to use in no other way.

The state is taken when the recording has ended. A function that changes the state it reads (a counter, an iterator, a
generator of random numbers) is *restless*: its recording is no answer to the next call, until the next recording has
been seen to give the same numbers (``replay``).
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from types import CellType
from typing import Any

import numpy as np

from ..graph.node import Array
from .capture import same_content, snapshot

MISSING = object()
NUMBERS = (int, float, bool, complex, str, bytes, np.generic)


class Watches:
    """Everything whose change makes a recording invalid.

    Attributes:
        restless: whether the function changes what it reads, so that only a call of it can tell the next answer.
        settles: whether two recordings that give the same numbers show that the change does not matter.
    """

    def __init__(self) -> None:
        self.restless = False
        self.settles = True
        self._cells: list[tuple[CellType, Any]] = []
        self._names: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self._attributes: list[tuple[Any, str, Any]] = []
        self._sequences: list[tuple[Any, list[Any]]] = []
        self._mappings: list[tuple[Mapping[Any, Any], list[Any], list[Any]]] = []
        self._states: list[tuple[Callable[[], Any], Any]] = []
        self._arrays: list[tuple[Array, Array]] = []
        self._zeros: list[tuple[Array, Array]] = []

    def __len__(self) -> int:
        return sum(len(entries) for entries in vars(self).values() if isinstance(entries, list))

    def unchanged(self) -> bool:
        """Whether everything still says what it said when the recording ended."""
        if self.restless:
            return False
        for cell, value in self._cells:
            if cell_value(cell) is not value and not same(cell_value(cell), value):
                return False
        for names, key, value in self._names:
            found = names.get(key, MISSING)
            if found is not value and not same(found, value):
                return False
        for owner, name, value in self._attributes:
            found = getattr(owner, name, MISSING)
            if found is not value and not same(found, value):
                return False
        if not (self._sequences or self._mappings or self._states or self._arrays or self._zeros):
            return True  # microseconds count here
        for sequence, items in self._sequences:
            if len(sequence) != len(items) or not _all_same(sequence, items):
                return False
        for mapping, keys, items in self._mappings:
            if len(mapping) != len(keys) or not _all_same(mapping, keys) or not _all_same(mapping.values(), items):
                return False
        # Loops, not all(...): a generator costs more than everything above when there is nothing to compare.
        for state, value in self._states:
            found = state()
            if not same(found, value) and not (type(found) in (dict, tuple) and found == value):
                return False
        for array, content in self._arrays:
            if not same_content(array, content):
                return False
        for array, nonzero in self._zeros:
            if array.shape != nonzero.shape or (array != 0).tobytes() != nonzero.tobytes():
                return False
        return True

    def without(self, arrays: Sequence[Array]) -> Watches:
        """The same, but for the content of some arrays."""
        other = Watches()
        other.include(self)
        other._arrays = [entry for entry in self._arrays if all(entry[0] is not array for array in arrays)]
        return other

    def content(self, array: Array) -> None:
        """Watch the content of an array."""
        if all(array is not known for known, _ in self._arrays):
            self._arrays.append((array, snapshot(array)))

    def zeros(self, array: Array, nonzero: Array) -> None:
        """Watch which elements of an array are zero."""
        self._zeros.append((array, nonzero))

    def include(self, other: Watches) -> None:
        """Watch what another recording watches as well: it became a part of this one."""
        for name, entries in vars(self).items():
            if isinstance(entries, list):
                entries.extend(vars(other)[name])
        self.restless = self.restless or other.restless
        self.settles = self.settles and other.settles

    def cell(self, cell: CellType, value: Any) -> None:
        """Watch a variable of an enclosing function."""
        self._cells.append((cell, value))

    def name(self, names: Mapping[Any, Any], key: Any, value: Any) -> None:
        """Watch an entry of a namespace."""
        self._names.append((names, key, value))

    def attribute(self, owner: Any, name: str, value: Any) -> None:
        """Watch an attribute that lies in no namespace."""
        self._attributes.append((owner, name, value))

    def state(self, state: Callable[[], Any]) -> None:
        """Watch what a function returns, which has to be the same object or an equal one."""
        self._states.append((state, state()))

    def items(self, container: Any) -> None:
        """Watch which items a container has."""
        if isinstance(container, Mapping):
            self._mappings.append((container, list(container), list(container.values())))
        else:
            self._sequences.append((container, list(container)))


def same(a: Any, b: Any) -> bool:
    """The same object, or the same number (0.0 is not -0.0, NaN is itself)."""
    if a is b:
        return True
    return type(a) is type(b) and isinstance(a, NUMBERS) and repr(a) == repr(b)


def _all_same(found: Any, expected: list[Any]) -> bool:
    if all(map(operator.is_, found, expected)):
        return True
    return all(a is b or same(a, b) for a, b in zip(found, expected, strict=True))


def cell_value(cell: CellType) -> Any:
    """What a closure cell holds, if anything."""
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
