"""Vector mathematics against mpmath, at special values against the C library, whoever computes it."""

from __future__ import annotations

import math

import numpy as np
import pytest
from mpmath import mp
from native_helpers import bits as bits_of
from support import F4, F8, Array, op

from jacana.errors import InvalidInputError
from jacana.graph.node import new_input
from jacana.run import Program, native_available

pytestmark = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")

REFERENCE = {
    "exp": mp.exp, "expm1": mp.expm1, "log": mp.log, "log1p": mp.log1p, "sin": mp.sin, "cos": mp.cos, "tan": mp.tan,
    "tanh": mp.tanh, "erf": mp.erf, "pow": mp.power,
}  # fmt: skip
SOURCES = ("portable", "libmvec", "libm", "auto")
COUNT = 96


def evaluate(name: str, *arguments: Array, lanes: int = 8) -> Array:
    """One function on arrays by a module of its own."""
    import ctypes

    from llvmlite import ir

    from jacana.run.native.emitter import POINTER, VALUE_TYPES, Emitter
    from jacana.run.native.engine import link, machine, object_image

    target = machine()
    module = ir.Module("test")
    module.triple, module.data_layout = target.triple, str(target.target_machine.target_data)
    emitter = Emitter(module, target)
    emitter.lanes = lanes
    kind = VALUE_TYPES[arguments[0].dtype]
    count = len(arguments)
    function = ir.Function(module, ir.FunctionType(ir.VoidType(), [POINTER] * (count + 1)), "apply")
    emitter.builder = ir.IRBuilder(function.append_basic_block())
    vector = ir.VectorType(kind, lanes)
    values = []
    for argument in function.args[:count]:
        values.append(emitter.builder.load(argument, typ=vector))
        values[-1].align = 4
    emitter.builder.store(emitter.call(name, *values), function.args[count]).align = 4
    emitter.builder.ret_void()
    addresses, keep = link(object_image(str(module)), emitter.symbols, ["apply"])
    apply = ctypes.CFUNCTYPE(None, *([ctypes.c_void_p] * (count + 1)))(addresses["apply"])
    size = arguments[0].size
    padded = [np.concatenate([a, np.ones(-size % lanes, a.dtype)]) for a in arguments]
    result = np.empty_like(padded[0])
    for k in range(0, padded[0].size, lanes):
        apply(*(a[k:].ctypes.data for a in padded), result[k:].ctypes.data)
    del keep
    return result[:size]


def samples(name: str, dtype: np.dtype) -> list[Array]:
    rng = np.random.default_rng(3)
    u = rng.uniform(-1, 1, COUNT)
    large, deep = (700.0, 40.0) if dtype == F8 else (85.0, 25.0)
    small = u * np.exp(-deep * rng.random(COUNT))
    if name in ("exp", "expm1"):
        parts = [u * large, u, 3 * u, small, 36 * u]
    elif name == "log":
        parts = [np.exp(u * large), 1 + 0.4 * u, 1 + 0.1 * small, np.abs(u) * 3]
    elif name == "log1p":
        parts = [np.exp(u * large), 0.99 * u, small, np.abs(u) * 3]
    elif name in ("sin", "cos", "tan"):
        parts = [u, 3.2 * u, 100 * u, 5e5 * u, small, np.round(u * 1e5) * (np.pi / 2), 1e15 * u]
    elif name in ("tanh", "erf"):
        parts = [u, 3 * u, 6 * u, 25 * u, small]
    else:
        x = np.concatenate([np.exp(5 * u), 1 + 1e-3 * u, np.exp(u * large), np.abs(u), -np.abs(u)])
        x = x.astype(dtype).astype(float)
        v = rng.uniform(-1, 1, x.size)
        p = np.where(rng.random(x.size) < 0.5, 3 * v, v * large / np.maximum(np.abs(np.log(np.abs(x))), 1e-6))
        return [x.astype(dtype), np.where(x < 0, np.round(3 * v), p).astype(dtype)]
    return [np.concatenate(parts).astype(dtype)]


def worst_error(found: Array, exact: list[object]) -> float:
    """The greatest error in units in the last place of the result's own dtype."""
    digits, least = (53, -1074) if found.dtype == F8 else (24, -149)
    worst = 0.0
    for value, wanted in zip(found.tolist(), exact, strict=True):
        if wanted == 0 or not math.isfinite(value):
            continue
        unit = mp.mpf(2) ** max(mp.floor(mp.log(abs(wanted), 2)) - digits + 1, least)
        worst = max(worst, float(abs(mp.mpf(value) - wanted) / unit))
    return worst


@pytest.fixture(params=SOURCES)
def source(request, monkeypatch):
    monkeypatch.setenv("JACANA_VECTOR_MATH", request.param)
    return request.param


@pytest.mark.parametrize("dtype", [F8, F4], ids=["double", "single"])
@pytest.mark.parametrize("name", REFERENCE)
def test_error_against_mpmath(name, dtype, source):
    arguments = samples(name, dtype)
    with mp.workprec(220):
        exact = [REFERENCE[name](*(mp.mpf(float(v)) for v in point)) for point in zip(*arguments, strict=True)]
        for lanes in (8, 4):
            assert worst_error(evaluate(name, *arguments, lanes=lanes), exact) <= 4.0


INF, NAN = math.inf, math.nan
TINY, SMALL = 5e-324, 2.0**-1040
SPECIAL = [
    *(0.0, -0.0, INF, -INF, NAN, TINY, -TINY, SMALL, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, -3.0, 1e300, -1e300),
    *(709.0, 710.0, -745.0, -746.0, -708.5),
]


@pytest.mark.parametrize("dtype", [F8, F4], ids=["double", "single"])
@pytest.mark.parametrize("name", [n for n in REFERENCE if n != "pow"])
def test_special_values(name, dtype, source):
    with np.errstate(all="ignore"):
        x = np.array([*SPECIAL, 1e22, 2.0**19 * 1.0001, -1e5, 88.8, -103.9, -104.1, 1e-45, -1e-40], dtype)
        x = np.concatenate([x, np.ones(-x.size % 8, dtype)])
        if name == "erf":
            expected = np.array([math.erf(v) for v in x.tolist()], dtype)
        else:
            expected = getattr(np, name)(x.astype(np.longdouble)).astype(dtype)
        # Each value in a vector of its own as well: one that is special would send the others to the C library.
        x, expected = np.concatenate([x, np.repeat(x, 8)]), np.concatenate([expected, np.repeat(expected, 8)])
    found = evaluate(name, x)
    for value, one, other in zip(x, found, expected, strict=True):
        if np.isfinite(other) and other != 0:
            # One unit more: NumPy's own value in extended precision has been rounded twice.
            np.testing.assert_array_max_ulp(one, other, 5, dtype=dtype)
        else:
            assert bits_of(np.array(one)) == bits_of(np.array(other)), (name, value, one, other)


@pytest.mark.parametrize("dtype", [F8, F4], ids=["double", "single"])
def test_special_powers(dtype, source):
    values = np.array([0.0, -0.0, INF, -INF, NAN, TINY, SMALL, 1.0, -1.0, 0.5, 2.0, -2.0, 3.0, 0.3, -0.3, 1e30], dtype)
    exponents = np.array([*values.tolist(), 5.0, -5.0, 4.0, 1025.0, -1075.0, 7e18], dtype)
    x, p = (np.repeat(a.ravel(), 8) for a in np.meshgrid(values, exponents))
    with np.errstate(all="ignore"):
        expected = np.power(x, p)
    found = evaluate("pow", x, p)
    for point, one, other in zip(zip(x, p, strict=True), found, expected, strict=True):
        if np.isfinite(other) and other != 0:
            np.testing.assert_array_max_ulp(one, other, 5, dtype=dtype)
        else:
            assert bits_of(np.array(one)) == bits_of(np.array(other)), (point, one, other)


def test_a_program_takes_what_the_environment_says(source):
    from jacana.run import compile_numpy
    from jacana.run.native import compile_native

    x = new_input((1000,), F8)
    y = op("exp", x) * op("sin", x) + op("tanh", x) - op("log1p", op("square", x))
    program = Program((x,), (y,))
    values = [np.linspace(-5, 5, 1000)]
    np.testing.assert_allclose(compile_native(program)(values)[0], compile_numpy(program)(values)[0], rtol=1e-13)


def test_the_environment_is_checked(monkeypatch):
    monkeypatch.setenv("JACANA_VECTOR_MATH", "fast")
    with pytest.raises(InvalidInputError, match="JACANA_VECTOR_MATH must be auto, portable, libmvec or libm"):
        evaluate("exp", np.ones(8))


def test_infinities_and_equal_numbers_in_logaddexp(monkeypatch):
    from jacana.run import compile_numpy
    from jacana.run.native import compile_native

    a, b = new_input((256,), F8), new_input((256,), F8)
    values = [
        v.ravel()
        for v in np.meshgrid([*SPECIAL[:5], 1.0, -3.0, 700.0, -1e4, 0.1, 2.0, 5.0, 6.0, -8.0, 9.0, 1e9], repeat_16())
    ]
    program = Program((a, b), (op("logaddexp", a, b),))
    found, expected = compile_native(program)(values)[0], compile_numpy(program)(values)[0]
    np.testing.assert_array_equal(np.isnan(found), np.isnan(expected))
    ordinary = np.isfinite(expected)
    np.testing.assert_array_equal(found[~ordinary], expected[~ordinary])
    np.testing.assert_allclose(found[ordinary], expected[ordinary], rtol=4e-16, atol=0)


def repeat_16() -> Array:
    return np.array([0.0, -0.0, INF, -INF, NAN, 1.0, 1.5, -3.0, 700.0, -1e4, 0.1, 2.0, 5.5, -8.0, 9.0, -1e9])
