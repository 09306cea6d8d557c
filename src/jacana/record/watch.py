"""The plain Python state that a function reads besides its arguments, and whether it is still the same.

A recording is replayed without running Python, so it holds only while everything the function would read says the
same: closure cells, globals named in its code, default arguments, attributes of ``self`` and of other objects it
reaches by name, and the same for every plain function of the user's modules that it can reach. Numbers, strings and
objects are compared by identity (numbers also by value), small containers by the identities of their items, arrays by
content, except those that the recording follows by reference and that it can be shown to use in no other way.

The state is taken when the recording has ended. A function that changes the state it reads (a counter, a cache) is
replayed with the state it left behind. Not seen: attributes reached by ``getattr`` with a computed name, state behind
compiled code, objects nested deeper than three levels.
"""

from __future__ import annotations

import functools
import site
import sys
import sysconfig
import types
from collections.abc import Callable, Iterator, Mapping
from types import CellType, CodeType
from typing import Any

import numpy as np

from ..graph.node import Array
from .bytecode import only_used_at
from .capture import Captures, same_content, snapshot
from .location import is_user_code

_MISSING = object()
_NUMBERS = (int, float, bool, complex, str, bytes, np.generic)
_LIBRARIES = tuple({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()})
_MAX_ITEMS = 10_000
_MAX_DEPTH = 3


class Watches:
    """Everything whose change makes a recording invalid."""

    def __init__(self) -> None:
        self._cells: list[tuple[CellType, Any]] = []
        self._names: list[tuple[Mapping[Any, Any], Any, Any]] = []
        self._attributes: list[tuple[Any, str, Any]] = []
        self._sequences: list[tuple[Any, list[Any]]] = []
        self._mappings: list[tuple[Mapping[Any, Any], list[Any], list[Any]]] = []
        self._arrays: list[tuple[Array, Array]] = []
        self._zeros: list[tuple[Array, Array]] = []

    def __len__(self) -> int:
        return sum(map(len, vars(self).values()))

    def unchanged(self) -> bool:
        """Whether everything still says what it said when the recording ended."""
        for cell, value in self._cells:
            if cell_value(cell) is not value and not same(cell_value(cell), value):
                return False
        for names, key, value in self._names:
            found = names.get(key, _MISSING)
            if found is not value and not same(found, value):
                return False
        if not (self._attributes or self._sequences or self._mappings or self._arrays or self._zeros):
            return True  # microseconds count here
        for owner, name, value in self._attributes:
            found = getattr(owner, name, _MISSING)
            if found is not value and not same(found, value):
                return False
        for sequence, items in self._sequences:
            if len(sequence) != len(items) or not _all_same(sequence, items):
                return False
        for mapping, keys, items in self._mappings:
            if len(mapping) != len(keys) or not _all_same(mapping, keys) or not _all_same(mapping.values(), items):
                return False
        # Loops, not all(...): a generator costs more than everything above when there is nothing to compare.
        for array, content in self._arrays:
            if not same_content(array, content):
                return False
        for array, nonzero in self._zeros:  # noqa: SIM110
            if not np.array_equal(array != 0, nonzero):
                return False
        return True

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
            entries.extend(vars(other)[name])

    def cell(self, cell: CellType, value: Any) -> None:
        """Watch a variable of an enclosing function."""
        self._cells.append((cell, value))

    def name(self, names: Mapping[Any, Any], key: Any, value: Any) -> None:
        """Watch an entry of a namespace."""
        self._names.append((names, key, value))

    def attribute(self, owner: Any, name: str, value: Any) -> None:
        """Watch an attribute that lies in a slot."""
        self._attributes.append((owner, name, value))

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
    return type(a) is type(b) and isinstance(a, _NUMBERS) and repr(a) == repr(b)


def _all_same(found: Any, expected: list[Any]) -> bool:
    return all(a is b or same(a, b) for a, b in zip(found, expected, strict=True))


def cell_value(cell: CellType) -> Any:
    """What a closure cell holds, if anything."""
    try:
        return cell.cell_contents
    except ValueError:
        return _MISSING


def watch_function(watches: Watches, function: Callable[..., Any], captures: Captures) -> None:
    """Enter everything that ``function`` can reach. ``captures`` are those of the recording that just ended."""
    followed, watched, zeros = captures.settle()
    collector = _Collector(watches)
    collector.reach(function)
    sites = {id(array): where for array, where in followed}
    for array, names in collector.arrays.values():
        # An array that a function also uses in plain NumPy (norm(A) beside A @ x) has left numbers in the recording
        # that following it by reference would not renew.
        where = sites.get(id(array))
        if where is None or names is None or not only_used_at(collector.codes, names, where):
            watches.content(array)
    for array in watched:
        watches.content(array)
    for array, nonzero in zeros:
        watches.zeros(array, nonzero)


class _Collector:
    """Finds the state that code can reach, until nothing new is found."""

    def __init__(self, watches: Watches) -> None:
        self.watches = watches
        self.codes: set[CodeType] = set()
        self.names: set[str] = set()
        # Arrays, with the names that reach them; None: also reached in a way that is not a name.
        self.arrays: dict[int, tuple[Array, set[str] | None]] = {}
        self._objects: dict[int, tuple[Any, int]] = {}
        self._seen: set[Any] = set()
        self._keep: list[Any] = []  # so that an id seen stays that object's

    def reach(self, function: Callable[..., Any]) -> None:
        """Everything reached from ``function``."""
        self.value(function, 0, None)
        size = -1
        while size != len(self._seen):
            size = len(self._seen)
            for owner, depth in list(self._objects.values()):
                self._members(owner, depth)

    def value(self, value: Any, depth: int, name: str | None) -> None:
        """Something that the function can read; ``name`` if it reads it by a name alone."""
        if isinstance(value, np.ndarray):
            known = self.arrays.get(id(value))
            names = set() if known is None else known[1]
            if name is None or names is None:
                self.arrays[id(value)] = (value, None)
            else:
                self.arrays[id(value)] = (value, names | {name})
            return
        if value is None or isinstance(value, (*_NUMBERS, np.ufunc, types.BuiltinFunctionType)):
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._keep.append(value)
        match value:
            case types.FunctionType():
                self._function(value)
            case types.MethodType():
                self.value(value.__func__, depth, None)
                self.value(value.__self__, depth, None)
            case functools.partial():
                for part in (value.func, *value.args, *value.keywords.values()):
                    self.value(part, depth, None)
            case property():
                self.value(value.fget, depth, None)
            case staticmethod() | classmethod():
                self.value(value.__func__, depth, None)
            case list() | tuple() | set() | frozenset() | dict():
                if len(value) <= _MAX_ITEMS:
                    if not isinstance(value, (tuple, frozenset)):
                        self.watches.items(value)
                    if depth < _MAX_DEPTH:
                        for item in list(value.values()) if isinstance(value, dict) else list(value):
                            self.value(item, depth + 1, None)
            case types.ModuleType():
                if _is_user_module(value.__name__, getattr(value, "__file__", None)):
                    self._objects[id(value)] = (value, depth)
            case type():
                if _is_user_module(value.__module__, None):
                    self._objects[id(value)] = (value, depth)
            case _:
                self._instance(value, depth)

    def _instance(self, value: Any, depth: int) -> None:
        try:
            wrapped = getattr(value, "__wrapped__", None)
        except Exception:  # a class may answer for every name in its own way
            wrapped = None
        if callable(wrapped):
            self.value(wrapped, depth, None)
        if depth < _MAX_DEPTH and not type(value).__module__.startswith("jacana."):
            self._objects[id(value)] = (value, depth)
            for cls in type(value).__mro__:
                self.value(vars(cls).get("__call__"), depth, None)

    def _function(self, function: types.FunctionType) -> None:
        if not _is_user_module(function.__module__, function.__code__.co_filename):
            return
        self._code(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            value = cell_value(cell)
            self.watches.cell(cell, value)
            if value is not _MISSING:
                self.value(value, 0, name)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.value(default, 0, None)
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.value(wrapped, 0, None)
        if vars(function):
            self._objects[id(function)] = (function, 0)
        names = {name for code in _nested(function.__code__) for name in code.co_names}
        for name in sorted(names):
            value = function.__globals__.get(name, _MISSING)
            if value is not _MISSING and (id(function.__globals__), name) not in self._seen:
                self._seen.add((id(function.__globals__), name))
                if not isinstance(value, (types.ModuleType, type, np.ufunc, types.BuiltinFunctionType)):
                    self.watches.name(function.__globals__, name, value)
                self.value(value, 0, name)

    def _code(self, code: CodeType) -> None:
        for part in _nested(code):
            self.codes.add(part)
            self.names.update(part.co_names)

    def _members(self, owner: Any, depth: int) -> None:
        """Attributes of an object, a class or a module whose names occur in the code."""
        members = getattr(owner, "__dict__", {})
        every = "getattr" in self.names or "__dict__" in self.names or "vars" in self.names
        for name in list(members):
            if (every or name in self.names) and (id(owner), name) not in self._seen:
                self._seen.add((id(owner), name))
                value = members.get(name)
                if not isinstance(value, (types.FunctionType, types.ModuleType, type, property)):
                    self.watches.name(members, name, value)
                self.value(value, depth + 1, name)
        if isinstance(owner, (type, types.ModuleType)):
            return
        for cls in type(owner).__mro__:
            if not _is_user_module(cls.__module__, None):
                continue
            for name, value in list(vars(cls).items()):
                if (id(owner), name) in self._seen or name not in self.names:
                    continue
                self._seen.add((id(owner), name))
                if isinstance(value, (types.MemberDescriptorType,)):
                    found = getattr(owner, name, _MISSING)
                    self.watches.attribute(owner, name, found)
                    self.value(found, depth + 1, name)
                else:
                    if not callable(value) and not isinstance(value, (property, staticmethod, classmethod)):
                        self.watches.name(vars(cls), name, value)
                        if name not in members and hasattr(owner, "__dict__"):
                            # The object may get an attribute of its own later, which hides that of its class.
                            self.watches.name(members, name, _MISSING)
                    self.value(value, depth + 1, name)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


@functools.cache
def _is_user_module(name: str | None, file: str | None) -> bool:
    """Whether code belongs to the user: not the standard library, not NumPy, not an installed package."""
    if not is_user_code(name, file or ""):
        return False
    if file is None:
        file = getattr(sys.modules.get(name or ""), "__file__", None)
    return file is None or not file.startswith(_LIBRARIES)
