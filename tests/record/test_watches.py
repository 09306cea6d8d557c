"""What a function reads besides its arguments: followed, watched, or never kept."""

import functools
import gc
import types
import weakref

import numpy as np
import pytest

from jacana.graph import topological
from jacana.graph.node import CONSTANT
from jacana.record import Variable, as_node, leaf_value, record
from jacana.transforms import jacobian

X = np.array([1.0, 2.0, 3.0])
SCALE = 2.0
TABLE = np.array([2, 0, 1])
WEIGHTS = np.eye(3)
SETTINGS = {"power": 2, "weights": [1.0, 2.0, 3.0]}
CONFIG = types.SimpleNamespace(factor=3.0, inner=types.SimpleNamespace(shift=1.0))
LEAF = Variable(np.array([1.0, 1.0, 1.0]))


def helper(x):
    return x * SCALE


class Model:
    bias = 1.0

    def __init__(self):
        self.matrix = np.eye(3)
        self.rate = 0.5
        self.unused = 1

    def __call__(self, x):
        return self.inner(x) + self.bias

    def inner(self, x):
        return self.matrix @ x * self.rate

    @property
    def twice(self):
        return 2 * self.rate

    def with_property(self, x):
        return x * self.twice


def constants(recording):
    return [n.params.owner.value() for n in topological([as_node(recording.result)]) if n.op is CONSTANT]


@pytest.fixture
def change(monkeypatch):
    return lambda name, value: monkeypatch.setitem(globals(), name, value)


def test_globals(change):
    r = record(lambda x: x * SCALE, [X])
    assert r.watches.unchanged()
    change("SCALE", 2.0 + 0.0)
    assert r.watches.unchanged()
    change("SCALE", 2)
    assert not r.watches.unchanged()


def test_globals_of_functions_that_are_called(change):
    r = record(lambda x: helper(x), [X])
    change("SCALE", 5.0)
    assert not r.watches.unchanged()
    change("SCALE", 2.0)
    assert r.watches.unchanged()
    change("helper", lambda x: x)
    assert not r.watches.unchanged()


def test_nested_code(change):
    def f(x):
        def g(k):
            return x[k] * SCALE

        return sum([g(k) for k in range(3)])

    r = record(f, [X])
    change("SCALE", 5.0)
    assert not r.watches.unchanged()


def test_closures():
    scale = 2.0

    def f(x):
        return x * scale

    r = record(f, [X])
    assert r.watches.unchanged()
    scale = 3.0
    assert not r.watches.unchanged()


def test_defaults_partial_and_keywords():
    weights = np.ones(3)

    def f(x, w=weights, *, v=weights):
        return x + np.sum(w) + np.sum(v)

    for function in (f, functools.partial(f, w=weights)):
        r = record(function, [X])
        assert r.watches.unchanged()
        weights[0] += 1
        assert not r.watches.unchanged()


def test_containers(change):
    r = record(lambda x: x ** SETTINGS["power"] * np.sum(SETTINGS["weights"]), [X])
    assert r.watches.unchanged()
    SETTINGS["weights"][0] = 5.0
    assert not r.watches.unchanged()
    SETTINGS["weights"][0] = 1.0
    assert r.watches.unchanged()
    SETTINGS["power"] = 3
    assert not r.watches.unchanged()
    SETTINGS["power"] = 2
    SETTINGS["new"] = 3
    assert not r.watches.unchanged()
    del SETTINGS["new"]


def test_objects(change):
    r = record(lambda x: x * CONFIG.factor + CONFIG.inner.shift, [X])
    assert r.watches.unchanged()
    CONFIG.inner.shift = 2.0
    assert not r.watches.unchanged()
    CONFIG.inner.shift = 1.0
    CONFIG.factor = 4.0
    assert not r.watches.unchanged()
    CONFIG.factor = 3.0
    assert r.watches.unchanged()


def test_callable_objects_and_bound_methods(monkeypatch):
    model = Model()
    for function in (model, model.inner, lambda x: model(x)):
        r = record(function, [X])
        assert r.watches.unchanged()
        model.unused += 1
        assert r.watches.unchanged()
        model.rate += 1.0
        assert not r.watches.unchanged()
    r = record(model, [X])
    monkeypatch.setattr(Model, "bias", 2.0)
    assert not r.watches.unchanged()
    r = record(model.with_property, [X])
    model.rate += 1
    assert not r.watches.unchanged()


def test_matrix_of_an_object_is_followed():
    model = Model()
    r = record(model.inner, [X])
    assert any(c is model.matrix for c in constants(r))
    model.matrix[0, 0] = 7.0
    assert r.watches.unchanged()
    model.matrix = np.ones((3, 3))
    assert not r.watches.unchanged()


def test_array_used_by_operations_alone_is_followed():
    matrix = np.eye(3)
    r = record(lambda x: matrix @ x, [X])
    assert constants(r)[0] is matrix
    matrix[0, 0] = 5.0
    assert r.watches.unchanged()
    for f in (lambda x: np.dot(matrix, x), lambda x: x + np.multiply(x, matrix), lambda x: (matrix * x).sum() + 2.0):
        r = record(f, [X])
        matrix[0, 0] += 1
        assert r.watches.unchanged(), f
        assert constants(r)[0] is matrix


def test_array_also_used_in_plain_numpy_is_watched():
    matrix = np.eye(3)

    def f(x):
        return matrix @ x + np.linalg.norm(matrix)

    def g(x):
        alias = matrix
        return matrix @ x + alias.sum()

    def h(x):
        return matrix.T @ x

    for function in (f, g, h):
        r = record(function, [X])
        assert r.watches.unchanged()
        matrix[0, 0] += 1.0
        assert not r.watches.unchanged()


def test_temporary_arrays_are_kept_by_value_and_not_watched():
    matrix = np.eye(3)
    kept = []

    def f(x):
        temporary = matrix * 2.0
        kept.append(weakref.ref(temporary))
        return temporary @ x

    r = record(f, [X])
    gc.collect()
    assert kept[0]() is None
    (value,) = constants(r)
    assert np.array_equal(value, 2 * np.eye(3))


def test_work_array_that_changes_while_recording():
    work = np.zeros(3)

    def f(x):
        total = x * 0.0
        for k in range(3):
            work[:] = k
            total = total + work * x
        return total

    r = record(f, [X])
    assert np.array_equal(r.result.data, 3 * X)
    assert sorted(c[0] for c in constants(r)) == [0.0, 1.0, 2.0]
    assert r.watches.restless  # the function changes what it reads: the next recording tells whether that matters
    r.watches.restless = False
    assert r.watches.unchanged()
    work[:] = 9
    assert not r.watches.unchanged()


def test_the_same_array_is_one_constant():
    matrix = np.eye(3)
    assert len(constants(record(lambda x: matrix @ (matrix @ (matrix @ x)), [X]))) == 1
    assert len(constants(record(lambda x: matrix.T @ (matrix.T @ x), [X]))) == 1


def test_equal_arrays_are_two_constants():
    a, b = np.eye(3), np.eye(3)
    r = record(lambda x: a @ x + b @ x, [X])
    assert len(constants(r)) == 2


def test_index_tables_are_watched():
    r = record(lambda x: x[TABLE], [X])
    assert r.watches.unchanged()
    TABLE[0] = 1
    assert not r.watches.unchanged()
    TABLE[0] = 2
    holder = [[np.array([0, 1])]]
    space = types.SimpleNamespace
    deep = space(a=space(b=space(c=space(d=holder[0][0]))))
    r = record(lambda x: x[deep.a.b.c.d], [X])
    holder[0][0][0] = 2
    assert not r.watches.unchanged()


def test_leaf_variables_are_free_inputs():
    r = record(lambda x: x * LEAF, [X])
    free = [n for n in topological([r.result.node]) if n.op.name == "input" and n not in r.inputs]
    assert len(free) == 1
    assert leaf_value(free[0]) is LEAF.data
    LEAF.data = np.array([2.0, 2.0, 2.0])
    assert r.watches.unchanged()
    assert leaf_value(free[0])[0] == 2.0


def test_leaf_value_outlives_the_variable():
    y = Variable(X) * 2.0
    gc.collect()
    (leaf,) = [n for n in topological([y.node]) if n.op.name == "input"]
    assert np.array_equal(leaf_value(leaf), X)


def test_counters_do_not_invalidate():
    calls = []
    count = 0
    counts = {"calls": 0}

    class Model:
        calls = 0
        factor = 2.0

        def __call__(self, x):
            nonlocal count
            count += 1
            self.calls += 1
            counts["calls"] += 1
            calls.append(1)
            self.last = x * self.factor
            return self.last * 1.0 if False else x * self.factor

    model = Model()
    derivative = jacobian(lambda x: model(x))
    for _ in range(5):
        derivative(X)
    assert count == model.calls == counts["calls"] == len(calls)
    assert count <= 2  # the second recording gave the same numbers, so what changed does not matter


def test_libraries_are_not_watched():
    r = record(lambda x: np.sin(x) @ np.linalg.inv(np.eye(3)), [X])
    assert len(r.watches) == 1  # the code of the function


def test_few_things_are_watched():
    matrix, k = np.eye(3), 2.0

    def f(x):
        return matrix @ (x * k) + helper(x)

    assert len(record(f, [X]).watches) < 10


def test_an_attribute_that_comes_to_hide_that_of_the_class():
    class Settings:
        factor = 2.0

        def __call__(self, x):
            return self.factor * x

    settings = Settings()
    derivative = jacobian(settings)
    assert derivative(np.array([1.0])).tolist() == [[2.0]]
    settings.factor = 5.0
    assert derivative(np.array([1.0])).tolist() == [[5.0]]
