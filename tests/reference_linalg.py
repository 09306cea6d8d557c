"""Small linear algebra in any precision, written out: what the records of ``numpy.linalg`` are compared with.

Nothing here calls LAPACK for a number. Where a result has a free sign or order (eigenvectors, singular vectors, the
columns of Q) LAPACK's answer in double precision says which one is meant.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def eliminate(a: Array, b: Array) -> Array:
    """Gauss-Jordan with partial pivoting: ``a^-1 b``."""
    a, b, n = a.copy(), b.copy(), len(a)
    for k in range(n):
        p = k + int(np.argmax(np.abs(a[k:, k])))
        if p != k:
            a[[k, p]], b[[k, p]] = a[[p, k]], b[[p, k]]
        b[k], a[k] = b[k] / a[k, k], a[k] / a[k, k]
        for i in range(n):
            if i != k:
                b[i], a[i] = b[i] - a[i, k] * b[k], a[i] - a[i, k] * a[k]
    return b


def inverse(a: Array) -> Array:
    return eliminate(a, np.eye(len(a), dtype=a.dtype))


def cholesky(a: Array) -> Array:
    lower = np.zeros_like(a)
    for i in range(len(a)):
        for j in range(i + 1):
            rest = a[i, j] - (lower[i, :j] * lower[j, :j]).sum()
            lower[i, j] = np.sqrt(rest) if i == j else rest / lower[j, j]
    return lower


@functools.cache
def _permutations(n: int) -> tuple[Array, Array]:
    """All orders of n things, and their signs."""
    orders = np.array(list(itertools.permutations(range(n))), dtype=np.int64).reshape(math.factorial(n), n)
    swaps = sum((orders[:, i] > orders[:, j] for i in range(n) for j in range(i + 1, n)), np.zeros(len(orders), int))
    return orders, (-1) ** swaps


def determinant(a: Array) -> Any:
    """By its definition, the sum over all orders of the columns: small matrices, singular or not."""
    orders, signs = _permutations(len(a))
    return (signs.astype(a.dtype) * np.prod(a[np.arange(len(a)), orders], axis=1)).sum()


def minors(order, a):
    """The derivatives of the determinant: each replaces a row by a unit vector."""
    n = a.shape[-1]
    result = np.zeros((*a.shape[:-2], *(n,) * (2 * order)), dtype=a.dtype)
    for lead in np.ndindex(*a.shape[:-2]):
        for place in np.ndindex(*(n,) * (2 * order)):
            rows = place[::2]
            if len(set(rows)) == order:
                replaced = a[lead].copy()
                for row, column in zip(rows, place[1::2], strict=True):
                    replaced[row] = np.eye(n, dtype=a.dtype)[column]
                result[(*lead, *place)] = determinant(replaced)
    return result


def cofactor(a: Array) -> Array:
    result = np.zeros_like(a)
    for i, j in np.ndindex(*a.shape):
        result[i, j] = (-1) ** (i + j) * determinant(np.delete(np.delete(a, i, 0), j, 1))
    return result


def slogdet(a: Array) -> Array:
    value = determinant(a)
    return np.array([np.sign(value), np.log(np.abs(value))], dtype=a.dtype)


def _signs(found: Array, meant: Array) -> Array:
    """The columns of ``found`` with the signs of ``meant``."""
    return np.where((found * meant).sum(axis=0) < 0, -1, 1).astype(found.dtype)


def eigh(a: Array, uplo: str) -> tuple[Array, Array]:
    """Cyclic Jacobi rotations."""
    original, n = a, len(a)
    a, v = a.copy(), np.eye(n, dtype=a.dtype)
    for _ in range(12):
        for p in range(n):
            for q in range(p + 1, n):
                if a[p, q] != 0:
                    theta = (a[q, q] - a[p, p]) / (2 * a[p, q])
                    t = (1 if theta >= 0 else -1) / (np.abs(theta) + np.sqrt(theta * theta + 1))
                    c = 1 / np.sqrt(t * t + 1)
                    turn = np.eye(n, dtype=a.dtype)
                    turn[p, p] = turn[q, q] = c
                    turn[p, q], turn[q, p] = t * c, -t * c
                    a, v = turn.T @ a @ turn, v @ turn
    order = np.argsort(np.diagonal(a))
    v = v[:, order]
    return np.diagonal(a)[order], v * _signs(v, np.linalg.eigh(original.astype(float), uplo)[1])


def eig(a: Array) -> tuple[Array, Array]:
    """Newton's method on ``a v = w v``, ``v^T v = 1``, from LAPACK's answer; the spectrum must be real and simple."""
    n = len(a)
    values, vectors = np.linalg.eig(a.astype(float))
    w, v = values.astype(a.dtype), vectors.astype(a.dtype)
    for k in range(n):
        for _ in range(4):
            system = np.zeros((n + 1, n + 1), dtype=a.dtype)
            system[:n, :n] = a - w[k] * np.eye(n, dtype=a.dtype)
            system[:n, n], system[n, :n] = -v[:, k], 2 * v[:, k]
            residual = np.append(a @ v[:, k] - w[k] * v[:, k], v[:, k] @ v[:, k] - 1)
            step = eliminate(system, residual[:, None])[:, 0]
            v[:, k], w[k] = v[:, k] - step[:n], w[k] - step[n]
    return w, v


def svd(a: Array) -> tuple[Array, Array, Array]:
    """One-sided Jacobi rotations (Hestenes): thin ``U``, ``s``, ``V``; singular values must not be zero."""
    if a.shape[0] < a.shape[1]:
        v, s, u = svd(a.T)
    else:
        u, n = a.copy(), a.shape[1]
        v = np.eye(n, dtype=a.dtype)
        for _ in range(15):
            for p in range(n):
                for q in range(p + 1, n):
                    cross = u[:, p] @ u[:, q]
                    if cross != 0:
                        theta = (u[:, q] @ u[:, q] - u[:, p] @ u[:, p]) / (2 * cross)
                        t = (1 if theta >= 0 else -1) / (np.abs(theta) + np.sqrt(theta * theta + 1))
                        c = 1 / np.sqrt(t * t + 1)
                        turn = np.array([[c, t * c], [-t * c, c]])
                        u[:, [p, q]], v[:, [p, q]] = u[:, [p, q]] @ turn, v[:, [p, q]] @ turn
        s = np.sqrt((u * u).sum(axis=0))
        order = np.argsort(-s)
        u, s, v = u[:, order] / s[order], s[order], v[:, order]
    signs = _signs(u, np.linalg.svd(a.astype(float), full_matrices=False)[0])
    return u * signs, s, v * signs


def qr(a: Array) -> tuple[Array, Array]:
    """Gram-Schmidt, twice."""
    q, n = np.zeros_like(a), a.shape[1]
    for k in range(n):
        column = a[:, k]
        for _ in range(3):
            column = column - q[:, :k] @ (q[:, :k].T @ column)
            column = column / np.sqrt(column @ column)
        q[:, k] = column
    q = q * _signs(q, np.linalg.qr(a.astype(float))[0])
    return q, np.triu(q.T @ a)


def pinv(a: Array, cutoff: Any) -> Array:
    u, s, v = svd(a)
    assert s[-1] > cutoff * s[0], "the reference takes matrices of full rank"
    return (v / s) @ u.T


def matrix_function(a: Array, name: str) -> Array:
    n = len(a)
    eye = np.eye(n, dtype=a.dtype)
    if name == "sqrtm":  # Denman and Beavers
        y, z = a, eye
        for _ in range(40):
            y, z = (y + inverse(z)) / 2, (z + inverse(y)) / 2
        return y
    assert name == "expm"
    halvings = 6  # each loses a bit or two
    total = power = eye
    for k in range(1, 25):
        power = power @ a / (k * a.dtype.type(2) ** halvings)
        total = total + power
    for _ in range(halvings):
        total = total @ total
    return total


def lu(a: Array) -> Array:
    """Doolittle's factors without exchanges, packed."""
    n = len(a)
    packed = np.zeros_like(a)
    for i in range(n):
        for j in range(n):
            rest = a[i, j] - (packed[i, : min(i, j)] * packed[: min(i, j), j]).sum()
            packed[i, j] = rest / packed[j, j] if i > j else rest
    return packed


def pencil(a: Array, b: Array, uplo: str) -> tuple[Array, Array]:
    """``A v = w B v`` by the Cholesky factor of B."""
    import scipy.linalg

    lower = inverse(cholesky(b))
    w, u = eigh(lower @ a @ lower.T, uplo)
    v = lower.T @ u
    return w, v * _signs(v, scipy.linalg.eigh(a.astype(float), b.astype(float), lower=uplo == "L")[1])


def sylvester(a: Array, b: Array, c: Array) -> Array:
    m, n = c.shape
    system = np.zeros((m * n, m * n), dtype=a.dtype)
    for i in range(m):
        for j in range(n):
            for k in range(m):
                system[i * n + j, k * n + j] += a[i, k]
            for k in range(n):
                system[i * n + j, i * n + k] += b[k, j]
    return eliminate(system, c.reshape(-1, 1)).reshape(m, n)


def reference(name: str, params: Any, arrays: list[Array]) -> Array:
    """The value of a record of linear algebra for one matrix (or pair of matrices)."""
    a = arrays[0]
    match name:
        case "inv" | "inv_or_nan":
            return inverse(a)
        case "solve":
            return eliminate(a, arrays[1])
        case "det":
            return np.asarray(determinant(a))
        case "slogdet":
            return slogdet(a)
        case "cholesky":
            return cholesky(a)
        case "cofactor":
            return cofactor(a)
        case "cofactor_along":
            return np.einsum("ijkl,...kl->...ij", minors(2, a), arrays[1])
        case "eigh":
            w, v = eigh(a, params.uplo)
            return np.concatenate([w[None], v])
        case "eigvalsh":
            return eigh(a, params.uplo)[0]
        case "eig":
            w, v = eig(a)
            return np.concatenate([w[None], v])
        case "eigvals":
            return eig(a)[0]
        case "svd":
            u, s, v = svd(a)
            return np.concatenate([u, s[None], v])
        case "svdvals":
            return svd(a)[1]
        case "qr":
            return np.concatenate(qr(a))
        case "pinv":
            return pinv(a, arrays[1])
        case "lstsq":
            x = pinv(a, arrays[2]) @ arrays[1]
            return np.concatenate([x, np.full((1, x.shape[1]), min(a.shape), dtype=a.dtype)])
        case "polar":
            u, s, v = svd(a)
            vectors = v if params.side == "right" else u
            return (vectors * s) @ vectors.T if params.part else u @ v.T
        case "matrix_function":
            return matrix_function(a, params.name)
        case "spectral_function":
            return (a[1:] * arrays[2]) @ a[1:].T
        case "eigh_pencil":
            w, v = pencil(a, arrays[1], params.uplo)
            return np.concatenate([w[None], v])
        case "lu":
            return lu(a)
        case "sylvester":
            return sylvester(*arrays[:3])
    raise AssertionError(name)
