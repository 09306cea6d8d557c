"""Compare a Jacobian with finite differences, and name the entry that agrees worst.

The reference is made of central differences with Richardson extrapolation in Ridders' arrangement, which comes with an
estimate of its own error, so that noise of the differences is not taken for a mistake of the Jacobian. The complex
step is more precise where it applies, but it is wrong without a word for ``abs``, ``norm``, ``hypot``, comparisons and
everything else that is not analytic, so it is believed only where plain differences say roughly the same.

A sparse Jacobian is compared in as many directions as its columns have colours (columns of one colour share no row),
whatever its size; an entry that the pattern misses shows up in those directions too, and is found by bisection.

Sources: C. J. F. Ridders, "Accurate computation of F'(x) and F'(x) F''(x)", Advances in Engineering Software 4(2),
1982; W. Squire, G. Trapp, "Using complex variables to estimate derivatives of real functions", SIAM Review 40(1), 1998;
A. R. Curtis, M. J. D. Powell, J. K. Reid, "On the estimation of sparse Jacobian matrices", IMA Journal of
Applied Mathematics 13(1), 1974.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from .. import trees
from ..errors import InvalidInputError
from ..transforms import jacobian

__all__ = ["Comparison", "Entry", "check", "compare"]

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.intp]

ENOUGH = 3  # levels evaluated before anything is believed; the steps are 2**-10, 2**-12, ... of a variable's scale
LEVELS = 8  # levels tried where the differences have not settled
MORE_LEVELS = 15  # levels tried before a Jacobian is called wrong
NEGLIGIBLE = 1e-4  # share of the largest entry of a row (times its variable) below which an entry counts as zero
INFLUENCE = 1e-3  # share of a result that a step of one scale should change


class Entry(NamedTuple):
    """One entry of a Jacobian, seen from both sides.

    Attributes:
        row: its index in the shape of y.
        column: its index in the shape of x.
        jacobian: what the Jacobian says.
        difference: what the differences say; NaN where no difference was finite.
        uncertainty: how far off the differences may be by their own estimate.
        error: the discrepancy beyond the uncertainty, relative to the entry.
    """

    row: tuple[int, ...]
    column: tuple[int, ...]
    jacobian: float
    difference: float
    uncertainty: float
    error: float


@dataclass(frozen=True)
class Comparison:
    """What `compare` found.

    Attributes:
        x_shape, y_shape: of the argument and the result.
        stored: entries that the Jacobian stores: y.size * x.size where it is dense.
        compared: results times directions that were compared. For a dense Jacobian these are its entries.
        wrong: how many of them differ by more than the tolerance.
        unresolved: how many the differences could not decide to the tolerance, although they do not contradict.
        directions: directions in which differences were taken; one for each column of a dense Jacobian.
        evaluations: calls of the function.
        tolerance: relative, for each entry.
        worst: the entry with the largest discrepancy, None if there is nothing to compare.
        names: how the user would write the result and the argument of the worst entry.

    It prints as two lines, and is true if it is `ok`.
    """

    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    stored: int
    compared: int
    wrong: int
    unresolved: int
    directions: int
    evaluations: int
    tolerance: float
    worst: Entry | None
    names: tuple[str, str] = ("", "")

    def __bool__(self) -> bool:
        return self.ok

    def __str__(self) -> str:
        if self.worst is None:
            return "there is nothing to compare"
        worst, wrong, count = self.worst, self.wrong, f"{self.compared:,} comparisons"
        row, column = self.names if any(self.names) else (f"y{list(worst.row)}", f"x{list(worst.column)}")
        verdict = f"WRONG: {wrong:,} of {count} differ by more than {self.tolerance:g}"
        if not wrong:
            verdict = f"fine: {self.compared - self.unresolved:,} of {count} agree to {self.tolerance:g}"
        return (
            f"{verdict}\nworst: d {row} / d {column}: Jacobian {worst.jacobian:.15g}, differences "
            f"{worst.difference:.15g} +- {worst.uncertainty:.1e}, relative error {worst.error:.1e}"
        )

    @property
    def ok(self) -> bool:
        """Nothing is wrong, and not everything is undecided."""
        return self.wrong == 0 and (self.compared == 0 or self.unresolved < self.compared)


def compare(
    function: Callable[[Any], Any],
    x: NDArray[np.floating[Any]],
    *,
    jacobian_of: Callable[[Any], Any] | None = None,
    format: Literal["dense", "csr"] = "dense",
    tolerance: float | None = None,
    sample: int | None = None,
    method: Literal["differences", "complex"] = "differences",
) -> Comparison:
    """Compare the Jacobian of ``function`` at ``x`` with finite differences.

    Args:
        function: takes one array, returns one array.
        x: float64 or float32, any shape; the differences are taken in float64.
        jacobian_of: what gives the Jacobian at x, of shape ``y.shape + x.shape`` or sparse of shape
            ``(y.size, x.size)``; by default ``jacana.jacobian(function, format=format)``.
        format: ``"dense"`` or ``"csr"``.
        tolerance: relative discrepancy allowed for each entry, beyond the uncertainty of the differences; by default
            1e-6, and 1e-3 for float32.
        sample: compare in this many directions only, spread evenly over all of them.
        method: ``"complex"`` takes complex steps where ``function`` takes complex numbers and differences agree.

    Raises:
        InvalidInputError: x or the result is not an array of real numbers, x is not finite, the Jacobian has an
            unexpected shape, or an option makes no sense. Whatever ``function`` raises passes through.

    >>> import numpy as np
    >>> compare(np.sin, np.array([0.0, 1.0])).ok
    True
    >>> wrong = compare(np.sin, np.array([0.0, 1.0]), jacobian_of=lambda x: np.diag(np.cos(x) * [1.0, 1.1]))
    >>> wrong.ok, wrong.worst.row, wrong.worst.column, round(wrong.worst.difference, 6)
    (False, (1,), (1,), 0.540302)
    """
    if tolerance is not None and not 0.0 < tolerance < 1.0:
        raise InvalidInputError(f"the tolerance must be between 0 and 1, not {tolerance!r}")
    if sample is not None and sample < 1:
        raise InvalidInputError(f"at least one direction must be compared, not {sample!r}")
    x = np.asarray(x)
    if method not in ("differences", "complex"):
        raise InvalidInputError(f"the method is 'differences' or 'complex', not {method!r}")
    kind = _Differences if method == "differences" else _ComplexSteps
    differences = kind(function, x, tolerance or (1e-3 if x.dtype == np.float32 else 1e-6))
    with np.errstate(all="ignore"):
        found = (jacobian_of or jacobian(function, format=format))(x.copy())
    matrix = _as_matrix(found, differences.y_shape, x.shape)
    directions = _directions(matrix) if differences.y.size else []
    if sample is not None and sample < len(directions):
        directions = [directions[k] for k in np.linspace(0, len(directions) - 1, sample).astype(int)]
    return differences.judge(matrix, directions)


def check(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] | None = None,
    format: Literal["dense", "csr"] = "dense",
    tolerance: float | None = None,
    sample: int | None = None,
    method: Literal["differences", "complex"] = "complex",
) -> Comparison:
    """Compare every column of the Jacobian of a function with differences, and name the entry that agrees worst.

    Args:
        function: plain NumPy code. Arguments and results may be pytrees.
        *args: where to compare: arrays of floats, numbers, or pytrees of them.
        argnums: by which arguments; by default all that hold floats.
        format, tolerance, sample: as for `compare`.
        method: ``"complex"``: complex steps wherever the function takes complex numbers and is analytic there, which
            is found out, and Ridders' differences elsewhere. ``"differences"``: these only.

    Returns:
        A comparison: true if everything agrees, and printed as a sentence.

    Raises:
        InvalidInputError: nothing to differentiate by; complex arguments or results; an option that makes no sense.

    >>> import numpy as np
    >>> import jacana as jc
    >>> found = jc.check(lambda p, t: p["a"] * np.exp(-p["b"] * t), {"a": 2.0, "b": 0.5}, np.array([0.0, 1.0]))
    >>> found.ok, found.compared
    (True, 8)
    >>> print(jc.check(np.sin, np.array([0.5])))  # doctest: +ELLIPSIS
    fine: 1 of 1 comparisons agree to 1e-06
    worst: d y[0] / d x[0]: Jacobian 0.877582561890373, differences 0.877582561890373 +- ..., relative error ...
    """
    chosen = range(len(args)) if argnums is None else [argnums] if isinstance(argnums, int) else list(argnums)
    given = {k: trees.flatten(args[k]) for k in chosen}
    slots = [
        (k, j, np.asarray(leaf)) for k, (leaves, _) in given.items() for j, leaf in enumerate(leaves)
    ]  # fmt: skip
    if any(leaf.dtype.kind == "c" for _, _, leaf in slots):
        raise InvalidInputError("check takes real arguments; for complex ones check jacana.real_form(f)")
    slots = [slot for slot in slots if slot[2].dtype.kind == "f"]
    if not slots:
        raise InvalidInputError("there is no argument of floats to differentiate by")
    ends = np.cumsum([leaf.size for _, _, leaf in slots])
    results: list[tuple[tuple[int, ...], str]] = []

    def packed(x: Any) -> Any:
        leaves = {k: list(found) for k, (found, _) in given.items()}
        for (k, j, leaf), end in zip(slots, ends, strict=True):
            leaves[k][j] = np.reshape(x[end - leaf.size : end], leaf.shape)
        full = list(args)
        for k, (_, tree) in given.items():
            full[k] = trees.unflatten(tree, leaves[k])
        parts, tree = trees.flatten(function(*full))
        results[:] = [(np.shape(part), trees.leaf_name(tree, n)) for n, part in enumerate(parts)]
        return np.concatenate([np.ravel(part) for part in parts]) if parts else np.zeros(0)

    dtype = np.result_type(*(leaf.dtype for _, _, leaf in slots))
    x = np.concatenate([leaf.ravel() for _, _, leaf in slots]).astype(dtype)
    found = compare(packed, x, format=format, tolerance=tolerance, sample=sample, method=method)
    if found.worst is None:
        return found
    named = [f"{'x' if len(args) == 1 else f'x{k}'}{trees.leaf_name(given[k][1], j)}" for k, j, _ in slots]
    column = _spelled(int(found.worst.column[0]), [leaf.shape for *_, leaf in slots], named)
    row = _spelled(int(found.worst.row[0]), [shape for shape, _ in results], [f"y{name}" for _, name in results])
    return replace(found, names=(row, column))


def _spelled(k: int, shapes: Sequence[tuple[int, ...]], names: Sequence[str]) -> str:
    """``p['a'][2, 0]`` for the k-th number of several arrays."""
    for shape, name in zip(shapes, names, strict=True):
        size = int(np.prod(shape, dtype=np.int64))
        if k < size:
            return name + (f"[{', '.join(str(int(i)) for i in np.unravel_index(k, shape))}]" if shape else "")
        k -= size
    raise AssertionError("a row or column beyond the end")


def _as_matrix(found: Any, y_shape: tuple[int, ...], x_shape: tuple[int, ...]) -> Any:
    """The Jacobian as a float64 matrix, an ndarray or a csr_array of shape (y.size, x.size)."""
    size = (int(np.prod(y_shape, dtype=np.int64)), int(np.prod(x_shape, dtype=np.int64)))
    is_sparse = sparse.issparse(found)
    matrix = found.tocsr() if is_sparse else np.asarray(found)
    expected = size if is_sparse else (*y_shape, *x_shape)
    if matrix.shape != expected or matrix.dtype.kind not in "fiub":
        raise InvalidInputError(
            f"the Jacobian of a result of shape {y_shape} by an argument of shape {x_shape} has shape {expected}, "
            f"not {matrix.shape} of dtype {matrix.dtype}"
        )
    return matrix.astype(np.float64) if is_sparse else matrix.astype(np.float64).reshape(size)


class _Differences:
    """The function around one point: its differences along any direction, and what they say about a Jacobian."""

    def __init__(self, function: Callable[[Any], Any], x: NDArray[Any], tolerance: float) -> None:
        if x.dtype.kind != "f":
            raise InvalidInputError(f"x has dtype {x.dtype}, and only floats have a derivative; use .astype(float)")
        self.function, self.tolerance = function, tolerance
        self.shape = x.shape
        self.x: FloatArray = x.astype(np.float64).ravel()
        if not np.isfinite(self.x).all():
            raise InvalidInputError("x must be finite, or there are no differences around it")
        self.evaluations = 0
        y = self._array(self.x)
        self.y_shape = y.shape
        self.y: FloatArray = y.ravel()

    def _array(self, flat: FloatArray) -> FloatArray:
        self.evaluations += 1
        with np.errstate(all="ignore"):
            result = self.function(flat.reshape(self.shape).copy())
        # A tuple or dict of arrays, None, and the like are told from what NumPy takes for numbers.
        array = None if isinstance(result, (tuple, dict)) else np.asarray(result)
        if array is None or array.dtype.kind not in "fiub":
            raise InvalidInputError(f"the function must return one array of real numbers, not {_kind(result)}")
        return array.astype(np.float64)

    def __call__(self, flat: FloatArray) -> FloatArray:
        y = self._array(flat)
        if y.shape != self.y_shape:
            raise InvalidInputError(f"the result has shape {self.y_shape} at x and shape {y.shape} nearby")
        return y.ravel()

    def judge(self, matrix: Any, directions: Sequence[IntArray]) -> Comparison:
        """Compare in every direction: ``matrix`` says how y changes along it, and so do the differences."""
        scale = self._scale(matrix)
        row_scale = _row_largest(matrix, scale)
        wrong = unresolved = 0
        worst: tuple[tuple[float, float, float], int, IntArray] | None = None
        for columns in directions:
            v = np.zeros(self.x.size)
            v[columns] = scale[columns]
            expected = _along_columns(matrix, columns, v)
            seen = self.along(v, expected, row_scale)
            wrong += int(np.count_nonzero(seen.error > self.tolerance))
            unresolved += int(np.count_nonzero(seen.unresolved))
            if self.y.size:
                k = int(np.lexsort((np.abs(expected), seen.discrepancy, seen.error))[-1])
                rank = (float(seen.error[k]), float(seen.discrepancy[k]), float(abs(expected[k])))
                if worst is None or rank > worst[0]:
                    worst = (rank, k, columns)
        stored = int(matrix.nnz) if sparse.issparse(matrix) else int(matrix.size)
        entry = None if worst is None else self._entry(matrix, worst[1], worst[2], scale, row_scale)
        return Comparison(
            x_shape=self.shape,
            y_shape=self.y_shape,
            stored=stored,
            compared=self.y.size * len(directions),
            wrong=wrong,
            unresolved=unresolved,
            directions=len(directions),
            evaluations=self.evaluations,
            tolerance=self.tolerance,
            worst=entry,
        )

    def along(self, v: FloatArray, expected: FloatArray, row_scale: FloatArray) -> _Seen:
        """The derivative of y along v by differences, and how it agrees with the expected one."""
        best = np.full(self.y.size, np.nan)
        uncertainty = np.full(self.y.size, np.inf)
        previous: list[FloatArray] = []
        for level in range(MORE_LEVELS):
            h = 2.0 ** (-10 - 2 * level)
            with np.errstate(all="ignore"):
                central = (self(self.x + h * v) - self(self.x - h * v)) / (2.0 * h)
                row = [central]
                error = np.full(self.y.size, np.inf)
                estimate = central
                for order, before in enumerate(previous, start=1):
                    power = 16.0**order  # the step shrinks by 4, and the error series goes in even powers
                    row.append((power * row[-1] - before) / (power - 1.0))
                    change = np.maximum(np.abs(row[-1] - row[-2]), np.abs(row[-1] - before))
                    better = change < error
                    estimate, error = np.where(better, row[-1], estimate), np.where(better, change, error)
                doubt = 2.0 * error + 4.0 * np.finfo(np.float64).eps * np.abs(self.y) / h
                # Small steps are believed before large ones, over which a narrow feature may be missed.
                needed = 0.1 * self.tolerance * np.fmax(np.abs(estimate), NEGLIGIBLE * row_scale)
                take = ((doubt <= needed) | (doubt < uncertainty)) & np.isfinite(estimate)
                best, uncertainty = np.where(take, estimate, best), np.where(take, doubt, uncertainty)
            previous = row
            seen = self._seen(best, uncertainty, expected, row_scale)
            agrees = bool((seen.error <= self.tolerance).all())
            if agrees and (level + 1 >= LEVELS or (level + 1 >= ENOUGH and not seen.unresolved.any())):
                break
        return seen

    def _seen(self, best: FloatArray, uncertainty: FloatArray, expected: FloatArray, row_scale: FloatArray) -> _Seen:
        with np.errstate(all="ignore"):
            size = np.fmax(np.fmax(np.abs(expected), np.abs(best)), NEGLIGIBLE * row_scale)
            size = np.where(size > 0.0, size, 1.0)
            gap = np.abs(expected - best)
            # No finite difference: nothing is known. A Jacobian that is not finite where the differences are is wrong.
            gap = np.where(np.isnan(best), 0.0, np.where(np.isfinite(expected), gap, np.inf))
            error = np.where(np.isinf(gap), np.inf, np.maximum(gap - uncertainty, 0.0) / size)
            both_zero = (expected == 0.0) & (best == 0.0)
            resolved = np.isfinite(uncertainty) & (uncertainty <= self.tolerance * size)
            unresolved = (error <= self.tolerance) & ~resolved & ~both_zero
            return _Seen(best, uncertainty, error, np.where(np.isinf(gap), np.inf, gap / size), unresolved)

    def _scale(self, matrix: Any) -> FloatArray:
        """For each variable a power of two of its magnitude, so that steps are exact in binary.

        A variable that is zero or nearly so gets a scale at which, by the Jacobian, it changes the results.
        """
        magnitude = np.abs(self.x)
        typical = float(np.median(magnitude[magnitude > 0.0])) if magnitude.any() else 1.0
        scale: FloatArray = np.where(magnitude > 0.0, magnitude, typical)
        if self.y.size and self.x.size:
            with np.errstate(all="ignore"):
                largest = _row_largest(matrix, scale) + np.abs(self.y)
                weight = np.where((largest > 0.0) & np.isfinite(largest), 1.0 / largest, 0.0)
                influence = _row_largest(matrix.T, weight) * scale
                raised = np.where(influence > 0.0, scale * INFLUENCE / influence, 1.0)
            scale = np.maximum(scale, np.minimum(raised, max(1.0, float(magnitude.max()))))
        exponents: FloatArray = np.floor(np.log2(scale))
        return np.asarray(2.0**exponents)

    def _entry(self, matrix: Any, row: int, columns: IntArray, scale: FloatArray, row_scale: FloatArray) -> Entry:
        """The single entry of ``row`` that a discrepancy along ``columns`` comes from."""
        while len(columns) > 1:
            half = len(columns) // 2
            columns = max((columns[:half], columns[half:]), key=lambda c: self._gap(matrix, row, c, scale, row_scale))
        column = int(columns[0])
        v = np.zeros(self.x.size)
        v[column] = scale[column]
        expected = _along_columns(matrix, columns, v)
        seen = self.along(v, expected, row_scale)
        return Entry(
            tuple(int(k) for k in np.unravel_index(row, self.y_shape)) if self.y_shape else (),
            tuple(int(k) for k in np.unravel_index(column, self.shape)) if self.shape else (),
            float(expected[row] / scale[column]),
            float(seen.difference[row] / scale[column]),
            float(seen.uncertainty[row] / scale[column]),
            float(seen.error[row]),
        )

    def _gap(
        self, matrix: Any, row: int, columns: IntArray, scale: FloatArray, row_scale: FloatArray
    ) -> tuple[float, float, float]:
        v = np.zeros(self.x.size)
        v[columns] = scale[columns]
        expected = _along_columns(matrix, columns, v)
        seen = self.along(v, expected, row_scale)
        # Where both halves agree, the one that has an entry in the row.
        return float(seen.error[row]), float(abs(expected[row])), float(seen.discrepancy[row])


class _ComplexSteps(_Differences):
    """Complex steps where they apply: no subtraction, so no digit is lost."""

    def along(self, v: FloatArray, expected: FloatArray, row_scale: FloatArray) -> _Seen:
        """One evaluation off the real axis, and two on it that tell whether that was allowed."""
        h = 1e-30
        try:
            with warnings.catch_warnings(), np.errstate(all="ignore"):
                warnings.simplefilter("error", np.exceptions.ComplexWarning)
                self.evaluations += 1
                moved = np.asarray(self.function((self.x + 1j * h * v).reshape(self.shape)))
            steep: FloatArray = moved.imag.ravel() / h if moved.shape == self.y_shape else np.empty(0)
        except Exception:
            # Whatever a function does with numbers that it was not written for: differences need none.
            steep = np.empty(0)
        if steep.shape != self.y.shape or moved.dtype.kind != "c":
            return super().along(v, expected, row_scale)
        step = 2.0**-17
        with np.errstate(all="ignore"):
            central = (self(self.x + step * v) - self(self.x - step * v)) / (2.0 * step)
            size = np.fmax(np.fmax(np.abs(steep), np.abs(central)), NEGLIGIBLE * row_scale)
            noise = 4.0 * np.finfo(np.float64).eps * np.abs(self.y) / step
            same = np.abs(steep - central) <= 1e-3 * size + noise
        if not same.all():
            return super().along(v, expected, row_scale)
        return self._seen(steep, 32.0 * np.finfo(np.float64).eps * np.abs(steep), expected, row_scale)


class _Seen(NamedTuple):
    """The derivative along one direction, for each result; errors relative to the entry."""

    difference: FloatArray
    uncertainty: FloatArray
    error: FloatArray
    discrepancy: FloatArray
    unresolved: NDArray[np.bool_]


def _along_columns(matrix: Any, columns: IntArray, v: FloatArray) -> FloatArray:
    """``matrix @ v`` for a v that is zero elsewhere, without ``0 * inf`` from the other columns."""
    part = matrix[:, columns]
    if sparse.issparse(part):
        return np.asarray(part @ v[columns])
    with np.errstate(all="ignore"):
        return np.asarray(np.sum(part * v[columns], axis=1))


def _row_largest(matrix: Any, weight: FloatArray) -> FloatArray:
    """``max over columns of |matrix| * weight`` for each row; entries that are not finite are left out."""
    rows, columns = matrix.shape
    if rows == 0 or columns == 0:
        return np.zeros(rows)
    if not sparse.issparse(matrix):
        with np.errstate(all="ignore"):
            sized = np.abs(matrix) * weight
        return np.asarray(np.max(np.where(np.isfinite(sized), sized, 0.0), axis=1))
    sized = abs(matrix.tocsr())
    sized.data = sized.data * weight[sized.indices]
    sized.data = np.where(np.isfinite(sized.data), sized.data, 0.0)
    return np.asarray(sized.max(axis=1).toarray()).ravel()


def _directions(matrix: Any) -> list[IntArray]:
    """Sets of columns that share no row: one column each, unless the matrix is sparse enough to do better."""
    columns = matrix.shape[1]
    if sparse.issparse(matrix):
        fullest = int(np.diff(matrix.indptr).max(initial=0))
        if 2 * fullest < columns:
            return _coloured(matrix)
    return [np.array([k]) for k in range(columns)]


def _coloured(matrix: Any) -> list[IntArray]:
    """Greedy colouring in the order of the columns; the colours that a row has seen are bits of 64-bit words."""
    by_column = matrix.tocsc()
    seen = np.zeros((matrix.shape[0], 1), dtype=np.uint64)
    colour = np.empty(matrix.shape[1], dtype=np.intp)
    for k in range(matrix.shape[1]):
        rows = by_column.indices[by_column.indptr[k] : by_column.indptr[k + 1]]
        word, bit = _first_free(np.bitwise_or.reduce(seen[rows], axis=0).tolist())
        if word == seen.shape[1]:
            seen = np.hstack((seen, np.zeros((matrix.shape[0], 1), dtype=np.uint64)))
        seen[rows, word] |= np.uint64(1 << bit)
        colour[k] = 64 * word + bit
    order = np.argsort(colour, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(colour[order])) + 1)


def _first_free(words: Iterable[int]) -> tuple[int, int]:
    count = 0
    for word in words:
        free = ~word & (2**64 - 1)
        if free:
            return count, (free & -free).bit_length() - 1
        count += 1
    return count, 0


def _kind(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"an array of dtype {value.dtype}"
    return "None" if value is None else f"something of type {type(value).__name__}"
