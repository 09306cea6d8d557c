"""The plain Python state that a function can reach: found from its code, its closure and the objects they name.

Closure cells, globals named in the code, default arguments, attributes of ``self`` and of other objects reached by
name, items of containers, and the same for every function, method and descriptor of the user's modules that can be
called on the way. Of the standard library, NumPy and SciPy, it is the objects that hold data: deques, buffers,
context variables, the environment, sparse matrices, splines, polynomials. Not seen: the state of other libraries behind
their methods, files, clocks.
"""

from __future__ import annotations

import collections
import dis
import functools
import importlib.util
import io
import itertools
import operator
import random
import site
import sys
import sysconfig
import types
import weakref
from array import array as numbers_array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, MutableSequence, Set
from contextvars import ContextVar
from types import CodeType
from typing import Any

import numpy as np

from ..graph.node import Array
from .bytecode import only_used_at, only_written
from .capture import Captures
from .location import is_user_code
from .watch import MISSING, NUMBERS, Watches, cell_value

_LIBRARIES = tuple({sysconfig.get_paths()["purelib"], sysconfig.get_paths()["platlib"], *site.getsitepackages()})
_MAX_ITEMS = 1_000_000  # of one container
_MAX_DEPTH = 20
_MAX_OBJECTS = 200_000
_SMALL = 1000  # elements of arrays that are compared before and after a recording
_HOLD_DATA = frozenset({"numpy", "scipy", "queue", "collections"})  # of these objects every attribute counts
# Methods that Python calls when an object is made, shown, copied or thrown away: not while a function computes.
_ASIDE = frozenset(
    (
        "__new__", "__init__", "__post_init__", "__init_subclass__", "__class_getitem__", "__del__", "__repr__",
        "__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__getnewargs__", "__dir__", "__sizeof__",
        "__copy__", "__deepcopy__", "__set_name__",
    )
)  # fmt: skip
# What a product with a sparse matrix reads is watched where it is recorded (``sparse``).
_OF_SPARSE = frozenset(
    ("T", "dot", "transpose", "shape", "ndim", "size", "nnz", "dtype", "format", "data", "indices", "indptr", "row",
     "col", "offsets")
)  # fmt: skip


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


def state_before(function: Callable[..., Any]) -> Watches:
    """What ``function`` can reach before it is run, so that it can be told afterwards whether it changed any of it."""
    watches = Watches()
    collector = _Collector(watches)
    collector.reach(function)
    for array, _ in collector.arrays.values():
        if array.size <= _SMALL:
            watches.content(array)
    sources: list[Any] = list(collector.random.values())
    if "random" in collector.names or "numpy.random" in collector.modules:
        sources.append(np.random.mtrand._rand)
    if "random" in collector.modules:
        sources.append(random)
    for source in sources:
        watches.state(functools.partial(_random_state, source))
    return watches


def _is_random(value: Any) -> bool:
    """Whether it is a source of random numbers."""
    if isinstance(value, random.Random):
        return True
    if "numpy.random" not in sys.modules:  # NumPy loads it when it is asked for
        return False
    return isinstance(value, (np.random.Generator, np.random.BitGenerator, np.random.RandomState))


def _random_state(source: Any) -> Any:
    if isinstance(source, random.Random) or source is random:
        return source.getstate()
    bits = source if isinstance(source, np.random.BitGenerator) else getattr(source, "bit_generator", source)
    state = bits.state if isinstance(bits, np.random.BitGenerator) else source.get_state(legacy=False)
    return _bytes_of(state)


def _bytes_of(state: Any) -> Any:
    if isinstance(state, dict):
        return {key: _bytes_of(value) for key, value in state.items()}
    return state.tobytes() if isinstance(state, np.ndarray) else state


class _Collector:
    """Finds the state that code can reach, until nothing new is found."""

    def __init__(self, watches: Watches) -> None:
        self.watches = watches
        self.codes: set[CodeType] = set()
        self.names: set[str] = set()
        # Arrays, with the names that reach them; None: also reached in a way that is not a name.
        self.arrays: dict[int, tuple[Array, set[str] | None]] = {}
        self.random: dict[int, Any] = {}
        self._objects: dict[int, tuple[Any, int]] = {}
        self._seen: set[Any] = set()
        self._keep: list[Any] = []  # so that an id seen stays that object's
        self.modules: set[str] = set()

    def reach(self, function: Callable[..., Any]) -> None:
        """Everything reached from ``function``."""
        self.value(function, 0, None)
        size = -1
        while size != len(self._seen):
            size = len(self._seen)
            for owner, depth in list(self._objects.values()):
                self._members(owner, depth)
        if "os" in self.modules and self.names & {"environ", "getenv"}:
            self._environment()
        if "numpy" in self.modules:
            for name in ("geterr", "get_printoptions"):
                if name in self.names:
                    self.watches.state(getattr(np, name))

    def _environment(self) -> None:
        import os

        if "environment" not in self._seen:
            self._seen.add("environment")
            self.watches.state(lambda: dict(os.environ))

    def value(self, value: Any, depth: int, name: str | None) -> None:
        """Something that the function can read; ``name`` if it reads it by a name alone."""
        if value is None or issubclass(type(value), (*NUMBERS, np.ufunc)):
            return
        if isinstance(value, types.BuiltinFunctionType):
            if _is_random(value.__self__):  # from numpy.random import normal
                self.random[id(value.__self__)] = value.__self__
            return
        if issubclass(type(value), np.ndarray):
            self._array(value, depth, name)
            return
        if id(value) in self._seen:
            return
        self._seen.add(id(value))
        self._keep.append(value)
        if len(self._keep) > _MAX_OBJECTS:
            self.watches.restless = True
            return
        match value:
            case types.FunctionType():
                self._function(value)
            case types.MethodType():
                self.value(value.__func__, depth, None)
                self.value(value.__self__, depth, None)
            case functools.partial():
                for part in (value.func, *value.args, *value.keywords.values()):
                    self.value(part, depth, None)
            case operator.attrgetter() | operator.methodcaller():
                for part in _strings(value.__reduce__()):
                    self.names.update(part.split("."))
            case property():
                self.value(value.fget, depth, None)
            case staticmethod() | classmethod():
                self.value(value.__func__, depth, None)
            case list() | tuple() | set() | frozenset() | dict() | deque():
                self._container(value, depth)
                if type(value) not in (list, tuple, set, frozenset, dict, deque):
                    self._instance(value, depth)
            case types.ModuleType():
                self.modules.add(value.__name__)
                if _is_user_module(value.__name__, getattr(value, "__file__", None)):
                    self._objects[id(value)] = (value, depth)
            case type():
                if _is_user_module(value.__module__, None):
                    self._objects[id(value)] = (value, depth)
            case bytearray() | memoryview() | numbers_array():
                self.watches.state(lambda: bytes(value))
            case io.StringIO() | io.BytesIO():
                self.watches.state(lambda: (value.getvalue(), value.tell()))
            case ContextVar():
                self.watches.state(lambda: value.get(MISSING))
                self.value(value.get(None), depth + 1, None)
            case weakref.ref():
                self.watches.state(value)
                self.value(value(), depth + 1, None)
            case _ if _is_random(value):
                self.random[id(value)] = value
            case _:
                self._instance(value, depth)

    def _array(self, value: Array, depth: int, name: str | None) -> None:
        known = self.arrays.get(id(value))
        names = set() if known is None else known[1]
        if name is None or names is None:
            self.arrays[id(value)] = (value, None)
        else:
            self.arrays[id(value)] = (value, names | {name})
        if value.dtype.hasobject and known is None and value.size <= _MAX_ITEMS and depth < _MAX_DEPTH:
            for item in value.ravel().tolist():
                self.value(item, depth + 1, None)

    def _container(self, value: Any, depth: int) -> None:
        if len(value) > _MAX_ITEMS or depth >= _MAX_DEPTH:
            self.watches.restless = True
            return
        if not isinstance(value, (tuple, frozenset)):
            self.watches.items(value)
        for item in list(value.values()) if isinstance(value, Mapping) else list(value):
            if type(item) is not float and type(item) is not int:
                self.value(item, depth + 1, None)

    def _instance(self, value: Any, depth: int) -> None:
        cls = type(value)
        if cls.__module__.startswith("jacana."):
            return
        try:
            wrapped = getattr(value, "__wrapped__", None)
        except Exception:  # a class may answer for every name in its own way
            wrapped = None
        if callable(wrapped):
            self.value(wrapped, depth, None)
        if depth >= _MAX_DEPTH:
            self.watches.restless = True
            return
        self._objects[id(value)] = (value, depth)
        users = [c for c in cls.__mro__ if _is_user_module(c.__module__, None)]
        for c in users:
            # Python calls these for operators, loops, len(), float(), attributes: they are named nowhere.
            for name, method in list(vars(c).items()):
                generated = getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>"
                if name.startswith("__") and name not in _ASIDE and isinstance(method, types.FunctionType):
                    if not generated:
                        self.value(method, depth, None)
                elif name == "__class__":
                    self.value(method, depth, None)
        if users and users[0] is cls:
            return
        if isinstance(value, collections.abc.Iterator) and not isinstance(value, io.IOBase):
            # It does not say where it stands, nor what it will give.
            self.watches.restless, self.watches.settles = True, False
        elif isinstance(value, (Mapping, MutableSequence, Set)):
            self._container(value, depth)
        elif cls.__module__ == "_ctypes" or cls.__module__.startswith("ctypes"):
            self._buffer(value)

    def _buffer(self, value: Any) -> None:
        try:
            memoryview(value).release()
        except TypeError:
            return
        self.watches.state(lambda: bytes(memoryview(value)))

    def _function(self, function: types.FunctionType) -> None:
        if not _is_user_module(function.__module__, function.__code__.co_filename):
            if function.__module__ == "os" and function.__name__ == "getenv":
                self._environment()
            return
        self._code(function.__code__)
        self.watches.attribute(function, "__code__", function.__code__)
        read = names_in(function.__code__)
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            if name not in read:
                continue
            value = cell_value(cell)
            self.watches.cell(cell, value)
            if value is not MISSING:
                self.value(value, 0, name)
        if function.__defaults__:
            self.watches.attribute(function, "__defaults__", function.__defaults__)
        if function.__kwdefaults__:
            self.watches.items(function.__kwdefaults__)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            self.value(default, 0, None)
        wrapped = getattr(function, "__wrapped__", None)
        if wrapped is not None:
            self.value(wrapped, 0, None)
        if vars(function):
            self._objects[id(function)] = (function, 0)
        space = function.__globals__
        for name in sorted(read):
            value = space.get(name, MISSING)
            if value is not MISSING and (id(space), name) not in self._seen:
                self._seen.add((id(space), name))
                if not isinstance(value, (types.ModuleType, type, np.ufunc, types.BuiltinFunctionType)):
                    self.watches.name(space, name, value)
                self.value(value, 0, name)
        for code in _nested(function.__code__):
            for module, names in _imports(code, space.get("__package__")):
                self._imported(module, names)

    def _imported(self, name: str, names: tuple[str, ...]) -> None:
        """What an import statement within a function reads."""
        module = sys.modules.get(name)
        if module is None:
            return
        self.value(module, 0, None)
        for name in names:
            value = vars(module).get(name, MISSING)
            if value is not MISSING and (id(vars(module)), name) not in self._seen:
                self._seen.add((id(vars(module)), name))
                if _is_user_module(module.__name__, getattr(module, "__file__", None)):
                    self.watches.name(vars(module), name, value)
                self.value(value, 0, None)

    def _code(self, code: CodeType) -> None:
        self.codes.update(_nested(code))
        self.names.update(names_in(code))

    def _members(self, owner: Any, depth: int) -> None:
        """Attributes of an object, a class or a module whose names occur in the code."""
        members = getattr(owner, "__dict__", {})
        every = "getattr" in self.names or "__dict__" in self.names or "vars" in self.names or self._holds_data(owner)
        for name in list(members):
            if (every or name in self.names) and (id(owner), name) not in self._seen:
                self._seen.add((id(owner), name))
                value = members.get(name)
                if not isinstance(value, types.ModuleType):
                    self.watches.name(members, name, value)
                self.value(value, depth + 1, name)
        if isinstance(owner, types.ModuleType):
            return
        above = owner.__mro__[1:] if isinstance(owner, type) else ()
        for cls in (*above, *type(owner).__mro__):
            if _is_user_module(cls.__module__, None):
                self._of_class(owner, cls, members, depth)

    def _of_class(self, owner: Any, cls: type, members: Any, depth: int) -> None:
        for name, value in list(vars(cls).items()):
            # By class: ``super()`` reads what a class further down hides.
            if name not in self.names or (id(owner), id(cls), name) in self._seen:
                continue
            self._seen.add((id(owner), id(cls), name))
            if isinstance(value, types.MemberDescriptorType):
                found = getattr(owner, name, MISSING)
                self.watches.attribute(owner, name, found)
                self.value(found, depth + 1, name)
                continue
            self.watches.name(vars(cls), name, value)
            if name not in members and hasattr(owner, "__dict__") and not isinstance(value, property):
                # The object may get an attribute of its own later, which hides that of its class.
                self.watches.name(members, name, MISSING)
            self.value(value, depth + 1, name)

    def _holds_data(self, owner: Any) -> bool:
        """Whether an object of a library is its data: all its attributes count, whatever it is asked."""
        if isinstance(owner, (type, types.ModuleType, types.FunctionType)):
            return False
        module = type(owner).__module__
        if module.startswith("scipy.sparse"):
            asked = self.names & set(dir(type(owner)))
            return any(not name.startswith("_") for name in asked - _OF_SPARSE)
        return module.partition(".")[0] in _HOLD_DATA


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _strings(item)


def _nested(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _nested(constant)


@functools.lru_cache(maxsize=4096)
def names_in(code: CodeType) -> frozenset[str]:
    """The names that a function reads, with those that it keeps in text for ``globals()`` or ``eval``."""
    codes = list(_nested(code))
    names = {name for part in codes for name in {*part.co_names, *part.co_freevars} - only_written(part)}
    if names & {"globals", "eval", "exec"}:
        for text in itertools.chain.from_iterable(_strings(part.co_consts) for part in codes):
            try:
                found = compile(text, "<text>", "exec")
            except (SyntaxError, ValueError):
                continue
            names.update(name for part in _nested(found) for name in part.co_names)
            names.update(_strings(found.co_consts))
    return frozenset(names)


@functools.lru_cache(maxsize=4096)
def _imports(code: CodeType, package: str | None) -> tuple[tuple[str, tuple[str, ...]], ...]:
    """The modules that import statements in a code object name, each with what is taken from it."""
    found: list[tuple[str, tuple[str, ...]]] = []
    instructions = list(dis.get_instructions(code))
    for k, instruction in enumerate(instructions):
        if instruction.opname != "IMPORT_NAME" or k < 2:
            continue
        level, taken = (before.argval for before in instructions[k - 2 : k])
        name = str(instruction.argval)
        if isinstance(level, int) and level > 0:
            try:
                name = importlib.util.resolve_name("." * level + name, package or "")
            except ImportError:
                continue
        names = taken if isinstance(taken, tuple) else ()
        found.append((name, names))
        found += [(f"{name}.{part}", ()) for part in names]  # a module of a package
    return tuple(found)


@functools.cache
def _is_user_module(name: str | None, file: str | None) -> bool:
    """Whether code belongs to the user: not the standard library, not NumPy, not an installed package."""
    if not is_user_code(name, file or ""):
        return False
    if file is None:
        file = getattr(sys.modules.get(name or ""), "__file__", None)
    return file is None or not file.startswith(_LIBRARIES)
