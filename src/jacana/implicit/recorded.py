"""From a solver called with recorded values to one node of the graph.

The user's function is recorded at the solution, as a program F of the unknowns x. What F reads of the program around it
are the arguments theta of the node. When the program is replayed the solver runs on F, from the same start, so no
Python of the user runs; and where F looked at values of x (an ``if``), what it saw at the solution is guarded: at
another solution where it would see something else, everything is recorded again.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ConvergenceError, RecordingError
from ..graph.build import FrozenArray, cast_to
from ..graph.node import CONSTANT, LITERAL, Array, Node, new_input, substitute_nodes, topological
from ..graph.ops.implicit import ImplicitParams, implicit
from ..record import Recording, Variable, as_node, current_recording, record, wrap_node
from ..record.leaves import leaf_value
from ..record.location import user_line
from ..record.recording import not_recording
from ..record.variable import tracked
from ..run import Compiled, Program, compile_numpy

__all__ = ["Flat", "Part", "Run", "Solution", "depends_on_outside", "numbers", "recorded_part", "solution"]

_ATTEMPTS = 8  # times that F is recorded again where it branches otherwise at the solution it led to


def depends_on_outside(value: Any) -> bool:
    """Whether any leaf of what a function of plain numbers returned is a Variable that depends on something."""
    if type(value) is np.ndarray:  # microseconds count in small fits
        return False
    from .. import trees

    return any(tracked(leaf) is not None for leaf in trees.flatten(value)[0])


class Flat:
    """A recorded program of one vector, shape (n,), and of arguments that lie in buffers: a function for solvers.

    It takes ndarrays and, to be differentiated, Variables. Not for several threads at once.
    """

    def __init__(self, unknown: Node, arguments: Sequence[Node], output: Node) -> None:
        self.unknown, self.arguments, self.output = unknown, tuple(arguments), output
        self.buffers = [np.zeros(node.shape, node.dtype) for node in arguments]
        self._run = Compiled(Program((unknown, *arguments), (output,)))

    def another(self) -> Flat:
        """The same program, compiled or not, with buffers of its own."""
        found = copy.copy(self)
        found.buffers = [np.zeros_like(buffer) for buffer in self.buffers]
        return found

    def fill(self, arrays: Sequence[Array]) -> None:
        """Take other arguments."""
        for buffer, array in zip(self.buffers, arrays, strict=True):
            buffer[...] = array

    def __call__(self, x: Any) -> Any:
        number = np.ascontiguousarray(x._value if isinstance(x, Variable) else x, dtype=self.unknown.dtype)
        number = number.reshape(self.unknown.shape)
        value = self._run([number, *self.buffers])[0]
        if not isinstance(x, Variable):
            return value
        here = cast_to(as_node(x), self.unknown.dtype)
        constants = [as_node(buffer) for buffer in self.buffers]
        leaves = (self.unknown, *self.arguments)
        (node,) = substitute_nodes([self.output], dict(zip(leaves, (here, *constants), strict=True)))
        return wrap_node(node, value)


@dataclass(frozen=True)
class Run:
    """How a search ended: x, shape (n,), whether it is a solution, and why not."""

    x: Array
    success: bool
    message: str


class Solver:
    """What an implicit node runs: a search on a recorded program, with idle ones kept for the next run."""

    def __init__(
        self, name: str, line: str, make: Callable[[Flat], Callable[[Array], Run]], flat: Flat, together: Any = None
    ) -> None:
        self.name, self.line, self.together = name, line, together
        self._make, self._first = make, flat
        self._idle: list[tuple[Flat, Callable[[Array], Run]]] = []
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def run(self, start: Array, arguments: Sequence[Array]) -> Array:
        """The solution for these arguments, searched for from ``start``.

        Raises:
            ConvergenceError: the search does not end at a solution.
        """
        with self._lock:
            found = self._idle.pop() if self._idle else None
        if found is None:
            flat = self._first.another()
            found = flat, self._make(flat)
        flat, search = found
        flat.fill(arguments)
        try:
            end = search(np.array(start))
        except ConvergenceError:
            raise
        except Exception as error:
            raise ConvergenceError(f"{self.name}, run for other arguments, failed: {error}{self.line}") from error
        with self._lock:
            self._idle.append(found)
        if not end.success:
            raise ConvergenceError(f"{self.name} found no solution: {end.message}{self.line}")
        return np.asarray(end.x, dtype=flat.unknown.dtype).reshape(flat.unknown.shape)


@dataclass(frozen=True)
class Solution:
    """A recorded solution: ``x``, a Variable of shape (n,), and ``output``, the recorded function at x, a Variable."""

    x: Variable
    output: Variable


@dataclass(frozen=True)
class Part:
    """A recording of the user's function at one x, cut off from the program around it."""

    recording: Recording
    unknown: Node
    arguments: tuple[Node, ...]  # leaves
    outside: tuple[Node, ...]  # what they are in the program around
    output: Node
    result: Node
    looks: tuple[tuple[Node, Array], ...]  # guards that depend on x, over the leaves


def solution(
    function: Callable[[Any], Any],
    start: Array,
    *,
    watched: Callable[..., Any],
    name: str,
    make: Callable[[Flat], Callable[[Array], Run]],
    equations: Callable[[Node, Node], Node] = lambda output, unknown: output,
    start_node: Node | None = None,
    first: Array | None = None,
    together: Callable[[ImplicitParams, Array, Sequence[Array]], tuple[Array, Array] | None] | None = None,
) -> Solution:
    """The solution of a problem whose function depends on recorded values, as a value with derivatives.

    Args:
        function: of one vector x, shape (n,); returns one array (recorded where it depends on the program around).
        start: where the search begins, shape (n,), float.
        watched: the user's function, whose outside state the recording depends on.
        name: of the solver, for messages.
        make: from the recorded program to the search: start -> `Run`.
        equations: from the node of what the function returns, and that of x, to that of F(x), shape (n,), which is zero
            at the solution.
        start_node: how the start is computed, if it depends on something.
        first: where the function is recorded first, shape (n,), if the search begins with something else than one x.
        together: what solves a batch of samples as far as it can: solutions, and which samples have one.

    Raises:
        ConvergenceError: the search fails, or wanders between branches of the function.
    """
    line = user_line()
    begin = start_node if start_node is not None else as_node(start)
    point = start if first is None else first
    for _ in range(_ATTEMPTS):
        part = recorded_part(function, point, watched)
        flat = Flat(part.unknown, part.arguments, part.output)
        solver = Solver(name, line, make, flat, together)
        values = numbers(part.outside)
        with not_recording():
            point = solver.run(start, values)
        if _same_looks(part, point, values):
            break
    else:
        raise ConvergenceError(
            f"{name}: at each solution of one branch of the function, the function takes another branch, so there is "
            f"no solution that it agrees with. Write its branches with np.where or jacana.cond.{line}"
        )
    residual = equations(part.output, part.unknown)
    params = ImplicitParams(part.unknown, part.arguments, residual, solver)
    node = implicit(cast_to(begin, start.dtype), *part.outside, params=params)
    outer = current_recording()
    leaves = dict(zip((part.unknown, *part.arguments), (node, *part.outside), strict=True))
    if outer is not None:
        outer.watches.include(part.recording.watches)
        looked = substitute_nodes([look for look, _ in part.looks], leaves)
        for look, (_, value) in zip(looked, part.looks, strict=True):
            outer.guard(look, value)
    (at,) = substitute_nodes([part.output], leaves)
    flat.fill(values)
    return Solution(wrap_node(node, point), wrap_node(at, flat(point)))


def recorded_part(function: Callable[[Any], Any], x: Array, watched: Callable[..., Any]) -> Part:
    """Record at x, and cut the result off from the program around."""
    recording = record(watched, [x], wrap=lambda _, v: function(v))
    result = recording.result
    if not isinstance(result, (Variable, np.ndarray, float, int, np.generic)):
        raise RecordingError(f"a function to be solved returned {type(result).__name__}{user_line()}")
    node = as_node(result)
    node = node if node.dtype.kind == "f" else cast_to(node, x.dtype)
    (given,) = recording.inputs
    varying = {given}
    plain: set[Node] = set()  # numbers written in the function, and what is made of them alone, stay where they are
    for n in topological([node, *(look for look, _ in recording.guards)]):
        if any(i in varying for i in n.inputs):
            varying.add(n)
        elif (
            n.op is LITERAL
            or (n.op is CONSTANT and isinstance(n.params.owner, FrozenArray))
            or (n.inputs and all(i in plain for i in n.inputs))
        ):
            plain.add(n)
    outer = current_recording()
    for look, value in recording.guards:
        if look not in varying and outer is not None:
            outer.guard(look, value)
    seen = [(look, value) for look, value in recording.guards if look in varying]
    ends = [node, *(look for look, _ in seen)]
    border: dict[Node, None] = {}
    for n in topological(ends):
        for i in n.inputs if n in varying else (n,) if n is node else ():
            if i not in varying and i not in plain:
                border[i] = None
    unknown = new_input(x.shape, x.dtype)
    leaves = [new_input(n.shape, n.dtype) for n in border]
    moved = substitute_nodes(ends, {given: unknown, **dict(zip(border, leaves, strict=True))})
    looks = tuple((m, value) for m, (_, value) in zip(moved[1:], seen, strict=True))
    return Part(recording, unknown, tuple(leaves), tuple(border), moved[0], node, looks)


def numbers(nodes: Sequence[Node]) -> list[Array]:
    """The present numbers of nodes of the program around."""
    program = Program((), tuple(nodes))
    free = program.free_inputs()
    run = compile_numpy(Program(tuple(free), tuple(nodes)))
    return run([np.asarray(leaf_value(node), order="C") for node in free])


def _same_looks(part: Part, x: Array, values: Sequence[Array]) -> bool:
    if not part.looks:
        return True
    nodes = tuple(look for look, _ in part.looks)
    found = compile_numpy(Program((part.unknown, *part.arguments), nodes))([np.asarray(x, order="C"), *values])
    return all(
        np.array_equal(value, wanted, equal_nan=np.asarray(wanted).dtype.kind == "f")
        for value, (_, wanted) in zip(found, part.looks, strict=True)
    )
