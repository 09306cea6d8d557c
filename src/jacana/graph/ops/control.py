"""Loops as nodes: a body that is a program of its own, run many times.

A loop has one result, a vector with a *slot* for everything that a step makes: the last carries, the carries before
each step, and the outputs of each step, one after another. Its floating-point arguments are packed into one vector in
the same way, so that a loop is one vertex with one edge, whatever number of arrays go in and out. Slots that nobody
reads are never stored: ``plan/loops.py`` takes the vectors apart again before a program is run, so the layout here
costs nothing and can be generous.

What has an integer dtype goes through a second vector and a second node of the same body (``floats`` false), because
integers have no derivative.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...errors import DifferentiationError
from ..index import Affine, Index, identity
from ..node import INPUT, Array, DType, Edges, InputParams, Matrix, Node, Operation, Shape, Term, register
from ..node import substitute_nodes as _substitute

INT = np.dtype(np.int64)


class Body(NamedTuple):
    """One step of a loop: a program from ``step`` (its number), carries, slices of stacks, and constants.

    Every float input and result has one dtype, everything else is int64. The inputs are numbered by position, so two
    bodies that compute the same are equal. ``go``: a boolean of the step's inputs; the loop ends where it is false.
    ``window``: the two constants between which the numbers of the steps that are run lie (the others leave everything
    as it is, their outputs are zero). ``counter``: the float carry that counts the steps, for a loop with ``go``.
    """

    step: Node
    carries: tuple[Node, ...]
    stacks: tuple[Node, ...]
    consts: tuple[Node, ...]
    carried: tuple[Node, ...]
    outputs: tuple[Node, ...]
    go: Node | None = None
    window: tuple[int, int] | None = None
    counter: int | None = None

    @property
    def inputs(self) -> tuple[Node, ...]:
        return (self.step, *self.carries, *self.stacks, *self.consts)

    @property
    def results(self) -> tuple[Node, ...]:
        return (*self.carried, *self.outputs)

    @property
    def dynamic(self) -> bool:
        """Whether only a run can tell how many steps there are."""
        return self.go is not None or self.window is not None


def make_body(
    step: Node,
    carries: Sequence[Node],
    stacks: Sequence[Node],
    consts: Sequence[Node],
    carried: Sequence[Node],
    outputs: Sequence[Node],
    go: Node | None = None,
    window: tuple[int, int] | None = None,
    counter: int | None = None,
) -> Body:
    """A body from a program over any inputs."""
    inputs = (step, *carries, *stacks, *consts)
    own = [INPUT(params=InputParams(-1 - k, node.shape, node.dtype)) for k, node in enumerate(inputs)]
    ends = [*carried, *outputs, *(() if go is None else (go,))]
    moved = _substitute(ends, dict(zip(inputs, own, strict=True)))
    places = iter(own)
    return Body(
        next(places),
        tuple(next(places) for _ in carries),
        tuple(next(places) for _ in stacks),
        tuple(next(places) for _ in consts),
        tuple(moved[: len(carried)]),
        tuple(moved[len(carried) : len(carried) + len(outputs)]),
        None if go is None else moved[-1],
        window,
        counter,
    )


STORE_COST = 10.0  # operations for each element from which storing a value is cheaper than computing it again


def worth_storing(ends: Sequence[Node], varying: set[Node], dtype: DType) -> list[Node]:
    """Values of a step that its derivative should read rather than compute again: products, transcendental functions.

    Loops inside are left out: they are run again, so that what is stored stays in proportion.
    """
    from ..node import topological

    depends = set(varying)
    found = []
    for node in topological(ends):
        if node in depends or not any(i in depends for i in node.inputs):
            continue
        depends.add(node)
        cost = node.op.cost
        if node.op.name == "contract":
            cost *= math.prod(node.params.sizes) / max(node.size, 1)
        family = node.op.family in ("elementwise", "contraction", "linalg")
        if family and cost >= STORE_COST and node.dtype == dtype and node not in ends and node.size:
            found.append(node)
    return found


class LoopParams(NamedTuple):
    """A body and how often it runs; ``reverse``: from the last step to the first; ``floats``: which slots are meant.

    ``instances``: the shape of a batch of loops that run side by side. The body is that of one of them; every packed
    vector is then an array with the axes of the instances in front. ``shared``: the stacks and the constants that are
    the same for all instances and lie in two more packed vectors, without these axes.
    """

    body: Body
    length: int
    reverse: bool
    dtype: DType
    floats: bool
    instances: Shape = ()
    shared: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())


class Slot(NamedTuple):
    """A piece of a packed vector: what it is, which one, where it begins, and its shape."""

    kind: str  # "carry", "stack", "const"; "final", "before", "output"
    place: int
    offset: int
    shape: Shape

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def _slots(pieces: Sequence[tuple[str, int, Shape]]) -> tuple[Slot, ...]:
    result = []
    offset = 0
    for kind, place, shape in pieces:
        result.append(Slot(kind, place, offset, shape))
        offset += result[-1].size
    return tuple(result)


@lru_cache(maxsize=512)
def source_slots(params: LoopParams, shared: bool = False) -> tuple[Slot, ...]:
    """Where each argument of a loop lies in the packed vector of its kind of dtype (``shared``: of all instances)."""
    body, length = params.body, (params.length,)
    common = {("stack", k) for k in params.shared[0]} | {("const", k) for k in params.shared[1]}
    groups = (("carry", body.carries, ()), ("stack", body.stacks, length), ("const", body.consts, ()))
    return _slots(
        [
            (kind, k, (*lead, *node.shape))
            for kind, nodes, lead in groups
            for k, node in enumerate(nodes)
            if (node.dtype.kind == "f") == params.floats and ((kind, k) in common) == shared
        ]
    )


class Group(NamedTuple):
    """One packed vector among the arguments of a loop: its slots, and how many axes of instances are in front."""

    slots: tuple[Slot, ...]
    floats: bool
    lead: Shape


def source_groups(params: LoopParams) -> tuple[Group, ...]:
    """The packed vectors that a loop takes, in order: floats and integers, then those that all instances share."""
    kinds = [(floats, False) for floats in (True, False)]
    kinds += [(floats, True) for floats in (True, False) if params.instances]
    return tuple(
        Group(source_slots(params._replace(floats=floats), shared), floats, () if shared else params.instances)
        for floats, shared in kinds
    )


@lru_cache(maxsize=512)
def result_slots(params: LoopParams) -> tuple[Slot, ...]:
    """Where each result of a loop lies in the packed vector of its kind of dtype."""
    body, length = params.body, (params.length,)
    groups = (("final", body.carries, ()), ("before", body.carries, length), ("output", body.outputs, length))
    return _slots(
        [
            (kind, k, (*lead, *node.shape))
            for kind, nodes, lead in groups
            for k, node in enumerate(nodes)
            if (node.dtype.kind == "f") == params.floats
        ]
    )


def total(slots: Sequence[Slot]) -> int:
    """The length of the packed vector."""
    return slots[-1].offset + slots[-1].size if slots else 0


def pack(parts: Sequence[tuple[int, Node]], size: int, rest: Shape, dtype: DType, lead: Shape = ()) -> Node:
    """A vector (with axes ``rest`` behind it) that has each ``(offset, node)``, flattened, at its offset.

    ``lead``: axes in front, one vector for each of their places.
    """
    from ..build import assembled, movement_reshape

    first = len(lead)
    axes = identity(first + 1 + len(rest))
    outer = max(math.prod(rest) * math.prod(lead), 1)
    flat = [(o, movement_reshape(n, (*lead, n.size // outer, *rest))) for o, n in parts if n.size]
    placed = [(n, (*axes[:first], Affine(o, ((first, 1),)), *axes[first + 1 :])) for o, n in flat]
    return assembled(placed, (*lead, size, *rest), dtype, disjoint=True)


def unpack(vector: Node, slot: Slot, lead: int = 0) -> Node:
    """The array in a slot; axes around the packed one stay. The packed part itself, where the vector was packed so."""
    from ..build import index_node, movement_reshape, zeros

    before, rest = vector.shape[:lead], vector.shape[lead + 1 :]
    shape = (*before, *slot.shape, *rest)
    if math.prod(shape) == 0:
        return zeros(shape, vector.dtype)
    part = packed_part(vector, slot, lead)
    if part is not None:
        return movement_reshape(part, shape)
    strides = []
    stride = 1
    for a in reversed(range(len(slot.shape))):
        if slot.shape[a] > 1:
            strides.append((lead + a, stride))
        stride *= slot.shape[a]
    inner = lead + len(slot.shape)
    axes = identity(inner + len(rest))
    return index_node(vector, shape, (*axes[:lead], Affine(slot.offset, tuple(sorted(strides))), *axes[inner:]))


def packed_part(vector: Node, slot: Slot, lead: int = 0) -> Node | None:
    """The part that fills a slot exactly."""
    if vector.op.name != "assemble" or not vector.params.disjoint:
        whole = slot.offset == 0 and vector.shape[lead] == slot.size
        return vector if whole and vector.op.name != "loop" else None
    wanted = (*vector.shape[:lead], slot.size, *vector.shape[lead + 1 :])
    for part, rows in zip(vector.inputs, vector.params.rows, strict=True):
        if part.shape == wanted and (*rows[:lead], *rows[lead + 1 :]) == _but(identity(part.ndim), lead):
            start = rows[lead]
            if isinstance(start, Affine) and start.offset == slot.offset and start.strides in (((lead, 1),), ()):
                return part
    return None


def _but(axes: tuple[Index, ...], place: int) -> tuple[Index, ...]:
    return (*axes[:place], *axes[place + 1 :])


def filled(vector: Node, slot: Slot, lead: int = 0) -> Node | None:
    """The array in a slot of a packed vector; None where nothing was packed there (structural zeros)."""
    from ..index import bounds

    if slot.size == 0 or vector.size == 0:
        return None
    if vector.op.name == "assemble":
        end = slot.offset + slot.size
        for part, rows in zip(vector.inputs, vector.params.rows, strict=True):
            low, high = bounds(rows[lead], part.shape)
            if low < end and high >= slot.offset:
                break
        else:
            return None
    return unpack(vector, slot, lead)


class Loop(NamedTuple):
    """The results of a loop: last carries, carries before each step, outputs of each step."""

    finals: tuple[Node, ...]
    befores: tuple[Node, ...]
    outputs: tuple[Node, ...]


def loop_nodes(
    body: Body,
    length: int,
    reverse: bool,
    inits: Sequence[Node],
    stacks: Sequence[Node],
    consts: Sequence[Node],
    instances: Shape = (),
) -> Loop:
    """A loop over the given arguments, each of the shape and dtype that the body has for it.

    With ``instances`` each of them has these axes in front; stacks and constants without them are the same for all.
    """
    lead = len(instances)
    shared = (
        tuple(k for k, (n, own) in enumerate(zip(stacks, body.stacks, strict=True)) if n.ndim == own.ndim + 1),
        tuple(k for k, (n, own) in enumerate(zip(consts, body.consts, strict=True)) if n.ndim == own.ndim),
    )
    floats = [node.dtype for node in (*body.inputs, *body.results) if node.dtype.kind == "f"]
    dtype = floats[0] if floats else np.dtype("f8")
    given = {"carry": inits, "stack": stacks, "const": consts}
    params = LoopParams(body, length, reverse, dtype, True, instances, shared if instances else ((), ()))
    packed = packed_sources(params, {(kind, k): n for kind, nodes in given.items() for k, n in enumerate(nodes)})
    found: dict[tuple[str, int], Node] = {}
    for kind in (True, False):
        these = params._replace(floats=kind)
        slots = result_slots(these)
        if slots:
            node = loop(*packed, params=these)
            found.update({(s.kind, s.place): unpack(node, s, lead) for s in slots})
    return loop_results(body, found)


def packed_sources(params: LoopParams, given: dict[tuple[str, int], Node]) -> list[Node]:
    """The arguments of a loop packed into the vectors that it takes."""
    return [
        pack(
            [(s.offset, given[s.kind, s.place]) for s in group.slots],
            total(group.slots), (), params.dtype if group.floats else INT, group.lead,
        )
        for group in source_groups(params)
    ]  # fmt: skip


def loop_results(body: Body, found: dict[tuple[str, int], Node]) -> Loop:
    """The results by name."""
    carries = range(len(body.carries))
    return Loop(
        tuple(found["final", k] for k in carries),
        tuple(found["before", k] for k in carries),
        tuple(found["output", k] for k in range(len(body.outputs))),
    )


# --- the records ------------------------------------------------------------------------------------------------


def _loop_infer(params: LoopParams, *packed: Node) -> tuple[Shape, DType]:
    for node, group in zip(packed, source_groups(params), strict=True):
        size = total(group.slots)
        assert node.shape == (*group.lead, size), (node, params)
        assert not group.floats or node.dtype == params.dtype or not size, (node, params)
    return (*params.instances, total(result_slots(params))), params.dtype if params.floats else INT


def _loop_evaluate(params: LoopParams, *packed: Array) -> Array:
    # Programs of loops are taken apart by ``plan/loops.py``; this is for one loop alone, in tests and constants.
    from ...run import Program, compile_numpy
    from ..node import new_input

    given = [new_input(a.shape, a.dtype) for a in packed]
    return compile_numpy(Program(tuple(given), (loop(*given, params=params),)))(list(packed))[0]


def never_formed(node: Node) -> Edges:
    """An opaque matrix is multiplied by at once; one that was left as a factor must not count as a constant."""
    raise DifferentiationError(
        f"a derivative of {node.op.name} was asked for, which is never formed: a defect of jacana, please report it"
    )


def _loop_edges(node: Node) -> Edges:
    params: LoopParams = node.params
    edges: list[tuple[Term, ...] | None] = [None] * len(node.inputs)
    for k in (0, 2)[: len(node.inputs) // 2]:
        if not params.floats or 0 in (node.size, node.inputs[k].size):
            continue
        matrix = loop_matrix(*node.inputs, node, params=EdgeParams(params, k > 0, False))
        axes = identity(matrix.ndim)
        # The instances are an axis of row and column; of the row alone, for what they share.
        col = (*axes[: 0 if k else len(params.instances)], axes[-1])
        edges[k] = (Term(matrix.shape, axes[:-1], col, ((matrix, tuple(range(matrix.ndim))),)),)
    return tuple(edges)


loop = register(
    Operation(name="loop", family="control", evaluate=_loop_evaluate, infer=_loop_infer, edges=_loop_edges, cost=100.0)
)


class EdgeParams(NamedTuple):
    """The derivative of a loop by one of its packed vectors: that of the instances, or the one that they share.

    ``joint``: as one matrix of all instances, rather than one for each of them with columns of its own.
    """

    loop: LoopParams
    shared: bool
    joint: bool

    @property
    def batch(self) -> int:
        return 0 if self.joint else len(self.loop.instances)


def _matrix_rows(matrix: Node) -> int:
    return matrix.ndim - 1 - int(matrix.params.batch)


def _matrix_product(matrix: Node, array: Node, transposed: bool) -> Node:
    # The derivative of a loop is a loop over the derivative of its body, which takes the machinery of the rooms to the
    # right: the one rule that cannot be written with builders alone.
    from ...differentiate.loops import pull, push

    return pull(matrix, array) if transposed else push(matrix, array)


def _matrix_slots(matrix: Node, transposed: bool) -> tuple[tuple[int, int], ...]:
    params: EdgeParams = matrix.params
    slots = result_slots(params.loop) if transposed else source_slots(params.loop, params.shared)
    return tuple((s.offset, s.size) for s in slots if s.size)


def _joint_matrix(matrix: Node) -> Node:
    return loop_matrix(*matrix.inputs, params=matrix.params._replace(joint=True))


def _reach(matrix: Node) -> Any:
    from ...differentiate.reachability import reach

    return reach(matrix)


def formed(matrix: Node, leaves: Sequence[Node], arrays: Sequence[Array]) -> Array:
    """The matrix of a linear map as an array, by its own product with the identity on the smaller side."""
    from ...run import Program, compile_numpy
    from ..build import broadcast_axes, constant_array, movement_reshape, transpose

    assert matrix.op.matrix is not None
    first = matrix.op.matrix.batch(matrix)
    split = first + matrix.op.matrix.rows(matrix)
    batch, rows, cols = matrix.shape[:first], matrix.shape[first:split], matrix.shape[split:]
    by_rows = math.prod(rows) < math.prod(cols)
    axes = rows if by_rows else cols
    size = math.prod(axes)
    eye = movement_reshape(constant_array(np.eye(size, dtype=matrix.dtype)), (*axes, size))
    eye = broadcast_axes(eye, (*batch, *eye.shape), range(first, first + eye.ndim))
    node = matrix.op.matrix.product(matrix, eye, by_rows)
    if by_rows:
        node = transpose(node, (*range(first), node.ndim - 1, *range(first, node.ndim - 1)))
    node = movement_reshape(node, matrix.shape)
    return compile_numpy(Program(tuple(leaves), (node,)))(list(arrays))[0]


def _loop_matrix_evaluate(params: EdgeParams, *arrays: Array) -> Array:
    from ..node import new_input

    leaves = [new_input(a.shape, a.dtype) for a in arrays]
    return formed(loop_matrix(*leaves, params=params), leaves, arrays)


loop_matrix = register(
    Operation(
        name="loop_matrix",
        family="matrix",
        evaluate=_loop_matrix_evaluate,
        infer=lambda params, *nodes: ((*nodes[-1].shape, nodes[2 * params.shared].shape[-1]), params.loop.dtype),
        edges=never_formed,
        matrix=Matrix(
            _matrix_rows,
            _matrix_product,
            batch=lambda matrix: int(matrix.params.batch),
            slots=_matrix_slots,
            joint=_joint_matrix,
            reach=_reach,
        ),
    )
)


# --- what is run ------------------------------------------------------------------------------------------------


class RunParams(NamedTuple):
    """A loop as executors see it: what is stored is what is read, and every argument is an array of its own.

    The result is an array of objects, one flat array for each of: last carries ``finals``, carries before each step
    ``befores`` (positions among the carries), all outputs.
    """

    body: Body
    length: int
    reverse: bool
    finals: tuple[int, ...]
    befores: tuple[int, ...]


class PartParams(NamedTuple):
    """Which result of a run, its size and dtype."""

    place: int
    size: int
    dtype: DType


def _run_evaluate(params: RunParams, *arrays: Array) -> Any:
    from ...run.loops import run_loop

    return run_loop(params)(*arrays)


def _no_edges(node: Node) -> Edges:
    return tuple(None for _ in node.inputs)


loop_run = register(
    Operation(
        name="loop_run",
        family="control",
        evaluate=_run_evaluate,
        infer=lambda params, *_: (
            (len(params.finals) + len(params.befores) + len(params.body.outputs),),
            np.dtype(object),
        ),
        edges=_no_edges,
        cost=100.0,
    )
)
loop_part = register(
    Operation(
        name="loop_part",
        family="control",
        evaluate=lambda params, results: results[params.place],
        infer=lambda params, results: ((params.size,), params.dtype),
        edges=_no_edges,
        cost=0,
    )
)


__all__ = [
    "Body",
    "EdgeParams",
    "Group",
    "Loop",
    "LoopParams",
    "PartParams",
    "RunParams",
    "Slot",
    "filled",
    "formed",
    "loop",
    "loop_matrix",
    "loop_nodes",
    "loop_part",
    "loop_results",
    "loop_run",
    "make_body",
    "pack",
    "packed_sources",
    "result_slots",
    "source_groups",
    "source_slots",
    "total",
    "unpack",
    "worth_storing",
]
