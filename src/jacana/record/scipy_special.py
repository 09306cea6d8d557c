"""Functions of ``scipy.special`` that are no ufuncs: sums of exponentials, Bessel functions by their order, others."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import cast_to
from .composed import as_numpy
from .foreign import records, refuses
from .lift import any_tracked, operand, plain_operand
from .location import unsupported
from .table import Handler, is_complex
from .variable import raw, raw_deep, tracked, wrap_constant, wrap_node

SPECIAL = "scipy.special"


def _scipy() -> Any:
    return importlib.import_module(SPECIAL)


def _records(name: str) -> Callable[[Handler], Handler]:
    """Enter a formula; the value is SciPy's own."""

    def enter(formula: Handler) -> Handler:
        def handler(*args: Any, **kwargs: Any) -> Any:
            result = formula(*args, **kwargs)  # first, as it may refuse
            return as_numpy(getattr(_scipy(), name)(*raw_deep(args), **raw_deep(kwargs)), result)

        handler.__doc__ = formula.__doc__
        return records(SPECIAL, name)(handler)

    return enter


def _shifted(a: Any, axis: Any) -> tuple[Any, Any]:
    """``a`` less its largest elements, which have no derivative of their own: nothing depends on the shift."""
    from ..graph.ops.flat import below, detached

    if is_complex(a):
        raise unsupported("scipy.special.softmax of complex numbers")
    a = a * 1.0
    top = np.max(a, axis=axis, keepdims=True)
    node, shift = tracked(a), tracked(top)
    if node is None or shift is None:
        return np.where(raw(a) == raw(top), 0.0, raw(a) - raw(top)), raw(top)
    value = raw(a)
    spread = operand(top, value.shape, value.dtype)
    with np.errstate(invalid="ignore"):
        rest = np.where(value == raw(top), 0.0, value - raw(top)).astype(value.dtype)
    return wrap_node(below(node, spread), rest), wrap_node(detached(shift), raw(top))


@_records("logsumexp")
def logsumexp(a: Any, axis: Any = None, b: Any = None, keepdims: bool = False, return_sign: bool = False) -> Any:
    """The largest elements are taken apart, and share in equal parts where they are infinite."""
    a = plain_operand(a)
    if b is not None:
        a, b = np.broadcast_arrays(a, plain_operand(b))
        a = np.where(b == 0, -np.inf, a)
    if is_complex(a):
        _, shift = _shifted(np.real(a), axis)
        rest = a - np.where(np.isfinite(shift), shift, 0.0)
        if return_sign:
            raise unsupported("scipy.special.logsumexp(return_sign=True) of complex numbers")
        terms = np.exp(rest) if b is None else b * np.exp(rest)
        found = np.log(np.sum(terms, axis=axis, keepdims=True)) + shift
        return found if keepdims else np.reshape(found, np.shape(np.sum(raw_deep(a), axis=axis)))
    rest, shift = _shifted(a, axis)
    total = np.sum(np.exp(rest) if b is None else b * np.exp(rest), axis=axis, keepdims=True)
    size = np.abs(total) if return_sign else total
    nothing = size == 0
    result = np.where(nothing, -np.inf, np.log(np.where(nothing, 1.0, size)) + shift)
    if not keepdims:
        shape = np.shape(np.sum(raw(a), axis=axis))
        result, total = np.reshape(result, shape), np.reshape(total, shape)
    return (result, np.sign(total)) if return_sign else result


@_records("softmax")
def softmax(x: Any, axis: Any = None) -> Any:
    """Shares of exponentials."""
    rest, _ = _shifted(plain_operand(x), axis)
    powers = np.exp(rest)
    return powers / np.sum(powers, axis=axis, keepdims=True)


@_records("log_softmax")
def log_softmax(x: Any, axis: Any = None) -> Any:
    """The logarithm of shares."""
    rest, _ = _shifted(plain_operand(x), axis)
    return rest - np.log(np.sum(np.exp(rest), axis=axis, keepdims=True))


@_records("softplus")
def softplus(x: Any, **options: Any) -> Any:
    """``log(1 + exp(x))``."""
    return np.logaddexp(0.0, x)


@_records("sinc")
def sinc(x: Any) -> Any:
    """NumPy's."""
    return np.sinc(x)


@_records("multigammaln")
def multigammaln(a: Any, d: Any) -> Any:
    """A sum of logarithms of the gamma function."""
    d = int(d)
    terms = [_scipy().gammaln(a + (1.0 - j) / 2.0) for j in range(1, d + 1)]
    return sum(terms[1:], terms[0]) + d * (d - 1) / 4.0 * math.log(math.pi)


@_records("polygamma")
def polygamma(n: Any, x: Any) -> Any:
    """Of integer orders."""
    if any_tracked((n,)):
        raise unsupported("scipy.special.polygamma by its order")
    n = np.asarray(raw_deep(n))
    sc = _scipy()
    general = (-1.0) ** (n + 1) * sc.gamma(n + 1.0) * sc.zeta(np.maximum(n, 1) + 1.0, x)
    return np.where(n == 0, sc.psi(x), general)


@records(SPECIAL, "zeta")
def zeta(x: Any, q: Any = None, out: Any = None) -> Any:
    """The zeta function of Hurwitz, or of Riemann to the right of its pole."""
    from ..graph.ops.special import S

    if out is not None or is_complex(x):
        raise unsupported("scipy.special.zeta of complex numbers, or with out=")
    x = plain_operand(x)
    if q is None:
        if not np.all(x > 1):
            raise unsupported("scipy.special.zeta of numbers up to 1")
        q = 1.0
    value = np.asarray(_scipy().zeta(raw_deep(x), raw_deep(q)))
    node = S("zeta", *(operand(plain_operand(v), value.shape, value.dtype) for v in (x, q)))
    return wrap_node(node, value[()])


@_records("comb")
def comb(N: Any, k: Any, *, exact: bool = False, repetition: bool = False) -> Any:
    """The binomial coefficient of real numbers, zero where SciPy says so."""
    if exact:
        raise unsupported("scipy.special.comb(..., exact=True)", "It is for integers: leave exact away.")
    if repetition:
        return comb(N + k - 1, k)
    inside = (k <= N) & (np.greater_equal(N, 0)) & (np.greater_equal(k, 0))
    return np.where(inside, _scipy().binom(N, k), 0.0)


@_records("perm")
def perm(N: Any, k: Any, exact: bool = False) -> Any:
    """A product of k descending numbers."""
    if exact:
        raise unsupported("scipy.special.perm(..., exact=True)", "It is for integers: leave exact away.")
    inside = (k <= N) & (np.greater_equal(N, 0)) & (np.greater_equal(k, 0))
    return np.where(inside, _scipy().poch(N - k + 1, k), 0.0)


@_records("factorial")
def factorial(n: Any, exact: bool = False, extend: str = "zero") -> Any:
    """The gamma function of the next number, zero below zero."""
    if exact or extend != "zero":
        raise unsupported("scipy.special.factorial with these options", "Write scipy.special.gamma(n + 1).")
    return np.where(np.less(n, 0), 0.0, _scipy().gamma(np.maximum(n, 0) + 1.0))


@_records("diric")
def diric(x: Any, n: Any) -> Any:
    """The periodic sinc: ``sin(n x / 2) / (n sin(x / 2))`` as the mean of n cosines, exact where the sines vanish."""
    n = int(raw(n))
    if n < 1:
        return x * np.nan
    waves = np.arange(2 if n % 2 else 1, n, 2) / 2
    total = 2.0 * np.sum(np.cos(np.expand_dims(x, -1) * waves), axis=-1)
    return (total + n % 2) / n


def _derivatives(name: str, function: str, sign: float, alternate: bool = False) -> None:
    @_records(name)
    def handler(v: Any, z: Any, n: int = 1) -> Any:
        """The n-th derivative of a Bessel function, by those of neighbouring orders (DLMF 10.6.7)."""
        bessel = getattr(_scipy(), function)
        if n == 0:
            return bessel(v, z)
        total = bessel(v - n, z)
        for k in range(1, n + 1):
            total = total + sign**k * math.comb(n, k) * bessel(v - n + 2 * k, z)
        return total * ((-1.0) ** n if alternate else 1.0) / 2.0**n


for _name, _function, _sign, _alternate in (
    ("jvp", "jv", -1.0, False), ("yvp", "yv", -1.0, False), ("ivp", "iv", 1.0, False), ("kvp", "kv", 1.0, True),
):  # fmt: skip
    _derivatives(_name, _function, _sign, _alternate)


def _spherical(name: str) -> None:
    @records(SPECIAL, name)
    def handler(n: Any, z: Any, derivative: bool = False) -> Any:
        """A spherical Bessel function of integer order, or its derivative."""
        from ..graph.ops.special_several import SPHERICAL, spherical_slope

        if any_tracked((n,)):
            raise unsupported(f"scipy.special.{name} by its order")
        value = getattr(_scipy(), name)(raw_deep(n), raw_deep(z), derivative)
        z = plain_operand(z)
        shape = np.shape(value)
        order = np.broadcast_to(np.asarray(raw_deep(n), dtype=np.int64), shape)
        node = operand(z, shape, np.asarray(value).dtype)
        number = operand(order, shape, np.dtype(np.int64))
        return wrap_node(spherical_slope(name, number, node) if derivative else SPHERICAL[name](number, node), value)


for _name in ("spherical_jn", "spherical_yn", "spherical_in", "spherical_kn"):
    _spherical(_name)


@records(SPECIAL, "lambertw")
def lambertw(z: Any, k: Any = 0, tol: float = 1e-8) -> Any:
    """Of real numbers on the two branches that are real; which those are is guarded."""
    from ..graph.ops.special_several import lambertw as branches
    from .complex import joined
    from .table import is_complex

    z = plain_operand(z)
    value = np.asarray(_scipy().lambertw(raw_deep(z), raw_deep(k), tol))
    upper = np.ndim(raw_deep(k)) == 0 and int(raw_deep(k)) == -1
    if is_complex(z) or np.ndim(raw_deep(k)) or int(raw_deep(k)) not in (0, -1):
        raise unsupported("scipy.special.lambertw of complex numbers or other branches")
    real = np.all(z >= -math.exp(-1.0)) & (np.all(z < 0) if upper else True)
    if not bool(real):
        raise unsupported("scipy.special.lambertw where it is not real")
    node = tracked(z)
    assert node is not None
    part = wrap_node(branches[1 if upper else 0](cast_to(node, np.dtype(float))), value.real)
    return joined(part, wrap_constant(np.zeros(value.shape)))


refuses(
    SPECIAL,
    "",
    "pbdv_seq", "pbvv_seq", "pbdn_seq", "riccati_jn", "riccati_yn", "mathieu_even_coef", "mathieu_odd_coef", "lmbda",
    "lqn", "lqmn", "h1vp", "h2vp", "ellip_harm", "ellip_harm_2",
)  # fmt: skip
refuses(
    SPECIAL,
    "Its derivative by the parameters of the weight is not known here.",
    "roots_jacobi", "roots_genlaguerre", "roots_gegenbauer", "roots_sh_jacobi",
)  # fmt: skip
