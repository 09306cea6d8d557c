"""Patterns that jacana has to find by itself: the exact places and the exact number of stored entries.

One row of the table is a program, a point and its pattern, written out here by loops over places and not by any code of
jacana. Where jacana stores more than can ever be different from zero, the row says which entries and gives the reason
by its name in ``docs/structure.md``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.linalg
from hypothesis import HealthCheck, given, settings
from test_programs import differences, points, programs

import jacana as jc

Place = int | tuple[int, ...]
Pairs = Iterable[tuple[Place, Place]]
DOCUMENT = Path(__file__).parents[2] / "docs" / "structure.md"


class Case(NamedTuple):
    """``pairs``: (place in the result, place in the argument) of every entry that is not structurally zero.

    ``extra``: entries stored besides, and ``reason``: the paragraph of the document that says why.
    """

    name: str
    function: Callable[[Any], Any]
    x: np.ndarray
    pairs: Pairs
    extra: Pairs = ()
    reason: str = ""


def at(*shape: int) -> np.ndarray:
    """A point without ties, zeros or symmetries."""
    size = math.prod(shape)
    return (0.4 + 0.9 * np.modf(np.arange(1, size + 1) * 0.618034)[0]).reshape(shape)


def grid(*shape: int) -> list[tuple[int, ...]]:
    return list(itertools.product(*map(range, shape)))


def matrix(pairs: Pairs, rows: tuple[int, ...], cols: tuple[int, ...]) -> np.ndarray:
    """Pairs of places (of several indices or flat) as a boolean matrix."""
    result = np.zeros((math.prod(rows), math.prod(cols)), dtype=bool)
    for place in pairs:
        row, col = (
            k if isinstance(k, (int, np.integer)) else int(np.ravel_multi_index(k, shape)) if shape else 0
            for k, shape in zip(place, (rows, cols), strict=True)
        )
        result[row, col] = True
    return result


def stencil(inner: Iterable[tuple[int, ...]], offsets: Iterable[tuple[int, ...]], start: int = 1) -> Pairs:
    """Result ``p - start`` depends on argument ``p + offset``."""
    return [(tuple(i - start for i in p), tuple(np.add(p, o).tolist())) for p in inner for o in offsets]


def wrapped(shape: tuple[int, ...], offsets: Iterable[tuple[int, ...]]) -> Pairs:
    """Every place depends on its neighbours on a torus."""
    return [
        (p, tuple((i + o) % n for i, o, n in zip(p, off, shape, strict=True))) for p in grid(*shape) for off in offsets
    ]


def cross(rank: int) -> list[tuple[int, ...]]:
    """The centre and its two neighbours along every axis."""
    units = [tuple(s if j == k else 0 for j in range(rank)) for k in range(rank) for s in (1, -1)]
    return [(0,) * rank, *units]


CASES: list[Case] = []


def case(name: str, x: np.ndarray, pairs: Pairs, extra: Pairs = (), reason: str = "") -> Callable[..., Any]:
    def enter(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        CASES.append(Case(name, function, x, list(pairs), list(extra), reason))
        return function

    return enter


def row(name: str, function: Callable[[Any], Any], x: np.ndarray, pairs: Pairs, **options: Any) -> None:
    case(name, x, pairs, **options)(function)


# --- elementwise and movement -----------------------------------------------------------------------------------

row("elementwise", lambda x: np.tanh(x) * x, at(2, 3), [(p, p) for p in grid(2, 3)])
row("scalar by scalar", lambda x: np.sin(x), at(), [((), ())])
row("transpose", lambda x: x.T * 2.0, at(2, 3), [((j, i), (i, j)) for i, j in grid(2, 3)])
row("reshape", lambda x: x.reshape(3, 2) ** 2, at(2, 3), [(k, k) for k in range(6)])
row("reversed and strided", lambda x: x[::2] * x[::-2], at(7), [(k, c) for k in range(4) for c in (2 * k, 6 - 2 * k)])
row("repeat", lambda x: np.repeat(x, 2), at(4), [(k, k // 2) for k in range(8)])
row("tile", lambda x: np.tile(x, 3), at(4), [(k, k % 4) for k in range(12)])
row("broadcast", lambda x: x[:, None] * np.arange(1.0, 4.0), at(5), [((i, j), i) for i, j in grid(5, 3)])
row("stack", lambda x: np.stack([x, x**2], axis=1), at(5), [((i, j), i) for i, j in grid(5, 2)])
row("diagonal matrix", lambda x: np.diag(x), at(4), [((i, i), i) for i in range(4)])
row("upper triangle", lambda x: np.triu(x) ** 2, at(3, 4), [((i, j), (i, j)) for i, j in grid(3, 4) if i <= j])
row("constant", lambda x: np.full(3, 2.0) + 0.0 * np.sum(x[:0]), at(4), [])

# --- stencils ---------------------------------------------------------------------------------------------------

row(
    "1-D by slices",
    lambda u: u[2:] - 2 * u[1:-1] ** 2 + u[:-2],
    at(9),
    stencil([(k,) for k in range(1, 8)], cross(1)),
)
row("1-D by roll", lambda u: u * np.roll(u, 1) + np.roll(u, -2), at(7), wrapped((7,), [(0,), (-1,), (2,)]))
row("diff", lambda u: np.diff(u), at(7), [(k, k + o) for k in range(6) for o in (0, 1)])
row("second diff", lambda u: np.diff(u, 2), at(7), [(k, k + o) for k in range(5) for o in (0, 1, 2)])
row(
    "diff of rows",
    lambda u: np.diff(u**2, axis=0),
    at(4, 5),
    [((i, j), (i + o, j)) for i, j in grid(3, 5) for o in (0, 1)],
)
row(
    "diff with ends",
    lambda u: np.diff(u**2, prepend=1.0, append=u[:1] * 3.0),
    at(5),
    [(0, 0), *((k, k + o) for k in range(1, 5) for o in (-1, 0)), (5, 4), (5, 0)],
)


def slopes(n: int, order: int) -> list[tuple[int, int]]:
    inner = [(k, k + o) for k in range(1, n - 1) for o in (-1, 1)]
    ends = [(0, k) for k in range(order + 1)] + [(n - 1, n - 1 - k) for k in range(order + 1)]
    return inner + ends


row("gradient", lambda u: np.gradient(u), at(7), slopes(7, 1))
row("gradient of second order at the ends", lambda u: np.gradient(u, 0.5, edge_order=2), at(7), slopes(7, 2))
UNEVEN = np.array([0.0, 0.1, 0.4, 0.5, 1.0, 1.7])
row(
    "gradient on an uneven grid",
    lambda u: np.gradient(u, UNEVEN, edge_order=2),
    at(6),
    slopes(6, 2) + [(k, k) for k in range(6)],
)
row(
    "gradient along rows",
    lambda u: np.gradient(u, axis=1),
    at(4, 5),
    [((i, a), (i, b)) for i in range(4) for a, b in slopes(5, 1)],
)
row(
    "gradient along both axes",
    lambda u: np.stack(np.gradient(u)),
    at(4, 5),
    [((0, a, j), (b, j)) for j in range(5) for a, b in slopes(4, 1)]
    + [((1, i, a), (i, b)) for i in range(4) for a, b in slopes(5, 1)],
)


@case("2-D by slices", at(5, 7), stencil(itertools.product(range(1, 4), range(1, 6)), cross(2)))
def laplacian_2d(u):
    return u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1] ** 2


@case("3-D by slices", at(4, 5, 6), stencil(itertools.product(range(1, 3), range(1, 4), range(1, 5)), cross(3)))
def laplacian_3d(u):
    c = (slice(1, -1),) * 3
    total = -6.0 * u[c] ** 3
    for k in range(3):
        for s in (slice(2, None), slice(None, -2)):
            total = total + u[tuple(s if j == k else slice(1, -1) for j in range(3))]
    return total


row(
    "2-D by roll",
    lambda u: u * sum(np.roll(u, s, a) for s in (1, -1) for a in (0, 1)),
    at(4, 5),
    wrapped((4, 5), cross(2)),
)
row(
    "3-D by roll",
    lambda u: u**2 + sum(np.roll(u, s, a) for s in (1, -1) for a in range(3)),
    at(3, 4, 5),
    wrapped((3, 4, 5), cross(3)),
)


@case(
    "Brusselator",
    at(2, 3, 4),
    [
        ((s, *p), (t, *q))
        for s in (0, 1)
        for p in grid(3, 4)
        for t, q in [(s, q) for _, q in [(p, tuple((p[k] + o[k]) % (3, 4)[k] for k in (0, 1))) for o in cross(2)]]
        + [(1 - s, p)]
    ],
)
def brusselator(w):
    u, v = w[0], w[1]

    def spread(a):
        return np.roll(a, 1, 0) + np.roll(a, -1, 0) + np.roll(a, 1, 1) + np.roll(a, -1, 1) - 4.0 * a

    return np.stack([1.0 + u**2 * v - 4.4 * u + spread(u), 3.4 * u - u**2 * v + spread(v)])


@case("ghost cells by concatenate", at(6), wrapped((6,), [(1,), (-1,)]))
def periodic(u):
    v = np.concatenate([u[-1:], u, u[:1]])
    return v[2:] ** 2 - v[:-2]


# What NumPy reads for each padded place, on an array of places.
for mode in ("edge", "reflect", "symmetric", "wrap"):
    row(
        f"pad {mode}, 1-D",
        lambda u, mode=mode: np.pad(u, (2, 3), mode=mode) ** 2,
        at(7),
        list(enumerate(np.pad(np.arange(7), (2, 3), mode=mode).tolist())),
    )
    row(
        f"pad {mode}, 2-D",
        lambda u, mode=mode: np.pad(u, ((1, 2), (0, 3)), mode=mode) ** 2,
        at(4, 5),
        list(enumerate(np.pad(np.arange(20).reshape(4, 5), ((1, 2), (0, 3)), mode=mode).ravel().tolist())),
    )
row(
    "pad constant, 1-D",
    lambda u: np.pad(u, (2, 3), constant_values=2.0) ** 2,
    at(7),
    [(k + 2, k) for k in range(7)],
)
row(
    "pad constant, 2-D",
    lambda u: np.pad(u, ((1, 2), (0, 3))) ** 2,
    at(4, 5),
    [((i + 1, j), (i, j)) for i, j in grid(4, 5)],
)
row("pad empty", lambda u: np.pad(u, (2, 3), "empty")[2:-3] ** 2, at(7), [(k, k) for k in range(7)])
row(
    "pad linear_ramp",
    lambda u: np.pad(u, (2, 3), "linear_ramp", end_values=1.0),
    at(7),
    [(1, 0), *((k + 2, k) for k in range(7)), (9, 6), (10, 6)],
)
row(
    "pad mean",
    lambda u: np.pad(u, ((0, 0), (1, 2)), "mean"),
    at(2, 5),
    [((i, j), (i, k)) for i in range(2) for j in (0, 6, 7) for k in range(5)]
    + [((i, j + 1), (i, j)) for i, j in grid(2, 5)],
)
row(
    "pad mean of the ends",
    lambda u: np.pad(u, (1, 2), "mean", stat_length=(2, 3)),
    at(7),
    [(0, 0), (0, 1), *((k + 1, k) for k in range(7)), *((r, c) for r in (8, 9) for c in (4, 5, 6))],
)
MIDDLE = int(np.argsort(at(7))[3])
row(
    "pad median",
    lambda u: np.pad(u, (1, 2), "median"),
    at(7),
    [*((r, MIDDLE) for r in (0, 8, 9)), *((k + 1, k) for k in range(7))],
)
for mode, function in (("maximum", np.argmax), ("minimum", np.argmin)):
    found = int(function(at(7)))
    row(
        f"pad {mode}",
        lambda u, mode=mode: np.pad(u, (1, 2), mode),
        at(7),
        [*((r, found) for r in (0, 8, 9)), *((k + 1, k) for k in range(7))],
        extra=[(r, k) for r in (0, 8, 9) for k in range(7)],
        reason="maximum",
    )
row(
    "pad reflect, odd",
    lambda u: np.pad(u, (2, 1), "reflect", reflect_type="odd"),
    at(5),
    [(0, 0), (0, 2), (1, 0), (1, 1), *((k + 2, k) for k in range(5)), (7, 4), (7, 3)],
)
row(
    "pad symmetric, odd",
    lambda u: np.pad(u, (2, 1), "symmetric", reflect_type="odd"),
    at(5),
    [(0, 0), (0, 1), (1, 0), *((k + 2, k) for k in range(5)), (7, 4)],
)

# --- gather and scatter -----------------------------------------------------------------------------------------

TAKEN = np.array([0, 3, 3, 6])
row("gather", lambda x: x[TAKEN] ** 2, at(7), list(enumerate(TAKEN.tolist())))

CAMERA, POINT = np.array([0, 0, 1, 1, 0]), np.array([0, 1, 1, 2, 3])


@case(
    "bundle adjustment",
    at(2 * 3 + 4 * 2),
    [
        ((k, r), c)
        for k in range(5)
        for r in (0, 1)
        for c in [*(3 * CAMERA[k] + j for j in ((0, 1) if r == 0 else (2,))), 6 + 2 * POINT[k] + 1]
        + ([6 + 2 * POINT[k]] if r == 0 else [])
    ],
)
def projection(z):
    cameras, points = z[:6].reshape(2, 3), z[6:].reshape(4, 2)
    c, p = cameras[CAMERA], points[POINT]
    return np.stack([c[:, 0] * p[:, 0] + c[:, 1] * p[:, 1], np.sin(c[:, 2]) * p[:, 1]], axis=1)


FROM, TO = np.array([0, 1, 2, 3, 0, 1]), np.array([1, 2, 3, 4, 2, 4])


@case(
    "pose graph",
    at(5, 3),
    [
        ((k, r), (pose, c))
        for k in range(6)
        for r in range(3)
        for pose, columns in ((FROM[k], (0, 1, 2) if r < 2 else (2,)), (TO[k], (0, 1) if r < 2 else (2,)))
        for c in columns
    ],
)
def between(poses):
    a, b = poses[FROM], poses[TO]
    c, s = np.cos(a[:, 2]), np.sin(a[:, 2])
    dx, dy = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    return np.stack([c * dx + s * dy, -s * dx + c * dy, b[:, 2] - a[:, 2]], axis=1)


TRIANGLES = np.array([[0, 1, 3], [1, 2, 3], [3, 2, 4]])
MESH = {(int(a), int(b)) for t in TRIANGLES for a in t for b in t}


def loads(u):
    e = u[TRIANGLES]
    return e**2 * np.sum(e, axis=1, keepdims=True)


@case("finite elements by add.at", at(5), MESH)
def assembled_by_add_at(u):
    r = np.zeros(5)
    np.add.at(r, TRIANGLES, loads(u))
    return r


@case("finite elements by bincount", at(5), MESH)
def assembled_by_bincount(u):
    return np.bincount(TRIANGLES.ravel(), weights=loads(u).ravel(), minlength=5)


def stiffness(u):
    """Element matrices that depend on the solution: of their own conductivity."""
    return np.exp(np.sum(u[TRIANGLES], axis=1))[:, None, None] * (np.eye(3) * 3.0 - 1.0)


@case("matrix of finite elements by add.at, times vector", at(5), MESH)
def matrix_by_add_at(u):
    K = np.zeros((5, 5))
    np.add.at(K, (TRIANGLES[:, :, None], TRIANGLES[:, None, :]), stiffness(u))
    return K @ u


@case("matrix of finite elements by a loop, times vector", at(5), MESH)
def matrix_by_loop(u):
    K = np.zeros((5, 5))
    for triangle, k in zip(TRIANGLES, stiffness(u), strict=True):
        K[np.ix_(triangle, triangle)] += k
    return K @ u


@case("matrix of finite elements with a fixed node", at(5), [(0, 0)] + [p for p in MESH if p[0] != 0])
def matrix_with_a_fixed_node(u):
    K = np.zeros((5, 5))
    np.add.at(K, (TRIANGLES[:, :, None], TRIANGLES[:, None, :]), stiffness(u))
    K[0] = 0.0
    K[0, 0] = 1.0
    return K @ u


@case("bars by add.at", at(6), [(k, k + o) for k in range(6) for o in (-1, 0, 1) if 0 <= k + o < 6])
def bars(u):
    r = np.zeros(6)
    force = (1.0 + (u[1:] + u[:-1]) ** 2) * (u[1:] - u[:-1])
    np.add.at(r, np.arange(5), -force)
    np.add.at(r, np.arange(1, 6), force)
    return r


# --- networks ---------------------------------------------------------------------------------------------------

W1, W2, SAMPLES = at(4, 3), at(2, 4) - 0.7, at(5, 3) - 0.8
row(
    "network per sample",
    lambda X: np.tanh(X @ W1.T) @ W2.T,
    SAMPLES,
    [((b, o), (b, i)) for b in range(5) for o in range(2) for i in range(3)],
)
row(
    "layer by weights",
    lambda W: np.tanh(SAMPLES @ W.T),
    W1,
    [((b, o), (o, i)) for b in range(5) for o in range(4) for i in range(3)],
)
row(
    "network by first weights",
    lambda W: np.tanh(SAMPLES @ W.T) @ W2.T,
    W1,
    itertools.product(grid(5, 2), grid(4, 3)),
)
row("matrix times vector by matrix", lambda W: W @ SAMPLES[0], W1, [(o, (o, i)) for o, i in grid(4, 3)])


@case("softmax of rows", at(2, 4), [((i, j), (i, k)) for i, j in grid(2, 4) for k in range(4)])
def softmax(x):
    e = np.exp(x - np.max(x, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


row(
    "log of softmax of rows",
    lambda x: x - np.log(np.sum(np.exp(x), axis=1, keepdims=True)),
    at(2, 4),
    [((i, j), (i, k)) for i, j in grid(2, 4) for k in range(4)],
)

# --- time stepping ----------------------------------------------------------------------------------------------


def rates(y):
    """Lotka and Volterra: each depends on both."""
    return np.stack([y[..., 0] * (1.0 - y[..., 1]), y[..., 1] * (y[..., 0] - 1.0)], axis=-1)


@case(
    "implicit Euler",
    at(6, 2),
    [((k, i), (k + 1, j)) for k in range(5) for i, j in grid(2, 2)]
    + [((k, i), (k, i)) for k in range(5) for i in (0, 1)],
)
def implicit_euler(y):
    return y[1:] - y[:-1] - 0.1 * rates(y[1:])


@case(
    "implicit Euler from a given start",
    at(4, 2),
    [((k, i), (k, j)) for k in range(4) for i, j in grid(2, 2)]
    + [((k, i), (k - 1, i)) for k in range(1, 4) for i in (0, 1)],
)
def implicit_euler_from_start(y):
    before = np.concatenate([np.array([[1.0, 0.5]]), y[:-1]])
    return y - before - 0.1 * rates(y)


@case(
    "Crank-Nicolson",
    at(5, 2),
    [((k, i), (k + s, j)) for k in range(4) for s in (0, 1) for i, j in grid(2, 2)],
)
def crank_nicolson(y):
    return y[1:] - y[:-1] - 0.05 * (rates(y[1:]) + rates(y[:-1]))


STAGES = at(3, 3) - 0.6


@case(
    "collocation",
    at(4, 3, 2),
    [((k, s, i), (k, t, j)) for k in range(4) for s, t in grid(3, 3) for i, j in grid(2, 2)]
    + [((k, s, i), (k - 1, 2, i)) for k in range(1, 4) for s in range(3) for i in (0, 1)],
)
def collocation(y):
    starts = np.concatenate([np.array([[1.0, 0.5]]), y[:-1, -1]])
    return y - starts[:, None, :] - 0.1 * np.einsum("st,ktd->ksd", STAGES, rates(y))


# --- shapes of matrices -----------------------------------------------------------------------------------------


@case("arrowhead", at(6), {(0, k) for k in range(6)} | {(k, 0) for k in range(6)} | {(k, k) for k in range(6)})
def arrowhead(x):
    return np.concatenate([[np.sum(x**2)], x[1:] ** 3 + x[0] * x[1:]])


@case(
    "bordered",
    at(9),
    {(0, 0), (6, 6), (6, 8), (8, 7), (8, 8)}
    | {(k, c) for k in range(1, 6) for c in (k - 1, k, k + 1, 7)}
    | {(7, c) for c in range(7)},
)
def bordered(z):
    u, p = z[:-2], z[-2:]
    inner = u[2:] - 2.0 * u[1:-1] + u[:-2] + p[0] * np.exp(u[1:-1])
    return np.concatenate([[u[0]], inner, [u[-1] - p[1], u @ u - 1.0, p[0] ** 2 + p[1]]])


B23 = at(2, 3)
row(
    "Kronecker product with a full matrix",
    lambda a: np.kron(B23, a),
    at(3, 2),
    [((p * 3 + i, q * 2 + j), (i, j)) for p, q in grid(2, 3) for i, j in grid(3, 2)],
)
row(
    "Kronecker product with an identity",
    lambda a: np.kron(a, np.eye(2)),
    at(2, 3),
    [((2 * i + k, 2 * j + k), (i, j)) for i, j in grid(2, 3) for k in (0, 1)],
)
row(
    "identity times a matrix, by Kronecker",
    lambda x: np.kron(np.eye(4), B23) @ x,
    at(12),
    [(2 * k + i, 3 * k + j) for k in range(4) for i, j in grid(2, 3)],
)
row(
    "Kronecker sum",
    lambda X: at(2, 2) @ X + X @ at(3, 3),
    at(2, 3),
    {((i, j), (k, j)) for i, j in grid(2, 3) for k in range(2)}
    | {((i, j), (i, k)) for i, j in grid(2, 3) for k in range(3)},
)
SECOND = np.diag(np.full(6, -2.0)) + np.diag(np.ones(5), 1) + np.diag(np.ones(5), -1)
row(
    "banded matrix of numbers",
    lambda u: SECOND @ u**2,
    at(6),
    [(k, k + o) for k in range(6) for o in (-1, 0, 1) if 0 <= k + o < 6],
)
row(
    "banded matrix twice",
    lambda u: SECOND @ np.tanh(SECOND @ u),
    at(6),
    [(k, k + o) for k in range(6) for o in (-2, -1, 0, 1, 2) if 0 <= k + o < 6],
)
row(
    "diagonal matrix times vector",
    lambda x: np.diag(x[:3]) @ x[3:],
    at(6),
    [(k, c) for k in range(3) for c in (k, k + 3)],
)
row(
    "triangle of numbers times vector",
    lambda x: np.tril(np.full((4, 4), 3.0)) @ x,
    at(4),
    [(i, j) for i, j in grid(4, 4) if j <= i],
)
row(
    "table with some zeros times vector",
    lambda x: np.triu(np.full((4, 5), 3.0)) @ x,
    at(5),
    [(i, j) for i, j in grid(4, 5) if j >= i],
)
WEIGHTS = np.array([[1.5, 0.0, -2.0], [0.5, 3.0, 0.0]])
DATA = np.array([[1.5, 0.3, -2.0], [0.5, 3.0, 0.1], [1.0, 0.0, 2.0], [0.7, 1.1, -0.4]])
row(
    "small matrix with a third of zeros times vector",
    lambda x: WEIGHTS @ x,
    at(3),
    [(i, j) for i, j in grid(2, 3) if WEIGHTS[i, j]],
)
row(
    "numbers with a zero times vector",
    lambda x: np.array([0.0, 1.0, 2.0, 3.0]) * x,
    at(4),
    [(k, k) for k in range(1, 4)],
    extra=[(0, 0)],
    reason="zeros in arrays of numbers",
)
row(
    "elements of an array of numbers, one of them zero",
    lambda x: np.array([sum(WEIGHTS[i, j] * x[j] for j in range(3)) for i in range(2)]),
    at(3),
    [(i, j) for i, j in grid(2, 3) if WEIGHTS[i, j]],
    extra=[(0, 1), (1, 2)],
    reason="a product with a number that is zero by chance",
)
row(
    "a matrix of data with a zero in it",
    lambda x: DATA @ x,
    at(3),
    [(i, j) for i, j in grid(4, 3) if DATA[i, j]],
    extra=[(2, 1)],
    reason="zeros in arrays of numbers",
)

CAUSAL = np.tril(np.ones((3, 3), bool))
ORDERS = np.array([[1.0, 0, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 1, 0]])
RATES = np.array([[-1.0, 0, 0, 1], [1, -1, 0, 0], [0, 1, -1, 0], [0, 0, 2, -1], [0, 0, 0, 1]])
row(
    "law of mass action by exponents",
    lambda c: RATES @ np.prod(c**ORDERS, axis=1),
    at(5),
    {(i, j) for i, r in grid(5, 4) if RATES[i, r] for j in range(5) if ORDERS[r, j]},
)
row(
    "exponents made by the program",
    lambda c: c**2.0 + np.power(c, np.array([0, 1, 0, 3])) + c[::-1] ** np.array([0.0, 0.0, 2.0, 1.0]),
    at(4),
    [(k, k) for k in range(4)] + [(2, 1), (3, 0)],
)
row(
    "Vandermonde matrix",
    lambda x: x[:, None] ** np.arange(4),
    at(5),
    [((i, j), i) for i, j in grid(5, 4) if j],
)
row(
    "small stoichiometric matrix",
    lambda c: np.array([[-1.0, 0.0], [1.0, -1.0], [0.0, 1.0]]) @ np.stack([c[0] * c[1], c[2] ** 2]),
    at(3),
    [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2), (2, 2)],
)
row(
    "causal attention",
    lambda x: np.where(CAUSAL, np.exp(x @ x.T), 0.0) @ x,
    at(3, 2),
    [((i, j), (k, m)) for i, j in grid(3, 2) for k, m in grid(i + 1, 2)],
)
row(
    "rotation about an axis",
    lambda x: np.cross(x, [0.0, 0.0, 1.0]),
    at(4, 3),
    [((i, 0), (i, 1)) for i in range(4)] + [((i, 1), (i, 0)) for i in range(4)],
)
row(
    "running sums of running sums",
    lambda x: np.cumsum(np.sin(np.cumsum(np.cos(np.cumsum(x))))),
    at(5),
    [(i, j) for i, j in grid(5, 5) if j <= i],
)
row(
    "part of a running sum of few",
    lambda p: np.cumsum(np.concatenate((np.zeros(2), p[0] * np.arange(1.0, 4.0), p[1:])))[1:],
    at(3),
    [(i, j) for i, j in grid(6, 3) if i + 1 >= (2, 5, 6)[j]],
)
row(
    "central difference by convolve",
    lambda u: np.convolve(u, [1.0, 0.0, -1.0], "valid"),
    at(7),
    [(k, c) for k in range(5) for c in (k, k + 2)],
)


@case(
    "np.block",
    at(7),
    [((0, 0), 0), ((1, 1), 0), ((0, 2), 1), ((1, 2), 2), ((2, 0), 3), ((2, 1), 4), ((2, 2), 5), ((2, 2), 6)],
)
def blocks(x):
    return np.block(
        [[x[0] * np.eye(2), x[1:3].reshape(2, 1)], [x[3:5].reshape(1, 2) ** 2, (x[5] * x[6]).reshape(1, 1)]]
    )


@case(
    "saddle point by np.block",
    at(6),
    [(0, 0), (0, 2), (0, 3), (0, 4), (1, 1), (1, 2), (1, 3), (1, 5), (2, 0), (2, 1), (3, 0), (3, 1)],
)
def saddle(z):
    B = at(2, 2)
    return np.block([[np.diag(z[4:]), B], [B.T, np.zeros((2, 2))]]) @ z[:4]


# Two zeros in a matrix of nine, used in every step of a time stepping.
HEAT = np.array([[-2.0, 1.0, 0.0], [1.0, -2.0, 1.0], [0.0, 1.0, -2.0]])


@case(
    "implicit Euler with a small matrix",
    at(4, 3),
    [((k, i), (k, j)) for k in range(4) for i, j in grid(3, 3) if abs(i - j) <= 1]
    + [((k, i), (k - 1, i)) for k in range(1, 4) for i in range(3)],
)
def implicit_euler_small(u):
    before = np.vstack([np.ones(3), u[:-1]])
    return u - before - 0.1 * (u @ HEAT.T + u**2)


@case(
    "symmetric matrix filled by pairs",
    at(10),
    [(i, 6 + j) for i, j in grid(4, 4) if i != j]
    + [(i, k) for k, (a, b) in enumerate(zip(*np.triu_indices(4, 1), strict=True)) for i in (int(a), int(b))],
)
def filled_by_pairs(x):
    matrix = np.zeros((4, 4))
    matrix[np.triu_indices(4, 1)] = x[:6]
    return (matrix + matrix.T) @ x[6:]


# --- scans, order, choice ---------------------------------------------------------------------------------------

row("cumsum", lambda x: np.cumsum(x**2), at(6), [(i, j) for i, j in grid(6, 6) if j <= i])
row(
    "cumsum of columns",
    lambda x: np.cumsum(x, axis=0),
    at(4, 5),
    [((i, j), (k, j)) for i, j in grid(4, 5) for k in range(i + 1)],
)
row("sort", lambda x: np.sort(x) ** 2, at(7), list(enumerate(np.argsort(at(7)).tolist())))
row(
    "sort of columns",
    lambda x: np.sort(x, axis=0),
    at(4, 5),
    [((i, j), (int(np.argsort(at(4, 5)[:, j])[i]), j)) for i, j in grid(4, 5)],
)
row("median", lambda x: np.median(x, axis=1), at(3, 5), [(i, (i, int(np.argsort(at(3, 5)[i])[2]))) for i in range(3)])
TOP = np.argmax(at(4, 5), axis=1)
row(
    "gather at argmax",
    lambda x: x[np.arange(4), np.argmax(x, axis=1)] ** 2,
    at(4, 5),
    [(i, (i, int(TOP[i]))) for i in range(4)],
)
row(
    "all by the largest",
    lambda x: x * x[np.argmax(x)],
    at(7),
    {(k, k) for k in range(7)} | {(k, int(np.argmax(at(7)))) for k in range(7)},
)
row(
    "max of rows",
    lambda x: np.max(x, axis=1),
    at(4, 5),
    [(i, (i, int(TOP[i]))) for i in range(4)],
    extra=[(i, (i, j)) for i, j in grid(4, 5)],
    reason="maximum",
)
LARGER = [int(k + (at(7)[k + 1] > at(7)[k])) for k in range(6)]
row(
    "maximum of neighbours",
    lambda x: np.maximum(x[1:], x[:-1]),
    at(7),
    list(enumerate(LARGER)),
    extra=[(k, k + o) for k in range(6) for o in (0, 1)],
    reason="maximum",
)
row(
    "where by value",
    lambda x: np.where(x > 0.8, x**2, 1.0),
    at(7),
    [(k, k) for k in range(7) if at(7)[k] > 0.8],
    extra=[(k, k) for k in range(7)],
    reason="masks that depend on the arguments",
)
row(
    "where by value, two branches",
    lambda x: np.where(x[1:] > 0.8, x[1:], x[:-1]),
    at(7),
    [(k, k + 1 if at(7)[k + 1] > 0.8 else k) for k in range(6)],
    extra=[(k, k + o) for k in range(6) for o in (0, 1)],
    reason="masks that depend on the arguments",
)
MASK = np.array([True, False, True, True, False, False])
row("where by a mask", lambda x: np.where(MASK, x[1:] ** 2, x[:-1]), at(7), [(k, k + MASK[k]) for k in range(6)])
row("where by a mask, else a number", lambda x: np.where(MASK, x**2, 0.0), at(6), [(k, k) for k in range(6) if MASK[k]])
row("product with a mask", lambda x: x * MASK, at(6), [(k, k) for k in range(6) if MASK[k]])
row("index by a mask", lambda x: x[MASK] ** 2, at(6), [(i, k) for i, k in enumerate([0, 2, 3])])
row(
    "index by a condition",
    lambda x: x[x > 0.8] ** 2,
    at(7),
    list(enumerate(np.flatnonzero(at(7) > 0.8).tolist())),
)
EDGE = np.ones((4, 6), dtype=bool)
EDGE[1:-1, 1:-1] = False


@case(
    "boundary values by a mask",
    at(4, 6),
    [(p, p) for p in grid(4, 6) if EDGE[p]]
    + [(p, tuple(np.add(p, o).tolist())) for p in grid(4, 6) if not EDGE[p] for o in cross(2)],
)
def with_boundary(u):
    inner = u[2:, 1:-1] + u[:-2, 1:-1] + u[1:-1, 2:] + u[1:-1, :-2] - 4.0 * u[1:-1, 1:-1]
    return np.where(EDGE, u - 1.0, np.pad(inner, 1))


# --- reductions and products ------------------------------------------------------------------------------------

row("sum of one axis", lambda x: np.sum(x**2, axis=0), at(2, 3, 4), [((j, k), (i, j, k)) for i, j, k in grid(2, 3, 4)])
row("sum", lambda x: np.sum(x**2), at(2, 3), [((), p) for p in grid(2, 3)])
row(
    "mean, kept",
    lambda x: x - x.mean(axis=1, keepdims=True),
    at(3, 4),
    [((i, j), (i, k)) for i, j in grid(3, 4) for k in range(4)],
)
row("variance", lambda x: np.var(x, axis=1), at(3, 4), [(i, (i, j)) for i, j in grid(3, 4)])
row("product", lambda x: np.prod(x, axis=0), at(3, 4), [(j, (i, j)) for i, j in grid(3, 4)])
row("norm of rows", lambda x: np.linalg.norm(x, axis=1), at(3, 4), [(i, (i, j)) for i, j in grid(3, 4)])
A34, T243 = at(3, 4), at(2, 4, 3)
row("einsum ii->i", lambda a: np.einsum("ii->i", a), at(4, 4), [(i, (i, i)) for i in range(4)])
row("einsum ii->", lambda a: np.einsum("ii", a), at(4, 4), [((), (i, i)) for i in range(4)])
row("einsum iij->ij", lambda a: np.einsum("iij->ij", a), at(3, 3, 2), [((i, j), (i, i, j)) for i, j in grid(3, 2)])
row("einsum ij,ij->i", lambda a: np.einsum("ij,ij->i", a, a), at(3, 4), [(i, (i, j)) for i, j in grid(3, 4)])
row("einsum ij,ji->i", lambda a: np.einsum("ij,ji->i", a, A34.T), at(3, 4), [(i, (i, j)) for i, j in grid(3, 4)])
row(
    "einsum bij,bj->bi",
    lambda a: np.einsum("bij,bj->bi", T243, a),
    at(2, 3),
    [((b, i), (b, j)) for b, i, j in grid(2, 4, 3)],
)
row(
    "einsum ij,ik->jk",
    lambda a: np.einsum("ij,ik->jk", a, A34),
    at(3, 2),
    [((j, k), (i, j)) for i, j, k in grid(3, 2, 4)],
)
row("trace of a product", lambda a: np.trace(a @ A34), at(4, 3), [((), p) for p in grid(4, 3)])
row(
    "Gram matrix",
    lambda a: a @ a.T,
    at(2, 3),
    {((i, j), (r, k)) for i, j in grid(2, 2) for r in (i, j) for k in range(3)},
)
row("outer product", lambda x: np.outer(x[:2], x[2:]), at(5), [((i, j), c) for i, j in grid(2, 3) for c in (i, j + 2)])
row("matrix times vector", lambda x: np.sin(A34 @ x), at(4), grid(3, 4))
row(
    "weights of a window",
    lambda u: np.lib.stride_tricks.sliding_window_view(u, 3) @ np.array([1.0, 0.0, -1.0]),
    at(7),
    [(k, k + o) for k in range(5) for o in (0, 2)],
)
SEEN = np.array([[1, 0, 1, 1], [0, 1, 1, 0], [1, 1, 0, 0]], dtype=bool)


@case("softmax masked by minus infinity", at(3, 4), [
    ((i, j), (i, k)) for i, j, k in grid(3, 4, 4) if SEEN[i, j] and SEEN[i, k]
])  # fmt: skip
def masked_softmax(x):
    z = np.where(SEEN, x, -np.inf)
    e = np.exp(z - np.max(z, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


LOWER = np.tril(at(4, 4)) + np.eye(4)
BLOCKS = scipy.linalg.block_diag(at(2, 2) + np.eye(2), 2.0, at(3, 3) + np.eye(3))
row("solve of a triangle", lambda b: scipy.linalg.solve_triangular(LOWER, b**2, lower=True), at(4), [
    (i, j) for i, j in grid(4, 4) if i >= j
])  # fmt: skip
row("solve of blocks", lambda b: np.linalg.solve(BLOCKS, b**2), at(6), [
    (i, j) for i, j in grid(6, 6) if (i < 2) == (j < 2) and (i == 2) == (j == 2)
])  # fmt: skip


@case(
    "chain of homogeneous transforms",
    at(3),
    [((row, column), (k,)) for row in (0, 1) for column in (0, 1, 3) for k in range(3 if column < 3 else 2)],
)
def chain_of_transforms(angles):
    pose = np.eye(4)
    for k in range(3):
        c, s = np.cos(angles[k]), np.sin(angles[k])
        pose = pose @ np.array([[c, -s, 0.0, 0.3], [s, c, 0.0, 0.0], [0.0, 0.0, 1.0, 0.1 * k], [0.0, 0.0, 0.0, 1.0]])
    return pose[:3]


@case("inverse of a bidiagonal matrix", at(4), [(i, k) for i in range(5) for k in range(4) if k < i])
def inverse_of_two_diagonals(x):
    A = np.diag(np.arange(1.0, 6.0)) + np.diag(x, -1)
    return np.linalg.solve(A, np.arange(1.0, 6.0))


row("solve", lambda b: np.linalg.solve(at(3, 3) + 2.0 * np.eye(3), b**2), at(3), grid(3, 3))

KERNEL = np.array([1.0, -2.0, 0.5])
for mode, first in (("full", 0), ("same", 1), ("valid", 2)):
    length = {"full": 9, "same": 7, "valid": 5}[mode]
    by_signal = [(k - first, c) for k in range(first, first + length) for c in range(7) if 0 <= k - c < 3]
    by_kernel = [(k - first, c) for k in range(first, first + length) for c in range(3) if 0 <= k - c < 7]
    row(f"convolve {mode}", lambda x, mode=mode: np.convolve(x, KERNEL, mode), at(7), by_signal)
    row(f"convolve {mode}, by the kernel", lambda k, mode=mode: np.convolve(at(7), k, mode), at(3), by_kernel)
    row(
        f"convolve {mode}, by both",
        lambda z, mode=mode: np.convolve(z[:7], z[7:], mode),
        at(10),
        by_signal + [(r, c + 7) for r, c in by_kernel],
    )
    # Correlation reads the kernel from its end: the same places.
    row(f"correlate {mode}", lambda x, mode=mode: np.correlate(x, KERNEL, mode), at(7), by_signal)

# --- terms that cancel ------------------------------------------------------------------------------------------

row(
    "differences of all pairs",
    lambda x: x[:, None] - x[None, :],
    at(4),
    [((i, j), k) for i, j in grid(4, 4) if i != j for k in (i, j)],
    extra=[((i, i), i) for i in range(4)],
    reason="terms that cancel",
)
row(
    "what is added and taken away",
    lambda x: x[1:] - x[1:] + x[:-1],
    at(5),
    [(k, k) for k in range(4)],
    extra=[(k, k + 1) for k in range(4)],
    reason="terms that cancel",
)

# --- loops that fill --------------------------------------------------------------------------------------------


@case("1-D fill", at(9), stencil([(k,) for k in range(1, 8)], cross(1)))
def filled_1d(u):
    out = np.zeros(7)
    for k in range(1, 8):
        out[k - 1] = u[k + 1] - 2 * u[k] ** 2 + u[k - 1]
    return out


@case("2-D fill", at(5, 7), stencil(itertools.product(range(1, 4), range(1, 6)), cross(2)))
def filled_2d(u):
    out = np.empty((3, 5))
    for i in range(1, 4):
        for j in range(1, 6):
            out[i - 1, j - 1] = u[i + 1, j] + u[i - 1, j] + u[i, j + 1] + u[i, j - 1] - 4.0 * u[i, j] ** 2
    return out


@case("fill with branches", at(4, 5), [
    (p, q) for p in grid(4, 5) for q in [p, (p[0] - 1, p[1]), (p[0], p[1] + 1)] if q[0] >= 0 and q[1] < 5
])  # fmt: skip
def filled_with_branches(u):
    out = np.zeros_like(u)
    for i in range(4):
        for j in range(5):
            out[i, j] = u[i, j] ** 2
            if i > 0:
                out[i, j] -= u[i - 1, j]
            if j < 4:
                out[i, j] += u[i, j + 1] * u[i, j]
    return out


@case("finite elements by a loop", at(5), MESH)
def assembled_by_loop(u):
    r = np.zeros(5)
    for triangle in TRIANGLES:
        e = u[triangle]
        r[triangle] += e**2 * np.sum(e)
    return r


@case("matrix filled, times vector", at(5), [(k, k + o) for k in range(5) for o in (-1, 0, 1) if 0 <= k + o < 5])
def matrix_filled(x):
    A = np.zeros((5, 5))
    for k in range(5):
        A[k, k] = 2.0 + x[k]
        if k:
            A[k, k - 1] = A[k - 1, k] = 1.0
    return A @ x


@case("implicit Euler by a loop", at(6, 2), [
    ((k, i), c) for k in range(5) for i in (0, 1) for c in ((k, i), (k + 1, 0), (k + 1, 1))
])  # fmt: skip
def implicit_euler_by_loop(y):
    out = np.zeros((5, 2))
    for k in range(5):
        a, b = y[k + 1]
        out[k, 0] = a - y[k, 0] - 0.1 * a * (1.0 - b)
        out[k, 1] = b - y[k, 1] - 0.1 * b * (a - 1.0)
    return out


# --- the tests --------------------------------------------------------------------------------------------------


def pattern_of(J: Any) -> np.ndarray:
    """The stored entries, also those that happen to be zero."""
    stored = np.zeros(J.shape, dtype=bool)
    places = J.tocoo()
    stored[places.row, places.col] = True
    return stored


def central(function: Callable[[Any], Any], x: np.ndarray) -> np.ndarray:
    """The dense Jacobian by central differences with one Richardson step, from the plain NumPy function."""
    columns = []
    for k in range(x.size):
        step = np.zeros(x.size)
        step[k] = 1.0
        step = step.reshape(x.shape)
        ahead, back, far, near = (np.ravel(function(x + h * step)) for h in (1e-3, -1e-3, 2e-3, -2e-3))
        columns.append((8.0 * (ahead - back) - (far - near)) / 12e-3)
    return np.stack(columns, axis=-1)


def test_names_are_unique():
    assert len({c.name for c in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_pattern_is_exact(case: Case):
    y = np.asarray(case.function(case.x))
    needed = matrix(case.pairs, y.shape, case.x.shape)
    expected = needed | matrix(case.extra, y.shape, case.x.shape)
    J = jc.jacobian(case.function, format="csr")(case.x)
    assert J.has_canonical_format
    assert J.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(pattern_of(J), expected)
    numeric = central(case.function, case.x)
    np.testing.assert_allclose(J.toarray(), numeric, atol=1e-8)
    # The table itself is right: nothing is left out, and at this point nothing but the declared extras is zero.
    np.testing.assert_array_equal(np.abs(numeric) > 1e-9, needed)


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_a_replay_is_right_at_another_point(case: Case):
    """Same path, same pattern, other numbers: nothing of the first point was kept."""
    transform = jc.value_and_jacobian(case.function, format="csr")
    _, first = transform(case.x)
    x = case.x * 1.001 + 1e-4
    y, J = transform(x)
    np.testing.assert_allclose(y, case.function(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(J.toarray(), central(case.function, x), atol=1e-8)
    np.testing.assert_array_equal(pattern_of(J), pattern_of(first))


@pytest.mark.parametrize("case", [c for c in CASES if c.reason], ids=lambda c: c.name)
def test_over_estimates_are_documented(case: Case):
    assert any(line.lower().startswith(f"* **{case.reason}") for line in DOCUMENT.read_text().splitlines())


def test_only_documented_over_estimates():
    for case in CASES:
        y = np.asarray(case.function(case.x))
        more = matrix(case.extra, y.shape, case.x.shape) & ~matrix(case.pairs, y.shape, case.x.shape)
        assert more.any() == bool(case.reason), case.name


PAIRS = [
    ("1-D by slices", "1-D fill"),
    ("2-D by slices", "2-D fill"),
    ("finite elements by add.at", "finite elements by a loop"),
    ("implicit Euler", "implicit Euler by a loop"),
]


@pytest.mark.parametrize(("vectorised", "loop"), PAIRS)
def test_a_loop_gives_the_pattern_of_the_vectorised_program(vectorised: str, loop: str):
    named = {c.name: c for c in CASES}
    a, b = (jc.jacobian(named[n].function, format="csr")(named[n].x) for n in (vectorised, loop))
    np.testing.assert_array_equal(a.indptr, b.indptr)
    np.testing.assert_array_equal(a.indices, b.indices)
    np.testing.assert_allclose(a.data, b.data, rtol=1e-13)


def test_patterns_of_larger_problems():
    n = 1000
    assert jc.jacobian(lambda u: u[2:] * u[1:-1] - u[:-2], format="csr")(at(n)).nnz == 3 * (n - 2)
    assert jc.jacobian(laplacian_2d, format="csr")(at(30, 40)).nnz == 5 * 28 * 38
    assert jc.jacobian(laplacian_3d, format="csr")(at(9, 10, 11)).nnz == 7 * 7 * 8 * 9
    assert jc.jacobian(brusselator, format="csr")(at(2, 16, 20)).nnz == 2 * 16 * 20 * 6
    assert jc.jacobian(implicit_euler, format="csr")(at(200, 2)).nnz == 199 * 6


# --- structure that arrays have, when they change ---------------------------------------------------------------


def test_structure_follows_captured_arrays_that_change():
    D, mask = np.diag([1.0, 2.0, 3.0, 4.0]), np.array([True, False, True, False])
    J = jc.jacobian(lambda x: D @ x + np.where(mask, x[::-1], 2.0 * np.roll(x, 1)), format="csr")
    x = at(4)

    def check(nnz):
        chosen = np.where(mask[:, None], np.eye(4)[::-1], 2.0 * np.roll(np.eye(4), 1, axis=0))
        found = J(x)
        np.testing.assert_array_equal(found.toarray(), D + chosen)
        assert found.nnz == nnz

    check(8)
    D[0, 0] = 9.0  # another number: the same structure
    check(8)
    D[0, 2] = 7.0
    check(9)
    mask[1] = True
    check(9)
    D[...] = 1.0
    check(16)


def test_zeros_in_data_are_no_structure():
    times = np.array([0.0, 1.0, 2.0, 3.0])
    J = jc.jacobian(lambda p: p[0] * np.exp(-p[1] * times), format="csr")(at(2))
    assert J.nnz == 8
    assert J[0, 1] == 0.0


def test_a_structural_zero_is_not_multiplied_by_what_is_infinite():
    x = np.array([0.0, 4.0])
    with np.errstate(divide="ignore"):
        J = jc.jacobian(lambda x: np.diag([0.0, 2.0]) @ np.sqrt(x), format="csr")(x)
    np.testing.assert_array_equal(J.toarray(), [[0.0, 0.0], [0.0, 0.5]])


# --- no under-estimates -----------------------------------------------------------------------------------------


@settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programs, points)
def test_patterns_miss_nothing(program, x):
    dense = jc.jacobian(program, order="forward")(x)
    dense = dense.reshape(-1, x.size)
    for order in ("auto", "reverse"):
        J = jc.jacobian(program, format="csr", order=order)(x)
        assert not np.any((dense != 0.0) & ~pattern_of(J)), order
    try:
        expected, spread = differences(program, x)
    except ValueError:
        return  # the shape of the result changes within the step
    scale = 1.0 + np.abs(expected).max(initial=0.0)
    certain = (np.abs(expected) > 1e-4 * scale) & (spread < 1e-6 * scale)
    assert not np.any(certain & ~pattern_of(J))
