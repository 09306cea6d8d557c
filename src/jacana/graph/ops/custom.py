"""Operations that a user declares: a value, and partial derivatives or products with the Jacobian.

The declaration itself (``Rules``) belongs to the user and is compared by identity. Float arguments come packed in one
vector, so that a product with the Jacobian is one call for all of them; results are packed in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ..index import Affine, identity
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .control import INT, Slot, formed, make_body, never_formed, pack, total, unpack
from .peel import peel


class Rules(Protocol):
    """What a user declares, on arrays of the shapes of the call. The functions that are not declared are None."""

    name: str
    value: Any  # (*arrays) -> tuple of arrays
    partials: Any  # (*arrays) -> tuple of arrays or None, one for each argument
    jvp: Any  # (arrays, tangents) -> tuple of arrays
    vjp: Any  # (arrays, cotangents) -> tuple of arrays or None
    traceable: bool  # whether the derivatives are NumPy code that can be recorded in their turn

    def trace(self, which: str, call: CustomParams, nodes: Sequence[Node], extra: Sequence[Node]) -> list[Node | None]:
        """The program of a derivative, in nodes."""
        ...

    def refuse(self) -> Exception:
        """The error for a derivative that was not declared."""
        ...


class CustomParams(NamedTuple):
    """A call of a custom operation: shapes and dtypes of arguments and results.

    ``batch`` axes at the front are common to results and arguments of partials (see ``Term``).
    """

    rules: Any
    arguments: tuple[tuple[Shape, DType], ...]
    results: tuple[Shape, ...]
    dtype: DType
    batch: tuple[int, ...]

    def floats(self) -> tuple[Slot, ...]:
        """Where each float argument lies in the packed vector."""
        return _slots([(k, s) for k, (s, d) in enumerate(self.arguments) if d.kind == "f"])

    def outputs(self) -> tuple[Slot, ...]:
        """Where each result lies in the packed vector."""
        return _slots(list(enumerate(self.results)))

    def partial_slots(self) -> tuple[Slot, ...]:
        """Where the partials by each float argument lie, in the vector of all of them."""
        row = self.results[0]
        return _slots([(k, (*row, *s[self.batch[k] :])) for k, (s, d) in enumerate(self.arguments) if d.kind == "f"])


def _slots(shapes: Sequence[tuple[int, Shape]]) -> tuple[Slot, ...]:
    result = []
    offset = 0
    for k, shape in shapes:
        result.append(Slot("", k, offset, shape))
        offset += math.prod(shape)
    return tuple(result)


def _arguments(params: CustomParams, floats: Array, others: Sequence[Array]) -> list[Array]:
    """The arrays of a call, in the user's order, shapes and dtypes. They cannot be written to."""
    rest = iter(others)
    where = {s.place: s for s in params.floats()}
    result = []
    for k, (shape, dtype) in enumerate(params.arguments):
        if k in where:
            slot = where[k]
            array = floats[slot.offset : slot.offset + slot.size].reshape(shape).astype(dtype)
        else:
            array = np.array(next(rest))
        array.flags.writeable = False
        result.append(array)
    return result


def _packed(arrays: Sequence[Any], slots: Sequence[Slot], dtype: DType, rules: Any, what: str) -> Array:
    result = np.zeros(total(slots), dtype=dtype)
    for slot, array in zip(slots, arrays, strict=True):
        if array is not None:
            found = np.asarray(array)
            if found.shape != slot.shape:
                from ...errors import InvalidInputError

                raise InvalidInputError(
                    f"{rules.name}: {what} {slot.place} has shape {found.shape}, but {slot.shape} is needed"
                )
            result[slot.offset : slot.offset + slot.size] = found.ravel()
    return result


def _evaluate(params: CustomParams, floats: Array, *others: Array) -> Array:
    values = params.rules.value(*_arguments(params, floats, others))
    return _packed(values, params.outputs(), params.dtype, params.rules, "result")


def _edges(node: Node) -> Edges:
    params: CustomParams = node.params
    rules = params.rules
    others = tuple(None for _ in node.inputs[1:])
    if 0 in (node.size, node.inputs[0].size):
        return (None, *others)
    if rules.partials is not None:
        return (_partial_terms(node), *others)
    if rules.jvp is None and rules.vjp is None:
        raise rules.refuse()
    matrix = custom_matrix(*node.inputs, params=params)
    (row, col) = identity(2)
    return ((Term(matrix.shape, (row,), (col,), ((matrix, (0, 1)),)),), *others)


def _partial_terms(node: Node) -> tuple[Term, ...]:
    params: CustomParams = node.params
    row_shape = params.results[0]
    lead = len(row_shape)
    if params.rules.traceable:
        found = dict(enumerate(params.rules.trace("partials", params, arguments(node), ())))
    else:
        vector = custom_partials(*node.inputs, params=params)
        found = {s.place: unpack(vector, s) for s in params.partial_slots()}
    terms = []
    for slot in params.floats():
        partial = found.get(slot.place)
        if partial is None:
            continue
        batch = params.batch[slot.place]
        axes = identity(partial.ndim)
        col_axes = (*axes[:batch], *axes[lead:])
        factor = peel(partial, tuple(range(partial.ndim)))
        terms.append(
            Term(
                partial.shape,
                (_flat(axes[:lead], row_shape, 0),),
                (_flat(col_axes, slot.shape, slot.offset),),
                (factor,),
            )
        )
    return tuple(terms)


def _flat(axes: Sequence[Any], shape: Shape, offset: int) -> Affine:
    strides = []
    step = 1
    for e, n in zip(reversed(axes), reversed(shape), strict=True):
        strides.append((e.strides[0][0], step))
        step *= n
    return Affine(offset, tuple(sorted(strides)))


def arguments(node: Node) -> list[Node]:
    """The arguments of a call as nodes, in the user's order."""
    from ..build import cast_to

    params: CustomParams = node.params
    rest = iter(node.inputs[1:])
    where = {s.place: s for s in params.floats()}
    return [
        cast_to(unpack(node.inputs[0], where[k]), dtype) if k in where else next(rest)
        for k, (_, dtype) in enumerate(params.arguments)
    ]


custom = register(
    Operation(
        name="custom",
        family="control",
        evaluate=_evaluate,
        infer=lambda params, floats, *others: ((total(params.outputs()),), params.dtype),
        edges=_edges,
        cost=100.0,
    )
)


def _first_order_only(node: Node) -> Edges:
    raise node.params.rules.refuse()


def _partials_evaluate(params: CustomParams, floats: Array, *others: Array) -> Array:
    found = params.rules.partials(*_arguments(params, floats, others))
    chosen = [found[s.place] for s in params.partial_slots()]
    return _packed(chosen, params.partial_slots(), params.dtype, params.rules, "partial by argument")


custom_partials = register(
    Operation(
        name="custom_partials",
        family="control",
        evaluate=_partials_evaluate,
        infer=lambda params, floats, *others: ((total(params.partial_slots()),), params.dtype),
        edges=_first_order_only,
        cost=100.0,
    )
)


class ProductParams(NamedTuple):
    """A product with the Jacobian of a call; ``rules`` as in the call."""

    call: CustomParams
    transposed: bool

    @property
    def rules(self) -> Any:
        return self.call.rules


def _product_evaluate(params: ProductParams, vectors: Array, floats: Array, *others: Array) -> Array:
    """The products with each column of ``vectors`` (all axes but the first are columns)."""
    call = params.call
    arrays = _arguments(call, floats, others)
    sources, targets = call.floats(), call.outputs()
    function = call.rules.jvp
    if params.transposed:
        sources, targets, function = targets, sources, call.rules.vjp
    columns = vectors.reshape(vectors.shape[0], -1)
    result = np.empty((total(targets), columns.shape[1]), dtype=call.dtype)
    for j in range(columns.shape[1]):
        pieces = [columns[s.offset : s.offset + s.size, j].reshape(s.shape) for s in sources]
        if params.transposed:
            found = function(arrays, pieces)
            found = [found[s.place] for s in targets]
        else:
            given: list[Any] = [None] * len(arrays)
            for s, piece in zip(sources, pieces, strict=True):
                given[s.place] = piece
            found = function(arrays, given)
        result[:, j] = _packed(found, targets, call.dtype, call.rules, "cotangent" if params.transposed else "tangent")
    return result.reshape(total(targets), *vectors.shape[1:])


custom_product = register(
    Operation(
        name="custom_product",
        family="control",
        evaluate=_product_evaluate,
        infer=lambda params, vectors, *_: (
            (total(params.call.floats() if params.transposed else params.call.outputs()), *vectors.shape[1:]),
            params.call.dtype,
        ),
        edges=_first_order_only,
        cost=100.0,
    )
)


def _matrix_product(matrix: Node, array: Node, transposed: bool) -> Node:
    from ..build import constant_array, contract_labels

    params: CustomParams = matrix.params
    declared = params.rules.vjp if transposed else params.rules.jvp
    if declared is None:
        # Only the other product is declared: it gives the matrix, and the matrix gives the product.
        size = matrix.shape[1 if transposed else 0]
        eye = constant_array(np.eye(size, dtype=matrix.dtype))
        whole = _matrix_product(matrix, eye, not transposed)
        rest = tuple(range(2, 1 + array.ndim))
        sizes = (*whole.shape, *array.shape[1:])
        return contract_labels([(whole, (0, 1)), (array, (0, *rest))], sizes, (1, *rest))
    if not params.rules.traceable:
        return custom_product(array, *matrix.inputs, params=ProductParams(params, transposed))
    return _traced_product(matrix, array, transposed)


def _traced_product(matrix: Node, array: Node, transposed: bool) -> Node:
    """The declared function recorded, and run for each column in a loop."""
    from ..build import cast_to, movement_reshape, transpose
    from ..node import new_input
    from .control import loop_nodes

    params: CustomParams = matrix.params
    sources, targets = params.floats(), params.outputs()
    if transposed:
        sources, targets = targets, sources
    given = [new_input(node.shape, node.dtype) for node in matrix.inputs]
    call = custom(*given, params=params)
    size = array.shape[0]
    vector = new_input((size,), params.dtype)
    pieces = [unpack(vector, s) for s in sources]
    found = params.rules.trace("vjp" if transposed else "jvp", params, arguments(call), pieces)
    chosen = [found[s.place] for s in targets]
    parts = [(s.offset, cast_to(n, params.dtype)) for s, n in zip(targets, chosen, strict=True) if n is not None]
    result = pack(parts, total(targets), (), params.dtype)
    wide = [new_input(node.shape, node.dtype if node.dtype.kind == "f" else INT) for node in given]
    from ..node import substitute_nodes

    (result,) = substitute_nodes([result], {g: cast_to(w, g.dtype) for g, w in zip(given, wide, strict=True)})
    count = math.prod(array.shape[1:])
    columns = transpose(movement_reshape(array, (size, count)), (1, 0))
    body = make_body(new_input((), INT), [], [vector], wide, [], [result])
    outer = [cast_to(n, w.dtype) for n, w in zip(matrix.inputs, wide, strict=True)]
    rows = loop_nodes(body, count, False, [], [columns], outer).outputs[0]
    return movement_reshape(transpose(rows, (1, 0)), (total(targets), *array.shape[1:]))


def _matrix_evaluate(params: CustomParams, *arrays: Array) -> Array:
    from ..node import new_input

    leaves = [new_input(a.shape, a.dtype) for a in arrays]
    return formed(custom_matrix(*leaves, params=params), leaves, arrays)


custom_matrix = register(
    Operation(
        name="custom_matrix",
        family="matrix",
        evaluate=_matrix_evaluate,
        infer=lambda params, floats, *others: ((total(params.outputs()), floats.size), params.dtype),
        edges=never_formed,
        matrix=Matrix(lambda matrix: 1, _matrix_product, slots=lambda matrix, transposed: ()),
    )
)

__all__ = ["CustomParams", "ProductParams", "Rules", "arguments", "custom", "custom_matrix", "custom_product"]
