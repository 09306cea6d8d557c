"""Derivatives of what was computed as it was written, by programs that are found again by structure.

A define-by-run loop builds the same graph with new leaves in every iteration. Its structure is hashed; if a derivative
of it has been derived before, that program runs on the new numbers, compiled if it has become hot. Captured arrays
become arguments too, as each iteration captures them anew.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from .differentiate import dense_jacobians, vjp_nodes
from .graph.build import cast_to
from .graph.node import CONSTANT, Array, Node, new_input, substitute_nodes, topological
from .run import Compiled, Origin, Program, compile_numpy

KEPT = 64  # programs; the least recently used goes first

_known: OrderedDict[bytes, Compiled] = OrderedDict()
_lock = threading.Lock()

Derive = Callable[[list[Node], list[Node]], list[Node]]


def node_jacobians(outputs: list[Node], inputs: list[Node], leaf_values: dict[Node, Array]) -> list[list[Array]]:
    """Dense Jacobians of nodes by nodes at the given values of the leaves."""

    def derive(outputs: list[Node], inputs: list[Node]) -> list[Node]:
        return [node for row in dense_jacobians(outputs, inputs) for node in row]

    flat = _run("jacobians", outputs, inputs, leaf_values, derive)
    return [flat[i * len(inputs) : (i + 1) * len(inputs)] for i in range(len(outputs))]


def node_vjp(
    outputs: list[Node], cotangents: list[Array], inputs: list[Node], leaf_values: dict[Node, Array]
) -> list[Array]:
    """The vector-Jacobian product of nodes at the given values of the leaves, in the dtypes of ``inputs``."""
    seeds = [new_input(y.shape, y.dtype) for y in outputs]

    def derive(outputs: list[Node], given: list[Node]) -> list[Node]:
        seeds, inputs = given[: len(outputs)], given[len(outputs) :]
        return [cast_to(n, x.dtype) for n, x in zip(vjp_nodes(outputs, seeds, inputs), inputs, strict=True)]

    values = {s: np.asarray(c, dtype=s.dtype) for s, c in zip(seeds, cotangents, strict=True)}
    return _run("vjp", outputs, [*seeds, *inputs], {**leaf_values, **values}, derive)


def _run(
    what: str, outputs: Sequence[Node], given: Sequence[Node], leaf_values: dict[Node, Array], derive: Derive
) -> list[Array]:
    """The arrays of ``derive(outputs, given)``; ``given`` are leaves, all leaves have values."""
    order = topological([*given, *outputs])
    leaves = [node for node in order if node in leaf_values]
    constants = [node for node in order if node.op is CONSTANT]
    place = {node: k for k, node in enumerate(leaves)}
    how = f"{what} {[place[node] for node in given]}"
    known = Origin(tuple(leaves), tuple(outputs), how).fingerprint(content=False)
    values = [np.asarray(leaf_values[node], order="C") for node in leaves]
    if known is None:
        return compile_numpy(Program(tuple(leaves), tuple(derive(list(outputs), list(given)))))(values)
    with _lock:
        compiled = _known.get(known.digest)
        if compiled is not None:
            _known.move_to_end(known.digest)
    if compiled is None:
        # Inputs of its own: neither the leaves nor the captured arrays of this iteration are kept.
        own = {node: new_input(node.shape, node.dtype) for node in (*leaves, *constants)}
        moved = substitute_nodes(list(outputs), dict(own))
        wanted = [own[node] for node in given]
        inputs = tuple(own.values())
        compiled = Compiled(
            lambda: Program(inputs, tuple(derive(moved, wanted))),
            origin=Origin(inputs, tuple(moved), how),
        )
        with _lock:
            _known[known.digest] = compiled
            while len(_known) > KEPT:
                _known.popitem(last=False)
    return compiled([*values, *(np.asarray(node.params.owner.value(), order="C") for node in constants)])
