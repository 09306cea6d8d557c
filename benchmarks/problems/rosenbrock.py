"""The chained Rosenbrock function: a tridiagonal Hessian."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, jax_double, torch_double, ways


def rosenbrock(x: Any, xp: Any = np) -> Any:
    """Sum over all neighbours, a scalar."""
    return xp.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def build_jax(n: int) -> Call:
    jax = jax_double()
    gradient = jax.grad(lambda x: rosenbrock(x, jax.numpy))
    return ways.jax_coloured(gradient, np.arange(n) % 3, ways.tridiagonal(n))


def build_asdex(n: int) -> Call:
    jnp = jax_double().numpy
    return ways.asdex_hessian(lambda x: rosenbrock(x, jnp), n)


def build_sparsejac(n: int) -> Call:
    jax = jax_double()
    return ways.sparsejac_forward(jax.grad(lambda x: rosenbrock(x, jax.numpy)), ways.tridiagonal(n))


def build_torch(n: int) -> Call:
    torch = torch_double()
    gradient = torch.func.grad(lambda x: rosenbrock(x, torch))
    return ways.torch_coloured(gradient, np.arange(n) % 3, ways.tridiagonal(n))


def build_casadi(n: int) -> Call:
    import casadi as ca

    x = ca.SX.sym("x", n)
    value = ca.sum1(100.0 * (x[1:] - x[: n - 1] ** 2) ** 2 + (1.0 - x[: n - 1]) ** 2)
    return ways.casadi_matrix(x, ca.hessian(value, x)[0])


def problem(n: int, name: str) -> Problem:
    ways.tridiagonal(n)  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(7)
    large = n > 100_000
    peers = [
        Contender(
            "JAX, 3 colours by hand, CSR", "jax", lambda: build_jax(n), note="pattern by hand too; forward over reverse"
        ),
        Contender("asdex, CSR", "asdex", lambda: build_asdex(n), slow=large),
        Contender("PyTorch, 3 colours by hand, CSR", "torch", lambda: build_torch(n), note="pattern by hand too"),
    ]
    if not large:
        peers += [
            Contender("sparsejac, CSR", "sparsejac", lambda: build_sparsejac(n), note="pattern by hand; of jax.grad"),
            Contender("CasADi SX, CSR", "casadi", lambda: build_casadi(n)),
        ]
    return Problem(
        name=name,
        title=f"chained Rosenbrock function, n = {n:,}, tridiagonal CSR Hessian",
        function=rosenbrock,
        derivative="hessian",
        format="csr",
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=1.0),
    )
