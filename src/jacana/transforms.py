"""The public verbs: compile, jacobian, value_and_jacobian, grad, value_and_grad, hessian, jvp, vjp.

Each takes a function of plain NumPy code and returns a function. The first call with a new signature records the
function and derives the program of its derivative; later calls replay that program without running Python code of the
user. Arguments and results may be pytrees (dicts, lists, tuples, ... of arrays).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from . import trees
from .differentiate import Order, dense_jacobians, jvp_nodes, vjp_nodes
from .errors import DifferentiationError, InvalidInputError
from .graph.build import cast_to, movement_reshape
from .graph.node import Node
from .record import current_recording
from .recurrences import rolled_steps
from .replay import Build, Built, Replay, Traced, whole_leaves
from .results import AUTO_DENSE_SIZE, Format, deliver
from .run import executor_is, native_available
from .run.executors import NEEDS_LLVMLITE

if TYPE_CHECKING:
    from .report.structure import Structure

__all__ = [
    "Transformed",
    "compile",
    "grad",
    "hessian",
    "jacobian",
    "jvp",
    "value_and_grad",
    "value_and_jacobian",
    "vjp",
]


class Transformed:
    """A function made by a transform: call it with the arguments of the function it was made from.

    Recordings are kept with the object, so make it once and call it often.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        build: Build,
        argnums: int | Sequence[int],
        verb: str,
        compile: bool = False,
        takes_complex: bool = False,
    ) -> None:
        self._replay = Replay(function, build, argnums, verb, compile, takes_complex)
        functools.update_wrapper(self, function, updated=())
        self.__doc__ = f"{verb} of {self._replay.name}.\n\n{getattr(function, '__doc__', None) or ''}"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        shortest = self._replay.shortest
        if shortest is not None and not kwargs and current_recording() is None:
            name, builtin, unchanged = shortest
            if executor_is(name):
                result = builtin(*args)
                if result is not None and unchanged():
                    return result
        return self._replay(args, kwargs)

    def structure(self, *args: Any, **kwargs: Any) -> Structure:
        """What is known of the Jacobian, Hessian or ``J.T @ J`` before its numbers: pattern, terms, order, format.

        Args: those of a call. The function is recorded at them; no derivative is computed.

        Raises:
            InvalidInputError: this transform does not make a matrix.

        >>> import numpy as np
        >>> import jacana as jc
        >>> structure = jc.jacobian(lambda x: x[1:] ** 2).structure(np.ones(4))
        >>> structure.shape, structure.nnz, structure.bandwidth
        ((3, 4), 3, (0, 1))
        >>> structure.terms[0]
        {i: 3}  J[i, i + 1] += 2*x[i + 1]
        """
        from .report.structure import structure_of  # most programs never look

        return structure_of(self._replay, args, kwargs)

    def llvm(self, *args: Any, **kwargs: Any) -> str:
        """The LLVM code, optimised, of what a call with these arguments runs (steps left to NumPy are not in it).

        Raises:
            InvalidInputError: llvmlite is not installed.
        """
        return str(self._module(args, kwargs))

    def assembly(self, *args: Any, **kwargs: Any) -> str:
        """The same as assembly of this machine; see :meth:`llvm`."""
        module = self._module(args, kwargs)
        from .run.native.engine import machine

        return str(machine().target_machine.emit_assembly(module))

    def _module(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not native_available():
            raise InvalidInputError(f"machine code {NEEDS_LLVMLITE}")
        from .run.native.executor import optimised

        return optimised(self._replay.program(args, kwargs))

    def __repr__(self) -> str:
        return f"<jacana {self._replay.verb} of {self._replay.name}>"


def checked_format(format: str) -> None:
    """Refuse the name of a format that does not exist."""
    if format not in get_args(Format):
        raise InvalidInputError(f"format must be one of {', '.join(get_args(Format))}, not {format!r}")


def checked_order(order: str) -> Order:
    """The order of elimination that a name stands for; names that there are not are refused."""
    if order not in get_args(Order):
        raise InvalidInputError(f"order must be one of {', '.join(get_args(Order))}, not {order!r}")
    return "cost" if order == "markowitz" else order  # type: ignore[return-value]


# --- the function itself ----------------------------------------------------------------------------------------


def compile(function: Callable[..., Any]) -> Transformed:
    """``function`` itself as machine code, made at the first call with a new signature.

    It is recorded and replayed like any transform: looks at values are guarded and captured arrays are followed, so
    the result is that of ``function``. The same goes for ``compile=True`` of the other transforms. Compiled programs
    are kept on disk, where the next process finds them (``jacana cache``).

    Args:
        function: plain NumPy code; takes arrays or pytrees of arrays, returns an array or a pytree of arrays.

    Returns:
        A function of the same arguments; every result is a fresh array (scalars are zero-dimensional arrays).
        Where NumPy has been chosen explicitly (``jc.executor("numpy")``, ``JACANA_EXECUTOR=numpy``), NumPy runs.

    Raises:
        InvalidInputError: llvmlite, the extra ``native``, is not installed.
        RecordingError: the function hands a recorded value to code that a recording cannot follow.

    >>> import numpy as np
    >>> import jacana as jc
    >>> @jc.compile
    ... def energy(x):
    ...     return np.sum(x**2) if x[0] > 0 else np.sum(np.abs(x))
    >>> energy(np.array([1.0, 2.0])), energy(np.array([-1.0, 2.0]))
    (array(5.), array(3.))
    """
    return Transformed(function, _build_value, (), "compile", compile=True, takes_complex=True)


def _build_value(traced: Traced) -> Built:
    def derive() -> list[Node]:
        return rolled_steps(traced.outputs, along=True)

    if traced.output_tree.is_leaf() and not traced.is_complex:
        return Built(derive, _first, plain=True)
    plain = trees.is_tuple_of_leaves(traced.output_tree) and not traced.is_complex
    return Built(derive, traced.value, plain=plain)


def _first(arrays: list[Any]) -> Any:
    return arrays[0]


# --- Jacobians --------------------------------------------------------------------------------------------------


def jacobian(
    function: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    format: Format = "dense",
    order: Order = "auto",
    compile: bool = False,
) -> Transformed:
    """The whole Jacobian of ``function``, its structure found by jacana.

    Args:
        function: plain NumPy code; takes arrays or pytrees of arrays, returns an array or a pytree of arrays.
        argnums: the positional argument (or arguments) to differentiate by; they must hold float64 or float32.
        format: ``"dense"``: an ndarray of shape ``y.shape + x.shape`` (for pytrees: the tree of the result with, at
            each leaf, the tree of the arguments); ``"csr"``: one ``scipy.sparse.csr_array`` of shape
            ``(y.size, x.size)``, leaves one after another in the order of the trees, C order within a leaf, canonical;
            its index arrays are computed once, shared and read-only.
        order: order of elimination: ``"forward"``, ``"reverse"``, ``"markowitz"`` (always the vertex that costs least
            at the moment; ``"cost"`` is another name for it) or ``"auto"`` (whichever is estimated to need the fewest
            multiplications). The numbers are the same.
        compile: make machine code at the first call instead of when the function turns out to be hot; see
            :func:`compile`.

    Returns:
        A function of the same arguments. The dtype is the common one of result and argument.

    Raises:
        InvalidInputError: an argument to differentiate by is not floating point, or the result is not an array.
        RecordingError: the function hands a recorded value to code that a recording cannot follow.

    >>> import numpy as np
    >>> import jacana as jc
    >>> def f(x):
    ...     return x[1:] * x[:-1]
    >>> jc.jacobian(f)(np.array([1.0, 2.0, 3.0]))
    array([[2., 1., 0.],
           [0., 3., 2.]])
    >>> jc.jacobian(f, format="csr")(np.array([1.0, 2.0, 3.0])).nnz
    4

    Method: vertex elimination on a graph with structured edges; Griewank and Walther, "Evaluating Derivatives"
    (2008), chapter 9.
    """
    build = _jacobian_build(format, order, with_value=False)
    return Transformed(function, build, argnums, "jacobian", compile, takes_complex=True)


def value_and_jacobian(
    function: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    format: Format = "dense",
    order: Order = "auto",
    compile: bool = False,
) -> Transformed:
    """``(function(...), jacobian)`` from one program that computes both; see :func:`jacobian`.

    >>> import numpy as np
    >>> import jacana as jc
    >>> y, J = jc.value_and_jacobian(lambda x: np.array([x[0] * x[1], x[1] ** 2]))(np.array([2.0, 3.0]))
    >>> y
    array([6., 9.])
    >>> J
    array([[3., 2.],
           [0., 6.]])
    """
    build = _jacobian_build(format, order, with_value=True)
    return Transformed(function, build, argnums, "value_and_jacobian", compile, takes_complex=True)


def _jacobian_build(format: str, order: Order, with_value: bool) -> Build:
    checked_format(format)
    return functools.partial(_build_jacobian, format, checked_order(order), with_value)


def _build_jacobian(format: str, order: Order, with_value: bool, traced: Traced) -> Built:
    if traced.is_complex:
        from .complex import deliver_complex  # most programs are real

        return deliver_complex(traced, format, order, with_value)
    return deliver(traced, traced.outputs, format, order, with_value)


# --- gradients and Hessians -------------------------------------------------------------------------------------


def _scalar_output(traced: Traced, verb: str) -> Node:
    if any(traced.complex_outputs):
        raise DifferentiationError(
            f"{verb} needs a real scalar, but {traced.name} returns a complex one; take np.real or np.abs of it, or "
            "use jacobian (docs/complex.md)"
        )
    if len(traced.outputs) != 1 or traced.outputs[0].size != 1:
        shapes = ", ".join(str(node.shape) for node in traced.outputs)
        raise DifferentiationError(
            f"{verb} needs a function with one scalar result, but {traced.name} returns shape {shapes}; "
            f"use jacobian, or reduce the result with np.sum"
        )
    node = traced.outputs[0]
    if node.dtype.kind != "f":
        raise DifferentiationError(f"{verb}: {traced.name} returns {node.dtype} numbers, which have no derivative")
    return node


def _gradient_nodes(node: Node, by: list[Node], order: Order) -> list[Node]:
    if node.shape:
        node = movement_reshape(node, ())
    return [cast_to(block, x.dtype) for block, x in zip(dense_jacobians([node], by, order)[0], by, strict=True)]


def grad(function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, compile: bool = False) -> Transformed:
    """The gradient of a scalar function, in the tree, shapes and dtypes of the argument.

    Args:
        function: plain NumPy code that returns one scalar (an array of one element will do).
        argnums: the positional argument (or arguments) to differentiate by.
        compile: make machine code at the first call instead of when the function turns out to be hot; see
            :func:`compile`.

    Raises:
        DifferentiationError: the result is not a scalar.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.grad(lambda p: np.sum(p["a"] ** 2) * p["b"])({"a": np.array([1.0, 2.0]), "b": 3.0})
    {'a': array([ 6., 12.]), 'b': array(5.)}
    """
    build = functools.partial(_gradient_build, False, "grad")
    return Transformed(function, build, argnums, "grad", compile, takes_complex=True)


def value_and_grad(
    function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, compile: bool = False
) -> Transformed:
    """``(function(...), gradient)`` from one program that computes both; see :func:`grad`.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.value_and_grad(lambda x: np.sum(x**3))(np.array([1.0, 2.0]))
    (array(9.), array([ 3., 12.]))
    """
    build = functools.partial(_gradient_build, True, "value_and_grad")
    return Transformed(function, build, argnums, "value_and_grad", compile, takes_complex=True)


def _gradient_build(with_value: bool, verb: str, traced: Traced) -> Built:
    node = _scalar_output(traced, verb)
    tree = traced.wanted_tree

    def derive() -> list[Node]:
        (value,) = rolled_steps([node], along=True)
        gradients = _gradient_nodes(value, traced.by, "auto")
        return [value, *gradients] if with_value else gradients

    def finish(arrays: list[Any]) -> Any:
        found = whole_leaves(arrays[1:] if with_value else arrays, traced.complex_wanted)
        gradient = trees.unflatten(tree, found)
        return (trees.unflatten(traced.output_tree, arrays[:1]), gradient) if with_value else gradient

    whole = tree.is_leaf() or (not with_value and trees.is_tuple_of_leaves(tree))
    plain = traced.output_tree.is_leaf() and whole and not traced.is_complex
    return Built(derive, finish, how=f"gradient {with_value}", plain=plain)


def hessian(
    function: Callable[..., Any],
    argnums: int | Sequence[int] = 0,
    *,
    format: Format = "dense",
    order: Order = "auto",
    compile: bool = False,
) -> Transformed:
    """The Hessian of a scalar function: the Jacobian of its gradient's program, by the same elimination.

    Args:
        function: plain NumPy code that returns one scalar.
        argnums: the positional argument (or arguments) to differentiate by.
        format: ``"dense"``: shape ``x.shape + x.shape`` (pytrees: a tree of trees); ``"csr"``: one
            ``scipy.sparse.csr_array`` of shape ``(x.size, x.size)``.
        order: order of elimination of the second pass, as in :func:`jacobian`.
        compile: make machine code at the first call instead of when the function turns out to be hot; see
            :func:`compile`.

    Raises:
        DifferentiationError: the result is not a scalar.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.hessian(lambda x: np.sum(x[1:] * x[:-1] ** 2), format="csr")(np.array([1.0, 2.0, 3.0])).toarray()
    array([[4., 2., 0.],
           [2., 6., 4.],
           [0., 4., 0.]])
    """
    checked_format(format)
    build = functools.partial(_build_hessian, format, checked_order(order))
    return Transformed(function, build, argnums, "hessian", compile)


def _build_hessian(format: str, order: Order, traced: Traced) -> Built:
    node = _scalar_output(traced, "hessian")
    if format == "dense" or (format == "auto" and sum(x.size for x in traced.by) ** 2 <= AUTO_DENSE_SIZE):
        (node,) = rolled_steps([node])
    gradients = _gradient_nodes(node, traced.by, "auto")
    inner = replace(traced, outputs=tuple(gradients), output_tree=traced.wanted_tree)
    return deliver(inner, gradients, format, order, with_value=False)


# --- products ---------------------------------------------------------------------------------------------------


def jvp(function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, compile: bool = False) -> Callable[..., Any]:
    """Value and Jacobian-vector product: ``jvp(f)(x, tangent) -> (f(x), J @ tangent)``.

    Args:
        function: plain NumPy code.
        argnums: the positional argument (or arguments) that moves. The tangent is the last positional argument of the
            call, in the tree and shapes of that argument (a tuple of them if ``argnums`` is a sequence).
        compile: make machine code at the first call instead of when the function turns out to be hot; see
            :func:`compile`.

    Raises:
        InvalidInputError: the tangent has another tree or shape than the argument.

    >>> import numpy as np
    >>> import jacana as jc
    >>> jc.jvp(np.sin)(np.array([0.0, np.pi]), np.array([1.0, 2.0]))[1]
    array([ 1., -2.])
    """
    return _product(function, argnums, "jvp", compile)


def vjp(function: Callable[..., Any], argnums: int | Sequence[int] = 0, *, compile: bool = False) -> Callable[..., Any]:
    """Value and vector-Jacobian product: ``vjp(f)(x, cotangent) -> (f(x), cotangent @ J)``.

    Args:
        function: plain NumPy code.
        argnums: the positional argument (or arguments) to differentiate by. The cotangent is the last positional
            argument of the call, in the tree and shapes of the result.
        compile: make machine code at the first call instead of when the function turns out to be hot; see
            :func:`compile`.

    Raises:
        InvalidInputError: the cotangent has another tree or shape than the result.

    >>> import numpy as np
    >>> import jacana as jc
    >>> W = np.arange(6.0).reshape(2, 3)
    >>> jc.vjp(lambda x: W @ x)(np.ones(3), np.array([1.0, 10.0]))[1]
    array([30., 41., 52.])
    """
    return _product(function, argnums, "vjp", compile)


def _product(
    function: Callable[..., Any], argnums: int | Sequence[int], verb: str, compile: bool
) -> Callable[..., Any]:
    def with_vector(vector: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        return function(*args, **kwargs), vector

    functools.update_wrapper(with_vector, function)
    # The vector goes in front of the arguments, so that argnums from the end still count from the end.
    if isinstance(argnums, int):
        positions: int | tuple[int, ...] = argnums + (argnums >= 0)
    else:
        positions = tuple(k + (k >= 0) for k in argnums)

    def build(traced: Traced) -> Built:
        # The first leaves of the inputs are the vector's, and the last leaves of the result as well.
        from .complex import leaves_of, matched_vector

        result_tree, vector_tree = traced.output_tree.children()
        count = len(traced.complex_outputs) - vector_tree.num_leaves
        flags, vector_flags = traced.complex_outputs[:count], traced.complex_outputs[count:]
        outputs = traced.outputs[: count + sum(flags)]
        vector: Sequence[Node] = traced.outputs[len(outputs) :]
        wanted, tree = (traced.by, traced.wanted_tree) if verb == "jvp" else (list(outputs), result_tree)
        noun, like = ("tangent", "argument") if verb == "jvp" else ("cotangent", "result")
        if tree == vector_tree:
            leaves = leaves_of(wanted, traced.complex_wanted if verb == "jvp" else flags)
            vector = matched_vector(vector, vector_flags, leaves, f"{verb} of {traced.name}: the {noun}")
        if tree != vector_tree or any(a.shape != b.shape for a, b in zip(wanted, vector, strict=True)):
            raise InvalidInputError(
                f"{verb} of {traced.name}: the {noun} has shape {_shapes(vector)}, the {like} {_shapes(wanted)}"
            )
        outputs = tuple(rolled_steps(outputs, along=True))
        if verb == "jvp":
            products, into, kinds = jvp_nodes(outputs, traced.by, vector), result_tree, flags
        else:
            # The adjoint of the real derivative: the gradient of Re(sum(conj(cotangent) * result)).
            products, into, kinds = vjp_nodes(outputs, vector, traced.by), traced.wanted_tree, traced.complex_wanted

        def finish(arrays: list[Any]) -> Any:
            value = trees.unflatten(result_tree, whole_leaves(arrays[: len(outputs)], flags))
            return value, trees.unflatten(into, whole_leaves(arrays[len(outputs) :], kinds))

        return Built([*outputs, *products], finish)

    build.plan_key = ("product", verb)  # type: ignore[attr-defined]
    replay = Replay(with_vector, build, positions, verb, compile, takes_complex=True)
    replay.watched = function

    def product(*args: Any, **kwargs: Any) -> Any:
        if len(args) < 2:
            raise InvalidInputError(f"{verb} of {replay.name} takes the arguments and then the vector, at least two")
        *primals, vector = args
        leaves, tree = trees.flatten(vector)
        vector = trees.unflatten(tree, [np.float64(v) if issubclass(type(v), (int, float)) else v for v in leaves])
        return replay((vector, *primals), kwargs)

    return _Product(product, (function, argnums, verb, compile), f"{verb} of {replay.name}.")


class _Product:
    """What ``jvp`` and ``vjp`` return: a function that can be copied and pickled, as all transformed functions."""

    def __init__(self, call: Callable[..., Any], made_from: tuple[Any, ...], doc: str) -> None:
        self._call = call
        self._made_from = made_from
        functools.update_wrapper(self, made_from[0], updated=())
        self.__doc__ = doc

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._call(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return _product, self._made_from


def _shapes(nodes: Sequence[Node]) -> str:
    return ", ".join(str(node.shape) for node in nodes) or "no leaves"
