"""Reductions: sums and means by ``contract``, the others by their own records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import cast_to, movement_reshape, sum_axes
from ..graph.node import REGISTRY, Node
from ..graph.ops.reduction import AxesParams, AxisParams
from .lift import axis_in
from .location import unsupported, user_line
from .table import Handler, implements
from .variable import Variable, raw, tracked, wrap_constant, wrap_node

_MISSING: Any = np._NoValue


def given(**options: Any) -> dict[str, Any]:
    """The options that were given at all: NumPy tells a missing option from None by a value of its own."""
    return {k: v for k, v in options.items() if v is not _MISSING}


def refuse(name: str, **options: Any) -> None:
    """Refuse options that have no rule."""
    for option, value in options.items():
        if value is not _MISSING and value is not None and value is not True:
            raise unsupported(f"numpy.{name}(..., {option}=...)")


def _is_mask(where: Any) -> bool:
    """Whether a ``where=`` option leaves anything out."""
    return where is not _MISSING and where is not None and where is not True


def _chosen(a: Any, where: Any, neutral: Any) -> Any:
    """The elements that a ``where=`` option chooses, and the neutral one elsewhere."""
    if not _is_mask(where):
        return a
    kind = np.asarray(raw(a)).dtype
    return np.where(where, a, np.asarray(raw(neutral), dtype=kind) if tracked(neutral) is None else neutral)


def axes_of(axis: Any, rank: int) -> tuple[int, ...]:
    """The axes that an ``axis`` argument names, sorted and not negative."""
    if axis is None or axis is _MISSING:
        return tuple(range(rank))
    items = axis if isinstance(axis, tuple) else (axis,)
    return tuple(sorted(int(a) % rank if rank else 0 for a in items)) if rank else ()


def _finish(node: Node, value: Any) -> Any:
    """Reduced axes come back with length one under ``keepdims``."""
    return wrap_node(movement_reshape(node, np.shape(value)), value)


def _store(result: Any, out: Any) -> Any:
    """``out=``: the result goes into a Variable."""
    if out is None or out is _MISSING:
        return result
    if isinstance(out, tuple):
        (out,) = out
    if not isinstance(out, Variable):
        raise unsupported("out= with a plain ndarray", "Give a Variable, or use what the function returns.")
    shape = np.shape(raw(result))
    if out.shape != shape:
        raise ValueError(f"out has shape {out.shape}, the result {shape}{user_line()}")
    out[...] = result
    return out


@implements(np.sum)
def sum_(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING,
    where: Any = _MISSING,
) -> Any:  # fmt: skip
    """A contraction without factors."""
    value = np.sum(raw(a), axis=axis, dtype=dtype, **given(keepdims=keepdims, where=raw(where)))
    a = _chosen(a, where, 0)
    node = tracked(a)
    if node is None:
        result = wrap_constant(value)
    else:
        result = _finish(sum_axes(cast_to(node, value.dtype), axes_of(axis, node.ndim)), value)
    if initial is not _MISSING and initial is not None:
        result = result + initial
    return _store(result, out)


@implements(np.mean)
def mean(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = _MISSING, *, where: Any = _MISSING
) -> Any:
    """The sum over the count."""
    if _is_mask(where):
        value = np.mean(raw(a), axis=axis, dtype=dtype, where=raw(where), **given(keepdims=keepdims))
        total = np.sum(a, axis=axis, dtype=value.dtype, keepdims=keepdims, where=where)
        mask = np.broadcast_to(where, np.shape(raw(a)))
        result = total / np.sum(mask, axis=axis, dtype=value.dtype, keepdims=keepdims)
        return _store(result, out)
    value = np.mean(raw(a), axis=axis, dtype=dtype, **given(keepdims=keepdims))
    node = tracked(a)
    if node is None:
        return _store(wrap_constant(value), out)
    axes = axes_of(axis, node.ndim)
    count = float(np.prod([node.shape[k] for k in axes]))
    # NumPy adds half precision in single precision unless told otherwise.
    within = np.dtype("f4") if dtype is None and value.dtype == np.float16 else value.dtype
    total = sum_axes(cast_to(node, within), axes)
    return _store(_finish(cast_to(total / count, value.dtype), value), out)


def _own_record(name: str, function: Callable[..., Any]) -> Handler:
    """Reductions with a record of their own: ``prod``, ``max``, ``min``, ``any``, ``all``."""
    operation = REGISTRY[name]

    def handler(
        a: Any, axis: Any = None, dtype: Any = _MISSING, out: Any = None, keepdims: Any = _MISSING,
        initial: Any = _MISSING, where: Any = _MISSING,
    ) -> Any:  # fmt: skip
        if dtype is None:
            dtype = _MISSING
        if _is_mask(where):
            if initial is _MISSING and name not in _NEUTRAL:
                raise ValueError(
                    f"reduction operation {name!r} does not have an identity, so to use a where mask one "
                    "has to specify 'initial'"
                )
            a = _chosen(a, where, _NEUTRAL.get(name, initial))
        if initial is not _MISSING and initial is not None:
            if not np.size(raw(a)) and name not in _NEUTRAL:  # nothing is joined with what it begins with
                shape = np.shape(np.sum(raw(a), axis=axis, **given(keepdims=keepdims)))
                return _store(np.astype(np.broadcast_to(initial, shape), np.result_type(raw(a))), out)
            return _store(_JOINED[name](handler(a, axis, dtype, None, keepdims), initial), out)
        value = function(raw(a), axis=axis, **given(dtype=dtype, keepdims=keepdims))
        node = tracked(a)
        if node is None:
            return _store(wrap_constant(value), out)
        if name == "prod":
            node = cast_to(node, value.dtype)
        axes = axes_of(axis, node.ndim)
        if axes or name in _BOOLEAN:
            node = operation(node, params=AxesParams(axes))
        return _store(_finish(node, value), out)

    return handler


_BOOLEAN = ("any", "all")
_NEUTRAL: dict[str, Any] = {"prod": 1, "any": False, "all": True}
_JOINED = {"prod": np.multiply, "max": np.maximum, "min": np.minimum, "any": np.logical_or, "all": np.logical_and}
implements(np.prod)(_own_record("prod", np.prod))


def _without_dtype(handler: Handler) -> Handler:
    def call(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING,
        where: Any = _MISSING,
    ) -> Any:  # fmt: skip
        return handler(a, axis, _MISSING, out, keepdims, initial, where)

    return call


implements(np.max, np.amax)(_without_dtype(_own_record("max", np.max)))
implements(np.min, np.amin)(_without_dtype(_own_record("min", np.min)))
implements(np.any)(_without_dtype(_own_record("any", np.any)))
implements(np.all)(_without_dtype(_own_record("all", np.all)))


@implements(np.ptp)
def ptp(a: Any, axis: Any = None, out: Any = None, keepdims: Any = _MISSING) -> Any:
    """The range of the values."""
    return _store(np.max(a, axis=axis, keepdims=keepdims) - np.min(a, axis=axis, keepdims=keepdims), out)


_PLAIN_COUNT = not isinstance(np.count_nonzero(np.ones(1)), np.generic)


@implements(np.count_nonzero)
def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    """An integer; where the version of NumPy returns a Python one (it does not count in promotion), a guarded look."""
    count = np.sum(a != 0, axis=axis, keepdims=keepdims)
    return int(count) if axis is None and not keepdims and _PLAIN_COUNT else count


def variance(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = _MISSING, *,
    where: Any = _MISSING, mean: Any = _MISSING, correction: Any = _MISSING,
) -> Any:  # fmt: skip
    """The mean square distance from the mean."""
    if correction is not _MISSING:
        ddof = correction
    if _is_mask(where):
        return _store(_masked_variance(a, axis, dtype, ddof, keepdims, where, mean), out)
    options = given(keepdims=keepdims, mean=raw(mean))
    value = np.var(raw(a), axis=axis, dtype=dtype, ddof=ddof, **options)
    if tracked(a) is None and tracked(mean) is None:
        return _store(wrap_constant(value), out)
    a, axes, count = _of_dtype(a, axis, value.dtype)
    centred = a - (mean_of(a, axes) if mean is _MISSING else mean)
    total = np.sum(centred * centred, axis=axes, keepdims=keepdims is True)
    with np.errstate(all="ignore"):
        result = total / max(count - ddof, 0.0)
    return _store(wrap_node(result.node, value), out)


def _of_dtype(a: Any, axis: Any, dtype: Any) -> tuple[Any, tuple[int, ...], float]:
    """The operand of a variance in the dtype of the result, the axes, and how many elements there are along them."""
    node, numbers = tracked(a), np.asarray(raw(a)).astype(dtype)
    axes = axes_of(axis, numbers.ndim)
    count = float(np.prod([numbers.shape[k] for k in axes]))
    return (numbers if node is None else wrap_node(cast_to(node, dtype), numbers)), axes, count


def _masked_variance(a: Any, axis: Any, dtype: Any, ddof: Any, keepdims: Any, where: Any, centre: Any) -> Any:
    options = given(keepdims=keepdims, mean=raw(centre))
    value = np.var(raw(a), axis=axis, dtype=dtype, ddof=ddof, where=raw(where), **options)
    if centre is _MISSING:
        centre = np.mean(a, axis=axis, dtype=dtype, keepdims=True, where=where)
    centred = np.where(where, a - centre, 0.0)
    mask = np.broadcast_to(where, np.shape(raw(a)))
    count = np.sum(mask, axis=axis, dtype=value.dtype, keepdims=keepdims)
    return np.sum(centred * centred, axis=axis, dtype=value.dtype, keepdims=keepdims) / np.maximum(count - ddof, 0.0)


def mean_of(a: Variable, axes: tuple[int, ...]) -> Any:
    """The mean with its axes kept."""
    return mean(a, axis=axes, keepdims=True)


implements(np.var)(variance)


@implements(np.std)
def std(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = _MISSING, *,
    where: Any = _MISSING, mean: Any = _MISSING, correction: Any = _MISSING,
) -> Any:  # fmt: skip
    """The norm of the distances from the mean, over the root of their number: zero at zero, as every norm."""
    ddof = ddof if correction is _MISSING else correction
    if _is_mask(where):
        masked = variance(a, axis, dtype, None, ddof, keepdims, where=where, mean=mean)
        return _store(root_of_variance(masked), out)
    value = np.std(raw(a), axis=axis, dtype=dtype, ddof=ddof, **given(keepdims=keepdims, mean=raw(mean)))
    if tracked(a) is None and tracked(mean) is None:
        return _store(wrap_constant(value), out)
    a, axes, count = _of_dtype(a, axis, value.dtype)
    if not count:
        return _store(wrap_constant(value), out)  # NaN: there is nothing to be a norm of
    with np.errstate(all="ignore"):
        scaled = (a - (mean_of(a, axes) if mean is _MISSING else mean)) * float(
            1.0 / np.sqrt(np.maximum(count - ddof, 0.0))
        )
    found = REGISTRY["norm"](scaled.node, params=AxesParams(axes))
    return _store(wrap_node(movement_reshape(found, np.shape(value)), value), out)


def root_of_variance(value: Any) -> Any:
    """The root, with the derivative zero where the variance is: the subgradient of least length, as for a norm."""
    nothing = np.equal(value, 0)
    return np.where(nothing, 0.0, np.sqrt(np.where(nothing, 1.0, value)))


@implements(np.average)
def average(a: Any, axis: Any = None, weights: Any = None, returned: bool = False, *, keepdims: Any = False) -> Any:
    """The mean with weights."""
    keepdims = keepdims is True
    if weights is None:
        result = mean(a, axis=axis, keepdims=keepdims)
        share = np.size(raw(a)) / max(np.size(raw(result)), 1)
        return (result, np.full(np.shape(raw(result)), share, raw(result).dtype)) if returned else result
    if np.shape(raw(weights)) != np.shape(raw(a)) and axis is not None and not isinstance(axis, tuple):
        shape = [1] * np.ndim(raw(a))
        shape[axis] = -1
        weights = np.reshape(weights, tuple(shape))
    scale = np.sum(np.broadcast_to(weights, np.shape(raw(a))), axis=axis, keepdims=keepdims)
    if np.any(scale == 0):
        raise ZeroDivisionError("Weights sum to zero, can't be normalized")
    result = np.sum(np.multiply(a, weights), axis=axis, keepdims=keepdims) / scale
    return (result, np.broadcast_to(scale, np.shape(raw(result)))) if returned else result


def _arg(name: str, function: Callable[..., Any]) -> Handler:
    operation = REGISTRY[name]

    def handler(a: Any, axis: Any = None, out: Any = None, *, keepdims: Any = _MISSING) -> Any:
        value = function(raw(a), axis=axis, **given(keepdims=keepdims))
        node = tracked(a)
        if node is None:
            return value
        if axis is None:
            node, axis = movement_reshape(node, (node.size,)), 0
        return _store(_finish(operation(node, params=AxisParams(axis_in(axis, node.ndim))), value), out)

    return handler


implements(np.argmax)(_arg("argmax", np.argmax))
implements(np.argmin)(_arg("argmin", np.argmin))


def _running(name: str, function: Callable[..., Any]) -> Handler:
    def handler(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
        value = function(raw(a), axis=axis, dtype=dtype)
        node = tracked(a)
        if node is None:
            return _store(wrap_constant(value), out)
        if axis is None:
            node, axis = movement_reshape(node, (node.size,)), 0
        node = REGISTRY[name](cast_to(node, value.dtype), params=AxisParams(axis_in(axis, node.ndim)))
        return _store(wrap_node(node, value), out)

    return handler


cumsum, cumprod = _running("cumsum", np.cumsum), _running("cumprod", np.cumprod)
implements(np.cumsum)(cumsum)
implements(np.cumprod)(cumprod)


@implements(np.argsort)
def argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """The order: integers, which are guarded when they are used as an index. Equal values stand as NumPy puts them."""
    value = np.argsort(raw(a), axis=axis, kind=kind, order=order, stable=stable)
    how = "stable" if stable else str(kind or "quicksort").lower()
    name = {"q": "argsort_quick", "h": "argsort_heap"}.get(how[:1], "argsort")
    node = tracked(a)
    if node is None:
        return value
    if axis is None:
        node, axis = movement_reshape(node, (node.size,)), 0
    return wrap_node(REGISTRY[name](node, params=AxisParams(axis_in(axis, node.ndim))), value)


@implements(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, *, stable: Any = None) -> Any:
    """A gather by the order of the values, which is guarded."""
    if tracked(a) is None:
        return wrap_constant(np.sort(raw(a), axis=axis))
    if axis is None:
        a, axis = np.ravel(a), -1
    result: Any = np.take_along_axis(a, argsort(a, axis=axis, kind="stable"), axis=axis)
    return wrap_node(result.node, np.sort(raw(a), axis=axis))  # whose memory is in the order of what was sorted


@implements(np.median)
def median(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: bool = False
) -> Any:  # fmt: skip
    """The middle of the sorted values, or the mean of the two in the middle; the order is guarded."""
    value = np.median(raw(a), axis=axis, keepdims=keepdims)
    if tracked(a) is None or not np.size(raw(a)):
        return _store(wrap_constant(value), out)
    axes = axes_of(axis, np.ndim(raw(a)))
    rest = tuple(k for k in range(np.ndim(raw(a))) if k not in axes)
    flat = np.reshape(np.transpose(a, (*rest, *axes)), (*(np.shape(raw(a))[k] for k in rest), -1))
    n = np.shape(raw(flat))[-1]
    ordered = sort(flat)
    middle: Any = ordered[..., n // 2] if n % 2 else (ordered[..., n // 2 - 1] + ordered[..., n // 2]) / 2.0
    middle = np.where(np.isnan(ordered[..., -1]), np.nan, middle)  # NaN is sorted to the end, and makes the median NaN
    node = cast_to(middle.node, value.dtype)
    return _store(wrap_node(movement_reshape(node, np.shape(value)), value), out)


@implements(np.nansum)
def nansum(a: Any, axis: Any = None, **options: Any) -> Any:
    """NaN counts as zero."""
    return np.sum(np.where(np.isnan(a), 0.0, a), axis=axis, **options)


def _in_standard_words(running: Handler, neutral: float) -> Handler:
    """Running sums and products in the words of the array standard."""

    def handler(
        x: Any, /, *, axis: Any = None, dtype: Any = None, out: Any = None, include_initial: bool = False
    ) -> Any:  # fmt: skip
        if axis is None and np.ndim(raw(x)) > 1:
            raise ValueError("For arrays which have more than one dimension ``axis`` argument is required.")
        axis = 0 if axis is None else axis
        result = running(x, axis, dtype)
        if include_initial:
            shape = [1 if k == axis_in(axis, np.ndim(raw(x))) else n for k, n in enumerate(np.shape(raw(x)))]
            result = np.concatenate((np.full(shape, neutral, raw(result).dtype), result), axis=axis)
        return _store(result, out)

    return handler


def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices along one axis."""
    return tuple(np.moveaxis(x, axis, 0))


def _of_later_versions() -> None:
    """Functions that the oldest NumPy supported does not have."""
    for name, handler in (
        ("cumulative_sum", _in_standard_words(cumsum, 0.0)),
        ("cumulative_prod", _in_standard_words(cumprod, 1.0)),
        ("unstack", unstack),
    ):
        if hasattr(np, name):
            implements(getattr(np, name))(handler)


_of_later_versions()
