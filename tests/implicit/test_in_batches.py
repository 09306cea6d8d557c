"""Solutions inside `vmap`: a problem for each sample, against the samples one by one."""

import numpy as np
import pytest
import scipy.optimize
from implicit_differences import central
from scipy.integrate import quad, solve_ivp

import jacana as jc
from jacana.optimize import Constraint

RNG = np.random.default_rng(0)


def pair(p):
    """Two equations, three parameters, and a result that reads both."""
    x = jc.root(lambda x: np.array([x[0] ** 2 + x[1] - p[0], x[1] * np.exp(x[0]) - p[1] * p[2]]), [1.0, 1.0]).x
    return np.append(x, x[0] * p[1])


def fit(y):
    return jc.least_squares(lambda p: p[0] * np.exp(-p[1] * np.arange(4.0)) - y, [1.0, 1.0]).x


def in_the_simplex(t):
    whole = Constraint(np.sum, 1.0, 1.0)
    return jc.minimize(lambda x: np.sum((x - t) ** 2), [0.1, 0.2, 0.3], bounds=(0, 1), constraints=whole).x


def long_chain(t):
    """So many unknowns that the matrix is sparse."""

    def equations(x):
        padded = np.concatenate(([0.0], x, [0.0]))
        return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + t

    return jc.root(equations, np.full(70, -1.0)).x[:2]


PROBLEMS = {
    "root": (pair, np.array([2.2, 1.1, 1.65]) * RNG.uniform(0.9, 1.1, size=(4, 3))),
    "root of one number": (lambda p: jc.root(lambda x: x**3 + p * x - 2.0, 1.0).x, RNG.uniform(0.5, 2.0, size=5)),
    "fixed point": (
        lambda p: jc.fixed_point(lambda x: np.cos(p * x), np.ones(2)).x,
        RNG.uniform(0.5, 0.9, size=(3, 2)),
    ),
    "fit": (fit, 3 * np.exp(-0.5 * np.arange(4.0)) * RNG.uniform(0.95, 1.05, size=(3, 4))),
    "minimum": (in_the_simplex, RNG.uniform(0.2, 0.5, size=(3, 3))),
    "sparse": (long_chain, np.array([1.0, 1.1])),
    "scipy": (lambda p: scipy.optimize.brentq(lambda x: x**3 + x - p, 0.0, 5.0, xtol=1e-14), RNG.uniform(1, 3, size=4)),
}


@pytest.mark.parametrize("name", PROBLEMS)
def test_as_one_by_one(name):
    function, samples = PROBLEMS[name]
    values = np.stack([function(p) for p in samples])
    jacobians = np.stack([jc.jacobian(function)(p) for p in samples])
    assert np.abs(jc.vmap(function)(samples) - values).max() < 1e-14
    assert np.abs(jc.vmap(jc.jacobian(function))(samples) - jacobians).max() < 1e-12
    batch = jc.jacobian(jc.vmap(function), format="csr")(samples)
    assert batch.nnz == jacobians.size  # block-diagonal
    assert np.abs(batch.data - jacobians.ravel()).max() < 1e-12

    def loss(p):
        return np.sum(np.sin(jc.vmap(function)(p)))

    cotangents = np.cos(values)[(..., *[None] * (jacobians.ndim - values.ndim))]
    axes = tuple(range(1, values.ndim))
    assert np.abs(jc.grad(loss)(samples) - (cotangents * jacobians).sum(axis=axes)).max() < 1e-12


@pytest.mark.parametrize("name", ["root", "root of one number", "fit", "minimum"])
def test_second_derivatives(name):
    function, samples = PROBLEMS[name]
    second = np.stack([central(jc.jacobian(function), p) for p in samples])
    assert np.abs(jc.vmap(jc.jacobian(jc.jacobian(function)))(samples) - second).max() < 1e-8
    outside = jc.jacobian(jc.vmap(jc.jacobian(function)), format="csr")(samples)
    assert outside.nnz in (0, second.size)  # that of the quadratic problem is zero by its structure
    blocks = outside.toarray().reshape(len(samples), -1, len(samples), max(samples[0].size, 1))
    for k, block in enumerate(second):
        assert np.abs(blocks[k, :, k].ravel() - block.ravel()).max() < 1e-8

    def loss(p):
        return np.sum(jc.vmap(function)(p) ** 2)

    direction = RNG.normal(size=samples.shape)
    moved = jc.jvp(jc.grad(loss))(samples, direction)[1]
    along = central(lambda s: jc.grad(loss)(samples + s * direction), 0.0)
    assert np.abs(moved - along).max() < 1e-7


def test_batches_of_batches():
    samples = RNG.uniform(0.5, 2.0, size=(2, 3))
    one = PROBLEMS["root of one number"][0]
    both = jc.vmap(jc.vmap(one))
    slopes = np.array([[jc.grad(one)(p) for p in row] for row in samples])
    assert np.abs(both(samples) - np.array([[one(p) for p in row] for row in samples])).max() < 1e-15
    found = jc.jacobian(both, format="csr")(samples)
    assert found.nnz == 6
    assert np.abs(found.data - slopes.ravel()).max() < 1e-13
    assert np.abs(jc.vmap(jc.vmap(jc.grad(one)))(samples) - slopes).max() < 1e-13


def test_what_is_shared_by_all_samples():
    def solve(p, a):
        return jc.root(lambda x: x**3 + a * x - p, 1.0).x

    p, a = RNG.uniform(1, 3, size=4), 1.3
    by_hand = 1.0 / (3.0 * jc.vmap(solve, in_axes=(0, None))(p, a) ** 2 + a)
    assert np.abs(jc.vmap(jc.grad(solve), in_axes=(0, None))(p, a) - by_hand).max() < 1e-14
    by_a = jc.jacobian(lambda b: jc.vmap(solve, in_axes=(0, None))(p, b))(a)
    assert np.abs(by_a + by_hand * jc.vmap(solve, in_axes=(0, None))(p, a)).max() < 1e-14


def area(p):
    """Of a Gaussian with a width and a limit that differ: the integrand, a limit and an offset have derivatives."""
    return quad(lambda t: np.exp(-p[0] * t * t), p[2], p[1], epsabs=1e-13, epsrel=1e-13)[0] * p[0]


def decay(p):
    """A chain of two, from a start that differs, at two times."""
    return solve_ivp(
        lambda t, y: np.stack([-p[0] * y[0], p[0] * y[0] - p[1] * y[1] * np.cos(t)]), (0.0, 2.0), np.stack([p[2], 0.5]),
        t_eval=[1.0, 2.0], rtol=1e-11, atol=1e-13,
    ).y  # fmt: skip


@pytest.mark.parametrize("function", [area, decay])
def test_integrals_and_differential_equations(function):
    samples = RNG.uniform(0.3, 1.2, size=(4, 3))
    values = np.stack([np.asarray(function(p)) for p in samples])
    assert np.abs(jc.vmap(function)(samples) - values).max() < 1e-12
    slopes = np.stack([jc.jacobian(function)(p) for p in samples])
    assert np.abs(jc.vmap(jc.jacobian(function))(samples) - slopes).max() < 1e-11
    for k, p in enumerate(samples):
        assert np.abs(central(function, p) - slopes[k]).max() < 1e-6
    sparse = jc.jacobian(jc.vmap(function), format="csr")(samples)
    assert sparse.nnz == 4 * slopes[0].size
    blocks = jc.jacobian(jc.vmap(function), format="blocks")(samples)
    assert np.abs(blocks.reshape(slopes.shape) - slopes).max() < 1e-11
    total = jc.grad(lambda s: jc.vmap(function)(s).sum())(samples)
    assert np.abs(total - slopes.reshape(4, -1, 3).sum(axis=1)).max() < 1e-10
    rows = samples.reshape(2, 2, 3)
    assert np.abs(jc.vmap(jc.vmap(function))(rows).reshape(values.shape) - values).max() < 1e-12
    bends = jc.vmap(jc.hessian(lambda p: np.sum(function(p))))(samples)
    assert np.abs(bends[1] - jc.hessian(lambda p: np.sum(function(p)))(samples[1])).max() < 1e-9


def test_an_integral_with_limits_that_all_samples_share():
    a = np.array([1.0, 2.0, 0.5])
    found = jc.vmap(jc.grad(lambda a: quad(lambda x: np.exp(-a * x**2), 0.0, np.inf)[0]))(a)
    assert np.abs(found + np.sqrt(np.pi) / 4 / a**1.5).max() < 1e-8


def test_errors_name_the_line():
    def degenerate(t):
        return jc.root(lambda x: np.array([x.sum(), 2 * x.sum()]) - t * np.array([1, 2]), [1.0, 1.0]).x

    with pytest.raises(jc.DifferentiationError, match=r"(?s)singular.*test_in_batches\.py"):
        jc.vmap(jc.jacobian(degenerate))(np.array([1.0, 2.0]))
    with pytest.raises(jc.ConvergenceError, match=r"(?s)jacana\.root.*test_in_batches\.py"):
        jc.vmap(lambda t: jc.root(lambda x: x**2 + 1.0 - t, 3.0).x)(np.array([1.5, 0.0]))


def test_one_sample_that_is_not_finite():
    def scaled(t):
        return jc.root(lambda x: np.exp(x) - t[0], 1.0).x * t[1]

    found = jc.vmap(jc.jacobian(scaled))(np.array([[2.0, 1.0], [2.0, np.nan]]))
    assert np.isfinite(found[0]).all()
    assert np.abs(found[0] - [0.5, np.log(2.0)]).max() < 1e-14
    assert np.isnan(found[1, 0]) and abs(found[1, 1] - np.log(2.0)) < 1e-14
