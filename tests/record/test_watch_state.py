"""State of every kind that a function reads: what changes it between two calls is seen by the second."""

import array
import collections
import contextvars
import ctypes
import dataclasses
import functools
import importlib
import io
import itertools
import operator
import os
import queue
import random
import sys
import types
import weakref

import numpy as np
import pytest
import scipy.sparse

import jacana as jc

X = np.array([0.3, 0.7, 1.1])
CASES = []


def case(make):
    """``make()`` gives a function and what changes the state that it reads."""
    CASES.append(pytest.param(make, id=make.__name__))
    return make


def read_and_changed(container, key, read=operator.getitem):
    return (lambda x: x * read(container, key)), lambda: operator.setitem(container, key, 5.0)


def first(container, key):
    return container[key]


for _name, _container, _key in (
    ("user_dict", collections.UserDict(a=2.0), "a"),
    ("user_list", collections.UserList([2.0]), 0),
    ("ordered_dict", collections.OrderedDict(a=2.0), "a"),
    ("array_array", array.array("d", [2.0, 3.0]), 0),
    ("big_list", [1.0] * 20_000, 15_000),
):
    CASES.append(pytest.param(functools.partial(read_and_changed, _container, _key, first), id=_name))


@case
def deque():
    values = collections.deque([2.0], maxlen=1)
    return (lambda x: x * values[0]), lambda: values.append(7.0)


@case
def deque_of_arrays():
    values = collections.deque([np.ones(3)])
    return (lambda x: x * np.sum(values[0])), lambda: values[0].__setitem__(1, 7.0)


@case
def chain_map():
    inner = {"a": 2.0}
    chain = collections.ChainMap({}, inner)
    return (lambda x: x * chain["a"]), lambda: inner.update(a=5.0)


@case
def mapping_proxy():
    inner = {"a": 2.0}
    proxy = types.MappingProxyType(inner)
    return (lambda x: x * proxy["a"]), lambda: inner.update(a=5.0)


@case
def memory_view():
    numbers = array.array("d", [2.0])
    view = memoryview(numbers)
    return (lambda x: x * view[0]), lambda: numbers.__setitem__(0, 5.0)


@case
def byte_array():
    numbers = bytearray([2])
    return (lambda x: x * numbers[0]), lambda: numbers.__setitem__(0, 5)


@case
def c_double():
    number = ctypes.c_double(2.0)
    return (lambda x: x * number.value), lambda: setattr(number, "value", 5.0)


@case
def text_buffer():
    text = io.StringIO("2")
    return (lambda x: x * float(text.getvalue())), lambda: text.write("5")


@case
def queue_():
    waiting = queue.Queue()
    waiting.put(2.0)
    return (lambda x: x * waiting.queue[0]), lambda: waiting.queue.appendleft(5.0)


@case
def context_variable():
    variable = contextvars.ContextVar("factor", default=2.0)
    return (lambda x: x * variable.get()), lambda: variable.set(5.0)


@case
def environment():
    os.environ["JACANA_TEST_FACTOR"] = "2"
    return (
        lambda x: x * float(os.environ["JACANA_TEST_FACTOR"]) + float(os.getenv("JACANA_TEST_FACTOR")),
        lambda: os.environ.update(JACANA_TEST_FACTOR="5"),
    )


@case
def weak_reference():
    class Held:
        factor = 2.0

    held = Held()
    function = functools.partial(lambda reference, keep, x: x * reference().factor, weakref.ref(held), held)
    return function, lambda: setattr(held, "factor", 5.0)


@case
def nested_deeply():
    inner = {"a": 2.0}
    outer = inner
    for _ in range(6):
        outer = {"a": outer}
    return (lambda x: x * outer["a"]["a"]["a"]["a"]["a"]["a"]["a"]), lambda: inner.update(a=5.0)


@case
def attributes_nested_deeply():
    inner = types.SimpleNamespace(value=2.0)
    outer = inner
    for _ in range(5):
        outer = types.SimpleNamespace(next=outer)
    return (lambda x: x * outer.next.next.next.next.next.value), lambda: setattr(inner, "value", 5.0)


@case
def attribute_getter():
    found = types.SimpleNamespace(value=2.0)
    get = operator.attrgetter("value")
    return (lambda x: x * get(found)), lambda: setattr(found, "value", 5.0)


@case
def slots():
    @dataclasses.dataclass(slots=True)
    class Settings:
        factor: float = 2.0

    settings = Settings()
    return (lambda x: x * settings.factor), lambda: setattr(settings, "factor", 5.0)


@case
def keyword_default():
    def f(x, *, factor=2.0):
        return x * factor

    return f, lambda: f.__kwdefaults__.update(factor=5.0)


@case
def default_replaced():
    def f(x, factor=2.0):
        return x * factor

    return f, lambda: setattr(f, "__defaults__", (5.0,))


@case
def code_replaced():
    def helper(x):
        return x * 2.0

    return (lambda x: helper(x)), lambda: setattr(helper, "__code__", (lambda x: x * 5.0).__code__)


@case
def method_replaced():
    class Model:
        def f(self, x):
            return x * 2.0

    model = Model()
    return (lambda x: model.f(x)), lambda: setattr(Model, "f", lambda self, x: x * 5.0)


@case
def method_hidden():
    class Model:
        def f(self, x):
            return x * 2.0

    model = Model()
    return (lambda x: model.f(x)), lambda: setattr(model, "f", lambda x: x * 5.0)


@case
def inherited():
    class Base:
        factor = 2.0

        def f(self, x):
            return x * self.factor

    class Model(Base):
        def f(self, x):
            return super().f(x) + 1.0

    return Model().f, lambda: setattr(Base, "factor", 5.0)


@case
def metaclass():
    class Meta(type):
        factor = 2.0

    class Model(metaclass=Meta):
        pass

    return (lambda x: x * Model.factor), lambda: setattr(Meta, "factor", 5.0)


@case
def descriptor():
    class Constant:
        value = 2.0

        def __get__(self, owner, kind=None):
            return self.value

    constant = Constant()
    model = type("Model", (), {"factor": constant, "__module__": __name__})()
    return (lambda x: x * model.factor), lambda: setattr(constant, "value", 5.0)


class Answers:
    """Answers to operators, loops and conversions from a list that nobody names from outside."""

    __array_ufunc__ = None

    def __init__(self):
        self.inner = [2.0]

    def __getitem__(self, key):
        return self.inner[key]

    def __len__(self):
        return len(self.inner)

    def __iter__(self):
        return iter(self.inner)

    def __contains__(self, item):
        return item in self.inner

    def __float__(self):
        return self.inner[-1]

    def __bool__(self):
        return len(self.inner) < 2

    def __radd__(self, other):
        return other + self.inner[-1]

    def __getattr__(self, name):
        if name != "factor":
            raise AttributeError(name)
        return self.inner[-1]


for _name, _ask in (
    ("item", lambda x, a: x * a[-1]),
    ("length", lambda x, a: x * len(a)),
    ("loop", lambda x, a: sum(x * v for v in a)),
    ("contains", lambda x, a: x * (3.0 if 5.0 in a else 1.0)),
    ("float", lambda x, a: x * float(a)),
    ("bool", lambda x, a: x if a else 2.0 * x),
    ("operator", lambda x, a: x + a),
    ("attribute", lambda x, a: x * a.factor),
):

    def _make(ask=_ask):
        answers = Answers()
        return (lambda x: ask(x, answers)), lambda: answers.inner.append(5.0)

    CASES.append(pytest.param(_make, id=f"answers_{_name}"))


@case
def by_name_in_text():
    sys.modules[__name__].TEXT = 2.0
    return (lambda x: x * globals()["TEXT"]), lambda: globals().update(TEXT=5.0)


@case
def imported_within():
    module = types.ModuleType("settings_of_a_test")
    module.factor = 2.0
    sys.modules["settings_of_a_test"] = module

    def f(x):
        from settings_of_a_test import factor

        return x * factor * importlib.import_module("settings_of_a_test").factor

    return f, lambda: setattr(module, "factor", 5.0)


@case
def error_state():
    return (
        lambda x: x * (2.0 if np.geterr()["under"] == "print" else 1.0),
        lambda: np.seterr(under="print"),
    )


@case
def sparse_matrix():
    matrix = scipy.sparse.csr_array(2.0 * np.eye(3))
    return (lambda x: matrix.toarray() @ x), lambda: matrix.data.__setitem__(0, 5.0)


@case
def polynomial():
    p = np.poly1d([1.0, 2.0])
    return (lambda x: p(x)), lambda: p.__setitem__(0, 7.0)


@pytest.mark.parametrize("make", CASES)
def test_state_is_seen(make):
    function, change = make()
    both = jc.value_and_jacobian(function)
    with np.errstate():
        before = function(X)
        np.testing.assert_array_equal(both(X)[0], before)
        np.testing.assert_array_equal(both(X)[0], before)
        change()
        expected = function(X)
        assert not np.array_equal(before, expected)
        value, jacobian = both(X)
        np.testing.assert_array_equal(value, expected)
        step = (function(X + 1e-3) - function(X - 1e-3)) / 2e-3
    np.testing.assert_allclose(jacobian, np.diag(step), rtol=1e-9)


# --- functions that change what they read ---------------------------------------------------------------------------


def generator():
    factor = 2.0
    while True:
        yield factor
        factor += 1.0


def counting():
    calls = [0]

    def f(x):
        calls[0] += 1
        return x * calls[0]

    return f


def nonlocal_counting():
    calls = 0

    def f(x):
        nonlocal calls
        calls += 1
        return x * calls

    return f


def drawing(source):
    return lambda x: x * source()


RESTLESS = {
    "generator": lambda: drawing(functools.partial(next, generator())),
    "count": lambda: (lambda c: lambda x: x * next(c))(itertools.count(1)),
    "cycle": lambda: (lambda c: lambda x: x * next(c))(itertools.cycle([2.0, 5.0, 7.0])),
    "list_iterator": lambda: (lambda c: lambda x: x * next(c))(iter([2.0, 3.0, 5.0, 7.0, 11.0])),
    "counter": counting,
    "nonlocal": nonlocal_counting,
    "generator_of_numpy": lambda: (lambda g: lambda x: x * g.random())(np.random.default_rng(3)),
    "random_state": lambda: (lambda g: lambda x: x * g.rand())(np.random.RandomState(3)),
    "random_of_python": lambda: (lambda g: lambda x: x * g.random())(random.Random(3)),
}


@pytest.mark.parametrize("name", RESTLESS)
def test_a_function_that_changes_what_it_reads_is_run_at_every_call(name):
    expected, derivative = RESTLESS[name](), jc.jacobian(RESTLESS[name]())
    for _ in range(4):
        np.testing.assert_array_equal(derivative(X), np.diag(expected(np.ones(3))))


def test_random_numbers_of_the_process():
    def f(x):
        return x * np.random.rand() * random.random()

    derivative = jc.jacobian(f)
    state, other = np.random.get_state(), random.getstate()
    found = [derivative(X) for _ in range(3)]
    np.random.set_state(state)
    random.setstate(other)
    for jacobian in found:
        np.testing.assert_array_equal(jacobian, np.diag(f(np.ones(3))))


def test_random_numbers_that_do_not_matter_are_drawn_twice():
    source, runs = np.random.default_rng(0), []

    def f(x):
        runs.append(source.random())
        return x * 2.0

    derivative = jc.jacobian(f)
    for _ in range(5):
        derivative(X)
    assert len(runs) == 2


def test_a_cache_is_filled_once():
    cache, runs = {}, []

    def f(x):
        runs.append(1)
        if "factor" not in cache:
            cache["factor"] = 3.0
        return x * cache["factor"]

    derivative = jc.jacobian(f)
    for _ in range(5):
        np.testing.assert_array_equal(derivative(X), 3.0 * np.eye(3))
    assert len(runs) == 2
