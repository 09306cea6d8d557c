"""``vmap``: a function of one sample, called with many."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc


def rng():
    return np.random.default_rng(3)


def softplus_layer(x, W, b):
    return np.log1p(np.exp(W @ x + b))


def branchy(x):
    if x[0] > 0.5:
        return np.sort(x) * 2.0
    if x.sum() < 0:
        return np.cumsum(x)
    return x[::-1] ** 2


def by_hand(function, *columns):
    return np.stack([np.asarray(function(*row)) for row in zip(*columns, strict=True)])


def test_values_of_a_batch():
    W, b, X = rng().normal(size=(4, 3)), rng().normal(size=4), rng().normal(size=(5, 3))
    found = jc.vmap(softplus_layer, in_axes=(0, None, None))(X, W, b)
    np.testing.assert_allclose(found, [softplus_layer(x, W, b) for x in X], rtol=1e-15)


@pytest.mark.parametrize(("in_axis", "out_axis"), [(0, 0), (1, 0), (-1, 1), (0, -1)])
def test_batch_axes(in_axis, out_axis):
    X = rng().normal(size=(5, 3))
    given = np.moveaxis(X, 0, in_axis)
    found = jc.vmap(lambda x: np.outer(x, x[:2]), in_axes=in_axis, out_axes=out_axis)(given)
    np.testing.assert_array_equal(np.moveaxis(found, out_axis, 0), [np.outer(x, x[:2]) for x in X])


def test_trees_in_and_out_and_axes_for_each_leaf():
    def model(p, scale):
        return {"y": p["a"] * scale, "z": (p["b"].sum(), p["a"][0])}

    a, b = rng().normal(size=(4, 2)), rng().normal(size=(3, 4))
    found = jc.vmap(model, in_axes=({"a": 0, "b": 1}, None))({"a": a, "b": b}, 2.5)
    np.testing.assert_array_equal(found["y"], a * 2.5)
    np.testing.assert_allclose(found["z"][0], b.sum(axis=0), rtol=1e-15)
    np.testing.assert_array_equal(found["z"][1], a[:, 0])
    shared = jc.vmap(lambda p: p["a"] @ p["b"], in_axes=({"a": 0, "b": None},))({"a": a, "b": np.array([1.0, 3.0])})
    np.testing.assert_allclose(shared, a @ [1.0, 3.0], rtol=1e-15)


def test_keywords_and_integers_and_scalars():
    found = jc.vmap(lambda n, x, power=1.0: x**power * n)(np.arange(3), np.array([2.0, 3.0, 4.0]), power=2.0)
    np.testing.assert_array_equal(found, [0.0, 9.0, 32.0])
    assert found.shape == (3,)


def test_nested():
    a, b = np.arange(3.0), np.arange(4.0)
    outer = jc.vmap(jc.vmap(np.multiply, in_axes=(None, 0)), in_axes=(0, None))
    np.testing.assert_array_equal(outer(a, b), np.outer(a, b))


def test_of_derivatives_and_derivatives_of_it():
    def f(x):
        return np.linalg.solve(np.outer(x, x) + np.eye(3), np.sin(x))

    X = rng().normal(size=(5, 3))
    want = by_hand(jc.jacobian(f), X)
    np.testing.assert_allclose(jc.vmap(jc.jacobian(f))(X), want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jc.jacobian(jc.vmap(f), format="blocks")(X), want, rtol=1e-12, atol=1e-14)
    sparse = jc.jacobian(jc.vmap(f), format="csr")(X)
    assert sparse.nnz == 5 * 9
    energy = jc.vmap(jc.hessian(lambda x: np.sum(np.exp(x) * x[0])))(X)
    np.testing.assert_allclose(energy, by_hand(jc.hessian(lambda x: np.sum(np.exp(x) * x[0])), X), rtol=1e-12)
    total = jc.grad(lambda X: np.sum(jc.vmap(f)(X) ** 2))(X)
    np.testing.assert_allclose(total, by_hand(jc.grad(lambda x: np.sum(f(x) ** 2)), X), rtol=1e-11, atol=1e-13)


def test_closures_are_differentiated():
    X = rng().normal(size=(4, 2))

    def loss(w):
        return np.sum(jc.vmap(lambda x: np.tanh(x @ w))(X))

    w = np.array([0.3, -0.2])
    np.testing.assert_allclose(jc.grad(loss)(w), X.T @ (1 - np.tanh(X @ w) ** 2), rtol=1e-14)


def test_samples_that_take_different_branches():
    X = rng().normal(size=(20, 3))
    ways = {("a" if x[0] > 0.5 else "b" if x.sum() < 0 else "c") for x in X}
    assert len(ways) == 3
    mapped = jc.vmap(branchy)
    for _ in range(2):
        np.testing.assert_allclose(mapped(X), by_hand(branchy, X), rtol=1e-15)
    np.testing.assert_allclose(jc.vmap(branchy, out_axes=1)(X), by_hand(branchy, X).T, rtol=1e-15)
    np.testing.assert_allclose(jc.vmap(jc.jacobian(branchy))(X), by_hand(jc.jacobian(branchy), X), rtol=1e-15)
    one_way = X[(X[:, 0] < 0.5) & (X.sum(axis=1) < 0)]
    np.testing.assert_allclose(jc.jacobian(mapped, format="blocks")(one_way), by_hand(jc.jacobian(branchy), one_way))


def test_different_branches_inside_a_recording_are_refused():
    X = rng().normal(size=(20, 3))
    with pytest.raises(jc.InvalidInputError, match=r"branchy.*different branches.*np\.where"):
        jc.jacobian(jc.vmap(branchy))(X)


def test_a_recording_is_kept_for_its_branch_only():
    def f(x):
        return x * 2.0 if x > 0 else x * 3.0

    mapped = jc.vmap(f)
    np.testing.assert_array_equal(mapped(np.array([1.0, 2.0])), [2.0, 4.0])
    np.testing.assert_array_equal(mapped(np.array([-1.0, -2.0])), [-3.0, -6.0])
    np.testing.assert_array_equal(mapped(np.array([-1.0, 2.0])), [-3.0, 4.0])


def test_too_many_ways():
    with pytest.raises(jc.InvalidInputError, match="more than 64 ways"):
        jc.vmap(lambda x: x * float(int(x)))(np.arange(200.0))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: jc.vmap(f)(np.ones((2, 3)), np.ones((3, 3))), r"differ in length: 2 \(shape \(2, 3\)\) and 3"),
        (lambda f: jc.vmap(f)(np.ones((2, 3)), 1.0), r"shape \(\) has no batch axis 0.*in_axes"),
        (lambda f: jc.vmap(f, in_axes=(None, None))(np.ones(3), np.ones(3)), "no argument has a batch axis"),
        (lambda f: jc.vmap(f, in_axes=(0,))(np.ones((2, 3)), np.ones((2, 3))), "in_axes must be"),
        (lambda f: jc.vmap(f, in_axes=((0, 0), 0))(np.ones((2, 3)), np.ones((2, 3))), "does not match"),
        (lambda f: jc.vmap(f)(np.ones((0, 3)), np.ones((0, 3))), "the batch is empty"),
        (lambda f: jc.vmap(3), "vmap takes a function"),
    ],
)
def test_bad_input(call, message):
    def add(x, y):
        return x + y

    with pytest.raises(jc.InvalidInputError, match=message):
        call(add)


def test_outside_state_is_watched():
    state = {"scale": 2.0}

    def f(x):
        return x * state["scale"]

    mapped = jc.vmap(f)
    x = np.arange(3.0)
    np.testing.assert_array_equal(mapped(x), 2 * x)
    state["scale"] = 5.0
    np.testing.assert_array_equal(mapped(x), 5 * x)


def test_transforms_of_plain_arguments_inside_a_recording():
    X = np.array([1.0, 2.0])
    w = np.array([3.0, 4.0])
    # What the inner function closes over belongs to the outer program, whatever its arguments are.
    for inner in (lambda w: jc.jacobian(lambda x: x * w**2)(X), lambda w: jc.vmap(lambda x: x * w**2)(X)):
        total = jc.grad(lambda w, inner=inner: np.sum(inner(w)))
        for _ in range(2):
            np.testing.assert_allclose(total(w), 2 * w * (1 if inner(w)[0, 1] == 0 else X.sum()))
    derivative = jc.jacobian(lambda x: x * w)
    with pytest.raises(jc.InvalidInputError, match="only the dense format"):
        jc.grad(lambda w: np.sum(jc.jacobian(lambda x: x * w, format="csr")(X) @ X))(w)
    np.testing.assert_array_equal(jc.jacobian(lambda x: derivative(X) @ x)(X), np.diag(w))


def test_outside_state_of_a_transform_inside_a_recording_is_watched():
    state = {"scale": 2.0}
    inner = jc.jacobian(lambda x: x * state["scale"])
    X = np.array([1.0, 2.0])
    outer = jc.jacobian(lambda x: inner(X) @ x)
    for _ in range(2):
        np.testing.assert_array_equal(outer(X), np.diag([2.0, 2.0]))
    state["scale"] = 5.0
    np.testing.assert_array_equal(outer(X), np.diag([5.0, 5.0]))


def test_transforms_inside_a_recording_are_recorded_once():
    calls = []

    def f(x):
        calls.append(1)
        return np.sin(x) * x

    total = jc.grad(lambda x: np.sum(jc.jacobian(f)(x)))
    for k in range(3):
        x = np.array([0.1, 0.2]) + k
        # d/dx (cos(x) x + sin(x))
        np.testing.assert_allclose(total(x), 2 * np.cos(x) - x * np.sin(x), rtol=1e-14)
    assert len(calls) == 1
