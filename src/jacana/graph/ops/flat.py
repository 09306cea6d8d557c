"""Elementwise functions of NumPy that are no arithmetic: the bits of integers, the parts of a float, its neighbours.

Their derivative is zero wherever there is one, but for the two that only move the exponent or the last bit. They have
no machine code; NumPy computes them between kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..node import UNIT, DType, Node, Operation, Partial, Shape, register
from .elementwise import _edges, number

FLAT: dict[str, Operation] = {}


def _none(*nodes: Node) -> Sequence[Partial]:
    return (None,) * (len(nodes) - 1)


def _flat(
    name: str, ufunc: np.ufunc, partials: Callable[..., Sequence[Partial]] = _none, output: int | None = None
) -> Operation:  # fmt: skip
    def infer(params: Any, *nodes: Node) -> tuple[Shape, DType]:
        assert all(node.shape == nodes[0].shape for node in nodes), nodes
        kinds = ufunc.resolve_dtypes((*(node.dtype for node in nodes), *(None,) * ufunc.nout))
        return nodes[0].shape, kinds[ufunc.nin + (output or 0)]

    def evaluate(params: Any, *arrays: Any) -> Any:
        result = ufunc(*arrays)
        return result if output is None else result[output]

    FLAT[name] = register(
        Operation(name=name, family="special", evaluate=evaluate, infer=infer, edges=_edges(partials), smooth=False)
    )
    return FLAT[name]


for _ufunc in (
    np.bitwise_and, np.bitwise_or, np.bitwise_xor, np.invert, np.left_shift, np.right_shift, np.gcd, np.lcm, np.signbit,
    np.spacing, *([np.bitwise_count] if hasattr(np, "bitwise_count") else []),
):  # fmt: skip
    _flat(_ufunc.__name__, _ufunc)

exponent = _flat("exponent", np.frexp, output=1)
ldexp: Operation = _flat("ldexp", np.ldexp, lambda x, k, y: (ldexp(number(1.0, x), k), None))
nextafter = _flat("nextafter", np.nextafter, lambda x, towards, y: (UNIT, None))


def _itself(params: Any, x: Node) -> tuple[Shape, DType]:
    return x.shape, x.dtype


def _below_evaluate(params: Any, a: Any, top: Any) -> Any:
    with np.errstate(invalid="ignore"):
        return np.where(a == top, a.dtype.type(0), a - top)


# What a number lacks to a largest one, which counts as constant; nothing if it is the largest itself, infinite or not.
below = register(
    Operation(
        name="below",
        family="special",
        evaluate=_below_evaluate,
        infer=lambda params, a, top: (a.shape, a.dtype),
        edges=_edges(lambda a, top, y: (UNIT, None)),
        smooth=False,
    )
)

# The number without its derivative, for what a formula only needs to keep numbers in range.
detached = register(
    Operation(
        name="detached",
        family="special",
        evaluate=lambda params, x: x,
        infer=_itself,
        edges=lambda node: (None,),
        smooth=False,
    )
)

__all__ = ["FLAT", "below", "detached", "exponent", "ldexp", "nextafter"]
