"""``V diag(h) V^T`` of the eigenvectors of one matrix: right where eigenvalues are equal, if it is smooth there.

Eigenvectors have no derivative where eigenvalues are equal, but smooth functions of the matrix that are computed by
them do: ``(V * np.exp(w)) @ V.T``, and the gradient of ``np.log(w).sum()``, which is ``(V / w) @ V.T``. The chain rule
through V would divide zero by zero. So the contraction of V with itself is one operation with a derivative of its own:

    dY = V (diag(dh) + D * T) V^T,   D[i,j] = (h[i] - h[j]) / (w[i] - w[j])

(Daleckii and Krein, 1965; Higham, "Functions of Matrices", 2008, theorem 3.11), and where two eigenvalues are close, D
is the mean slope of h with its first correction (the trapezoidal rule with end corrections). Slopes exist if h is
computed element by element from the eigenvalues; beside that it may depend on anything that treats equal eigenvalues
equally, such as their sum. Where h treats them differently, D is NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, axes_of, identity, plain_axis, rename
from ..node import REGISTRY, Array, DType, Edges, Factor, Node, Shape, Term, literal, topological
from .contraction import contract
from .elementwise import divide, multiply, negative, select
from .labelled import labelled, linalg, spread
from .movement import assemble, index
from .peel import peel
from .spectral import _eigh, _eigvalsh, unresolved, values_of, vectors_of

MAX_FACTORS = 10
MAX_DEPTH = 6


def _evaluate(params: Any, packed: Array, t: Array, h: Array) -> Array:
    v = packed[..., 1:, :]
    return np.asarray((v * h[..., None, :]) @ np.swapaxes(v, -1, -2))


def _infer(params: Any, packed: Node, t: Node, h: Node) -> tuple[Shape, DType]:
    return t.shape, t.dtype


def _edges(node: Node) -> Edges:
    packed, _, h = node.inputs
    lead, n = node.shape[:-2], node.shape[-1]
    v = vectors_of(packed)
    sizes = dict.fromkeys("pqij", n)
    differences = divided_differences(packed, h)
    assert differences is not None, "only made where h has slopes"
    return (
        None,
        (labelled(lead, sizes, "pq", "ij", (v, "pi"), (differences, "ij"), (v, "qj")),),
        (labelled(lead, dict.fromkeys("pqi", n), "pq", "i", (v, "pi"), (v, "qi")),),
    )


spectral_function = linalg("spectral_function", _evaluate, _infer, _edges)


# --- divided differences ------------------------------------------------------------------------------------------


def divided_differences(packed: Node, h: Node) -> Node | None:
    """``D[i, j]``, zero on the diagonal; None if ``h`` has no slopes by the eigenvalues."""
    from ..build import broadcast_axes, constant_array, full

    w = values_of(packed)
    slopes = _slope(h, _bases(packed))
    curves = None if slopes is None else _slope(slopes, _bases(packed))
    if slopes is None or curves is None:
        return None
    n, rank, shape, dtype = w.shape[-1], w.ndim + 1, (*w.shape, w.shape[-1]), w.dtype
    eps = float(np.finfo(dtype).eps)

    def pair(node: Node) -> tuple[Node, Node]:
        return spread(node, n, False), spread(node, n, True)

    def magnitude(node: Node) -> Node:
        return REGISTRY["absolute"](node)

    (wi, wj), (hi, hj), (si, sj), (ci, cj) = map(pair, (w, h, slopes, curves))
    gap = wi - wj
    near = magnitude(gap) <= (magnitude(wi) + magnitude(wj)) * eps**0.25
    close = REGISTRY["logical_or"](near, unresolved(gap, w))
    one = full(1.0, shape, dtype)
    quotient = (hi - hj) / select(close, one, gap)
    mean = (si + sj) * 0.5 - gap * (ci - cj) * (1 / 12)
    # Equal eigenvalues must be treated equally, in value and in slope: else there is no derivative.
    values = magnitude(hi - hj - mean * gap) <= (magnitude(hi) + magnitude(hj)) * eps**0.5
    change = gap * (ci + cj) * 0.5
    tangents = magnitude(si - sj - change) <= (magnitude(si) + magnitude(sj) + magnitude(change)) * 1e-3
    sound = REGISTRY["logical_and"](values, tangents)
    mean = mean * select(sound, one, full(np.nan, shape, dtype))
    diagonal = broadcast_axes(constant_array(np.eye(n, dtype=bool)), shape, (rank - 2, rank - 1))
    return select(diagonal, full(0.0, shape, dtype), select(close, mean, quotient))


def _bases(packed: Node) -> tuple[Node, ...]:
    """The nodes that are the eigenvalues of the same matrix."""
    a, params = packed.inputs[0], packed.params
    return values_of(packed), _eigvalsh(a, params=params._replace(scipy=False))


def _slope(h: Node, bases: tuple[Node, ...]) -> Node | None:
    """The derivative of each element of ``h`` by its own eigenvalue; None if that is not found element by element."""
    from ..build import full, index_node, zeros

    known: dict[Node, Node | None] = {}  # None: no dependence
    for node in topological([h]):
        if node in bases:
            known[node] = full(1.0, node.shape, node.dtype)
            continue
        moved = [known[i] for i in node.inputs]
        if all(m is None for m in moved):
            known[node] = None
        elif node.op.family == "elementwise" and node.dtype.kind == "f":
            parts = [
                _coefficient(terms, node) * _as(m, node)
                for terms, m in zip(node.op.edges(node), moved, strict=True)
                if terms is not None and m is not None
            ]
            known[node] = sum(parts[1:], parts[0]) if parts else None
        elif node.dtype.kind != "f":
            known[node] = None
        elif node.op is index:
            last = node.ndim - 1
            if node.ndim and all(last not in axes_of(e) for e in node.params.indices):
                known[node] = None  # the same for every eigenvalue
            elif moved[0] is not None and plain_axis(node.params.indices[-1]) == last:
                known[node] = index_node(moved[0], node.shape, node.params.indices)
            else:
                return None
        elif node.ndim < h.ndim:
            known[node] = zeros(node.shape, node.dtype)  # of all of them together: it must reach h by a broadcast
        else:
            return None
    found = known[h]
    return zeros(h.shape, h.dtype) if found is None else found


def _as(slope: Node, like: Node) -> Node:
    from ..build import cast_to

    return cast_to(slope, like.dtype)


def _coefficient(terms: tuple[Term, ...], like: Node) -> Node:
    """The partial derivative of an elementwise operation, at every element."""
    from ..build import broadcast_axes, cast_to, full, product

    (term,) = terms
    assert term.row == term.col == identity(like.ndim)
    result = full(1.0, like.shape, like.dtype)
    for node, axes in term.factors:
        result = product(result, cast_to(broadcast_axes(node, like.shape, axes), like.dtype))
    for node, axes in term.masks:
        result = select(broadcast_axes(node, like.shape, axes), result, full(0.0, like.shape, like.dtype))
    return result


# --- finding them -------------------------------------------------------------------------------------------------


class _Vectors(NamedTuple):
    """A factor that is the eigenvectors of ``packed``: labels of the batch, of their components, of their number."""

    packed: Node
    lead: tuple[int, ...]
    component: int
    number: int


def _as_vectors(node: Node, labels: tuple[int, ...]) -> _Vectors | None:
    if node.op is not index or node.inputs[0].op is not _eigh:
        return None
    packed = node.inputs[0]
    n = packed.shape[-1]
    *front, row, col = node.params.indices
    places = [plain_axis(e) for e in (*front, col)]
    if not isinstance(row, Affine) or row.offset != 1 or len(row.strides) != 1 or row.strides[0][1] != 1:
        return None
    if any(p is None for p in places) or node.shape[row.strides[0][0]] != n:
        return None
    axes = [p for p in (*places, row.strides[0][0]) if p is not None]
    if len(set(axes)) != len(axes) or len(axes) != node.ndim or node.size != n * packed.size // (n + 1):
        return None
    *batch, number, component = (labels[a] for a in axes)
    return _Vectors(packed, tuple(batch), component, number)


def _bare(node: Node, labels: tuple[int, ...]) -> Factor:
    """The factor without the axes along which it is only replicated."""
    from ..build import index_node

    node, labels = peel(node, labels)
    if node.op is index:
        used = sorted({a for e in node.params.indices for a in axes_of(e)})
        if len(used) < node.ndim:
            names = {a: k for k, a in enumerate(used)}
            indices = [rename(e, names) for e in node.params.indices]
            return index_node(node.inputs[0], tuple(node.shape[a] for a in used), indices), tuple(
                labels[a] for a in used
            )
    return node, labels


class _Expansion:
    """A contraction taken apart into the factors of which it is made."""

    def __init__(self, sizes: list[int], out: tuple[int, ...]) -> None:
        self.sizes, self.out = sizes, out
        self.factors: list[Factor] = []
        self.vectors: list[_Vectors] = []
        self.same: list[tuple[int, int]] = []  # labels that a diagonal matrix makes equal

    def add(self, node: Node, labels: tuple[int, ...], depth: int) -> bool:
        """False where it becomes too much."""
        found = _as_vectors(node, labels)
        if found is not None:
            self.vectors.append(found)
            return len(self.vectors) + len(self.factors) <= MAX_FACTORS
        if depth:
            node, labels = _bare(node, labels)
            found = _as_vectors(node, labels)
            if found is not None:
                return self.add(node, labels, depth)
            if node.op is multiply:
                return all(self.add(i, labels, depth - 1) for i in node.inputs)
            if node.op is divide:
                below, axes = _bare(node.inputs[1], labels)
                self.factors.append((REGISTRY["reciprocal"](below), axes))
                return self.add(node.inputs[0], labels, depth - 1)
            if node.op is negative:
                self.factors.append((literal(-1.0, node.dtype), ()))
                return self.add(node.inputs[0], labels, depth - 1)
            if node.op is contract:
                params = node.params
                names = {x: labels[k] for k, x in enumerate(params.out)}
                for x, size in enumerate(params.sizes):
                    if x not in names:
                        names[x] = len(self.sizes)
                        self.sizes.append(size)
                pairs = zip(node.inputs, params.labels, strict=True)
                return all(self.add(i, tuple(names[x] for x in ls), depth - 1) for i, ls in pairs)
            if node.op is assemble and len(node.inputs) == 1 and node.inputs[0].ndim == 1:
                first, *rest = node.params.rows[0]
                if node.ndim == 2 and first == rest[0] == identity(1)[0] and node.shape == node.inputs[0].shape * 2:
                    self.same.append((labels[0], labels[1]))
                    return self.add(node.inputs[0], labels[:1], depth - 1)
        self.factors.append((node, labels))
        return len(self.vectors) + len(self.factors) <= MAX_FACTORS


def spectral_product(
    factors: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]
) -> tuple[list[Factor], list[int]] | None:
    """The factors of a contraction with every ``V diag(h) V^T`` in it as one factor, and sizes; None: there is none."""
    whole = _Expansion(list(sizes), out)
    if not all(whole.add(node, labels, MAX_DEPTH) for node, labels in factors) or len(whole.vectors) < 2:
        return None
    names = _renamed(whole)
    if names is None:
        return None
    vectors = [
        v._replace(lead=tuple(names[x] for x in v.lead), component=names[v.component], number=names[v.number])
        for v in whole.vectors
    ]
    rest: list[Factor] = [(node, tuple(names[x] for x in labels)) for node, labels in whole.factors]
    found = False
    for first in list(vectors):
        pair = [v for v in vectors if v.number == first.number]
        if first not in pair or len(pair) != 2 or first.number in out:
            continue
        made = _joined(pair, rest, whole.sizes)
        if made is not None:
            rest, vectors, found = made, [v for v in vectors if v not in pair], True
    if not found:
        return None
    for v in vectors:
        rest.append((vectors_of(v.packed), (*v.lead, v.component, v.number)))
    return rest, whole.sizes


def _renamed(whole: _Expansion) -> list[int] | None:
    """One name for labels that a diagonal matrix makes equal; None where both are wanted in the result."""
    names = list(range(len(whole.sizes)))
    for a, b in whole.same:
        a, b = names[a], names[b]
        if a == b or (a in whole.out and b in whole.out):
            return None
        kept, gone = (a, b) if a in whole.out else (b, a)
        names = [kept if x == gone else x for x in names]
    return names


def _joined(pair: list[_Vectors], rest: list[Factor], sizes: list[int]) -> list[Factor] | None:
    from ..build import broadcast_axes, cast_to, full, index_node, product

    one, other = pair
    if one.packed is not other.packed or one.lead != other.lead:
        return None
    number, wanted = one.number, (*one.lead, one.number)
    if number in (one.component, other.component, *one.lead):
        return None
    weights = [f for f in rest if number in f[1]]
    if any(not set(labels) <= set(wanted) or len(set(labels)) < len(labels) for _, labels in weights):
        return None
    packed = one.packed
    shape = values_of(packed).shape
    h = full(1.0, shape, packed.dtype)
    for node, labels in weights:
        aligned = broadcast_axes(node, shape, [wanted.index(x) for x in labels])
        h = product(h, cast_to(aligned, packed.dtype))
    if divided_differences(packed, h) is None:
        return None
    made = spectral_function(packed, packed.inputs[1], h)
    if one.component == other.component:  # the diagonal of it
        places = [Affine(0, ((min(k, made.ndim - 2), 1),)) for k in range(made.ndim)]
        diagonal = index_node(made, made.shape[:-1], places)
        return [*(f for f in rest if number not in f[1]), (diagonal, (*one.lead, one.component))]
    return [*(f for f in rest if number not in f[1]), (made, (*one.lead, one.component, other.component))]
