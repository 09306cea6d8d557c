"""Recording the ufuncs of ``scipy.special``; imported when the first of them is met."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.ops import complex_special, special_families, special_several
from ..graph.ops.special import SPECIAL, Special
from .complex_arithmetic import enter_record
from .lift import any_tracked, array_of, operand, plain_operand
from .location import unsupported
from .table import UFUNCS
from .variable import raw_deep, tracked, wrap_constant, wrap_node


def _handler(known: Special) -> Callable[..., Any]:
    ufunc, name = known.ufunc, known.ufunc.__name__

    def handler(*inputs: Any) -> Any:
        operands = [plain_operand(x) for x in inputs]
        numbers = [raw_deep(x) for x in operands]
        value = ufunc(*numbers)
        if not any_tracked(operands):
            return wrap_constant(value)
        for k in known.fixed:
            if tracked(operands[k]) is not None and (array_of(operands[k]).dtype.kind == "f" or k in known.integers):
                raise unsupported(
                    f"scipy.special.{name} by its argument {k}",
                    f"That argument must not depend on what is differentiated by; all others of {name} may.",
                )
        shape = np.shape(value)
        nodes = []
        for k, x in enumerate(operands):
            kind = array_of(x).dtype
            keep = k in known.integers and kind.kind in "iu"
            nodes.append(operand(x, shape, np.dtype(np.int64) if keep else np.asarray(value).dtype))
        return wrap_node(known.operation(*nodes), value)

    return handler


for _ufunc, _known in SPECIAL.items():
    if isinstance(_ufunc, np.ufunc):
        UFUNCS.setdefault(_ufunc, _handler(_known))


def _several(ufunc: np.ufunc, operations: tuple[Any, ...], fixed: tuple[int, ...]) -> Callable[..., Any]:
    def handler(*inputs: Any) -> Any:
        operands = [plain_operand(x) for x in inputs]
        values = ufunc(*(raw_deep(x) for x in operands))
        if not any_tracked(operands):
            return tuple(wrap_constant(v) for v in values)
        for k in fixed:
            if tracked(operands[k]) is not None:
                raise unsupported(
                    f"scipy.special.{ufunc.__name__} by its argument {k}",
                    f"That argument must not depend on what is differentiated by; all others of {ufunc.__name__} may.",
                )
        nodes = [operand(x, np.shape(values[0]), np.asarray(values[0]).dtype) for x in operands]
        return tuple(wrap_node(op(*nodes), v) for op, v in zip(operations, values, strict=True))

    return handler


for _ufunc, _known_several in special_several.SEVERAL.items():
    UFUNCS.setdefault(_ufunc, _several(_ufunc, _known_several.operations, _known_several.fixed))

for _ufunc, _operation in complex_special.RECORDS.items():
    of_complex = enter_record(_ufunc, _operation)
    if all(kinds[0] in "FDG" for kinds in _ufunc.types):
        UFUNCS.setdefault(_ufunc, of_complex)  # of real numbers it is complex, too

__all__ = ["special_families"]
