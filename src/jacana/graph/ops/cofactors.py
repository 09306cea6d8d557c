"""The derivative of the cofactors, which is the Hessian of the determinant, as a linear map that multiplies.

It exists at every matrix. The formula with the inverse, ``dC = d (tr(Y E) Y^T - Y^T E^T Y^T)``, does not, so it is
written in the coordinates of the singular vectors: with ``A = U S V^T`` and ``E' = U^T E V`` the matrix of cofactors of
``S + E'`` changes by

    diagonal:  sum over k of p[i, k] E'[k, k]          p[i, k]: the product of all singular values but these two
    else:      -p[i, k] E'[k, i]

(the expansion of Laplace at a diagonal matrix), and ``dC = det(U V) U (...) V^T``. The map is symmetric.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..index import identity
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .labelled import contracted, labelled, linalg
from .linalg import determinant, inverse, svd_of_finite
from .matrix_functions import directions_last, units


def _products_without_two(s: Array) -> Array:
    """``p[..., i, k]``, the product of ``s`` without its elements i and k; zero where i is k. Nothing is divided."""
    n = s.shape[-1]
    ones = np.ones((*s.shape[:-1], 1), s.dtype)
    before = np.concatenate([ones, np.cumprod(s, axis=-1)[..., :-1]], axis=-1)
    after = np.concatenate([ones, np.cumprod(s[..., ::-1], axis=-1)[..., :-1]], axis=-1)[..., ::-1]
    later = np.arange(n) > np.arange(n)[:, None]
    running = np.cumprod(np.where(later, s[..., None, :], 1.0), axis=-1)  # of those after i, up to k
    between = np.concatenate([np.ones((*s.shape, 1), s.dtype), running[..., :-1]], axis=-1)
    upper = np.where(later, before[..., :, None] * between * after[..., None, :], 0.0)
    return np.asarray(upper + np.swapaxes(upper, -1, -2), dtype=s.dtype)


def _evaluate(params: Any, a: Array, directions: Array) -> Array:
    u, s, vt = svd_of_finite(a)
    rest = directions.ndim - a.ndim
    wide = (*a.shape[:-2], *(1,) * rest, *a.shape[-2:])
    orientation = (np.linalg.det(u) * np.linalg.det(vt)).reshape((*wide[:-2], 1, 1))
    u, vt, p = u.reshape(wide), vt.reshape(wide), _products_without_two(s).reshape(wide)
    turned_in = np.swapaxes(np.swapaxes(u, -1, -2) @ directions @ np.swapaxes(vt, -1, -2), -1, -2)
    change = -p * turned_in
    places = np.arange(a.shape[-1])
    diagonal = turned_in[..., places, places]
    change[..., places, places] = (p @ diagonal[..., None])[..., 0]
    return np.asarray(orientation * (u @ change @ vt), dtype=a.dtype)


def _infer(params: Any, a: Node, directions: Node) -> tuple[Shape, DType]:
    batch = a.ndim - 2
    assert a.shape[:batch] == directions.shape[:batch] and a.shape[-2:] == directions.shape[-2:], (a, directions)
    return directions.shape, directions.dtype


def _edges(node: Node) -> Edges:
    # With Y = A^-1, d = det A, and Z = Y E Y: the third derivative of the determinant, for regular matrices only.
    from ..build import broadcast_axes, product

    a, directions = node.inputs
    batch, n = a.ndim - 2, a.shape[-1]
    lead = node.shape[:-2]
    sizes = dict.fromkeys("ijkl", n)
    everywhere = (*range(batch), len(lead), len(lead) + 1)
    y = broadcast_axes(inverse(a), node.shape, everywhere)
    d = broadcast_axes(determinant(a), node.shape, tuple(range(batch)))
    z = _times(_times(y, directions), y)
    by_a: tuple[Term, ...] = (
        labelled(lead, sizes, "ij", "kl", (node, "ij"), (y, "lk")),
        labelled(lead, sizes, "ij", "kl", (-product(d, z), "lk"), (y, "ji")),
        labelled(lead, sizes, "ij", "kl", (-node, "kj"), (y, "li")),
        labelled(lead, sizes, "ij", "kl", (product(d, y), "jk"), (z, "li")),
    )
    # The axes of the directions between batch and matrix are axes of the row alone.
    by_a = tuple(t._replace(col=(*t.col[:batch], *t.col[len(lead) :])) for t in by_a)
    whole = cofactor_derivative(a, _formed(a))
    by_directions = labelled(lead, sizes, "ij", "kl")
    own = len(lead)
    factor = (whole, (*range(batch), own, own + 1, own + 2, own + 3))
    return by_a, (by_directions._replace(factors=(factor,)),)


def _times(a: Node, b: Node) -> Node:
    return contracted(a.shape[:-2], dict.fromkeys("ijk", a.shape[-1]), "ik", (a, "ij"), (b, "jk"))


_cofactor_along = linalg("cofactor_along", _evaluate, _infer, _edges)


def _apply(matrix: Node, array: Node, transposed: bool) -> Node:
    from ..build import transpose

    a = matrix.inputs[0]
    directions, back = directions_last(array, a.ndim - 2)
    return transpose(_cofactor_along(a, directions), back)


def _formed(a: Node) -> Node:
    """Every entry, ``(batch, i, j, k, l)``: the derivative in each unit direction."""
    from ..build import transpose

    n, batch = a.shape[-1], a.ndim - 2
    found = _cofactor_along(a, units((*a.shape[:-2], n, n, n, n), a.dtype))  # (batch, k, l, i, j)
    return transpose(found, (*range(batch), batch + 2, batch + 3, batch, batch + 1))


def _matrix_edges(node: Node) -> Edges:
    every = identity(node.ndim)
    return None, (Term(node.shape, every, every),)


cofactor_derivative = register(
    Operation(
        name="cofactor_derivative",
        family="matrix",
        evaluate=lambda params, a, formed: formed,
        infer=lambda params, a, formed: (formed.shape, formed.dtype),
        edges=_matrix_edges,
        matrix=Matrix(
            lambda matrix: 2,
            _apply,
            batch=lambda matrix: matrix.ndim - 4,
            needs=lambda matrix: matrix.inputs[:1],
        ),
    )
)


def cofactor_terms(a: Node) -> tuple[Term, ...]:
    """The derivative of the matrix of cofactors of ``a``."""
    whole = cofactor_derivative(a, _formed(a))
    return (labelled(a.shape[:-2], dict.fromkeys("ijkl", a.shape[-1]), "ij", "kl", (whole, "ijkl")),)


__all__ = ["cofactor_derivative", "cofactor_terms"]
