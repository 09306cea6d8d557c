"""Sums of products over labelled axes: ``sum``, ``matmul``, ``dot``, ``outer``, ``einsum`` and every contraction
that the composition of Jacobian terms asks for are the one operation ``contract``."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from ..index import identity
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, register
from .peel import peel


class ContractParams(NamedTuple):
    """``result[out] = sum over the other labels of prod_k input_k[labels[k]]``; ``sizes`` by label 0, 1, 2, ...

    A label occurs at most once in each input and in ``out``; every label of ``out`` occurs in some input.
    """

    sizes: tuple[int, ...]
    labels: tuple[tuple[int, ...], ...]
    out: tuple[int, ...]


def _infer(params: ContractParams, *inputs: Node) -> tuple[Shape, DType]:
    for node, labels in zip(inputs, params.labels, strict=True):
        assert node.shape == tuple(params.sizes[a] for a in labels), (node, params)
        assert node.dtype == inputs[0].dtype, inputs
    return tuple(params.sizes[a] for a in params.out), inputs[0].dtype


@lru_cache(maxsize=4096)
def pair_step(params: ContractParams) -> Callable[[Array, Array], Array]:
    """Two factors by the matrix product (BLAS): labels split into batch, left, right and summed, once."""
    la, lb, out = params.labels[0], params.labels[1], params.out
    # A label that only one factor has and that is not in the result is summed before the product.
    early_a = tuple(k for k, x in enumerate(la) if x not in lb and x not in out)
    early_b = tuple(k for k, x in enumerate(lb) if x not in la and x not in out)
    la = tuple(x for k, x in enumerate(la) if k not in early_a)
    lb = tuple(x for k, x in enumerate(lb) if k not in early_b)
    batch = [x for x in la if x in lb and x in out]
    summed = [x for x in la if x in lb and x not in out]
    only_a = [x for x in la if x not in lb]
    only_b = [x for x in lb if x not in la]

    def sizes(labels: list[int]) -> list[int]:
        return [params.sizes[x] for x in labels]

    order_a = [la.index(x) for x in (*batch, *only_a, *summed)]
    order_b = [lb.index(x) for x in (*batch, *summed, *only_b)]
    current = (*batch, *only_a, *only_b)
    order = [current.index(x) for x in out]
    whole = sizes([*current])
    if summed:
        shape_a = [*sizes(batch), math.prod(sizes(only_a)), math.prod(sizes(summed))]
        shape_b = [*sizes(batch), math.prod(sizes(summed)), math.prod(sizes(only_b))]
    else:
        shape_a = [*sizes(batch), *sizes(only_a), *([1] * len(only_b))]
        shape_b = [*sizes(batch), *([1] * len(only_a)), *sizes(only_b)]
    join = np.matmul if summed else np.multiply

    def step(a: Array, b: Array) -> Array:
        if early_a:
            a = np.add.reduce(a, axis=early_a, dtype=a.dtype)
        if early_b:
            b = np.add.reduce(b, axis=early_b, dtype=b.dtype)
        result = join(a.transpose(order_a).reshape(shape_a), b.transpose(order_b).reshape(shape_b))
        return np.asarray(result).reshape(whole).transpose(order)

    return step


def _evaluate(params: ContractParams, *arrays: Array) -> Array:
    if len(arrays) == 1:
        (labels,) = params.labels
        summed = tuple(k for k, x in enumerate(labels) if x not in params.out)
        left = [x for x in labels if x in params.out]
        total = np.add.reduce(arrays[0], axis=summed, dtype=arrays[0].dtype) if summed else arrays[0]
        return np.asarray(total).transpose([left.index(x) for x in params.out])
    return pair_step(params)(*arrays)


def _edges(node: Node) -> Edges:
    # One axis of the domain for each label: row by the labels of the result, column by those of the input; the
    # other inputs are the coefficient. A label in neither is contracted when the term is composed or stored.
    params = node.params
    everything = identity(len(params.sizes))
    row = tuple(everything[a] for a in params.out)
    result = []
    for k, labels in enumerate(params.labels):
        factors = tuple(peel(other, params.labels[j]) for j, other in enumerate(node.inputs) if j != k)
        result.append((Term(params.sizes, row, tuple(everything[a] for a in labels), factors),))
    return tuple(result)


contract = register(
    Operation(
        name="contract",
        family="contraction",
        evaluate=_evaluate,
        infer=_infer,
        edges=_edges,
        cost=2,
    )
)
