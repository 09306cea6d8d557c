"""Equal eigenvalues, deficient ranks, norms of nothing: right where there is a derivative, else NaN or an error."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
from hypothesis import given
from hypothesis import strategies as st
from linalg_helpers import SPD, TALL, flat
from support import close, examples

import jacana as jc
from jacana.errors import DifferentiationError

TURN = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
SPECTRA = [[1, 1, 2, 2], [2, 2, 2, 2], [1, 1 + 1e-9, 2, 2 + 1e-5], [1, 1 + 3e-4, 2, 3], [1, 2, 3, 4.5]]
OTHER = np.random.default_rng(1).normal(size=(4, 4))


def symmetric(x):
    return (x + x.T) / 2


def with_spectrum(values):
    a = (TURN * np.array(values, dtype=float)) @ TURN.T
    return (a + a.T) / 2


def by_eigenvectors(function, write):
    def value(x):
        w, v = np.linalg.eigh(symmetric(x))
        return write(function(w), v)

    return value


WRITTEN = {
    "columns": lambda h, v: (v * h) @ v.T,
    "diagonal": lambda h, v: v @ np.diag(h) @ v.T,
    "rows": lambda h, v: v @ (h[:, None] * v.T),
    "einsum": lambda h, v: np.einsum("ij,j,kj->ik", v, h, v),
    "divided": lambda h, v: -(v / (1 / h)) @ -v.T,
    "applied": lambda h, v: v @ (h[:, None] * (v.T @ OTHER)),
}


@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize("write", WRITTEN.values(), ids=list(WRITTEN))
def test_functions_by_eigenvectors_at_equal_eigenvalues(write, values):
    a = with_spectrum(values)
    derivative = jc.jacobian(by_eigenvectors(lambda w: np.exp(-w) + w * w, write))(a)
    exact = jc.jacobian(lambda x: scipy.linalg.expm(-symmetric(x)) + symmetric(x) @ symmetric(x))(a)
    if write is WRITTEN["applied"]:
        exact = np.einsum("ijkl,jm->imkl", exact, OTHER)
    close(derivative, exact, 1e-11)


@pytest.mark.parametrize("values", SPECTRA)
@pytest.mark.parametrize(
    ("by_values", "smooth"),
    [
        (lambda x: np.log(np.linalg.eigvalsh(x)).sum(), lambda x: np.linalg.slogdet(x)[1]),
        (lambda x: np.exp(np.linalg.eigh(x)[0]).sum(), lambda x: np.trace(scipy.linalg.expm(x))),
        (lambda x: np.sum(np.linalg.eigvalsh(x) ** 2), lambda x: np.sum(x * x)),
        (lambda x: np.sum(1 / np.linalg.eigvalsh(x, "U")), lambda x: np.trace(np.linalg.inv(x))),
    ],
)
def test_traces_of_functions_have_gradient_and_hessian(by_values, smooth, values):
    a = with_spectrum(values)
    close(jc.grad(lambda x: by_values(symmetric(x)))(a), jc.grad(lambda x: smooth(symmetric(x)))(a), 1e-12)
    hessian = jc.hessian(lambda x: by_values(symmetric(x)))(a)
    close(hessian, jc.hessian(lambda x: smooth(symmetric(x)))(a), 1e-10)


def test_product_of_eigenvalues():
    # The gradient is that of the determinant; the second derivative is not found element by element.
    a = with_spectrum([1, 1, 2, 3])
    close(jc.grad(lambda x: np.prod(np.linalg.eigvalsh(symmetric(x))))(a), jc.grad(np.linalg.det)(a), 1e-12)
    assert np.isnan(jc.hessian(lambda x: np.prod(np.linalg.eigvalsh(symmetric(x))))(a)).any()


def test_what_has_no_derivative_at_equal_eigenvalues_is_nan():
    a = with_spectrum([1, 1, 2, 3])
    assert np.isnan(jc.jacobian(lambda x: np.linalg.eigh(symmetric(x))[1])(a)).any()
    # Weights that treat equal eigenvalues differently: by number, and by a value of each.
    for write in (lambda w, v: (v * np.arange(4.0)) @ v.T, lambda w, v: (v * (w * np.arange(4.0))) @ v.T):
        assert np.isnan(jc.jacobian(lambda x, f=write: f(*np.linalg.eigh(symmetric(x))))(a)).any()
    # A second derivative of a matrix function by its eigenvectors: not smooth to them, NaN and not a number.
    h = jc.hessian(lambda x: np.trace(by_eigenvectors(np.exp, WRITTEN["columns"])(x) @ OTHER))(a)
    assert np.isnan(h).any()
    singular = jc.jacobian(lambda x: np.linalg.svd(x)[0])(np.eye(3))
    assert np.isnan(singular).any()


def test_symmetric_functions_of_all_eigenvalues():
    a = with_spectrum([1, 1, 2, 3])

    def normalised(x):
        w, v = np.linalg.eigh(symmetric(x))
        h = np.exp(w - w.max())
        return (v * (h / h.sum())) @ v.T

    def exact(x):
        e = scipy.linalg.expm(symmetric(x))
        return e / np.trace(e)

    close(jc.jacobian(normalised)(a), jc.jacobian(exact)(a), 1e-12)


def test_batches_with_one_tie():
    batch = np.stack([with_spectrum([1, 1, 2, 3]), with_spectrum([1, 2, 3, 4])])

    def function(x):
        w, v = np.linalg.eigh((x + np.swapaxes(x, -1, -2)) / 2)
        return (v * np.sqrt(w)[..., None, :]) @ np.swapaxes(v, -1, -2)

    found = jc.jacobian(function)(batch)
    for k in range(2):
        close(found[k, :, :, k], jc.jacobian(lambda x: scipy.linalg.sqrtm(symmetric(x)))(batch[k]), 1e-11)
    assert not found[0, :, :, 1].any()


@examples(15)
@given(st.integers(0, 10**6), st.integers(2, 5))
def test_property_reconstruction(seed, n):
    # What is decomposed and put together again is the matrix: its derivative is the identity.
    rng = np.random.default_rng(seed)
    turn = np.linalg.qr(rng.normal(size=(n, n)))[0]
    a = (turn * (np.arange(n) + rng.uniform(0, 0.5, n) + 0.5)) @ turn.T
    a = (a + a.T) / 2
    e = rng.normal(size=(n, n))
    e = e + e.T
    programs = [
        (lambda x: (lambda w, v: (v * w) @ v.T)(*np.linalg.eigh(x)), a, e),
        (lambda x: (lambda u, s, vt: (u * s) @ vt)(*np.linalg.svd(x)), a + 0.1 * e, e),
        (lambda x: (lambda q, r: q @ r)(*np.linalg.qr(x)), a[:, :-1], e[:, :-1]),
        (lambda x: (lambda w, v: (v * w) @ np.linalg.inv(v))(*np.linalg.eig(x)), a, e),
        (lambda x: np.linalg.cholesky(x) @ np.linalg.cholesky(x).T, a, e),
    ]
    for function, x, direction in programs:
        value, moved = jc.jvp(function)(x, direction)
        close(value, x, 1e-9)
        close(moved, direction, 1e-7)


# --- ranks and norms ------------------------------------------------------------------------------------------------


def test_pseudo_inverse_of_a_deficient_matrix():
    # Within matrices of rank one: a = t p q^T has the pseudo-inverse q p^T / (t |p|^2 |q|^2).
    p, q = np.array([1.0, 2.0, -1.0]), np.array([2.0, 1.0])

    def exact(z):
        return np.outer(z[3:], z[:3]) / (np.sum(z[:3] ** 2) * np.sum(z[3:] ** 2))

    z = np.concatenate([p, q])
    for shape in (lambda m: m, np.transpose):
        found = jc.jacobian(lambda z, s=shape: s(np.linalg.pinv(s(np.outer(z[:3], z[3:])), rcond=1e-10)))(z)
        close(found, jc.jacobian(exact)(z), 1e-12)
    b = np.array([1.0, 0.5, 2.0])
    solution = jc.jacobian(lambda z: np.linalg.lstsq(np.outer(z[:3], z[3:]), b, rcond=1e-10)[0])(z)
    close(solution, jc.jacobian(lambda z: exact(z) @ b)(z), 1e-12)


def test_rank_of_least_squares_is_guarded():
    def residuals(x):
        return np.linalg.lstsq(x, np.arange(4.0))[1]

    derivative = jc.jacobian(residuals)
    assert derivative(TALL).shape == (1, 4, 2)
    assert derivative(np.outer(np.ones(4), np.ones(2))).shape == (0, 4, 2)
    assert derivative(TALL * 2).shape == (1, 4, 2)


@pytest.mark.parametrize("order", [None, "fro", "nuc", 2, -2, 1, np.inf])
def test_norms_of_zero_have_the_derivative_zero(order):
    x = np.zeros((3, 2))
    gradient = jc.grad(lambda v: np.linalg.norm(v, order))(x)
    np.testing.assert_array_equal(gradient, np.zeros((3, 2)))


@pytest.mark.parametrize("order", [None, 1, 1.5, 2, 3, np.inf])
def test_vector_norms_of_zero_in_one_row_only(order):
    x = np.array([[0.0, 0.0], [3.0, 4.0]])
    found = jc.jacobian(lambda v: np.linalg.norm(v, order, axis=1))(x)
    assert np.isfinite(found).all()
    assert not found[0].any()
    assert found[1, 1].any()


def test_nuclear_norm_takes_the_least_subgradient():
    u, v = np.array([3.0, 4.0]) / 5, np.array([1.0, 2.0, 2.0]) / 3
    close(jc.grad(lambda x: np.linalg.norm(x, "nuc"))(np.outer(u, v) * 7), np.outer(u, v), 1e-12)


def _second_minors(a):
    """The Hessian of the determinant by its definition: minors without two rows and two columns."""
    n = len(a)
    result = np.zeros((n,) * 4)
    for i, j, k, m in np.ndindex(n, n, n, n):
        if i != k and j != m:
            rest = np.delete(np.delete(a, [i, k], 0), [j, m], 1)
            result[i, j, k, m] = (-1) ** (i + j + k + m) * (1 if (i < k) == (j < m) else -1) * np.linalg.det(rest)
    return result


@pytest.mark.parametrize("rank", [7, 6, 5, 4, 0])
def test_second_derivatives_of_determinants_of_any_rank(rank):
    rng = np.random.default_rng(rank)
    a, v = rng.normal(size=(7, rank)) @ rng.normal(size=(rank, 7)) / 3, rng.normal(size=(7, 7))
    want = _second_minors(a)
    assert (np.abs(want).max() > 0.1) == (rank >= 5)
    close(jc.hessian(np.linalg.det)(a), want, 1e-13)
    close(jc.hessian(np.linalg.det, format="csr")(a).toarray(), want.reshape(49, 49), 1e-13)
    along = np.einsum("ijkl,kl->ij", want, v)
    close(jc.jvp(jc.grad(np.linalg.det))(a, v)[1], along, 1e-13)
    close(jc.vjp(jc.grad(np.linalg.det))(a, v)[1], along, 1e-13)
    close(jc.vmap(jc.hessian(np.linalg.det))(np.stack([a, v]))[1], _second_minors(v), 1e-12)


def test_third_derivatives_of_determinants():
    rng = np.random.default_rng(3)
    a, (u, v, w) = rng.normal(size=(7, 7)) + np.eye(7), rng.normal(size=(3, 7, 7))

    def along(t):  # a polynomial of degree 7 of each
        return np.linalg.det(a + t[0] * u + t[1] * v + t[2] * w)

    third = jc.jacobian(jc.hessian(along))(np.zeros(3))
    places = np.cos(np.pi * (np.arange(8) + 0.5) / 8)
    for k in range(3):
        each = np.array([jc.hessian(along)(t * np.eye(3)[k]) for t in places]).reshape(8, 9)
        slope = np.polynomial.polynomial.polyfit(places, each, 7)[1].reshape(3, 3)
        close(third[..., k], slope, 1e-10)
    with pytest.raises(np.linalg.LinAlgError):
        jc.jacobian(jc.hessian(np.linalg.det))(np.zeros((7, 7)))


def test_determinants_of_what_is_not_finite():
    a = np.stack([np.full((7, 7), np.nan), np.eye(7)])
    with np.errstate(invalid="ignore"):
        found = jc.grad(lambda x: np.sum(np.linalg.det(x)))(a)
    assert np.isnan(found[0]).all()
    close(found[1], np.eye(7), 1e-15)


def test_spectral_norm_shares_among_equal_singular_values():
    close(jc.grad(lambda x: np.linalg.norm(x, 2))(3 * np.eye(3)), np.eye(3) / 3, 1e-14)


def test_singular_values_of_zero():
    gradient = jc.grad(lambda x: np.sum(np.linalg.svdvals(x) ** 2))(np.zeros((2, 3)))
    np.testing.assert_array_equal(gradient, np.zeros((2, 3)))


def test_rank_and_sign_have_no_derivative():
    assert not jc.jacobian(lambda x: np.linalg.matrix_rank(x) + 0.0 * np.linalg.slogdet(x)[0])(SPD).any()
    derivative = jc.grad(lambda x: np.linalg.matrix_rank(x) * x[0, 0])
    assert derivative(SPD)[0, 0] == 3
    assert derivative(np.ones((3, 3)))[0, 0] == 1


def test_a_triangle_that_is_not_read_has_no_derivative():
    for uplo, unread in (("L", np.triu_indices(3, 1)), ("U", np.tril_indices(3, -1))):
        found = jc.jacobian(lambda x, u=uplo: flat(np.linalg.eigh(x, u)))(SPD)
        assert not found[:, unread[0], unread[1]].any()
        assert found[:, unread[1], unread[0]].any()


# --- errors ---------------------------------------------------------------------------------------------------------


def test_columns_that_lapack_makes_up():
    def projector(x):
        u, s, _ = np.linalg.svd(x)
        return u[:, :2] @ u[:, :2].T + s[0]

    close(
        jc.jacobian(projector)(TALL), jc.jacobian(lambda x: x @ np.linalg.pinv(x) + np.linalg.norm(x, 2))(TALL), 1e-11
    )
    for function in (
        lambda x: np.linalg.svd(x)[0],
        lambda x: np.linalg.svd(x.T).Vh,
        lambda x: np.linalg.qr(x, mode="complete").Q,
        lambda x: scipy.linalg.svd(x)[0],
        lambda x: scipy.linalg.qr(x)[0],
    ):
        with pytest.raises(DifferentiationError, match=r"arbitrary basis(.|\n)*test_hard_matrices.py"):
            jc.jacobian(function)(TALL)


def test_errors_are_those_of_numpy():
    with pytest.raises(np.linalg.LinAlgError, match="positive definite"):
        jc.jacobian(np.linalg.cholesky)(-SPD)
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        jc.jacobian(lambda x: np.linalg.eigh(x)[0])(TALL)
    derivative = jc.jacobian(lambda x: np.linalg.inv(x))
    derivative(SPD)
    derivative(SPD)
    with pytest.raises(np.linalg.LinAlgError, match="Singular") as caught:
        derivative(np.ones((3, 3)))
    assert any(
        entry.path.name == "test_hard_matrices.py" and "inv" in str(entry.statement) for entry in caught.traceback
    )


def test_a_spectrum_that_becomes_complex_is_noticed():
    derivative = jc.jacobian(np.linalg.eigvals)
    close(derivative(np.diag([1.0, 2.0]))[:, [0, 1], [0, 1]], np.eye(2), 1e-14)
    # At [[0, 1], [-1, 0]]: the eigenvalue i has the vector (1, i), from the left (1, -i), and dw = (y dA v) / (y v).
    found = derivative(np.array([[0.0, 1.0], [-1.0, 0.0]]))
    close(found[0], np.array([[0.5, 0.5j], [-0.5j, 0.5]]), 1e-14)
    close(found[1], found[0].conj(), 1e-14)


SINGULAR = {
    "qr": (lambda a: np.linalg.qr(a).R, (4, 2)),
    "qr of a wide one": (lambda a: np.linalg.qr(a).Q, (2, 4)),
    "slogdet": (lambda a: np.linalg.slogdet(a).logabsdet, (3, 3)),
    "lu": (lambda a: scipy.linalg.lu(a)[2], (3, 3)),
    "lu_factor": (lambda a: scipy.linalg.lu_factor(a)[0], (3, 3)),
    "polar": (lambda a: scipy.linalg.polar(a)[0], (4, 2)),
    "symmetric polar": (lambda a: scipy.linalg.polar(a, side="left")[1], (2, 4)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore:.*[Ss]ingular.*")
@pytest.mark.parametrize("executor", ["numpy", "native"] if jc.native_available() else ["numpy"])
@pytest.mark.parametrize("name", SINGULAR)
def test_factors_of_singular_matrices_have_values_and_no_derivative(name, executor):
    function, shape = SINGULAR[name]
    regular = np.random.default_rng(1).normal(size=shape)
    rank_one = np.outer(np.arange(1.0, shape[0] + 1), np.ones(shape[1]))
    singular = [0 * regular, regular * (np.arange(shape[1]) > 0), rank_one]
    differentiated = jc.value_and_jacobian(function)
    with jc.executor(executor):
        assert np.isfinite(differentiated(regular)[1]).all()
        for a in singular:
            value, slope = differentiated(a)
            np.testing.assert_allclose(value, function(a), rtol=1e-12, atol=1e-14)
            if not a.any():  # of others of deficient rank rounding may make regular ones
                np.testing.assert_array_equal(slope[np.isfinite(slope)], 0.0)  # |a| has a kink there
                assert np.isnan(slope).any() == (name != "symmetric polar")
        assert np.isfinite(differentiated(regular)[1]).all()


def test_a_singular_matrix_in_a_loop():
    """Machine code of the determinant and its derivative: the other matrices are what they were."""

    def total(a):
        result = 0.0
        for k in range(40):
            result = result + np.linalg.slogdet(a[k])[1] * (k + 1.0)
        return result

    a = np.random.default_rng(0).normal(size=(40, 3, 3))
    gradient = jc.grad(total)
    wanted = np.linalg.inv(a).swapaxes(1, 2) * np.arange(1.0, 41.0)[:, None, None]
    for executor in ["numpy", "native"] if jc.native_available() else ["numpy"]:
        with jc.executor(executor):
            np.testing.assert_allclose(gradient(a), wanted, rtol=1e-10, atol=1e-10)
            b = a.copy()
            b[7] = 0.0
            with np.errstate(all="ignore"):
                found = gradient(b)
            assert np.isnan(found[7]).all()
            np.testing.assert_allclose(np.delete(found, 7, 0), np.delete(wanted, 7, 0), rtol=1e-10, atol=1e-10)


def test_powers_of_what_is_not_square():
    with pytest.raises(np.linalg.LinAlgError, match="square"):
        jc.jacobian(lambda a: np.linalg.matrix_power(a, 3))(np.ones((2, 3)))
    with pytest.raises(TypeError):
        jc.jacobian(lambda a: np.linalg.matrix_power(a, 1.5))(np.ones((2, 2)))
