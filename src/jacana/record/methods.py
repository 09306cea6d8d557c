"""The methods of ndarray as entries of one table: most are the NumPy function of the same name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..graph.index import unraveled
from . import buffer
from .creation import astype_method
from .indexing import plain_key
from .lift import plain_operand
from .location import recording_error, unsupported
from .movement import flatten
from .table import FUNCTIONS, UFUNCS
from .variable import METHODS, REMEDIES, Variable, raw_deep

_SAME = (
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot max mean min prod ravel repeat reshape round "
    "squeeze std sum swapaxes take trace transpose var nonzero searchsorted choose "
    "cumprod argpartition put"
)
_NUMBERS_ONLY = "It turns numbers into bytes, which have no derivative; for the numbers alone write y.data."
_MEMORY = "A Variable is a value, not a piece of memory; for the numbers alone write y.data."


def _conj(x: Any) -> Any:
    return x


def fill(x: Variable, value: Any) -> None:
    """The same number everywhere."""
    x[...] = value


def sort(x: Variable, axis: int = -1, **options: Any) -> None:
    """Sort in place."""
    x[...] = FUNCTIONS[np.sort](x, axis, **options)


def partition(x: Variable, kth: Any, axis: int = -1, **options: Any) -> None:
    """Partition in place."""
    x[...] = FUNCTIONS[np.partition](x, kth, axis, **options)


def compress(x: Variable, condition: Any, axis: Any = None, out: Any = None) -> Any:
    """The slices where a condition holds."""
    return FUNCTIONS[np.compress](condition, x, axis, out)


def is_integer(x: Variable) -> bool:
    """Whether a number is whole, which is guarded."""
    if x.ndim:
        raise AttributeError("'numpy.ndarray' object has no attribute 'is_integer'")
    return bool(np.isfinite(x) & (x == np.floor(x)))


def view(x: Variable, dtype: Any = None, type: Any = None) -> Any:
    """The same elements."""
    if type not in (None, np.ndarray) or (dtype not in (None, np.ndarray) and np.dtype(dtype) != x.dtype):
        raise unsupported("ndarray.view as another dtype or class", "For a conversion write y.astype(dtype).")
    return x[...]


def to_device(x: Variable, device: str, /, *, stream: Any = None) -> Any:
    """There is one device, the processor."""
    if device != "cpu":
        raise ValueError(f"Unsupported device: {device}. Only 'cpu' is allowed.")
    return x


class FlatIterator:
    """``y.flat``: the elements one after another; reading and writing by their number."""

    def __init__(self, array: Any) -> None:
        self.base = array
        self._next = 0

    @property
    def index(self) -> int:
        """How many elements have been given."""
        return self._next

    @property
    def coords(self) -> tuple[int, ...]:
        """The indices of the next element."""
        rest, found = self._next, []
        for n in self.base.shape[:0:-1]:
            rest, k = divmod(rest, n)
            found.append(k)
        return (rest, *found[::-1]) if self.base.shape else ()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._next >= self.base.size:
            raise StopIteration
        element = self.base[self.coords]
        self._next += 1
        return element

    def __len__(self) -> int:
        return int(self.base.size)

    def __getitem__(self, key: Any) -> Any:
        return np.copy(np.ravel(self.base))[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        places = np.ravel(np.arange(self.base.size)[plain_key(key)])
        values = np.reshape(plain_operand(value), -1)
        again = np.arange(places.size) % max(np.size(raw_deep(values)), 1)
        self.base[unraveled(places, self.base.shape)] = values[again]

    def copy(self) -> Any:
        """All elements in one vector."""
        return self.base.flatten()


def _shift(ufunc: np.ufunc, name: str) -> None:
    def forward(self: Variable, other: Any) -> Any:
        return UFUNCS[ufunc](self, other)

    def backward(self: Variable, other: Any) -> Any:
        return UFUNCS[ufunc](other, self)

    def update(self: Variable, other: Any) -> Any:
        return buffer.update(self, ufunc, other)

    for prefix, method in (("", forward), ("r", backward), ("i", update)):
        setattr(Variable, f"__{prefix}{name}__", method)


def _export(name: str, what: str) -> None:
    def method(self: Variable, *args: Any, **kwargs: Any) -> Any:
        raise recording_error(f"{what} would lose the derivative of a Variable; for the plain numbers write y.data.")

    setattr(Variable, name, method)


def _refused(what: str, remedy: str) -> Callable[..., Any]:
    def setter(self: Variable, value: Any) -> None:
        raise recording_error(f"{what} of a Variable cannot be set in place. {remedy}")

    return setter


def install() -> None:
    """Enter the methods. Called when every function has its handler."""
    for name in _SAME.split():
        handler = FUNCTIONS.get(getattr(np, name))
        if handler is not None:
            METHODS[name] = handler
    METHODS.update({"flatten": flatten, "fill": fill, "sort": sort, "partition": partition, "compress": compress})
    METHODS["copy"] = lambda x, order="C": FUNCTIONS[np.copy](x, order)  # np.copy keeps the order of the axes
    METHODS["astype"] = astype_method
    METHODS.update({"view": view, "to_device": to_device})
    METHODS["conj"] = METHODS["conjugate"] = _conj
    METHODS["__array_namespace__"] = lambda x, api_version=None: np
    REMEDIES.update(dict.fromkeys(("tobytes", "tofile", "dump", "dumps", "byteswap", "getfield"), _NUMBERS_ONLY))
    REMEDIES.update(dict.fromkeys(("setflags", "setfield", "ctypes"), _MEMORY))
    METHODS["is_integer"] = is_integer
    REMEDIES.update(
        dict.fromkeys(("as_integer_ratio", "hex"), "Use the functions of NumPy, np.mean for statistics.mean.")
    )
    REMEDIES["resize"] = "Write y = np.resize(y, shape), or y.reshape(shape) where the size stays."
    _shift(np.left_shift, "lshift")
    _shift(np.right_shift, "rshift")
    _export("__dlpack__", "Export by DLPack")
    for name, remedy in (
        ("shape", "Write y = y.reshape(shape)."),
        ("dtype", "Write y = y.astype(dtype)."),
        ("real", "Write y[...] = value."),
        ("imag", "Make the array with a complex dtype."),
    ):
        setattr(Variable, name, getattr(Variable, name).setter(_refused(name, remedy)))


__all__ = ["FlatIterator", "install"]
