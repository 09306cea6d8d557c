"""Programs of many steps: a differential equation in a Python loop, and a recurrent network by ``scan``."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways

STEPS = 800
STEP = 0.005


def lorenz(p: Any, stack: Any = np.stack) -> Any:
    """The state after 800 explicit steps of the Lorenz system, by its three parameters; a plain Python loop."""
    x, y, z = 1.0 + 0.0 * p[0], 1.0, 1.0
    for _ in range(STEPS):
        dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
        x, y, z = x + STEP * dx, y + STEP * dy, z + STEP * dz
    return stack([x, y, z])


def build_jax_fori() -> Call:
    """With the loop rewritten for JAX."""
    jax = jax_double()

    def function(p: Any) -> Any:
        def body(_: Any, s: Any) -> Any:
            x, y, z = s
            dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
            return x + STEP * dx, y + STEP * dy, z + STEP * dz

        one = 1.0 + 0.0 * p[0]
        return jax.numpy.stack(jax.lax.fori_loop(0, STEPS, body, (one, one, one)))

    jacobian = jax.jit(jax.jacfwd(function))
    return lambda p: as_float64(jacobian(p))


def build_casadi() -> Call:
    import casadi as ca

    p = ca.SX.sym("p", 3)
    state = lorenz([p[0], p[1], p[2]], stack=lambda parts: ca.vertcat(*parts))
    transposed = ways.casadi_buffered(ca.Function("jacobian", [p], [ca.densify(ca.jacobian(state, p)).T]))
    return lambda point: transposed(point).reshape(3, 3)


def loop_problem(name: str) -> Problem:
    return Problem(
        name=name,
        title=f"{STEPS} steps of the Lorenz system in a Python loop, 3 x 3 dense Jacobian",
        function=lorenz,
        format="dense",
        inputs=tuple(np.array([10.0, 28.0, 8.0 / 3.0]) * s for s in (1.0, 1.01, 0.99, 1.02)),
        peers=(
            Contender("CasADi SX", "casadi", build_casadi, slow=True),
            Contender(
                "JAX jit(jacfwd), fori_loop",
                "jax",
                build_jax_fori,
                counts=False,
                note="the loop rewritten for JAX, which takes minutes to compile the Python loop",
            ),
        ),
        target=Target(ratio=1.0, first_answer_milliseconds=1000.0),
    )


# --- a recurrent network -------------------------------------------------------------------------------------------

HIDDEN, INPUTS, LENGTH = 32, 16, 1024


@cache
def network() -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(0)
    return (
        0.2 * rng.standard_normal((4 * HIDDEN, INPUTS)),
        0.1 * rng.standard_normal(4 * HIDDEN),
        rng.standard_normal((LENGTH, INPUTS)),
    )


def recurrence(W: Any, xp: Any, scan: Any) -> Any:
    """The mean square of the outputs of a long short-term memory cell, by its recurrent weights (4 * 32, 32)."""
    U, b, xs = network()

    def gate(z: Any) -> Any:
        return 1.0 / (1.0 + xp.exp(-z))

    def step(carry: Any, x: Any) -> Any:
        h, c = carry
        z = W @ h + U @ x + b
        i, f, o = gate(z[:HIDDEN]), gate(z[HIDDEN : 2 * HIDDEN]), gate(z[2 * HIDDEN : 3 * HIDDEN])
        c = f * c + i * xp.tanh(z[3 * HIDDEN :])
        h = o * xp.tanh(c)
        return (h, c), h

    _, hs = scan(step, (xp.zeros(HIDDEN), xp.zeros(HIDDEN)), xs)
    return xp.mean(hs**2)


def by_jacana(W: Any) -> Any:
    import jacana as jc

    return recurrence(W, np, jc.scan)


def build_jacana_gradient() -> Call:
    import jacana as jc

    return jc.grad(by_jacana)


def build_jax_gradient() -> Call:
    jax = jax_double()
    gradient = jax.jit(jax.grad(lambda W: recurrence(W, jax.numpy, jax.lax.scan)))
    return lambda W: as_float64(gradient(W))


def build_torch_gradient() -> Call:
    torch = torch_double()
    U, b, xs = map(torch.from_numpy, network())

    def loss(W: Any) -> Any:
        h = c = torch.zeros(HIDDEN)
        total = torch.zeros(())
        for x in xs:
            z = W @ h + U @ x + b
            i, f, o = (torch.sigmoid(z[k * HIDDEN : (k + 1) * HIDDEN]) for k in range(3))
            c = f * c + i * torch.tanh(z[3 * HIDDEN :])
            h = o * torch.tanh(c)
            total = total + torch.sum(h**2)
        return total / (LENGTH * HIDDEN)

    def call(W: np.ndarray) -> np.ndarray:
        w = torch.from_numpy(W).clone().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(w), w)
        return gradient.numpy()

    return call


def scan_problem(name: str) -> Problem:
    rng = np.random.default_rng(1)
    return Problem(
        name=name,
        title=f"recurrent network, {LENGTH:,} steps by scan, gradient by {4 * HIDDEN} x {HIDDEN} weights",
        function=by_jacana,
        format="dense",
        ours=build_jacana_gradient,
        inputs=tuple(0.2 * rng.standard_normal((4 * HIDDEN, HIDDEN)) for _ in range(3)),
        peers=(
            Contender("JAX jit(grad), lax.scan", "jax", build_jax_gradient),
            Contender("PyTorch, Python loop", "torch", build_torch_gradient),
        ),
        target=Target(ratio=3.0),
    )
