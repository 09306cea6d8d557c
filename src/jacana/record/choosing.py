"""Selection, rounding, comparison of whole arrays, and the questions about arrays that need no recording."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.build import cast_to
from ..graph.node import REGISTRY, Array
from ..graph.ops.elementwise import BOOL
from .indexing import plain_key
from .lift import any_tracked, axis_in, call_on_constants, operand, plain_operand
from .location import unsupported
from .table import UFUNCS, implements
from .variable import raw, raw_deep, tracked, wrap_constant, wrap_node

_MISSING: Any = np._NoValue


@implements(np.where)
def where(condition: Any, x: Any = _MISSING, y: Any = _MISSING, /) -> Any:
    """Element by element one or the other. What is not chosen takes no part in any derivative."""
    if x is _MISSING:
        return nonzero(condition)
    condition, x, y = plain_operand(condition), plain_operand(x), plain_operand(y)
    value = np.where(raw(condition), raw(x), raw(y))
    if not any_tracked((condition, x, y)):
        return wrap_constant(value)
    shape = value.shape
    mask = operand(condition, np.shape(raw(condition)), np.asarray(raw(condition)).dtype)
    mask = operand(wrap_node(cast_to(mask, BOOL), raw(condition)), shape, BOOL)
    chosen = REGISTRY["select"](mask, operand(x, shape, value.dtype), operand(y, shape, value.dtype))
    return wrap_node(chosen, value[()])


@implements(np.select)
def select(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Any:
    """The first choice whose condition holds."""
    value = np.select([np.asarray(raw(c)) for c in condlist], [raw(c) for c in choicelist], raw(default))
    result = default
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        result = where(condition, choice, result)
    node = tracked(result)
    if node is None:
        return wrap_constant(value)
    return wrap_node(operand(result, value.shape, value.dtype), value)


@implements(np.clip)
def clip(
    a: Any, a_min: Any = _MISSING, a_max: Any = _MISSING, out: Any = None, *, min: Any = _MISSING, max: Any = _MISSING,
    **options: Any,
) -> Any:  # fmt: skip
    """The minimum of the upper bound and the maximum with the lower one."""
    lower = a_min if a_min is not _MISSING else (min if min is not _MISSING else None)
    upper = a_max if a_max is not _MISSING else (max if max is not _MISSING else None)
    result = a
    if lower is not None:
        result = UFUNCS[np.maximum](result, lower)
    if upper is not None:
        result = UFUNCS[np.minimum](result, upper)
    if result is a:
        result = np.copy(a)
    if out is not None:
        out[...] = result
        return out
    return result


@implements(np.round, np.around)
def round_(a: Any, decimals: int = 0, out: Any = None) -> Any:
    """To so many decimals; the derivative is zero."""
    value = np.round(raw(a), decimals)
    scale = 10.0**decimals
    if tracked(a) is None:
        result = wrap_constant(value)
    elif raw(a).dtype.kind in "iub":
        if decimals < 0:
            raise unsupported("numpy.round of integers to negative decimals")
        result = np.copy(a)
    else:
        result = wrap_node((np.rint(a * scale) / scale if decimals else np.rint(a)).node, value)
    if out is not None:
        out[...] = result
        return out
    return result


def fix(x: Any, out: Any = None) -> Any:
    """Towards zero."""
    result = UFUNCS[np.trunc](x)
    if out is not None:
        out[...] = result
        return out
    return result


if hasattr(np, "fix"):  # deprecated in 2.5
    implements(np.fix)(fix)


@implements(np.sinc)
def sinc(x: Any) -> Any:
    """``sin(pi x) / (pi x)``, with derivatives of every order at zero."""
    value = np.sinc(raw(x))
    node = tracked(x)
    if node is None:
        return wrap_constant(value)
    from ..graph.ops import special_several  # which imports scipy.special

    return wrap_node(special_several.sinc(cast_to(node, value.dtype)), value)


@implements(np.nan_to_num)
def nan_to_num(x: Any, copy: bool = True, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    """Finite numbers in the place of the others, which take no part in any derivative."""
    value = np.nan_to_num(raw(x), nan=nan, posinf=posinf, neginf=neginf)
    info = np.finfo(raw(x).dtype)
    high = info.max if posinf is None else posinf
    low = info.min if neginf is None else neginf
    result = np.where(np.isnan(x), nan, np.where(x == np.inf, high, np.where(x == -np.inf, low, x)))
    if not copy:
        x[...] = result
        return x
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(cast_to(node, value.dtype), value)


@implements(np.isclose)
def isclose(a: Any, b: Any, rtol: float = 1.0e-5, atol: float = 1.0e-8, equal_nan: bool = False) -> Any:
    """Booleans that depend on the values."""
    value = np.isclose(raw(a), raw(b), rtol, atol, equal_nan)
    close = (np.abs(a - b) <= atol + rtol * np.abs(b)) & np.isfinite(b) | (a == b)
    if equal_nan:
        close = close | (np.isnan(a) & np.isnan(b))
    node = tracked(close)
    return value if node is None else wrap_node(node, value)


@implements(np.allclose)
def allclose(a: Any, b: Any, rtol: float = 1.0e-5, atol: float = 1.0e-8, equal_nan: bool = False) -> bool:
    """A decision: guarded."""
    return bool(np.all(isclose(a, b, rtol, atol, equal_nan)))


@implements(np.array_equal, np.array_equiv)
def array_equal(a1: Any, a2: Any, equal_nan: bool = False) -> bool:
    """A decision: guarded."""
    if np.shape(raw(a1)) != np.shape(raw(a2)):
        return False
    same = np.equal(a1, a2)
    if equal_nan:
        same = same | (np.isnan(a1) & np.isnan(a2))
    return bool(np.all(same))


@implements(np.nonzero)
def nonzero(a: Any) -> tuple[Array, ...]:
    """Positions are structure: which elements are zero is guarded."""
    return np.nonzero(plain_key(a if raw(a).dtype == BOOL else a != 0))


@implements(np.extract)
def extract(condition: Any, arr: Any) -> Any:
    """The elements where a condition holds, which is guarded."""
    return np.ravel(arr)[nonzero(np.ravel(condition))[0]]


implements(np.flatnonzero)(lambda a: nonzero(np.ravel(a))[0])
implements(np.argwhere)(lambda a: np.transpose(nonzero(a)))


@implements(np.searchsorted)
def searchsorted(a: Any, v: Any, side: Any = "left", sorter: Any = None) -> Any:
    """Positions in a table: integers found by counting, so that using them as an index is guarded."""
    value = np.searchsorted(raw(a), raw(v), side=side, sorter=plain_key(sorter))
    if not any_tracked((a, v)):
        return value
    if sorter is not None:
        a = np.take(a, plain_key(sorter))
    a, v = plain_operand(a), plain_operand(v)
    points = np.reshape(v, (*np.shape(raw(v)), 1))
    # NaN comes after all numbers: what is not above is counted, but for NaN in the table itself.
    below = np.logical_not(np.greater_equal(a, points) if side == "left" else np.greater(a, points))
    if tracked(a) is not None or np.isnan(raw(a)).any():
        below = below & np.logical_not(np.isnan(a) & (True if side == "left" else np.logical_not(np.isnan(points))))
    return wrap_node(np.sum(below, axis=-1).node, value)


@implements(np.lexsort)
def lexsort(keys: Any, axis: int = -1) -> Any:
    """Sort by one key after another, the last one last; each order is guarded."""
    keys = list(keys)
    order: Any = None
    for key in keys:
        key = plain_operand(key)
        if order is not None:
            key = np.take_along_axis(key, order, axis)
        step = np.asarray(plain_key(np.argsort(key, axis=axis, kind="stable")))
        order = step if order is None else np.take_along_axis(order, step, axis)
    return order


@implements(np.digitize)
def digitize(x: Any, bins: Any, right: bool = False) -> Any:
    """The bin of each number: integers, guarded when they are used as an index."""
    edges = np.asarray(plain_key(bins)) if tracked(bins) is None else bins
    value = np.digitize(raw(x), raw(edges), right)
    if not any_tracked((x, edges)):
        return value
    side = "left" if right else "right"
    if np.size(raw(edges)) > 1 and bool(edges[0] > edges[-1]):
        found = np.size(raw(edges)) - searchsorted(edges[::-1], x, side)
    else:
        found = searchsorted(edges, x, side)
    return wrap_node(found.node, value)


@implements(np.choose)
def choose(a: Any, choices: Any, out: Any = None, mode: str = "raise") -> Any:
    """The element of the choice that an integer array names."""
    index = np.asarray(plain_key(a))
    if mode != "raise":
        index = np.mod(index, len(choices)) if mode == "wrap" else np.clip(index, 0, len(choices) - 1)
    value = np.choose(index, raw_deep(choices))
    result: Any = np.zeros_like(value)
    for k, choice in enumerate(choices):
        result = where(index == k, choice, result)
    return result


# --- questions whose answer is no number of the program --------------------------------------------------------------


def _about_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(*args: Any, **kwargs: Any) -> Any:
        return function(*raw_deep(args), **raw_deep(kwargs))

    return handler


for _function in (
    np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.can_cast, np.min_scalar_type,
    np.common_type, np.may_share_memory, np.shares_memory, np.diag_indices_from, np.tril_indices_from,
    np.triu_indices_from, np.einsum_path,
):  # fmt: skip
    implements(_function)(_about_shape(_function))


@implements(np.isreal)
def isreal(x: Any) -> Any:
    """Always."""
    return np.ones(np.shape(raw(x)), dtype=bool)[()]


@implements(np.iscomplex)
def iscomplex(x: Any) -> Any:
    """Never."""
    return np.zeros(np.shape(raw(x)), dtype=bool)[()]


implements(np.real, np.real_if_close)(lambda val, tol=100: val)


@implements(np.imag)
def imag(val: Any) -> Any:
    """Zero."""
    return np.zeros(np.shape(raw(val)), np.asarray(raw(val)).dtype)[()]


@implements(np.array_repr)
def array_repr(arr: Any, *args: Any, **kwargs: Any) -> str:
    """Text for people: not a look at the value that decides anything."""
    return repr(arr)


@implements(np.array_str)
def array_str(a: Any, *args: Any, **kwargs: Any) -> str:
    """Text for people."""
    return str(a)


@implements(np.array2string)
def array2string(a: Any, *args: Any, **kwargs: Any) -> str:
    """Text for people."""
    return np.array2string(np.asarray(raw(a)), *args, **kwargs)


# --- a few composed functions -----------------------------------------------------------------------------------------


@implements(np.gradient)
def gradient(f: Any, *varargs: Any, axis: Any = None, edge_order: int = 1) -> Any:
    """Central differences inside, one-sided ones at the ends; spacing by numbers or by coordinates."""
    if not any_tracked((f, varargs)):
        return call_on_constants(np.gradient, (f, *varargs), {"axis": axis, "edge_order": edge_order})
    f = plain_operand(f)
    rank = np.ndim(raw(f))
    axes = list(range(rank)) if axis is None else [axis_in(a, rank) for a in np.atleast_1d(axis)]
    spacings = list(varargs) if len(varargs) > 1 else [varargs[0] if varargs else 1.0] * len(axes)
    reference: Any = np.gradient(  # type: ignore[call-overload]
        raw(f), *(raw(plain_operand(v)) for v in varargs), axis=axis, edge_order=edge_order
    )
    values = list(reference) if isinstance(reference, (list, tuple)) else [reference]
    results = []
    for k, spacing, value in zip(axes, spacings, values, strict=True):
        spacing = plain_operand(spacing)
        lead = (slice(None),) * k
        steps = np.diff(f, axis=k)
        if np.ndim(raw(spacing)) == 0:
            ends = steps / spacing
            inner = (f[(*lead, slice(2, None))] - f[(*lead, slice(None, -2))]) / (2.0 * spacing)
        else:
            h = np.reshape(np.diff(spacing), tuple(-1 if j == k else 1 for j in range(rank)))
            before, after = h[(*lead, slice(None, -1))], h[(*lead, slice(1, None))]
            ends = steps / h
            inner = (before * ends[(*lead, slice(1, None))] + after * ends[(*lead, slice(None, -1))]) / (before + after)
        first, last = ends[(*lead, slice(None, 1))], ends[(*lead, slice(-1, None))]
        if edge_order == 2:
            # Slopes change as they do between the two steps at the end (quadratic through three points).
            ratios = [1.0, 1.0]
            if np.ndim(raw(spacing)):
                steps_at = [h[(*lead, slice(j, j + 1))] for j in (0, 1, -2)] + [h[(*lead, slice(-1, None))]]
                ratios = [
                    2.0 * steps_at[0] / (steps_at[0] + steps_at[1]),
                    2.0 * steps_at[3] / (steps_at[2] + steps_at[3]),
                ]
            second, before_last = ends[(*lead, slice(1, 2))], ends[(*lead, slice(-2, -1))]
            first = first + 0.5 * ratios[0] * (first - second)
            last = last + 0.5 * ratios[1] * (last - before_last)
        parts = [first, inner, last]
        results.append(wrap_node(operand(np.concatenate(parts, axis=k), value.shape, value.dtype), value))
    return results[0] if len(results) == 1 else tuple(results)


@implements(np.trapezoid)
def trapezoid(y: Any, x: Any = None, dx: Any = 1.0, axis: int = -1) -> Any:
    """The integral by the trapezoidal rule."""
    y = np.moveaxis(plain_operand(y), axis, -1)
    if x is not None:
        x = plain_operand(x)
        dx = np.diff(x) if np.ndim(raw(x)) == 1 else np.diff(np.moveaxis(x, axis, -1))
    return np.sum(dx * (y[..., 1:] + y[..., :-1]) / 2.0, axis=-1)


@implements(np.polyval)
def polyval(p: Any, x: Any) -> Any:
    """Horner's rule."""
    p = plain_operand(p)
    y = np.zeros_like(raw(plain_operand(x)))
    for k in range(np.shape(raw(p))[0]):
        y = y * x + p[k]
    return y


@implements(np.meshgrid)
def meshgrid(*xi: Any, copy: bool = True, sparse: bool = False, indexing: str = "xy") -> tuple[Any, ...]:
    """Coordinates of a grid."""
    rank = len(xi)
    shapes = [tuple(-1 if j == k else 1 for j in range(rank)) for k in range(rank)]
    if indexing == "xy" and rank > 1:
        shapes[0], shapes[1] = (1, -1) + (1,) * (rank - 2), (-1, 1) + (1,) * (rank - 2)
    grids = tuple(np.reshape(np.ravel(x), s) for x, s in zip(xi, shapes, strict=True))
    if not sparse:
        grids = tuple(np.broadcast_arrays(*grids))
    return tuple(np.copy(g) for g in grids) if copy else grids


@implements(np.linspace)
def linspace(
    start: Any, stop: Any, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None,
    axis: int = 0, **options: Any,
) -> Any:  # fmt: skip
    """Evenly spaced numbers between two that may be Variables."""
    if retstep:
        found = np.linspace(start, stop, num, endpoint, dtype=dtype, axis=axis, **options)
        steps = num - 1 if endpoint else num
        start, stop = plain_operand(start), plain_operand(stop)
        return found, (stop - start) / steps if steps > 0 else np.nan
    value = np.linspace(raw(start), raw(stop), num, endpoint, dtype=dtype, axis=axis)
    if not any_tracked((start, stop)):
        return wrap_constant(value)
    steps = max(num - 1 if endpoint else num, 1)
    start, stop = plain_operand(start), plain_operand(stop)
    rank = value.ndim - 1
    ramp = (np.arange(num) / steps).reshape((-1,) + (1,) * rank)
    result = np.moveaxis(start * (1.0 - ramp) + stop * ramp, 0, axis)
    return wrap_node(operand(result, value.shape, value.dtype), value)
