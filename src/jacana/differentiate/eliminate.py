"""Jacobians by vertex elimination: the chain rule on a graph whose edges are lists of terms.

Every node between inputs and outputs is a vertex. Eliminating it composes each edge that enters with each that
leaves; when none is left, the edges from inputs to outputs are the Jacobian (Griewank and Walther, "Evaluating
Derivatives", 2nd edition, chapter 9). Forward and reverse mode are two orders of the same loop; the third takes the
vertex that costs least at the moment (Markowitz), with sizes of domains as cost.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import UnsupportedOperationError
from ..graph.index import Lookup, identity
from ..graph.node import Factor, Node, Term, topological
from ..structure.bands import met_parts, parts_of_maps
from ..structure.formats import dense_node
from ..structure.joining import Arrangement
from ..structure.packing import overlaps, pack_terms
from ..structure.support import restrict_to_factors, zeros_of_copies
from ..structure.terms import Met, Terms, add_terms, compose_structure, compose_terms, known_array, normalise
from .maps import opaque_map, through_maps
from .unrolling import unrolled

Order: TypeAlias = Literal["forward", "reverse", "markowitz", "cost", "auto"]  # "markowitz" is "cost"
Key: TypeAlias = "Node | int"  # an output vertex is its position, so that an output may also be a node on the way

DENSE_LIMIT = 256  # ``unrestricted`` of dense results
WORTH = 4  # the part of a term that must be zero for a dense result to leave it out: products are fast, indices slow
AUTO_LIMIT = 60  # vertices up to which "auto" also estimates pure forward and pure reverse, and
AUTO_MOST = 120  # up to which it does so before anything is eliminated, because that may take long
AUTO_WORTH = 10_000  # multiplications from which another order can save what is worth an estimate
ESTIMATED_PAIRS = 5_000  # pairs of terms after which an estimate is given up
GROWN = 1.5  # times the points of both edges that a composition may have before its entries are counted
SMALL = 2**12  # entries of a matrix up to which it is formed where more points are composed for it than that
PACKED = 48  # terms of an edge that is composed again from which they become one
PACKED_TABLES = 256  # the same for terms with tables: those of one table share a loop, which a table of entries has not


@dataclass(frozen=True)
class Elimination:
    """What an elimination found: ``terms[i][j]`` of output i by input j, and the multiplications it estimates.

    ``unformed``: whether the matrix of a linear map was met and left whole.
    """

    terms: tuple[tuple[Terms, ...], ...]
    order: str
    cost: float
    vertices: int
    unformed: bool = False


def eliminate(
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    order: Order = "auto",
    *,
    unrestricted: int = 0,
    whole_maps: bool = False,
    join_rows: bool = False,
) -> Elimination:
    """The Jacobian of every output by every input, as terms.

    ``unrestricted``: points of a domain up to which the zeros of constant matrices are not taken for structure. A
    dense result does not need to know them, and following each of them through small matrices takes long.
    ``whole_maps``: never take the zeros of a linear map's matrix (a running sum) for structure, so that it need not be
    formed: what a gradient, a dense result and an operator want.
    ``join_rows``: pieces that together make a whole row of a product's cotangent are joined before they go through it.
    """
    order = "cost" if order == "markowitz" else order
    edges = _Edges(outputs, inputs, unrestricted, whole_maps, join_rows)
    if order == "auto" and edges.ends:
        # Each order would derive the bodies of loops anew, so the orders are compared by their estimates.
        orders: tuple[Order, ...] = ("cost", "forward", "reverse") if 1 < len(edges.order) <= AUTO_LIMIT else ("cost",)
        estimates = [_estimate(edges, o, math.inf, math.inf) for o in orders] if len(orders) > 1 else []
        complete = [e for e in estimates if e.complete]
        order = min(complete, key=lambda e: e.cost).order if complete else "cost"  # type: ignore[assignment]
    elif order == "auto" and AUTO_LIMIT < len(edges.order) <= AUTO_MOST and edges.pure_mode()[1] > AUTO_WORTH:
        dear = _estimate(edges, "cost", math.inf, ESTIMATED_PAIRS).cost
        if dear > AUTO_WORTH:
            pure = [_estimate(edges, o, dear, ESTIMATED_PAIRS) for o in ("forward", "reverse")]
            best_mode = min(pure, key=lambda e: e.cost)
            order = best_mode.order if best_mode.complete and best_mode.cost < dear else order  # type: ignore[assignment]
    if order not in ("auto", "cost"):
        return _Run(edges).run(order)
    attempt = _Run(edges)
    mode, bound = edges.pure_mode()
    if order == "auto":
        attempt.limit = bound
    try:
        best = attempt.run("cost")
    except _TooDearError:
        return _Run(edges).run(mode)
    except _GrowthError:
        return _Run(edges).run("sweep")
    if order == "cost":
        return best
    if best.cost > AUTO_WORTH and 1 < best.vertices <= AUTO_LIMIT:
        for other in ("forward", "reverse"):
            if _estimate(edges, other, best.cost, ESTIMATED_PAIRS).cost < best.cost:
                trial = _Run(edges).run(other)
                if trial.cost < best.cost:
                    best = trial
    return best


@dataclass(frozen=True)
class Estimate:
    """What an order would cost: its multiplications, or (``complete`` is false) the cost at which it was given up."""

    order: str
    cost: float
    complete: bool


def estimate(
    outputs: Sequence[Node], inputs: Sequence[Node], order: Order, limit: float = math.inf, pairs: float = math.inf
) -> Estimate:
    """What an order would cost; given up beyond ``limit`` multiplications or ``pairs`` of terms."""
    return _estimate(_Edges(outputs, inputs, 0, False), order, limit, pairs)


def _estimate(edges: _Edges, order: Order, limit: float, pairs: float) -> Estimate:
    run = _Run(edges, structure_only=True)
    run.limit, run.pairs = limit, pairs
    try:
        run.run(order)
    except (_TooDearError, _GrowthError):
        return Estimate(order, run.cost, False)
    return Estimate(order, run.cost, True)


class _TooDearError(Exception):
    """An order costs more than an estimate is worth."""


class _GrowthError(Exception):
    """Two edges of many terms would meet: pairs of steps are being multiplied with one another."""


def _size(terms: Sequence[Term]) -> float:
    total = 0
    for term in terms:
        total += math.prod(term.domain)
    return float(total)


class _Edges:
    """The graph before any vertex is eliminated: what all orders begin with."""

    def __init__(
        self,
        outputs: Sequence[Node],
        inputs: Sequence[Node],
        unrestricted: int,
        whole_maps: bool,
        join_rows: bool = False,
    ) -> None:
        self.unrestricted, self.whole_maps, self.unformed = unrestricted, whole_maps, False
        self.join_rows = join_rows
        self.places: dict[Node, Terms | None] = {}  # where coefficients can be other than zero
        # Where sums have nothing to sum is structure, if zeros are.
        self.met: Met | None = None if whole_maps else self._met
        self.ends: set[Node] = set()  # the vertices at either end of an opaque linear map
        if not whole_maps:
            outputs = unrolled(outputs, inputs)
        self.outputs, self.inputs = outputs, inputs
        self.before: dict[Key, dict[Node, Terms]] = {}  # vertex -> edges that enter it, by where they come from
        ordered = topological(outputs)
        wanted = set(inputs)
        active: set[Node] = set()
        for node in ordered:
            if node in wanted or (node.dtype.kind == "f" and not active.isdisjoint(node.inputs)):
                active.add(node)
        self.order = [node for node in ordered if node in active and node not in wanted]
        for node in self.order:
            self._connect(node, active)
        for k, node in enumerate(outputs):
            if node in active:
                self._add(k, node, Term(node.shape, identity(node.ndim), identity(node.ndim)))

    def pure_mode(self) -> tuple[Order, float]:
        """Forward or reverse mode, whichever costs less at most, and the multiplications that it never exceeds.

        Going forward, each point of an edge as it is now meets at most one derivative by each element of the inputs;
        going back, one of each element of the outputs.
        """
        points = sum(_size(terms) for edges in self.before.values() for terms in edges.values())
        forward, reverse = (float(sum(node.size for node in nodes)) for nodes in (self.inputs, self.outputs))
        return ("forward", forward * points) if forward < reverse else ("reverse", reverse * points)

    def _met(self, factors: Sequence[Factor], masks: Sequence[Factor], found: Arrangement) -> tuple[Factor, ...]:
        known = [(array, axes) for node, axes in masks if (array := known_array(node)) is not None]
        return met_parts(factors, known, found, lambda matrix: zeros_of_copies(matrix, self.places))

    def _connect(self, node: Node, active: set[Node]) -> None:
        for k in node.op.fixed:
            if node.inputs[k] in active:
                raise UnsupportedOperationError(
                    f"jacana has no derivative rule for {node.op.name.replace('special_', 'scipy.special.')} by its "
                    f"argument {k}, which a derivative of a higher order needs here. First derivatives can be had."
                )
        for source, terms in zip(node.inputs, node.op.edges(node), strict=True):
            if terms is not None and source in active:
                for term in terms:
                    if opaque_map(term) is not None:
                        self.ends.update((node, source))
                        self._put(node, source, term)  # as it is: its matrix must be told from other factors
                        continue
                    large = math.prod(term.domain) > self.unrestricted
                    maps = [factor.op.matrix for factor, _ in term.factors if factor.op.matrix is not None]
                    if maps and self.whole_maps:
                        large, self.unformed = False, True
                    elif len(term.factors) == 1 and any([found.late for found in maps]):
                        large = False  # its zeros are looked at when it has been composed with what there is
                    for part in self._restricted(term) if large else (term,):
                        self._add(node, source, part)

    def _restricted(self, term: Term) -> Terms:
        """The term without the zeros that its factors are known to have, where that is worth the indices."""
        parts = restrict_to_factors(term, self.places)
        return (term,) if self.unrestricted and _size(parts) * WORTH > _size((term,)) else parts

    def _add(self, to: Key, source: Node, term: Term) -> None:
        normal = normalise(term)
        if normal is not None:
            self._put(to, source, normal)

    def _put(self, to: Key, source: Node, term: Term) -> None:
        edges = self.before.setdefault(to, {})
        edges[source] = add_terms((*edges[source], term)) if source in edges else (term,)


class _Run:
    """One elimination of all vertices. ``structure_only``: of terms without coefficients, for an estimate."""

    def __init__(self, edges: _Edges, structure_only: bool = False) -> None:
        self.edges, self.structure_only = edges, structure_only
        self.before: dict[Key, dict[Node, Terms]] = {}
        self.after: dict[Node, dict[Key, Terms]] = {node: {} for node in (*edges.order, *edges.inputs)}
        # The points of all terms that enter and leave a vertex: its price in constant time, however many there are.
        self.entering: dict[Key, float] = {}
        self.leaving: dict[Node, float] = dict.fromkeys(self.after, 0.0)
        self.cost = 0.0
        self.limit = self.pairs = math.inf
        self.packed: set[tuple[Key, Node]] = set()
        self.by_column = False
        self.strict = False  # whether two packed edges may not meet
        for to, sources in edges.before.items():
            if structure_only:
                sources = {source: _bare(terms) for source, terms in sources.items()}
            self.before[to] = dict(sources)
            total = 0.0
            for source, terms in sources.items():
                self.after[source][to] = terms
                size = _size(terms)
                total += size
                self.leaving[source] += size
            self.entering[to] = total

    def _pack(self, to: Key, source: Node, terms: Terms, multiplied: bool = True) -> Terms:
        """The terms of an edge, as one term where they have become many; so they stay from then on."""
        if len(terms) < 2 or any([opaque_map(t) is not None for t in terms]):
            return terms
        rows = self._shape(to)
        few = len(terms) <= PACKED or (len(terms) <= PACKED_TABLES and any([_has_table(t) for t in terms]))
        if (few or not multiplied) and (to, source) not in self.packed:
            # Pieces of one row or column that overlap are added up at once, as reverse and forward mode do.
            size = math.prod(rows) * source.size
            if size != max(math.prod(rows), source.size) or _size(terms) <= size or any([t.masks for t in terms]):
                return terms
        else:
            self.packed.add((to, source))
        total = pack_terms(terms, rows, source.shape, self.by_column, self.structure_only)
        change = _size(total) - _size(terms)
        self.before[to][source] = self.after[source][to] = total
        self.entering[to] += change
        self.leaving[source] += change
        return total

    def _store(self, to: Key, source: Node, terms: Sequence[Term]) -> None:
        edges = self.before.setdefault(to, {})
        present = edges.get(source)
        if self.structure_only:
            total = _bare((*(present or ()), *terms))
        elif present is None:
            total = add_terms(terms)
        else:
            total = add_terms((*present, *terms))
        edges[source] = total
        self.after[source][to] = total
        change = _size(total) - (0.0 if present is None else _size(present))
        self.entering[to] = self.entering.get(to, 0.0) + change
        self.leaving[source] += change

    def _price(self, node: Node) -> float:
        """The multiplications of eliminating ``node``: each pair of terms meets once for every point they share."""
        if node in self.edges.ends:
            return self._price_of_maps(node)
        return self.entering.get(node, 0.0) * self.leaving[node] / max(node.size, 1)

    def _price_of_maps(self, node: Node) -> float:
        """An opaque map works on all of its elements for each row that is pulled or each column that is pushed."""
        price = 0.0
        for to, outer in self.after.get(node, {}).items():
            for source, inner in self.before.get(node, {}).items():
                if maps := [m for t in inner if (m := opaque_map(t)) is not None]:
                    price += sum(_work(m, math.prod(self._shape(to))) for m in maps)
                elif maps := [m for t in outer if (m := opaque_map(t)) is not None]:
                    price += sum(_work(m, source.size) for m in maps)
                else:
                    price += _size(outer) * _size(inner) / max(node.size, 1)
        return price

    def _shape(self, to: Key) -> tuple[int, ...]:
        return self.edges.outputs[to].shape if isinstance(to, int) else to.shape

    def _eliminate(self, node: Node) -> None:
        before, after = self.before.get(node, {}), self.after[node]
        # One term that follows does not multiply what comes before it.
        many_before, many_after = (sum(map(len, edges.values())) > 1 for edges in (before, after))
        for to, terms in list(after.items()):
            self._pack(to, node, terms, many_before)
        for source, terms in list(before.items()):
            self._pack(node, source, terms, many_after)
        if self.packed:
            targets = [to for to in after if (to, node) in self.packed]
            sources = [source for source in before if (node, source) in self.packed]
            if self.strict and targets and sources:
                raise _GrowthError
            self.packed.update((to, s) for to in after for s in sources)
            self.packed.update((to, s) for to in targets for s in before)
        self.cost += self._price(node)
        entering = self.before.pop(node, {})
        leaving = self.after.pop(node)
        if self.limit < math.inf or self.pairs < math.inf:
            self.pairs -= sum(map(len, entering.values())) * sum(map(len, leaving.values()))
            if self.cost > self.limit or self.pairs < 0:
                raise _TooDearError
        for source, terms in entering.items():
            del self.after[source][node]
            self.leaving[source] -= _size(terms)
        for to, outer in leaving.items():
            del self.before[to][node]
            self.entering[to] -= _size(outer)
            if self.edges.join_rows and len(outer) > 1 and not self.structure_only:
                outer = self._joined(to, node, outer, entering)
            for source, inner in entering.items():
                found: Sequence[Term]
                if node in self.edges.ends:
                    found = through_maps(outer, inner, self._shape(to), node, source, self.structure_only)
                else:
                    found = (
                        _compose_bare(outer, inner)
                        if self.structure_only
                        else compose_terms(outer, inner, self.edges.met)
                    )
                    found = self._gathered(found, to, source, outer, inner)
                if found:
                    self._store(to, source, found)

    def _gathered(self, terms: Sequence[Term], to: Key, source: Node, outer: Terms, inner: Terms) -> Sequence[Term]:
        """What was composed, with the paths of a term that lead to the same entry added up.

        A term with tables has a point for every path. Their number multiplies from step to step where numbers that are
        computed one by one form a small matrix, while that of the entries is bounded. A term with no more points than
        one of those that it was made of is not looked at: that takes as long as composing it.
        """
        before = max(_size(outer), _size(inner))
        if _size(terms) <= GROWN * before or not any([_has_table(t) for t in terms]):
            return terms
        rows, cols = self._shape(to), source.shape
        size = math.prod(rows) * source.size
        formed = not any([opaque_map(t) is not None for t in terms])
        if formed and size <= SMALL and _size(terms) >= 2 * size:
            return pack_terms(terms, rows, cols, self.by_column, self.structure_only, overlapping=True)
        result: list[Term] = []
        largest = max([math.prod(t.domain) for t in (*outer, *inner)])
        for term in terms:
            grown = math.prod(term.domain) > largest
            if grown and _has_table(term) and opaque_map(term) is None and overlaps(term, rows, cols):
                result += pack_terms([term], rows, cols, self.by_column, self.structure_only, overlapping=True)
            else:
                result.append(term)
        return result

    def _joined(self, to: Key, node: Node, outer: Terms, entering: dict[Node, Terms]) -> Terms:
        """Terms that together fill all rows over a product, as one: the slices of a matrix-vector product."""
        rows = self._shape(to)
        whole = _size(outer) == math.prod(rows) * node.size and not any(t.masks for t in outer)
        product = any(math.prod(t.domain) > node.size for terms in entering.values() for t in terms)
        if not (whole and product):
            return outer
        stored = dense_node(outer, rows, node.shape, node.dtype)
        if stored.op.name == "assemble" and not stored.params.full:
            return outer
        axes = identity(stored.ndim)
        unit = Term(stored.shape, axes[: len(rows)], axes[len(rows) :], ((stored, tuple(range(stored.ndim))),))
        found = normalise(unit)
        return outer if found is None else (found,)

    def run(self, order: str) -> Elimination:
        vertices = self.edges.order
        if order == "forward":
            for node in vertices:
                self._eliminate(node)
        elif order == "reverse":
            for node in reversed(vertices):
                self._eliminate(node)
        elif order in ("cost", "markowitz"):
            self.strict = True
            self._cheapest_first()
        elif order == "sweep":
            self._sweep()
        else:
            raise ValueError(f"order must be 'forward', 'reverse', 'markowitz' ('cost') or 'auto', not {order!r}")
        rows = range(len(self.edges.outputs))
        for k in rows:
            for source in self.edges.inputs:
                if (k, source) in self.packed:
                    self._pack(k, source, self.before.get(k, {}).get(source, ()))
        terms = tuple(tuple(self._final(self.before.get(k, {}).get(i, ())) for i in self.edges.inputs) for k in rows)
        return Elimination(terms, "cost" if order == "sweep" else order, self.cost, len(vertices), self.edges.unformed)

    def _final(self, terms: Terms) -> Terms:
        """The terms, with those restricted now whose linear maps were left whole."""
        if self.edges.whole_maps or self.structure_only or not any([parts_of_maps(t.factors) for t in terms]):
            return terms
        known = self.edges.places
        return add_terms(
            part for t in terms for part in (restrict_to_factors(t, known) if parts_of_maps(t.factors) else (t,))
        )

    def _sweep(self) -> None:
        """What is between the steps first, then step by step from the side of fewer elements.

        Cheapest first would multiply pairs of steps, pairs of pairs, and in the end two full matrices of which every
        entry is a sum of its own. Multiplied by one step at a time, one matrix grows and the other stays narrow.
        """
        self.by_column = sum(y.size for y in self.edges.outputs) < sum(x.size for x in self.edges.inputs)
        self._cheapest_first(growing=False)
        left = [node for node in self.edges.order if node in self.after]
        for node in reversed(left) if self.by_column else left:
            self._eliminate(node)

    def _grows(self, node: Node) -> bool:
        """Whether eliminating ``node`` may leave more points on edges than there were."""
        return self._price(node) > self.entering.get(node, 0.0) + self.leaving[node]

    def _cheapest_first(self, growing: bool = True) -> None:
        # Ties go to the vertex nearest the outputs: for a scalar result that is reverse mode.
        rank = {node: -k for k, node in enumerate(self.edges.order)}
        current = {node: self._price(node) for node in rank}
        heap = [(price, rank[node], node) for node, price in current.items()]
        heapq.heapify(heap)
        while heap:
            price, _, node = heapq.heappop(heap)
            if current.get(node) != price or (not growing and self._grows(node)):
                continue
            del current[node]
            neighbours = [v for v in (*self.before.get(node, ()), *self.after[node]) if v in current]
            self._eliminate(node)
            for v in neighbours:
                assert isinstance(v, Node)
                renewed = self._price(v)
                if renewed != current[v]:
                    current[v] = renewed
                    heapq.heappush(heap, (renewed, rank[v], v))


def _work(matrix: Node, width: int) -> float:
    """What a map costs that is multiplied by ``width`` rows or columns, which its instances share among themselves."""
    assert matrix.op.matrix is not None
    batch = matrix.op.matrix.batch(matrix)
    return float(sum(matrix.shape[batch:]) * max(width, math.prod(matrix.shape[:batch]), 1))


def _has_table(term: Term) -> bool:
    return any([isinstance(e, Lookup) for e in (*term.row, *term.col)])


def _bare(terms: Sequence[Term]) -> Terms:
    """The structure of terms without coefficients; equal ones count once, as when they are added."""
    return tuple(dict.fromkeys([t if opaque_map(t) is not None else Term(t.domain, t.row, t.col) for t in terms]))


def _compose_bare(outer: Terms, inner: Terms) -> list[Term]:
    found = [compose_structure(a, b) for a in outer for b in inner]
    return [term for term in found if term is not None]
