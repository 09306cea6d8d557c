"""What comes out where a function has a kink, a tie, a pole or a removable singularity.

A row of ``EACH`` is an elementwise function: the derivative of each element, and the second one. A row of ``WHOLE`` is
any function: its whole Jacobian, and (of a scalar) its Hessian. None: nothing is promised. Programs use ``x`` alone.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

INF, NAN, PI = math.inf, math.nan, math.pi


class Row(NamedTuple):
    """Where, which program, at which point, and what comes out."""

    where: str
    program: str
    point: list[float]
    first: Any
    second: Any = None


EACH = [
    Row("`sqrt` at 0: structural zeros stay zero", "np.sqrt(x)", [0, 4], [INF, 0.25], [-INF, -1 / 32]),
    Row("NaN stays in its row", "np.sin(x) * x", [NAN, 0, PI], [NAN, 0, -PI], [NAN, 2, -2]),
    Row("`log` at 0", "np.log(x)", [0, 2], [INF, 0.5], [-INF, -0.25]),
    Row("`log1p` at -1", "np.log1p(x)", [-1, 1], [INF, 0.5], [-INF, -0.25]),
    Row("`cbrt` at 0", "np.cbrt(x)", [0, 1], [INF, 1 / 3], [NAN, -2 / 9]),
    Row("`1 / x` at 0", "1 / x", [0, 2], [-INF, -0.25], [INF, 0.25]),
    Row("`arcsin` at 1", "np.arcsin(x)", [1, 0], [INF, 1], [INF, 0]),
    Row("`arccos` at -1", "np.arccos(x)", [-1, 0], [-INF, -1], [INF, 0]),
    Row("`arccosh` at 1", "np.arccosh(x)", [1], [INF], [-INF]),
    Row("`abs` at 0: the middle of both slopes", "np.abs(x)", [0, -2], [0, -1], [0, 0]),
    Row("`abs(x)**2` is `x**2`", "np.abs(x) ** 2", [0, -2], [0, -4], [2, 2]),
    Row("`abs(x)**3`", "np.abs(x) ** 3", [0, -2], [0, -12], [0, 12]),
    Row("`sign`, `floor`, `round`: steps", "np.sign(x) + np.floor(x) + np.round(x)", [0, 1, 0.5], [0, 0, 0], [0, 0, 0]),
    Row("`heaviside` at 0", "np.heaviside(x, 0.5)", [0], [0], [0]),
    Row("`x % 1` at whole numbers", "x % 1", [0, 2], [1, 1], [0, 0]),
    Row("`maximum(x, 0)` at 0: equal parts", "np.maximum(x, 0)", [0, 1, -1], [0.5, 1, 0], [0, 0, 0]),
    Row("`clip` at a bound: equal parts", "np.clip(x, 0, 1)", [0, 1, 0.5], [0.5, 0.5, 1], [0, 0, 0]),
    Row("`x**0` at 0", "x**0", [0, 2], [0, 0], [0, 0]),
    Row("`x**1.0` at 0", "x**1.0", [0, 2], [1, 1], [0, 0]),
    Row("`x**2.0` at 0", "x**2.0", [0, 2], [0, 4], [2, 2]),
    Row("`x**3.0` at 0 and below", "x**3.0", [0, -2], [0, 12], [0, -12]),
    Row("`x**0.5` at 0", "x**0.5", [0, 4], [INF, 0.25], [-INF, -1 / 32]),
    Row("`x**1.5` at 0", "x**1.5", [0, 4], [0, 3], [INF, 0.375]),
    Row("`x**-1` at 0", "x**-1.0", [0, 2], [-INF, -0.25], [INF, 0.25]),
    Row("powers with exponents of an array", "x ** np.array([0, 1, 2, 3])", [0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2, 0]),
    Row("`0**x` by x", "0.0**x", [0, 1, 2.5], [0, 0, 0], [0, 0, 0]),
    Row("`(-2)**x` by x", "(-2.0) ** x", [3], [NAN], [NAN]),
    Row("`sinc` at 0", "np.sinc(x)", [0, 1], [0, -1], [-(PI**2) / 3, 2]),
    Row("`sinc` near 0", "np.sinc(x)", [1e-9], [-(PI**2) * 1e-9 / 3], [-(PI**2) / 3]),
    Row("`expm1(x) / x` by `exprel`", "sc.exprel(x)", [0, 1e-9], [0.5, 0.5 + 1e-9 / 3], [1 / 3, 1 / 3 + 1e-9 / 4]),
    Row("a branch that is not taken", "np.where(x > 0, np.log(np.sqrt(x)), 0.0)", [0, 4], [0, 0.125], [0, -1 / 32]),
    Row("the same, nested", "np.where(x > 1, np.where(x > 2, np.sqrt(x - 2), 1 / (x - 1)), x)", [1, 2, 6],
        [1, -1, 0.25], [0, 2, -1 / 32]),
    Row("the same, by a mask", "np.where(x != 0, np.sin(x) / x, 1.0)", [0, PI], [0, -1 / PI], [0, 2 / PI**2]),
    Row("`tanh` far out", "np.tanh(x)", [1000, -1000], [0, 0], [0, 0]),
    Row("`expit` far out", "sc.expit(x)", [1000, -1000], [0, 0], [0, 0]),
    Row("`logaddexp(0, x)` far out", "np.logaddexp(0, x)", [1000, -1000, 0], [1, 0, 0.5], [0, 0, 0.25]),
    Row("`1 / (1 + exp(-x))` far out: `0 * inf` of the formula; write `expit`", "1 / (1 + np.exp(-x))", [-1000, 1000],
        [NAN, 0]),
    Row("`x * log(x)` at 0: `0 * inf` of the formula; write `xlogy`", "x * np.log(x)", [0], [NAN]),
    Row("`xlogy(x, 2)` at 0", "sc.xlogy(x, 2.0)", [0], [math.log(2)], [0]),
    Row("`xlogy(0, x)` at 0", "sc.xlogy(0.0, x)", [0], [0], [0]),
    Row("`entr` at 0", "sc.entr(x)", [0, 1], [INF, -1], [-INF, -1]),
    Row("`interp` at the points: the slope to the right; 0 outside", "np.interp(x, [0, 1, 2], [0, 1, 4])",
        [0, 1, 2, 3, -1], [1, 3, 3, 0, 0], [0, 0, 0, 0, 0]),
    Row("`nan_to_num`: what is replaced counts as constant", "np.nan_to_num(x)", [NAN, INF, 1], [0, 0, 1], [0, 0, 0]),
    Row("Bessel functions at 0", "sc.jv(1, x) + sc.spherical_jn(1, x)", [0], [0.5 + 1 / 3], [0]),
    Row("`sici(x)[0]` at 0", "sc.sici(x)[0]", [0], [1], [0]),
    Row("`exp` beyond the largest number", "np.exp(x)", [1000], [INF], [INF]),
]  # fmt: skip

_EYE2 = [[2, 0], [0, 2]]
WHOLE = [
    Row("`norm` at 0: the shortest subgradient", "np.linalg.norm(x)", [0, 0], [0, 0], [[0, 0], [0, 0]]),
    Row("`norm` of rows, one of them 0", "np.linalg.norm(x.reshape(2, 2), axis=1)", [0, 0, 3, 4],
        [[0, 0, 0, 0], [0, 0, 0.6, 0.8]]),
    Row("`norm**2` at 0 is a sum of squares", "np.linalg.norm(x) ** 2", [0, 0], [0, 0], _EYE2),
    Row("`hypot` at 0", "np.hypot(x[0], x[1])", [0, 0], [0, 0], [[0, 0], [0, 0]]),
    Row("`hypot**2` at 0", "np.hypot(x[0], x[1]) ** 2", [0, 0], [0, 0], _EYE2),
    Row("`abs(z)**2` at 0", "np.abs(x[0] + 1j * x[1]) ** 2", [0, 0], [0, 0], _EYE2),
    Row("`sqrt(sum(x**2))` at 0: `inf * 0` of the formula; write `norm`", "np.sqrt(np.sum(x**2))", [0, 0], [NAN, NAN]),
    Row("`norm(x, 1)` at 0", "np.linalg.norm(x, 1)", [0, -2], [0, -1], [[0, 0], [0, 0]]),
    Row("`norm(x, inf)` at a tie", "np.linalg.norm(x, np.inf)", [1, -1, 0], [0.5, -0.5, 0]),
    Row("`norm(x, 3)` at 0", "np.linalg.norm(x, 3)", [0, 0], [0, 0], [[0, 0], [0, 0]]),
    Row("`std` of equal numbers", "np.std(x)", [1, 1], [0, 0], [[0, 0], [0, 0]]),
    Row("`std**2` of equal numbers is the variance", "np.std(x) ** 2", [1, 1], [0, 0], [[0.5, -0.5], [-0.5, 0.5]]),
    Row("`var` of equal numbers", "np.var(x)", [1, 1], [0, 0], [[0.5, -0.5], [-0.5, 0.5]]),
    Row("`arctan2(0, 0)`", "np.arctan2(x[0], x[1])", [0, 0], [NAN, NAN]),
    Row("`maximum` at a tie: equal parts", "np.maximum(x[0], x[1])", [2, 2], [0.5, 0.5], [[0, 0], [0, 0]]),
    Row("`max` at a tie: equal parts", "np.max(x)", [1, 1, 0], [0.5, 0.5, 0]),
    Row("`min` at a tie: equal parts", "np.min(x)", [1, 1, 2, 1], [1 / 3, 1 / 3, 0, 1 / 3]),
    Row("`ptp` of equal numbers", "np.ptp(x)", [1, 1], [0, 0]),
    Row("`sort` at a tie: as they stand", "np.sort(x)", [1, 1], [[1, 0], [0, 1]]),
    Row("`median` at a tie: as `sort`", "np.median(x)", [1, 1, 2, 0], [0.5, 0.5, 0, 0]),
    Row("`x**y` at (0, 2)", "x[0] ** x[1]", [0, 2], [0, 0], [[2, 0], [0, 0]]),
    Row("`x**y` at (0, 0)", "x[0] ** x[1]", [0, 0], [0, 0]),
    Row("`prod` with one zero", "np.prod(x)", [0, 2, 3], [6, 0, 0], [[0, 3, 2], [3, 0, 0], [2, 0, 0]]),
    Row("`prod` with two zeros", "np.prod(x)", [0, 0, 3], [0, 0, 0], [[0, 3, 0], [3, 0, 0], [0, 0, 0]]),
    Row("`cumprod` with a zero", "np.cumprod(x)", [2, 0, 3], [[1, 0, 0], [0, 2, 0], [0, 6, 0]]),
    Row("the sum of `cumprod` with a zero", "np.sum(np.cumprod(x))", [2, 0, 3], [1, 8, 0],
        [[0, 4, 0], [4, 0, 2], [0, 2, 0]]),
    Row("`det` of a singular matrix: the adjugate", "np.linalg.det(x.reshape(2, 2))", [1, 2, 2, 4], [4, -2, -2, 1],
        [[0, 0, 0, 1], [0, 0, -1, 0], [0, -1, 0, 0], [1, 0, 0, 0]]),
    Row("`det` of a matrix of rank 1", "np.linalg.det(x.reshape(3, 3) * np.ones((3, 3)))", [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0] * 9),
    Row("eigenvalues that are equal, in a smooth function",
        "np.sum(np.linalg.eigvalsh((x.reshape(2, 2) + x.reshape(2, 2).T) / 2) ** 2)", [1, 0, 0, 1], [2, 0, 0, 2],
        [[2, 0, 0, 0], [0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 2]]),
    Row("the nuclear norm of a matrix of rank 1", "np.linalg.norm(x.reshape(2, 2), 'nuc')", [1, 0, 0, 0], [1, 0, 0, 0]),
    Row("the spectral norm where singular values are equal", "np.linalg.norm(x.reshape(2, 2), 2)", [1, 0, 0, 1],
        [0.5, 0, 0, 0.5]),
    Row("`pinv` of a deficient matrix: within its rank", "np.linalg.pinv(x.reshape(2, 2))[0, 0]", [1, 0, 0, 0],
        [-1, 0, 0, 0]),
    Row("`lstsq` of deficient rank: the shortest solution, within its rank",
        "np.linalg.lstsq(x.reshape(2, 2), np.array([1.0, 2.0]), rcond=None)[0]", [1, 0, 0, 0],
        [[-1, 0, 2, 0], [0, 1, 0, 0]]),
    Row("`expm` of zero", "la.expm(x.reshape(2, 2))[0, 1]", [0, 0, 0, 0], [0, 1, 0, 0],
        [[0, 0.5, 0, 0], [0.5, 0, 0, 0.5], [0, 0, 0, 0], [0, 0.5, 0, 0]]),
    Row("`logsumexp` with minus infinity", "sc.logsumexp(x)", [-INF, 0, 0], [0, 0.5, 0.5],
        [[0, 0, 0], [0, 0.25, -0.25], [0, -0.25, 0.25]]),
    Row("`logsumexp` of nothing but minus infinity: equal parts", "sc.logsumexp(x)", [-INF, -INF], [0.5, 0.5]),
    Row("`logsumexp` with infinity", "sc.logsumexp(x)", [INF, 0], [1, 0]),
    Row("`logaddexp` of two infinities: equal parts", "np.logaddexp(x[0], x[1])", [-INF, -INF], [0.5, 0.5]),
    Row("`logaddexp` with an infinity", "np.logaddexp(x[0], x[1])", [INF, 0], [1, 0]),
    Row("`xlogy(0, 0)`", "sc.xlogy(x[0], x[1])", [0, 0], [-INF, 0]),
    Row("`rel_entr(0, 2)`", "sc.rel_entr(x[0], x[1])", [0, 2], [-INF, 0], [[INF, -0.5], [-0.5, 0]]),
    Row("`x / norm(x)` at 0", "x / np.linalg.norm(x)", [0, 0], [[NAN, NAN], [NAN, NAN]]),
    Row("the same, guarded", "np.where(np.linalg.norm(x) > 0, x / np.linalg.norm(x), 0.0)", [0, 0], [[0, 0], [0, 0]]),
    Row("`fmax` with NaN: the other counts", "np.fmax(x[0], x[1])", [NAN, 1], [0, 1]),
    Row("`max`, `min`, `ptp` of what has a NaN: NaN, as a constant", "np.max(x) + np.min(x) + np.ptp(x)", [1, NAN, 2],
        [0, 0, 0]),
    Row("`median`, `quantile` of what has a NaN: the same", "np.median(x) + np.quantile(x, 0.3)", [1, NAN, 2, 0.5],
        [0, 0, 0, 0]),
    Row("`maximum`, `minimum` with NaN: the NaN counts", "np.maximum(x, 1.5) + np.minimum(x, 0.5)", [NAN, 2],
        [[2, 0], [0, 1]]),
    Row("`maximum` of two NaN: both", "np.maximum(x[0], x[1])", [NAN, NAN], [1, 1]),
    Row("`clip` of NaN", "np.clip(x, 0.0, 1.0)", [NAN, 0.5], [[1, 0], [0, 1]]),
    Row("`maximum.accumulate` with NaN: everything from there on", "np.maximum.accumulate(x)", [1, NAN, 2],
        [[1, 0, 0], [1, 1, 0], [1, 1, 1]]),
    Row("`sort` with NaN: sorted to the end", "np.sort(x)", [1, NAN, 0.5], [[0, 0, 1], [1, 0, 0], [0, 1, 0]]),
    Row("`argmax` with NaN: the first NaN", "x[np.argmax(x)] + x[np.argmin(x)]", [1, NAN, 2], [0, 2, 0]),
    Row("`nanmax`, `nanmin`, `nanmedian`: NaN takes no part", "np.nanmax(x) + np.nanmin(x) + np.nanmedian(x)",
        [1, NAN, 2, 4], [1, 0, 1, 1]),
    Row("`nanmean`: NaN takes no part", "np.nanmean(x)", [NAN, 1, 2], [0, 0.5, 0.5]),
    Row("`cumsum` with infinity: structural zeros", "np.cumsum(x)", [INF, 1], [[1, 0], [1, 1]]),
    Row("a `while` loop that starts at its root: what was run is differentiated", "newton(x[0], x[1])", [2, 4], [1, 0]),
    Row("the same one step away", "newton(x[0], x[1])", [3, 4], [0.5 - 4 / 18, 1 / 6]),
    Row("`jc.while_loop` that makes no step", "looped(x[0], x[1])", [2, 4], [1, 0]),
]  # fmt: skip

SETUP = """
import scipy.special as sc, scipy.linalg as la
import jacana as jc
def newton(start, a):
    y = start
    steps = 0
    while abs(y * y - a) > 2.0 and steps < 1:
        y = 0.5 * (y + a / y)
        steps += 1
    return y
def looped(start, a):
    return jc.while_loop(lambda y: np.abs(y * y - a) > 1e-9, lambda y: 0.5 * (y + a / y), start, max_steps=9)
"""

HEAD = """# What comes out at the hard points

Kinks, ties, poles, removable singularities: what the derivative is there, by jacana's conventions. Every row is a test,
on both executors (`JACANA_EXECUTOR=numpy` and `native`), in forward and reverse order, dense and sparse; the page is
written by `python tests/hard/hard_page.py`.

The rules behind the rows:

* Where an operation has a derivative, it is exact, and so is the second one.
* At a kink it is the middle of the slopes on both sides, at a tie each takes an equal part, and where there are many
  subgradients the shortest is taken.
* At a pole it is infinite, with the sign of the side on which the function is defined.
* A zero of the structure is zero whatever happens elsewhere: `inf` and NaN stay in their row and column; what is in a
  branch that is not taken does not count.
* Where the formula as it is written says `0 * inf`, so does its derivative: NaN. `jc.find_nan(f, x)` names the line.
* An index that is out of range is an `IndexError` and a singular matrix in `solve` and `inv` a `LinAlgError`, in the
  recording and in every replay, as in NumPy.

"""
