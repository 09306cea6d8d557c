"""``scipy.linalg``: systems of equations, factorisations, functions of matrices, matrix equations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import broadcast_to
from ..graph.node import Node
from ..graph.ops import factors, matrix_functions, pivoted, spectral
from ..graph.ops.linalg import inverse_or_nan
from .factorizations import guard_real, least_squares, mirrored, qr_nodes, svd_nodes, svdvals, with_basis, zeros_below
from .foreign import REAL_ONLY, refuses
from .lift import operand, plain_operand
from .linalg import float_node
from .location import unsupported
from .recording import guard
from .scipy_calls import LINALG, of_scipy, original, valued
from .variable import raw, tracked, wrap_node

refuses(
    LINALG, "The basis of a null space is arbitrary; use the projector I - pinv(A) @ A.", "null_space"
)  # fmt: skip
REAL_ONLY.update(
    (LINALG, name)
    for name in (
        "cho_factor",
        "cho_solve",
        "cho_solve_banded",
        "solveh_banded",
        "solve_toeplitz",
        "solve_discrete_lyapunov",
    )
)
refuses(LINALG, "The basis of a range is arbitrary; use the projector A @ pinv(A).", "orth")


def _turned(a: Any) -> Any:
    return np.swapaxes(a, -1, -2)


def _mirror(a: Any, lower: bool) -> Any:
    """The triangle that LAPACK reads, on both sides."""
    n = np.shape(raw(a))[-1]
    mask = np.tri(n, dtype=bool)
    return np.where(mask if lower else mask.T, a, _turned(a))


def _as_assumed(a: Any, assume: Any, lower: bool) -> Any:
    """What is left of a matrix when SciPy reads only what the assumption says."""
    match assume:
        case "sym" | "symmetric" | "her" | "hermitian" | "pos" | "positive definite":
            return _mirror(a, lower)
        case "upper triangular":
            return _triangle(a, False)
        case "lower triangular":
            return _triangle(a, True)
        case "diagonal":
            return np.triu(np.tril(a))
        case "tridiagonal":
            return np.triu(np.tril(a, 1), -1)
    return a


@of_scipy("solve")
def solve(value: Any, a: Any, b: Any, lower: bool = False, assume_a: Any = None, transposed: bool = False) -> Any:
    """``a x = b``."""
    matrix = _as_assumed(plain_operand(a), assume_a, lower)
    return valued(np.linalg.solve(_turned(matrix) if transposed else matrix, plain_operand(b)), value)


@of_scipy("solve_triangular")
def solve_triangular(
    value: Any, a: Any, b: Any, trans: Any = 0, lower: bool = False, unit_diagonal: bool = False
) -> Any:  # fmt: skip
    """``a x = b``, of which one triangle is read."""
    matrix = _triangle(plain_operand(a), lower, unit_diagonal)
    return valued(np.linalg.solve(_turned(matrix) if trans not in (0, "N") else matrix, plain_operand(b)), value)


def _triangle(a: Any, lower: bool, unit: bool = False) -> Any:
    # What goes into a factorisation is dense: a mask leaves its two axes apart, where np.tril makes one of the places.
    mask = np.tri(np.shape(raw(a))[-1], dtype=bool)
    part = np.where(mask if lower else mask.T, a, 0.0)
    return np.where(np.eye(np.shape(raw(a))[-1], dtype=bool), 1.0, part) if unit else part


@of_scipy("inv")
def inv(value: Any, a: Any, assume_a: Any = None, lower: bool = False) -> Any:
    """The inverse."""
    return valued(np.linalg.inv(_as_assumed(plain_operand(a), assume_a, lower)), value)


@of_scipy("det")
def det(value: Any, a: Any) -> Any:
    """The determinant."""
    return valued(np.linalg.det(plain_operand(a)), value)


@of_scipy("eig")
def eig(
    value: Any, a: Any, b: Any = None, left: bool = False, right: bool = True, homogeneous_eigvals: bool = False
) -> Any:
    """Eigenvalues, complex always, and eigenvectors of one matrix."""
    if b is not None or left or homogeneous_eigvals:
        raise unsupported(
            "scipy.linalg.eig of two matrices, with left eigenvectors or homogeneous eigenvalues",
            "Left eigenvectors are those of the transpose; write scipy.linalg.eig(solve(b, a)) for two matrices.",
        )
    if not right:
        return _complex_eigenvalues(a)
    found, vectors = np.linalg.eig(plain_operand(a))
    return np.astype(found, np.result_type(found.dtype, np.complex64)), vectors


@of_scipy("eigvals")
def eigvals(value: Any, a: Any, b: Any = None, homogeneous_eigvals: bool = False) -> Any:
    """Eigenvalues, complex always."""
    if b is not None or homogeneous_eigvals:
        raise unsupported("scipy.linalg.eigvals of two matrices, or homogeneous ones", "Solve by one of them first.")
    return _complex_eigenvalues(a)


def _complex_eigenvalues(a: Any) -> Any:
    found = np.linalg.eigvals(plain_operand(a))
    return np.astype(found, np.result_type(found.dtype, np.complex64))


@of_scipy("norm")
def norm(value: Any, a: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Vector and matrix norms."""
    return valued(np.linalg.norm(plain_operand(a), ord, axis, keepdims), value)


# --- Cholesky, LU, QR ---------------------------------------------------------------------------------------------


@of_scipy("cholesky")
def cholesky(value: Any, a: Any, lower: bool = False) -> Any:
    """The triangular factor, the upper one unless ``lower``."""
    return valued(_cholesky(plain_operand(a), lower), value)


def _cholesky(a: Any, lower: bool) -> Any:
    factor = np.linalg.cholesky(_mirror(a, lower))
    return factor if lower else _turned(factor)


@of_scipy("cho_factor")
def cho_factor(value: Any, a: Any, lower: bool = False) -> Any:
    """The factor in one triangle; the other one keeps what was there, as SciPy has it."""
    a = plain_operand(a)
    mask = np.tri(np.shape(raw(a))[-1], dtype=bool)
    return valued(np.where(mask if lower else mask.T, _cholesky(a, lower), a), value[0]), value[1]


@of_scipy("cho_solve")
def cho_solve(value: Any, c_and_lower: Any, b: Any) -> Any:
    """``L L^T x = b``."""
    c, lower = c_and_lower
    factor = _triangle(plain_operand(c), bool(lower))
    first = factor if lower else _turned(factor)
    return valued(np.linalg.solve(_turned(first), np.linalg.solve(first, plain_operand(b))), value)


def _one_matrix(a: Any, what: str) -> Any:
    a = plain_operand(a)
    if np.ndim(raw(a)) != 2 or np.shape(raw(a))[0] != np.shape(raw(a))[1]:
        raise unsupported(f"scipy.linalg.{what} of anything but one square matrix", "Factor square matrices singly.")
    return a


def _order(pivots: Any) -> Any:
    """Row exchanges, one after the other, as the order in which the rows end."""
    order = np.arange(len(pivots))
    for k, other in enumerate(pivots):
        order[[k, other]] = order[[other, k]]
    return order


def _factored(a: Any, dtype: Any) -> tuple[Any, Node]:
    """The exchanges of a matrix, guarded, and its factors in one array."""
    node = float_node(a, dtype)
    exchanges = original("lu_factor")(raw(a))[1]
    guard(pivoted.pivots(node, params=pivoted.PivotParams("lu")), np.asarray(exchanges, dtype=np.intp))
    rows = plain_operand(a)[_order(exchanges)]
    return exchanges, pivoted.lu(float_node(rows, dtype))


@of_scipy("lu_factor")
def lu_factor(value: Any, a: Any) -> Any:
    """Both factors in one array, and the row exchanges: integers, which are guarded."""
    exchanges, node = _factored(_one_matrix(a, "lu_factor"), value[0].dtype)
    return wrap_node(node, value[0]), exchanges


@of_scipy("lu")
def lu(value: Any, a: Any, permute_l: bool = False, p_indices: bool = False) -> Any:
    """``P``, ``L``, ``U``; the permutation is guarded."""
    a = _one_matrix(a, "lu")
    numbers = value if permute_l else value[1:]
    exchanges, node = _factored(a, numbers[0].dtype)
    packed = wrap_node(node, original("lu_factor")(raw(a))[0])
    lower, upper = _triangle(packed, True, True), _triangle(packed, False)
    if permute_l:
        lower = lower[np.argsort(_order(exchanges))]
    factors_ = valued(lower, numbers[0]), valued(upper, numbers[1])
    return factors_ if permute_l else (value[0], *factors_)


@of_scipy("lu_solve")
def lu_solve(value: Any, lu_and_piv: Any, b: Any, trans: int = 0) -> Any:
    """``P L U x = b``."""
    packed, pivots = lu_and_piv
    packed, b = plain_operand(packed), plain_operand(b)
    looked_at = tracked(pivots)
    if looked_at is not None:
        guard(looked_at, raw(pivots))
    order = _order(np.asarray(raw(pivots)))
    lower, upper = _triangle(packed, True, True), _triangle(packed, False)
    if trans:
        x = np.linalg.solve(_turned(lower), np.linalg.solve(_turned(upper), b))
        return valued(x[np.argsort(order)], value)
    return valued(np.linalg.solve(upper, np.linalg.solve(lower, b[order])), value)


@of_scipy("qr")
def qr(value: Any, a: Any, mode: str = "full", pivoting: bool = False) -> Any:
    """``Q`` and ``R``; pivots are integers, which are guarded."""
    a = plain_operand(a)
    if mode not in ("full", "r", "economic"):
        raise unsupported(f"scipy.linalg.qr(mode={mode!r})", "Use mode='economic'.")
    node = float_node(a, value[-2 if pivoting else -1].dtype)
    if pivoting:
        if node.ndim != 2:
            raise unsupported("scipy.linalg.qr(pivoting=True) of several matrices", "Factor them one by one.")
        columns = np.asarray(value[-1], dtype=np.intp)
        guard(pivoted.pivots(node, params=pivoted.PivotParams("qr")), columns)
        node = float_node(a[:, columns], node.dtype)
    q, r = qr_nodes(node)
    m, n = node.shape[-2:]
    if mode != "economic" and m > n:
        r = zeros_below(r, m)
        if mode == "full":
            q = with_basis(q, node, "qr", "scipy.linalg.qr(mode='full')", "mode='economic'")
    parts = (r,) if mode == "r" else (q, r)
    found = tuple(map(wrap_node, parts, value))
    return (*found, value[-1]) if pivoting else found


# --- eigenvalues and singular values ------------------------------------------------------------------------------


def _only_all(name: str, **options: Any) -> None:
    for option, given in options.items():
        if given is not None:
            raise unsupported(f"scipy.linalg.{name}({option}=...)", "Compute all of them and take a slice.")


def _eigenvalues(value: Any, a: Any, b: Any, lower: bool, type: int) -> Any:
    a = plain_operand(a)
    if b is None:
        return valued(np.linalg.eigvalsh(a, "L" if lower else "U"), value)
    packed = _pencil(a, b, lower, type, value.dtype)
    return wrap_node(spectral.values_of(packed), value)


def _pencil(a: Any, b: Any, lower: bool, type: int, dtype: Any) -> Node:
    if type != 1:
        raise unsupported(f"scipy.linalg.eigh(type={type})", "Write it as a problem of type 1.")
    nodes = [mirrored(float_node(plain_operand(x), dtype), not lower) for x in (a, b)]
    lead = np.broadcast_shapes(nodes[0].shape[:-2], nodes[1].shape[:-2])
    first, second = (broadcast_to(x, (*lead, *x.shape[-2:])) for x in nodes)
    return spectral.pencil(first, second, "L" if lower else "U")


@of_scipy("eigh")
def eigh(
    value: Any, a: Any, b: Any = None, lower: bool = True, eigvals_only: bool = False, type: int = 1,
    subset_by_index: Any = None, subset_by_value: Any = None, driver: Any = None,
) -> Any:  # fmt: skip
    """Eigenvalues and eigenvectors of a symmetric matrix, or of a pair of them."""
    _only_all("eigh", subset_by_index=subset_by_index, subset_by_value=subset_by_value)
    if eigvals_only:
        return _eigenvalues(value, a, b, lower, type)
    if driver is not None:
        raise unsupported("scipy.linalg.eigh(driver=...)", "The signs of eigenvectors depend on it; leave it out.")
    if b is None:
        node = mirrored(float_node(plain_operand(a), value[1].dtype), not lower)
        packed = spectral.eigh(node, "L" if lower else "U", True)
    else:
        packed = _pencil(a, b, lower, type, value[1].dtype)
    return wrap_node(spectral.values_of(packed), value[0]), wrap_node(spectral.vectors_of(packed), value[1])


@of_scipy("eigvalsh")
def eigvalsh(
    value: Any, a: Any, b: Any = None, lower: bool = True, type: int = 1, subset_by_index: Any = None,
    subset_by_value: Any = None, driver: Any = None,
) -> Any:  # fmt: skip
    """Eigenvalues of a symmetric matrix, or of a pair of them."""
    _only_all("eigvalsh", subset_by_index=subset_by_index, subset_by_value=subset_by_value)
    return _eigenvalues(value, a, b, lower, type)


@of_scipy("svd")
def svd(
    value: Any, a: Any, full_matrices: bool = True, compute_uv: bool = True, lapack_driver: str = "gesdd"
) -> Any:  # fmt: skip
    """Singular values and vectors."""
    a = plain_operand(a)
    if not compute_uv:
        return valued(svdvals(a), value)
    if lapack_driver != "gesdd":
        raise unsupported("scipy.linalg.svd(lapack_driver=...)", "The signs of vectors depend on it; leave it out.")
    return tuple(map(wrap_node, svd_nodes(float_node(a, value[1].dtype), bool(full_matrices), True), value))


@of_scipy("svdvals")
def singular_values(value: Any, a: Any) -> Any:
    """Singular values, largest first."""
    return valued(svdvals(plain_operand(a)), value)


@of_scipy("polar")
def polar(value: Any, a: Any, side: str = "right") -> Any:
    """``a = u p`` (or ``p u``), by the root of ``a^T a`` (``a a^T``), which equal singular values do not trouble."""
    a = plain_operand(a)
    m, n = np.shape(raw(a))[-2:]
    if (m < n) if side == "right" else (m > n):
        raise unsupported(f"scipy.linalg.polar(side={side!r}) of a matrix of this shape", "Use the other side.")
    dtype = value[0].dtype
    square = np.matmul(_turned(a), a) if side == "right" else np.matmul(a, _turned(a))
    params = matrix_functions.FunctionParams("sqrtm")
    root = matrix_functions.matrix_function(float_node(square, dtype), params=params)
    inverted = wrap_node(inverse_or_nan(root), np.empty_like(value[1]))
    u = np.matmul(a, inverted) if side == "right" else np.matmul(inverted, a)
    node = float_node(a, dtype)
    parts = [
        matrix_functions.polar_factor(node, by, params=matrix_functions.PolarParams(side, k))
        for k, by in enumerate((float_node(u, dtype), root))
    ]
    return tuple(map(wrap_node, parts, value))


@of_scipy("orthogonal_procrustes")
def orthogonal_procrustes(value: Any, A: Any, B: Any) -> Any:
    """The orthogonal matrix next to ``A^T B``, and the sum of singular values."""
    product = np.matmul(_turned(plain_operand(A)), plain_operand(B))
    u, _ = polar(original("polar")(raw(product)), product)
    return valued(u, value[0]), valued(np.linalg.norm(product, "nuc"), value[1])


# --- least squares ------------------------------------------------------------------------------------------------


@of_scipy("lstsq")
def lstsq(value: Any, a: Any, b: Any, cond: Any = None, lapack_driver: Any = None) -> Any:
    """The least-squares solution of least length."""
    if lapack_driver not in (None, "gelsd"):
        raise unsupported("scipy.linalg.lstsq(lapack_driver=...)", "Leave it out.")
    a, b = plain_operand(a), plain_operand(b)
    if np.ndim(raw(a)) != 2:
        raise unsupported("scipy.linalg.lstsq of several matrices", "Solve them one by one.")
    solution, squares, rank, s = value
    cutoff = float(np.finfo(solution.dtype).eps if cond is None else cond)
    return least_squares(a, b, cutoff, solution, np.asarray(squares), rank, s)


def _cutoff(a: Any, node: Node, atol: Any, rtol: Any) -> Node:
    """Below which share of the largest singular value SciPy counts one as zero."""
    share = float(max(node.shape[-2:]) * np.finfo(node.dtype).eps) if rtol is None else float(rtol)
    if not atol:
        return operand(share, node.shape[:-2], np.dtype("f8"))
    return operand(share + float(atol) / svdvals(a)[..., 0], node.shape[:-2], np.dtype("f8"))


def _pseudo_inverse(value: Any, a: Any, node: Node, atol: Any, rtol: Any, return_rank: bool) -> Any:
    number, rank = value if return_rank else (value, None)
    result = wrap_node(factors.pinv(node, _cutoff(a, node, atol, rtol)), number)
    if not return_rank:
        return result
    s = svdvals(a)
    limit = (atol or 0.0) + s[..., :1] * (max(node.shape[-2:]) * np.finfo(node.dtype).eps if rtol is None else rtol)
    return result, valued(np.sum((s > limit).astype(np.int64), axis=-1), rank)


@of_scipy("pinv")
def pinv(value: Any, a: Any, atol: Any = None, rtol: Any = None, return_rank: bool = False) -> Any:
    """The pseudo-inverse; its derivative is that of matrices of the same rank."""
    a = plain_operand(a)
    dtype = (value[0] if return_rank else value).dtype
    return _pseudo_inverse(value, a, float_node(a, dtype), atol, rtol, return_rank)


@of_scipy("pinvh")
def pinvh(
    value: Any, a: Any, atol: Any = None, rtol: Any = None, lower: bool = True, return_rank: bool = False
) -> Any:  # fmt: skip
    """The pseudo-inverse of a symmetric matrix, of which one triangle is read."""
    a = _mirror(plain_operand(a), lower)
    dtype = (value[0] if return_rank else value).dtype
    return _pseudo_inverse(value, a, float_node(a, dtype), atol, rtol, return_rank)


# --- functions of matrices and matrix equations -------------------------------------------------------------------


def _function(name: str, value: Any, a: Any, exponent: float | None = None) -> Any:
    value = np.asarray(value)
    if value.dtype.kind == "c" and matrix_functions.is_real(value):
        value = value.real
    a = plain_operand(a)
    node = matrix_functions.matrix_function(
        float_node(a, value.dtype if value.dtype.kind == "f" else np.dtype("f8")),
        params=matrix_functions.FunctionParams(name, exponent),
    )
    if name in ("sqrtm", "logm", "fractional_matrix_power"):
        if value.dtype.kind == "c":
            raise unsupported(
                f"scipy.linalg.{name} of a matrix for which it is complex",
                "Check the sign of the eigenvalues before it.",
            )
        guard_real(node, value)
    return wrap_node(node, value)


def _functions() -> None:
    for name in ("expm", "sqrtm", "logm", "sinm", "cosm", "tanm", "sinhm", "coshm", "tanhm", "signm"):

        def handler(value: Any, A: Any, disp: Any = True, blocksize: Any = None, _name: str = name) -> Any:
            if disp is False:
                raise unsupported(f"scipy.linalg.{_name}(disp=False)", "Leave disp out.")
            return _function(_name, value, A)

        of_scipy(name)(handler)


_functions()


@of_scipy("fractional_matrix_power")
def fractional_matrix_power(value: Any, A: Any, t: Any) -> Any:
    """Powers of a matrix by a number that is no argument."""
    if tracked(t) is not None:
        raise unsupported(
            "scipy.linalg.fractional_matrix_power with an exponent that depends on the arguments",
            "Write expm(t * logm(A)).",
        )
    return _function("fractional_matrix_power", value, A, float(raw(t)))


@of_scipy("expm_frechet")
def expm_frechet(value: Any, A: Any, E: Any, method: Any = None, compute_expm: bool = True) -> Any:
    """The exponential and its derivative in one direction."""
    A, E = plain_operand(A), plain_operand(E)
    numbers = value if compute_expm else (None, value)
    dtype = numbers[1].dtype
    a, e = float_node(A, dtype), float_node(E, dtype)
    params = matrix_functions.FunctionParams("expm")
    moved = wrap_node(matrix_functions.derivative(params, a, e), numbers[1])
    if not compute_expm:
        return moved
    return wrap_node(matrix_functions.matrix_function(a, params=params), numbers[0]), moved


@of_scipy("solve_sylvester")
def solve_sylvester(value: Any, a: Any, b: Any, q: Any) -> Any:
    """``a x + x b = q``."""
    nodes = [float_node(plain_operand(x), value.dtype) for x in (a, b, q)]
    return wrap_node(matrix_functions.sylvester(*nodes), value)


@of_scipy("solve_continuous_lyapunov", "solve_lyapunov")
def solve_continuous_lyapunov(value: Any, a: Any, q: Any) -> Any:
    """``a x + x a^T = q``."""
    a = plain_operand(a)
    nodes = [float_node(x, value.dtype) for x in (a, _turned(a), plain_operand(q))]
    return wrap_node(matrix_functions.sylvester(*nodes), value)


@of_scipy("solve_discrete_lyapunov")
def solve_discrete_lyapunov(value: Any, a: Any, q: Any, method: Any = None) -> Any:
    """``a x a^T - x + q = 0``, as a system for all elements of ``x``."""
    a, q = plain_operand(a), plain_operand(q)
    n = np.shape(raw(a))[-1]
    system = np.eye(n * n) - np.kron(a, a)
    return valued(np.reshape(np.linalg.solve(system, np.ravel(q)), (n, n)), value)


@of_scipy("issymmetric", "ishermitian")
def issymmetric(value: Any, a: Any, atol: Any = None, rtol: Any = None) -> Any:
    """A look at the numbers, guarded."""
    a = plain_operand(a)
    if (atol or rtol) is None or not (atol or rtol):
        return bool(np.all(a == _turned(a)))
    other = _turned(a)
    return bool(np.all(np.abs(a - other) <= (atol or 0.0) + (rtol or 0.0) * np.abs(other)))
