"""Transforms of functions with complex arguments and results: the conventions of docs/complex.md."""

import doctest
import pickle
import threading
from pathlib import Path

import numpy as np
import pytest

import jacana as jc
from jacana.errors import DifferentiationError, InvalidInputError
from jacana.run import native_available

RNG = np.random.default_rng(8)
Z = RNG.normal(size=3) + 1j * RNG.normal(size=3)
A = RNG.normal(size=(2, 3)) + 1j * RNG.normal(size=(2, 3))
EXECUTORS = ["numpy", "native"] if native_available() else ["numpy"]


def test_the_page_of_the_documentation():
    page = Path(__file__).parents[1] / "docs" / "complex.md"
    options = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    result = doctest.testfile(str(page), module_relative=False, optionflags=options)
    assert result.attempted > 10
    assert result.failed == 0


def stacked(z):
    return np.stack([z.real, z.imag], axis=-1)


HOLOMORPHIC = {
    "square": (lambda z: z**2, lambda z: np.diag(2 * z)),
    "exp": (lambda z: np.exp(1j * z), lambda z: np.diag(1j * np.exp(1j * z))),
    "matrix": (lambda z: A @ z, lambda z: A),
    "quotient": (lambda z: z[1:] / z[:-1], lambda z: np.array([[-z[1] / z[0] ** 2, 1 / z[0], 0],
                                                              [0, -z[2] / z[1] ** 2, 1 / z[1]]])),
    "product": (lambda z: np.prod(z), lambda z: np.prod(z) / z),
    "conjugate twice": (lambda z: np.conj(np.conj(z) * 2j), lambda z: np.diag([-2j] * 3)),
    "inverse": (lambda z: np.linalg.inv(np.diag(z))[0], lambda z: np.diag([-1 / z[0] ** 2, 0, 0])),
}  # fmt: skip


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", HOLOMORPHIC)
def test_jacobian_of_holomorphic_functions(name, executor):
    function, exact = HOLOMORPHIC[name]
    with jc.executor(executor):
        J = jc.jacobian(function)(Z)
        np.testing.assert_allclose(J, exact(Z), rtol=1e-13, atol=1e-14)
        assert J.dtype == np.complex128
        for order in ("forward", "reverse", "cost"):
            np.testing.assert_allclose(jc.jacobian(function, order=order)(Z), J, rtol=1e-13, atol=1e-14)
        flat = J.reshape(-1, 3)
        for format in ("csr", "csc", "coo", "bsr", "dia", "operator"):
            M = jc.jacobian(function, format=format)(Z)
            np.testing.assert_allclose(M.toarray(), flat, rtol=1e-13, atol=1e-14)
        y, same = jc.value_and_jacobian(function)(Z)
        np.testing.assert_allclose(y, function(Z), rtol=1e-14)
        np.testing.assert_array_equal(same, J)
        y, M = jc.value_and_jacobian(function, format="csr")(Z)
        np.testing.assert_allclose(y, function(Z), rtol=1e-14)
        tangent = Z[::-1] * 1j
        np.testing.assert_allclose(jc.jvp(function)(Z, tangent)[1].ravel(), flat @ tangent, rtol=1e-13)
        cotangent = np.conj(J[..., 0]) + 1.0
        np.testing.assert_allclose(jc.vjp(function)(Z, cotangent)[1], flat.conj().T @ np.ravel(cotangent), rtol=1e-13)


def test_single_precision():
    z = Z.astype(np.complex64)
    J = jc.jacobian(lambda z: np.exp(z) * z)(z)
    assert J.dtype == np.complex64
    np.testing.assert_allclose(np.diag(J), np.exp(z) * (1 + z), rtol=1e-6)
    assert jc.jacobian(lambda z: np.exp(z) * z, format="csr")(z).dtype == np.complex64
    assert jc.grad(lambda z: np.sum(np.abs(z)))(z).dtype == np.complex64


def test_patterns_are_exact():
    J = jc.jacobian(lambda z: z[1:] * z[:-1] + 2, format="csr")(Z)
    assert J.nnz == 4
    assert J.has_canonical_format
    again = jc.jacobian(lambda z: z[1:] * z[:-1] + 2, format="csr")
    first, second = again(Z), again(2 * Z)
    assert first.indices is second.indices or np.shares_memory(first.indices, second.indices)
    x = np.array([0.1, 0.2, 0.3])
    assert jc.jacobian(lambda x: np.exp(1j * x), format="csr")(x).nnz == 3


def test_real_argument_and_complex_result():
    x = np.array([0.1, 0.2, 0.3])
    want = np.diag(1j * np.exp(1j * x))
    np.testing.assert_allclose(jc.jacobian(lambda x: np.exp(1j * x))(x), want, rtol=1e-15)
    operator = jc.jacobian(lambda x: np.exp(1j * x), format="operator")(x)
    np.testing.assert_allclose(operator @ x, want @ x, rtol=1e-15)
    np.testing.assert_allclose(operator.rmatvec(np.ones(3)), np.real(want.conj().T @ np.ones(3)), rtol=1e-14)
    np.testing.assert_allclose(jc.jvp(lambda x: np.exp(1j * x))(x, x)[1], want @ x, rtol=1e-15)
    pulled = jc.vjp(lambda x: np.exp(1j * x))(x, 1j * np.ones(3))[1]
    assert pulled.dtype == np.float64
    np.testing.assert_allclose(pulled, np.real(want.conj().T @ (1j * np.ones(3))), rtol=1e-14)


REAL_SCALARS = {
    "squares": (lambda z: np.sum(np.abs(z) ** 2), lambda z: 2 * z),
    "absolute values": (lambda z: np.sum(np.abs(z)), lambda z: z / np.abs(z)),
    "real part": (lambda z: np.sum(z.real), np.ones_like),
    "imaginary part": (lambda z: np.sum(z.imag * 2), lambda z: 2j * np.ones_like(z)),
    "real part of a square": (lambda z: np.real(np.sum(z * z)), lambda z: 2 * np.conj(z)),
    "norm": (np.linalg.norm, lambda z: z / np.linalg.norm(z)),
    "angle": (lambda z: np.angle(z[0]), lambda z: np.array([1j * z[0] / np.abs(z[0]) ** 2, 0, 0])),
    "residual": (lambda z: np.linalg.norm(A @ z - 1) ** 2, lambda z: 2 * A.conj().T @ (A @ z - 1)),
}


@pytest.mark.parametrize("name", REAL_SCALARS)
def test_gradient_of_real_scalars(name):
    function, exact = REAL_SCALARS[name]
    g = jc.grad(function)(Z)
    assert g.dtype == np.complex128
    np.testing.assert_allclose(g, exact(Z), rtol=1e-13, atol=1e-15)
    value, same = jc.value_and_grad(function)(Z)
    np.testing.assert_allclose(value, function(Z), rtol=1e-15)
    np.testing.assert_array_equal(same, g)
    np.testing.assert_allclose(jc.vjp(function)(Z, 1.0)[1], g, rtol=1e-15)
    direction = np.array([1j, 2.0, -1 - 1j])
    np.testing.assert_allclose(jc.jvp(function)(Z, direction)[1], np.sum(np.real(np.conj(g) * direction)), rtol=1e-12)
    h = 1e-6
    slope = (function(Z + h * direction) - function(Z - h * direction)) / (2 * h)
    np.testing.assert_allclose(slope, np.sum(np.real(np.conj(g) * direction)), rtol=1e-6)


def test_descent_along_the_gradient():
    b = A @ np.array([1.0, 1j, 2 - 1j])
    loss = lambda z: np.sum(np.abs(A @ z - b) ** 2)  # noqa: E731
    grad = jc.grad(loss)
    z = np.zeros(3, complex)
    for _ in range(2000):
        z = z - 0.05 * grad(z)
    assert loss(z) < 1e-10


def test_absolute_value_at_zero():
    np.testing.assert_array_equal(jc.grad(lambda z: np.sum(np.abs(z)))(np.array([0j, 2j])), [0, 1j])
    np.testing.assert_array_equal(jc.grad(lambda z: np.abs(z[0]) ** 2)(np.array([0j, 2j])), [0, 0])
    np.testing.assert_array_equal(jc.grad(np.linalg.norm)(np.zeros(2, complex)), [0, 0])


NOT_HOLOMORPHIC = {
    "conj": np.conj,
    "abs": lambda z: z * np.abs(z),
    "real": lambda z: z.real + 0j,
    "mixed": lambda z: z + 1e-3 * np.conj(z),
    "one element": lambda z: np.concatenate([z[:2] ** 2, np.conj(z[2:])]),
}


@pytest.mark.parametrize("format", ["dense", "csr", "operator", "auto"])
@pytest.mark.parametrize("name", NOT_HOLOMORPHIC)
def test_no_complex_jacobian_where_there_is_none(name, format):
    function = NOT_HOLOMORPHIC[name]
    with pytest.raises(DifferentiationError, match=r"not holomorphic.*real_form"):
        jc.jacobian(function, format=format)(Z)
    block = jc.jacobian(jc.real_form(function))(stacked(Z))
    assert block.shape == (3, 2, 3, 2)
    h = 1e-6
    for k in range(3):
        for p, turn in enumerate((1.0, 1j)):
            step = np.zeros(3, complex)
            step[k] = h * turn
            slope = (function(Z + step) - function(Z - step)) / (2 * h)
            np.testing.assert_allclose(block[:, :, k, p], stacked(slope), rtol=1e-8, atol=1e-8)
            np.testing.assert_allclose(jc.jvp(function)(Z, step / h)[1], slope, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("format", ["dense", "csr", "operator"])
def test_real_results_of_complex_arguments_are_refused(format):
    for function in (np.abs, lambda z: {"a": z, "b": z.real}, lambda z: np.sum(z.imag)):
        with pytest.raises(DifferentiationError, match="real_form"):
            jc.jacobian(function, format=format)(Z)
    both = jc.jacobian(lambda z: (z * 2, np.arange(2.0)), format=format)(Z)  # nothing depends on anything: zero
    if format == "dense":
        np.testing.assert_array_equal(both[1], np.zeros((2, 3)))


def test_the_check_is_made_at_every_point():
    def f(z):
        return np.where(z.real > 0, z * z, np.conj(z))

    J = jc.jacobian(f)
    np.testing.assert_allclose(J(np.array([1 + 1j])), [[2 + 2j]])
    with pytest.raises(DifferentiationError, match="holomorphic"):
        J(np.array([-1 + 1j]))
    inner = jc.grad(lambda x: np.sum(np.abs(jc.jacobian(f)(x + 1j))))
    np.testing.assert_allclose(inner(np.array([1.0])), [2 / np.sqrt(2)], rtol=1e-14)
    with pytest.raises(DifferentiationError, match="holomorphic"):
        inner(np.array([-1.0]))


def test_what_is_no_number_decides_nothing():
    with np.errstate(all="ignore"):
        J = jc.jacobian(np.log)(np.array([0j, 1j]))
    np.testing.assert_allclose(J[1, 1], -1j)
    assert not np.isfinite(J[0, 0])


def test_trees_and_several_arguments():
    def f(p, x):
        return {"w": p["z"] * p["a"] + x, "s": np.sum(x)}

    p = {"a": np.array(2.0), "z": Z}
    J = jc.jacobian(f, argnums=(0, 1))(p, np.ones(3))
    np.testing.assert_allclose(J["w"][0]["a"], Z)
    np.testing.assert_allclose(J["w"][0]["z"], 2 * np.eye(3))
    np.testing.assert_allclose(J["w"][1], np.eye(3))
    np.testing.assert_allclose(J["s"][1], np.ones(3))
    g = jc.grad(lambda p: np.sum(np.abs(p["z"]) ** 2) * p["a"])(p)
    np.testing.assert_allclose(g["z"], 4 * Z)
    np.testing.assert_allclose(g["a"], np.sum(np.abs(Z) ** 2))
    M = jc.jacobian(f, argnums=(0, 1), format="csr")(p, np.ones(3)).toarray()
    np.testing.assert_allclose(M[1:, 0], Z)
    np.testing.assert_allclose(M[1:, 1:4], 2 * np.eye(3))
    operator = jc.jacobian(f, argnums=(0, 1), format="operator")(p, np.ones(3))
    np.testing.assert_allclose(operator.toarray(), M)
    value, tangent = jc.jvp(f)(p, np.ones(3), {"a": np.array(1.0), "z": 1j * Z})
    np.testing.assert_allclose(tangent["w"], Z + 2j * Z)
    np.testing.assert_allclose(value["w"], 2 * Z + 1)
    pulled = jc.vjp(f)(p, np.ones(3), {"w": np.ones(3), "s": np.array(0.0)})[1]  # a real vector for a complex result
    np.testing.assert_allclose(pulled["z"], 2 * np.ones(3))


def test_vectors_are_checked():
    with pytest.raises(InvalidInputError, match="complex where"):
        jc.jvp(np.sin)(np.ones(3), 1j * np.ones(3))
    with pytest.raises(InvalidInputError, match="complex where"):
        jc.vjp(np.abs)(Z, 1j * np.ones(3))
    with pytest.raises(InvalidInputError, match="shape"):
        jc.jvp(np.exp)(Z, np.ones(2) * 1j)
    assert jc.jvp(np.exp)(1j, 2.0)[1] == 2 * np.exp(1j)


def test_complex_data_beside_real_arguments():
    calls = []

    def f(x, data):
        calls.append(1)
        return np.abs(np.exp(1j * x) - data) ** 2

    x = np.array([0.1, 0.2, 0.3])
    J = jc.jacobian(f)
    for data in (Z, 2 * Z, Z.astype(complex)):
        want = np.diag(2 * np.real(np.conj(np.exp(1j * x) - data) * 1j * np.exp(1j * x)))
        np.testing.assert_allclose(J(x, data), want, rtol=1e-12)
    assert len(calls) == 1
    H = jc.hessian(lambda x, c: np.sum(np.abs(x * c) ** 2))(x, 1 + 2j)
    np.testing.assert_allclose(H, 10 * np.eye(3), atol=1e-14)


def test_what_takes_no_complex_numbers_says_so():
    loss = lambda z: np.sum(np.abs(z) ** 2)  # noqa: E731
    for verb in (jc.hessian, jc.gauss_newton, jc.diagonal, jc.trace):
        with pytest.raises(InvalidInputError, match=r"complex.*real_form"):
            verb(loss)(Z)
    with pytest.raises(InvalidInputError, match=r"result is complex.*real_form"):
        jc.diagonal(lambda x: x * 1j)(np.ones(3))
    with pytest.raises(InvalidInputError, match="real_form"):
        jc.jacobian(np.exp).structure(Z)
    with pytest.raises(DifferentiationError, match="returns a complex one"):
        jc.grad(np.sum)(Z)
    with pytest.raises(InvalidInputError, match=r"clongdouble|complex256|float64"):
        jc.grad(loss)(Z.astype(np.clongdouble))


def test_real_form():
    loss = lambda z: np.sum(np.abs(z) ** 4)  # noqa: E731
    real = jc.real_form(loss)
    H = jc.hessian(real)(stacked(Z))
    x, y = Z.real, Z.imag
    np.testing.assert_allclose(H[1, :, 1, :], [[12 * x[1] ** 2 + 4 * y[1] ** 2, 8 * x[1] * y[1]],
                                               [8 * x[1] * y[1], 12 * y[1] ** 2 + 4 * x[1] ** 2]])  # fmt: skip
    np.testing.assert_array_equal(H[1, :, 0, :], 0)
    g = jc.grad(real)(stacked(Z))
    np.testing.assert_allclose(g, stacked(jc.grad(loss)(Z)), rtol=1e-14)
    same = jc.real_form(lambda z, k: {"w": z * k, "x": np.abs(z)})(stacked(Z), 3)
    np.testing.assert_allclose(same["w"], stacked(3 * Z))
    np.testing.assert_allclose(same["x"], np.abs(Z))
    assert jc.jacobian(jc.real_form(np.conj), format="csr")(stacked(Z)).nnz == 6
    assert jc.real_form(np.conj).__name__ == "conjugate"


def test_inside_other_transforms():
    x = np.array([0.5, 1.5])
    second = jc.jacobian(lambda x: jc.grad(lambda z: np.sum(np.abs(z) ** 4))(x + 1j * x).imag)(x)
    np.testing.assert_allclose(second, np.diag(24 * x**2), rtol=1e-13)  # 4 |z|^2 Im z = 8 x^3
    np.testing.assert_allclose(jc.jacobian(jc.jacobian(lambda z: z**3))(Z)[1, 1, 1], 6 * Z[1], rtol=1e-13)
    np.testing.assert_allclose(
        jc.vmap(lambda z: np.sum(z**2) * 1j)(np.stack([Z, 2 * Z])), 1j * np.sum(Z**2) * np.array([1, 4])
    )
    np.testing.assert_allclose(jc.vmap(jc.grad(np.linalg.norm))(np.stack([Z, 2j * Z])),
                               np.stack([Z, 1j * Z]) / np.linalg.norm(Z))  # fmt: skip
    np.testing.assert_allclose(
        jc.vmap(lambda z, c: z * c, in_axes=(0, None))(np.stack([Z, Z]), 1j), 1j * np.stack([Z, Z])
    )


def square(z):
    return z * z


def test_pickles_and_threads():
    J = pickle.loads(pickle.dumps(jc.jacobian(square)))
    wrong = []

    def work(k):
        for _ in range(20):
            if not np.allclose(J(k * Z), np.diag(2 * k * Z)):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_function_that_writes_into_its_argument():
    def f(z):
        z[0] = 1j
        return z * z

    before = Z.copy()
    np.testing.assert_allclose(np.diag(jc.jacobian(f)(Z)), [0, 2 * Z[1], 2 * Z[2]])
    np.testing.assert_array_equal(Z, before)
    np.testing.assert_allclose(jc.jacobian(lambda z: z * 2)(Z[::-1]), 2 * np.eye(3))
