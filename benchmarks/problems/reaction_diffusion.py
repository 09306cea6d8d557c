"""A reaction-diffusion equation on a line, du/dt = D u_xx + u - u**3, no flux at the ends: a tridiagonal Jacobian."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, csr, jax_double

DIFFUSIVITY = 0.01
SPACING = 0.05


def rate(u: Any) -> Any:
    """Rates of change of the concentrations u, shape (n,); the end points are mirrored."""
    padded = np.concatenate((u[:1], u, u[-1:]))
    diffusion = DIFFUSIVITY * (padded[:-2] - 2.0 * u + padded[2:]) / SPACING**2
    return diffusion + u - u**3


@cache
def pattern(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and row pointers of a tridiagonal matrix, in the order of CSR."""
    rows = np.repeat(np.arange(n, dtype=np.int32), 3)[1:-1]
    columns = (np.arange(n, dtype=np.int32)[:, None] + np.array([-1, 0, 1], dtype=np.int32)).ravel()[1:-1]
    indptr = np.concatenate(([0], np.arange(2, 3 * n - 2, 3), [3 * n - 2])).astype(np.int32)
    return rows, columns, indptr


def jax_rate() -> Any:
    jax_double()
    import jax.numpy as jnp

    def rate(u: Any) -> Any:
        padded = jnp.concatenate((u[:1], u, u[-1:]))
        diffusion = DIFFUSIVITY * (padded[:-2] - 2.0 * u + padded[2:]) / SPACING**2
        return diffusion + u - u**3

    return rate


def build_jax(n: int, assemble: bool) -> Call:
    """Three colours: columns 0, 3, 6, ... share a tangent, as do 1, 4, 7, ... and 2, 5, 8, ..."""
    jax = jax_double()
    import jax.numpy as jnp

    rate = jax_rate()
    rows, columns, indptr = pattern(n)
    seeds = jnp.asarray(np.arange(n) % 3 == np.arange(3)[:, None], dtype=np.float64)

    def compressed(u: Any) -> Any:
        return jax.vmap(lambda seed: jax.jvp(rate, (u,), (seed,))[1])(seeds)

    if not assemble:
        jitted = jax.jit(compressed)
        return lambda u: as_float64(jitted(u))
    colours, where = jnp.asarray(columns % 3), jnp.asarray(rows)
    data = jax.jit(lambda u: compressed(u)[colours, where])
    return lambda u: csr(as_float64(data(u)), columns, indptr, (n, n))


def build_asdex(n: int) -> Call:
    """Pattern and colouring found by asdex; values gathered in the jitted function, as its documentation advises."""
    jax = jax_double()
    import asdex
    import jax.numpy as jnp

    rate = jax_rate()
    coloring = asdex.jacobian_coloring(rate, jnp.zeros(n))
    compressed = asdex.compressed_jacobian_from_coloring(rate, coloring)
    data = jax.jit(lambda u: asdex.decompress_data(compressed(u), coloring))
    rows, columns = coloring.sparsity.rows, coloring.sparsity.cols
    if np.any(np.diff(rows) < 0):
        raise ValueError("asdex gave its pattern in another order than that of rows")
    indptr = np.searchsorted(rows, np.arange(n + 1)).astype(np.int32)
    return lambda u: csr(as_float64(data(u)), columns, indptr, (n, n))


def build_casadi(n: int) -> Call:
    """The transposed Jacobian's non-zeros by columns, which is CSR's order, as one dense vector."""
    import casadi as ca

    u = ca.SX.sym("u", n)
    padded = ca.vertcat(u[0], u, u[n - 1])
    diffusion = DIFFUSIVITY * (padded[:n] - 2.0 * u + padded[2:]) / SPACING**2
    transposed = ca.jacobian(diffusion + u - u**3, u).T
    columns, indptr = (np.asarray(part, dtype=np.int32) for part in (transposed.row(), transposed.sparsity().colind()))
    data = ca.Function("data", [u], [transposed.nz[:]])
    return lambda values: csr(data(values).full().ravel(), columns, indptr, (n, n))


def compressed_to_csr(compressed: np.ndarray) -> Any:
    n = compressed.shape[1]
    rows, columns, indptr = pattern(n)
    return csr(compressed[columns % 3, rows], columns, indptr, (n, n))


def problem(n: int, name: str) -> Problem:
    rng = np.random.default_rng(3)
    peers = [
        Contender("JAX, 3 colours by hand, CSR", "jax", lambda: build_jax(n, assemble=True)),
        Contender(
            "JAX, 3 colours by hand, compressed",
            "jax",
            lambda: build_jax(n, assemble=False),
            compressed_to_csr,
            note="gives the (3, n) products, not assembled",
        ),
        Contender("asdex, CSR", "asdex", lambda: build_asdex(n), counts=False, slow=n > 100_000),
    ]
    if n <= 100_000:
        peers.append(Contender("CasADi SX Function, CSR", "casadi", lambda: build_casadi(n), counts=False))
    return Problem(
        name=name,
        title=f"1-D reaction-diffusion, n = {n:,}, tridiagonal CSR Jacobian",
        function=rate,
        format="csr",
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=2.0 if n >= 1_000_000 else None),
    )
