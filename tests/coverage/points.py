"""Where the calls are made, and what their derivatives are compared with."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

POINTS: dict[str, Array] = {
    "x": np.array([0.31, 0.72, 0.13, 0.88, 0.54]),
    "y": np.array([0.47, 0.22, 0.93, 0.35, 0.69]),
    "s": np.array(0.64),
    "A": np.array([[0.41, 0.87, 0.25], [0.73, 0.19, 0.58]]),
    "T": np.array([[1.1, 0.3], [-0.4, 0.9], [0.6, -0.2], [0.2, 0.7]]),
    "G": np.array([[2.1, 0.3, -0.4], [0.5, 3.2, 0.6], [-0.2, 0.9, 1.4]]),
    "S": np.array([[2.6, 0.4, -0.3], [0.4, 1.7, 0.5], [-0.3, 0.5, 3.3]]),
}


def names_of(call: str) -> list[str]:
    """The points that a call uses."""
    words = set(re.findall(r"(?<![\w.'\"])[A-Za-z]\w*(?!['\"])", call))
    bound = {w for part in re.findall(r"lambda ([^:]*):", call) for w in part.replace(",", " ").split()}
    return [name for name in POINTS if name in words - bound]


def turned_around(call: str) -> Array:
    """Another point of the same numbers: the vectors from back to front."""
    parts = [POINTS[n][::-1] if POINTS[n].ndim == 1 else POINTS[n] for n in names_of(call)]
    return np.concatenate([p.ravel() for p in parts])


def floats(result: Any) -> Any:
    """All numbers of a result in one vector: real parts before imaginary parts."""
    parts = [np.zeros(0)]
    pending = [result]
    while pending:
        value = pending.pop(0)
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            pending[:0] = value
        elif value is None or isinstance(value, str):
            pass
        elif np.iscomplexobj(value):
            parts += [np.ravel(np.real(value)), np.ravel(np.imag(value))]
        else:
            parts.append(np.ravel(value) * 1.0)
    return np.concatenate(parts)


def function_of(call: str, setup: str = "") -> tuple[Callable[..., Any], Array]:
    """The call as a function of one vector, and the vector."""
    names = names_of(call)
    *statements, expression = [part.strip() for part in call.split(";")]
    lines = [f"def call({', '.join(names)}):", *(f"    {s}" for s in statements), f"    return {expression}"]
    space: dict[str, Any] = {"np": np}
    exec(setup, space)
    exec(compile("\n".join(lines), f"<{call}>", "exec"), space)
    program = space["call"]
    shapes = [POINTS[n].shape for n in names]
    ends = np.cumsum([POINTS[n].size for n in names])

    def function(v: Any) -> Any:
        pieces = [v[e - int(np.prod(s)) : e].reshape(s) for e, s in zip(ends, shapes, strict=True)]
        return floats(program(*pieces))

    return function, np.concatenate([POINTS[n].ravel() for n in names])


def differences(function: Callable[[Array], Array], v: Array, step: float = 1e-3) -> Array:
    """The Jacobian to the sixth order of the step."""
    columns = []
    for k in range(v.size):
        e = np.zeros_like(v)
        e[k] = step
        total = sum(w * (function(v + m * e) - function(v - m * e)) for m, w in ((1, 45), (2, -9), (3, 1)))
        columns.append(total / (60 * step))
    return np.stack(columns, axis=-1)
