"""NumPy functions of complex arrays: what moves or adds elements is done to both parts; products are written out."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.build import cast_to
from ..graph.ops import complex_linalg
from ..graph.ops.complex import part
from . import choosing, reduction
from .complex import (
    ComplexVariable,
    as_part,
    depends,
    joined,
    part_of,
    plain,
    real_dtype,
    wrap_parts,
)
from .creation import array_of_complex, complex_astype
from .lift import operand, plain_operand
from .location import recording_error, unsupported
from .reduction import axes_of, refuse
from .table import COMPLEX_FUNCTIONS, COMPLEX_UFUNCS, FUNCTIONS, F, is_complex
from .variable import Variable, raw_deep, wrap_constant, wrap_node

_MISSING: Any = np._NoValue
# Options that hold numbers of the result, rather than saying what is to be done.
_DATA = frozenset(
    ("a", "x", "y", "m", "f", "arr", "ary", "array", "A", "tup", "arrays", "v", "val", "values", "prepend", "append",
     "to_begin", "to_end", "choices", "choicelist", "default", "fill_value", "constant_values", "end_values", "b",
     "src", "fp", "left", "right")
)  # fmt: skip


def of_complex(*functions: Callable[..., Any]) -> Callable[[F], F]:
    """Enter the decorated function as the way to record each of ``functions`` where something is complex."""

    def enter(handler: F) -> F:
        for function in functions:
            (COMPLEX_UFUNCS if isinstance(function, np.ufunc) else COMPLEX_FUNCTIONS)[function] = handler  # type: ignore[index]
        return handler

    return enter


def _stored(result: Any, out: Any) -> Any:
    """``out=``: the result goes into a complex Variable."""
    if isinstance(out, tuple):
        (out,) = out
    if out is None or out is _MISSING:
        return result
    if not isinstance(out, ComplexVariable):
        raise recording_error(
            "A complex result cannot be written into this out=. Give a complex array made inside the recorded "
            "function, or use what the function returns."
        )
    out[...] = result
    return out


# --- movement and sums: both parts alike ------------------------------------------------------------------------------


def _both(function: Callable[..., Any], places: Sequence[int]) -> Callable[..., Any]:
    """Apply a function that is linear in its data to the real and to the imaginary parts; ``places``: where data is."""

    @functools.wraps(function)
    def handler(*args: Any, out: Any = None, dtype: Any = None, **kwargs: Any) -> Any:
        halves = [
            function(
                *(part_of(a, k) if n in places else a for n, a in enumerate(args)),
                **{name: part_of(v, k) if name in _DATA else v for name, v in kwargs.items()},
            )
            for k in (0, 1)
        ]
        whole = joined(*halves)
        return _stored(whole if dtype is None else np.astype(whole, dtype), out)

    return handler


_INTO: tuple[Callable[..., Any], ...] = (np.insert, np.put, np.place, np.putmask, np.put_along_axis)
_BOTH: dict[tuple[int, ...], tuple[Callable[..., Any], ...]] = {
    (0,): (
        np.reshape, np.ravel, np.transpose, np.swapaxes, np.moveaxis, np.rollaxis, np.expand_dims, np.squeeze,
        np.broadcast_to, np.matrix_transpose, np.linalg.matrix_transpose, np.concatenate, np.stack, np.vstack,
        np.hstack, np.dstack, np.column_stack, np.block, np.split, np.array_split, np.vsplit, np.hsplit, np.dsplit,
        np.flip, np.fliplr, np.flipud, np.rot90, np.roll, np.tile, np.repeat, np.take, np.take_along_axis, np.delete,
        np.diag, np.diagflat, np.diagonal, np.linalg.diagonal, np.tril, np.triu, np.copy, np.trace, np.linalg.trace,
        np.nan_to_num, np.round, np.around, np.gradient, np.trapezoid, np.pad, np.lib.stride_tricks.sliding_window_view,
    ),
    (0, 1): (np.append, np.linspace, np.fill_diagonal),
    (0, 1, 2): (np.ediff1d,),
    (0, 2): _INTO,
    (1,): (np.choose, np.compress, np.extract),
    (1, 2): (np.select,),
}  # fmt: skip
for _places, _functions in _BOTH.items():
    for _function in _functions:
        COMPLEX_FUNCTIONS[_function] = _both(_function, _places)


def _into(function: Callable[..., Any]) -> Callable[..., Any]:
    """What is put into a real array: NumPy refuses complex numbers, or warns and takes their real parts."""
    both = COMPLEX_FUNCTIONS[function]

    @functools.wraps(function)
    def handler(arr: Any, where: Any, values: Any, *args: Any, **kwargs: Any) -> Any:
        if is_complex(arr):
            return both(arr, where, values, *args, **kwargs)
        function(np.array(raw_deep(arr)), raw_deep(where), raw_deep(values), *args, **kwargs)
        return function(arr, where, np.real(values), *args, **kwargs)

    return handler


for _function in _INTO:
    COMPLEX_FUNCTIONS[_function] = _into(_function)
COMPLEX_FUNCTIONS[np.diff] = _both(np.diff, (0, 3, 4))
if hasattr(np, "unstack"):
    COMPLEX_FUNCTIONS[np.unstack] = _both(np.unstack, (0,))


def _many(function: Callable[..., Any]) -> Callable[..., Any]:
    """Functions of any number of arrays, all of them data."""

    def handler(*arrays: Any, **kwargs: Any) -> Any:
        re, im = (function(*(part_of(a, k) for a in arrays), **kwargs) for k in (0, 1))
        if not isinstance(re, (list, tuple)):
            return joined(re, im)
        each = zip(arrays, re, im, strict=True)
        return type(re)([joined(x, y) if is_complex(a) else x for a, x, y in each])

    return handler


for _function in (np.atleast_1d, np.atleast_2d, np.atleast_3d, np.broadcast_arrays, np.meshgrid):
    COMPLEX_FUNCTIONS[_function] = _many(_function)


@of_complex(np.where)
def where(condition: Any, x: Any = _MISSING, y: Any = _MISSING, /) -> Any:
    """Element by element one or the other."""
    if is_complex(condition):
        condition = condition != 0
    if x is _MISSING:
        return np.nonzero(condition)
    return joined(*(np.where(condition, part_of(x, k), part_of(y, k)) for k in (0, 1)))


@of_complex(np.array, np.asarray, np.asanyarray, np.ascontiguousarray)
def array(nest: Any, dtype: Any = None, **options: Any) -> Any:
    """A copy, or one array of a nest."""
    return array_of_complex(nest, dtype)


COMPLEX_FUNCTIONS[np.astype] = lambda x, dtype, *args, **options: complex_astype(x, np.dtype(dtype))


def _of_reals(function: Callable[..., Any]) -> Callable[..., Any]:
    """``zeros_like`` and its kin: an array of numbers, complex unless another dtype is asked for."""

    def handler(x: Any, *args: Any, **kwargs: Any) -> Any:
        return wrap_constant(function(np.asarray(plain(x)), *args, **kwargs))

    return handler


for _function in (np.zeros_like, np.ones_like, np.empty_like):
    COMPLEX_FUNCTIONS[_function] = _of_reals(_function)


@of_complex(np.full_like)
def full_like(a: Any, fill_value: Any, dtype: Any = None, *args: Any, **options: Any) -> Any:
    """An array of one number."""
    dtype = np.dtype(dtype or a.dtype)
    if dtype.kind != "c":
        return FUNCTIONS[np.full_like](np.asarray(raw_deep(a)), np.real(fill_value), dtype, *args, **options)
    like = np.empty_like(np.asarray(raw_deep(a)), real_dtype(dtype))
    return joined(*(np.full_like(as_part(like), part_of(fill_value, k), *args, **options) for k in (0, 1)))


@of_complex(np.full)
def full(shape: Any, fill_value: Any, dtype: Any = None, **options: Any) -> Any:
    """An array of one number."""
    dtype = np.dtype(dtype or np.result_type(plain(fill_value)))
    return full_like(np.empty(shape, dtype), fill_value, dtype)


@of_complex(np.copyto)
def copyto(dst: Any, src: Any, casting: str = "same_kind", where: Any = True) -> None:
    """``dst[...] = src``."""
    if not isinstance(dst, ComplexVariable):
        raise recording_error("Complex numbers can only be copied into a complex array made in the recorded function.")
    dst[...] = src if where is True else np.where(where, src, dst)


def _reduction(function: Callable[..., Any]) -> None:
    """Sums of both parts, in the precision that was asked for."""

    def handler(a: Any, axis: Any = None, dtype: Any = None, out: Any = None, **options: Any) -> Any:
        if dtype is not None:
            a = np.astype(a, dtype)
        initial = options.pop("initial", _MISSING)
        result = joined(*(function(part_of(a, k), axis=axis, **options) for k in (0, 1)))
        if initial is not _MISSING and initial is not None:
            result = result + initial
        return _stored(result, out)

    COMPLEX_FUNCTIONS[function] = handler


for _function in (np.sum, np.mean, np.cumsum, np.nansum):
    _reduction(_function)


@of_complex(np.nansum)
def nansum(a: Any, axis: Any = None, **options: Any) -> Any:
    """A number with a NaN in either part counts as zero."""
    return np.sum(np.where(np.isnan(a), 0.0, a), axis=axis, **options)


@of_complex(np.prod)
def prod(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING,
    where: Any = _MISSING,
) -> Any:  # fmt: skip
    """Products of halves of the elements, again and again."""
    refuse("prod", where=where)
    if dtype is not None:
        a = np.astype(a, dtype)
    rank, shape = np.ndim(plain(a)), np.shape(plain(a))
    axes = axes_of(axis, rank)
    rest = [k for k in range(rank) if k not in axes]
    lines = np.reshape(np.transpose(a, (*rest, *axes)), (*(shape[k] for k in rest), -1))
    count = int(np.prod([shape[k] for k in axes]))
    if count == 0:
        lines, count = np.ones((*(shape[k] for k in rest), 1), a.dtype), 1
    while count > 1:
        half = count // 2
        product = lines[..., :half] * lines[..., half : 2 * half]
        lines = np.concatenate([product, lines[..., 2 * half :]], axis=-1) if count % 2 else product
        count -= half
    result = lines[..., 0]
    if initial is not _MISSING and initial is not None:
        result = result * initial
    if keepdims is True:
        result = np.reshape(result, tuple(1 if k in axes else n for k, n in enumerate(shape)))
    return _stored(result, out)


def _cumprod(a: Any, axis: Any = None, dtype: Any = None, out: Any = None) -> Any:
    """Running products: each round multiplies what is twice as far back."""
    if dtype is not None:
        a = np.astype(a, dtype)
    if axis is None:
        a, axis = np.ravel(a), 0
    lines = np.moveaxis(a, axis, 0)
    reach = 1
    while reach < len(lines):
        lines = np.concatenate([lines[:reach], lines[reach:] * lines[:-reach]])
        reach *= 2
    return _stored(np.moveaxis(lines, 0, axis), out)


COMPLEX_FUNCTIONS[np.cumprod] = _cumprod


def _variance(
    a: Any, axis: Any = None, dtype: Any = None, out: Any = None, ddof: Any = 0, keepdims: Any = False, **options: Any
) -> Any:
    """The mean square distance from the mean, a real number."""
    refuse("var", **{k: v for k, v in options.items() if k != "correction"})
    ddof = options.get("correction", ddof)
    axes = axes_of(axis, a.ndim)
    centred = a - np.mean(a, axis=axes, keepdims=True)
    squares = centred.real * centred.real + centred.imag * centred.imag
    count = float(np.prod([a.shape[k] for k in axes]))
    return np.sum(squares, axis=axes, keepdims=keepdims is True) / max(count - ddof, 0.0)


COMPLEX_FUNCTIONS[np.var] = _variance
COMPLEX_FUNCTIONS[np.std] = lambda *args, **kwargs: np.sqrt(_variance(*args, **kwargs))

# Written with other functions of NumPy, these are right for complex arrays as they are.
COMPLEX_FUNCTIONS.update(
    {
        np.average: reduction.average,
        np.count_nonzero: reduction.count_nonzero,
        np.polyval: choosing.polyval,
        np.array_equal: choosing.array_equal,
        np.array_equiv: choosing.array_equal,
        np.allclose: lambda *args, **options: bool(np.all(np.isclose(*args, **options))),
    }
)


# --- functions of real numbers that may have complex values ---------------------------------------------------------


def _widened(function: Callable[..., Any], ufunc: np.ufunc, outside: Callable[[Any], Any]) -> None:
    """``np.emath``: real numbers become complex where some are outside the domain, which is guarded."""

    def handler(x: Any) -> Any:
        x = plain_operand(x)
        if not is_complex(x) and bool(np.any(outside(x))):
            x = np.astype(x, np.result_type(plain(x), np.complex64))
        return ufunc(x)

    FUNCTIONS[function] = COMPLEX_FUNCTIONS[function] = handler


for _name in ("sqrt", "log", "log2", "log10"):
    _widened(getattr(np.emath, _name), getattr(np, _name), lambda x: x < 0)
for _name in ("arcsin", "arccos", "arctanh"):
    _widened(getattr(np.emath, _name), getattr(np, _name), lambda x: np.abs(x) > 1)
COMPLEX_FUNCTIONS[np.interp] = _both(np.interp, (2, 3, 4))


# --- parts, angles, questions -----------------------------------------------------------------------------------------


@of_complex(np.real)
def real(val: Any) -> Any:
    """The real part, which shares the memory."""
    return part_of(val, 0)


@of_complex(np.imag)
def imag(val: Any) -> Any:
    """The imaginary part, which shares the memory."""
    return part_of(val, 1)


@of_complex(np.angle)
def angle(z: Any, deg: bool = False) -> Any:
    """The argument in (-pi, pi]."""
    turned = np.arctan2(part_of(z, 1), part_of(z, 0))
    return np.rad2deg(turned) if deg else turned


FUNCTIONS[np.angle] = lambda z, deg=False: angle(z, deg)
COMPLEX_FUNCTIONS[np.iscomplex] = lambda x: part_of(x, 1) != 0
COMPLEX_FUNCTIONS[np.isreal] = lambda x: part_of(x, 1) == 0


@of_complex(np.real_if_close)
def real_if_close(a: Any, tol: float = 100) -> Any:
    """The real part where the imaginary one is small everywhere, which is guarded."""
    size = tol * np.finfo(a.dtype).eps if tol > 1 else tol
    return part_of(a, 0) if bool(np.all(np.abs(part_of(a, 1)) < size)) else a


@of_complex(np.isclose)
def isclose(a: Any, b: Any, rtol: float = 1.0e-5, atol: float = 1.0e-8, equal_nan: bool = False) -> Any:
    """Booleans that depend on the values."""
    close = (np.abs(a - b) <= atol + rtol * np.abs(b)) & np.isfinite(b) | (a == b)
    return close | (np.isnan(a) & np.isnan(b)) if equal_nan else close


def _of_nonzero(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(a: Any, *args: Any, **kwargs: Any) -> Any:
        return function(a != 0, *args, **kwargs)

    return handler


for _function in (np.any, np.all, np.nonzero, np.flatnonzero, np.argwhere):
    COMPLEX_FUNCTIONS[_function] = _of_nonzero(_function)


def _about_shape(function: Callable[..., Any]) -> Callable[..., Any]:
    def handler(*args: Any, **kwargs: Any) -> Any:
        return function(*raw_deep(args), **raw_deep(kwargs))

    return handler


for _function in (
    np.shape, np.ndim, np.size, np.result_type, np.iscomplexobj, np.isrealobj, np.can_cast, np.min_scalar_type,
    np.common_type, np.array2string,
):  # fmt: skip
    COMPLEX_FUNCTIONS[_function] = _about_shape(_function)
COMPLEX_FUNCTIONS[np.array_repr] = lambda arr, *args, **kwargs: repr(arr)
COMPLEX_FUNCTIONS[np.array_str] = lambda a, *args, **kwargs: str(a)


# --- products -------------------------------------------------------------------------------------------------------


def _conjugated(x: Any) -> Any:
    return np.conjugate(x) if is_complex(x) else x


def _valued(value: Any, computed: Any) -> Any:
    """``computed`` with the number that NumPy itself gave for the whole function."""
    if not isinstance(computed, ComplexVariable):
        return wrap_constant(value)
    half = real_dtype(value.dtype)
    nodes = [part._tracked() for part in (computed.real, computed.imag)]
    return wrap_parts(value, *(None if node is None else cast_to(node, half) for node in nodes))


def _multilinear(function: Callable[..., Any], operands: Sequence[Any], apply: Callable[..., Any]) -> Any:
    """The sum over all choices of a part of each operand: a product of parts has a power of i before it."""
    value = function(*map(plain, operands))
    if not depends(*operands):
        return wrap_constant(value)
    sums: list[Any] = [None, None]
    for choice in itertools.product(*((0, 1) if is_complex(x) else (0,) for x in operands)):
        power = sum(choice)
        term = apply(*(part_of(x, k) for x, k in zip(operands, choice, strict=True)))
        total = sums[power % 2]
        if total is None:
            sums[power % 2] = np.negative(term) if power % 4 > 1 else term
        else:
            sums[power % 2] = total - term if power % 4 > 1 else total + term
    return _valued(value, joined(*sums))


def _product(function: Callable[..., Any], conjugate: int | None = None) -> None:
    """A product of two operands, of which one may be conjugated."""

    def handler(a: Any, b: Any, *args: Any, out: Any = None, evaluate: Any = None, **options: Any) -> Any:
        operands = [plain_operand(x) for x in (a, b)]
        if not all(is_complex(x) or isinstance(x, (Variable, np.ndarray, np.generic, int, float)) for x in operands):
            return NotImplemented
        if conjugate is not None:
            operands[conjugate] = _conjugated(operands[conjugate])

        def whole(x: Any, y: Any) -> Any:
            pair = [x, y]
            if conjugate is not None:  # the function will do it again
                pair[conjugate] = np.conjugate(pair[conjugate])
            return function(*pair, *args, **options)

        def apply(x: Any, y: Any) -> Any:
            return function(x, y, *args, **options)

        return _stored(_multilinear(whole, operands, apply), out)

    (COMPLEX_UFUNCS if isinstance(function, np.ufunc) else COMPLEX_FUNCTIONS)[function] = handler  # type: ignore[index]


for _function in (
    np.dot, np.matmul, np.inner, np.outer, np.tensordot, np.kron, np.convolve, np.cross, np.linalg.outer,
    np.linalg.matmul, np.linalg.tensordot, np.linalg.cross,
):  # fmt: skip
    _product(_function)
for _function in (np.vdot, np.vecdot, np.linalg.vecdot):
    _product(_function, conjugate=0)
_product(np.correlate, conjugate=1)
if hasattr(np, "matvec"):
    _product(np.matvec)
    _product(np.vecmat, conjugate=0)


@of_complex(np.einsum)
def einsum(*operands: Any, out: Any = None, dtype: Any = None, **options: Any) -> Any:
    """Einstein summation with subscripts as text."""
    if dtype is not None:
        return _stored(np.astype(np.einsum(*operands, **options), dtype), out)
    if not isinstance(operands[0], str):
        raise unsupported("numpy.einsum of complex numbers with lists of subscripts", "Write the subscripts as text.")
    subscripts, *arrays = operands

    def apply(*parts: Any) -> Any:
        return np.einsum(subscripts, *parts, **options)

    return _stored(_multilinear(apply, [plain_operand(x) for x in arrays], apply), out)


@of_complex(np.linalg.multi_dot)
def multi_dot(arrays: Any, *, out: Any = None) -> Any:
    """A chain of products, from the left."""
    return _stored(functools.reduce(np.dot, arrays), out)


# --- linear algebra -------------------------------------------------------------------------------------------------


def _embedded(a: Any) -> Any:
    """The real matrix ``[[A, -B], [B, A]]`` that acts on stacked parts as ``A + iB`` does on complex numbers."""
    re, im = part_of(a, 0), part_of(a, 1)
    rows = [np.concatenate([re, np.negative(im)], axis=-1), np.concatenate([im, re], axis=-1)]
    return np.concatenate(rows, axis=-2)


@of_complex(np.linalg.inv)
def inv(a: Any) -> Any:
    """By the inverse of a real matrix of twice the size."""
    a = plain_operand(a)
    value = np.linalg.inv(plain(a))
    if not depends(a):
        return wrap_constant(value)
    n = a.shape[-1]
    whole = np.linalg.inv(_embedded(a))
    return _valued(value, joined(whole[..., :n, :n], whole[..., n:, :n]))


@of_complex(np.linalg.solve)
def solve(a: Any, b: Any) -> Any:
    """By a real system of twice the size."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.linalg.solve(plain(a), plain(b))
    if not depends(a, b):
        return wrap_constant(value)
    n = np.shape(plain(a))[-1]
    vector = np.ndim(plain(b)) == 1
    right = np.concatenate([part_of(b, 0), part_of(b, 1)], axis=-1 if vector else -2)
    whole = np.linalg.solve(_embedded(a), right)
    parts = (whole[:n], whole[n:]) if vector else (whole[..., :n, :], whole[..., n:, :])
    return _valued(value, joined(*parts))


@of_complex(np.linalg.det)
def det(a: Any) -> Any:
    """By a record of its own: the real matrix of twice the size has no phase."""
    a = plain_operand(a)
    value = np.linalg.det(plain(a))
    if not depends(a):
        return wrap_constant(value)
    half = real_dtype(value.dtype)
    re, im = (operand(part_of(a, k), a.shape, half) for k in (0, 1))
    found = complex_linalg.determinant(re, im)
    return wrap_parts(value, part(found, 0), part(found, 1))


@of_complex(np.linalg.matrix_power)
def matrix_power(a: Any, n: int) -> Any:
    """Repeated products."""
    if n < 0:
        return matrix_power(np.linalg.inv(a), -n)
    if n == 0:
        return np.linalg.matrix_power(plain(a), 0)
    half = a if n == 1 else np.matmul(*(matrix_power(a, n // 2),) * 2)
    return np.matmul(half, a) if n % 2 and n > 1 else half


@of_complex(np.linalg.norm)
def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector norms and the Frobenius norm of the absolute values."""
    x = plain_operand(x)
    value = np.linalg.norm(plain(x), ord, axis, keepdims)
    if not depends(x):
        return wrap_constant(value)
    axes = axes_of(axis, x.ndim)
    if ord is None or (ord == 2 and len(axes) == 1) or (ord == "fro" and len(axes) == 2):
        # Of both parts at once: no square root, whose derivative would be infinite where one element is zero.
        both = np.stack([part_of(x, 0), part_of(x, 1)], axis=-1)
        lines = np.reshape(np.moveaxis(both, axes, range(-1 - len(axes), -1)), (*_rest(x.shape, axes), -1))
        found = np.reshape(np.linalg.norm(lines, axis=-1), np.shape(value))
    elif len(axes) == 2 and ord in (2, -2, "nuc"):
        from .complex_spectra import singular_values

        first, second = axis if axis is not None else (0, 1)
        s = singular_values(np.moveaxis(x, (first, second), (-2, -1)))
        found = np.sum(s, axis=-1) if ord == "nuc" else s[..., 0 if ord == 2 else -1]
        found = np.reshape(found, np.shape(value))
    else:
        found = np.linalg.norm(np.abs(x), ord, axis, keepdims)
    return wrap_node(as_part(found).node, value)


def _rest(shape: Sequence[int], axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(n for k, n in enumerate(shape) if k not in axes)


COMPLEX_FUNCTIONS[np.linalg.vector_norm] = lambda x, /, *, axis=None, keepdims=False, ord=2: norm(
    np.ravel(x) if axis is None else x, ord, axis, keepdims
)
COMPLEX_FUNCTIONS[np.linalg.matrix_norm] = lambda x, /, *, keepdims=False, ord="fro": norm(x, ord, (-2, -1), keepdims)
