"""Linear filters of ``scipy.ndimage`` and convolutions of ``scipy.signal``: sums of shifted copies of a padded array.

The weights become part of the program's structure: a weight that is zero has no entry in the Jacobian, and other
weights in the same array record the function anew. Weights that depend on an argument all have their entries.
"""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .composed import as_numpy
from .convolution import convolved, long_pair
from .foreign import records
from .lift import any_tracked, array_of, axis_in, plain_operand
from .location import unsupported
from .recording import current_recording
from .table import Handler, is_complex
from .variable import raw, raw_deep

NDIMAGE, SIGNAL = "scipy.ndimage", "scipy.signal"
TAPS = 64  # weights up to which each has its own copy of the array
# What NumPy calls the ways in which scipy.ndimage goes on beyond an edge.
_MODES = {
    "reflect": "symmetric", "grid-mirror": "symmetric", "mirror": "reflect", "nearest": "edge", "wrap": "wrap",
    "grid-wrap": "wrap", "constant": "constant", "grid-constant": "constant",
}  # fmt: skip
_BOUNDARIES = {
    "fill": "constant", "pad": "constant", "wrap": "wrap", "circular": "wrap", "symm": "symmetric",
    "symmetric": "symmetric",
}  # fmt: skip


def _records(module: str, name: str) -> Callable[[Handler], Handler]:
    """Enter a formula; the value is SciPy's own."""

    def enter(formula: Handler) -> Handler:
        def handler(*args: Any, **kwargs: Any) -> Any:
            if kwargs.pop("output", None) is not None or any(map(is_complex, (*args, *kwargs.values()))):
                raise unsupported(f"{module}.{name} with output= or of complex numbers")
            function = getattr(importlib.import_module(module), name)
            plain = raw_deep(kwargs)
            value = function(
                *map(_writeable, raw_deep(args)), **{k: _writeable(v) for k, v in plain.items()}
            )  # first, as SciPy knows best what is wrong with an argument
            return as_numpy(value, formula(*args, **kwargs))

        handler.__doc__ = formula.__doc__
        return records(module, name)(handler)

    return enter


def _writeable(value: Any) -> Any:
    """Some of SciPy's compiled functions take no read-only arrays, as the numbers of Variables are."""
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


# --- sums of shifted copies -------------------------------------------------------------------------------------


def correlated(padded: Any, weights: Any) -> Any:
    """``sum over k of weights[k] * padded[i + k]``, wherever all of it is inside."""
    shape = tuple(n - m + 1 for n, m in zip(np.shape(raw(padded)), np.shape(raw(weights)), strict=True))
    depends = any_tracked((weights,))
    numbers = array_of(weights)
    if not depends and type(weights) is np.ndarray:
        watch(weights)
    if numbers.size > TAPS:
        return _windows(padded, weights)
    total: Any = None
    for place in itertools.product(*map(range, numbers.shape)):
        if not depends and numbers[place] == 0:
            continue
        shifted = padded[tuple(slice(k, k + n) for k, n in zip(place, shape, strict=True))]
        product = (weights[place] if depends else numbers[place].item()) * shifted
        total = product if total is None else total + product
    return np.zeros(shape) if total is None else total


def _windows(padded: Any, weights: Any) -> Any:
    windows = np.lib.stride_tricks.sliding_window_view(padded, np.shape(raw(weights)))
    rank = np.ndim(raw(weights))
    places, taps = list(range(rank)), list(range(rank, 2 * rank))
    return np.einsum(windows, places + taps, weights, taps, places)


def watch(array: Any) -> None:
    """The content of an array becomes structure."""
    recording = current_recording()
    if recording is not None:
        recording.captures.table(array)


# --- scipy.ndimage ----------------------------------------------------------------------------------------------


def _framed(x: Any, widths: Sequence[tuple[int, int]], mode: str, cval: Any) -> Any:
    if mode not in _MODES:
        raise unsupported(f"scipy.ndimage with mode={mode!r}")
    options: Any = {"constant_values": cval} if _MODES[mode] == "constant" else {}
    way: Any = _MODES[mode]
    return np.pad(x, widths, mode=way, **options)


def _filtered(x: Any, weights: Any, origins: Sequence[int], modes: Sequence[str], cval: Any) -> Any:
    """The correlation of an array with weights of the same rank, as large as the array."""
    widths = [(m // 2 + o, m - m // 2 - 1 - o) for m, o in zip(np.shape(raw(weights)), origins, strict=True)]
    if len(set(modes)) == 1:
        return correlated(_framed(x, widths, modes[0], cval), weights)
    for k, mode in enumerate(modes):
        x = _framed(x, [pair if j == k else (0, 0) for j, pair in enumerate(widths)], mode, cval)
    return correlated(x, weights)


def _each(value: Any, count: int) -> list[Any]:
    """An option given once, or for each axis."""
    if isinstance(value, (str, int, float, np.number)) or value is None:
        return [value] * count
    return list(value)


def _real(x: Any) -> Any:
    """The input as floating-point numbers."""
    x = plain_operand(x)
    return x if np.asarray(raw(x)).dtype.kind == "f" else x * 1.0


def _chosen(axes: Any, rank: int) -> list[int]:
    """The axes that are filtered."""
    if axes is None:
        return list(range(rank))
    return [axis_in(a, rank) for a in ((axes,) if isinstance(axes, (int, np.integer)) else axes)]


def _reversed(weights: Any, origins: Sequence[int]) -> tuple[Any, list[int]]:
    """The weights and origins of the correlation that a convolution is."""
    shape = np.shape(raw(weights))
    return np.flip(weights), [-o - (1 - m % 2) for o, m in zip(origins, shape, strict=True)]


def _line(x: Any, weights: Any, axis: int, mode: str, cval: Any, origin: int) -> Any:
    """The correlation along one axis."""
    rank = np.ndim(raw(x))
    along = axis_in(axis, rank)
    weights = np.reshape(weights, [-1 if k == along else 1 for k in range(rank)])
    return _filtered(x, weights, [int(origin) if k == along else 0 for k in range(rank)], [mode] * rank, cval)


def _correlated_image(
    reverse: bool, input: Any, weights: Any, mode: Any = "reflect", cval: Any = 0.0, origin: Any = 0, axes: Any = None
) -> Any:
    x, weights = _real(input), plain_operand(weights)
    rank, kind = np.ndim(raw(x)), np.ndim(raw(weights))
    chosen = _chosen(axes, rank)
    origins, modes = _each(origin, len(chosen)), _each(mode, len(chosen))
    if kind == len(chosen) < rank:
        sizes = dict(zip(chosen, np.shape(raw(weights)), strict=True))
        weights = np.reshape(weights, [sizes.get(k, 1) for k in range(rank)])
    shifts = dict(zip(chosen, origins, strict=True))
    ways = dict(zip(chosen, modes, strict=True))
    places = [int(shifts.get(k, 0)) for k in range(rank)]
    if reverse:
        weights, places = _reversed(weights, places)
    return _filtered(x, weights, places, [ways.get(k, modes[0]) for k in range(rank)], cval)


@_records(NDIMAGE, "correlate")
def correlate(input: Any, weights: Any, output: None = None, *args: Any, **options: Any) -> Any:
    """The sum over neighbours."""
    return _correlated_image(False, input, weights, *args, **options)


@_records(NDIMAGE, "convolve")
def convolve(input: Any, weights: Any, output: None = None, *args: Any, **options: Any) -> Any:
    """The correlation with the weights reversed."""
    return _correlated_image(True, input, weights, *args, **options)


@_records(NDIMAGE, "correlate1d")
def correlate1d(
    input: Any, weights: Any, axis: int = -1, output: None = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """The sum over neighbours along one axis."""
    return _line(_real(input), plain_operand(weights), axis, mode, cval, origin)


@_records(NDIMAGE, "convolve1d")
def convolve1d(
    input: Any, weights: Any, axis: int = -1, output: None = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """The correlation with the weights reversed."""
    weights, (origin,) = _reversed(plain_operand(weights), [origin])
    return _line(_real(input), weights, axis, mode, cval, origin)


def _gauss(sigma: float, order: int, truncate: float, radius: int | None) -> Any:
    """The weights of a Gaussian filter: what it makes of a single one."""
    radius = int(truncate * float(sigma) + 0.5) if radius is None else int(radius)
    impulse = np.zeros(2 * radius + 1)
    impulse[radius] = 1.0
    from scipy import ndimage

    response = ndimage.gaussian_filter1d(
        impulse, sigma, order=order, mode="constant", **({"radius": radius} if radius else {})
    )
    return np.asarray(response)[::-1].copy()


@_records(NDIMAGE, "gaussian_filter1d")
def gaussian_filter1d(
    input: Any, sigma: float, axis: int = -1, order: int = 0, output: None = None, mode: str = "reflect",
    cval: Any = 0.0, truncate: float = 4.0, *, radius: int | None = None,
) -> Any:  # fmt: skip
    """Weights of a Gaussian or of its derivatives."""
    _constant("gaussian_filter1d", sigma)
    return _line(_real(input), _gauss(sigma, order, truncate, radius), axis, mode, cval, 0)


@_records(NDIMAGE, "gaussian_filter")
def gaussian_filter(
    input: Any, sigma: Any, order: Any = 0, output: None = None, mode: Any = "reflect", cval: Any = 0.0,
    truncate: float = 4.0, *, radius: Any = None, axes: Any = None,
) -> Any:  # fmt: skip
    """One axis after another."""
    _constant("gaussian_filter", sigma)
    x = _real(input)
    chosen = _chosen(axes, np.ndim(raw(x)))
    options = [_each(raw_deep(v), len(chosen)) for v in (sigma, order, mode, radius)]
    for axis, width, degree, way, reach in zip(chosen, *options, strict=True):
        if width > 1e-15:
            x = _line(x, _gauss(width, degree, truncate, reach), axis, way, cval, 0)
    return x


def _constant(name: str, *values: Any) -> None:
    if any_tracked(values):
        raise unsupported(f"scipy.ndimage.{name} by its width")


@_records(NDIMAGE, "uniform_filter1d")
def uniform_filter1d(
    input: Any, size: int, axis: int = -1, output: None = None, mode: str = "reflect", cval: Any = 0.0,
    origin: int = 0,
) -> Any:  # fmt: skip
    """The mean of neighbours along one axis."""
    return _line(_real(input), np.full(int(size), 1.0 / int(size)), axis, mode, cval, origin)


@_records(NDIMAGE, "uniform_filter")
def uniform_filter(
    input: Any, size: Any = 3, output: None = None, mode: Any = "reflect", cval: Any = 0.0, origin: Any = 0, *,
    axes: Any = None,
) -> Any:  # fmt: skip
    """The mean of neighbours, one axis after another."""
    x = _real(input)
    chosen = _chosen(axes, np.ndim(raw(x)))
    options = [_each(v, len(chosen)) for v in (size, mode, origin)]
    for axis, count, way, shift in zip(chosen, *options, strict=True):
        if count > 1:
            x = _line(x, np.full(int(count), 1.0 / int(count)), axis, way, cval, shift)
    return x


@_records(NDIMAGE, "laplace")
def laplace(
    input: Any, output: None = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None
) -> Any:  # fmt: skip
    """The sum of second differences."""
    x = _real(input)
    chosen = _chosen(axes, np.ndim(raw(x)))
    ways = zip(chosen, _each(mode, len(chosen)), strict=True)
    return sum(_line(x, np.array([1.0, -2.0, 1.0]), axis, way, cval, 0) for axis, way in ways)


def _derivatives(x: Any, order: int, sigma: Any, mode: Any, cval: Any, axes: Any, options: dict[str, Any]) -> list[Any]:
    """Gaussian filters that derive along one axis each."""
    rank = len(_chosen(axes, np.ndim(raw(x))))
    more = {"mode": mode, "cval": cval, **({} if axes is None else {"axes": axes}), **options}
    return [gaussian_filter(x, sigma, [order if k == j else 0 for k in range(rank)], **more) for j in range(rank)]


@_records(NDIMAGE, "gaussian_laplace")
def gaussian_laplace(
    input: Any, sigma: Any, output: None = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None,
    **options: Any,
) -> Any:  # fmt: skip
    """The sum of second derivatives of a Gaussian filter."""
    return sum(_derivatives(_real(input), 2, sigma, mode, cval, axes, options))


@_records(NDIMAGE, "gaussian_gradient_magnitude")
def gaussian_gradient_magnitude(
    input: Any, sigma: Any, output: None = None, mode: Any = "reflect", cval: Any = 0.0, *, axes: Any = None,
    **options: Any,
) -> Any:  # fmt: skip
    """The length of the gradient of a Gaussian filter."""
    return np.sqrt(sum(part**2 for part in _derivatives(_real(input), 1, sigma, mode, cval, axes, options)))


def _edges(name: str, smooth: tuple[float, ...]) -> None:
    @_records(NDIMAGE, name)
    def handler(
        input: Any, axis: int = -1, output: None = None, mode: Any = "reflect", cval: Any = 0.0
    ) -> Any:  # fmt: skip
        """A central difference along one axis, smoothed along the others."""
        x = _real(input)
        rank = np.ndim(raw(x))
        modes = _each(mode, rank)
        along = axis_in(axis, rank)
        result = _line(x, np.array([-1.0, 0.0, 1.0]), along, modes[along], cval, 0)
        for k in range(rank):
            if k != along:
                result = _line(result, np.array(smooth), k, modes[k], cval, 0)
        return result


_edges("sobel", (1.0, 2.0, 1.0))
_edges("prewitt", (1.0, 1.0, 1.0))


# --- scipy.signal -----------------------------------------------------------------------------------------------


def _convolved(
    a: Any, v: Any, mode: str, boundary: str = "constant", fill: Any = 0.0, late: bool = False, method: str = "direct"
) -> Any:
    """The convolution of two arrays of one rank.

    The result of mode "same" is as large as ``a``; ``late``: where it cannot be in the middle, it begins one later.
    """
    a, v = _real(a), _real(v)
    if np.ndim(raw(a)) == np.ndim(raw(v)) == 0:
        return a * v
    large, small = np.shape(raw(a)), np.shape(raw(v))
    if long_pair(a, v):
        return _long(a, v, mode, method)
    if mode == "valid":
        return correlated(a, np.flip(v)) if large >= small else correlated(v, np.flip(a))
    size = [n + m - 1 for n, m in zip(large, small, strict=True)]
    if any_tracked((v,)) and boundary == "constant" and type(fill) in (int, float) and fill == 0:
        whole = _spread(a, v, size)  # no entry for what a frame of zeros would multiply
    else:
        options: Any = {"constant_values": fill} if boundary == "constant" else {}
        mode_of: Any = boundary
        whole = correlated(np.pad(a, [(m - 1, m - 1) for m in small], mode=mode_of, **options), np.flip(v))
    if mode == "full":
        return whole
    starts = [m // 2 if late else (m - 1) // 2 for m in small]
    return whole[tuple(slice(start, start + n) for start, n in zip(starts, large, strict=True))]


def _long(a: Any, v: Any, mode: str, method: str) -> Any:
    """Two long vectors, as one operation; transforms where SciPy would use them."""
    from scipy import signal

    one, other = np.asarray(raw(a)), np.asarray(raw(v))
    if method == "auto":
        method = signal.choose_conv_method(one, other, mode)
    if mode == "valid" and one.size < other.size:
        a, v = v, a
    value = signal.convolve(one, other, mode, method)
    return convolved(a, v, value, mode, (other.size - 1) // 2 if mode == "same" else 0, method == "fft")


def _spread(a: Any, v: Any, size: Sequence[int]) -> Any:
    """All products of two arrays, each added where the sum of its places says."""
    if np.size(raw(v)) > np.size(raw(a)):
        a, v = v, a
    shape = np.shape(raw(a))
    whole = np.zeros_like(a if any_tracked((a,)) else v, shape=tuple(size))
    for place in itertools.product(*map(range, np.shape(raw(v)))):
        whole[tuple(slice(k, k + n) for k, n in zip(place, shape, strict=True))] += v[place] * a
    return whole


@_records(SIGNAL, "convolve")
def signal_convolve(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """By sums of products, but for long vectors as the method says."""
    return _convolved(in1, in2, mode, method=method)


@_records(SIGNAL, "correlate")
def signal_correlate(in1: Any, in2: Any, mode: str = "full", method: str = "auto") -> Any:
    """By sums of products, but for long vectors as the method says."""
    return _convolved(in1, np.flip(plain_operand(in2)), mode, method=method)


def _by_transforms(name: str) -> None:
    @_records(SIGNAL, name)
    def handler(in1: Any, in2: Any, mode: str = "full", axes: Any = None) -> Any:
        """The same convolution: its derivative needs the products themselves."""
        if axes is not None:
            raise unsupported(f"scipy.signal.{name} with axes=")
        return _convolved(in1, in2, mode, method="fft")


_by_transforms("fftconvolve")
_by_transforms("oaconvolve")


@_records(SIGNAL, "convolve2d")
def convolve2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Of matrices, with edges."""
    return _convolved(in1, in2, mode, _BOUNDARIES[boundary], fillvalue)


@_records(SIGNAL, "correlate2d")
def correlate2d(in1: Any, in2: Any, mode: str = "full", boundary: str = "fill", fillvalue: Any = 0) -> Any:
    """Of matrices, with edges."""
    return _convolved(in1, np.flip(plain_operand(in2)), mode, _BOUNDARIES[boundary], fillvalue, late=True)


__all__ = ["correlated", "watch"]
