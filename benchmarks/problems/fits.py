"""What fitting asks for: a small Jacobian called often, the gradient of a large loss, many arms at once."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways
from .arm import LINKS, forward

# --- a small fit ---------------------------------------------------------------------------------------------------


@cache
def decay() -> tuple[np.ndarray, np.ndarray]:
    t = np.linspace(0.0, 4.0, 50)
    return t, 2.5 * np.exp(-1.3 * t) + 0.5 + 0.01 * np.random.default_rng(0).standard_normal(50)


T, Y = decay()


def residual(p: Any) -> Any:
    return p[0] * np.exp(-p[1] * T) + p[2] - Y


def build_jax_residual() -> Call:
    jax = jax_double()
    jacobian = jax.jit(jax.jacfwd(lambda p: p[0] * jax.numpy.exp(-p[1] * T) + p[2] - Y))
    return lambda p: as_float64(jacobian(p))


def build_casadi_residual() -> Call:
    import casadi as ca

    p, t, y = ca.SX.sym("p", 3), ca.DM(T), ca.DM(Y)
    jacobian = ca.densify(ca.jacobian(p[0] * ca.exp(-p[1] * t) + p[2] - y, p))
    transposed = ways.casadi_buffered(ca.Function("jacobian", [p], [jacobian.T]))
    return lambda point: transposed(point).reshape(50, 3)


def build_by_hand() -> Call:
    def jacobian(p: np.ndarray) -> np.ndarray:
        result = np.ones((50, 3))
        e = np.exp(-p[1] * T)
        result[:, 0] = e
        result[:, 1] = -p[0] * T * e
        return result

    return jacobian


def small_problem(name: str) -> Problem:
    return Problem(
        name=name,
        title="exponential decay, 50 points, 50 x 3 dense Jacobian",
        function=residual,
        format="dense",
        inputs=tuple(np.array([2.0, 1.0, 0.3]) * s for s in (1.0, 1.1, 0.9)),
        peers=(
            Contender("JAX jit(jacfwd)", "jax", build_jax_residual),
            Contender("CasADi SX", "casadi", build_casadi_residual),
            Contender("NumPy by hand", "numpy", build_by_hand, note="derivatives by hand"),
        ),
        target=Target(ratio=1.0, microseconds=3.0),
    )


# --- a large loss --------------------------------------------------------------------------------------------------


@cache
def cases() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((100_000, 100)), np.where(rng.random(100_000) < 0.5, -1.0, 1.0)


def loss(w: Any, xp: Any = np) -> Any:
    X, y = cases()
    return xp.sum(xp.logaddexp(0.0, -y * (X @ w)))


def build_jacana_loss() -> Call:
    import jacana as jc

    return jc.grad(loss)


def build_jax_loss() -> Call:
    jax = jax_double()
    gradient = jax.jit(jax.grad(partial(loss, xp=jax.numpy)))
    return lambda w: as_float64(gradient(w))


def build_torch_loss() -> Call:
    torch = torch_double()
    X, y = map(torch.from_numpy, cases())

    def call(w: np.ndarray) -> np.ndarray:
        v = torch.from_numpy(w).clone().requires_grad_()
        total = torch.nn.functional.softplus(-y * (X @ v)).sum()
        (gradient,) = torch.autograd.grad(total, v)
        return gradient.numpy()

    return call


def loss_problem(name: str) -> Problem:
    rng = np.random.default_rng(1)
    return Problem(
        name=name,
        title="logistic regression, 100,000 x 100, gradient",
        function=loss,
        format="dense",
        ours=build_jacana_loss,
        inputs=tuple(0.1 * rng.standard_normal(100) for _ in range(3)),
        peers=(
            Contender("JAX jit(grad)", "jax", build_jax_loss),
            Contender("PyTorch autograd", "torch", build_torch_loss),
        ),
        target=Target(ratio=1.0),
    )


# --- many arms -----------------------------------------------------------------------------------------------------


def build_jacana_arms() -> Call:
    import jacana as jc

    return jc.vmap(jc.jacobian(forward))


def build_jax_arms(mode: str) -> Call:
    jax = jax_double()
    jnp = jax.numpy

    def one(q: Any) -> Any:
        pose = jnp.eye(4)
        for i, (d, a, alpha) in enumerate(LINKS):
            ct, st, ca, sa = jnp.cos(q[i]), jnp.sin(q[i]), np.cos(alpha), np.sin(alpha)
            rows = [[ct, -st * ca, st * sa, a * ct], [st, ct * ca, -ct * sa, a * st], [0, sa, ca, d], [0, 0, 0, 1]]
            pose = pose @ jnp.array(rows)
        roll = jnp.arctan2(pose[2, 1], pose[2, 2])
        pitch = jnp.arctan2(-pose[2, 0], jnp.sqrt(pose[0, 0] ** 2 + pose[1, 0] ** 2))
        yaw = jnp.arctan2(pose[1, 0], pose[0, 0])
        return jnp.array([pose[0, 3], pose[1, 3], pose[2, 3], roll, pitch, yaw])

    blocks = jax.jit(jax.vmap(getattr(jax, mode)(one)))
    return lambda Q: as_float64(blocks(Q))


def arms_problem(name: str) -> Problem:
    rng = np.random.default_rng(2)
    return Problem(
        name=name,
        title="100,000 Puma 560 arms at once, a 6 x 6 Jacobian each",
        function=forward,
        format="dense",
        ours=build_jacana_arms,
        inputs=tuple(rng.standard_normal((100_000, 6)) for _ in range(2)),
        peers=(
            Contender("JAX jit(vmap(jacfwd))", "jax", partial(build_jax_arms, "jacfwd")),
            Contender("JAX jit(vmap(jacrev))", "jax", partial(build_jax_arms, "jacrev")),
        ),
        target=Target(ratio=1.0),
    )
