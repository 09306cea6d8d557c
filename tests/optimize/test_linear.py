"""Linear solvers: every one of them against dense normal equations, on every structure that it is for."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import aslinearoperator

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.optimize import DenseCholesky, DenseQR, LevenbergMarquardt, Linearization, Problem
from jacana.optimize.controls import Damping
from jacana.optimize.linear import iterative_schur, schur, small
from jacana.optimize.linear.elements import PatternCache, elements_of
from jacana.optimize.linear.elimination import find_elimination, lower_roots
from jacana.optimize.linear.iterative import LSMR, ConjugateGradients
from jacana.optimize.linear.iterative_schur import IterativeSchur
from jacana.optimize.linear.normal import SolveFailed
from jacana.optimize.linear.schur import Schur
from jacana.optimize.linear.sparse import SparseCholesky
from jacana.optimize.solvers import choose_linear_solver


def camera_like(seed=0, cameras=3, points=11, extra=0):
    """Residuals in pairs, each with four columns of a camera and two of a point; some rows see cameras only."""
    rng = np.random.default_rng(seed)
    seen = [(c, p) for p in range(points) for c in range(cameras) if rng.random() < 0.7 or c == p % cameras]
    rows = []
    for c, p in seen:
        for _ in range(2):
            row = np.zeros(4 * cameras + 2 * points)
            row[4 * c : 4 * c + 4] = rng.standard_normal(4)
            row[4 * cameras + 2 * p :][:2] = rng.standard_normal(2)
            rows.append(row)
    for _ in range(extra):
        row = np.zeros(4 * cameras + 2 * points)
        row[: 4 * cameras] = rng.standard_normal(4 * cameras)
        rows.append(row)
    return sparse.csr_array(np.array(rows))


def chain(n=40, seed=1):
    rng = np.random.default_rng(seed)
    return sparse.csr_array(sparse.diags_array([rng.random(n) + 2.0, rng.random(n - 1)], offsets=[0, 1]))


def poses(seed=2, count=15):
    """Pairs of poses of three numbers each: neighbours, and some far apart."""
    rng = np.random.default_rng(seed)
    pairs = [(k, k + 1) for k in range(count - 1)] + [(0, 7), (3, 12), (5, 14)]
    rows = []
    for i, j in pairs:
        for _ in range(3):
            row = np.zeros(3 * count)
            row[3 * i : 3 * i + 3], row[3 * j : 3 * j + 3] = rng.standard_normal((2, 3))
            rows.append(row)
    anchor = np.zeros((3, 3 * count))
    anchor[:, :3] = np.eye(3)
    return sparse.csr_array(np.concatenate((np.array(rows), anchor)))


def scattered(m=60, n=25, seed=3):
    return sparse.csr_array(
        sparse.random_array((m, n), density=0.15, rng=np.random.default_rng(seed)) + sparse.eye_array(m, n)
    )


PATTERNS = {
    "cameras": camera_like(),
    "cameras and rows of cameras": camera_like(4, extra=5),
    "chain": chain(),
    "poses": poses(),
    "scattered": scattered(),
    "empty column": sparse.csr_array(np.array([[1.0, 0.0, 2.0], [3.0, 0.0, 1.0], [0.0, 0.0, 1.0]])),
}
GENERAL = {
    "qr": DenseQR(),
    "cholesky": DenseCholesky(),
    "fronts": SparseCholesky("fronts"),
    "superlu": SparseCholesky("superlu"),
    "sparse": SparseCholesky(),
    "lsmr": LSMR(tolerance=1e-14),
    "cg": ConjugateGradients(tolerance=1e-13),
}


def expected(jacobian, residual, diagonal):
    dense = jacobian.toarray()
    return np.linalg.solve(dense.T @ dense + np.diag(diagonal), -dense.T @ residual)


@pytest.mark.parametrize("damping", [1e-3, 2.0])
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("solver", GENERAL)
def test_damped_steps_solve_the_normal_equations(solver, pattern, damping):
    jacobian = PATTERNS[pattern]
    m, n = jacobian.shape
    rng = np.random.default_rng(5)
    residual, scale = rng.standard_normal(m), np.exp(rng.uniform(-1.0, 1.0, n))
    extra = rng.random(n) * (rng.random(n) < 0.3)
    point = Linearization.of(residual, jacobian)
    factors = GENERAL[solver].factorise(point, scale, point.norm, extra)
    step = factors.damped(damping)
    right = expected(jacobian, residual, damping * scale**2 + extra)
    np.testing.assert_allclose(step.step, right, rtol=1e-7, atol=1e-9)
    # What the step says of itself, from the definitions.
    assert step.length == pytest.approx(np.linalg.norm(scale * right), rel=1e-7)
    image = np.linalg.norm(jacobian @ right) ** 2 + extra @ right**2
    assert step.linear_norm == pytest.approx(np.sqrt(image), rel=1e-7)
    assert step.slope == pytest.approx(-(jacobian.T @ residual) @ right / point.norm**2, rel=1e-7)


@pytest.mark.parametrize("solver", [Schur(), IterativeSchur(tolerance=1e-14)])
@pytest.mark.parametrize("pattern", ["cameras", "cameras and rows of cameras"])
def test_schur_complement(pattern, solver):
    jacobian = PATTERNS[pattern]
    rng = np.random.default_rng(6)
    residual = rng.standard_normal(jacobian.shape[0])
    diagonal = 0.1 + rng.random(jacobian.shape[1])
    point = Linearization.of(residual, jacobian)
    assert solver.suits(point)
    factors = solver.factorise(point, np.sqrt(diagonal), 1.0)
    np.testing.assert_allclose(factors.damped(1.0).step, expected(jacobian, residual, diagonal), rtol=1e-9, atol=1e-12)
    other = rng.standard_normal(jacobian.shape[1])
    dense = jacobian.toarray()
    right = np.linalg.solve(dense.T @ dense + np.diag(diagonal), -other)
    np.testing.assert_allclose(factors.answered(other, 1.0), right, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("blocks", "chunk"), [(256, 2**19), (3, 2**19), (4, 40), (1, 1)])
def test_schur_complement_in_chunks(monkeypatch, blocks, chunk):
    # Points that a camera sees twice, once together with another camera: entries add up, in elements of two kinds.
    monkeypatch.setattr(schur, "_BLOCKS", blocks)
    monkeypatch.setattr(schur, "_CHUNK", chunk)
    rng = np.random.default_rng(8)
    dense = camera_like(8, cameras=4, points=13, extra=1).toarray()
    more = np.zeros((15, dense.shape[1]))
    for k in range(5):
        columns = [*range(4 * (k % 3), 4 * (k % 3) + 8), 16 + 2 * k, 17 + 2 * k]
        more[3 * k : 3 * k + 3, columns] = rng.standard_normal((3, len(columns)))
    jacobian = sparse.csr_array(np.concatenate((dense, more)))
    residual = rng.standard_normal(jacobian.shape[0])
    point = Linearization.of(residual, jacobian)
    solver = Schur()
    plan = solver._plans(jacobian)
    assert plan.elimination.size * plan.elimination.eliminated.shape[1] == 26
    assert len(plan.elimination.parts) > 1
    assert (len(plan.chunks) > 1) == (blocks < 13)
    step = solver.factorise(point, np.ones(jacobian.shape[1]), 1.0).damped(0.3).step
    np.testing.assert_allclose(step, expected(jacobian, residual, np.full(jacobian.shape[1], 0.3)), rtol=1e-9)


def test_schur_complement_by_conjugate_gradients():
    # Cameras of four and of five numbers, whose columns are mixed with those of points; points that a camera sees
    # twice, once together with another one; a camera that sees nothing but itself.
    rng = np.random.default_rng(11)
    dense = camera_like(8, cameras=4, points=13, extra=0).toarray()
    n = dense.shape[1]
    more = np.zeros((15, n))
    for k in range(5):
        columns = [*range(4 * (k % 3), 4 * (k % 3) + 8), 16 + 2 * k, 17 + 2 * k]
        more[3 * k : 3 * k + 3, columns] = rng.standard_normal((3, len(columns)))
    dense = np.concatenate((dense, more))
    wide = np.where((dense[:, :4] != 0.0).any(axis=1)[:, None], rng.standard_normal((len(dense), 1)), 0.0)
    alone = np.zeros((4, n + 4))
    alone[:, n + 1 :] = rng.standard_normal((4, 3))
    dense = np.concatenate((np.concatenate((dense, wide, np.zeros((len(dense), 3))), axis=1), alone))
    jacobian = sparse.csr_array(dense[:, rng.permutation(n + 4)])
    residual = rng.standard_normal(jacobian.shape[0])
    point = Linearization.of(residual, jacobian)
    solver = IterativeSchur(tolerance=1e-14)
    plan = solver._plans(jacobian)
    assert plan.elimination.size * plan.elimination.eliminated.shape[1] == 26
    assert sorted(blocks.columns.shape for blocks in plan.diagonals) == [(1, 3), (1, 5), (3, 4)]
    diagonal = 0.1 + rng.random(n + 4)
    factors = solver.factorise(point, np.sqrt(diagonal), 1.0)
    right = expected(jacobian, residual, diagonal)
    np.testing.assert_allclose(factors.damped(1.0).step, right, rtol=1e-9)
    np.testing.assert_allclose(Schur().factorise(point, np.sqrt(diagonal), 1.0).damped(1.0).step, right, rtol=1e-9)
    # The preconditioner is the inverse of the diagonal blocks of the complement: made dense, they are one.
    normal = jacobian.toarray().T @ jacobian.toarray() + np.diag(diagonal)
    kept, gone = plan.elimination.kept, plan.elimination.eliminated.ravel()
    mixed = normal[np.ix_(gone, kept)]
    complement = normal[np.ix_(kept, kept)] - mixed.T @ np.linalg.solve(normal[np.ix_(gone, gone)], mixed)
    known = iterative_schur._Products(plan, jacobian.data)
    root = lower_roots(known.inner, diagonal[plan.elimination.eliminated])
    inverse = iterative_schur._InverseRoot(plan, known, root, diagonal[kept])
    scaled = np.array([inverse(row) for row in np.array([inverse(row) for row in complement]).T])
    for blocks in plan.diagonals:
        for columns in blocks.columns:
            np.testing.assert_allclose(scaled[np.ix_(columns, columns)], np.eye(columns.size), atol=1e-12)


def test_conjugate_gradients_stop_whatever_the_units_are():
    jacobian = camera_like(12, cameras=5, points=40)
    residual = np.random.default_rng(12).standard_normal(jacobian.shape[0])
    units = 10.0 ** np.tile([6.0, -6.0, 0.0, 3.0], jacobian.shape[1] // 4)
    steps = []
    for factor in (np.ones(units.size), units):
        point = Linearization.of(residual, sparse.csr_array(jacobian @ sparse.diags_array(factor)))
        steps.append(factor * IterativeSchur(tolerance=1e-4).factorise(point, factor, 1.0).damped(0.1).step)
    np.testing.assert_allclose(steps[0], steps[1], rtol=1e-6)


def test_conjugate_gradients_on_blocks_need_some():
    with pytest.raises(InvalidInputError, match="no blocks"):
        IterativeSchur().factorise(Linearization.of(np.ones(4), np.eye(4)[:, :3]), np.ones(3), 1.0)


def test_elements_of_even_groups_and_of_groups_that_are_apart():
    rows = [[0, 2], [0, 2], [1, 3], [1, 3], [0, 3], [0, 3]]
    matrix = sparse.csr_array(
        np.array([[float(k + c + 1) if c in row else 0.0 for c in range(4)] for k, row in enumerate(rows)])
    )
    (even,) = elements_of(matrix)
    assert even.columns.tolist() == [[0, 2], [1, 3], [0, 3]]
    assert even.rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    apart = sparse.csr_array(matrix[[0, 2, 1, 3, 4, 5]])
    (element,) = elements_of(apart)
    assert element.columns.tolist() == [[0, 2], [1, 3], [0, 3]]
    assert element.rows.tolist() == [[0, 2], [1, 3], [4, 5]]


def test_schur_eliminates_the_small_blocks():
    plan = Schur()._plans(camera_like())
    assert plan.elimination.size == 2
    assert plan.elimination.eliminated.shape == (2, 11)
    np.testing.assert_array_equal(plan.elimination.kept, np.arange(12))


def turned_places(n, more):
    """Residuals of poses that have nothing to do with one another; `more`: some see half of a pose only."""
    rng = np.random.default_rng(n)
    target = rng.standard_normal((n, 3))

    def residual(p):
        w, t = p[:, :3], p[:, 3:]
        off = t + np.cross(w, t) + 0.5 * np.cross(w, np.cross(w, t)) - target
        return np.concatenate((off, 0.1 * w), axis=1) if more else off

    return residual, rng.standard_normal((n, 6))


@pytest.mark.parametrize("solver", ["schur", "schur-cg", None])
@pytest.mark.parametrize("more", [False, True])
def test_schur_where_blocks_have_nothing_in_common(solver, more):
    residual, start = turned_places(40, more)
    found = jc.least_squares(residual, start, linear_solver=solver)
    assert found.success
    expected = jc.least_squares(residual, start, linear_solver="sparse")
    assert found.cost == pytest.approx(expected.cost, abs=1e-25)


def test_schur_is_not_chosen_where_much_is_left_that_is_sparse():
    residual, start = turned_places(400, True)
    values, jacobian = jc.value_and_jacobian(residual, format="csr")(start)
    point = Linearization.of(values.ravel(), jacobian)
    plan = find_elimination(jacobian)
    assert plan.kept.size == 1200
    assert plan.filled() == pytest.approx(400 * (3 * 3 + 3) / 1200**2)
    assert not Schur().suits(point)
    assert isinstance(choose_linear_solver(None, point), SparseCholesky)


@pytest.mark.parametrize("pattern", ["scattered", "chain"])
def test_schur_refuses_what_has_no_blocks(pattern):
    point = Linearization.of(np.ones(PATTERNS[pattern].shape[0]), PATTERNS[pattern])
    if Schur().suits(point):
        return  # a chain may be cut in two: every second number is eliminated
    with pytest.raises(InvalidInputError, match="no blocks"):
        Schur().factorise(point, np.ones(point.shape[1]), 1.0)


def test_schur_with_points_in_any_order_and_columns_mixed():
    jacobian = camera_like(7)
    rng = np.random.default_rng(7)
    shuffled = sparse.csr_array(jacobian[rng.permutation(jacobian.shape[0])][:, rng.permutation(jacobian.shape[1])])
    shuffled.sort_indices()
    residual = rng.standard_normal(jacobian.shape[0])
    point = Linearization.of(residual, shuffled)
    wanted = expected(shuffled, residual, np.full(jacobian.shape[1], 0.5))
    step = Schur().factorise(point, np.ones(jacobian.shape[1]), 1.0).damped(0.5).step
    np.testing.assert_allclose(step, wanted, rtol=1e-9)
    # Entries of a row in any order too.
    falling = [np.arange(b, e)[::-1] for b, e in zip(shuffled.indptr[:-1], shuffled.indptr[1:], strict=True)]
    places = np.concatenate(falling)
    turned = sparse.csr_array((shuffled.data[places], shuffled.indices[places], shuffled.indptr), shape=shuffled.shape)
    assert not turned.has_sorted_indices
    point = Linearization.of(residual, turned)
    assert Schur().suits(point)
    step = Schur().factorise(point, np.ones(jacobian.shape[1]), 1.0).damped(0.5).step
    np.testing.assert_allclose(step, wanted, rtol=1e-9)


def test_operator_by_lsmr_and_conjugate_gradients():
    jacobian = poses()
    residual = np.random.default_rng(8).standard_normal(jacobian.shape[0])
    point = Linearization.of(residual, aslinearoperator(jacobian))
    right = expected(jacobian, residual, np.full(jacobian.shape[1], 0.1))
    for solver in (LSMR(tolerance=1e-14), ConjugateGradients(tolerance=1e-13)):
        step = solver.factorise(point, np.ones(jacobian.shape[1]), 1.0).damped(0.1).step
        np.testing.assert_allclose(step, right, rtol=1e-7, atol=1e-10)
    for solver in (DenseQR(), SparseCholesky()):
        with pytest.raises(InvalidInputError, match="operator"):
            solver.factorise(point, np.ones(jacobian.shape[1]), 1.0)


@pytest.mark.parametrize("solver", [DenseCholesky(), SparseCholesky("fronts"), SparseCholesky("superlu")])
def test_singular_equations_are_damped_a_little(solver):
    jacobian = sparse.csr_array(np.array([[1.0, 1.0, 0.0], [2.0, 2.0, 0.0], [0.0, 0.0, 3.0]]))
    residual = np.array([1.0, 2.0, 3.0])
    point = Linearization.of(residual, jacobian)
    step = solver.factorise(point, point.norms, point.norm).full.step
    np.testing.assert_allclose(jacobian @ step, [-1.0, -2.0, -3.0], rtol=1e-6)


@pytest.mark.parametrize("solver", [DenseQR(), DenseCholesky(), SparseCholesky()])
def test_not_finite_is_an_error(solver):
    point = Linearization.of(np.ones(2), sparse.csr_array(np.array([[1.0, np.nan], [2.0, 1.0]])))
    with pytest.raises(np.linalg.LinAlgError, match="finite"):
        solver.factorise(point, np.ones(2), 1.0)


@pytest.mark.parametrize("fraction", [0.9, 0.3, 1e-3])
def test_steps_within_a_radius_agree(fraction):
    jacobian = poses()
    residual = np.random.default_rng(9).standard_normal(jacobian.shape[0])
    point = Linearization.of(residual, jacobian)
    dense = DenseQR().factorise(point, point.norms, point.norm)
    other = SparseCholesky("fronts").factorise(point, point.norms, point.norm)
    radius = fraction * dense.full.length
    for factors in (dense, other):
        trial = factors.within(radius)
        assert 0.9 * radius <= trial.length <= 1.1 * radius
        right = expected(jacobian, residual, trial.damping * point.norms**2)
        np.testing.assert_allclose(trial.step, right, rtol=1e-6, atol=1e-10)
    np.testing.assert_allclose(dense.cauchy.step, other.cauchy.step, rtol=1e-9, atol=1e-12)


def test_elements_put_the_matrix_together_again():
    for jacobian in PATTERNS.values():
        rebuilt = np.zeros(jacobian.shape)
        for element in elements_of(jacobian):
            blocks = element.blocks(jacobian.data)
            rebuilt[element.rows[:, :, None], element.columns[:, None, :]] = blocks
        np.testing.assert_array_equal(rebuilt, jacobian.toarray())


def test_plans_are_made_once_for_a_pattern():
    made = []
    cache = PatternCache(lambda jacobian: made.append(jacobian.shape) or len(made))
    first = poses()
    again = sparse.csr_array((2.0 * first.data, first.indices.copy(), first.indptr.copy()), shape=first.shape)
    assert [cache(first), cache(again), cache(chain()), cache(first)] == [1, 1, 2, 1]


def test_unknown_backend():
    with pytest.raises(InvalidInputError, match="no backend 'cuda'"):
        SparseCholesky("cuda")


def test_the_last_factorisation_is_foreseen(monkeypatch):
    # Where steps shrink fast, the next one need not be computed to know that the search has arrived.
    jacobian = camera_like(9, cameras=4, points=20)
    rng = np.random.default_rng(9)
    target = rng.standard_normal(jacobian.shape[1])
    noise = 1e-4 * rng.standard_normal(jacobian.shape[0])

    def residual(x):
        inner = jacobian @ (x - target)
        return inner + 0.05 * inner**2 + noise

    def linearise(x):
        inner = jacobian @ (x - target)
        scaled = sparse.csr_array(sparse.diags_array(1.0 + 0.1 * inner) @ jacobian)
        scaled.sort_indices()
        return residual(x), scaled

    solved = []
    factorised = schur._solver
    monkeypatch.setattr(schur, "_solver", lambda *args: solved.append(1) or factorised(*args))
    method = LevenbergMarquardt(linear_solver=Schur(), control=Damping(), ftol=1e-10)
    problem = Problem(residual, linearise)
    state = method.init(problem, target + 0.3 * rng.standard_normal(target.size))
    while (outcome := method.terminate(state)) is None:
        state = method.step(problem, state)
    assert outcome > 0
    assert len(solved) == state.iteration
    point = Linearization.of(*linearise(state.x))
    full = np.linalg.lstsq(point.jacobian.toarray(), -point.residual)[0]
    promised = np.sum((point.jacobian @ full) ** 2) / point.norm**2
    assert promised <= method.ftol


@pytest.mark.parametrize(("m", "n"), [(5, 3), (0, 4), (700, 64), (501, 150), (90, 530)])
def test_products_and_factors_in_pieces(m, n):
    rows = np.random.default_rng(m).standard_normal((m, n))
    np.testing.assert_allclose(small.gram(rows), rows.T @ rows, rtol=1e-12, atol=1e-11)
    matrix = rows.T @ rows + n * np.eye(n)
    given = np.tril(matrix)  # only this triangle is read
    np.testing.assert_allclose(np.tril(small.cholesky(given)), np.linalg.cholesky(matrix), rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("column", [2, 100])
def test_factors_in_pieces_of_what_is_not_positive_definite(column):
    matrix = 3.0 * np.eye(150)
    matrix[column, column] = -1.0
    with pytest.raises(SolveFailed):
        small.cholesky(matrix)


@pytest.mark.parametrize(("n", "m"), [(3, 5), (60, 300), (90, 20), (64, 1)])
def test_triangles_and_vectors_in_pieces(n, m):
    rng = np.random.default_rng(n)
    upper = np.triu(rng.standard_normal((n, n)) / n) + 2.0 * np.eye(n)
    below = rng.standard_normal((m, n))
    garbage = upper + np.tril(rng.standard_normal((n, n)), -1)  # is not read
    solved = small.solved_below(garbage, below)
    np.testing.assert_allclose(upper.T @ solved, below.T, rtol=1e-10, atol=1e-12)
    vector = rng.standard_normal(m)
    np.testing.assert_allclose(small.times(vector, below), vector @ below, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("m", "n"), [(864, 20), (1500, 53), (200, 70)])
def test_tall_matrices_are_factorised_stack_by_stack(m, n):
    from jacana.optimize.linear.dense import factorise

    rng = np.random.default_rng(m)
    jacobian, residual = rng.standard_normal((m, n)) * np.geomspace(1e-3, 1e3, n), rng.standard_normal(m)
    scale = np.linalg.norm(jacobian, axis=0)
    found = factorise(jacobian, residual, scale)
    values = np.linalg.svd(jacobian / scale, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, values, rtol=1e-12)
    step = np.linalg.lstsq(jacobian / scale, -residual)[0]
    np.testing.assert_allclose(found.full.step * scale, step, rtol=1e-10)
    jacobian[:, 3] = jacobian[:, 5] * 2.0
    assert factorise(jacobian, residual, scale).rank == n - 1
    jacobian[7, 2] = np.nan
    with pytest.raises(np.linalg.LinAlgError):
        factorise(jacobian, residual, scale)
