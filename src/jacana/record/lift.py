"""Operands of any kind as nodes of the shape and dtype that an operation needs, and results as Variables."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.array_utils import normalize_axis_index

from ..graph.build import broadcast_to, cast_to, full
from ..graph.node import Array, DType, Node, Shape
from .constants import check_class, check_dtype, constant_node
from .location import unsupported
from .table import ComplexBase, is_complex
from .variable import FALLBACK, Variable, contains_variable, raw_deep, tracked, wrap_constant, wrap_node

_NUMBERS = (float, int, bool)
_KNOWN = frozenset({Variable, np.ndarray, *_NUMBERS, complex, type(None), slice, str})


def operand(value: Any, shape: Shape, dtype: DType) -> Node:
    """``value`` (a Variable, an array, a number) broadcast to ``shape`` as ``dtype``."""
    if type(value) is Variable:
        node = value._tracked()
        if node is None:
            node = constant_node(value._value)
    elif type(value) in _NUMBERS or isinstance(value, np.generic):
        return _number(value, shape, dtype)
    else:
        node = constant_node(value)
    if node.dtype != dtype:
        node = cast_to(node, dtype)
    return node if node.shape == shape else broadcast_to(node, shape)


_numbers: dict[tuple[Any, Shape, DType], Node] = {}


def _number(value: Any, shape: Shape, dtype: DType) -> Node:
    """A literal, remembered because programs repeat a few numbers. (0.0 equals -0.0, so zeros are made each time.)"""
    if not value:
        return full(value, shape, dtype)
    node = _numbers.get((value, shape, dtype))
    if node is None:
        if len(_numbers) > 1000:
            _numbers.clear()
        node = _numbers[(value, shape, dtype)] = full(value, shape, dtype)
    return node


def as_dtype(value: Any, dtype: DType) -> Node:
    """``value`` in its own shape, as ``dtype``."""
    return operand(value, np.shape(raw_deep(value)), dtype)


def result(value: Any, make: Callable[[], Node], *operands: Any) -> Any:
    """The outcome of an operation: ``make()`` is called only if some operand depends on an argument."""
    if any(tracked(o) is not None for o in operands):
        return wrap_node(make(), value)
    return wrap_constant(value)


def axis_in(axis: Any, rank: int) -> int:
    """The axis, not negative; NumPy's error if there is none such."""
    return normalize_axis_index(operator.index(axis), rank)


def any_tracked(values: Sequence[Any]) -> bool:
    """Whether anything in a nest of lists, tuples and dictionaries depends on an argument."""
    for value in values:
        if type(value) is Variable:
            if value._tracked() is not None:
                return True
        elif isinstance(value, ComplexBase):
            if value._tracked():  # type: ignore[attr-defined]
                return True
        elif isinstance(value, (list, tuple)):
            if any_tracked(value):
                return True
        elif isinstance(value, dict) and any_tracked(tuple(value.values())):
            return True
    return False


def acceptable(value: Any) -> bool:
    """Whether an operand is a real one that NumPy computes with: otherwise the other side may know better."""
    if type(value) is Variable or type(value) in _NUMBERS:
        return True
    if isinstance(value, np.generic):
        return value.dtype.kind != "c"
    if isinstance(value, np.ndarray):
        check_class(value)
        if value.dtype.kind == "c":
            return False
        check_dtype(value)
        return True
    if isinstance(value, (list, tuple)):
        return not is_complex(value)
    return _converts(value) and np.asarray(value).dtype.kind in "fiub"


def _converts(value: Any) -> bool:
    """Whether NumPy would take a foreign object for an array, and not leave the operation to it."""
    others = ("__array_ufunc__", "__array_priority__")
    return hasattr(type(value), "__array__") and not any(hasattr(value, name) for name in others)


def plain_operand(value: Any) -> Any:
    """What NumPy converts as an ndarray, or as one Variable if it is a list that holds some; the rest as it is."""
    if isinstance(value, (list, tuple)):
        if contains_variable(value):
            from .creation import array

            return array(value)
        return np.asarray(value)
    return np.asarray(value) if type(value) not in _KNOWN and _converts(value) else value


def with_zeros(value: Any) -> Any:
    """An array of numbers that depends on no argument, as a Variable whose zeros are structure; others as they are."""
    if not isinstance(value, (Variable, np.ndarray)) or tracked(value) is not None:
        return value
    array = np.asarray(raw_deep(value))
    if not array.ndim or array.dtype.kind not in "fiu" or array.all():
        return value
    return wrap_node(constant_node(array, structural=True), array)


def call_on_constants(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """A NumPy function without rule: fine on constants, refused on anything that depends on an argument."""
    if any_tracked(args) or any_tracked(tuple(kwargs.values())):
        if str(getattr(function, "__module__", "")).startswith("numpy.polynomial"):
            implementation: Any = getattr(function, "_implementation")  # noqa: B009 (functions with protocol have it)
            return implementation(*args, **kwargs)  # Python code of NumPy's, in terms of the rest of it
        writes = getattr(function, "__name__", "") in ("save", "savez", "savez_compressed", "savetxt")
        raise unsupported(function_name(function), "A file holds plain numbers: write y.array for y." if writes else "")
    outcome = function(*raw_deep(args), **raw_deep(kwargs))
    if isinstance(outcome, tuple):
        items = [wrap_constant(r) for r in outcome]
        return type(outcome)(*items) if hasattr(outcome, "_fields") else tuple(items)
    return wrap_constant(outcome)


def function_name(function: Any) -> str:
    """``numpy.linalg.svd``: what an error calls a function."""
    module = getattr(function, "__module__", None) or "numpy"
    return f"{module}.{getattr(function, '__name__', function)}"


def array_of(value: Any) -> Array:
    """The number of an operand as an ndarray."""
    return np.asarray(raw_deep(value))


FALLBACK.append(call_on_constants)
