"""Pose graphs in the plane and in space: two poses for each residual, blocks of 3 x 6 or 6 x 12."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from jacana.datasets import posegraph

from . import Call, Contender, Problem, Target, jax_double, torch_double, ways


@cache
def graph(name: str) -> posegraph.PoseGraph:
    return sphere(50, 50) if name == "sphere" else posegraph.load(name)


def sphere(rings: int, per_ring: int) -> posegraph.PoseGraph:
    """A robot that winds along a sphere, ring after ring, and sees where it was one ring before; moves and start noisy.

    The same arrangement as the well-known set "sphere2500", drawn from a generator with a fixed seed.
    """
    rng = np.random.default_rng(2500)
    n = rings * per_ring
    step = np.arange(n)
    height = np.pi * ((step + 0.5) / n - 0.5)
    around = 2.0 * np.pi * step / per_ring
    position = 50.0 * np.stack((np.cos(height) * np.cos(around), np.cos(height) * np.sin(around), np.sin(height)), 1)
    rotation = np.stack((0.3 * np.sin(height), 0.2 * np.cos(around), np.arctan2(np.sin(around), np.cos(around))), 1)
    first = np.concatenate((step[:-1], step[:-per_ring]))
    second = np.concatenate((step[1:], step[per_ring:]))
    back = posegraph.quaternion(rotation)[first] * np.array([-1.0, -1.0, -1.0, 1.0])
    turned = posegraph.multiply(back, posegraph.quaternion(rotation)[second])
    noise = posegraph.quaternion(0.02 * rng.standard_normal((len(first), 3)))
    moved = posegraph.turn(back, position[second] - position[first]) + 0.05 * rng.standard_normal((len(first), 3))
    moves = np.concatenate((moved, posegraph.multiply(turned, noise)), axis=1)
    root = rng.standard_normal((len(first), 6, 6)) + 10.0 * np.eye(6)
    weights = np.linalg.cholesky(root @ np.swapaxes(root, 1, 2)).swapaxes(1, 2).copy()
    poses = np.concatenate((position, rotation), axis=1) + 0.1 * rng.standard_normal((n, 6))
    return posegraph.PoseGraph(poses, first, second, moves, weights)


@cache
def pattern(name: str) -> ways.Pattern:
    g = graph(name)
    size, n_edges = g.poses.shape[1], len(g.moves)
    rows = (size * np.arange(n_edges)[:, None] + np.arange(size))[:, :, None]
    columns = size * np.stack((g.first, g.second), axis=1)[:, :, None] + np.arange(size)
    return ways.pattern_of(rows, columns.reshape(n_edges, 1, 2 * size), (size * n_edges, g.poses.size))


# --- one edge, for JAX and PyTorch -------------------------------------------------------------------------------


def edge_2d(xp: Any) -> Callable[..., Any]:
    def edge(pair: Any, move: Any, weight: Any) -> Any:
        a, b = pair[:3], pair[3:]
        dx, dy = b[0] - a[0], b[1] - a[1]
        cosine, sine = xp.cos(a[2]), xp.sin(a[2])
        x, y = cosine * dx + sine * dy - move[0], cosine * dy - sine * dx - move[1]
        cosine, sine = xp.cos(move[2]), xp.sin(move[2])
        angle = b[2] - a[2] - move[2]
        error = (cosine * x + sine * y, cosine * y - sine * x, xp.arctan2(xp.sin(angle), xp.cos(angle)))
        return weight @ xp.stack(error)

    return edge


def edge_3d(xp: Any) -> Callable[..., Any]:
    cross = xp.linalg.cross

    def quaternion(w: Any) -> Any:
        angle_squared = xp.sum(w * w)
        small = angle_squared < posegraph.SMALL_ANGLE_SQUARED
        angle = xp.sqrt(xp.where(small, 1.0, angle_squared))
        along = xp.where(small, 0.5 - angle_squared / 48.0, xp.sin(0.5 * angle) / angle)
        real = xp.where(small, 1.0 - angle_squared / 8.0, xp.cos(0.5 * angle))
        return along * w, real

    def multiply(p: Any, q: Any) -> Any:
        return p[1] * q[0] + q[1] * p[0] + cross(p[0], q[0]), p[1] * q[1] - xp.sum(p[0] * q[0])

    def turn(q: Any, v: Any) -> Any:
        return v + 2.0 * cross(q[0], cross(q[0], v) + q[1] * v)

    def edge(pair: Any, move: Any, weight: Any) -> Any:
        a, b = pair[:6], pair[6:]
        vector, real = quaternion(a[3:])
        back, undo = (-vector, real), (-move[3:6], move[6])
        position = turn(undo, turn(back, b[:3] - a[:3]) - move[:3])
        vector, real = multiply(undo, multiply(back, quaternion(b[3:])))
        rotation = xp.where(real < 0.0, -vector, vector)
        return weight @ xp.concatenate((position, rotation))

    return edge


def edge_of(name: str) -> Callable[[Any], Callable[..., Any]]:
    return edge_2d if graph(name).poses.shape[1] == 3 else edge_3d


def pairs_of(name: str) -> tuple[np.ndarray, int]:
    g = graph(name)
    return np.stack((g.first, g.second), axis=1), g.poses.shape[1]


def build_jax(name: str) -> Call:
    jax = jax_double()
    jnp = jax.numpy
    (ends, size), g = pairs_of(name), graph(name)
    ends, moves, weights = jnp.asarray(ends), jnp.asarray(g.moves), jnp.asarray(g.weights)
    each = jax.vmap(jax.jacrev(edge_of(name)(jnp)))
    return ways.jax_blocks(
        lambda x: each(x.reshape(-1, size)[ends].reshape(-1, 2 * size), moves, weights), pattern(name)
    )


def jax_residual(name: str) -> Any:
    """All edges at once, for asdex and sparsejac."""
    jax = jax_double()
    jnp = jax.numpy
    (ends, size), g = pairs_of(name), graph(name)
    ends, moves, weights = jnp.asarray(ends), jnp.asarray(g.moves), jnp.asarray(g.weights)
    each = jax.vmap(edge_of(name)(jnp))
    return lambda x: each(x.reshape(-1, size)[ends].reshape(-1, 2 * size), moves, weights).reshape(-1)


def build_torch(name: str) -> Call:
    torch = torch_double()
    (ends, size), g = pairs_of(name), graph(name)
    ends, moves, weights = torch.from_numpy(ends), torch.from_numpy(g.moves), torch.from_numpy(g.weights)
    each = torch.func.vmap(torch.func.jacrev(edge_of(name)(torch)))
    return ways.torch_blocks(
        lambda x: each(x.reshape(-1, size)[ends].reshape(-1, 2 * size), moves, weights), pattern(name)
    )


def build_casadi(name: str) -> Call:
    import casadi as ca

    (ends, size), g = pairs_of(name), graph(name)
    n_move = g.moves.shape[1]
    data = np.concatenate((g.moves, g.weights.reshape(len(g.moves), -1)), axis=1)

    def edge_2d(pair: Any, move: Any) -> Any:
        a, b = pair[:3], pair[3:]
        dx, dy = b[0] - a[0], b[1] - a[1]
        cosine, sine = ca.cos(a[2]), ca.sin(a[2])
        x, y = cosine * dx + sine * dy - move[0], cosine * dy - sine * dx - move[1]
        cosine, sine = ca.cos(move[2]), ca.sin(move[2])
        angle = b[2] - a[2] - move[2]
        return ca.vertcat(cosine * x + sine * y, cosine * y - sine * x, ca.atan2(ca.sin(angle), ca.cos(angle)))

    def quaternion(w: Any) -> Any:
        angle_squared = ca.sumsqr(w)
        small = angle_squared < posegraph.SMALL_ANGLE_SQUARED
        angle = ca.sqrt(ca.if_else(small, 1.0, angle_squared))
        along = ca.if_else(small, 0.5 - angle_squared / 48.0, ca.sin(0.5 * angle) / angle)
        return along * w, ca.if_else(small, 1.0 - angle_squared / 8.0, ca.cos(0.5 * angle))

    def multiply(p: Any, q: Any) -> Any:
        return p[1] * q[0] + q[1] * p[0] + ca.cross(p[0], q[0]), p[1] * q[1] - ca.dot(p[0], q[0])

    def turn(q: Any, v: Any) -> Any:
        return v + 2.0 * ca.cross(q[0], ca.cross(q[0], v) + q[1] * v)

    def edge_3d(pair: Any, move: Any) -> Any:
        a, b = pair[:6], pair[6:]
        vector, real = quaternion(a[3:])
        back, undo = (-vector, real), (-move[3:6], move[6])
        position = turn(undo, turn(back, b[:3] - a[:3]) - move[:3])
        vector, real = multiply(undo, multiply(back, quaternion(b[3:])))
        return ca.vertcat(position, ca.if_else(real < 0.0, -vector, vector))

    def one(pair: Any, data: Any) -> Any:
        error = (edge_2d if size == 3 else edge_3d)(pair, data[:n_move])
        return ca.reshape(data[n_move:], size, size).T @ error

    return ways.casadi_blocks(
        one,
        (2 * size, data.shape[1]),
        lambda x: x.reshape(-1, size)[ends].reshape(-1, 2 * size),
        data,
        pattern(name),
    )


def problem(dataset: str, name: str) -> Problem:
    g = graph(dataset)
    pattern(dataset)  # known by hand, before anybody's clock runs
    rng = np.random.default_rng(17)
    size = g.x0.size
    where = "in the plane" if g.poses.shape[1] == 3 else "in space"
    by_hand = "edge by edge, places by hand"
    return Problem(
        name=name,
        title=f"pose graph {dataset} {where}, {len(g.poses):,} poses, {len(g.moves):,} edges, CSR Jacobian",
        function=lambda x: g.residual(x).reshape(-1),
        format="csr",
        inputs=tuple(g.x0 + 1e-3 * rng.standard_normal(size) for _ in range(4)),
        peers=(
            Contender("JAX jit(vmap(jacrev)), CSR", "jax", lambda: build_jax(dataset), note=by_hand),
            Contender("asdex, CSR", "asdex", lambda: ways.asdex_jacobian(jax_residual(dataset), size)),
            Contender(
                "sparsejac, CSR",
                "sparsejac",
                lambda: ways.sparsejac_forward(jax_residual(dataset), pattern(dataset)),
                note="pattern by hand",
            ),
            Contender("CasADi SX map, CSR", "casadi", lambda: build_casadi(dataset), note=by_hand),
            Contender("PyTorch vmap(jacrev), CSR", "torch", lambda: build_torch(dataset), note=by_hand),
        ),
        target=Target(ratio=1.0),
    )
