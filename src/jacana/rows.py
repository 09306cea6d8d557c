"""A function recorded for one row of its arguments, and run by machine code for each row of arrays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from . import trees
from .errors import JacanaError
from .graph.garbage import seldom_collected
from .graph.node import Array, Node, new_input, substitute_nodes
from .graph.simplify import simplify
from .graph.structure import structure
from .record.recording import record
from .record.variable import as_node, raw, wrap_node
from .record.watch import Watches
from .run import Program, background, compile_numpy, native_available

__all__ = ["Recorded", "Rows", "recorded_rows"]

KEPT = 32  # programs; the least recently used goes first

_known: OrderedDict[Any, Callable[..., list[Array]] | None] = OrderedDict()
_lock = threading.Lock()


class Rows(NamedTuple):
    """A function of one row for every row of C-contiguous arrays.

    Calling it with arrays that have one axis more than the example, in front, gives the leaves of the results with
    that axis.
    """

    run: Callable[..., list[Array]]
    captured: tuple[Array, ...]
    live: tuple[tuple[int, Callable[[], Array]], ...]  # which of the captured arrays others may write into

    @classmethod
    def of(cls, run: Callable[..., list[Array]], owners: Sequence[Any]) -> Rows:
        live = [(k, owner.value) for k, owner in enumerate(owners) if getattr(owner, "live", True)]
        return cls(run, tuple([np.ascontiguousarray(owner.value()) for owner in owners]), tuple(live))

    def __call__(self, *arrays: Array) -> list[Array]:
        captured = list(self.captured)
        for k, fetch in self.live:
            captured[k] = np.ascontiguousarray(fetch())
        return self.run(*arrays, *captured)


@dataclass(frozen=True)
class Recorded:
    """A function that was recorded for one row.

    Attributes:
        watches: what it read from outside.
    """

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]
    watches: Watches

    def replayed(self) -> Callable[..., Any]:
        """The function again, for other Variables: what it did, without running it. Returns the leaves of its results
        as a tuple."""
        run = compile_numpy(Program(self.inputs, self.outputs))

        def function(*arguments: Any) -> tuple[Any, ...]:
            numbers = [np.asarray(raw(argument)) for argument in arguments]
            nodes = substitute_nodes(self.outputs, dict(zip(self.inputs, map(as_node, arguments), strict=True)))
            return tuple([wrap_node(node, value) for node, value in zip(nodes, run(numbers), strict=True)])

        return function

    def compiled(self) -> Rows | None:
        """Machine code for it, all threads taking part; None where something that it does needs NumPy.

        A program that differs in its captured numbers alone is compiled once.
        """
        from .run.native.rows import native_rows

        found = structure(self.inputs, self.outputs)
        owners = [node.params.owner for node in found.constants]
        with _lock:
            if found.key in _known:
                _known.move_to_end(found.key)
                run = _known[found.key]
                return None if run is None else Rows.of(run, owners)
        # Leaves of its own: what is kept must not keep the arrays of the recording.
        leaves = {node: new_input(node.shape, node.dtype) for node in (*self.inputs, *found.constants)}
        own, count = list(leaves.values()), len(self.inputs)
        with background.compiling, seldom_collected():
            run = native_rows(own[:count], own[count:], simplify(substitute_nodes(self.outputs, leaves)))
        with _lock:
            _known[found.key] = run
            while len(_known) > KEPT:
                _known.popitem(last=False)
        return None if run is None else Rows.of(run, owners)


def recorded_rows(function: Callable[..., Any], example: Sequence[Any]) -> Recorded | None:
    """Record a function of one row.

    Args:
        function: takes one array for each of `example` and returns arrays, in any structure.
        example: one row of each argument: the shapes and dtypes that all rows have.

    Returns:
        The recording, or None where there is no machine code here, the function looks at values, or cannot be recorded.
    """
    if not native_available():
        return None
    try:
        recording = record(function, [np.asarray(row) for row in example])
    except JacanaError:
        return None
    outputs = tuple([as_node(leaf) for leaf in trees.flatten(recording.result)[0]])
    if recording.guards or Program(recording.inputs, outputs).free_inputs():
        return None
    return Recorded(recording.inputs, outputs, recording.watches)
