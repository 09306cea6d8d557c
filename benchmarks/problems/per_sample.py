"""A network of two layers on a batch: its Jacobian by each sample's inputs, and by the weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways

Sizes = tuple[int, int, int]


@cache
def weights(sizes: Sizes) -> tuple[np.ndarray, ...]:
    n_in, n_hidden, n_out = sizes
    rng = np.random.default_rng(n_in)
    return (
        rng.standard_normal((n_hidden, n_in)) / np.sqrt(n_in),
        rng.standard_normal(n_hidden),
        rng.standard_normal((n_out, n_hidden)) / np.sqrt(n_hidden),
        rng.standard_normal(n_out),
    )


@cache
def samples(count: int, sizes: Sizes) -> np.ndarray:
    return np.random.default_rng(count).standard_normal((count, sizes[0]))


def network(parameters: Any, X: Any, xp: Any = np) -> Any:
    """X of shape (samples, inputs) or (inputs,), the result of shape (samples, outputs) or (outputs,)."""
    W1, b1, W2, b2 = parameters
    return xp.tanh(X @ W1.T + b1) @ W2.T + b2


# --- by the inputs -----------------------------------------------------------------------------------------------


def build_jax_inputs(sizes: Sizes, mode: str) -> Call:
    jax = jax_double()
    parameters = tuple(map(jax.numpy.asarray, weights(sizes)))
    one = getattr(jax, mode)(lambda x: network(parameters, x, jax.numpy))
    blocks = jax.jit(jax.vmap(one))
    return lambda X: as_float64(blocks(X))


def build_torch_inputs(sizes: Sizes, mode: str) -> Call:
    torch = torch_double()
    parameters = tuple(map(torch.from_numpy, weights(sizes)))
    blocks = torch.func.vmap(getattr(torch.func, mode)(lambda x: network(parameters, x, torch)))
    return lambda X: blocks(torch.from_numpy(X)).numpy()


def build_casadi_inputs(sizes: Sizes, count: int) -> Call:
    import casadi as ca

    W1, b1, W2, b2 = map(ca.DM, weights(sizes))
    x = ca.SX.sym("x", sizes[0])
    block = ca.densify(ca.jacobian(W2 @ ca.tanh(W1 @ x + b1) + b2, x))
    mapped = ways.casadi_buffered(ca.Function("block", [x], [ca.vec(block.T)]).map(count))
    return lambda X: mapped(X).reshape(count, sizes[2], sizes[0])


def build_asdex_inputs(sizes: Sizes, count: int) -> Call:
    jnp = jax_double().numpy
    parameters = tuple(map(jnp.asarray, weights(sizes)))
    jacobian = ways.asdex_jacobian(
        lambda x: network(parameters, x.reshape(count, -1), jnp).reshape(-1), count * sizes[0]
    )
    return lambda X: jacobian(X.reshape(-1)).data.reshape(count, sizes[2], sizes[0])


def inputs_problem(count: int, sizes: Sizes, name: str) -> Problem:
    rng = np.random.default_rng(11)
    parameters = weights(sizes)
    peers = [
        Contender("JAX jit(vmap(jacrev))", "jax", lambda: build_jax_inputs(sizes, "jacrev"), note="batching by hand"),
        Contender("JAX jit(vmap(jacfwd))", "jax", lambda: build_jax_inputs(sizes, "jacfwd"), note="batching by hand"),
        Contender(
            "PyTorch vmap(jacrev)", "torch", lambda: build_torch_inputs(sizes, "jacrev"), note="batching by hand"
        ),
        Contender(
            "PyTorch vmap(jacfwd)", "torch", lambda: build_torch_inputs(sizes, "jacfwd"), note="batching by hand"
        ),
    ]
    if count * sizes[0] * sizes[2] < 100_000:
        peers += [
            Contender("asdex, CSR", "asdex", lambda: build_asdex_inputs(sizes, count), note="data seen as blocks"),
            Contender("CasADi SX map", "casadi", lambda: build_casadi_inputs(sizes, count), note="batching by hand"),
        ]
    return Problem(
        name=name,
        title=f"network {sizes[0]}-{sizes[1]}-{sizes[2]}, {count:,} samples, a block for each sample",
        function=lambda X: network(parameters, X),
        format="blocks",
        inputs=tuple(rng.standard_normal((count, sizes[0])) for _ in range(4)),
        peers=tuple(peers),
        target=Target(ratio=1.0),
    )


# --- by the weights ------------------------------------------------------------------------------------------------


def build_jax_weights(sizes: Sizes, count: int, mode: str) -> Call:
    jax = jax_double()
    X = jax.numpy.asarray(samples(count, sizes))
    one = getattr(jax, mode)(lambda parameters, x: network(parameters, x, jax.numpy))
    blocks = jax.jit(jax.vmap(one, in_axes=(None, 0)))
    return lambda parameters: tuple(map(as_float64, blocks(parameters, X)))


def build_torch_weights(sizes: Sizes, count: int, mode: str) -> Call:
    torch = torch_double()
    X = torch.from_numpy(samples(count, sizes))
    one = getattr(torch.func, mode)(lambda parameters, x: network(parameters, x, torch))
    blocks = torch.func.vmap(one, in_dims=(None, 0))

    def call(parameters: Any) -> tuple[np.ndarray, ...]:
        return tuple(part.numpy() for part in blocks(tuple(map(torch.from_numpy, parameters)), X))

    return call


def weights_problem(count: int, sizes: Sizes, name: str) -> Problem:
    rng = np.random.default_rng(12)
    X = samples(count, sizes)
    points = tuple(tuple(w + 0.1 * rng.standard_normal(w.shape) for w in weights(sizes)) for _ in range(4))
    return Problem(
        name=name,
        title=f"network {sizes[0]}-{sizes[1]}-{sizes[2]}, {count:,} samples, dense Jacobian by all "
        f"{sum(w.size for w in weights(sizes)):,} weights",
        function=lambda parameters: network(parameters, X),
        format="dense",
        canonical=ways.concatenated,
        inputs=points,
        peers=tuple(
            Contender(title, module, build, ways.concatenated, note="batching by hand")
            for title, module, build in (
                ("JAX jit(vmap(jacrev))", "jax", lambda: build_jax_weights(sizes, count, "jacrev")),
                ("JAX jit(vmap(jacfwd))", "jax", lambda: build_jax_weights(sizes, count, "jacfwd")),
                ("PyTorch vmap(jacrev)", "torch", lambda: build_torch_weights(sizes, count, "jacrev")),
            )
        ),
        target=Target(ratio=1.0),
    )
