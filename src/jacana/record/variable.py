"""``Variable``: an array that remembers how it was computed."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterator
from typing import Any, final

import numpy as np

from ..graph.node import Array, Node, new_input
from . import buffer
from .bound import ABOUT_MEMORY, ARRAY_ONLY, WRITABLE, BoundMethod, remedy_for_scipy, remedy_of_conversion
from .bytecode import fills_text
from .constants import check_class, check_dtype, constant_node
from .leaves import remember_leaf
from .location import recording_error, unhashable, unsupported
from .recording import current_recording, guard
from .table import FUNCTIONS, UFUNCS, ComplexBase, RecordedArray, call_function

_new = object.__new__


@final
class Variable:
    """An array that remembers how it was computed.

    ``Variable(array)`` makes a leaf: an argument that one can differentiate with respect to. Everything NumPy computes
    from it is a Variable again; its number is there at once, its derivatives whenever they are asked for.

    Arguments:
        data: an array of real numbers, or anything that ``np.asarray`` turns into one. An ``ndarray`` is kept by
            reference. Integers and booleans are allowed and have no derivative.

    Raises:
        InvalidInputError: complex numbers, objects, strings.

    Example:
        >>> import numpy as np
        >>> from jacana.record import Variable
        >>> x = Variable(np.arange(3.0))
        >>> np.sin(x) * 2 + x[::-1]
        Variable([2.        , 2.68294197, 1.81859485])
    """

    __slots__ = ("__weakref__", "_alias", "_leaf", "_node", "_value", "_version", "_writes", "grad")

    # _value    the number: an ndarray, or a NumPy scalar where NumPy would give one
    # _node     how it is computed; None: it depends on no argument (a constant)
    # _alias    for a view: which Variable it looks into, and where
    # _writes   element assignments that are not yet part of _node
    # _version  counts the writes, so that views know when to look again
    _value: Any
    _node: Node | None
    _alias: buffer.Alias | None
    _writes: buffer.Writes | None
    _version: int
    _leaf: bool
    grad: Array | None

    __array_priority__ = 1000.0

    def __init__(self, data: Any) -> None:
        if isinstance(data, Variable):
            data = data._value
        array = _as_array(data)
        self._value = array
        self._node = new_input(array.shape, array.dtype)
        self._alias = None
        self._writes = None
        self._version = 0
        self._leaf = True
        self.grad = None
        remember_leaf(self._node, array, self)

    # --- the number and its description -------------------------------------------------------------------------

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        """What ``isinstance`` is told: in a recorded program, the class that NumPy's own result has there."""
        if current_recording() is None:
            return Variable
        kind: type = type(self._value)
        return RecordedArray if kind is np.ndarray else kind

    @property
    def data(self) -> Array:
        """The number as an ndarray, without derivative. Inside a recorded function, looking at it is guarded."""
        if current_recording() is not None:
            node = self._tracked()
            if node is not None:
                guard(node, self._value)
        array = np.asarray(self._value)
        if not self._leaf:
            # Writing here would change the number and not how it is computed.
            array = array.view()
            array.flags.writeable = False
        return array

    @data.setter
    def data(self, value: Any) -> None:
        if not self._leaf:
            raise recording_error("Only a leaf (made by Variable(...)) can be given new data. Write y[...] = value.")
        array = _as_array(value)
        if array.shape != self._value.shape or array.dtype != self._value.dtype:
            self._node = new_input(array.shape, array.dtype)
        self._value = array
        assert self._node is not None
        remember_leaf(self._node, array, self)

    array = data
    value = data

    @property
    def node(self) -> Node:
        """How the number is computed."""
        return node_of(self)

    @property
    def shape(self) -> tuple[int, ...]:
        shape: tuple[int, ...] = self._value.shape
        return shape

    @property
    def dtype(self) -> np.dtype[Any]:
        dtype: np.dtype[Any] = self._value.dtype
        return dtype

    @property
    def ndim(self) -> int:
        return len(self._value.shape)

    @property
    def size(self) -> int:
        return int(self._value.size)

    @property
    def itemsize(self) -> int:
        return int(self._value.itemsize)

    @property
    def nbytes(self) -> int:
        return int(self._value.nbytes)

    @property
    def T(self) -> Any:
        return FUNCTIONS[np.transpose](self)

    @property
    def mT(self) -> Any:
        return FUNCTIONS[np.swapaxes](self, -1, -2)

    @property
    def real(self) -> Any:
        return self

    @property
    def imag(self) -> Any:
        return np.zeros(self.shape, self.dtype)

    @property
    def flat(self) -> Any:
        from .methods import FlatIterator

        return FlatIterator(self)

    @flat.setter
    def flat(self, value: Any) -> None:
        self.flat[:] = value

    @property
    def base(self) -> Any:
        return None if self._alias is None else self._alias.root

    def _tracked(self) -> Node | None:
        """The node, up to date with every write; None if the number depends on no argument."""
        if self._alias is not None:
            self._alias.refresh(self)
        elif self._writes is not None:
            self._writes.flush(self)
        return self._node

    def __len__(self) -> int:
        return len(self._value)

    def __iter__(self) -> Iterator[Any]:
        if not self._value.shape:
            raise TypeError("iteration over a 0-d array")
        return (self[k] for k in range(self._value.shape[0]))

    def __repr__(self) -> str:
        self._shown()
        text = np.array2string(np.asarray(self._value), separator=", ", prefix="Variable(")
        suffix = "" if self._value.dtype in (np.float64, np.int64, np.bool_) else f", dtype={self._value.dtype.name}"
        return f"Variable({text}{suffix})"

    def __str__(self) -> str:
        self._shown()
        return str(self._value)

    def _shown(self) -> None:
        """Text is a look at the number: what the program makes of it holds for this number alone."""
        if current_recording() is not None:
            node = self._tracked()
            if node is not None:
                guard(node, self._value)

    def __format__(self, spec: str) -> str:
        self._shown()
        value = self._value
        return format(value.item() if spec and not value.shape else value, spec)

    # --- looks at the number: guarded where they decide, refused where a derivative would be lost ----------------

    def __bool__(self) -> bool:
        seen = bool(self._value)
        node = self._tracked()
        if node is not None and current_recording() is not None:
            node = node if node.dtype == np.bool_ else node_of(self != 0)
            guard(node, np.broadcast_to(seen, node.shape))
        return seen

    def __int__(self) -> int:
        seen = int(self._value)
        node = self._tracked()
        if node is not None and current_recording() is not None:
            whole: Any = self if node.dtype.kind != "f" else np.trunc(self)
            guard(node_of(whole), raw(whole))
        return seen

    def _whole(self, function: Callable[[Any], Any]) -> int:
        """A whole number: it carries no derivative, so it is guarded like any decision."""
        whole = function(self)
        node = tracked(whole)
        if node is not None:
            guard(node, raw(whole))
        return int(raw(whole))

    def __floor__(self) -> int:
        return self._whole(np.floor)

    def __ceil__(self) -> int:
        return self._whole(np.ceil)

    def __trunc__(self) -> int:
        return self._whole(np.trunc)

    def __index__(self) -> int:
        seen = operator.index(self._value)
        self._look("an index")
        return seen

    def __float__(self) -> float:
        if fills_text(sys._getframe(1)):
            self._shown()
        elif self._tracked() is not None:
            of_numpy = "Use the NumPy function instead of the one of math (np.sin for math.sin); " + WRITABLE
            self._look("float()", remedy_for_scipy() or of_numpy)
        return float(self._value)

    def __complex__(self) -> complex:
        self._look("complex()", "Write x + 1j * y for complex(x, y), which keeps the derivative")
        return complex(self._value)

    def item(self, *args: Any) -> Any:
        """The number as a Python scalar. Refused where a derivative would be lost."""
        self._look("item()", "Write y[...] to keep the derivative")
        return self._value.item(*args)

    def tolist(self) -> Any:
        """The numbers as nested lists. Refused where derivatives would be lost."""
        self._look("tolist()", "Write list(y) to keep the derivatives")
        return self._value.tolist()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        from .sparse import asked_by_sparse_product, refuse_sparse_numbers

        if asked_by_sparse_product():
            return np.empty((), dtype=object)
        if self._tracked() is not None:
            refuse_sparse_numbers()
        self._look("conversion to a plain ndarray", remedy_of_conversion())
        return np.array(self._value, dtype=dtype)

    def _look(self, what: str, remedy: str = "") -> None:
        node = self._tracked()
        if node is None:
            return
        if node.dtype.kind != "f":
            guard(node, self._value)
            return
        if current_recording() is None:
            raise recording_error(
                f"{what} of a Variable would lose its derivative. For the plain number without derivative, write "
                f"y.array (as in float(y.array)); to go on with the derivative: {remedy}."
            )
        raise recording_error(
            f"{what} of a Variable that depends on the arguments would lose its derivative. "
            f"{remedy}; for the plain number without derivative, write y.data."
        )

    # --- protocols ----------------------------------------------------------------------------------------------

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return UFUNC_METHODS[method](ufunc, *inputs, **options)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        result = call_function(function, args, kwargs)
        return FALLBACK[0](function, args, kwargs) if result is NotImplemented else result

    def __hash__(self) -> int:
        raise unhashable(self)

    # --- indexing -----------------------------------------------------------------------------------------------

    def __getitem__(self, key: Any) -> Any:
        return FUNCTIONS[operator.getitem](self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        FUNCTIONS[operator.setitem](self, key, value)

    def __delitem__(self, key: Any) -> None:
        raise ValueError("cannot delete array elements")

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    # --- operators ----------------------------------------------------------------------------------------------

    def __neg__(self) -> Any:
        return UFUNCS[np.negative](self)

    def __pos__(self) -> Any:
        return UFUNCS[np.positive](self)

    def __abs__(self) -> Any:
        return UFUNCS[np.absolute](self)

    def __invert__(self) -> Any:
        return UFUNCS[np.invert](self)

    def __round__(self, digits: int | None = None) -> Any:
        return FUNCTIONS[np.round](self, digits or 0)

    def __add__(self, other: Any) -> Any:
        return UFUNCS[np.add](self, other, operator.add)

    def __radd__(self, other: Any) -> Any:
        return UFUNCS[np.add](other, self, operator.add)

    def __sub__(self, other: Any) -> Any:
        return UFUNCS[np.subtract](self, other, operator.sub)

    def __rsub__(self, other: Any) -> Any:
        return UFUNCS[np.subtract](other, self, operator.sub)

    def __mul__(self, other: Any) -> Any:
        return UFUNCS[np.multiply](self, other, operator.mul)

    def __rmul__(self, other: Any) -> Any:
        result = UFUNCS[np.multiply](other, self, operator.mul)
        if result is NotImplemented and type(other).__name__.endswith("_matrix"):
            return UFUNCS[np.matmul](other, self)  # what scipy.sparse.csr_matrix calls a product
        return result

    def __truediv__(self, other: Any) -> Any:
        return UFUNCS[np.divide](self, other, operator.truediv)

    def __rtruediv__(self, other: Any) -> Any:
        return UFUNCS[np.divide](other, self, operator.truediv)

    def __floordiv__(self, other: Any) -> Any:
        return UFUNCS[np.floor_divide](self, other, operator.floordiv)

    def __rfloordiv__(self, other: Any) -> Any:
        return UFUNCS[np.floor_divide](other, self, operator.floordiv)

    def __mod__(self, other: Any) -> Any:
        return UFUNCS[np.remainder](self, other, operator.mod)

    def __rmod__(self, other: Any) -> Any:
        return UFUNCS[np.remainder](other, self, operator.mod)

    def __divmod__(self, other: Any) -> Any:
        return UFUNCS[np.divmod](self, other)

    def __rdivmod__(self, other: Any) -> Any:
        return UFUNCS[np.divmod](other, self)

    def __pow__(self, other: Any) -> Any:
        return UFUNCS[np.power](self, other, operator.pow)

    def __rpow__(self, other: Any) -> Any:
        return UFUNCS[np.power](other, self, operator.pow)

    def __matmul__(self, other: Any) -> Any:
        return UFUNCS[np.matmul](self, other)

    def __rmatmul__(self, other: Any) -> Any:
        return UFUNCS[np.matmul](other, self)

    def __lt__(self, other: Any) -> Any:
        return UFUNCS[np.less](self, other, operator.lt)

    def __le__(self, other: Any) -> Any:
        return UFUNCS[np.less_equal](self, other, operator.le)

    def __gt__(self, other: Any) -> Any:
        return UFUNCS[np.greater](self, other, operator.gt)

    def __ge__(self, other: Any) -> Any:
        return UFUNCS[np.greater_equal](self, other, operator.ge)

    def __eq__(self, other: Any) -> Any:
        return UFUNCS[np.equal](self, other, operator.eq)

    def __ne__(self, other: Any) -> Any:
        return UFUNCS[np.not_equal](self, other, operator.ne)

    def __and__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_and](self, other, operator.and_)

    def __rand__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_and](other, self, operator.and_)

    def __or__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_or](self, other, operator.or_)

    def __ror__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_or](other, self, operator.or_)

    def __xor__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_xor](self, other, operator.xor)

    def __rxor__(self, other: Any) -> Any:
        return UFUNCS[np.bitwise_xor](other, self, operator.xor)

    def __iadd__(self, other: Any) -> Any:
        return buffer.update(self, np.add, other)

    def __isub__(self, other: Any) -> Any:
        return buffer.update(self, np.subtract, other)

    def __imul__(self, other: Any) -> Any:
        return buffer.update(self, np.multiply, other)

    def __itruediv__(self, other: Any) -> Any:
        return buffer.update(self, np.divide, other)

    def __ifloordiv__(self, other: Any) -> Any:
        return buffer.update(self, np.floor_divide, other)

    def __imod__(self, other: Any) -> Any:
        return buffer.update(self, np.remainder, other)

    def __ipow__(self, other: Any) -> Any:
        return buffer.update(self, np.power, other)

    def __imatmul__(self, other: Any) -> Any:
        return buffer.update(self, np.matmul, other)

    def __iand__(self, other: Any) -> Any:
        return buffer.update(self, np.bitwise_and, other)

    def __ior__(self, other: Any) -> Any:
        return buffer.update(self, np.bitwise_or, other)

    def __ixor__(self, other: Any) -> Any:
        return buffer.update(self, np.bitwise_xor, other)

    # --- the methods of ndarray: each is the NumPy function of the same name ---------------------------------------

    def __getattr__(self, name: str) -> Any:
        function = METHODS.get(name)
        if function is not None:
            return BoundMethod(function, self)
        if name in ARRAY_ONLY or name in REMEDIES:
            if name in ABOUT_MEMORY or self._tracked() is None:
                return getattr(np.asarray(self._value), name)
            raise unsupported(f"ndarray.{name}", REMEDIES.get(name, ""))
        raise AttributeError(f"'Variable' object has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *METHODS})

    def __copy__(self) -> Any:
        return FUNCTIONS[np.copy](self)

    def __deepcopy__(self, memo: Any) -> Any:
        return Variable(self._value.copy()) if self._leaf else FUNCTIONS[np.copy](self)

    def __reduce__(self) -> Any:
        if not self._leaf:
            raise recording_error("Only a leaf can be pickled, without its derivatives; pickle y.data.")
        return Variable, (self._value,)

    # --- derivatives (define-by-run) ------------------------------------------------------------------------------

    def backward(self, *, jacobian: bool = False) -> None:
        """Give every leaf that this Variable depends on its ``grad``.

        Arguments:
            jacobian: False: add the vector-Jacobian product with ``self.grad`` (taken as 1 if it is None and there is
                one element) to ``leaf.grad``, of the leaf's shape. True: set ``leaf.grad`` to the whole Jacobian, of
                shape ``self.shape + leaf.shape``.

        Raises:
            DifferentiationError: a vector without ``grad``, when the whole Jacobian was not asked for.
        """
        from .backward import backward

        backward(self, jacobian)

    def jacobian(self, x: Variable) -> Array:
        """The whole derivative with respect to ``x``, an array of shape ``self.shape + x.shape``."""
        from .backward import jacobian

        return jacobian(self, x)

    def cleargrad(self) -> None:
        """Forget ``grad``."""
        self.grad = None


METHODS: dict[str, Callable[..., Any]] = {}
REMEDIES: dict[str, str] = {}  # what to do instead of the methods that are refused
UFUNC_METHODS: dict[str, Callable[..., Any]] = {}
FALLBACK: list[Callable[..., Any]] = []
COMPLEX_CONSTANT: list[Callable[..., Any]] = []


def _as_array(data: Any) -> Array:
    if isinstance(data, np.ndarray):
        check_class(data)
    elif isinstance(data, (list, tuple)) and contains_variable(data):
        raise recording_error("A leaf is made of plain numbers; join Variables with np.stack or np.array.")
    array = np.asarray(data)
    check_dtype(array)
    return array


def contains_variable(value: Any) -> bool:
    """Whether a nest of lists, tuples and dictionaries holds a Variable, real or complex."""
    if type(value) is np.ndarray:  # microseconds count: small fits ask this of all their arguments
        return False
    if isinstance(value, (Variable, ComplexBase)):
        return True
    if isinstance(value, (list, tuple)):
        for item in value:  # noqa: SIM110 -- a generator costs more than what it does
            if contains_variable(item):
                return True
        return False
    return isinstance(value, dict) and any(contains_variable(v) for v in value.values())


def raw(value: Any) -> Any:
    """The number in a Variable; anything else as it is."""
    return value._value if type(value) is Variable else value


def raw_deep(value: Any) -> Any:
    """``raw`` through nested lists, tuples and dictionaries."""
    if type(value) is Variable:
        return value._value
    if isinstance(value, (list, tuple)):
        items = [raw_deep(v) for v in value]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(value, dict):
        return {k: raw_deep(v) for k, v in value.items()}
    return value._value if isinstance(value, ComplexBase) else value  # type: ignore[attr-defined]


def wrap_node(node: Node, value: Any) -> Variable:
    """The Variable that ``node`` computes and whose number is ``value``."""
    v: Variable = _new(Variable)
    v._value = value
    v._node = node
    v._alias = None
    v._writes = None
    v._version = 0
    v._leaf = False
    v.grad = None
    return v


def wrap_constant(value: Any) -> Any:
    """A number that depends on no argument: a Variable if it can be written to later, so that what is written lives."""
    if not issubclass(type(value), np.ndarray):
        return value
    if value.dtype.kind == "f":
        return wrap_node(None, value)  # type: ignore[arg-type]
    return COMPLEX_CONSTANT[0](value) if value.dtype.kind == "c" else value


def node_of(v: Variable) -> Node:
    """The node of a Variable, a constant node if it depends on no argument."""
    node = v._tracked()
    return node if node is not None else constant_node(v._value)


def as_node(value: Any) -> Node:
    """The node of a Variable, an ndarray or a number."""
    return node_of(value) if type(value) is Variable else constant_node(value)


def tracked(value: Any) -> Node | None:
    """The node if ``value`` is a Variable that depends on an argument, else None."""
    return value._tracked() if type(value) is Variable else None
