"""``jacana.functions`` and define-by-run: the question that started the project."""

import numpy as np
import pytest

import jacana.functions as F
from jacana import DifferentiationError, RecordingError, Variable


@pytest.fixture
def question():
    W = Variable(np.arange(15).reshape(3, 5).astype("f"))
    x = Variable(np.arange(5).astype("f"))
    return W, x, F.matmul(W, x)


def test_classic_backward(question):
    W, x, y = question
    y.grad = np.ones(3, "f")
    y.backward()
    np.testing.assert_array_equal(x.grad, [15, 18, 21, 24, 27])
    np.testing.assert_array_equal(W.grad, np.tile(np.arange(5.0), (3, 1)))
    assert x.grad.dtype == np.float32
    y.backward()
    np.testing.assert_array_equal(x.grad, 2 * np.array([15, 18, 21, 24, 27]))
    x.cleargrad()
    assert x.grad is None


def test_whole_jacobian(question):
    W, x, y = question
    y.backward(jacobian=True)
    np.testing.assert_array_equal(x.grad, W.data)
    assert x.grad.dtype == np.float32
    assert W.grad.shape == (3, 3, 5)
    np.testing.assert_array_equal(y.jacobian(x), W.data)
    np.testing.assert_array_equal(y.jacobian(W)[1, 1], x.data)


def test_vector_without_grad_says_what_to_do(question):
    _, _, y = question
    with pytest.raises(DifferentiationError, match=r"y\.backward\(jacobian=True\)") as caught:
        y.backward()
    assert "y.grad" in str(caught.value)
    y.grad = np.ones(4)
    with pytest.raises(DifferentiationError, match="shape"):
        y.backward()


def test_scalar_backward():
    x = Variable(np.array([1.0, 2.0]))
    y = F.sum(F.exp(x) * x)
    y.backward()
    np.testing.assert_allclose(x.grad, np.exp(x.data) * (x.data + 1))


def test_jacobian_of_an_intermediate():
    x = Variable(np.array([1.0, 2.0, 3.0]))
    h = F.sin(x)
    y = h * h
    np.testing.assert_allclose(y.jacobian(h), np.diag(2 * h.data))
    np.testing.assert_allclose(y.jacobian(x), np.diag(2 * h.data * np.cos(x.data)))
    np.testing.assert_array_equal(h.jacobian(y), np.zeros((3, 3)))
    np.testing.assert_array_equal(x.jacobian(x), np.eye(3))


def test_views_and_writes():
    x = Variable(np.array([1.0, 2.0, 3.0]))
    y = x * x
    y[0] = x[2]
    y[1:] *= 2.0
    np.testing.assert_allclose(y.jacobian(x), [[0, 0, 1], [0, 8, 0], [0, 0, 12]])


def test_nothing_to_differentiate():
    n = Variable(np.arange(3))
    with pytest.raises(DifferentiationError, match="int64"):
        (n * 1.0).jacobian(n)
    with pytest.raises(DifferentiationError, match="bool"):
        (Variable(np.ones(3)) > 0).jacobian(n)
    y = n * 2.0
    y.grad = np.ones(3)
    y.backward()
    assert n.grad is None


def test_inside_a_recorded_function_says_what_to_do():
    from jacana.record import record

    def f(x):
        y = F.sum(x * x)
        y.backward()
        return x

    with pytest.raises(RecordingError, match=r"jacana\.grad"):
        record(f, [np.ones(3)])


def test_training_loop():
    rng = np.random.default_rng(0)
    data, target = rng.normal(size=(20, 3)), rng.normal(size=20)
    w = Variable(np.zeros(3))
    for _ in range(200):
        w.cleargrad()
        loss = F.mean((data @ w - target) ** 2)
        loss.backward()
        w.data = w.data - 0.2 * w.grad
    expected = np.linalg.lstsq(data, target, rcond=None)[0]
    np.testing.assert_allclose(w.data, expected, rtol=1e-5)


def test_the_list_is_numpys():
    for name in F.__all__:
        function = getattr(F, name)
        assert callable(function)
        assert function.__name__ == name
        assert function.__doc__
    assert {"matmul", "tanh", "concat", "concatenate", "where", "maximum", "sum", "solve", "norm"} <= set(dir(F))
    with pytest.raises(AttributeError, match="fft"):
        F.fft  # noqa: B018


def test_arrays_and_lists():
    np.testing.assert_array_equal(F.tanh(np.ones(2)), np.tanh(np.ones(2)))
    x = Variable(np.array([1.0, 2.0]))
    assert F.sum([x, x]).data == 6.0
    assert F.concat([x, x]).shape == (4,)
    assert F.reshape(x, (2, 1)).shape == (2, 1)
    np.testing.assert_array_equal(F.where(x > 1, x, 0.0).data, [0.0, 2.0])
    np.testing.assert_array_equal(F.maximum(x, 1.5).data, [1.5, 2.0])
