"""The ways in which a user of a peer gets a sparse Jacobian, once he has found out by hand what the peer asks for.

Everything here is preparation by hand that jacana does not need: patterns, colours, the places of blocks. The functions
return calls that are ready to be timed: an ndarray in, a `scipy.sparse.csr_array` out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from . import Call, as_float64, csr, jax_double, torch_double


@dataclass(frozen=True, eq=False)
class Pattern:
    """The places of a sparse matrix in the order of CSR, and where each entry of some blocks goes.

    Attributes:
        rows, columns: shape (nnz,), int32.
        indptr: shape (shape[0] + 1,), int32.
        place: for each entry that the pattern was made from, its place in `data`.
    """

    shape: tuple[int, int]
    rows: np.ndarray
    columns: np.ndarray
    indptr: np.ndarray
    place: np.ndarray

    def csr(self, data: np.ndarray) -> sp.csr_array:
        return csr(data, self.columns, self.indptr, self.shape)

    @cached_property
    def sources(self) -> np.ndarray | None:
        """For each place the one entry that goes there; None if some place takes several."""
        if self.place.size != self.rows.size:
            return None
        return np.argsort(self.place)


def pattern_of(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> Pattern:
    """The pattern of entries in any order, some of them perhaps in the same place."""
    rows, columns = np.broadcast_arrays(rows, columns)
    keys, place = np.unique(rows.ravel().astype(np.int64) * shape[1] + columns.ravel(), return_inverse=True)
    found, columns = (keys // shape[1]).astype(np.int32), (keys % shape[1]).astype(np.int32)
    indptr = np.searchsorted(found, np.arange(shape[0] + 1)).astype(np.int32)
    return Pattern(shape, found, columns, indptr, place.ravel())


@cache
def tridiagonal(n: int) -> Pattern:
    rows = np.arange(n)[:, None] + np.zeros(3, dtype=np.int64)
    columns = np.arange(n)[:, None] + np.array([-1, 0, 1])
    inside = (columns >= 0) & (columns < n)
    return pattern_of(rows[inside], columns[inside], (n, n))


# --- colours: columns that share no row share a tangent ----------------------------------------------------------


def seeds(colours: np.ndarray) -> np.ndarray:
    """One tangent for each colour, shape (colours, n)."""
    return (colours == np.arange(colours.max() + 1)[:, None]).astype(np.float64)


def jax_coloured(function: Call, colours: np.ndarray, pattern: Pattern) -> Call:
    """JAX: a forward derivative for each colour, batched, and a gather, in one compiled function."""
    jax = jax_double()
    jnp = jax.numpy
    tangents = jnp.asarray(seeds(colours))
    colour, row = jnp.asarray(colours[pattern.columns]), jnp.asarray(pattern.rows)

    @jax.jit
    def data(x: Any) -> Any:
        return jax.vmap(lambda tangent: jax.jvp(function, (x,), (tangent,))[1])(tangents)[colour, row]

    return lambda x: pattern.csr(as_float64(data(x)))


def torch_coloured(function: Call, colours: np.ndarray, pattern: Pattern) -> Call:
    """PyTorch: a forward derivative for each colour, batched by torch.func.vmap, and a gather."""
    torch = torch_double()
    tangents = torch.from_numpy(seeds(colours))
    flat = torch.from_numpy(colours[pattern.columns].astype(np.int64) * pattern.shape[0] + pattern.rows)

    def call(x: np.ndarray) -> sp.csr_array:
        point = torch.from_numpy(x)
        products = torch.func.vmap(lambda tangent: torch.func.jvp(function, (point,), (tangent,))[1])(tangents)
        return pattern.csr(products.reshape(-1)[flat].numpy())

    return call


def sparsejac_forward(function: Call, pattern: Pattern) -> Call:
    """sparsejac: colours the pattern it is given; the function it returns is compiled by JAX."""
    jax = jax_double()
    import sparsejac
    from jax.experimental import sparse

    indices = jax.numpy.asarray(np.stack((pattern.rows, pattern.columns), axis=1))
    given = sparse.BCOO((jax.numpy.ones(len(indices)), indices), shape=pattern.shape)
    jacobian = sparsejac.jacfwd(function, given)
    data = jax.jit(lambda x: jacobian(x).data)
    return lambda x: pattern.csr(as_float64(data(x)))


# --- asdex: finds pattern and colours by itself -------------------------------------------------------------------


def asdex_jacobian(function: Call, n: int) -> Call:
    return _asdex(function, n, "jacobian")


def asdex_hessian(function: Call, n: int) -> Call:
    return _asdex(function, n, "hessian")


def _asdex(function: Call, n: int, kind: str) -> Call:
    """Pattern and colouring by asdex; values gathered in the jitted function, as its documentation advises."""
    jax = jax_double()
    import asdex

    coloring = getattr(asdex, f"{kind}_coloring")(function, jax.numpy.zeros(n))
    compressed = getattr(asdex, f"compressed_{kind}_from_coloring")(function, coloring)
    found = coloring.sparsity
    pattern = pattern_of(np.asarray(found.rows), np.asarray(found.cols), tuple(found.shape))
    sources = pattern.sources
    assert sources is not None
    if np.array_equal(sources, np.arange(sources.size)):
        data = jax.jit(lambda x: asdex.decompress_data(compressed(x), coloring))
    else:
        order = jax.numpy.asarray(sources)
        data = jax.jit(lambda x: asdex.decompress_data(compressed(x), coloring)[order])
    return lambda x: pattern.csr(as_float64(data(x)))


# --- blocks: the Jacobian of one item, for all items ---------------------------------------------------------------


def jax_blocks(blocks: Callable[[Any], Any], pattern: Pattern) -> Call:
    """JAX: blocks that a function gives for all items, put in their places (added where a place takes several)."""
    jax = jax_double()
    jnp = jax.numpy
    if pattern.sources is None:
        place, size = jnp.asarray(pattern.place), pattern.rows.size
        data = jax.jit(lambda x: jnp.zeros(size).at[place].add(blocks(x).reshape(-1)))
    else:
        sources = jnp.asarray(pattern.sources)
        data = jax.jit(lambda x: blocks(x).reshape(-1)[sources])
    return lambda x: pattern.csr(as_float64(data(x)))


def torch_blocks(blocks: Callable[[Any], Any], pattern: Pattern) -> Call:
    """PyTorch: the same."""
    torch = torch_double()
    sources = None if pattern.sources is None else torch.from_numpy(pattern.sources)
    place = torch.from_numpy(pattern.place)

    def call(x: np.ndarray) -> sp.csr_array:
        flat = blocks(torch.from_numpy(x)).reshape(-1)
        if sources is None:
            data = torch.zeros(pattern.rows.size, dtype=flat.dtype).index_add_(0, place, flat)
        else:
            data = flat[sources]
        return pattern.csr(data.numpy())

    return call


def casadi_blocks(
    one: Callable[[Any, Any], Any],
    sizes: tuple[int, int],
    variables: Callable[[np.ndarray], np.ndarray],
    data: np.ndarray,
    pattern: Pattern,
) -> Call:
    """CasADi: the block of one item as a function of its variables and data, mapped over all items.

    Args:
        one: the residual of one item, from symbols for its variables and data.
        sizes: numbers of variables and of data of one item.
        variables: the variables of all items, shape (items, variables), at a point.
        data: shape (items, data).
    """
    import casadi as ca

    v, d = ca.SX.sym("v", sizes[0]), ca.SX.sym("d", sizes[1])
    block = ca.densify(ca.jacobian(one(v, d), v))
    mapped = casadi_buffered(ca.Function("block", [v, d], [ca.vec(block.T)]).map(len(data)))

    def call(x: np.ndarray) -> sp.csr_array:
        flat = mapped(variables(x), data)
        if pattern.sources is not None:
            return pattern.csr(flat[pattern.sources])
        return pattern.csr(np.bincount(pattern.place, flat, pattern.rows.size))

    return call


def casadi_buffered(function: Any) -> Callable[..., np.ndarray]:
    """CasADi's interface for callers in a hurry: memory is bound once, and read and written in column-major order.

    It serves one caller at a time, and many times faster on large arrays than a call of the function.
    """
    buffer, evaluate = function.buffer()
    arguments = [np.zeros(function.nnz_in(i)) for i in range(function.n_in())]
    result = np.zeros(function.nnz_out(0))
    for i, argument in enumerate(arguments):
        buffer.set_arg(i, memoryview(argument))
    buffer.set_res(0, memoryview(result))

    def call(*values: np.ndarray) -> np.ndarray:
        for argument, value in zip(arguments, values, strict=True):
            argument[:] = value.ravel()
        evaluate()
        return result.copy()

    call.keep_alive = buffer  # type: ignore[attr-defined]
    return call


def casadi_csr(symbol: Any, result: Any) -> Call:
    """CasADi: the transposed Jacobian's non-zeros by columns, which is CSR's order, as one dense vector."""
    import casadi as ca

    return casadi_matrix(symbol, ca.jacobian(result, symbol))


def casadi_matrix(symbol: Any, matrix: Any) -> Call:
    """CasADi: the values of a sparse matrix of expressions."""
    import casadi as ca

    transposed = matrix.T
    columns, indptr = (np.asarray(part, dtype=np.int32) for part in (transposed.row(), transposed.sparsity().colind()))
    data = casadi_buffered(ca.Function("data", [symbol], [transposed.nz[:]]))
    shape = matrix.shape
    return lambda x: csr(data(x), columns, indptr, shape)


def concatenated(parts: Sequence[Any]) -> np.ndarray:
    """Blocks by several arguments (items, rows, ...) as one array (items, rows, columns)."""
    return np.concatenate([np.asarray(part).reshape(*part.shape[:2], -1) for part in parts], axis=2)
