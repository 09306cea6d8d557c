"""What a compiled program does besides its machine code: which buffers there are, and what is called with them.

A recipe can be written down as JSON and read in another process, where the nodes that it speaks of are found again by
their positions in a program of the same structure.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from ...graph.build import FrozenArray
from ...graph.fingerprint import Fingerprint
from ...graph.index import Table
from ...graph.node import CONSTANT, INPUT, LITERAL, Array, DType, LiteralParams, Node, Shape
from ...plan import Call, Group, NativePlan
from ..program import Program

if TYPE_CHECKING:
    from .stages import Stage


class Buffer(NamedTuple):
    """An array that the program allocates; ``zeroed`` if not every element is written."""

    shape: Shape
    dtype: DType
    zeroed: bool


Source: TypeAlias = "Buffer | Table | LiteralParams | FrozenArray | Node | None"
"""What is in a slot: a buffer, a table, a number, an array of the program's own, a captured one (its node); None: what
a step puts there."""


@dataclass(frozen=True)
class Launch:
    """Call a group of kernels with the arrays in these slots."""

    name: str
    slots: tuple[int, ...]


@dataclass(frozen=True)
class Invoke:
    """Let NumPy compute a node from these slots, into another."""

    node: Node
    slots: tuple[int, ...]
    result: int


@dataclass(frozen=True)
class Recipe:
    """Slots (after those of the inputs), steps in order, the slots of the results, the C functions that are called.

    ``status``: the slot in which machine code says what went wrong (``run/loops.py``).
    """

    sources: tuple[Source, ...]
    steps: tuple[Launch | Invoke, ...]
    results: tuple[int, ...]
    symbols: tuple[str, ...]
    entered: bool = False  # whether there is a builtin that does everything (``entry.py``)
    status: int | None = None

    @property
    def exported(self) -> list[str]:
        """The functions that the machine code defines."""
        return list(dict.fromkeys(step.name for step in self.launches))

    @property
    def launches(self) -> list[Launch]:
        """The groups of kernels in order."""
        return [step for step in self.steps if isinstance(step, Launch)]


@dataclass(frozen=True)
class Emitted:
    """A program as LLVM code before optimisation; ``straight``: its long straight-line functions, if it has any."""

    recipe: Recipe
    text: str
    straight: str = ""


def make_recipe(program: Program, plan: NativePlan, stages: Sequence[Stage], symbols: set[str]) -> Recipe:
    """Number the buffers of a plan, which its stages take."""
    steps = plan.steps
    count = len(program.inputs)
    place: dict[Node | Table, int] = {node: k for k, node in enumerate(program.inputs)}
    sources: list[Source] = []
    invoked = {step.node for step in steps if isinstance(step, Call)}

    def slot(key: Node | Table) -> int:
        if key in place:
            return place[key]
        if isinstance(key, Table):
            source: Source = key
        elif key.op is LITERAL:
            source = key.params
        elif key.op is CONSTANT:
            source = constant_source(key)
        elif key.op is INPUT and key not in plan.partial:
            raise AssertionError(key)
        else:
            # A buffer that no job writes is an empty array or an array of structural zeros.
            source = None if key in invoked else Buffer(key.shape, key.dtype, key in plan.zeroed or key not in written)
        sources.append(source)
        place[key] = count + len(sources) - 1
        return place[key]

    groups = [step for step in steps if isinstance(step, Group)]
    written = {job.buffer for group in groups for kernel in group.kernels for job in kernel.jobs}
    following = iter(stages)
    done: list[Launch | Invoke] = []
    before: Any = None
    for step in steps:
        if isinstance(step, Call):
            done.append(Invoke(step.node, tuple(slot(i) for i in step.node.inputs), slot(step.node)))
        elif not isinstance(before, Group):
            stage = next(following)
            done.append(Launch(f"call_{stage.name}", tuple(slot(key) for key in stage.used)))
        before = step
    own = {node for stage in stages for node in stage.own}
    for node in sorted(plan.buffers - own, key=lambda node: node.serial):
        slot(node)
    results = tuple(slot(node) for node in program.outputs)
    return Recipe(tuple(sources), tuple(done), results, tuple(sorted(symbols)))


def _array_text(array: Array) -> list[Any]:
    return [list(array.shape), base64.b64encode(array.tobytes()).decode()]


def constant_source(node: Node) -> Source:
    """A captured array, or one of the program's own, which is the same wherever the program is."""
    owner = node.params.owner
    return owner if isinstance(owner, FrozenArray) else node


def write_recipe(recipe: Recipe, known: Fingerprint) -> Any | None:
    """The recipe as JSON; None if it speaks of a node that the program does not have."""
    nodes = {node: k for k, node in enumerate(known.nodes)}
    tables = {table: k for k, table in enumerate(known.tables)}

    def source(value: Source) -> Any:
        match value:
            case None:
                return None
            case Buffer():
                return ["buffer", list(value.shape), value.dtype.str, value.zeroed]
            case LiteralParams():
                return ["literal", value.dtype.str, value.data.hex()]
            case Table():
                if value in tables:
                    return ["table", tables[value]]
                return ["values", *_array_text(value.values)]
            case FrozenArray():
                return ["array", value.array.dtype.str, *_array_text(value.array)]
            case _:
                return ["constant", nodes[value]]

    try:
        return {
            "sources": [source(value) for value in recipe.sources],
            "steps": [
                [step.name, step.slots]
                if isinstance(step, Launch)
                else [nodes[step.node], step.slots, step.result]
                for step in recipe.steps
            ],
            "results": recipe.results,
            "symbols": recipe.symbols,
            "entered": recipe.entered,
            "status": recipe.status,
        }  # fmt: skip
    except KeyError:
        return None


def read_recipe(text: Any, known: Fingerprint, count: int) -> Recipe:
    """The recipe that :func:`write_recipe` wrote for a program of the same structure, with ``count`` inputs.

    Raises:
        LookupError, TypeError, ValueError: it did not write this.
    """

    def source(value: Any) -> Source:
        match value:
            case None:
                return None
            case ["buffer", shape, dtype, zeroed]:
                return Buffer(tuple(shape), np.dtype(dtype), zeroed)
            case ["literal", dtype, data]:
                return LiteralParams(np.dtype(dtype), bytes.fromhex(data))
            case ["table", k]:
                table: Table = known.tables[k]
                return table
            case ["values", shape, data]:
                return Table(np.frombuffer(base64.b64decode(data), np.int64).reshape(shape))
            case ["array", dtype, shape, data]:
                return FrozenArray(np.frombuffer(base64.b64decode(data), np.dtype(dtype)).reshape(shape))
            case ["constant", k]:
                node: Node = known.nodes[k]
                return node
        raise ValueError(value)

    recipe = Recipe(
        tuple(source(value) for value in text["sources"]),
        tuple(
            Launch(step[0], tuple(step[1]))
            if len(step) == 2
            else Invoke(known.nodes[step[0]], tuple(step[1]), step[2])
            for step in text["steps"]
        ),
        tuple(text["results"]),
        tuple(text["symbols"]),
        bool(text["entered"]),
        text["status"],
    )  # fmt: skip
    slots = [*recipe.results, *(k for step in recipe.steps for k in step.slots), recipe.status or 0]
    if not all(0 <= k < count + len(recipe.sources) for k in slots):
        raise ValueError(slots)
    return recipe
