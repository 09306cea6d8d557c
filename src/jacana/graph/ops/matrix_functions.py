"""Functions of matrices (exponential, logarithm, root, ...) and the Sylvester equation.

Their derivative has no useful closed form with few factors, but it multiplies: it is a ``Matrix`` (a factor that is
never formed unless an entry of it is asked for). For every function f that is smooth on the spectrum

    f([[A, E], [0, A]]) = [[f(A), L(A, E)], [0, f(A)]]

where L is the derivative of f at A in the direction E (Mathias, "A chain rule for matrix functions and applications",
SIAM J. Matrix Anal. Appl. 17, 1996, theorem 2.1; Higham, "Functions of Matrices", 2008, equation (3.16)). So the
product of the derivative with a direction is the function itself of a matrix twice as large, and the derivative of that
is found by the same rule, to any order. The transposed product is L(A^T, .).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, identity
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .labelled import labelled, linalg, turned
from .linalg import square


class FunctionParams(NamedTuple):
    """Which function of ``scipy.linalg``, and its exponent if it has one."""

    name: str
    exponent: float | None = None

    def batched(self) -> FunctionParams:
        """The same for one more leading axis."""
        return self


class PolarParams(NamedTuple):
    """On which side the symmetric factor is, and which factor: 0 the orthogonal one, 1 the symmetric one."""

    side: str
    part: int

    def batched(self) -> PolarParams:
        """The same for one more leading axis."""
        return self


def is_real(value: Array) -> bool:
    """Whether a complex matrix is real but for what rounding leaves, which depends on the version of SciPy."""
    rounding = value.shape[-1] * np.finfo(value.dtype).eps * np.abs(value).max(initial=0.0)
    return bool(np.abs(value.imag).max(initial=0.0) <= rounding)


def _evaluate(params: FunctionParams, a: Array) -> Array:
    """Matrix by matrix; NaN where the function is not real: the recorder guards against it."""
    from scipy import linalg as functions

    function = getattr(functions, params.name)
    arguments = () if params.exponent is None else (params.exponent,)
    result = np.empty(a.shape, dtype=a.dtype)
    for where in np.ndindex(*a.shape[:-2]):
        value = np.asarray(function(a[where], *arguments))
        if value.dtype.kind == "c":
            value = value.real if is_real(value) else np.full(value.shape, np.nan)
        result[where] = value
    return result


def _pair(a: Node, directions: Node) -> Node:
    """``[[A, E], [0, A]]`` for each direction."""
    from ..build import assembled

    n = a.shape[-1]
    *lead, rows, cols = identity(a.ndim)
    low, right = Affine(n, ((a.ndim - 2, 1),)), Affine(n, ((a.ndim - 1, 1),))
    parts = [(a, (*lead, rows, cols)), (directions, (*lead, rows, right)), (a, (*lead, low, right))]
    return assembled(parts, (*a.shape[:-2], 2 * n, 2 * n), a.dtype, disjoint=True)


def derivative(params: FunctionParams, a: Node, directions: Node) -> Node:
    """The derivative of the function at ``a`` in each direction, arrays of equal shape."""
    from ..build import index_node

    n = a.shape[-1]
    pair = matrix_function(_pair(a, directions), params=params)
    *lead, rows, _ = identity(a.ndim)
    return index_node(pair, a.shape, (*lead, rows, Affine(n, ((a.ndim - 1, 1),))))


def directions_last(array: Node, batch: int) -> tuple[Node, tuple[int, ...]]:
    """``(batch, i, j, rest)`` as ``(batch, rest, i, j)``, and the order that leads back."""
    from ..build import transpose

    rank = array.ndim
    order = (*range(batch), *range(batch + 2, rank), batch, batch + 1)
    return transpose(array, order), tuple(order.index(k) for k in range(rank))


def _spread_matrix(a: Node, shape: Shape) -> Node:
    """``a`` of shape ``(batch, n, n)`` for each of the directions of shape ``(batch, rest, n, n)``."""
    from ..build import broadcast_axes

    batch, rank = a.ndim - 2, len(shape)
    return broadcast_axes(a, shape, (*range(batch), rank - 2, rank - 1))


def _apply(matrix: Node, array: Node, transposed: bool) -> Node:
    from ..build import transpose

    a = matrix.inputs[0]
    if transposed:
        a = turned(a)
    directions, back = directions_last(array, a.ndim - 2)
    moved = derivative(matrix.params, _spread_matrix(a, directions.shape), directions)
    return transpose(moved, back)


def units(shape: Shape, dtype: DType) -> Node:
    """For each of the axes ``(k, l)`` before the last two, the matrix that is one at ``(k, l)`` and zero elsewhere.

    A product of two small identities: nothing large exists before an executor asks for it.
    """
    from ..build import broadcast_axes, constant_array, product

    first = len(shape) - 4
    parts = []
    for k, size in enumerate(shape[-2:]):
        eye = constant_array(np.eye(size, dtype=dtype))
        parts.append(broadcast_axes(eye, shape, (first + k, first + 2 + k)))
    return product(*parts)


def _formed(params: FunctionParams, a: Node) -> Node:
    """Every entry of the derivative, ``(batch, i, j, k, l)``: the derivative in each unit direction."""
    from ..build import transpose

    n, batch = a.shape[-1], a.ndim - 2
    shape = (*a.shape[:-2], n, n, n, n)  # (batch, k, l, i, j)
    found = derivative(params, _spread_matrix(a, shape), units(shape, a.dtype))
    return transpose(found, (*range(batch), batch + 2, batch + 3, batch, batch + 1))


def _matrix_infer(params: Any, *inputs: Node) -> tuple[Shape, DType]:
    return inputs[-1].shape, inputs[-1].dtype


def _matrix_edges(node: Node) -> Edges:
    # Where the matrix is formed after all, it is what it is formed from.
    every = identity(node.ndim)
    return (*(None for _ in node.inputs[:-1]), (Term(node.shape, every, every),))


def _batch(matrix: Node) -> int:
    return matrix.ndim - 4


def _operands(matrix: Node) -> tuple[Node, ...]:
    return matrix.inputs[:-1]


def _linear_map(name: str, product: Any) -> Operation:
    return register(
        Operation(
            name=name,
            family="matrix",
            evaluate=lambda params, *arrays: arrays[-1],
            infer=_matrix_infer,
            edges=_matrix_edges,
            matrix=Matrix(lambda matrix: 2, product, batch=_batch, needs=_operands),
        )
    )


function_derivative = _linear_map("matrix_function_derivative", _apply)


def _function_edges(node: Node) -> Edges:
    (a,) = node.inputs
    whole = function_derivative(a, _formed(node.params, a), params=node.params)
    return ((labelled(a.shape[:-2], dict.fromkeys("ijkl", a.shape[-1]), "ij", "kl", (whole, "ijkl")),),)


matrix_function = linalg("matrix_function", _evaluate, square, _function_edges)


# --- the Sylvester equation A X + X B = C -------------------------------------------------------------------------


def _sylvester_evaluate(params: Any, a: Array, b: Array, c: Array, t: Array) -> Array:
    from scipy.linalg import solve_sylvester

    result = np.empty_like(c)
    for where in np.ndindex(*c.shape[:-2]):
        result[where] = solve_sylvester(a[where], b[where], c[where])
    return result


def _sylvester_apply(matrix: Node, array: Node, transposed: bool) -> Node:
    from ..build import transpose

    a, b = matrix.inputs[:2]
    if transposed:
        a, b = turned(a), turned(b)
    directions, back = directions_last(array, a.ndim - 2)
    lead = directions.shape[:-2]
    spread_a = _spread_matrix(a, (*lead, *a.shape[-2:]))
    spread_b = _spread_matrix(b, (*lead, *b.shape[-2:]))
    return transpose(sylvester(spread_a, spread_b, directions), back)


def _sylvester_formed(a: Node, b: Node) -> Node:
    from ..build import transpose

    m, n, batch = a.shape[-1], b.shape[-1], a.ndim - 2
    shape = (*a.shape[:-2], m, n, m, n)
    found = sylvester(
        _spread_matrix(a, (*shape[:-2], m, m)), _spread_matrix(b, (*shape[:-2], n, n)), units(shape, a.dtype)
    )
    return transpose(found, (*range(batch), batch + 2, batch + 3, batch, batch + 1))


sylvester_inverse = _linear_map("sylvester_inverse", _sylvester_apply)


def _sylvester_edges(node: Node) -> Edges:
    a, b, _, _ = node.inputs
    m, n = node.shape[-2:]
    whole = sylvester_inverse(a, b, _sylvester_formed(a, b))
    sizes = {"i": m, "j": n, "k": m, "l": n}
    return None, None, None, (labelled(node.shape[:-2], sizes, "ij", "kl", (whole, "ijkl")),)


def _sylvester_tangent(node: Node) -> Edges:
    # The right-hand side that moves X as the three matrices do: dC - dA X - X dB.
    a, b, c = node.inputs
    lead, (m, n) = c.shape[:-2], c.shape[-2:]
    x = sylvester(a, b, c)
    return (
        (labelled(lead, {"i": m, "j": n, "k": m}, "ij", "ik", (-x, "kj")),),
        (labelled(lead, {"i": m, "j": n, "k": n}, "ij", "kj", (-x, "ik")),),
        (labelled(lead, {"i": m, "j": n}, "ij", "ij"),),
    )


_sylvester = linalg(
    "sylvester", _sylvester_evaluate, lambda params, a, b, c, t: (c.shape, c.dtype), _sylvester_edges
)  # fmt: skip
_sylvester_t = linalg(
    "sylvester_tangent",
    lambda params, a, b, c: np.zeros_like(c),
    lambda params, a, b, c: (c.shape, c.dtype),
    _sylvester_tangent,
)


def sylvester(a: Node, b: Node, c: Node) -> Node:
    """The solution of ``a x + x b = c``."""
    return _sylvester(a, b, c, _sylvester_t(a, b, c))


def _polar_evaluate(params: PolarParams, a: Array, formula: Array) -> Array:
    u, s, vt = np.linalg.svd(a, full_matrices=False)
    if params.part == 0:
        return np.asarray(u @ vt)
    vectors = np.swapaxes(vt, -1, -2) if params.side == "right" else u
    return np.asarray((vectors * s[..., None, :]) @ np.swapaxes(vectors, -1, -2))


def _polar_edges(node: Node) -> Edges:
    m, n = node.shape[-2:]
    return None, (labelled(node.shape[:-2], {"i": m, "j": n}, "ij", "ij"),)


# A polar factor of the first input, by singular values: it exists where the formula that is differentiated, the second
# input, divides by zero.
polar_factor = linalg("polar", _polar_evaluate, lambda params, a, formula: (formula.shape, formula.dtype), _polar_edges)
