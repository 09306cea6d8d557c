"""Simplification of a finished program: the same numbers, bit for bit, by fewer operations.

What is done holds for every number, NaN, infinities and -0.0 among them, and in every executor:

* operations whose rounding is fixed (arithmetic, comparisons, logic, conversions) on numbers known for ever are done
  once, here; functions such as ``sin`` are not, as executors round them differently;
* ``x * 1``, ``x / 1``, ``x - 0``, ``x + -0.0`` and ``-(-x)`` are ``x``; ``x + 0.0`` (for -0.0) and ``0 * x`` (for NaN)
  are left as they are;
* a choice by a mask that is true or false everywhere, or between equals, is what it chooses.

Common subexpressions are one node already (``node._intern``), and what no output needs is not reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .build import FrozenArray, constant_array, index_node, remade
from .node import CONSTANT, LITERAL, Array, Node, literal, literal_array, topological
from .ops.movement import index

SMALL = 1024  # elements up to which a result is kept as a constant
_ARITHMETIC = ("add", "subtract", "multiply", "divide", "negative", "absolute", "square", "sqrt")
_COMPARISONS = ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
_LOGIC = ("logical_and", "logical_or", "logical_xor", "logical_not", "select", "cast")
_LEAVES = (LITERAL, CONSTANT)  # what a known value can come from
_EXACT = frozenset((*_ARITHMETIC, *_COMPARISONS, *_LOGIC))


def simplify(outputs: Sequence[Node]) -> list[Node]:
    """The same program, simplified."""
    new: dict[Node, Node] = {}  # of those that change, which are few
    known: set[Node] = set()  # nodes whose elements may be known, and negated ones: all others have nothing to give
    for node in topological(outputs):
        made = node
        if new and not new.keys().isdisjoint(node.inputs):
            made = remade(node, tuple([new.get(i, i) for i in node.inputs]))
        name = made.op.name
        if name in _EXACT and (name == "select" or not known.isdisjoint(made.inputs)):
            made = _without_effect(made) or _computed(made) or made
        if made is not node:
            new[node] = made
        op = _root(made).op if made.op is index else made.op
        if op in _LEAVES or name == "negative":
            known.add(made)
    return [new.get(node, node) for node in outputs]


def _root(node: Node) -> Node:
    """What a node replicates, or reads in another order."""
    while node.op is index:
        node = node.inputs[0]
    return node


def _number(node: Node) -> Array | None:
    """The number that every element of a node is, if it is one number replicated."""
    while node.op is index and node.size:
        node = node.inputs[0]
    if node.op is LITERAL:
        return literal_array(node.params)
    return None


def _fixed(node: Node) -> Array | None:
    """The elements of a constant that nobody can change, or of a number replicated."""
    if node.op is CONSTANT:
        owner = node.params.owner
        return owner.value() if isinstance(owner, FrozenArray) else None
    number = _number(node)
    return None if number is None else np.broadcast_to(number, node.shape)


def _computed(node: Node) -> Node | None:
    """The value of a node whose inputs are known for ever, if it is small."""
    for i in node.inputs:
        if i.op is not index and i.op not in _LEAVES:
            return None
    numbers = [_number(i) for i in node.inputs]
    if all([n is not None for n in numbers]):
        value = _evaluated(node, numbers)
        return index_node(literal(value, node.dtype), node.shape, ())
    if node.size > SMALL:
        return None
    known = [_fixed(i) for i in node.inputs]
    if any([k is None for k in known]):
        return None
    return constant_array(np.asarray(_evaluated(node, known)))


def _evaluated(node: Node, values: Sequence[Any]) -> Any:
    with np.errstate(all="ignore"):
        return node.op.evaluate(node.params, *values)


def _is(value: float) -> Callable[[Node], bool]:
    def check(node: Node) -> bool:
        number = _number(node)
        return number is not None and number == value and math.copysign(1.0, number) == math.copysign(1.0, value)

    return check


_one, _zero, _negative_zero = _is(1.0), _is(0.0), _is(-0.0)


def _without_effect(node: Node) -> Node | None:
    """The input that the node always equals, if there is one."""
    if node.op.name == "select":
        mask, first, second = node.inputs
        if first is second:
            return first
        known = _fixed(mask)
        if known is not None and known.size:
            return first if known.all() else None if known.any() else second
        return None
    if node.dtype.kind != "f":
        return None
    name, a, b = node.op.name, node.inputs[0], node.inputs[-1]
    if name == "multiply":
        return a if _one(b) else b if _one(a) else None
    if name == "add":
        return a if _negative_zero(b) else b if _negative_zero(a) else None
    if (name == "divide" and _one(b)) or (name == "subtract" and _zero(b)):
        return a
    if name == "negative" and a.op is node.op:
        return a.inputs[0]
    return None


__all__ = ["simplify"]
