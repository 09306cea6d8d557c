"""Forward kinematics of the Puma 560 arm: six joint angles in, the pose of the wrist out, a 6 x 6 Jacobian.

Standard Denavit-Hartenberg parameters (metres, radians) as used by P. I. Corke, *Robotics, Vision and Control*
(Springer 2011), chapter 7, after P. I. Corke and B. Armstrong-Helouvry, *A search for consensus among model parameters
reported for the PUMA 560 robot*, IEEE International Conference on Robotics and Automation 1994.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double

LINKS = (
    # d, a, alpha
    (0.0, 0.0, np.pi / 2),
    (0.0, 0.4318, 0.0),
    (0.15005, 0.0203, -np.pi / 2),
    (0.4318, 0.0, np.pi / 2),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.0, 0.0),
)


def link(theta: Any, d: float, a: float, alpha: float) -> Any:
    """The pose of a link in the frame of the link before it, 4 x 4."""
    ct, st = np.cos(theta), np.sin(theta)
    ca, sa = np.cos(alpha), np.sin(alpha)
    return np.array(
        [
            [ct, -st * ca, st * sa, a * ct],
            [st, ct * ca, -ct * sa, a * st],
            [0.0, sa, ca, d],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )


def forward(q: Any) -> Any:
    """Position (3) and roll, pitch, yaw (3) of the wrist at the joint angles q, shape (6,)."""
    T = np.eye(4)
    for theta, (d, a, alpha) in zip(q, LINKS, strict=True):
        T = T @ link(theta, d, a, alpha)
    roll = np.arctan2(T[2, 1], T[2, 2])
    pitch = np.arctan2(-T[2, 0], np.sqrt(T[0, 0] ** 2 + T[1, 0] ** 2))
    yaw = np.arctan2(T[1, 0], T[0, 0])
    return np.array([T[0, 3], T[1, 3], T[2, 3], roll, pitch, yaw])


def build_jax(mode: str) -> Call:
    jax = jax_double()
    import jax.numpy as jnp

    def link(theta: Any, d: float, a: float, alpha: float) -> Any:
        ct, st = jnp.cos(theta), jnp.sin(theta)
        ca, sa = np.cos(alpha), np.sin(alpha)
        return jnp.array(
            [
                [ct, -st * ca, st * sa, a * ct],
                [st, ct * ca, -ct * sa, a * st],
                [0.0, sa, ca, d],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )

    def forward(q: Any) -> Any:
        T = jnp.eye(4)
        for i, (d, a, alpha) in enumerate(LINKS):
            T = T @ link(q[i], d, a, alpha)
        roll = jnp.arctan2(T[2, 1], T[2, 2])
        pitch = jnp.arctan2(-T[2, 0], jnp.sqrt(T[0, 0] ** 2 + T[1, 0] ** 2))
        yaw = jnp.arctan2(T[1, 0], T[0, 0])
        return jnp.array([T[0, 3], T[1, 3], T[2, 3], roll, pitch, yaw])

    jacobian = jax.jit({"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}[mode](forward))
    return lambda q: as_float64(jacobian(q))


def build_torch(mode: str) -> Call:
    torch = torch_double()

    def link(theta: Any, d: float, a: float, alpha: float) -> Any:
        ct, st = torch.cos(theta), torch.sin(theta)
        ca, sa = float(np.cos(alpha)), float(np.sin(alpha))
        zero, one = torch.zeros(()), torch.ones(())
        return torch.stack(
            [
                torch.stack([ct, -st * ca, st * sa, a * ct]),
                torch.stack([st, ct * ca, -ct * sa, a * st]),
                torch.stack([zero, sa * one, ca * one, d * one]),
                torch.stack([zero, zero, zero, one]),
            ]
        )

    def forward(q: Any) -> Any:
        T = torch.eye(4)
        for i, (d, a, alpha) in enumerate(LINKS):
            T = T @ link(q[i], d, a, alpha)
        roll = torch.arctan2(T[2, 1], T[2, 2])
        pitch = torch.arctan2(-T[2, 0], torch.sqrt(T[0, 0] ** 2 + T[1, 0] ** 2))
        yaw = torch.arctan2(T[1, 0], T[0, 0])
        return torch.stack([T[0, 3], T[1, 3], T[2, 3], roll, pitch, yaw])

    jacobian = getattr(torch.func, mode)(forward)
    return lambda q: jacobian(torch.from_numpy(q)).numpy()


def casadi_function() -> Any:
    import casadi as ca

    def link(theta: Any, d: float, a: float, alpha: float) -> Any:
        ct, st = ca.cos(theta), ca.sin(theta)
        cos_alpha, sin_alpha = float(np.cos(alpha)), float(np.sin(alpha))
        return ca.blockcat(
            [
                [ct, -st * cos_alpha, st * sin_alpha, a * ct],
                [st, ct * cos_alpha, -ct * sin_alpha, a * st],
                [0.0, sin_alpha, cos_alpha, d],
                [0.0, 0.0, 0.0, 1.0],
            ]
        )

    q = ca.SX.sym("q", 6)
    T = ca.SX.eye(4)
    for i, (d, a, alpha) in enumerate(LINKS):
        T = T @ link(q[i], d, a, alpha)
    roll = ca.atan2(T[2, 1], T[2, 2])
    pitch = ca.atan2(-T[2, 0], ca.sqrt(T[0, 0] ** 2 + T[1, 0] ** 2))
    yaw = ca.atan2(T[1, 0], T[0, 0])
    pose = ca.vertcat(T[0, 3], T[1, 3], T[2, 3], roll, pitch, yaw)
    return ca.Function("jacobian", [q], [ca.densify(ca.jacobian(pose, q))])


def build_casadi() -> Call:
    jacobian = casadi_function()
    return lambda q: jacobian(q).full()


def build_casadi_buffer() -> Call:
    """CasADi's interface for callers in a hurry: memory is bound once, a call moves no Python objects."""
    jacobian = casadi_function()
    buffer, evaluate = jacobian.buffer()
    argument, result = np.zeros(6), np.zeros((6, 6), order="F")
    buffer.set_arg(0, memoryview(argument))
    buffer.set_res(0, memoryview(result.reshape(-1, order="F")))

    def call(q: np.ndarray) -> np.ndarray:
        argument[:] = q
        evaluate()
        return result.copy()

    call.keep_alive = buffer  # type: ignore[attr-defined]
    return call


def problem() -> Problem:
    rng = np.random.default_rng(560)
    return Problem(
        name="arm",
        title="Puma 560 arm, 6 x 6 dense Jacobian",
        function=forward,
        format="dense",
        inputs=tuple(rng.uniform(-1.0, 1.0, 6) + 0.2 for _ in range(8)),
        peers=(
            Contender("JAX jit(jacfwd)", "jax", lambda: build_jax("jacfwd")),
            Contender("JAX jit(jacrev)", "jax", lambda: build_jax("jacrev")),
            Contender("CasADi SX Function", "casadi", build_casadi, note="called as a function"),
            Contender(
                "CasADi SX buffer",
                "casadi",
                build_casadi_buffer,
                counts=False,
                note="memory bound once through Function.buffer(), input and result copied; one caller at a time",
            ),
            Contender("PyTorch jacfwd", "torch", lambda: build_torch("jacfwd")),
            Contender("PyTorch jacrev", "torch", lambda: build_torch("jacrev")),
        ),
        target=Target(ratio=8.0, microseconds=2.0, first_answer_milliseconds=30.0),
    )
