"""Every format of every verb is the same matrix, in the form that its users rely on, in the memory of the answer."""

from __future__ import annotations

import gc
import math
import tracemalloc
from dataclasses import dataclass

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import HealthCheck, given, settings
from scipy.sparse.linalg import LinearOperator, lsqr
from test_programs import points, programs

import jacana as jc

SPARSE = ("csr", "csc", "coo", "bsr", "dia")
MATRICES = (*SPARSE, "operator", "auto")
TYPES = {
    "csr": sp.csr_array,
    "csc": sp.csc_array,
    "coo": sp.coo_array,
    "bsr": sp.bsr_array,
    "dia": sp.dia_array,
    "operator": LinearOperator,
}


def at(*shape):
    size = math.prod(shape)
    return (0.4 + 0.9 * np.modf(np.arange(1, size + 1) * 0.618034)[0]).reshape(shape)


def full(J):
    """The matrix as an ndarray of two axes."""
    return J if isinstance(J, np.ndarray) else J.toarray()


def index_arrays(J):
    return {
        name: np.asarray(part)
        for name in ("indices", "indptr", "offsets")
        if (part := getattr(J, name, None)) is not None
    } | ({f"coords[{k}]": c for k, c in enumerate(J.coords)} if J.format == "coo" else {})


def central(f, x, h=1e-5):
    """Dense central differences of the plain NumPy function."""
    columns = []
    for k in range(x.size):
        e = np.zeros(x.size)
        e[k] = h
        columns.append(np.ravel(f(x + e.reshape(x.shape)) - f(x - e.reshape(x.shape))) / (2 * h))
    return np.stack(columns, axis=-1)


def reaction(u):
    return u[2:] - 2.0 * u[1:-1] + u[:-2] + 0.1 * np.exp(u[1:-1])


def chain(x):
    """Rosenbrock's function of many variables."""
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


TRIANGLES = np.array([[0, 1, 3], [1, 2, 3], [3, 2, 4], [4, 2, 5]])


def energy(u):
    """A sum of element energies."""
    e = u[TRIANGLES]
    return np.sum(np.sum(e, axis=1) ** 2 * np.cosh(e[:, 0] - e[:, 1]))


PROGRAMS = {
    "stencil": (reaction, at(9)),
    "two axes": (lambda x: np.tanh(x[:, :2]) * x[:, 1:], at(4, 3)),
    "gather": (lambda x: x[[0, 3, 3, 6, 1]] ** 2 * x[[1, 1, 2, 0, 5]], at(7)),
    "full": (lambda x: np.sin(np.outer(at(3), at(5)) @ x), at(5)),
    "rank one": (lambda x: x**2 + at(6) * np.sum(np.sin(x)), at(6)),
    "wide": (lambda x: x.reshape(2, 6).sum(axis=0) ** 2, at(12)),
    "scalar result": (chain, at(5)),
    "scalar argument": (lambda x: np.array([x, x**2, np.sin(x)]), at()),
    "nothing": (lambda x: np.ones(3) + 0.0 * x[:0].sum(), at(4)),
    "no rows": (lambda x: x[:0] ** 2, at(4)),
    "no columns": (lambda x: np.concatenate([x**2, np.ones(2)]), at(0)),
}


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("format", MATRICES)
def test_every_format_is_the_dense_matrix(name, format):
    f, x = PROGRAMS[name]
    y, dense = jc.value_and_jacobian(f)(x)
    assert dense.shape == np.shape(f(x)) + x.shape
    expected = dense.reshape(np.size(y), x.size)
    if x.size and y.size:
        np.testing.assert_allclose(expected, central(f, x), atol=1e-8)
    transform = jc.jacobian(f, format=format)
    for _ in range(2):  # the call that plans, and one that replays
        J = transform(x)
        if format != "auto" or not isinstance(J, np.ndarray):
            assert J.shape == expected.shape
            assert J.dtype == np.float64
        np.testing.assert_allclose(full(J).reshape(expected.shape), expected, rtol=1e-13, atol=1e-14)
    value, J = jc.value_and_jacobian(f, format=format)(x)
    np.testing.assert_allclose(value, f(x), rtol=1e-14)
    np.testing.assert_allclose(full(J).reshape(expected.shape), expected, rtol=1e-13, atol=1e-14)
    if format in TYPES:
        assert isinstance(J, TYPES[format])
        assert not isinstance(J, sp.spmatrix)


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("format", SPARSE)
def test_sparse_matrices_are_canonical_and_share_read_only_indices(name, format):
    f, x = PROGRAMS[name]
    transform = jc.jacobian(f, format=format)
    first, second = transform(x), transform(x * 1.1)
    kept = first.toarray().copy()
    for (part, a), b in zip(index_arrays(first).items(), index_arrays(second).values(), strict=True):
        assert np.shares_memory(a, b) or a.size == 0, part
        assert not a.flags.writeable, part
        if a.size:
            with pytest.raises(ValueError, match="read-only"):
                a[...] = 0
    assert not np.shares_memory(first.data, second.data)
    second.data[...] = 7.0
    second *= 2.0
    np.testing.assert_array_equal(first.toarray(), kept)
    np.testing.assert_array_equal(transform(x).toarray(), kept)
    if format in ("csr", "csc", "coo"):
        assert first.has_canonical_format
        # Claimed and true: SciPy, asked to look, finds the same.
        copy = type(first)(
            (first.data, *([first.coords] if format == "coo" else [first.indices, first.indptr])), first.shape
        )
        assert copy.nnz == first.nnz
        copy.sum_duplicates()
        assert copy.nnz == first.nnz
        if format != "coo":
            assert all(
                np.all(np.diff(first.indices[a:b]) > 0) for a, b in zip(first.indptr, first.indptr[1:], strict=False)
            )
        else:
            assert np.all(np.diff(np.ravel_multi_index(first.coords, first.shape)) > 0) or first.nnz < 2


@pytest.mark.parametrize("format", SPARSE)
def test_what_scipy_does_with_a_result_leaves_the_next_one_alone(format):
    """Slicing, transposing, adding and solving share or copy index arrays in many ways."""
    transform = jc.jacobian(lambda u: np.concatenate([u[:1], reaction(u), u[-1:] ** 2]), format=format)
    x = at(7)
    J = transform(x)
    expected = J.toarray()
    assert (J.T @ J).shape == (7, 7)
    np.testing.assert_allclose((J + sp.eye_array(7)).toarray(), expected + np.eye(7))
    np.testing.assert_allclose(J.tocsc().tocsr().toarray(), expected)
    np.testing.assert_allclose(J.T.toarray(), expected.T)
    np.testing.assert_allclose((J * 2.0).toarray(), 2.0 * expected)
    np.testing.assert_allclose(J.copy().tocsr()[2:4].toarray(), expected[2:4])
    np.testing.assert_allclose(sp.linalg.spsolve(J.tocsc(), np.ones(7)), np.linalg.solve(expected, np.ones(7)))
    np.testing.assert_array_equal(transform(x).toarray(), expected)


@pytest.mark.parametrize("name", PROGRAMS)
def test_operator_products(name):
    f, x = PROGRAMS[name]
    dense = jc.jacobian(f)(x)
    dense = dense.reshape(np.size(f(x)), x.size)
    m, n = dense.shape
    J = jc.jacobian(f, format="operator")(x)
    rng = np.random.default_rng(4)
    v, w, V, W = rng.normal(size=n), rng.normal(size=m), rng.normal(size=(n, 3)), rng.normal(size=(m, 2))
    close = {"rtol": 1e-12, "atol": 1e-13}
    np.testing.assert_allclose(J.matvec(v), dense @ v, **close)
    np.testing.assert_allclose(J @ v, dense @ v, **close)
    np.testing.assert_allclose(J.matvec(v[:, None]), (dense @ v)[:, None], **close)
    np.testing.assert_allclose(J.rmatvec(w), w @ dense, **close)
    np.testing.assert_allclose(J.matmat(V), dense @ V, **close)
    np.testing.assert_allclose(J.rmatmat(W), dense.T @ W, **close)
    np.testing.assert_allclose(J.T @ w, w @ dense, **close)
    np.testing.assert_allclose(J.T.matmat(W), dense.T @ W, **close)
    np.testing.assert_allclose(J.H @ w, w @ dense, **close)
    np.testing.assert_allclose((2.0 * J).matvec(v), 2.0 * dense @ v, **close)
    np.testing.assert_allclose(J.toarray(), dense, **close)
    if m and n:
        np.testing.assert_allclose((J.T @ J).matvec(v), dense.T @ (dense @ v), **close)
        np.testing.assert_allclose(J @ np.asfortranarray(V)[::-1], dense @ V[::-1], **close)
        np.testing.assert_allclose(J @ np.arange(n), dense @ np.arange(n), **close)


def test_an_operator_keeps_its_point():
    x = at(6)
    transform = jc.jacobian(lambda x: x**2 + np.sum(x) ** 2 * at(6), format="operator")
    here = transform(x)
    expected = here.toarray()
    x[:] = 9.0
    transform(x)
    np.testing.assert_array_equal(here.toarray(), expected)


# --- trees ------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    weights: np.ndarray
    offset: np.ndarray


def fitted(p, t):
    return {"fit": p["w"] @ t + p["b"], "size": np.sum(p["w"] ** 2)}


@pytest.mark.parametrize("format", MATRICES)
def test_trees_are_numbered_leaf_after_leaf(format):
    p = {"w": at(2, 3), "b": at(2)}
    t = at(3)
    dense = jc.jacobian(fitted)(p, t)
    assert dense["fit"]["w"].shape == (2, 2, 3)
    assert dense["size"]["b"].shape == (2,)
    # b before w, fit before size: dicts by sorted key.
    expected = np.zeros((3, 8))
    expected[:2, :2] = np.eye(2)
    expected[:2, 2:] = np.kron(np.eye(2), t)
    expected[2, 2:] = 2.0 * p["w"].ravel()
    joined = np.block(
        [[dense["fit"]["b"], dense["fit"]["w"].reshape(2, 6)], [dense["size"]["b"], dense["size"]["w"].ravel()]]
    )
    np.testing.assert_allclose(joined, expected)
    value, J = jc.value_and_jacobian(fitted, format=format)(p, t)
    np.testing.assert_allclose(value["fit"], p["w"] @ t + p["b"])
    if format != "auto":
        np.testing.assert_allclose(full(J), expected, atol=1e-15)
        assert J.shape == (3, 8)
        if format in ("csr", "csc", "coo"):
            assert J.nnz == 2 + 6 + 6


def test_dataclasses_and_several_arguments():
    m, s = Model(at(2, 3), at(2)), at(3)

    def f(m, s):
        return m.weights @ s**2 + m.offset

    J = jc.jacobian(f, argnums=(0, 1), format="csr")(m, s).toarray()
    expected = np.hstack([np.kron(np.eye(2), s**2), np.eye(2), m.weights * 2.0 * s])
    np.testing.assert_allclose(J, expected)
    by_model, by_s = jc.jacobian(f, argnums=(0, 1))(m, s)
    assert isinstance(by_model, Model)
    np.testing.assert_allclose(by_model.offset, np.eye(2))
    np.testing.assert_allclose(by_s, m.weights * 2.0 * s)
    swapped = jc.jacobian(f, argnums=(1, 0), format="csc")(m, s).toarray()
    np.testing.assert_allclose(swapped, np.hstack([expected[:, 8:], expected[:, :8]]))
    by_s, by_model = jc.jacobian(f, argnums=(-1, 0))(m, s)
    np.testing.assert_allclose(by_s, m.weights * 2.0 * s)
    np.testing.assert_allclose(by_model.offset, np.eye(2))
    by_s, by_model = jc.vjp(f, argnums=(1, 0))(m, s, np.ones(2))[1]
    np.testing.assert_allclose(by_s, np.sum(m.weights * 2.0 * s, axis=0))
    np.testing.assert_allclose(by_model.weights, np.stack([s**2, s**2]))
    by_s, by_model = jc.grad(lambda m, s: np.sum(f(m, s)), argnums=(1, 0))(m, s)
    np.testing.assert_allclose(by_s, np.sum(m.weights * 2.0 * s, axis=0))
    np.testing.assert_allclose(by_model.offset, np.ones(2))


def test_blocks_of_trees():
    def f(p):
        return {"y": np.tanh(p["x"] @ at(3, 2)) * p["s"]}

    p = {"x": at(4, 3), "s": at(4, 1)}
    dense, blocks = jc.jacobian(f)(p), jc.jacobian(f, format="blocks")(p)
    for k in range(4):
        np.testing.assert_allclose(blocks["y"]["x"][k], dense["y"]["x"][k, :, k], rtol=1e-13)
        np.testing.assert_allclose(blocks["y"]["s"][k], dense["y"]["s"][k, :, k], rtol=1e-13)


def test_hessian_of_a_tree():
    def f(p):
        return np.sum(p["a"] ** 3) * p["b"]

    p = {"a": at(3), "b": np.array(2.0)}
    dense = jc.hessian(f)(p)
    joined = np.block([[dense["a"]["a"], dense["a"]["b"][:, None]], [dense["b"]["a"], dense["b"]["b"]]])
    H = jc.hessian(f, format="csr")(p)
    np.testing.assert_allclose(H.toarray(), joined)
    np.testing.assert_allclose(H.toarray()[:3, :3], np.diag(12.0 * p["a"]))
    assert H.nnz == 9


# --- blocks -----------------------------------------------------------------------------------------------------


def test_blocks_are_the_diagonal_blocks():
    f, x = (lambda x: np.tanh(x @ at(3, 5)) @ at(5, 2)), at(4, 3)
    dense = jc.jacobian(f)(x)
    y, blocks = jc.value_and_jacobian(f, format="blocks")(x)
    assert blocks.shape == (4, 2, 3)
    np.testing.assert_allclose(y, f(x))
    np.testing.assert_allclose(blocks, np.stack([dense[k, :, k] for k in range(4)]), rtol=1e-13)


def test_blocks_refuse_what_is_not_block_diagonal():
    with pytest.raises(jc.InvalidInputError, match="sample 3 of the result depends on sample 0 of the argument"):
        jc.jacobian(lambda x: x + np.roll(x, -1, axis=0), format="blocks")(at(4, 3))
    with pytest.raises(jc.InvalidInputError, match="same first axis"):
        jc.jacobian(lambda x: x[1:], format="blocks")(at(4, 3))


def test_an_unknown_format_is_refused_at_once():
    for verb in (jc.jacobian, jc.value_and_jacobian, jc.hessian, jc.gauss_newton):
        with pytest.raises(jc.InvalidInputError, match="format must be one of dense, csr"):
            verb(np.sin, format="lil")


# --- dtypes and layouts of the argument -------------------------------------------------------------------------


@pytest.mark.parametrize("format", MATRICES)
def test_float32_stays_float32(format):
    x = at(9).astype(np.float32)
    y, J = jc.value_and_jacobian(reaction, format=format)(x)
    assert y.dtype == J.dtype == np.float32
    np.testing.assert_allclose(full(J), jc.jacobian(reaction)(x.astype(np.float64)), rtol=2e-6, atol=1e-6)
    if format == "operator":
        assert (J @ np.ones(9, np.float32)).dtype == np.float32
        assert (J @ np.ones(9)).dtype == np.float64


def test_mixed_dtypes_have_their_common_dtype():
    J = jc.jacobian(lambda p: p["a"] * p["b"], format="csr")({"a": at(3).astype(np.float32), "b": at(3)})
    assert J.dtype == np.float64


@pytest.mark.parametrize("format", ["dense", *MATRICES])
def test_layouts_of_the_argument_do_not_matter(format):
    def f(x):
        return np.sum(x**2, axis=0) * x[1]

    x = at(4, 3)
    transform = jc.jacobian(f, format=format)
    expected = full(transform(x))
    frozen = x.copy()
    frozen.flags.writeable = False
    strided = np.zeros((8, 9))[::2, ::3]
    strided[...] = x
    for other in (np.asfortranarray(x), frozen, strided, x[::-1][::-1], x.astype(">f8").astype("f8")):
        np.testing.assert_array_equal(full(transform(other)), expected)


# --- second derivatives -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", MATRICES)
@pytest.mark.parametrize("f", [chain, energy], ids=["chain", "energy"])
def test_hessians(f, format):
    x = at(6)
    H = full(jc.hessian(f, format=format)(x))
    np.testing.assert_allclose(H, central(jc.grad(f), x), atol=1e-6)
    np.testing.assert_allclose(H, jc.hessian(f)(x), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(H, H.T, rtol=1e-12, atol=1e-12)


def test_the_hessian_of_a_chain_is_tridiagonal():
    n = 50
    x = at(n)
    H = jc.hessian(chain, format="csr")(x)
    rows = np.repeat(np.arange(n), np.diff(H.indptr))
    assert H.nnz == 3 * n - 2
    assert np.abs(H.indices - rows).max() == 1
    diagonal = np.concatenate([1200.0 * x[:-1] ** 2 - 400.0 * x[1:] + 2.0, [0.0]])
    diagonal[1:] += 200.0
    np.testing.assert_allclose(H.diagonal(), diagonal, rtol=1e-13)
    np.testing.assert_allclose(H.diagonal(1), -400.0 * x[:-1], rtol=1e-13)


def test_the_hessian_of_element_energies_is_the_mesh():
    H = jc.hessian(energy, format="csr")(at(6))
    mesh = {(int(a), int(b)) for t in TRIANGLES for a in t for b in t}
    assert set(zip(*(k.tolist() for k in H.nonzero()), strict=True)) == mesh
    assert H.nnz == len(mesh)


def test_the_hessian_of_a_lagrangian():
    n = 7

    def lagrangian(z):
        x, multipliers = z[:n], z[n:]
        constraints = x[1:] * x[:-1] - 1.0
        return np.sum(x**4) + multipliers @ constraints

    z = at(2 * n - 1)
    H = jc.hessian(lagrangian, format="csr")(z)
    np.testing.assert_allclose(H.toarray(), central(jc.grad(lagrangian), z), atol=1e-6)
    # x by x: tridiagonal; x by multipliers: two a row, twice; multipliers by multipliers: nothing.
    assert H.nnz == (3 * n - 2) + 2 * 2 * (n - 1)
    assert H[n:, n:].nnz == 0


@pytest.mark.parametrize("format", ["dense", *MATRICES])
@pytest.mark.parametrize("name", ["stencil", "gather", "full", "rank one", "two axes", "no rows"])
def test_gauss_newton(name, format):
    f, x = PROGRAMS[name]
    J = jc.jacobian(f)(x).reshape(-1, x.size)
    N = jc.gauss_newton(f, format=format)(x)
    if format == "dense":
        assert N.shape == x.shape + x.shape
    np.testing.assert_allclose(full(N).reshape(x.size, x.size), J.T @ J, rtol=1e-12, atol=1e-13)


def test_gauss_newton_has_its_own_structure():
    n = 40
    N = jc.gauss_newton(lambda x: x[1:] * x[:-1], format="csr")(at(n))
    assert N.nnz == 3 * n - 2


def shared_rates(p, c):
    return {"a": p["w"][1:] * p["w"][:-1] * c, "b": np.exp(p["rate"]) * p["w"].reshape(2, 3)}


@pytest.mark.parametrize("format", ["dense", *MATRICES, "auto"])
def test_gauss_newton_of_trees(format):
    p, c = {"w": at(6), "rate": np.array(0.3)}, at(5)
    J = jc.jacobian(shared_rates, argnums=(0, 1), format="csr")(p, c).toarray()
    expected = J.T @ J  # columns: rate, w, c
    N = jc.gauss_newton(shared_rates, argnums=(0, 1), format=format)(p, c)
    if format in ("dense", "auto"):  # a tree of trees, as a Hessian is
        np.testing.assert_allclose(N[0]["w"][0]["rate"], expected[1:7, 0], rtol=1e-13)
        np.testing.assert_allclose(N[0]["rate"][1], expected[0, 7:], atol=0)
        np.testing.assert_allclose(N[1][1], expected[7:, 7:], rtol=1e-13, atol=1e-15)
    else:
        np.testing.assert_allclose(full(N), expected, rtol=1e-13, atol=1e-15)
    if format == "csr":
        found = jc.gauss_newton(shared_rates, argnums=(0, 1)).structure(p, c)
        assert found.nnz == N.nnz == 16 + 1 + 2 * 6 + 2 * 10 + 5  # w by w, rate, rate by w, w by c, c
        assert list(found.rows) == list(found.columns) == ["p['rate']", "p['w']", "c"]


# --- parts of a Jacobian ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(6,), (2, 3), (1,), ()])
def test_diagonal_and_trace(shape):
    def f(x):
        return x**2 * np.sum(np.sin(x)) + x.T.reshape(x.shape)

    x = at(*shape)
    J = jc.jacobian(f)(x).reshape(x.size, x.size)
    d = jc.diagonal(f)(x)
    assert d.shape == x.shape
    np.testing.assert_allclose(d.ravel(), np.diag(J), rtol=1e-13)
    np.testing.assert_allclose(jc.trace(f)(x), np.trace(J), rtol=1e-13)


def test_rows_and_columns():
    def f(x):
        return np.outer(x[0], x[1]) + np.cumsum(x.ravel()[:9]).reshape(3, 3)

    x = at(4, 3)
    J = jc.jacobian(f)(x)
    flat = J.reshape(9, 12)
    rows, columns = [0, -1, 4, 4], [11, 0, -3]
    np.testing.assert_allclose(jc.jacobian_rows(f, rows)(x).reshape(4, 12), flat[rows], rtol=1e-13)
    np.testing.assert_allclose(jc.jacobian_columns(f, columns)(x), J.reshape(3, 3, 12)[..., columns], rtol=1e-13)
    mask = np.arange(9) % 2 == 0
    np.testing.assert_allclose(jc.jacobian_rows(f, mask)(x).reshape(5, 12), flat[mask], rtol=1e-13)
    assert jc.jacobian_rows(f, [])(x).shape == (0, 4, 3)
    assert jc.jacobian_columns(f, [])(x).shape == (3, 3, 0)
    for wrong in ([9], [-10], [0.5], [[0]]):
        with pytest.raises(jc.InvalidInputError):
            jc.jacobian_rows(f, wrong)(x)
    with pytest.raises(jc.InvalidInputError, match="different"):
        jc.jacobian_columns(f, [1, 1])(x)


# --- auto -------------------------------------------------------------------------------------------------------


def test_auto_chooses_by_size_and_structure():
    auto = jc.jacobian(reaction, format="auto")
    assert isinstance(auto(at(9)), np.ndarray)  # small
    assert isinstance(auto(at(500)), sp.csr_array)  # large and sparse
    weights = at(80, 90)
    assert isinstance(jc.jacobian(lambda x: weights @ x, format="auto")(at(90)), np.ndarray)  # full
    low = jc.jacobian(lambda x: x**2 + at(4000) * np.sum(x**3), format="auto")(at(4000))
    assert isinstance(low, LinearOperator)  # two vectors instead of 16 million numbers
    # The numbers decide nothing.
    assert isinstance(auto(np.zeros(500)), sp.csr_array)


# --- random programs --------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(programs, points)
def test_random_programs_in_every_format(program, x):
    y, dense = jc.value_and_jacobian(program)(x)
    dense = dense.reshape(y.size, x.size)
    scale = 1.0 + np.abs(dense).max(initial=0.0)
    for format in MATRICES:
        J = jc.jacobian(program, format=format)(x)
        np.testing.assert_allclose(full(J).reshape(dense.shape), dense, atol=1e-12 * scale, rtol=1e-11)
    v, w = np.sin(np.arange(x.size) + 1.0), np.cos(np.arange(y.size) + 1.0)
    J = jc.jacobian(program, format="operator")(x)
    np.testing.assert_allclose(J @ v, dense @ v, atol=1e-11 * scale * x.size)
    np.testing.assert_allclose(J.T @ w, w @ dense, atol=1e-11 * scale * y.size)
    N = jc.gauss_newton(program, format="csr")(x)
    np.testing.assert_allclose(N.toarray(), dense.T @ dense, atol=1e-11 * scale**2 * y.size)


# --- memory and speed -------------------------------------------------------------------------------------------


def peak(call):
    """What a call needs at most at one time beyond what there is before, in bytes, and its result."""
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        result = call()
        return tracemalloc.get_traced_memory()[1] - before, result
    finally:
        tracemalloc.stop()


def three_a_row(u):
    return u[2:] * u[:-2] - 2.0 * u[1:-1] ** 2


@pytest.mark.parametrize(("format", "first", "later"), [("csr", 3.0, 1.2), ("csc", 4.0, 2.0), ("coo", 3.0, 1.2)])
def test_memory_of_a_large_sparse_jacobian(format, first, later):
    n = 1_000_000
    x = np.linspace(0.0, 1.0, n)
    transform = jc.jacobian(three_a_row, format=format)
    with jc.executor("numpy"):  # a busy machine makes "auto" compile, which takes memory of its own
        planning, J = peak(lambda: transform(x))
        replay, _ = peak(lambda: transform(x))
    assert J.nnz == 3 * (n - 2)
    size = J.data.nbytes + sum(part.nbytes for part in index_arrays(J).values())
    assert planning < first * size
    assert replay < later * size


def test_memory_of_a_large_dense_jacobian():
    n = 4000

    def f(u):
        return u + np.pad(three_a_row(u), 1)

    x = at(n)
    transform = jc.jacobian(f)
    for _ in range(2):
        most, J = peak(lambda: transform(x))
        assert J.nbytes == 8 * n * n
        assert most < 1.5 * J.nbytes
        assert np.count_nonzero(J[n // 2]) == 3
        del J


def test_diagonal_plus_rank_one():
    n = 1_000_000
    x, a = np.linspace(0.5, 1.5, n), np.linspace(1.0, 2.0, n)
    J = jc.jacobian(lambda x: np.sin(x) + a * np.sum(x**2), format="operator")(x)
    v = np.cos(np.arange(n))
    expected = np.cos(x) * v + a * (2.0 * x @ v)
    np.testing.assert_allclose(J @ v, expected, rtol=1e-11, atol=1e-8)
    np.testing.assert_allclose(J.T @ v, np.cos(x) * v + 2.0 * x * (a @ v), rtol=1e-11, atol=1e-8)
    most, _ = peak(lambda: J @ v)
    assert most < 8 * 8 * n


def test_an_operator_solves():
    n = 200
    J = jc.jacobian(lambda x: x**3 + at(n) * np.sum(x) / n, format="operator")(at(n))
    b = np.ones(n)
    x = lsqr(J, b, atol=1e-12, btol=1e-12)[0]
    np.testing.assert_allclose(J @ x, b, atol=1e-8)
