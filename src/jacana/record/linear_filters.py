"""Functions of ``scipy.signal`` and ``scipy.ndimage`` that are linear in their first argument.

What they do to an array is a matrix that does not depend on it: it is found once, by what SciPy makes of unit vectors,
and its zeros are structure. All other arguments must be plain.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .composed import as_numpy
from .filters import watch
from .foreign import records
from .lift import any_tracked, axis_in, plain_operand, with_zeros
from .location import unsupported
from .table import is_complex
from .variable import raw, raw_deep

LARGEST = 4_000_000  # entries of the matrix: beyond, a loop or a convolution is what is meant
_REMEDY = (
    "Write the step as np.convolve with the filter's response to one impulse, as a loop, or with jc.scan; or make it "
    "an operation of your own (jacana.custom_operation)."
)
# Along one axis alone, which is an argument; the others see all of the array at once.
_ALONG = {
    "scipy.signal": {
        "lfilter": -1, "filtfilt": -1, "sosfilt": -1, "sosfiltfilt": -1, "savgol_filter": -1, "hilbert": -1,
        "detrend": -1, "resample": 0, "resample_poly": 0, "decimate": -1, "upfirdn": -1, "czt": -1, "zoom_fft": -1,
    },
    "scipy.ndimage": {"spline_filter1d": -1},
}  # fmt: skip
_WHOLE = {
    "scipy.signal": ("hilbert2", "symiirorder1", "symiirorder2", "cspline1d", "qspline1d"),
    "scipy.ndimage": ("shift", "zoom", "rotate", "affine_transform", "map_coordinates", "spline_filter",
                      ),
}  # fmt: skip
_AT = {
    "lfilter": 2,
    "sosfilt": 1,
    "sosfiltfilt": 1,
    "filtfilt": 2,
    "upfirdn": 1,
}  # the place of the array, if not first


def _taken_apart(module: str, name: str, args: Any, kwargs: Any) -> tuple[Any, Callable[[Any], Any], dict[str, Any]]:
    """The array, and the function of it alone."""
    place = _AT.get(name, 0)
    function = getattr(importlib.import_module(module), name)
    key = "input" if module == "scipy.ndimage" else "data" if name == "detrend" else "x"
    if place < len(args):
        before, x, after = args[:place], args[place], args[place + 1 :]
    elif key in kwargs:
        before, after, x = args, (), kwargs[key]
    else:
        raise unsupported(f"{module}.{name} called like this", _REMEDY)
    options = {k: v for k, v in kwargs.items() if k != key}
    if any_tracked([*before, *after, *options.values()]):
        raise unsupported(f"{module}.{name} by anything but the array", _REMEDY)
    if options.get("output") is not None or options.get("zi") is not None or options.get("overwrite_data"):
        raise unsupported(f"{module}.{name} with output=, zi= or overwrite_data=", _REMEDY)
    before, after, options = raw_deep(before), raw_deep(after), raw_deep(options)
    for array in (*before, *after, *options.values()):
        if type(array) is np.ndarray:
            watch(array)  # its content becomes structure
    x = plain_operand(x)
    if is_complex(x):
        raise unsupported(f"{module}.{name} of complex numbers", "Work on z.real and z.imag.")

    def of_array(array: Any) -> Any:
        result = function(*before, array, *after, **options)
        if isinstance(result, tuple):
            raise unsupported(f"{module}.{name} with several results", _REMEDY)
        return result

    return x, of_array, options


def _axis_of(name: str, default: int, args: Any, options: dict[str, Any]) -> int:
    if "axis" in options:
        return int(options["axis"])
    places = {"lfilter": 3, "filtfilt": 3, "sosfilt": 2, "sosfiltfilt": 2, "detrend": 1, "hilbert": 2, "upfirdn": 4,
              "savgol_filter": 5, "resample": 3, "resample_poly": 3, "decimate": 4, "spline_filter1d": 2}  # fmt: skip
    place = places.get(name, 99)
    return int(raw_deep(args[place])) if place < len(args) else default


def _times(matrix: Any, x: Any) -> Any:
    """``matrix @ x`` of a matrix of numbers, real or complex."""
    if np.iscomplexobj(matrix):
        return np.matmul(with_zeros(matrix.real), x) + 1j * np.matmul(with_zeros(matrix.imag), x)
    return np.matmul(with_zeros(matrix), x)


def _matrix(name: str, function: Callable[[Any], Any], shape: tuple[int, ...], rows: int) -> tuple[Any, Any]:
    """What the function makes of zeros (what is beyond an edge may be a number), and of each unit vector besides."""
    size = math.prod(shape)
    if rows * size > LARGEST:
        raise unsupported(f"{name} of so long an array", _REMEDY)
    offset = np.ravel(function(np.zeros(shape)))
    columns = [np.ravel(function(unit.reshape(shape))) - offset for unit in np.eye(size)]
    return offset, np.stack(columns, axis=-1)


def _like(value: Any, result: Any) -> Any:
    return result if is_complex(result) else as_numpy(value, result)


def _along(module: str, name: str, default: int) -> None:
    @records(module, name)
    def handler(*args: Any, **kwargs: Any) -> Any:
        x, function, options = _taken_apart(module, name, args, kwargs)
        value = function(np.array(raw(x)))
        axis = axis_in(_axis_of(name, default, args, options), np.ndim(raw(x)))
        moved = np.moveaxis(x, axis, 0)
        n, *rest = np.shape(raw(moved))
        shape = tuple(n if k == axis else 1 for k in range(np.ndim(value)))
        offset, matrix = _matrix(f"{module}.{name}", function, shape, np.shape(value)[axis])
        found = _times(matrix, np.reshape(moved, (n, -1))) + offset[:, None]
        return _like(value, np.moveaxis(np.reshape(found, (len(offset), *rest)), 0, axis))


def _whole(module: str, name: str) -> None:
    @records(module, name)
    def handler(*args: Any, **kwargs: Any) -> Any:
        x, function, _ = _taken_apart(module, name, args, kwargs)
        value = function(np.array(raw(x)))
        offset, matrix = _matrix(f"{module}.{name}", function, np.shape(raw(x)), np.size(value))
        return _like(value, np.reshape(_times(matrix, np.ravel(x)) + offset, np.shape(value)))


for _module, _names in _ALONG.items():
    for _name, _default in _names.items():
        _along(_module, _name, _default)
for _module, _others in _WHOLE.items():
    for _name in _others:
        _whole(_module, _name)

__all__ = ["LARGEST"]
