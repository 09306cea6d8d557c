"""Arrays made from numbers and Variables: ``np.array`` of a nest, copies, conversions, ``zeros_like`` and its kin."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..graph.build import cast_to
from ..graph.index import axis
from . import buffer
from .complex import as_part, joined, part_of, real_dtype
from .indexing import offset
from .lift import operand
from .location import recording_error
from .table import ComplexBase, implements, is_complex
from .variable import Variable, contains_variable, raw, raw_deep, tracked, wrap_constant, wrap_node

_numpy: Any = np  # arguments are passed on unseen, so no overload can be chosen


def _leaves(nest: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    if isinstance(nest, (list, tuple)):
        for k, item in enumerate(nest):
            yield from _leaves(item, (*path, k))
    else:
        yield path, nest


@implements(np.array)
def array(
    nest: Any, dtype: Any = None, *, copy: bool | None = True, order: str = "K", subok: bool = False, ndmin: int = 0
) -> Any:
    """``np.array`` of a Variable (a copy) or of a nest of lists with Variables in it (one assembled array)."""
    if dtype is not None and np.dtype(dtype).kind not in "fiubc":
        raise recording_error(f"An array of dtype {np.dtype(dtype)} cannot hold Variables.")
    if type(nest) is Variable:
        result = astype(nest, nest.dtype if dtype is None else dtype, copy=bool(copy))
        if order in ("C", "F"):
            result = _laid_out(result, None, lambda value: _numpy.asarray(value, order=order))
    elif is_complex(nest) or (dtype is not None and np.dtype(dtype).kind == "c"):
        result = array_of_complex(nest, dtype)
    else:
        value = _numpy.array(raw_deep(nest), dtype=dtype, order=order)
        if value.dtype.kind not in "fiub":
            raise recording_error(f"An array of dtype {value.dtype} cannot hold Variables.")
        parts = [(path, leaf, tracked(leaf)) for path, leaf in _leaves(nest) if type(leaf) is Variable]
        if all(node is None for _, _, node in parts):
            return wrap_constant(value)
        writes = buffer.Writes(value.shape)
        for path, leaf, node in parts:
            if node is not None:
                rows = (*(offset(k) for k in path), *(axis(k) for k in range(leaf.ndim)))
                writes.add(cast_to(node, value.dtype), rows)
        result = wrap_constant(value)
        result._writes = writes
    if ndmin > result.ndim:
        result = np.reshape(result, (1,) * (ndmin - result.ndim) + result.shape)
    return result


@implements(np.asarray_chkfinite)
def asarray_chkfinite(nest: Any, dtype: Any = None, order: Any = None) -> Any:
    """``asarray`` of finite numbers; that they are is guarded."""
    result = asarray(nest, dtype)
    if not bool(np.all(np.isfinite(result))):
        raise ValueError("array must not contain infs or NaNs")
    return result


@implements(np.require)
def require(nest: Any, dtype: Any = None, requirements: Any = None, **options: Any) -> Any:
    """``asarray``; a copy where the memory does not meet the requirements."""
    return _laid_out(nest, dtype, lambda value: _numpy.require(value, None, requirements))


@implements(np.asarray, np.asanyarray)
def asarray(nest: Any, dtype: Any = None, order: Any = None, *, copy: bool | None = None, **options: Any) -> Any:
    """A Variable stays what it is, unless its memory is to be in another order; a nest becomes one array."""
    if copy:
        return array(nest, dtype, order=order or "K")
    return _laid_out(nest, dtype, None if order in (None, "K", "A") else lambda v: _numpy.asarray(v, order=order))


@implements(np.ascontiguousarray)
def ascontiguousarray(nest: Any, dtype: Any = None, **options: Any) -> Any:
    """``asarray`` with one axis at least; a copy where the memory is in another order."""
    return _laid_out(nest, dtype, _numpy.ascontiguousarray)


@implements(np.asfortranarray)
def asfortranarray(nest: Any, dtype: Any = None, **options: Any) -> Any:
    """``asarray`` with one axis at least; a copy where the memory is in another order."""
    return _laid_out(nest, dtype, _numpy.asfortranarray)


def _laid_out(nest: Any, dtype: Any, function: Any) -> Any:
    """The order of memory makes no difference to a Variable, but whether it is the same memory does."""
    as_it_is = type(nest) is Variable or isinstance(nest, ComplexBase)
    result: Any = nest if as_it_is and (dtype is None or nest.dtype == dtype) else array(nest, dtype)
    if function is None or not (type(result) is Variable or isinstance(result, ComplexBase)):
        return result
    memory = raw(as_part(part_of(result, 0)))
    if not np.shape(memory):
        return _numpy.reshape(result, np.shape(function(memory)))
    found = function(memory)
    if np.may_share_memory(found, memory):
        return result
    return _numpy.copy(result, "F" if found.flags.f_contiguous and not found.flags.c_contiguous else "C")


def complex_astype(x: Any, dtype: Any) -> Any:
    """To complex numbers (real ones have an imaginary part of zeros), or between their precisions."""
    if dtype.kind != "c":
        raise recording_error("A complex array has no conversion to real numbers; take z.real, z.imag or np.abs(z).")
    half = real_dtype(dtype)
    return joined(astype(as_part(part_of(x, 0)), half), astype(as_part(part_of(x, 1)), half))


def array_of_complex(nest: Any, dtype: Any) -> Any:
    """``np.array`` of complex numbers: of each part in turn."""
    if not isinstance(nest, (list, tuple)):
        return complex_astype(nest, np.dtype(dtype or nest.dtype))
    if dtype is None:
        dtype = np.asarray(raw_deep(nest)).dtype
    half = real_dtype(np.dtype(dtype))
    return joined(*(array(part_of(nest, k), half) for k in (0, 1)))


@implements(np.copy)
def copy_(x: Any, order: str = "K", subok: bool = False) -> Any:
    """An array of its own."""
    node = tracked(x)
    value = _numpy.array(raw(x), order=order)
    return wrap_constant(value) if node is None else wrap_node(node, value)


def astype_method(x: Any, dtype: Any, *args: Any, **options: Any) -> Any:
    """The method, whose options may be given by place, and the dtype by name."""
    names = ("order", "casting", "subok", "copy")
    return astype(x, dtype, **dict(zip(names, args, strict=False)), **options)


@implements(np.astype)
def astype(x: Any, dtype: Any, /, *, copy: bool = True, **options: Any) -> Any:
    """Conversion; to integers and booleans it ends the derivative."""
    dtype = np.dtype(dtype)
    if dtype.kind == "c" or is_complex(x):
        return complex_astype(x, dtype)
    if dtype == x.dtype and not copy:
        return x
    node = tracked(x)
    value = raw(x).astype(dtype, **{k: v for k, v in options.items() if k in ("order", "casting")})
    return wrap_constant(value) if node is None else wrap_node(cast_to(node, dtype), value)


def buffer_like(fill: Any) -> Any:
    """How to record ``zeros_like``, ``ones_like`` and ``empty_like``."""

    def handler(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
        value = _numpy.full_like(raw(x), fill, dtype=dtype, order=order, shape=shape)
        return wrap_constant(value)

    return handler


for _function, _fill in ((np.zeros_like, 0), (np.ones_like, 1)):
    implements(_function)(buffer_like(_fill))


@implements(np.empty_like)
def empty_like(x: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, **_: Any) -> Any:
    """Filled with NaN where there is one, so that an element that is never written shows."""
    value = _numpy.zeros_like(raw(x), dtype=dtype, order=order, shape=shape)
    if value.dtype.kind == "f":
        value.fill(np.nan)
    return wrap_constant(value)


@implements(np.full_like)
def full_like(
    x: Any, fill_value: Any, dtype: Any = None, order: str = "K", subok: bool = True, shape: Any = None, **_: Any
) -> Any:
    """An array of one number, which may be a Variable."""
    value = _numpy.full_like(raw(x), raw_deep(fill_value), dtype=dtype, order=order, shape=shape)
    return _filled(value, fill_value)


@implements(np.full)
def full(shape: Any, fill_value: Any, dtype: Any = None, order: str = "C", **_: Any) -> Any:
    """An array of one number, which may be a Variable."""
    return _filled(_numpy.full(shape, raw_deep(fill_value), dtype, order), fill_value)


def _filled(value: Any, fill_value: Any) -> Any:
    if contains_variable(fill_value) and not isinstance(fill_value, Variable):
        fill_value = array(fill_value)
    if tracked(fill_value) is None:
        return wrap_constant(value)
    return wrap_node(operand(fill_value, value.shape, value.dtype), value)


@implements(np.copyto)
def copyto(target: Any, source: Any, casting: str = "same_kind", where: Any = True) -> None:
    """``target[...] = source``."""
    if not isinstance(target, Variable):
        raise recording_error(
            "A Variable cannot be copied into a plain ndarray. Make the array inside the recorded function."
        )
    if where is True:
        target[...] = source
    else:
        target[...] = np.where(where, source, target)
