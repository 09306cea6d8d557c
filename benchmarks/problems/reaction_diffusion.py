"""A reaction-diffusion equation on a line, du/dt = D u_xx + u - u**3, no flux at the ends: a tridiagonal Jacobian."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways

DIFFUSIVITY = 0.01
SPACING = 0.05


def rate(u: Any) -> Any:
    """Rates of change of the concentrations u, shape (n,); the end points are mirrored."""
    padded = np.concatenate((u[:1], u, u[-1:]))
    diffusion = DIFFUSIVITY * (padded[:-2] - 2.0 * u + padded[2:]) / SPACING**2
    return diffusion + u - u**3


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
    rate, colours = jax_rate(), np.arange(n) % 3
    if assemble:
        return ways.jax_coloured(rate, colours, ways.tridiagonal(n))
    tangents = jax.numpy.asarray(ways.seeds(colours))
    compressed = jax.jit(lambda u: jax.vmap(lambda tangent: jax.jvp(rate, (u,), (tangent,))[1])(tangents))
    return lambda u: as_float64(compressed(u))


def build_asdex(n: int) -> Call:
    return ways.asdex_jacobian(jax_rate(), n)


def build_sparsejac(n: int) -> Call:
    return ways.sparsejac_forward(jax_rate(), ways.tridiagonal(n))


def build_torch(n: int) -> Call:
    torch = torch_double()

    def rate(u: Any) -> Any:
        padded = torch.concatenate((u[:1], u, u[-1:]))
        diffusion = DIFFUSIVITY * (padded[:-2] - 2.0 * u + padded[2:]) / SPACING**2
        return diffusion + u - u**3

    return ways.torch_coloured(rate, np.arange(n) % 3, ways.tridiagonal(n))


def build_casadi(n: int) -> Call:
    import casadi as ca

    u = ca.SX.sym("u", n)
    padded = ca.vertcat(u[0], u, u[n - 1])
    diffusion = DIFFUSIVITY * (padded[:n] - 2.0 * u + padded[2:]) / SPACING**2
    return ways.casadi_csr(u, diffusion + u - u**3)


def compressed_to_csr(compressed: np.ndarray) -> Any:
    pattern = ways.tridiagonal(compressed.shape[1])
    return pattern.csr(compressed[pattern.columns % 3, pattern.rows])


def problem(n: int, name: str) -> Problem:
    ways.tridiagonal(n)  # known by hand, before anybody's clock runs
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
        Contender("PyTorch, 3 colours by hand, CSR", "torch", lambda: build_torch(n), note="pattern by hand too"),
    ]
    if n <= 100_000:
        peers += [
            Contender("sparsejac, CSR", "sparsejac", lambda: build_sparsejac(n), note="pattern by hand"),
            Contender("CasADi SX, CSR", "casadi", lambda: build_casadi(n), counts=False),
        ]
    return Problem(
        name=name,
        title=f"1-D reaction-diffusion, n = {n:,}, tridiagonal CSR Jacobian",
        function=rate,
        format="csr",
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=2.0 if n >= 1_000_000 else None),
    )
