"""Burgers' equation with viscosity on a line, finite volumes with the flux of Rusanov: tridiagonal, with kinks."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, jax_double, torch_double, ways

VISCOSITY = 0.01
WIDTH = 1e-3


def rate(u: Any, xp: Any = np) -> Any:
    """Rates of change of the cell means u, shape (n,); the cells at the ends see themselves outside."""
    padded = xp.concatenate((u[:1], u, u[-1:]))
    left, right = padded[:-1], padded[1:]
    speed = xp.maximum(xp.abs(left), xp.abs(right))
    flux = 0.25 * (left * left + right * right) - (0.5 * speed + VISCOSITY / WIDTH) * (right - left)
    return (flux[:-1] - flux[1:]) / WIDTH


def build_jax(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.jax_coloured(lambda u: rate(u, jnp), np.arange(n) % 3, ways.tridiagonal(n))


def build_asdex(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.asdex_jacobian(lambda u: rate(u, jnp), n)


def build_sparsejac(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.sparsejac_forward(lambda u: rate(u, jnp), ways.tridiagonal(n))


def build_torch(n: int) -> Call:
    torch = torch_double()
    return ways.torch_coloured(lambda u: rate(u, torch), np.arange(n) % 3, ways.tridiagonal(n))


def build_casadi(n: int) -> Call:
    import casadi as ca

    u = ca.SX.sym("u", n)
    padded = ca.vertcat(u[0], u, u[n - 1])
    left, right = padded[: n + 1], padded[1:]
    speed = ca.fmax(ca.fabs(left), ca.fabs(right))
    flux = 0.25 * (left * left + right * right) - (0.5 * speed + VISCOSITY / WIDTH) * (right - left)
    return ways.casadi_csr(u, (flux[:n] - flux[1:]) / WIDTH)


def problem(n: int, name: str) -> Problem:
    ways.tridiagonal(n)  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(5)
    return Problem(
        name=name,
        title=f"Burgers' equation, n = {n:,}, tridiagonal CSR Jacobian",
        function=rate,
        format="csr",
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=(
            Contender("JAX, 3 colours by hand, CSR", "jax", lambda: build_jax(n), note="pattern by hand too"),
            Contender("asdex, CSR", "asdex", lambda: build_asdex(n), slow=True),
            Contender("sparsejac, CSR", "sparsejac", lambda: build_sparsejac(n), slow=True, note="pattern by hand"),
            Contender("CasADi SX, CSR", "casadi", lambda: build_casadi(n), slow=True),
            Contender("PyTorch, 3 colours by hand, CSR", "torch", lambda: build_torch(n), note="pattern by hand too"),
        ),
        target=Target(ratio=1.0),
    )
