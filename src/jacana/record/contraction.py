"""Products: each is one labelled contraction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..graph.build import SMALL, cast_to, contract_labels, index_node, movement_reshape, transpose
from ..graph.index import Affine, Index, axis
from ..graph.node import Node
from .lift import acceptable, operand, plain_operand, with_zeros
from .movement import movement
from .sparse import is_sparse, matmul_sparse, sparse_matmul
from .table import implements, otherwise
from .variable import raw, tracked, wrap_constant, wrap_node

Labels = tuple[int, ...]


def contraction(value: Any, operands: Sequence[tuple[Any, Labels]], out: Labels) -> Any:
    """``value``, the sum over all labels not in ``out`` of the product of the operands.

    A label that an operand has twice is its diagonal; an axis of length one stands for every index of a longer label.
    """
    if all(tracked(x) is None for x, _ in operands):
        return wrap_constant(value)
    sizes: dict[int, int] = {}
    for x, labels in operands:
        for label, n in zip(labels, np.shape(raw(x)), strict=True):
            sizes[label] = n if sizes.get(label, 1) == 1 else sizes[label]
    factors = []
    for x, labels in operands:
        if len(labels) == 1 and sizes[labels[0]] <= SMALL:
            x = with_zeros(x)  # weights, as of a difference: [1, 0, -1]
        node = operand(x, np.shape(raw(x)), value.dtype)
        factors.append(_distinct(node, labels, sizes))
    compact = {label: k for k, label in enumerate(sizes)}
    named = [(node, tuple(compact[label] for label in labels)) for node, labels in factors]
    node = contract_labels(named, tuple(sizes.values()), tuple(compact[label] for label in out))
    return wrap_node(cast_to(node, value.dtype), value)


def _distinct(node: Node, labels: Labels, sizes: dict[int, int]) -> tuple[Node, Labels]:
    """The node with each label once, and without axes of length one that stand for a longer label."""
    kept = tuple(dict.fromkeys(x for x, n in zip(labels, node.shape, strict=True) if n == sizes[x]))
    if kept == labels:
        return node, labels
    place = {x: k for k, x in enumerate(kept)}
    pairs = zip(labels, node.shape, strict=True)
    indices: list[Index] = [axis(place[x]) if n == sizes[x] else Affine(0) for x, n in pairs]
    return index_node(node, tuple(sizes[x] for x in kept), indices), kept


def _prepared(*operands: Any) -> list[Any] | None:
    if not all(acceptable(x) for x in operands):
        return None
    return [plain_operand(x) for x in operands]


@implements(np.matmul)
def matmul(a: Any, b: Any) -> Any:
    """Matrix product; leading axes are a batch."""
    prepared = _prepared(a, b)
    if prepared is None:
        if is_sparse(a):
            return sparse_matmul(a, b)
        return matmul_sparse(a, b) if is_sparse(b) else otherwise(np.matmul, a, b)
    a, b = prepared
    value = np.matmul(raw(a), raw(b))
    rank_a, rank_b = np.ndim(raw(a)), np.ndim(raw(b))
    batch = max(rank_a, rank_b, 2) - 2
    i, j, k = batch, batch + 1, batch + 2
    left: Labels = (j,) if rank_a == 1 else (*range(batch - (rank_a - 2), batch), i, j)
    right: Labels = (j,) if rank_b == 1 else (*range(batch - (rank_b - 2), batch), j, k)
    out = (*range(batch), *((i,) if rank_a > 1 else ()), *((k,) if rank_b > 1 else ()))
    return contraction(value, [(a, left), (b, right)], out)


def _vector_products() -> None:
    """The ufuncs that the oldest NumPy supported does not have."""

    def matvec(a: Any, x: Any) -> Any:
        """A matrix, or a stack of them, with vectors."""
        return matmul(a, np.expand_dims(plain_operand(x), -1))[..., 0]

    def vecmat(x: Any, a: Any) -> Any:
        """Vectors with a matrix, or a stack of them."""
        return matmul(np.expand_dims(plain_operand(x), -2), a)[..., 0, :]

    for name, handler in (("matvec", matvec), ("vecmat", vecmat)):
        if hasattr(np, name):
            implements(getattr(np, name))(handler)


_vector_products()


@implements(np.dot)
def dot(a: Any, b: Any, out: Any = None) -> Any:
    """The last axis of ``a`` with the last but one of ``b``."""
    a, b = plain_operand(a), plain_operand(b)
    rank_a, rank_b = np.ndim(raw(a)), np.ndim(raw(b))
    if rank_a == 0 or rank_b == 0:
        return np.multiply(a, b)
    value = np.dot(raw(a), raw(b))
    left = tuple(range(rank_a))
    summed = rank_a - 1
    right = [rank_a + k for k in range(rank_b)]
    right[max(rank_b - 2, 0)] = summed
    result = contraction(value, [(a, left), (b, tuple(right))], (*left[:-1], *(x for x in right if x != summed)))
    if out is not None:
        out[...] = result
        return out
    return result


@implements(np.inner)
def inner(a: Any, b: Any) -> Any:
    """The last axes of both."""
    a, b = plain_operand(a), plain_operand(b)
    rank_a, rank_b = np.ndim(raw(a)), np.ndim(raw(b))
    if rank_a == 0 or rank_b == 0:
        return np.multiply(a, b)
    left = tuple(range(rank_a))
    right = (*range(rank_a, rank_a + rank_b - 1), rank_a - 1)
    return contraction(np.inner(raw(a), raw(b)), [(a, left), (b, right)], (*left[:-1], *right[:-1]))


@implements(np.vdot)
def vdot(a: Any, b: Any) -> Any:
    """The sum of products of all elements."""
    return dot(np.ravel(plain_operand(a)), np.ravel(plain_operand(b)))


@implements(np.outer)
def outer(a: Any, b: Any, out: Any = None) -> Any:
    """All products of two flattened arrays."""
    a, b = np.ravel(plain_operand(a)), np.ravel(plain_operand(b))
    return contraction(np.outer(raw(a), raw(b)), [(a, (0,)), (b, (1,))], (0, 1))


@implements(np.tensordot)
def tensordot(a: Any, b: Any, axes: Any = 2) -> Any:
    """The sum over pairs of axes."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.tensordot(raw(a), raw(b), axes)
    rank_a, rank_b = np.ndim(raw(a)), np.ndim(raw(b))
    if isinstance(axes, (int, np.integer)):
        summed_a, summed_b = list(range(rank_a - int(axes), rank_a)), list(range(int(axes)))
    else:
        first, second = axes
        summed_a = [int(k) % rank_a for k in (first if isinstance(first, (list, tuple)) else [first])]
        summed_b = [int(k) % rank_b for k in (second if isinstance(second, (list, tuple)) else [second])]
    left = list(range(rank_a))
    right = [rank_a + k for k in range(rank_b)]
    for ka, kb in zip(summed_a, summed_b, strict=True):
        right[kb] = left[ka]
    out = [left[k] for k in range(rank_a) if k not in summed_a] + [right[k] for k in range(rank_b) if k not in summed_b]
    return contraction(value, [(a, tuple(left)), (b, tuple(right))], tuple(out))


@implements(np.einsum)
def einsum(*operands: Any, out: Any = None, optimize: Any = False, **options: Any) -> Any:
    """Einstein summation: repeated indices, ellipsis, implicit output, both ways of writing it."""
    value = np.einsum(*(raw(x) for x in operands), optimize=optimize, **options)
    if isinstance(operands[0], str):
        arrays = [plain_operand(x) for x in operands[1:]]
        arguments: list[Any] = [operands[0], *(np.shape(raw(x)) for x in arrays)]
    else:
        arrays = [plain_operand(x) for x in operands[: len(operands) // 2 * 2 : 2]]
        arguments = list(operands)
        arguments[: len(arrays) * 2 : 2] = [np.shape(raw(x)) for x in arrays]
    written = "".join(operands[0].split()) if isinstance(operands[0], str) else ""
    if "->" in written and "." not in written:
        subscripts, _, output = written.partition("->")  # NumPy has checked it
    else:
        import opt_einsum.parser  # not before it is needed: importing jacana is to be quick

        subscripts, output, _ = opt_einsum.parser.parse_einsum_input(arguments, shapes=True)
    letters: dict[str, int] = {}
    labels = [tuple(letters.setdefault(c, len(letters)) for c in part) for part in subscripts.split(",")]
    letter_of = tuple(letters[c] for c in output)
    if len(arrays) == 1 and out is None and set(labels[0]) == set(letter_of):
        # Nothing is summed: NumPy gives a view.
        places = [Affine(0, ((letter_of.index(k), 1),)) for k in labels[0]]
        return movement(arrays[0], value, lambda node: index_node(node, np.shape(value), places))
    value = np.asarray(value)[()]
    result = contraction(value, list(zip(arrays, labels, strict=True)), tuple(letters[c] for c in output))
    if out is not None:
        out[...] = result
        return out
    return result


@implements(np.kron)
def kron(a: Any, b: Any) -> Any:
    """Blocks ``a[i, j] * b``."""
    a, b = plain_operand(a), plain_operand(b)
    value = np.kron(raw(a), raw(b))
    rank = max(np.ndim(raw(a)), np.ndim(raw(b)))
    a = np.reshape(a, (1,) * (rank - np.ndim(raw(a))) + np.shape(raw(a)))
    b = np.reshape(b, (1,) * (rank - np.ndim(raw(b))) + np.shape(raw(b)))
    product = np.multiply.outer(a, b)
    node = tracked(product)
    if node is None:
        return wrap_constant(value)
    order = [k for pair in zip(range(rank), range(rank, 2 * rank), strict=True) for k in pair]
    return wrap_node(movement_reshape(transpose(node, order), value.shape), value)


def _cross_of_plane(a: Any, b: Any, axis: int) -> Any:
    """The product of vectors of which at least one has no third component."""
    third = a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
    if np.shape(raw(a))[-1] == np.shape(raw(b))[-1]:
        return third
    if np.shape(raw(a))[-1] == 2:
        parts = [a[..., 1] * b[..., 2], -a[..., 0] * b[..., 2], third]
    else:
        parts = [-a[..., 2] * b[..., 1], a[..., 2] * b[..., 0], third]
    return np.moveaxis(np.stack(parts, axis=-1), -1, axis)


@implements(np.cross)
def cross(a: Any, b: Any, axisa: int = -1, axisb: int = -1, axisc: int = -1, axis: int | None = None) -> Any:
    """Vectors of three components along the last axis, or the one named."""
    if axis is not None:
        axisa = axisb = axisc = axis
    a, b = plain_operand(a), plain_operand(b)
    value = np.cross(raw(a), raw(b), axisa, axisb, axisc)
    a, b = np.moveaxis(with_zeros(a), axisa, -1), np.moveaxis(with_zeros(b), axisb, -1)
    if 2 in (np.shape(raw(a))[-1], np.shape(raw(b))[-1]):  # in the plane: deprecated, and done by NumPy still
        result = _cross_of_plane(a, b, axisc)
    else:
        parts = [a[..., j] * b[..., k] - a[..., k] * b[..., j] for j, k in ((1, 2), (2, 0), (0, 1))]
        result = np.moveaxis(np.stack(parts, axis=-1), -1, axisc)
    node = tracked(result)
    return wrap_constant(value) if node is None else wrap_node(node, value)
