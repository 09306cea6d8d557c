"""Derive the constants of the vector mathematics: ``python tools/minimax.py > src/jacana/run/native/constants.py``.

Every polynomial is the best one in the sense of the largest relative error, found by the exchange algorithm of Remez
(Remez 1934; Powell, Approximation Theory and Methods, chapter 8) in 60 digits, for a function whose exact leading terms
are kept apart, then rounded to double. The parts of ln 2 and pi/2 are cut so that the products that a range reduction
makes of them are exact (Cody and Waite, Software Manual for the Elementary Functions, 1980). Nothing is taken from a
table. Needs mpmath.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from mpmath import mp, mpf

mp.dps = 60
Real = Callable[[mpf], mpf]


def remez(f: Real, weight: Real, low: mpf, high: mpf, count: int) -> tuple[list[mpf], mpf]:
    """``count`` coefficients of the polynomial p for which ``max |p - f| * weight`` is least, and that error."""
    middle, half = (low + high) / 2, (high - low) / 2
    nodes = [middle - half * mp.cos(mp.pi * k / count) for k in range(count + 1)]
    for _ in range(12):
        matrix = mp.matrix(count + 1, count + 1)
        right = mp.matrix(count + 1, 1)
        for i, x in enumerate(nodes):
            for j in range(count):
                matrix[i, j] = x**j
            matrix[i, count] = (-1) ** i / weight(x)
            right[i] = f(x)
        solution = mp.lu_solve(matrix, right)
        found = [solution[j] for j in range(count)]

        def error(x: mpf, c: list[mpf] = found) -> mpf:
            return (mp.polyval(c[::-1], x) - f(x)) * weight(x)

        # The extrema of the error: on a fine grid, refined by a parabola.
        grid = [middle - half * mp.cos(mp.pi * k / (24 * count)) for k in range(24 * count + 1)]
        values = [error(x) for x in grid]
        best: list[tuple[mpf, mpf]] = []
        for k, (x, v) in enumerate(zip(grid, values, strict=True)):
            left = values[k - 1] if k else mpf(0)
            right_ = values[k + 1] if k + 1 < len(grid) else mpf(0)
            if abs(v) >= abs(left) and abs(v) >= abs(right_) and v != 0:
                if best and (best[-1][1] > 0) == (v > 0):
                    if abs(v) > abs(best[-1][1]):
                        best[-1] = (x, v)
                else:
                    best.append((x, v))
        while len(best) > count + 1:
            best.pop(0 if abs(best[0][1]) < abs(best[-1][1]) else -1)
        if len(best) < count + 1:
            break
        nodes = [x for x, _ in best]
        sizes = [abs(v) for _, v in best]
        if max(sizes) < min(sizes) * (1 + mpf(10) ** -4):
            break
    return found, max(abs(v) for v in values)


def cut(x: mpf, bits: int) -> mpf:
    """The leading ``bits`` bits of a number."""
    scale = mpf(2) ** (bits - 1 - math.floor(mp.log(abs(x), 2)))
    return mp.floor(x * scale) / scale


def parts(x: mpf, *bits: int) -> list[float]:
    """A number as a sum of doubles with so many bits each. All have its sign: that keeps the sign of zero angles."""
    result = []
    for b in bits:
        piece = cut(x, b)
        result.append(float(piece))
        x -= piece
    return result


def tail(f: Real, series: Real) -> Real:
    """``f``, by its series next to zero, where subtracting leading terms would leave nothing."""
    return lambda x: series(x) if abs(x) < mpf(10) ** -12 else f(x)


LN2, HALF_PI = mp.log(2), mp.pi / 2
R = LN2 / 2 * (1 + mpf(2) ** -20)  # of the reduced argument of exp
S2 = ((mp.sqrt(2) - 1) / (mp.sqrt(2) + 1)) ** 2 * (1 + mpf(2) ** -20)  # of s**2, s = (m - 1) / (m + 1)
Q2 = (HALF_PI / 2) ** 2 * (1 + mpf(2) ** -16)  # of r**2 in sin and cos
ERF_SMALL, ERF_LARGE = mpf("0.875"), mpf("6.0")


def atanh_rest(z: mpf) -> mpf:
    """``(2 atanh(s) / s - 2) / z`` with z = s**2: 2/3 + 2 z/5 + ..."""
    s = mp.sqrt(z)
    return (2 * mp.atanh(s) / s - 2) / z


def erfcx(t: mpf) -> mpf:
    """``exp(x**2) erfc(x)`` in t = (x - 2) / (x + 2)."""
    x = 2 * (1 + t) / (1 - t)
    return mp.exp(x * x) * mp.erfc(x)


one: Real = lambda x: mpf(1)  # noqa: E731
POLYNOMIALS: dict[str, tuple[Real, Real, mpf, mpf, dict[str, int]]] = {
    # (exp(r) - 1 - r) / r**2; its error counts r**2 times
    "EXP": (
        tail(lambda r: (mp.expm1(r) - r) / r**2, lambda r: mpf(1) / 2 + r / 6 + r**2 / 24),
        lambda r: r**2 + mpf(10) ** -8, -R, R, {"double": 10, "single": 5},
    ),
    # the same, where the result is expm1(r), which is as small as r
    "EXPM1": (
        tail(lambda r: (mp.expm1(r) - r) / r**2, lambda r: mpf(1) / 2 + r / 6 + r**2 / 24),
        lambda r: abs(r) + mpf(10) ** -8, -R, R, {"double": 11, "single": 5},
    ),
    "LOG": (
        tail(atanh_rest, lambda z: mpf(2) / 3 + 2 * z / 5 + 2 * z**2 / 7), lambda z: z + mpf(10) ** -8,
        mpf(0), S2, {"double": 7, "single": 3},
    ),
    # one term further, for pow: (2 atanh(s) / s - 2 - 2 z / 3) / z**2
    "POW": (
        tail(lambda z: (atanh_rest(z) - mpf(2) / 3) / z, lambda z: mpf(2) / 5 + 2 * z / 7 + 2 * z**2 / 9),
        lambda z: z**2 + mpf(10) ** -6, mpf(0), S2, {"double": 7},
    ),
    "SIN": (
        tail(lambda z: (mp.sin(mp.sqrt(z)) / mp.sqrt(z) - 1) / z, lambda z: -mpf(1) / 6 + z / 120 - z**2 / 5040),
        lambda z: z + mpf(10) ** -8, mpf(0), Q2, {"double": 6, "single": 3},
    ),
    "COS": (
        tail(lambda z: ((mp.cos(mp.sqrt(z)) - 1) / z + mpf(1) / 2) / z, lambda z: mpf(1) / 24 - z / 720 + z**2 / 40320),
        lambda z: z**2 + mpf(10) ** -8, mpf(0), Q2, {"double": 6, "single": 3},
    ),
    # erf(x) / x - 1, small arguments
    "ERF": (
        tail(
            lambda z: mp.erf(mp.sqrt(z)) / mp.sqrt(z) - 1,
            lambda z: 2 / mp.sqrt(mp.pi) * (1 - z / 3 + z**2 / 10) - 1,
        ),
        lambda z: mpf(1), mpf(0), ERF_SMALL**2 * (1 + mpf(2) ** -20), {"double": 12, "single": 6},
    ),
    # erfcx, whose error counts as much as exp(-x**2) lets it
    "ERFC": (
        erfcx,
        lambda t: mp.exp(-((2 * (1 + t) / (1 - t)) ** 2)) + mpf(10) ** -12,
        (ERF_SMALL - 2) / (ERF_SMALL + 2), (ERF_LARGE - 2) / (ERF_LARGE + 2), {"double": 15, "single": 8},
    ),
}  # fmt: skip


def show(name: str, values: list[float], note: str = "") -> None:
    print(f"{name} = (  # {note}" if note else f"{name} = (")
    for v in values:
        print(f'    float.fromhex("{v.hex()}"),')
    print(")")


def main() -> None:
    print('"""Constants of ``mathematics.py``, lowest power first. Written by ``tools/minimax.py``, not by hand."""\n')
    print("# fmt: off")
    show("LN2", parts(LN2, 42, 53), "42 bits, so that a product with an exponent is exact, and the rest")
    show("HALF_PI", parts(HALF_PI, 53, 53, 53), "for products that are not rounded (fused multiply and add)")
    show("TWO_THIRDS", parts(mpf(2) / 3, 53, 53))
    show("SCALARS", [float(1 / LN2), float(1 / HALF_PI), float(ERF_SMALL), float(ERF_LARGE)],
         "1/ln 2, 2/pi, bounds of the two ranges of erf")  # fmt: skip
    for name, (f, weight, low, high, kinds) in POLYNOMIALS.items():
        for kind, count in kinds.items():
            found, error = remez(f, weight, low, high, count)
            show(f"{name}_{kind.upper()}", [float(c) for c in found], f"error 2**{float(mp.log(error, 2)):.1f}")
    print("# fmt: on")


if __name__ == "__main__":
    main()
