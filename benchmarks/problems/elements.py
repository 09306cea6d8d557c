"""A nonlinear Poisson equation on a square of linear triangles: element residuals added up by np.add.at."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, jax_double, torch_double, ways


@cache
def mesh(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Triangles (elements, 3), their stiffness matrices (elements, 3, 3) and areas (elements,); n x n nodes."""
    i, j = (a.ravel() for a in np.meshgrid(np.arange(n - 1), np.arange(n - 1), indexing="ij"))
    corner = n * i + j
    triangles = np.concatenate(
        (np.stack((corner, corner + n, corner + n + 1), 1), np.stack((corner, corner + n + 1, corner + 1), 1))
    )
    side = np.linspace(0.0, 1.0, n)
    nodes = np.stack(np.meshgrid(side, side**1.5, indexing="ij"), -1).reshape(-1, 2)
    opposite = nodes[triangles[:, [2, 0, 1]]] - nodes[triangles[:, [1, 2, 0]]]
    areas = 0.5 * np.abs(opposite[:, 0, 0] * opposite[:, 1, 1] - opposite[:, 0, 1] * opposite[:, 1, 0])
    # The gradient of a shape function is the opposite edge turned by a right angle, over twice the area.
    stiffness = np.einsum("eik,ejk,e->eij", opposite, opposite, 1.0 / (4.0 * areas))
    return triangles, stiffness, areas


def residual(u: Any, triangles: np.ndarray, stiffness: np.ndarray, areas: np.ndarray) -> Any:
    """-div((1 + u**2) grad u) = 1, tested with every shape function; u and the result have shape (nodes,)."""
    local = u[triangles]
    conductivity = 1.0 + np.mean(local, axis=1) ** 2
    forces = conductivity[:, None] * np.einsum("eij,ej->ei", stiffness, local) - areas[:, None] / 3.0
    total = np.zeros(u.shape)
    np.add.at(total, triangles, forces)
    return total


@cache
def pattern(n: int) -> ways.Pattern:
    triangles = mesh(n)[0]
    return ways.pattern_of(triangles[:, :, None], triangles[:, None, :], (n * n, n * n))


def one(local: Any, stiffness: Any, area: Any) -> Any:
    """The residual of one element, shape (3,), for JAX and PyTorch."""
    return (1.0 + local.mean() ** 2) * (stiffness @ local) - area / 3.0


def build_jax(n: int) -> Call:
    jax = jax_double()
    triangles, stiffness, areas = map(jax.numpy.asarray, mesh(n))
    each = jax.vmap(jax.jacfwd(one))
    return ways.jax_blocks(lambda u: each(u[triangles], stiffness, areas), pattern(n))


def build_torch(n: int) -> Call:
    torch = torch_double()
    triangles, stiffness, areas = map(torch.from_numpy, mesh(n))
    each = torch.func.vmap(torch.func.jacfwd(one))
    return ways.torch_blocks(lambda u: each(u[triangles], stiffness, areas), pattern(n))


def jax_residual(n: int) -> Any:
    jnp = jax_double().numpy
    triangles, stiffness, areas = map(jnp.asarray, mesh(n))

    def residual(u: Any) -> Any:
        local = u[triangles]
        conductivity = 1.0 + jnp.mean(local, axis=1) ** 2
        forces = conductivity[:, None] * jnp.einsum("eij,ej->ei", stiffness, local) - areas[:, None] / 3.0
        return jnp.zeros(u.shape).at[triangles].add(forces)

    return residual


def build_casadi(n: int) -> Call:
    import casadi as ca

    triangles, stiffness, areas = mesh(n)
    data = np.concatenate((stiffness.reshape(-1, 9), areas[:, None]), axis=1)

    def one(local: Any, data: Any) -> Any:
        K = ca.reshape(data[:9], 3, 3)  # symmetric, so that the order of its elements does not matter
        return (1.0 + (ca.sum1(local) / 3.0) ** 2) * (K @ local) - data[9] / 3.0

    return ways.casadi_blocks(one, (3, 10), lambda u: u[triangles], data, pattern(n))


def problem(n: int, name: str) -> Problem:
    triangles, stiffness, areas = mesh(n)
    pattern(n)  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(13)
    large = n > 200
    peers = [
        Contender("JAX jit(vmap(jacfwd)), CSR", "jax", lambda: build_jax(n), note="element by element, places by hand"),
        Contender("asdex, CSR", "asdex", lambda: ways.asdex_jacobian(jax_residual(n), n * n), slow=large),
        Contender("CasADi SX map, CSR", "casadi", lambda: build_casadi(n), note="element by element, places by hand"),
        Contender(
            "PyTorch vmap(jacfwd), CSR", "torch", lambda: build_torch(n), note="element by element, places by hand"
        ),
    ]
    if not large:
        peers.append(
            Contender(
                "sparsejac, CSR",
                "sparsejac",
                lambda: ways.sparsejac_forward(jax_residual(n), pattern(n)),
                note="pattern by hand",
            )
        )
    return Problem(
        name=name,
        title=f"finite elements, {len(triangles):,} triangles, {n * n:,} nodes, CSR Jacobian",
        function=lambda u: residual(u, triangles, stiffness, areas),
        format="csr",
        inputs=tuple(rng.standard_normal(n * n) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=1.0),
    )
