"""Operations that are declared: a value that NumPy need not know, with derivatives that are functions, too.

What a user declares is :func:`jacana.custom_operation`; the factors of complex matrices (``complex_factors``) are
declared in the same way.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from ..errors import DifferentiationError, InvalidInputError
from ..graph.build import cast_to
from ..graph.node import Array, Node, substitute_nodes
from ..graph.ops.control import pack, total, unpack
from ..graph.ops.custom import CustomParams, custom
from .location import user_line
from .recording import record
from .variable import Variable, as_node, raw, wrap_node

Structure = Literal["dense", "elementwise"] | int


class Operation:
    """An operation made by :func:`custom_operation`: call it on arrays, or on Variables inside a recorded function."""

    def __init__(
        self,
        value: Callable[..., Any],
        partials: Callable[..., Any] | None,
        jvp: Callable[..., Any] | None,
        vjp: Callable[..., Any] | None,
        structure: Structure | Sequence[Structure],
        traceable: bool,
        name: str | None,
    ) -> None:
        self.name = name or getattr(value, "__name__", "custom operation")
        self.function, self.structure, self.traceable = value, structure, traceable
        self.many = False
        self._partials, self._jvp, self._vjp = partials, jvp, vjp
        self._samples: dict[Any, list[Array]] = {}
        self.partials = self._called(partials)
        self.jvp = None if jvp is None else lambda arrays, tangents: _tuple(jvp(tuple(arrays), tuple(tangents)))
        self.vjp = None if vjp is None else self._pulled
        functools.update_wrapper(self, value, updated=())

    def __repr__(self) -> str:
        return f"<jacana operation {self.name}>"

    # --- what the graph asks for

    def value(self, *arrays: Array) -> tuple[Any, ...]:
        result = self.function(*arrays)
        self.many = isinstance(result, tuple)
        return _tuple(result)

    def _called(self, function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return None if function is None else lambda *arrays: _tuple(function(*arrays))

    def _pulled(self, arrays: Sequence[Array], cotangents: Sequence[Array]) -> tuple[Any, ...]:
        assert self._vjp is not None
        found = _tuple(self._vjp(tuple(arrays), tuple(cotangents) if self.many else cotangents[0]))
        if len(found) != len(arrays):
            raise InvalidInputError(
                f"{self.name}: vjp returned {len(found)} cotangents for {len(arrays)} arguments (None: zero)"
            )
        return found

    def refuse(self) -> DifferentiationError:
        """The error for a derivative that was not declared."""
        declared = self._partials or self._jvp or self._vjp
        if declared is None:
            return DifferentiationError(f"{self.name} declares no derivative; give it partials, jvp or vjp")
        return DifferentiationError(
            f"{self.name} declares first derivatives only, and a second one was asked for. If its partials, jvp and "
            f"vjp are written in NumPy (or with other custom operations), declare traceable=True"
        )

    def trace(self, which: str, call: CustomParams, nodes: Sequence[Node], extra: Sequence[Node]) -> list[Node | None]:
        """The program of a derivative over the given nodes, by recording it at the arguments of the last call."""
        arrays = self._samples[call.arguments]
        count = len(arrays)
        values = [*arrays, *(np.ones(n.shape, n.dtype) for n in extra)]

        def run(*variables: Any) -> Any:
            given, more = tuple(variables[:count]), list(variables[count:])
            if which == "partials":
                assert self._partials is not None
                return _tuple(self._partials(*given))
            if which == "vjp":
                return self._pulled(given, more)
            assert self.jvp is not None
            tangents = iter(more)
            return self.jvp(given, [next(tangents) if d.kind == "f" else None for _, d in call.arguments])

        with np.errstate(all="ignore"):
            recording = record(run, values)
        if recording.guards:
            raise DifferentiationError(f"{self.name}: its {which} branches on values, so it cannot be traceable")
        found = [None if leaf is None else as_node(leaf) for leaf in recording.result]
        mapping = dict(zip(recording.inputs, [*nodes, *extra], strict=True))
        present = [n for n in found if n is not None]
        moved = iter(substitute_nodes(present, mapping))
        return [None if n is None else next(moved) for n in found]

    # --- calls

    def __call__(self, *args: Any) -> Any:
        values = [np.asarray(raw(a)) for a in args]
        if not any(isinstance(a, Variable) and a._tracked() is not None for a in args):
            return self.function(*values)
        result = self.function(*(_frozen(v) for v in values))
        many = self.many = isinstance(result, tuple)
        results = [np.asarray(r) for r in _tuple(result)]
        for r in results:
            if r.dtype.kind != "f":
                raise InvalidInputError(
                    f"{self.name} returned {r.dtype} numbers; only floats can be results{user_line()}"
                )
        dtype = np.result_type(*(v.dtype for v in values if v.dtype.kind == "f"), *(r.dtype for r in results))
        arguments = tuple((v.shape, v.dtype) for v in values)
        self._samples[arguments] = values
        batch = tuple(self._batch(k, v, results[0]) for k, v in enumerate(values)) if self._partials else ()
        params = CustomParams(self, arguments, tuple(r.shape for r in results), dtype, batch)
        nodes = [as_node(a) for a in args]
        parts = [(s.offset, cast_to(nodes[s.place], dtype)) for s in params.floats()]
        others = [node for node in nodes if node.dtype.kind != "f"]
        packed = pack(parts, total(params.floats()), (), dtype)
        whole = custom(packed, *others, params=params)
        outputs = [
            wrap_node(cast_to(unpack(whole, slot), r.dtype), r)
            for slot, r in zip(params.outputs(), results, strict=True)
        ]
        return tuple(outputs) if many else outputs[0]

    def _batch(self, k: int, value: Array, result: Array) -> int:
        given = self.structure
        chosen = given[k] if isinstance(given, (tuple, list)) else given
        count: Any = {"dense": 0, "elementwise": result.ndim}.get(str(chosen), chosen)
        if not isinstance(count, int) or value.shape[:count] != result.shape[:count] or count > result.ndim:
            raise InvalidInputError(
                f"{self.name}: structure {chosen!r} of argument {k} needs {count} first axes shared with the result; "
                f"the shapes are {value.shape} and {result.shape}{user_line()}"
            )
        if chosen == "elementwise" and value.shape != result.shape:
            raise InvalidInputError(
                f"{self.name}: argument {k} is declared elementwise, but has shape {value.shape} and the result "
                f"{result.shape}{user_line()}"
            )
        return count


def _tuple(result: Any) -> tuple[Any, ...]:
    return result if isinstance(result, tuple) else (result,)


def _frozen(array: Array) -> Array:
    view = array.view()
    view.flags.writeable = False
    return view
