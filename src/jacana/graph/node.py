"""Nodes of the array program: frozen, interned, and nothing but what they compute.

Two nodes that compute the same thing are the same object, so equality is ``is``, common sub-expressions vanish by
themselves and a pass is a memoised function over nodes. A node holds no array: values live in a ``Variable`` while a
program is being written, and in the executor's buffers while it runs.
"""

from __future__ import annotations

import itertools
import operator
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .index import Index

Shape: TypeAlias = tuple[int, ...]
DType: TypeAlias = "np.dtype[Any]"
Array: TypeAlias = "np.ndarray[Any, Any]"


class Node:
    """One array of the program: an operation, its inputs, its parameters, and the shape and dtype that follow."""

    __slots__ = ("__weakref__", "dtype", "inputs", "op", "params", "serial", "shape", "size")

    op: Operation
    inputs: tuple[Node, ...]
    params: Any
    shape: Shape
    dtype: DType
    size: int
    serial: int

    def __repr__(self) -> str:
        dims = ",".join(map(str, self.shape))
        return f"<{self.op.name} {self.dtype.name}[{dims}] #{self.serial}>"

    @property
    def ndim(self) -> int:
        return len(self.shape)

    # Arithmetic builds nodes, so that a derivative rule reads like the formula it stands for.
    def __add__(self, other: Operand) -> Node:
        return _arith("add", self, other)

    def __radd__(self, other: Operand) -> Node:
        return _arith("add", other, self)

    def __sub__(self, other: Operand) -> Node:
        return _arith("subtract", self, other)

    def __rsub__(self, other: Operand) -> Node:
        return _arith("subtract", other, self)

    def __mul__(self, other: Operand) -> Node:
        return _arith("multiply", self, other)

    def __rmul__(self, other: Operand) -> Node:
        return _arith("multiply", other, self)

    def __truediv__(self, other: Operand) -> Node:
        return _arith("divide", self, other)

    def __rtruediv__(self, other: Operand) -> Node:
        return _arith("divide", other, self)

    def __pow__(self, other: Operand) -> Node:
        return _arith("power", self, other)

    def __neg__(self) -> Node:
        return REGISTRY["negative"](self)

    def __lt__(self, other: Operand) -> Node:
        return _arith("less", self, other)

    def __le__(self, other: Operand) -> Node:
        return _arith("less_equal", self, other)

    def __gt__(self, other: Operand) -> Node:
        return _arith("greater", self, other)

    def __ge__(self, other: Operand) -> Node:
        return _arith("greater_equal", self, other)


Operand: TypeAlias = "Node | float | int | bool"
Factor: TypeAlias = tuple[Node, tuple[int, ...]]


class Term(NamedTuple):
    """One term of a Jacobian: for every point d of ``domain``, ``J[row(d), col(d)] += product of factors(d)``.

    A factor is a node with the axes that its array axes stand for; without factors the coefficient is exactly one.
    ``masks`` are boolean factors: where one of them is false the entry is structurally zero, whatever the
    coefficient says (it may be NaN there). See ``docs/internals.md``.
    """

    domain: tuple[int, ...]
    row: tuple[Index, ...]
    col: tuple[Index, ...]
    factors: tuple[Factor, ...] = ()
    masks: tuple[Factor, ...] = ()


class Unit:
    """The partial derivative that is exactly one everywhere."""


UNIT = Unit()


class Masked(NamedTuple):
    """A partial derivative that exists only where ``mask`` is true and is structurally zero elsewhere."""

    mask: Node
    partial: Node | Unit


Partial: TypeAlias = "Node | Unit | Masked | None"
Edges: TypeAlias = "tuple[tuple[Term, ...] | None, ...]"


class Matrix(NamedTuple):
    """How a node that is a matrix multiplies without being formed: a linear map with fast products, such as an FFT.

    ``rows(matrix)`` counts its row axes, which come first. ``product(matrix, array, transposed)`` is ``matrix @ array``
    for an array whose first axes are the column axes of the matrix (its row axes, if transposed; any others follow);
    the result has the row (column) axes first. ``support(matrix)`` gives the places where it can be other than zero,
    each once, as rows of terms; None: anywhere. ``batch(matrix)`` counts the axes before the row axes, one matrix for
    each of their places: they come first in ``array`` and in the product, too. ``needs(matrix)`` are the nodes that a
    product is made of.

    ``slots(matrix, transposed)``: the map is *opaque*. It is never left as a factor; elimination multiplies by it at
    once, by an array that is filled in slots, ``(offset, size)`` along its first axis, so that slots which are
    structurally zero can be told. A map without slots of its own gives none.

    ``joint(matrix)``: of an opaque batch whose matrices may have the same columns, all as one matrix, with the axes of
    the batch among its rows. ``reach(matrix)``: of an opaque map, a function of places of rows and of columns that says
    at which pairs of them it can be other than zero (None: it cannot tell); where structure is asked for, a mask.

    ``copies(matrix)``: of a matrix whose elements are copies of those of its first input, or zero: the term that says
    where they are, its rows over the matrix and its columns over the input. ``band(matrix)``: the least and the
    greatest ``row - column`` of the places that can be other than zero, if every pair between is one. A map with either
    is left whole while terms are composed, and restricted to its places in the end.
    """

    rows: Callable[[Node], int]
    product: Callable[[Node, Node, bool], Node]
    support: Callable[[Node], tuple[Term, ...]] | None = None
    batch: Callable[[Node], int] = lambda matrix: 0
    needs: Callable[[Node], tuple[Node, ...]] = lambda matrix: matrix.inputs
    slots: Callable[[Node, bool], tuple[tuple[int, int], ...]] | None = None
    joint: Callable[[Node], Node] | None = None
    reach: Callable[[Node], Any] | None = None
    copies: Callable[[Node], Term] | None = None
    band: Callable[[Node], tuple[int, int]] | None = None

    @property
    def late(self) -> bool:
        """Whether the map is restricted to its places in the end only."""
        return self.copies is not None or self.band is not None


@dataclass(frozen=True, eq=False)
class Operation:
    """The one record of an operation. Nothing about an operation is written anywhere else.

    Attributes:
        name: what it is called in printed programs.
        family: ``leaf``, ``elementwise``, ``movement``, ``contraction``, ``reduction``, ``linalg``, ``special``,
            ``control`` or ``matrix``.
        evaluate: ``(params, *arrays) -> array``, the value by NumPy.
        infer: ``(params, *nodes) -> (shape, dtype)``.
        edges: ``node -> terms of each input`` (None: no derivative with respect to that input).
        emit: ``(emitter, *values) -> value``, scalar or vector machine code of an elementwise operation, or None.
        cost: rough number of floating-point operations for each element of the result.
        domain: for each input of an elementwise operation, the interval from which tests sample.
        special: ``(inputs, partials)`` rows: the derivative chosen at kinks, ties and bounds.
        smooth: whether the derivative is continuous on ``domain``.
        ufunc: the NumPy ufunc that this record differentiates, if there is one.
        fixed: inputs by which there is a derivative, but no rule for it: what depends on one cannot be derived.
        matrix: for an operation whose result is the matrix of a linear map: how to multiply by it unformed.
    """

    name: str
    family: str
    evaluate: Callable[..., Any]
    infer: Callable[..., tuple[Shape, DType]]
    edges: Callable[[Node], Edges]
    emit: Callable[..., Any] | None = None
    cost: float = 1.0
    domain: tuple[tuple[float, float], ...] = ()
    special: tuple[tuple[tuple[float, ...], tuple[float | None, ...]], ...] = ()
    smooth: bool = True
    ufunc: np.ufunc | None = None
    aliases: tuple[str, ...] = field(default=())
    fixed: tuple[int, ...] = ()
    matrix: Matrix | None = None

    def __call__(self, *inputs: Node, params: Any = None) -> Node:
        """The node that applies the operation to ``inputs``."""
        return _intern(self, inputs, params)

    def __repr__(self) -> str:
        return f"<operation {self.name}>"


REGISTRY: dict[str, Operation] = {}


def register(operation: Operation) -> Operation:
    """Enter a record in the table of operations."""
    assert operation.name not in REGISTRY, operation.name
    REGISTRY[operation.name] = operation
    return operation


class _Entry(weakref.ref[Node]):
    """A node in the table of all nodes: it leaves the table when nobody has it any more."""

    __slots__ = ("key",)

    key: tuple[Any, ...]


_nodes: dict[tuple[Any, ...], _Entry] = {}
_lock = threading.RLock()  # nodes may be collected, and leave the table, while one is entered
if hasattr(os, "register_at_fork"):  # a child is never born while a thread that it lacks holds the lock
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)


def _forget(
    entry: weakref.ref[Node], nodes: dict[tuple[Any, ...], _Entry] = _nodes, lock: threading.RLock = _lock
) -> None:
    # The table and its lock are arguments, since nodes also go when the globals of this module have gone.
    key = entry.key  # type: ignore[attr-defined]
    with lock:
        if nodes.get(key) is entry:  # else the same node has been made again meanwhile
            del nodes[key]


_serial = itertools.count()


def _intern(op: Operation, inputs: tuple[Node, ...], params: Any) -> Node:
    key = (op.name, inputs, params)
    entry = _nodes.get(key)
    if entry is not None:
        found = entry()
        if found is not None:
            return found
    shape, dtype = op.infer(params, *inputs)
    node = Node.__new__(Node)
    node.op, node.inputs, node.params, node.shape, node.dtype = op, inputs, params, shape, dtype
    size = 1
    for n in shape:
        size *= n
    node.size = size
    entry = _Entry(node, _forget)
    entry.key = key
    with _lock:
        node.serial = next(_serial)
        known = _nodes.setdefault(key, entry)
        if known is not entry:  # of another thread, just now, or of a node that is going
            found = known()
            if found is not None:
                return found
            _nodes[key] = entry
    return node


def next_serial() -> int:
    """A number greater than that of every node so far, and smaller than that of every node made from now on."""
    with _lock:
        return next(_serial)


# --- leaves -----------------------------------------------------------------------------------------------------


class InputParams(NamedTuple):
    """An argument of the program, told from others by its number.

    ``zeros``: of an argument whose zeros are known and count as structure, an owner whose ``value()`` has them.
    """

    number: int
    shape: Shape
    dtype: DType
    zeros: Any = None


class LiteralParams(NamedTuple):
    """A number written in the program, kept as bytes so that -0.0, 0.0 and NaN are each themselves."""

    dtype: DType
    data: bytes


class ConstantParams(NamedTuple):
    """An array that the program captured. ``owner`` is compared by identity and knows where the array comes from."""

    owner: Any
    shape: Shape
    dtype: DType


def _leaf_value(params: Any) -> Array:
    raise AssertionError("a leaf has no inputs to evaluate")


def _no_edges(node: Node) -> Edges:
    return tuple(None for _ in node.inputs)


INPUT = register(Operation("input", "leaf", _leaf_value, lambda p: (p.shape, p.dtype), _no_edges, cost=0))
CONSTANT = register(Operation("constant", "leaf", _leaf_value, lambda p: (p.shape, p.dtype), _no_edges, cost=0))
LITERAL = register(Operation("literal", "leaf", lambda p: literal_array(p), lambda p: ((), p.dtype), _no_edges, cost=0))

_input_numbers = itertools.count()


def new_input(shape: Shape, dtype: DType, zeros: Any = None) -> Node:
    """A fresh argument, different from every other."""
    return INPUT(params=InputParams(next(_input_numbers), shape, dtype, zeros))


def literal(value: Any, dtype: DType) -> Node:
    """A zero-dimensional number."""
    return LITERAL(params=LiteralParams(dtype, np.asarray(value, dtype=dtype).tobytes()))


def literal_array(params: LiteralParams) -> Array:
    """The value of a literal as a zero-dimensional array."""
    return np.frombuffer(params.data, dtype=params.dtype).reshape(())


def literal_value(node: Node) -> Any:
    """The Python number that every element of ``node`` is, if it is a literal or a broadcast literal; else None."""
    while node.op.name == "index":
        node = node.inputs[0]
    return literal_array(node.params).item() if node.op is LITERAL else None


def _arith(name: str, a: Operand, b: Operand) -> Node:
    from .build import full  # the builders need the records, which need nodes

    like = a if isinstance(a, Node) else b
    assert isinstance(like, Node)
    left = a if isinstance(a, Node) else full(a, like.shape, like.dtype)
    right = b if isinstance(b, Node) else full(b, like.shape, like.dtype)
    return REGISTRY[name](left, right)


def topological(outputs: Iterable[Node]) -> list[Node]:
    """Every node that ``outputs`` need, inputs before users; no recursion, so depth does not matter."""
    order: list[Node] = []
    seen: set[Node] = set()
    stack: list[Node | None] = list(outputs)
    while stack:
        node = stack.pop()
        if node is None:  # the inputs of the node below are done
            order.append(stack.pop())  # type: ignore[arg-type]
        elif node not in seen:
            seen.add(node)
            inputs = node.inputs
            if inputs:
                stack += (node, None)
                for i in inputs[::-1]:
                    if i not in seen:
                        stack.append(i)
            else:
                order.append(node)
    return order


_age = operator.attrgetter("serial")


def substitute_nodes(outputs: Sequence[Node], replacement: dict[Node, Node]) -> list[Node]:
    """The program with some nodes replaced by others of the same shape and dtype, made in the order of the old ones."""
    new = dict(replacement)
    for node in sorted(topological(outputs), key=_age):
        if node not in new:
            inputs = tuple(new[i] for i in node.inputs)
            new[node] = node if inputs == node.inputs else node.op(*inputs, params=node.params)
    return [new[node] for node in outputs]
