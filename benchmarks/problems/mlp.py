"""A dense layer, tanh, and a dense layer, 1000 wide: a dense 1000 x 1000 Jacobian, matrix products and little else."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double

WIDTH = 1000


@cache
def weights() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1000)
    W1, W2 = rng.standard_normal((2, WIDTH, WIDTH)) / np.sqrt(WIDTH)
    b1, b2 = rng.standard_normal((2, WIDTH))
    return W1, b1, W2, b2


def network(x: Any) -> Any:
    W1, b1, W2, b2 = weights()
    return W2 @ np.tanh(W1 @ x + b1) + b2


def build_jax(mode: str) -> Call:
    jax = jax_double()
    import jax.numpy as jnp

    parameters = tuple(jnp.asarray(w) for w in weights())

    def network(parameters: tuple[Any, ...], x: Any) -> Any:
        W1, b1, W2, b2 = parameters
        return W2 @ jnp.tanh(W1 @ x + b1) + b2

    jacobian = jax.jit({"jacfwd": jax.jacfwd, "jacrev": jax.jacrev}[mode](network, argnums=1))
    return lambda x: as_float64(jacobian(parameters, x))


def build_torch(mode: str) -> Call:
    torch = torch_double()
    W1, b1, W2, b2 = map(torch.from_numpy, weights())
    jacobian = getattr(torch.func, mode)(lambda x: W2 @ torch.tanh(W1 @ x + b1) + b2)
    return lambda x: jacobian(torch.from_numpy(x)).numpy()


def problem() -> Problem:
    weights()  # made before anybody's clock runs
    rng = np.random.default_rng(1)
    return Problem(
        name="mlp",
        title=f"two dense layers, {WIDTH}-{WIDTH}-{WIDTH}, dense Jacobian",
        function=network,
        format="dense",
        inputs=tuple(rng.standard_normal(WIDTH) for _ in range(4)),
        peers=(
            Contender("JAX jit(jacfwd)", "jax", lambda: build_jax("jacfwd")),
            Contender("JAX jit(jacrev)", "jax", lambda: build_jax("jacrev")),
            Contender("PyTorch jacfwd", "torch", lambda: build_torch("jacfwd")),
            Contender("PyTorch jacrev", "torch", lambda: build_torch("jacrev")),
        ),
        target=Target(ratio=1.5),
    )
