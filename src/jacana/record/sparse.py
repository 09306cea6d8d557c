"""``A @ x`` with a ``scipy.sparse`` matrix: gather, multiply, scatter-add, so that the Jacobian has ``A``'s structure.

SciPy does not know NumPy's protocols: its product first turns the other operand into an array, and steps back for the
operand's ``__rmatmul__`` only if that gives an object without axes. ``Variable.__array__`` gives it one (and nobody
else), by the test below.
"""

from __future__ import annotations

import functools
import sys
from typing import Any

import numpy as np

from ..graph.build import assembled, broadcast_axes, index_node, product
from ..graph.index import axis, from_table
from ..graph.node import Array
from .declared import Operation
from .foreign import records, refuses
from .lift import operand
from .location import unsupported
from .recording import current_recording
from .variable import raw, tracked, wrap_constant, wrap_node


def is_sparse(value: Any) -> bool:
    """Whether ``value`` is a SciPy sparse matrix or array."""
    if not type(value).__module__.startswith("scipy.sparse"):
        return False
    from scipy.sparse import issparse

    return bool(issparse(value))


def asked_by_sparse_product() -> bool:
    """Whether the caller of our caller is SciPy's product, which would let us have our turn."""
    frame = sys._getframe(2)
    if frame.f_globals.get("__name__") == "jacana.record.constructors" and frame.f_back is not None:
        frame = frame.f_back  # np.asanyarray is a wrapper while something is recorded
    name = frame.f_globals.get("__name__", "")
    return frame.f_code.co_name == "_matmul_dispatch" and str(name).startswith("scipy.sparse")


def refuse_sparse_numbers() -> None:
    """An error if SciPy's sparse matrices ask for the numbers of a Variable, to put them into one."""
    frame = sys._getframe(2)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in ("jacana", "numpy"):
        if frame.f_back is None:
            return
        frame = frame.f_back
    if str(frame.f_globals.get("__name__")).startswith("scipy.sparse"):
        raise unsupported(
            f"a sparse matrix of recorded numbers (asked for by {frame.f_code.co_name} of scipy.sparse)",
            "A constant sparse matrix may multiply recorded vectors; recorded entries stay in an array of their own: "
            "np.add.at(out, rows, data * x[columns]), or a dense matrix.",
        )


def _coordinates(matrix: Any) -> tuple[Array, Array, Array]:
    """Rows, columns and numbers; the numbers are the matrix's own array, so that a change is seen."""
    match matrix.format:
        case "coo":
            return matrix.row, matrix.col, matrix.data
        case "csr" | "csc":
            major = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
            minor = matrix.indices
            return (major, minor, matrix.data) if matrix.format == "csr" else (minor, major, matrix.data)
    raise AssertionError(matrix.format)


def _content(matrix: Any) -> tuple[bytes, ...]:
    """Everything that a matrix of another format says."""
    found = matrix.tocoo()
    return tuple(part.tobytes() for part in (found.row, found.col, found.data))


def sparse_matmul(matrix: Any, x: Any) -> Any:
    """``matrix @ x`` for a Variable of one or two axes."""
    value = matrix @ raw(x)
    if tracked(x) is None:
        return wrap_constant(value)
    recording = current_recording()
    if matrix.format not in ("coo", "csr", "csc"):
        if recording is not None:
            recording.watches.state(functools.partial(_content, matrix))
        matrix = matrix.tocoo()
    rows, columns, data = _coordinates(matrix)
    if recording is not None:
        for name in ("row", "col", "indices", "indptr"):
            part = vars(matrix).get(name)
            if part is not None:
                recording.captures.table(part)
                recording.watches.name(vars(matrix), name, part)
        recording.watches.name(vars(matrix), "data", data)
    rest = raw(x).shape[1:]
    shape = (len(data), *rest)
    later = tuple(axis(k) for k in range(1, len(shape)))
    numbers = broadcast_axes(operand(data, data.shape, value.dtype), shape, (0,))
    gathered = index_node(operand(x, raw(x).shape, value.dtype), shape, (from_table(columns, (0,)), *later))
    where = (from_table(rows, (0,)), *later)
    return wrap_node(assembled([(product(numbers, gathered), where)], value.shape, value.dtype, disjoint=False), value)


def matmul_sparse(x: Any, matrix: Any) -> Any:
    """``x @ matrix``."""
    return np.transpose(sparse_matmul(matrix.T, np.transpose(x)))


@records("scipy.sparse.linalg", "spsolve")
def spsolve(A: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
    """The solution for a constant matrix, factorised once for all calls of the recording, until the matrix changes."""
    from scipy.sparse import linalg

    if not is_sparse(A) or is_sparse(b):
        raise unsupported(
            "scipy.sparse.linalg.spsolve by its matrix, or of a sparse right-hand side",
            "A constant sparse matrix may solve for recorded vectors; else np.linalg.solve of dense ones.",
        )
    value = np.asarray(linalg.spsolve(A, raw(b), *args, **kwargs))
    if value.dtype.kind != "f":
        raise unsupported("scipy.sparse.linalg.spsolve of complex numbers")
    recording = current_recording()
    if recording is not None:
        recording.watches.state(functools.partial(_content, A))
    factor = linalg.splu(A.tocsc().astype(value.dtype))
    solution = np.reshape(_solver(factor, False)(np.astype(b, value.dtype)), value.shape)
    return wrap_node(operand(solution, value.shape, value.dtype), value)


def _solver(factor: Any, transposed: bool) -> Operation:
    """The linear operation ``A^-1 b``, or that of the transpose, from the factors of A."""

    def value(b: Array) -> Array:
        return np.asarray(factor.solve(np.array(b), "T" if transposed else "N"))

    return Operation(
        value,
        None,
        lambda arrays, tangents: _solver(factor, transposed)(tangents[0]),
        lambda arrays, cotangent: _solver(factor, not transposed)(cotangent),
        "dense",
        True,
        "scipy.sparse.linalg.spsolve",
    )


refuses(
    "scipy.sparse",
    "Recorded entries stay in an array of their own: np.add.at(out, rows, data * x[columns]), or a dense matrix.",
    "diags", "diags_array", "spdiags", "block_array", "bmat", "kron", "kronsum",
)  # fmt: skip
refuses(
    "scipy.sparse.linalg",
    "Solve with a dense matrix, np.linalg.solve(A.toarray(), b), or make the solver an operation of your own: "
    "jacana.custom_operation.",
    "spsolve_triangular", "cg", "gmres", "bicgstab", "minres", "lsqr", "lsmr", "expm_multiply",
)  # fmt: skip
