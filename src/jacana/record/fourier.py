"""``numpy.fft`` and ``scipy.fft``: every transform is a record along one axis, with movement before and after it."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..graph.build import broadcast_axes, constant_array, index_node, transpose, zeros
from ..graph.index import identity
from ..graph.node import Node
from ..graph.ops import fourier as records
from ..graph.ops.complex import part
from ..graph.ops.fourier import FourierParams, TrigonometricParams
from .complex import depends, part_nodes, plain, real_dtype, wrap_parts
from .composed import as_numpy
from .lift import any_tracked, axis_in, plain_operand
from .location import unsupported
from .table import COMPLEX_FUNCTIONS, FUNCTIONS, is_complex
from .variable import contains_variable, raw_deep, wrap_constant, wrap_node

_SWAPPED = {None: "forward", "backward": "forward", "ortho": "ortho", "forward": "backward"}


def _to_end(node: Node, along: int) -> Node:
    return transpose(node, (*(k for k in range(node.ndim) if k != along), along))


def _from_end(node: Node, along: int) -> Node:
    order = [*range(node.ndim - 1)]
    order.insert(along, node.ndim - 1)
    return transpose(node, order)


def _resized(node: Node, length: int) -> Node:
    """The last axis cut to a length, or with zeros at its end."""
    from ..graph.build import assembled

    have = node.shape[-1]
    shape = (*node.shape[:-1], length)
    if length < have:
        return index_node(node, shape, identity(node.ndim))
    if not node.size:
        return zeros(shape, node.dtype)
    return assembled([(node, identity(node.ndim))], shape, node.dtype, disjoint=True)


def _one_axis(
    function: Callable[..., Any], record: Callable[..., Node], inverse: bool, *, half: bool = False
) -> Callable[..., Any]:
    """The handler of a transform along one axis. ``half``: its argument is half of a Hermitian spectrum."""

    def handler(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
        if out is not None:
            raise unsupported(f"numpy.fft.{function.__name__}(..., out=...)", "Use what the function returns.")
        a = plain_operand(a)
        value = function(plain(a), n, axis, norm)
        if not depends(a):
            return wrap_constant(value)
        shape = np.shape(plain(a))
        along = axis_in(axis, len(shape))
        size = value.shape[along] if half else shape[along] if n is None else int(n)
        dtype = real_dtype(value.dtype)
        re, im = part_nodes(a, shape, dtype)
        parts = [re] if im is None and not half else [re, zeros(shape, dtype) if im is None else im]
        given = [_resized(_to_end(x, along), size // 2 + 1 if half else size) for x in parts]
        found = record(*given, params=FourierParams(size, norm or "backward", inverse))
        if half:
            return wrap_node(_from_end(found, along), value)
        return wrap_parts(value, *(_from_end(part(found, k), along) for k in (0, 1)))

    return handler


_fft = _one_axis(np.fft.fft, records.fft, False)
_ifft = _one_axis(np.fft.ifft, records.fft, True)
_rfft = _one_axis(np.fft.rfft, records.rfft, False)
_irfft = _one_axis(np.fft.irfft, records.irfft, True, half=True)


def _real_only(name: str, a: Any) -> Any:
    a = plain_operand(a)
    if is_complex(a):
        raise TypeError(f"{name} transforms real numbers, not complex ones")
    return a


def rfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """Half of the transform of real numbers."""
    return _rfft(_real_only("rfft", a), n, axis, norm, out)


def hfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The real transform of half of a Hermitian signal."""
    if n is None:
        n = 2 * (np.shape(plain(a))[axis] - 1)
    return _irfft(np.conjugate(plain_operand(a)), n, axis, _swapped(norm), out)


def ihfft(a: Any, n: Any = None, axis: int = -1, norm: Any = None, out: Any = None) -> Any:
    """The inverse of ``hfft``."""
    return np.conjugate(rfft(a, n, axis, _swapped(norm), out))


def _swapped(norm: Any) -> str:
    if norm not in _SWAPPED:
        raise ValueError(f'Invalid norm value {norm}; should be "backward", "ortho" or "forward".')
    return _SWAPPED[norm]


# --- several axes -----------------------------------------------------------------------------------------------------


def _plan(a: Any, s: Any, axes: Any, real_result: bool = False) -> list[tuple[int, int | None]]:
    """Pairs of an axis and its length (None: as it is), in the order in which they were named."""
    rank = np.ndim(plain(a))
    if axes is None:
        axes = range(rank) if s is None else range(rank - len(s), rank)
    axes = [axis_in(k, rank) for k in axes]
    shape = np.shape(plain(a))
    lengths: list[int | None] = [None] * len(axes) if s is None else [None if n == -1 else int(n) for n in s]
    if len(lengths) != len(axes):
        raise ValueError("Shape and axes have different lengths.")
    if real_result and axes and s is None:
        lengths[-1] = 2 * (shape[axes[-1]] - 1)
    elif real_result and axes and lengths[-1] is None:
        lengths[-1] = shape[axes[-1]]
    return list(zip(axes, lengths, strict=True))


def _along(transform: Callable[..., Any], a: Any, plan: Sequence[tuple[int, int | None]], norm: Any) -> Any:
    """One transform along each axis, the last one first, as NumPy does."""
    for along, length in reversed(plan):
        a = transform(a, length, along, norm)
    return a


def fftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Transforms along several axes."""
    return _along(_fft, _complex(a), _plan(a, s, axes), _no_out(norm, out))


def ifftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Inverse transforms along several axes."""
    return _along(_ifft, _complex(a), _plan(a, s, axes), _no_out(norm, out))


def rfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """The real transform along the last of the axes, then the others."""
    plan = _plan(a, s, axes)
    half = rfft(a, plan[-1][1], plan[-1][0], _no_out(norm, out))
    return _along(_fft, half, plan[:-1], norm)


def irfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    """Inverse transforms along the axes, the last of them with a real result."""
    plan = _plan(a, s, axes, real_result=True)
    for along, length in plan[:-1]:
        a = _ifft(a, length, along, _no_out(norm, out))
    return _irfft(a, plan[-1][1], plan[-1][0], _no_out(norm, out))


def _complex(a: Any) -> Any:
    a = plain_operand(a)
    return a if is_complex(a) else np.astype(a, np.result_type(plain(a), np.complex64))


def _no_out(norm: Any, out: Any) -> Any:
    if out is not None:
        raise unsupported("numpy.fft with out=", "Use what the function returns.")
    return norm


def _two_axes(transform: Callable[..., Any]) -> Callable[..., Any]:
    def handler(a: Any, s: Any = None, axes: Any = (-2, -1), norm: Any = None, out: Any = None) -> Any:
        return transform(a, s, axes, norm, out)

    return handler


def _hfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    return irfftn(np.conjugate(plain_operand(a)), s, axes, _swapped(norm), out)


def _ihfftn(a: Any, s: Any = None, axes: Any = None, norm: Any = None, out: Any = None) -> Any:
    return np.conjugate(rfftn(a, s, axes, _swapped(norm), out))


def _shift(sign: int) -> Callable[..., Any]:
    def handler(x: Any, axes: Any = None) -> Any:
        shape = np.shape(plain(x))
        axes = tuple(range(len(shape))) if axes is None else (axes,) if isinstance(axes, int) else tuple(axes)
        by = [shape[k] // 2 if sign > 0 else -(shape[k] // 2) for k in axes]
        return np.roll(x, by, axes) if axes else np.copy(x)

    return handler


_HANDLERS: dict[str, Callable[..., Any]] = {
    "fft": _fft, "ifft": _ifft, "rfft": rfft, "irfft": _irfft, "hfft": hfft, "ihfft": ihfft, "fftn": fftn,
    "ifftn": ifftn, "rfftn": rfftn, "irfftn": irfftn, "fft2": _two_axes(fftn), "ifft2": _two_axes(ifftn),
    "rfft2": _two_axes(rfftn), "irfft2": _two_axes(irfftn), "fftshift": _shift(1), "ifftshift": _shift(-1),
}  # fmt: skip
for _name, _handler in _HANDLERS.items():
    FUNCTIONS[getattr(np.fft, _name)] = COMPLEX_FUNCTIONS[getattr(np.fft, _name)] = _handler

# --- scipy.fft ------------------------------------------------------------------------------------------------------


def _scaled_by(node: Node, weights: Any) -> Node:
    return node * broadcast_axes(constant_array(weights.astype(node.dtype)), node.shape, (node.ndim - 1,))


def _trigonometric(name: str, inverse: bool) -> Callable[..., Any]:
    """``dct``, ``dst`` and their inverses along one axis: the transform without norm between two rows of weights."""
    family = name.removeprefix("i")

    def handler(
        x: Any, type: int = 2, n: Any = None, axis: int = -1, norm: Any = None, overwrite_x: bool = False,
        workers: Any = None, orthogonalize: Any = None,
    ) -> Any:  # fmt: skip
        import scipy.fft

        x = plain_operand(x)
        if is_complex(x):
            halves = (handler(h, type, n, axis, norm, orthogonalize=orthogonalize) for h in (np.real(x), np.imag(x)))
            re, im = halves
            return re + 1j * im
        value = getattr(scipy.fft, name)(plain(x), type, n, axis, norm, orthogonalize=orthogonalize)
        if not depends(x):
            return wrap_constant(value)
        shape = np.shape(plain(x))
        along = axis_in(axis, len(shape))
        size = value.shape[along]
        (node, _) = part_nodes(x, shape, value.dtype)
        given = _resized(_to_end(node, along), size)
        kind = {1: 1, 2: 3, 3: 2, 4: 4}[type] if inverse else type
        before, after = _weights(family, kind, inverse, norm or "backward", orthogonalize, size)
        if before is not None:
            given = _scaled_by(given, before)
        found = records.trigonometric(given, params=TrigonometricParams(family, kind))
        if after is not None:
            found = _scaled_by(found, after)
        return wrap_node(_from_end(found, along), value)

    return handler


def _weights(
    family: str, kind: int, inverse: bool, norm: str, orthogonalize: Any, size: int
) -> tuple[Any | None, Any | None]:
    """What SciPy multiplies by before and after the plain transform."""
    period = 2.0 * (size + {("dct", 1): -1, ("dst", 1): 1}.get((family, kind), 0))
    scale = 1.0 / np.sqrt(period) if norm == "ortho" else 1.0 / period if (norm == "backward") == inverse else 1.0
    before, after = np.ones(size), np.full(size, scale)
    if orthogonalize if orthogonalize is not None else norm == "ortho":
        root, last = np.sqrt(2.0), -1 if family == "dst" else 0
        match family, kind:
            case "dct", 1:
                before[[0, -1]] *= root
                after[[0, -1]] /= root
            case _, 2:
                after[last] /= root
            case _, 3:
                before[last] *= root
    return (None if (before == 1.0).all() else before), (None if (after == 1.0).all() else after)


def _several(transform: Callable[..., Any]) -> Callable[..., Any]:
    """``dctn`` and its kin: one axis after the other."""

    def handler(
        x: Any, type: int = 2, s: Any = None, axes: Any = None, norm: Any = None, overwrite_x: bool = False,
        workers: Any = None, *, orthogonalize: Any = None,
    ) -> Any:  # fmt: skip
        rank = np.ndim(plain(x))
        if s is not None and not np.ndim(s):
            s = (s,)
        if axes is not None and not np.ndim(axes):
            axes = (axes,)
        for along, length in _plan(np.empty((1,) * rank), s, axes):
            x = transform(x, type, length, along, norm, orthogonalize=orthogonalize)
        return x

    return handler


def _of_scipy(handler: Callable[..., Any], several: bool) -> Callable[..., Any]:
    """A transform with the options of SciPy, which say nothing about the result; one axis may be a number."""

    def call(
        x: Any, size: Any = None, axis: Any = _MISSING, norm: Any = None, overwrite_x: bool = False,
        workers: Any = None, *, plan: Any = None, n: Any = None, s: Any = None, axes: Any = _MISSING,
    ) -> Any:  # fmt: skip
        size = next((v for v in (size, n, s) if v is not None), None)
        axis = axes if axis is _MISSING else axis
        if several:
            size = (size,) if size is not None and not np.ndim(size) else size
            axis = (axis,) if isinstance(axis, int) else axis
        return handler(x, size, norm=norm) if axis is _MISSING else handler(x, size, axis, norm)

    return call


_MISSING: Any = object()


def _hankel(name: str) -> Callable[..., Any]:
    """The fast Hankel transform along the last axis: a matrix, found by transforming the unit vectors."""

    def handler(a: Any, dln: Any, mu: Any, offset: Any = 0.0, bias: Any = 0.0) -> Any:
        if any_tracked((dln, mu, offset, bias)) or is_complex(a):
            raise unsupported(f"scipy.fft.{name} of complex numbers, or by its parameters")
        a, transform = plain_operand(a), getattr(sys.modules["scipy.fft"], name)
        options = [raw_deep(v) for v in (dln, mu, offset, bias)]
        matrix = transform(np.eye(np.shape(raw_deep(a))[-1]), *options)
        return as_numpy(transform(raw_deep(a), *options), a @ matrix)

    return handler


_SCIPY: dict[str, Callable[..., Any]] = {
    "fht": _hankel("fht"),
    "ifht": _hankel("ifht"),
    **{name: _of_scipy(_HANDLERS[name], False) for name in ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")},
    **{
        name: _of_scipy(_HANDLERS[name], True)
        for name in ("fft2", "ifft2", "rfft2", "irfft2", "fftn", "ifftn", "rfftn", "irfftn")
    },
    **{name: _of_scipy(h, True) for name, h in (("hfftn", _hfftn), ("ihfftn", _ihfftn))},
    **{name: _of_scipy(_two_axes(h), True) for name, h in (("hfft2", _hfftn), ("ihfft2", _ihfftn))},
}
for _name, _inverse in (("dct", False), ("idct", True), ("dst", False), ("idst", True)):
    _SCIPY[_name] = _trigonometric(_name, _inverse)
    _SCIPY[f"{_name}n"] = _several(_SCIPY[_name])


class Backend:
    """What SciPy asks before its own transforms, once it is registered: it answers for Variables only."""

    __ua_domain__ = "numpy.scipy.fft"

    @staticmethod
    def __ua_function__(method: Any, args: Any, kwargs: Any) -> Any:
        if not contains_variable(list(args)) and not contains_variable(kwargs):
            return NotImplemented
        handler = _SCIPY.get(method.__name__)
        if handler is None:
            raise unsupported(f"scipy.fft.{method.__name__}")
        return handler(*args, **kwargs)


_registered = False
_lock = threading.Lock()


def register_backend() -> None:
    """Answer for Variables in ``scipy.fft``, as soon as somebody has imported it."""
    global _registered
    if _registered or "scipy.fft" not in sys.modules:
        return
    with _lock:
        module = sys.modules["scipy.fft"]
        if not _registered and hasattr(module, "register_backend"):
            module.register_backend(Backend)
            _registered = True
