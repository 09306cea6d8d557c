"""Arrays made inside recorded functions, what is refused and how, threads, and the speed of recording."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import scipy.special
from numpy import zeros as plain_zeros
from record_helpers import check, evaluate

from jacana.errors import InvalidInputError, RecordingError, UnsupportedOperationError
from jacana.graph import topological
from jacana.record import Variable, as_node, record

X = np.array([0.5, 1.5, 2.5])


def test_constructors_make_buffers_inside_and_arrays_outside():
    def f(x):
        for made in (
            np.zeros(3), np.ones(3), np.empty(3), np.full(3, 2.0), np.array([1.0, 2.0]), np.asarray([1.5]),
            np.zeros_like(X), np.ones_like(x), np.full_like(X, 2.0), np.empty_like(x), np.array(X), np.eye(3),
            np.identity(2), np.copy(X),
        ):  # fmt: skip
            assert isinstance(made, Variable)
        for plain in (np.zeros(3, int), np.ones(2, bool), np.array([1, 2]), np.arange(3.0), np.asarray(X)):
            assert type(plain) is np.ndarray
        assert np.asarray(X) is X
        assert np.asarray(x) is x
        assert np.array(x) is not x
        return x

    record(f, [X])
    assert type(np.zeros(3)) is np.ndarray


def test_libraries_get_plain_arrays_inside():
    import scipy.linalg

    def f(x):
        inverse = scipy.linalg.inv(np.diag([1.0, 2.0, 4.0]))
        assert type(inverse) is np.ndarray
        return inverse @ x

    check(f, X)


def test_compiled_extensions_get_plain_arrays():
    # numpy.random is written in Cython: it calls np.empty without a frame of its own and crashes if that is no array.
    def f(x):
        noise = np.random.default_rng(0).normal(size=3)
        assert type(noise) is np.ndarray
        np.random.RandomState(0).permutation(np.arange(3))
        return x + noise

    check(f, X)


def test_another_name_for_a_constructor():
    def f(x):
        make = np.zeros
        xp = np
        y = make(3)
        y[0] = x[0]
        return y + xp.full(3, x[1]) + np.array([v * 2 for v in x], dtype=float) + np.ones(*(3,))

    check(f, X)


def test_constants_behave_as_arrays():
    def f(x):
        a = np.array([[4.0, 1.0], [1.0, 3.0]])
        b = np.linalg.inv(a) @ np.array([1.0, 2.0])
        s = np.linalg.svd(a).S
        t = np.interp(0.5, np.array([0.0, 1.0]), np.array([2.0, 4.0]))
        q = np.percentile(a, 50) + np.median(a) + float(a[0, 0]) + a.max() + a.T[0, 1]
        h, _ = np.histogram(a, bins=2)
        a += 1.0
        a[0] *= 2.0
        assert a.flags.c_contiguous
        assert a.strides == (16, 8)
        return x * b[0] + s[0] + t + q + h[0] + a[0, 0] + a.sum()

    check(f, X, exact=False)


def test_nested_arrays_of_rotations():
    def f(x):
        c, s = np.cos(x[0]), np.sin(x[0])
        turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
        return turn @ np.array([x[1], x[2], 1.0]), np.stack([c, s]), np.array([turn[0], x])

    r = check(f, X)
    assert as_node(r.result[1]).op.name == "assemble"


def test_ragged_and_object_arrays():
    with pytest.raises(ValueError, match="inhomogeneous"):
        record(lambda x: np.array([x, x[:2]]), [X])
    with pytest.raises(RecordingError, match="object"):
        record(lambda x: np.array([x[0], 1.0], dtype=object), [X])


def outside_buffer(x):
    out = plain_zeros(3)
    out[0] = x[0]
    return out


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (outside_buffer, "np.zeros"),
        (lambda x: plain_zeros(3).__setitem__(slice(None), x), "np.zeros"),
        (lambda x: plain_zeros(3).__iadd__(x), "inside the recorded function"),
        (lambda x: np.add(X, 1.0, out=x) and np.add(x, 1.0, out=plain_zeros(3)), "plain ndarray|ambiguous"),
        (lambda x: np.add.at(plain_zeros(3), [0], x[:1]), "plain ndarray"),
        (lambda x: np.copyto(plain_zeros(3), x), "plain ndarray"),
        (lambda x: np.linalg.qr(x[:, None], mode="raw"), "numpy.linalg.qr"),
        (lambda x: np.linalg.pinv(x[:, None], rcond=x[0]), "numpy.linalg.pinv"),
        (lambda x: np.broadcast(x, x), "np.stack"),
        (lambda x: np.asmatrix(x), "np.stack"),
        (lambda x: np.float64(x[0]), "astype"),
        (lambda x: setattr(x, "shape", (3, 1)), "reshape"),
        (lambda x: setattr(x, "dtype", np.float32), "astype"),
        (lambda x: x.resize(4), "np.resize"),
        (lambda x: np.from_dlpack(x), "DLPack"),
        (lambda x: scipy.special.mathieu_a(2, x), "mathieu_a"),
        (lambda x: np.fft.fft(x, out=np.empty(3, complex)), "out="),
        (lambda x: np.linalg.lstsq((x * 1j)[:, None], x * 1j), "lstsq"),
        (lambda x: np.partition(x * 1j, 1), "partition of complex"),
        (lambda x: x.__setitem__(0, 1j), "array of real numbers"),
        (lambda x: x.__iadd__(1j), "in place"),
        (lambda x: np.asarray(x * 1j).tolist(), "z.real"),
        (lambda x: complex((x * 1j)[0]), "z.real"),
        (lambda x: (x * 1j).astype(float), "z.real"),
        (lambda x: (x * 1j).view(float), "z.real"),
        (lambda x: plain_zeros(3).__iadd__(x * 1j), "inside the recorded function"),
        (lambda x: np.add(x, 1.0, where=x > 0), "np.where"),
        (lambda x: x.byteswap(), "byteswap"),
        (lambda x: np.ma.masked_array(X) * x, "MaskedArray"),
        (lambda x: x * np.matrix(X), "matrix"),
    ],
)
def test_refusals_name_the_function_and_the_line(function, words):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        with pytest.raises((RecordingError, ValueError), match=words) as caught:
            record(function, [X])
    if isinstance(caught.value, RecordingError):
        assert "test_constructors_and_errors.py:" in str(caught.value)


def test_line_of_the_user():
    def step(x):
        return np.linalg.qr(x[:, None], mode="raw")

    with pytest.raises(UnsupportedOperationError) as caught:
        record(lambda x: step(x), [X])
    message = str(caught.value)
    assert message.splitlines()[-1].strip() == 'return np.linalg.qr(x[:, None], mode="raw")'
    assert f":{step.__code__.co_firstlineno + 1} in step" in message


def test_unknown_attributes_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'flurble'"):
        record(lambda x: x.flurble, [X])
    assert not hasattr(Variable(X), "__array_interface__")


def test_a_complex_dtype_is_never_a_silent_cast():
    with pytest.raises(UnsupportedOperationError, match="astype"):
        record(lambda x: np.mean(x, None, complex), [X])


def test_a_leaf_is_real():
    with pytest.raises(InvalidInputError, match=r"jc.Variable\(z.real\)"):
        Variable(X + 1j)
    with pytest.raises(InvalidInputError, match="complex"):
        record(lambda x: x, [X + 1j])


def test_strings_and_objects_are_refused():
    with pytest.raises(InvalidInputError):
        Variable(["a"])
    with pytest.raises(TypeError):
        record(lambda x: x + "a", [X])
    with pytest.raises(TypeError):
        record(lambda x: x + None, [X])


def test_foreign_classes_get_their_turn():
    class Unit:
        def __radd__(self, other):
            return "unit"

    assert record(lambda x: x + Unit(), [X]).result == "unit"


def test_numpy_errors_keep_their_class():
    with pytest.raises(ValueError, match="mismatch"):
        record(lambda x: np.ones((2, 2)) @ x, [X])
    with pytest.raises(np.linalg.LinAlgError):
        record(lambda x: np.linalg.inv(np.outer(x, x) * 0.0), [X])
    with pytest.raises(np.exceptions.AxisError):
        record(lambda x: np.sum(x, axis=3), [X])


def test_warnings_are_numpys():
    with pytest.warns(RuntimeWarning, match="divide by zero"):
        record(lambda x: 1.0 / (x * 0.0), [X])
    with np.errstate(all="ignore"):
        r = record(lambda x: np.where(x > 1, np.log(x - 1), 0.0), [X])
    assert np.isfinite(r.result.data).all()


def test_integer_inputs():
    r = check(lambda n, x: x * n + np.sum(n), np.array([1, 2, 3]), X, others=[np.array([3, 4, 5]), X])
    assert r.inputs[0].dtype == np.int64


def test_float32_stays_float32():
    x = X.astype(np.float32)
    r = check(lambda x: np.sin(x) * 2.0 + 1 - x**2 / 3 + np.sum(x) * np.float32(2) + max(x), x)
    assert r.result.dtype == np.float32
    assert all(n.dtype != np.float64 for n in topological([r.result.node]))


def test_eight_threads():
    barrier = threading.Barrier(8)
    zeros = np.zeros

    def work(seed):
        values = np.random.default_rng(seed).uniform(0.1, 1.0, 5)

        def f(x):
            out = np.zeros(5)
            for k in range(5):
                out[k] = np.sin(x[k]) * seed if x[k] > 0.5 else x[k] ** 2
            return out

        barrier.wait()
        for _ in range(20):
            r = record(f, [values])
            np.testing.assert_array_equal(r.result._value, f(values))
            assert type(np.zeros(2)) is np.ndarray
            (again,) = evaluate([r.result.node], {r.inputs[0]: values})
            np.testing.assert_array_equal(again, r.result._value)
            assert len(r.guards) == 5
        return True

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))
    assert np.zeros is zeros
