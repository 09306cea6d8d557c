"""Discrete Fourier, cosine and sine transforms of the last axis.

The graph is real, so a complex array is two: a transform with a complex result has its parts in one more axis, the
last. Each transform is a linear map whose matrix has cosines or sines for entries, and that is its edge: a term
with one such matrix as its factor. The matrix multiplies by a transform (``Matrix`` in ``graph/node.py``), so that
a derivative costs O(n log n) in either direction and the matrix is formed only where its entries are asked for.

With ``w = exp(-2 pi i / n)`` and C, S the matrices of ``cos(2 pi k j / n)`` and ``sin(2 pi k j / n)``, the transform of
``a + i b`` is ``(C a + S b) + i (C b - S a)``; the inverse has the other sign of S. Definitions of the cosine and sine
transforms: those of ``scipy.fft``, without normalisation; Makhoul, "A fast cosine transform in one and two
dimensions" (1980).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, Index, identity
from ..node import Array, DType, Edges, Factor, Matrix, Node, Operation, Shape, Term, register

# --- matrices of cosines and sines --------------------------------------------------------------------------------


class WaveParams(NamedTuple):
    """``scale * cos(2 pi k j / size)`` (or the sine) for ``k < rows``, ``j < cols``; rows and cols at most ``size``."""

    sine: bool
    rows: int
    cols: int
    size: int
    scale: float
    dtype: DType


def _waves_evaluate(params: WaveParams) -> Array:
    # The transform of a shifted impulse is the table of all roots of unity, as exact as the transform itself.
    impulse = np.zeros(params.size)
    impulse[1 % params.size] = 1.0
    roots = np.fft.fft(impulse)
    table = params.scale * (-roots.imag if params.sine else roots.real)
    places = np.multiply.outer(np.arange(params.rows), np.arange(params.cols)) % params.size
    return np.asarray(table[places], dtype=params.dtype)


def _waves_product(matrix: Node, array: Node, transposed: bool) -> Node:
    # The matrix is symmetric but for its lengths: pad to the whole period, transform, keep what is asked for.
    from ..build import index_node

    params = matrix.params
    length = params.cols if transposed else params.rows
    moved = _padded(_last(array), params.size)
    half = length <= params.size // 2 + 1
    found = (rfft if half else fft)(moved, params=FourierParams(params.size, "backward", False))
    every = identity(array.ndim)
    rest = tuple(every[k] for k in range(1, array.ndim))
    part = index_node(found, (length, *array.shape[1:]), (*rest, every[0], Affine(int(params.sine))))
    scale = -params.scale if params.sine else params.scale
    return part if scale == 1.0 else part * scale


def _last(array: Node) -> Node:
    """The first axis moved to the end."""
    from ..build import transpose

    return transpose(array, (*range(1, array.ndim), 0))


def _first(array: Node) -> Node:
    """The last axis moved to the front."""
    from ..build import transpose

    return transpose(array, (array.ndim - 1, *range(array.ndim - 1)))


def _padded(array: Node, length: int) -> Node:
    """Zeros at the end of the last axis."""
    from ..build import assembled

    if array.shape[-1] == length:
        return array
    return assembled([(array, identity(array.ndim))], (*array.shape[:-1], length), array.dtype, disjoint=True)


def _matrix_infer(params: Any) -> tuple[Shape, DType]:
    return (params.rows, params.cols), params.dtype


def _no_edges(node: Node) -> Edges:
    return ()


waves = register(
    Operation(
        name="waves",
        family="matrix",
        evaluate=_waves_evaluate,
        infer=_matrix_infer,
        edges=_no_edges,
        matrix=Matrix(lambda matrix: 1, _waves_product),
    )
)

# --- Fourier transforms -------------------------------------------------------------------------------------------


class FourierParams(NamedTuple):
    """The length of the period, ``norm`` in NumPy's words, and whether the exponent is positive."""

    size: int
    norm: str
    inverse: bool

    def batched(self) -> FourierParams:
        """The same of each sample, with a batch axis in front."""
        return self


def _scale(params: FourierParams) -> float:
    if params.norm == "ortho":
        return float(1.0 / np.sqrt(params.size))
    return 1.0 / params.size if (params.norm == "backward") == params.inverse else 1.0


def combined(real: Array, imag: Array) -> Array:
    """One complex array from its parts; nothing is computed, so infinities and signed zeros stay what they are."""
    z = np.empty(np.broadcast_shapes(np.shape(real), np.shape(imag)), np.result_type(real, imag, np.complex64))
    z.real, z.imag = real, imag
    return z


def parted(z: Any) -> Array:
    """The parts of a complex array in a last axis."""
    return np.asarray(np.array(z, order="C", ndmin=1).view(z.real.dtype).reshape(*np.shape(z), 2))


def _fft_evaluate(params: FourierParams, *parts: Array) -> Array:
    z = parts[0] if len(parts) == 1 else combined(*parts)
    transform = np.fft.ifft if params.inverse else np.fft.fft
    return parted(transform(z, norm=params.norm))  # type: ignore[arg-type]


def _fft_infer(params: FourierParams, *parts: Node) -> tuple[Shape, DType]:
    assert all(x.shape == parts[0].shape and x.dtype == parts[0].dtype for x in parts), parts
    assert parts[0].shape[-1] == params.size, (parts, params)
    return (*parts[0].shape, 2), parts[0].dtype


def _terms(node: Node, source: Node, entries: Any) -> tuple[Term, ...]:
    """One term for each ``(part, factors)``: the transformed axes by a matrix, all others a batch.

    ``factors`` are given over ``(row, column)`` = (0, 1).
    """
    batch = source.ndim - 1
    every = identity(batch + 2)
    domain = (*source.shape[:-1], node.shape[batch], source.shape[-1])
    row, col = (*every[:batch], every[batch]), (*every[:batch], every[batch + 1])

    def placed(factors: Any) -> tuple[Factor, ...]:
        return tuple((factor, tuple(batch + a for a in axes)) for factor, axes in factors)

    return tuple(Term(domain, (*row, *part), col, placed(factors)) for part, factors in entries)


def _wave(node: Node, source: Node, sine: bool, scale: float, size: int) -> tuple[tuple[Node, tuple[int, ...]], ...]:
    params = WaveParams(sine, node.shape[source.ndim - 1], source.shape[-1], size, scale, node.dtype)
    return ((waves(params=params), (0, 1)),)


_REAL: tuple[Index, ...] = (Affine(0),)
_IMAG: tuple[Index, ...] = (Affine(1),)


def _fft_edges(node: Node) -> Edges:
    size, scale = node.params.size, _scale(node.params)
    turn = -scale if node.params.inverse else scale
    result = []
    for k, source in enumerate(node.inputs):
        same, other = (_REAL, _IMAG) if k == 0 else (_IMAG, _REAL)
        cosine = _wave(node, source, False, scale, size)
        sine = _wave(node, source, True, -turn if k == 0 else turn, size)
        result.append(_terms(node, source, ((same, cosine), (other, sine))))
    return tuple(result)


def _rfft_evaluate(params: FourierParams, x: Array) -> Array:
    return parted(np.fft.rfft(x, norm=params.norm))  # type: ignore[arg-type]


def _rfft_infer(params: FourierParams, x: Node) -> tuple[Shape, DType]:
    assert x.shape[-1] == params.size, (x, params)
    return (*x.shape[:-1], params.size // 2 + 1, 2), x.dtype


def _irfft_evaluate(params: FourierParams, real: Array, imag: Array) -> Array:
    return np.asarray(np.fft.irfft(combined(real, imag), params.size, norm=params.norm))  # type: ignore[arg-type]


def _irfft_infer(params: FourierParams, real: Node, imag: Node) -> tuple[Shape, DType]:
    assert real.shape == imag.shape and real.dtype == imag.dtype, (real, imag)
    assert real.shape[-1] == params.size // 2 + 1, (real, params)
    return (*real.shape[:-1], params.size), real.dtype


def _irfft_edges(node: Node) -> Edges:
    # Half of a spectrum stands for all of it: what is between the ends counts twice.
    from ..build import constant_array

    size, scale = node.params.size, _scale(node.params)
    count = np.full(size // 2 + 1, 2.0)
    count[0] = 1.0
    if size % 2 == 0:
        count[-1] = 1.0
    times = (constant_array(count.astype(node.dtype)), (1,))
    real, imag = node.inputs
    cosine = (*_wave(node, real, False, scale, size), times)
    sine = (*_wave(node, imag, True, -scale, size), times)
    return _terms(node, real, (((), cosine),)), _terms(node, imag, (((), sine),))


def _transform(name: str, evaluate: Callable[..., Array], infer: Any, edges: Callable[[Node], Edges]) -> Operation:
    return register(Operation(name=name, family="fourier", evaluate=evaluate, infer=infer, edges=edges, cost=40.0))


fft = _transform("fft", _fft_evaluate, _fft_infer, _fft_edges)
rfft = _transform("rfft", _rfft_evaluate, _rfft_infer, _fft_edges)
irfft = _transform("irfft", _irfft_evaluate, _irfft_infer, _irfft_edges)

# --- cosine and sine transforms -----------------------------------------------------------------------------------


class TrigonometricParams(NamedTuple):
    """Which transform of ``scipy.fft``: ``"dct"`` or ``"dst"``, and its type from 1 to 4."""

    name: str
    type: int

    def batched(self) -> TrigonometricParams:
        """The same of each sample, with a batch axis in front."""
        return self


class TrigonometricMatrixParams(NamedTuple):
    """The matrix of one of them."""

    name: str
    type: int
    rows: int
    cols: int
    dtype: DType


def _trigonometric_evaluate(params: TrigonometricParams, x: Array) -> Array:
    import scipy.fft  # only by who uses it

    if x.size == 0:
        return x.copy()
    return np.asarray(getattr(scipy.fft, params.name)(x, type=params.type))


def _trigonometric_matrix(params: TrigonometricMatrixParams) -> Array:
    columns = _trigonometric_evaluate(TrigonometricParams(params.name, params.type), np.eye(params.rows))
    return np.ascontiguousarray(columns.T, dtype=params.dtype)


def _end_weights(params: TrigonometricMatrixParams) -> Array:
    """How often the definition counts each input, by half: the matrix is these times one that transposes well."""
    weights = np.ones(params.cols)
    match params.name, params.type:
        case "dct", 1:
            weights[[0, -1]] = 0.5
        case "dct", 3:
            weights[0] = 0.5
        case "dst", 3:
            weights[-1] = 0.5
    return weights


def _trigonometric_product(matrix: Node, array: Node, transposed: bool) -> Node:
    params = matrix.params
    plain = TrigonometricParams(params.name, params.type)
    if not transposed:
        return _first(trigonometric(_last(array), params=plain))
    # T = K diag(w) with K symmetric (types 1, 4) or the transpose of type 2 (type 3), and the other way round.
    turned = params._replace(type={1: 1, 2: 3, 3: 2, 4: 4}[params.type])
    inner, outer = 1.0 / _end_weights(turned), _end_weights(params)
    moved = _weighted(_last(array), inner)
    return _first(_weighted(trigonometric(moved, params=TrigonometricParams(turned.name, turned.type)), outer))


def _weighted(array: Node, weights: Array) -> Node:
    from ..build import broadcast_axes, constant_array

    if (weights == 1.0).all():
        return array
    return array * broadcast_axes(constant_array(weights.astype(array.dtype)), array.shape, (array.ndim - 1,))


trigonometric_matrix = register(
    Operation(
        name="trigonometric_matrix",
        family="matrix",
        evaluate=_trigonometric_matrix,
        infer=_matrix_infer,
        edges=_no_edges,
        matrix=Matrix(lambda matrix: 1, _trigonometric_product),
    )
)


def _trigonometric_edges(node: Node) -> Edges:
    (x,) = node.inputs
    size = x.shape[-1]
    params = TrigonometricMatrixParams(node.params.name, node.params.type, size, size, x.dtype)
    return (_terms(node, x, (((), ((trigonometric_matrix(params=params), (0, 1)),)),)),)


trigonometric = _transform(
    "trigonometric", _trigonometric_evaluate, lambda params, x: (x.shape, x.dtype), _trigonometric_edges
)
