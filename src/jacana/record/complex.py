"""``ComplexVariable``: a complex array that remembers how it was computed, as two real Variables.

The graph is real. Whatever only moves elements is done to both parts by the handlers of real arrays, so that views,
element assignments and structure are those of the parts; arithmetic is in ``complex_arithmetic``, the other functions
in ``complex_functions``. See docs/decisions/0017-complex.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np

from ..errors import DifferentiationError
from ..graph.node import Array, DType, Node, Shape
from .bound import OF_NUMPY
from .lift import operand
from .location import recording_error, unhashable, unsupported
from .recording import current_recording, guard
from .table import (
    COMPLEX_FALLBACK,
    COMPLEX_FUNCTIONS,
    COMPLEX_UFUNCS,
    ComplexBase,
    RecordedArray,
    call_complex,
    call_function,
    is_complex,
)
from .variable import COMPLEX_CONSTANT, METHODS, UFUNC_METHODS, Variable, raw_deep, tracked, wrap_node

_REMEDY = (
    "Keep it as it is; the parts are z.real and z.imag, and for the plain number without derivative, write z.data."
)


@final
class ComplexVariable(ComplexBase):
    """A complex array that remembers how it was computed: what NumPy makes of Variables and complex numbers.

    It is used like an ``ndarray`` of dtype complex128 (or complex64, from float32): operators, indexing, methods, NumPy
    functions. ``z.real`` and ``z.imag`` are Variables that share its memory.

    Arguments:
        real, imag: Variables (or arrays) of equal shape and dtype.

    Example:
        >>> import numpy as np
        >>> from jacana.record import Variable
        >>> x = Variable(np.arange(3.0))
        >>> np.exp(1j * np.pi * x).real
        Variable([ 1., -1.,  1.])
    """

    __slots__ = ("__weakref__", "_im", "_re")

    _re: Variable
    _im: Variable

    __array_priority__ = 1001.0

    def __init__(self, real: Any, imag: Any) -> None:
        self._re, self._im = as_part(real), as_part(imag)
        if self._re.shape != self._im.shape or self._re.dtype != self._im.dtype:
            raise recording_error(
                f"The parts of a complex array must have one shape and one dtype, not {self._re.shape} "
                f"{self._re.dtype} and {self._im.shape} {self._im.dtype}."
            )

    # --- the number and its description -------------------------------------------------------------------------

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What ``isinstance`` is told: in a recorded program, the class that NumPy's own result has there."""
        if current_recording() is None:
            return ComplexVariable
        return RecordedArray if type(self._re._value) is np.ndarray else self.dtype.type

    @property
    def _value(self) -> Any:
        re, im = self._re._value, self._im._value
        dtype = complex_dtype(re.dtype)
        if not isinstance(re, np.ndarray):
            return dtype.type(complex(re, im))
        z = np.empty_like(re, dtype=dtype)
        z.real, z.imag = re, im
        return z

    def _tracked(self) -> bool:
        """Whether the number depends on an argument."""
        return self._re._tracked() is not None or self._im._tracked() is not None

    @property
    def data(self) -> Array:
        """The number as an ndarray, without derivative. Inside a recorded function, looking at it is guarded."""
        if current_recording() is not None:
            for part in (self._re, self._im):
                node = part._tracked()
                if node is not None:
                    guard(node, part._value)
        array = np.asarray(self._value)
        array.flags.writeable = False
        return array

    array = data
    value = data

    @property
    def real(self) -> Variable:
        return self._re

    @real.setter
    def real(self, value: Any) -> None:
        self._re[...] = value

    @property
    def imag(self) -> Variable:
        return self._im

    @imag.setter
    def imag(self, value: Any) -> None:
        self._im[...] = value

    @property
    def shape(self) -> tuple[int, ...]:
        return self._re.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return complex_dtype(self._re.dtype)

    @property
    def ndim(self) -> int:
        return self._re.ndim

    @property
    def size(self) -> int:
        return self._re.size

    @property
    def itemsize(self) -> int:
        return self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        return self.size * self.itemsize

    @property
    def T(self) -> Any:
        return np.transpose(self)

    @property
    def mT(self) -> Any:
        return np.swapaxes(self, -1, -2)

    @property
    def flat(self) -> Any:
        from .methods import FlatIterator

        return FlatIterator(self)

    @flat.setter
    def flat(self, value: Any) -> None:
        self.flat[:] = value

    def __len__(self) -> int:
        return len(self._re)

    def __iter__(self) -> Iterator[Any]:
        if not self.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(self.shape[0]))

    def __repr__(self) -> str:
        self._shown()
        text = np.array2string(np.asarray(self._value), separator=", ", prefix="ComplexVariable(")
        return f"ComplexVariable({text}{'' if self.dtype == np.complex128 else f', dtype={self.dtype.name}'})"

    def _shown(self) -> None:
        self._re._shown()
        self._im._shown()

    def __str__(self) -> str:
        self._shown()
        return str(self._value)

    def __format__(self, spec: str) -> str:
        self._shown()
        value = self._value
        return format(value.item() if spec and not value.shape else value, spec)

    # --- looks at the number --------------------------------------------------------------------------------------

    def __bool__(self) -> bool:
        if self.size == 1:
            different: Any = np.not_equal(self, 0)
            return bool(np.reshape(different, ()))
        return bool(self._value)  # NumPy's own error

    def __complex__(self) -> complex:
        self._look("complex()")
        return complex(self._value)

    def __float__(self) -> float:
        raise TypeError("a complex number is no float; take z.real, z.imag or abs(z)")

    __int__ = __float__

    def item(self, *args: Any) -> Any:
        """The number as a Python scalar. Refused where a derivative would be lost."""
        self._look("item()")
        return self._value.item(*args)

    def tolist(self) -> Any:
        """The numbers as nested lists. Refused where derivatives would be lost."""
        self._look("tolist()")
        return self._value.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        from .sparse import asked_by_sparse_product

        if asked_by_sparse_product():
            return np.empty((), dtype=object)
        self._look("conversion to a plain ndarray")
        return np.array(self._value, dtype=dtype)

    def _look(self, what: str) -> None:
        if self._tracked():
            raise recording_error(
                f"{what} of a complex Variable that depends on the arguments would lose its derivative. {_REMEDY}"
            )

    # --- protocols ----------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return UFUNC_METHODS[method](ufunc, *inputs, **options)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return call_function(function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        function = (_FUNCTION_OF.get(name) or OF_NUMPY.get(name)) if name in METHODS else None
        if function is not None:
            return _Method(function, self)
        if not name.startswith("_") and hasattr(np.ndarray, name):
            if not self._tracked():
                return getattr(np.asarray(self._value), name)
            raise unsupported(f"ndarray.{name} of complex numbers", "Work on z.real and z.imag.")
        raise AttributeError(f"'ComplexVariable' object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *METHODS})

    def __copy__(self) -> Any:
        return np.copy(self)

    def __deepcopy__(self, memo: Any) -> Any:
        return np.copy(self)

    # --- derivatives (define-by-run) ------------------------------------------------------------------------------

    def jacobian(self, x: Variable) -> Array:
        """The whole derivative with respect to a real Variable, a complex array of shape ``self.shape + x.shape``."""
        parts: Array = compose(self._re.jacobian(x), self._im.jacobian(x))
        return np.asarray(parts)

    def backward(self, **options: Any) -> None:
        """Refused: which real number is meant? Call it for ``z.real``, ``z.imag`` or ``np.abs(z)``."""
        raise DifferentiationError(
            "backward() of a complex Variable: take a real number of it (z.real, z.imag, np.abs(z) ** 2) and call "
            "backward() of that"
        )

    # --- indexing -----------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return joined(self._re[key], self._im[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._re[key], self._im[key] = part_of(value, 0), part_of(value, 1)

    def __hash__(self) -> int:
        raise unhashable(self)

    def __contains__(self, item: Any) -> bool:
        return bool(np.any(self == item))


class _Method:
    """A NumPy function bound to a complex Variable."""

    __slots__ = ("_function", "_variable")

    def __init__(self, function: Callable[..., Any], variable: ComplexVariable) -> None:
        self._function = function
        self._variable = variable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return call_complex(self._function, (self._variable, *args), kwargs)


def _reshape(x: ComplexVariable, *shape: Any, order: str = "C") -> Any:
    return call_complex(np.reshape, (x, shape[0] if len(shape) == 1 else shape, order), {})


def _transpose(x: ComplexVariable, *axes: Any) -> Any:
    return call_complex(np.transpose, (x, axes[0] if len(axes) == 1 else axes or None), {})


def _copy(x: ComplexVariable, order: str = "C") -> Any:
    return call_complex(np.copy, (x, order), {})  # whose own default keeps the order of the axes


def _flatten(x: ComplexVariable, order: str = "C") -> Any:
    return np.copy(call_complex(np.ravel, (x, order), {}))


def _fill(x: ComplexVariable, value: Any) -> None:
    x[...] = value


def _sort(x: ComplexVariable, axis: int = -1, **options: Any) -> None:
    x[...] = np.sort(x, axis, **options)


def _view(x: ComplexVariable, dtype: Any = None, type: Any = None) -> Any:
    if type not in (None, np.ndarray) or (dtype not in (None, np.ndarray) and np.dtype(dtype) != x.dtype):
        raise unsupported("ndarray.view as another dtype or class", "The parts are z.real and z.imag.")
    return x[...]


_FUNCTION_OF: dict[str, Callable[..., Any]] = {
    "conj": np.conjugate, "conjugate": np.conjugate, "flatten": _flatten, "fill": _fill, "copy": _copy,
    "reshape": _reshape, "transpose": _transpose,
    "sort": _sort, "view": _view,
    "compress": lambda z, condition, axis=None, out=None: np.compress(condition, z, axis, out),
}  # fmt: skip
COMPLEX_FUNCTIONS.update(
    {function: function for function in (_copy, _reshape, _transpose, _flatten, _fill, _sort, _view)}
)


# --- operators --------------------------------------------------------------------------------------------------------


def _install_operators() -> None:
    """The operators of ndarray, each by its ufunc; in place they write into both parts."""
    import operator

    for name, ufunc in (
        ("add", np.add), ("sub", np.subtract), ("mul", np.multiply), ("truediv", np.divide), ("pow", np.power),
        ("floordiv", np.floor_divide), ("mod", np.remainder), ("matmul", np.matmul), ("and", np.bitwise_and),
        ("or", np.bitwise_or), ("xor", np.bitwise_xor),
    ):  # fmt: skip
        function = getattr(operator, name, None) or getattr(operator, f"{name}_")
        options = {"evaluate": function} if name in ("add", "sub", "mul", "truediv", "pow") else {}

        def forward(self: Any, other: Any, _u: Any = ufunc, _o: Any = options) -> Any:
            return call_complex(_u, (self, other), _o)

        def backward(self: Any, other: Any, _u: Any = ufunc, _o: Any = options) -> Any:
            return call_complex(_u, (other, self), _o)

        def in_place(self: Any, other: Any, _f: Any = function) -> Any:
            computed = _f(self, other)
            if not isinstance(self._re._value, np.ndarray):
                return computed  # NumPy scalars cannot change
            if np.shape(raw_deep(computed)) != self.shape:
                raise ValueError(
                    f"non-broadcastable output operand with shape {self.shape} doesn't match the broadcast shape "
                    f"{np.shape(raw_deep(computed))}"
                )
            self[...] = computed
            return self

        setattr(ComplexVariable, f"__{name}__", forward)
        setattr(ComplexVariable, f"__r{name}__", backward)
        setattr(ComplexVariable, f"__i{name}__", in_place)
    for name, compared in (
        ("lt", np.less), ("le", np.less_equal), ("gt", np.greater), ("ge", np.greater_equal), ("eq", np.equal),
        ("ne", np.not_equal),
    ):  # fmt: skip

        def compare(self: Any, other: Any, _u: Any = compared) -> Any:
            return call_complex(_u, (self, other), {})

        setattr(ComplexVariable, f"__{name}__", compare)
    for name, changed in (("neg", np.negative), ("pos", np.positive), ("abs", np.absolute), ("invert", np.invert)):

        def unary(self: Any, _u: Any = changed) -> Any:
            return call_complex(_u, (self,), {})

        setattr(ComplexVariable, f"__{name}__", unary)


_install_operators()


# --- parts and wholes -----------------------------------------------------------------------------------------------

_COMPLEX_OF: dict[DType, DType] = {np.dtype("f4"): np.dtype("c8"), np.dtype("f8"): np.dtype("c16")}


def complex_dtype(real: DType) -> DType:
    """The complex dtype with parts of a real one."""
    found: DType = np.result_type(real, np.complex64) if real not in _COMPLEX_OF else _COMPLEX_OF[real]
    return found


def real_dtype(dtype: DType) -> DType:
    """The dtype of the parts of a complex dtype; a real one is its own."""
    found: DType = dtype.type(0).real.dtype
    return found


def as_part(value: Any) -> Variable:
    """A real number or array as a Variable, which depends on no argument if it was none."""
    if type(value) is Variable:
        return value
    value = value if isinstance(value, (np.ndarray, np.generic)) else np.asarray(value)[()]
    return wrap_node(None, value)  # type: ignore[arg-type]


def joined(re: Any, im: Any) -> Any:
    """The complex result with these parts, which may be lists of parts; a number or array if neither is a Variable."""
    if isinstance(re, (list, tuple)):
        items = [joined(a, b) for a, b in zip(re, im, strict=True)]
        return items if isinstance(re, list) else tuple(items)
    if re is None:
        return None
    if type(re) is not Variable and type(im) is not Variable:
        return compose(re, im)
    re, im = as_part(re), as_part(im)
    if re.dtype != im.dtype:
        dtype = np.result_type(re.dtype, im.dtype)
        re, im = (x if x.dtype == dtype else np.astype(x, dtype) for x in (re, im))
    return ComplexVariable(re, im)


def compose(re: Any, im: Any) -> Any:
    """The plain complex number or array with these parts."""
    re, im = np.asarray(re), np.asarray(im)
    z = np.empty(re.shape, complex_dtype(np.result_type(re, im)))
    z.real, z.imag = re, im
    return z[()]


def part_of(value: Any, k: int) -> Any:
    """The real part (k = 0) or the imaginary part of an operand; a real operand has zeros for the latter."""
    if isinstance(value, ComplexVariable):
        return value._im if k else value._re
    if isinstance(value, (list, tuple)):
        items = [part_of(v, k) for v in value]
        return items if isinstance(value, list) else tuple(items)
    if is_complex(value):
        return value.imag if k else value.real
    if not k or value is None:
        return value
    if isinstance(value, Variable):
        return np.zeros(value.shape, value.dtype)[()]
    return np.zeros_like(value) if isinstance(value, np.ndarray) else type(value)(0)


def plain(value: Any) -> Any:
    """The number of an operand of any kind."""
    return value._value if isinstance(value, (Variable, ComplexVariable)) else value


def depends(*values: Any) -> bool:
    """Whether any operand depends on an argument."""
    return any(v._tracked() if isinstance(v, ComplexVariable) else tracked(v) is not None for v in values)


def part_nodes(value: Any, shape: Shape, dtype: DType) -> tuple[Node, Node | None]:
    """The nodes of both parts of an operand, broadcast, as a real dtype; None for the imaginary part of a real one."""
    if is_complex(value):
        return operand(part_of(value, 0), shape, dtype), operand(part_of(value, 1), shape, dtype)
    return operand(value, shape, dtype), None


def wrap_parts(value: Any, re: Node | None, im: Node | None) -> ComplexVariable:
    """The complex Variable that two nodes compute and whose number is ``value``."""
    whole = isinstance(value, np.ndarray)
    parts = [np.array(v, order="K") if whole else v for v in (value.real, value.imag)]
    return ComplexVariable(*(wrap_node(node, v) for node, v in zip((re, im), parts, strict=True)))  # type: ignore[arg-type]


def wrap_complex(value: Any) -> Any:
    """A complex number that depends on no argument: an array can be written to later, so it is a ComplexVariable."""
    return wrap_parts(value, None, None) if isinstance(value, np.ndarray) else value


COMPLEX_CONSTANT.append(wrap_complex)


def no_rule(function: Any, args: Any, kwargs: Any) -> Any:
    """A function without a rule for complex numbers: NumPy's own error, fine on constants, refused on what depends."""
    from .lift import any_tracked, call_on_constants, function_name

    if any_tracked(args) or any_tracked(tuple(kwargs.values())):
        if isinstance(function, np.ufunc):
            kwargs = {k: v for k, v in kwargs.items() if k != "evaluate"}
            function(*map(plain, args), **kwargs)  # may be a TypeError of NumPy
        name = f"numpy.{function.__name__}" if isinstance(function, np.ufunc) else function_name(function)
        raise unsupported(f"{name} of complex numbers", "Work on z.real and z.imag, np.abs(z) and np.angle(z).")
    return call_on_constants(function, args, {k: v for k, v in kwargs.items() if k != "evaluate"})


COMPLEX_FALLBACK.append(no_rule)

__all__ = ["COMPLEX_UFUNCS", "ComplexVariable"]
