"""Python loops over steps, found again in the straight-line program that they were recorded as.

Eight hundred explicit steps of a differential equation are recorded as eight hundred copies of one step, each of which
takes what the copy before it made. Derived and compiled as they are, they cost seconds. Here the copies are found, by
the period in which operations repeat, and become a loop node (``graph/ops/control.py``), as if the user had written
``jc.scan``: a derivative and machine code for one step do for all of them. The loop does what the copies did, in the
same order, so that values stay the same bit for bit.

A loop is one opaque map, and what lies within it is dense. So this is for results that are dense anyway. Which of the
results depend on which arguments is still known (``differentiate/reachability.py``), so that structural zeros stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .graph.build import FrozenArray, assembled, cast_to, constant, full, index_node, remade, zeros
from .graph.index import Affine, Index, from_table, identity, shift_axes
from .graph.node import CONSTANT, LITERAL, Node, new_input, substitute_nodes, topological
from .graph.ops.control import INT
from .graph.ops.elementwise import not_equal
from .graph.ops.movement import index
from .graph.rolling import roll
from .record.bodies import ClosedBody

FEWEST_NODES = 300  # in all copies together, from which a loop is worth it
FEWEST_STEPS = 32
LONGEST_STEP = 2000  # nodes
MOST_STAGES = 8  # that look alike, of a step
MOST_LAG = 4  # how many steps back a step may look
MOST_CARRIED = 64  # numbers, where every one of them is derived by every argument
MOST_CARRIED_ALONG = 100_000  # where one direction is pushed or pulled through the loop: values, gradients, products
MOST_LOOPS = 8  # in one program
WINDOW = 16  # operations in a row that must repeat for a period to be tried
SAMPLES = 64  # repetitions that are looked at for a period


def rolled_steps(outputs: Sequence[Node], *, along: bool = False) -> list[Node]:
    """The program with its repeated steps as loops; the same nodes where none are found.

    Args:
        outputs: the results of the program.
        along: only values, or products with one vector, are wanted. Then the derivative of a step is no matrix, and a
            step may carry whole fields.
    """
    current = list(outputs)
    for _ in range(MOST_LOOPS):
        rolled = _rolled_once(current, MOST_CARRIED_ALONG if along else MOST_CARRIED)
        if rolled is None:
            break
        current = rolled
    # Results of single steps are now read from stacks, which is what element loops are made of.
    return current if current == list(outputs) else roll(current)


def _rolled_once(outputs: list[Node], most: int) -> list[Node] | None:
    # Places of arguments and captured arrays count as leaves: each is one node, however often and wherever it is read.
    order = _by_use([n for n in topological(outputs) if n.inputs and not (n.op is index and not n.inputs[0].inputs)])
    if len(order) < FEWEST_NODES:
        return None
    period = _period(order)
    if period is None:
        return None
    length, first, last = period
    # The stages of a method of Runge and Kutta look alike, but take different things: a step is several periods.
    for stages in range(1, MOST_STAGES + 1):
        steps = _matched(order, stages * length, first, last)
        if steps is not None and steps.count >= FEWEST_STEPS and steps.count * steps.length >= FEWEST_NODES:
            return _Loop(order, steps, outputs, most).program()
    return None


def _by_use(nodes: Sequence[Node]) -> list[Node]:
    """In the order in which the program computed them, but reads where they are first used.

    ``out.append(y[2])`` in every tenth step alone reads what the next step reads anyway, only earlier: no step differs.
    """
    reads = {node for node in nodes if node.op is index}
    found: dict[Node, None] = {}
    for node in sorted(nodes, key=lambda n: n.serial):
        if node in reads:
            continue
        for given in node.inputs:
            chain = []
            while given in reads and given not in found:
                chain.append(given)
                given = given.inputs[0]
            found.update(dict.fromkeys(reversed(chain)))
        found[node] = None
    found.update(dict.fromkeys(sorted(reads, key=lambda n: n.serial)))  # those that only results use
    return list(found)


# --- where operations repeat --------------------------------------------------------------------------------------


def _period(order: Sequence[Node]) -> tuple[int, int, int] | None:
    """The length of a step, and from where to where the operations (not yet what they take) repeat with it."""
    numbers: dict[Any, int] = {}
    kinds = np.empty(len(order), dtype=np.int64)
    for k, node in enumerate(order):
        # Of a read, the place may differ from step to step.
        params = None if node.op is index else node.params
        key = (node.op.name, params, node.shape, node.dtype, len(node.inputs))
        kinds[k] = numbers.setdefault(key, len(numbers))
    weights = np.random.default_rng(0).integers(1, 2**40, WINDOW)
    windows = np.lib.stride_tricks.sliding_window_view(kinds, WINDOW) @ weights
    best: tuple[int, int, int, int] | None = None
    for middle in (len(windows) // 2, len(windows) // 4, 3 * len(windows) // 4):
        places = np.flatnonzero(windows == windows[middle])
        here = int(np.searchsorted(places, middle))
        for length in np.unique(np.abs(places[max(here - SAMPLES, 0) : here + SAMPLES] - middle)):
            if not 0 < length <= LONGEST_STEP:
                continue
            different = np.flatnonzero(kinds[length:] != kinds[:-length])
            after = int(np.searchsorted(different, middle))
            first = int(different[after - 1]) + 1 if after else 0
            last = int(different[after]) if after < len(different) else len(kinds) - length
            covered = last + length - first
            if last > first and (best is None or covered > 1.1 * best[0]):
                best = (covered, int(length), first, last + int(length))
    return None if best is None or best[0] < FEWEST_NODES else (best[1], best[2], int(best[3]))


@dataclass(frozen=True)
class _Steps:
    """``count`` copies of ``length`` nodes, from place ``start`` of the order."""

    start: int
    length: int
    count: int
    kinds: tuple[tuple[Any, ...], ...]  # of each input of each node of a step: see ``_matched``


def _matched(order: Sequence[Node], length: int, first: int, last: int) -> _Steps | None:
    """The copies that also take corresponding inputs.

    An input is, in every copy, the same node (None), or lies a fixed number of places back (that number; ``MOST_LAG``
    steps before at most), or comes from elsewhere and differs from step to step (-1: literals, places of an array that
    stays the same, any leaves). The first steps take anything where later ones take what lies before the first.
    """
    place = {node: k for k, node in enumerate(order)}
    middle = first + ((last - first) // length // 2) * length
    if middle - length < first or middle + 2 * length > last:
        return None

    def kind(k: int, slot: int) -> int | None:
        here, there = order[k].inputs[slot], order[k + length].inputs[slot]
        if here is there:
            return None
        p, q = place.get(here), place.get(there)
        return k - p if p is not None and q is not None and k - p == k + length - q else -1

    by_node = [tuple(kind(k, s) for s in range(len(order[k].inputs))) for k in range(middle, middle + length)]
    phase = _best_phase(by_node, length)
    if phase is None:
        return None
    kinds = tuple(by_node[(phase + k) % length] for k in range(length))
    begin = first + (middle + phase - first) % length
    total = (last - begin) // length
    stays = [order[middle + length + phase + k - (0 if phase + k < length else length)] for k in range(length)]

    def fits(step: int, free: int) -> bool:
        """Whether a step takes what it should; of more than ``free`` steps before it, it may take anything."""
        for k, row in enumerate(kinds):
            at = begin + step * length + k
            for slot, wanted in enumerate(row):
                found = order[at].inputs[slot]
                if wanted is None:
                    if found is not stays[k].inputs[slot]:
                        return False
                elif wanted >= 0:
                    if wanted <= k + free * length and place.get(found) != at - wanted:
                        return False
                elif place.get(found, -1) >= begin:
                    return False
            if order[at].op is index and row[0] is not None and order[at].params != stays[k].params:
                return False  # only places of what stays may differ
        return True

    one = (middle - begin) // length
    if not 0 <= one < total or not fits(one, MOST_LAG):
        return None
    low = one
    while low > 0 and fits(low - 1, MOST_LAG):
        low -= 1
    first_steps = next((n for n in range(min(MOST_LAG, low), 0, -1) if all(fits(low - n + t, t) for t in range(n))), 0)
    low -= first_steps
    high = one + 1
    while high < total and fits(high, MOST_LAG):
        high += 1
    return _Steps(begin + low * length, length, high - low, kinds)


def _best_phase(by_node: Sequence[tuple[int | None, ...]], length: int) -> int | None:
    """Where in the period a step begins, so that it takes from few steps before it, and as little as can be."""
    pairs = [(k, d) for k, row in enumerate(by_node) for d in row if d is not None and d >= 0]
    if not pairs:
        return None
    users, back = np.array(pairs).T
    best: tuple[int, int] | None = None
    for phase in range(length):
        place = (users - phase) % length
        if np.any(back > place + MOST_LAG * length):
            continue
        lags = -((place - back) // length)  # how many steps back; 0: in this one
        most = np.zeros(length, dtype=np.int64)
        np.maximum.at(most, (place - back) % length, lags)
        carried = int(most.sum())
        if carried and (best is None or carried < best[0]):
            best = (carried, phase)
    return None if best is None else best[1]


# --- as a loop ----------------------------------------------------------------------------------------------------


@dataclass
class _Loop:
    """The copies as one loop, and the program with it."""

    order: Sequence[Node]
    steps: _Steps
    outputs: list[Node]
    most: int  # numbers that a step may carry
    # What is carried, and its values before the first step, the earliest first: its input. With more than one value
    # it is what was carried a step before.
    carries: dict[tuple[int, tuple[Node, ...]], Node] = field(default_factory=dict)
    stacks: dict[tuple[Node, ...], Node] = field(default_factory=dict)
    free: dict[Node, None] = field(default_factory=dict)  # what stays the same
    flags: dict[Node, Node] = field(default_factory=dict)  # masks that do, and the integers that they are in the body

    def at(self, step: int, k: int) -> Node:
        """A node of a step."""
        return self.order[self.steps.start + step * self.steps.length + k]

    def program(self) -> list[Node] | None:
        """The program with the loop; None if it cannot be made."""
        body = self._body()
        if body is None:
            return None
        used = self._used()
        last = self.steps.count - 1
        results: dict[tuple[bool, int], int] = {}  # (whether last, place in the step): which carry or output
        carried = [self.carries[place, first[1:]] if first[1:] else body[place] for place, first in self.carries]
        inits = [first[0] for _, first in self.carries]
        inputs = list(self.carries.values())
        for k in sorted({k for step, k in used if step == last and {s for s, j in used if j == k} == {last}}):
            found = [j for j, (place, first) in enumerate(self.carries) if place == k and len(first) == 1]
            if not found:  # a value that is needed in the end alone rides along
                found = [len(carried)]
                carried.append(body[k])
                inits.append(zeros(body[k].shape, body[k].dtype))
                inputs.append(new_input(body[k].shape, body[k].dtype))
            results[True, k] = found[0]
        stacked = sorted({k for _, k in used if (True, k) not in results})
        results.update({(False, k): j for j, k in enumerate(stacked)})
        if not self._fit_for_loop(carried, inputs, [body[k] for k in stacked]):
            return None
        carried, outputs, captured = _without_captured(carried, [body[k] for k in stacked])
        captured.update({inside: cast_to(mask, INT) for mask, inside in self.flags.items()})
        own = [self.number, *inputs, *self.stacks.values()]
        closed = ClosedBody(own, len(inputs), carried, outputs, None, captured)
        ends, rows = closed.nodes(self.steps.count, False, inits, [self._stack(key) for key in self.stacks])
        new: dict[Node, Node] = {}
        for step, k in used:
            j = results.get((True, k))
            if j is None:
                row = rows[results[False, k]]
                new[self.at(step, k)] = index_node(row, row.shape[1:], (Affine(step), *identity(row.ndim - 1)))
            else:
                new[self.at(step, k)] = ends[j]
        return self._rest(new)

    def _body(self) -> list[Node] | None:
        """The nodes of one step over inputs of its own."""
        self.number = new_input((), INT)
        body: list[Node] = []
        count = self.steps.count
        for k, row in enumerate(self.steps.kinds):
            node = self.at(1, k)
            if node.op.family in ("control", "matrix"):
                return None
            if node.op is index and row[0] is None:  # a place of what stays, which moves
                body.append(self._slice(tuple(self.at(t, k) for t in range(count))))
                continue
            inputs = []
            for slot, back in enumerate(row):
                here = node.inputs[slot]
                if back is None:
                    inputs.append(self._steady(here))
                elif back < 0:
                    inputs.append(self._slice(tuple(self.at(t, k).inputs[slot] for t in range(count))))
                elif back <= k:
                    inputs.append(body[k - back])
                else:
                    lag = -((k - back) // self.steps.length)
                    first = tuple(self.at(t, k).inputs[slot] for t in range(lag))
                    inputs.append(self._carry((k - back) % self.steps.length, first))
            body.append(remade(node, tuple(inputs)))
        return body

    def _carry(self, place: int, first: tuple[Node, ...]) -> Node:
        """The input of the body that is what the step at ``place`` made ``len(first)`` steps before."""
        if len(first) > 1:
            self._carry(place, first[1:])
        return self.carries.setdefault((place, first), new_input(first[0].shape, first[0].dtype))

    def _steady(self, node: Node) -> Node:
        """What stays the same, as the body takes it."""
        if _fixed(node):
            return node
        if node.dtype == bool:
            return _flag(self.flags.setdefault(node, new_input(node.shape, INT)))
        self.free[node] = None
        return node

    def _slice(self, nodes: tuple[Node, ...]) -> Node:
        """The input of the body that is one of ``nodes`` in each step."""
        first = nodes[0]
        if first.dtype == bool:
            return _flag(self.stacks.setdefault(nodes, new_input(first.shape, INT)))
        return self.stacks.setdefault(nodes, new_input(first.shape, first.dtype))

    def _stack(self, nodes: tuple[Node, ...]) -> Node:
        """``nodes``, one for each step, as one array; masks as integers, for loops take nothing else."""
        if nodes[0].dtype == bool:
            nodes = tuple(cast_to(node, INT) for node in nodes)
        first, count = nodes[0], len(nodes)
        shape = (count, *first.shape)
        if all(node.op is LITERAL for node in nodes):
            data = np.frombuffer(b"".join([node.params.data for node in nodes]), first.dtype)
            return constant(FrozenArray(data, structural=False), shape, first.dtype)
        source = first.inputs[0] if first.inputs else first
        if all(node.op is index and node.inputs[0] is source for node in nodes):
            moving = [_moving(column) for column in zip(*(node.params.indices for node in nodes), strict=True)]
            places = [e for e in moving if e is not None]
            if len(places) == len(moving):
                return index_node(source, shape, places)
        parts = [(node, (Affine(t), *identity(node.ndim))) for t, node in enumerate(nodes)]
        return assembled(parts, shape, first.dtype, disjoint=True)

    def _used(self) -> set[tuple[int, int]]:
        """The results of steps that the rest of the program takes, as (step, place in it)."""
        steps = self.steps
        end = steps.start + steps.count * steps.length
        inside = {node: k for k, node in enumerate(self.order[steps.start : end])}
        reads = {k for k, row in enumerate(steps.kinds) if self.at(1, k).op is index and row[0] is None}
        used = [n for node in self.order[end:] for n in node.inputs if n in inside]
        used += [node for node in self.outputs if node in inside]
        return {divmod(inside[n], steps.length) for n in used if inside[n] % steps.length not in reads}

    def _fit_for_loop(self, carried: list[Node], inputs: list[Node], stacked: list[Node]) -> bool:
        """Whether a loop can be made: of few numbers of one dtype that keep their shapes."""
        if not carried or sum(node.size for node in carried) > self.most:
            return False
        every = [*self.free, *inputs, *self.stacks.values(), *carried, *stacked]
        if len({n.dtype for n in every if n.dtype.kind == "f"}) != 1:
            return False
        if any(n.dtype != INT for n in every if n.dtype.kind != "f"):
            return False
        return all(a.shape == b.shape and a.dtype == b.dtype for a, b in zip(carried, inputs, strict=True))

    def _rest(self, new: dict[Node, Node]) -> list[Node]:
        """The program after the loop, on what ``new`` puts in the place of its nodes."""
        for node in self.order[self.steps.start + self.steps.count * self.steps.length :]:
            if any(i in new for i in node.inputs):
                new[node] = remade(node, tuple(new.get(i, i) for i in node.inputs))
        return [new.get(node, node) for node in self.outputs]


def _flag(number: Node) -> Node:
    """A mask that is handed over as integers."""
    return not_equal(number, full(0, number.shape, INT))


def _fixed(node: Node) -> bool:
    """Whether a leaf belongs to the program, and may stand in the body of a loop as it is, of whatever dtype."""
    return node.op is LITERAL or (node.op is CONSTANT and isinstance(node.params.owner, FrozenArray))


def _without_captured(carried: list[Node], outputs: list[Node]) -> tuple[list[Node], list[Node], dict[Node, Node]]:
    """A body with captured arrays as arguments, and what these stand for.

    While a plan is made, a stand-in of which only the zeros are known is in the place of a captured array, and gets its
    numbers at each call; within the body of a loop it would keep those of the stand-in.
    """
    ends = [*carried, *outputs]
    found = [n for n in topological(ends) if n.op is CONSTANT and not isinstance(n.params.owner, FrozenArray)]
    inner = {node: new_input(node.shape, node.dtype) for node in found}
    ends = substitute_nodes(ends, inner)
    return ends[: len(carried)], ends[len(carried) :], {given: node for node, given in inner.items()}


def _moving(expressions: Sequence[Index]) -> Index | None:
    """One index that goes through ``expressions`` along a new first axis, if one does."""
    first = expressions[0]
    if not all(isinstance(e, Affine) and isinstance(first, Affine) and e.strides == first.strides for e in expressions):
        return None
    offsets = np.array([e.offset for e in expressions if isinstance(e, Affine)], dtype=np.int64)
    shifted = shift_axes(first, 1)
    if not isinstance(shifted, Affine) or not shifted.strides:
        return from_table(offsets, [0])
    steps = np.diff(offsets)
    if steps.min() != steps.max():
        return None
    return Affine(int(offsets[0]), ((0, int(steps[0])), *shifted.strides)) if steps[0] else shifted
