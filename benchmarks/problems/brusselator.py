"""The Brusselator on a square with periodic edges: two species, n x n points, six entries a row."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways

A, B, DIFFUSIVITY = 3.4, 1.0, 10.0


def rate(y: Any, n: int, xp: Any = np) -> Any:
    """Rates of change of the concentrations y, shape (n * n * 2,): both species of a point are neighbours in memory.

    (Hairer and Wanner, Solving Ordinary Differential Equations II, section IV.10, without the forcing term.)
    """
    state = y.reshape(n, n, 2)
    u, v = state[..., 0], state[..., 1]
    scale = DIFFUSIVITY * (n - 1) ** 2

    def diffusion(w: Any) -> Any:
        around = xp.roll(w, 1, 0) + xp.roll(w, -1, 0) + xp.roll(w, 1, 1) + xp.roll(w, -1, 1)
        return scale * (around - 4.0 * w)

    product = u * u * v
    du = B + product - (A + 1.0) * u + diffusion(u)
    dv = A * u - product + diffusion(v)
    return xp.stack((du, dv), -1).reshape(-1)


@cache
def pattern(n: int) -> ways.Pattern:
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    rows, columns = [], []
    for species in (0, 1):
        row = 2 * (n * i + j) + species
        for di, dj in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)):
            rows.append(row)
            columns.append(2 * (n * ((i + di) % n) + (j + dj) % n) + species)
        rows.append(row)
        columns.append(2 * (n * i + j) + 1 - species)
    return ways.pattern_of(np.stack(rows), np.stack(columns), (2 * n * n, 2 * n * n))


@cache
def colours(n: int) -> np.ndarray:
    """Eight colours for a torus whose side is a multiple of eight: i + 3 j, and four more for the second species."""
    assert n % 8 == 0
    i, j = np.meshgrid(np.arange(n), np.arange(n), indexing="ij")
    return ((i + 3 * j)[..., None] + np.array([0, 4])).ravel() % 8


def build_jax_coloured(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.jax_coloured(lambda y: rate(y, n, jnp), colours(n), pattern(n))


def build_jax_dense(n: int) -> Call:
    jax = jax_double()
    jacobian = jax.jit(jax.jacfwd(lambda y: rate(y, n, jax.numpy)))
    return lambda y: as_float64(jacobian(y))


def build_asdex(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.asdex_jacobian(lambda y: rate(y, n, jnp), 2 * n * n)


def build_sparsejac(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.sparsejac_forward(lambda y: rate(y, n, jnp), pattern(n))


def build_torch(n: int) -> Call:
    torch = torch_double()
    return ways.torch_coloured(lambda y: rate(y, n, torch), colours(n), pattern(n))


def build_casadi(n: int) -> Call:
    """Indices of the neighbours instead of roll, which CasADi does not have."""
    import casadi as ca

    y = ca.SX.sym("y", 2 * n * n)
    numbers = np.arange(n * n).reshape(n, n)
    around = [np.roll(numbers, shift, axis).ravel().tolist() for shift in (1, -1) for axis in (0, 1)]
    u, v = y[0::2], y[1::2]
    scale = DIFFUSIVITY * (n - 1) ** 2

    def diffusion(w: Any) -> Any:
        return scale * (w[around[0]] + w[around[1]] + w[around[2]] + w[around[3]] - 4.0 * w)

    product = u * u * v
    du, dv = B + product - (A + 1.0) * u + diffusion(u), A * u - product + diffusion(v)
    return ways.casadi_csr(y, ca.vec(ca.horzcat(du, dv).T))


def problem(n: int, name: str) -> Problem:
    pattern(n), colours(n)  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(n)
    large = n > 100
    peers = [
        Contender("JAX, 8 colours by hand, CSR", "jax", lambda: build_jax_coloured(n), note="pattern by hand too"),
        Contender("asdex, CSR", "asdex", lambda: build_asdex(n), slow=large),
        Contender("sparsejac, CSR", "sparsejac", lambda: build_sparsejac(n), slow=large, note="pattern by hand"),
        Contender("CasADi SX, CSR", "casadi", lambda: build_casadi(n), slow=large),
        Contender("PyTorch, 8 colours by hand, CSR", "torch", lambda: build_torch(n), note="pattern by hand too"),
    ]
    if not large:
        peers.insert(1, Contender("JAX jit(jacfwd), dense", "jax", lambda: build_jax_dense(n), ways.sp.csr_array))
    return Problem(
        name=name,
        title=f"2-D Brusselator, {n} x {n} x 2, CSR Jacobian with six entries a row",
        function=lambda y: rate(y, n),
        format="csr",
        inputs=tuple(rng.uniform(0.5, 4.0, 2 * n * n) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=1.0),
    )
