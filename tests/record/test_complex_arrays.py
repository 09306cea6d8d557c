"""Complex arrays while recording: values against NumPy, derivatives against differences, signs of zero, errors."""

import copy
import operator

import numpy as np
import pytest
from complex_cases import CASES, RNG, Z, complex_array
from complex_helpers import EXECUTORS, check, check_derivative, compiled, same

import jacana as jc
from jacana.errors import DifferentiationError
from jacana.record import ComplexVariable, Variable, as_node, record
from jacana.run import Program


@pytest.mark.parametrize("name", CASES)
def test_value(name):
    check(CASES[name], Z)


@pytest.mark.parametrize("name", CASES)
def test_value_in_single_precision(name):
    check(CASES[name], Z.astype(np.complex64))


@pytest.mark.parametrize("name", CASES)
def test_derivative(name):
    check_derivative(CASES[name], Z)


OPERATORS = {
    "+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv, "**": operator.pow,
    "==": operator.eq, "<": operator.lt,
}  # fmt: skip
OTHERS = [
    2, 2.5, True, 1j, 1 + 2j, -2.0, np.float32(2), np.float64(3), np.complex64(1j), np.int8(2), np.arange(1, 4),
    np.array([1j, 2.0, -0.5]), np.array([0.5, 2, 3], np.float32), np.array(2j), np.complex64([[1j], [2]]), [1j, 2, 3],
]  # fmt: skip


@pytest.mark.parametrize("other", OTHERS, ids=repr)
@pytest.mark.parametrize("name", OPERATORS)
def test_operators_with_every_kind_of_operand(name, other):
    op = OPERATORS[name]
    arrays = [Z, Z.astype(np.complex64), Z.T[:, ::-1].copy().T]
    if np.iscomplexobj(other):
        arrays += [np.abs(Z), np.abs(Z).astype(np.float32)]
    for array in arrays:
        check(lambda z: op(z, other), array, constant=True)
        if not isinstance(other, list):
            check(lambda z: op(other, z), array, constant=True)
            check(lambda z: op(z[0, 0], other), array, constant=True)
        check(lambda z: np.add(z, other), array)
        check(lambda z: np.multiply(other, z), array)


@pytest.mark.parametrize("name", ["+", "-", "*", "/"])
def test_derivatives_of_operators_with_every_kind_of_operand(name):
    op = OPERATORS[name]
    for other in OTHERS:
        check_derivative(lambda z, other=other: op(z, other), Z)
        if not isinstance(other, list):
            check_derivative(lambda z, other=other: op(other, z), Z)
        if np.iscomplexobj(other):
            check_derivative(lambda x, other=other: op(x, other), np.abs(Z))


@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (1,), (2, 1, 3)])
def test_shapes(shape):
    array = complex_array(*shape)
    for function in (np.exp, np.abs, lambda z: z * 2j + 1, lambda z: np.sum(z * z), lambda z: z / z, np.angle, np.conj,
                     lambda z: np.reshape(z, (-1, 1)) if z.size else z + 0, lambda z: np.sqrt(z)[...] * z):  # fmt: skip
        check(function, array)
        check_derivative(function, array)


def test_memory_orders():
    base = complex_array(3, 4)
    for array in (base.T, base[::2, ::-1], np.asfortranarray(base)):
        for function in (np.exp, lambda z: z.ravel() * 1j, lambda z: z @ z.conj().T, lambda z: np.fft.fft(z, axis=0)):
            check(function, array)
        np.testing.assert_array_equal(jc.jacobian(np.exp)(array), jc.jacobian(np.exp)(np.ascontiguousarray(array)))
    frozen = Z.copy()
    frozen.flags.writeable = False
    same(jc.jacobian(lambda z: z[0] ** 2)(frozen)[0, 0, 0], 2 * Z[0, 0])


ZEROS = [
    complex(a, b) for a in (0.0, -0.0, 1.0, -2.0, np.inf, -np.inf, np.nan) for b in (0.0, -0.0, 3.0, np.inf, np.nan)
]


SIGNED = [
    lambda z: -1.0 * z, lambda z: z * 2, lambda z: 1j * z, lambda z: z * -1j, lambda z: z + 0.0, lambda z: 0 - z,
    lambda z: z - 0.0, lambda z: 1 - z, lambda z: z / 2, lambda z: z / -2.0, lambda z: z * z, np.conj, lambda z: -z,
    lambda z: z.real + 1j * z.imag, lambda z: z.real * 1j, lambda z: z.real - 1j * z.real, np.sqrt, np.log, np.exp,
    np.arcsin, np.arctan, lambda z: np.sqrt(-1.0 * z), lambda z: np.sqrt(z * -1), np.abs, np.angle, lambda z: z**0.5,
    lambda z: 2 / z, lambda z: z.real / (1 + 2j), lambda z: z * (0 - 1j), lambda z: z - 1j, lambda z: 2.0 - 1j * z.real,
]  # fmt: skip


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("function", SIGNED)
def test_signs_of_zero_infinities_and_nans_are_numpys(function):
    z = np.array(ZEROS)

    def on_parts(re, im):
        return function(ComplexVariable(re, im))

    recording = record(on_parts, [z.real.copy(), z.imag.copy()])
    result = recording.result
    whole = isinstance(result, ComplexVariable)
    nodes = [as_node(p) for p in ([result.real, result.imag] if whole else [result])]
    expected = function(z)
    for name in EXECUTORS:
        found = compiled(name, Program(recording.inputs, tuple(nodes)))([z.real.copy(), z.imag.copy()])
        for value, want in zip(found, [expected.real, expected.imag] if whole else [expected], strict=True):
            np.testing.assert_allclose(value, want, rtol=1e-15)
            zero = want == 0
            np.testing.assert_array_equal(np.signbit(value[zero]), np.signbit(want[zero]))


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("function", "x"),
    [(np.sqrt, -2.0), (np.log, -2.0), (np.arcsin, 2.0), (np.arccos, -3.0), (np.arctanh, 2.0), (np.arccosh, 0.5),
     (np.arccosh, -2.0), (np.log1p, -3.0), (lambda z: z**0.3, -2.0)],
)  # fmt: skip
def test_each_side_of_a_branch_cut_has_its_own_derivative(function, x, sign):
    on = np.array([complex(x, sign * 0.0)])
    near = [function(np.array([complex(x + h, sign * 1e-12)])) for h in (-2e-3, -1e-3, 1e-3, 2e-3)]
    slope = (near[0] - 8 * near[1] + 8 * near[2] - near[3]) / 12e-3
    np.testing.assert_allclose(jc.jacobian(function)(on)[0], slope, rtol=1e-8)


def test_structure_is_not_blurred_by_zeros_that_are_computed_with():
    x = RNG.normal(size=5)
    for function in (lambda x: (x + 1j * x[::-1]).real, lambda x: (2.0 * (x + 1j * x[::-1])).real,
                     lambda x: ((x + 1j * x[::-1]) / 4.0).imag, lambda x: (x - 1j).real):  # fmt: skip
        assert jc.jacobian(function, format="csr")(x).nnz == 5
    assert jc.jacobian(lambda z: 3 * z + 1, format="csr")(x + 0j).nnz == 5


def test_define_by_run():
    x = Variable(np.array([0.5, 1.0, 2.0]))
    z = np.exp(1j * x)
    same(z.jacobian(x), np.diag(1j * np.exp(1j * x.data)))
    power = np.sum(np.abs(np.fft.fft(z * x)) ** 2)
    power.backward()
    np.testing.assert_allclose(x.grad, 6 * x.data, rtol=1e-13)  # Parseval: 3 sum(x**2)
    with pytest.raises(DifferentiationError, match="take a real number"):
        z.backward()


def test_looks_are_guarded():
    calls = []

    def f(z):
        calls.append(1)
        if z.real > 0:
            return z * z
        if abs(z) > 2 and z:
            return np.conj(z) * 0 + z
        return 1j * z

    J = jc.jacobian(f)
    for z, want in ((1 + 1j, 2 + 2j), (2 + 0j, 4.0), (-1 + 0j, 1j), (-3 + 1j, 1.0)):
        for _ in range(2):
            np.testing.assert_allclose(J(np.complex128(z)), want, rtol=1e-15)
    assert len(calls) == 3


def test_data_is_a_guarded_look():
    def f(z):
        return z * complex(np.round(z.data.real.sum()))

    J = jc.jacobian(f)
    np.testing.assert_array_equal(J(np.array([2.2 + 1j])), [[2.0]])
    np.testing.assert_array_equal(J(np.array([3.9 + 1j])), [[4.0]])


COMPLEX_DTYPES = [
    lambda x: x.astype(complex), lambda x: np.sum(x, dtype=complex), lambda x: np.array(x, dtype="c16"),
    lambda x: np.add(x, x, dtype=complex), lambda x: x.mean(dtype=complex), lambda x: np.cumsum(x, dtype="c16"),
    lambda x: np.zeros_like(x, dtype=complex) + x, lambda x: np.array([x[0], 2.0], dtype=complex),
    lambda x: np.concatenate([x, x], dtype=complex), lambda x: np.einsum("i->", x, dtype=complex),
]  # fmt: skip


def test_complex_dtypes_of_real_arrays():
    x = np.array([1.0, 2.0, 4.0])
    for function in COMPLEX_DTYPES:
        check(function, x)
        check_derivative(function, x)
    check(lambda x: x.astype(np.complex64) * 2j, x)


@pytest.mark.parametrize("name", ["sqrt", "log", "log2", "log10", "arcsin", "arccos", "arctanh"])
def test_functions_that_leave_the_real_numbers(name):
    function = getattr(np.emath, name)
    for x in (np.array([0.3, 0.5]), np.array([0.25, -2.5]), np.array([-1.5, 0.1], np.float32), Z):
        check(function, x)
    check_derivative(function, np.array([0.25, -2.5]))
    J = jc.jacobian(function)
    for x in (np.array([0.3, 0.5]), np.array([0.3, -2.5])):
        assert np.iscomplexobj(J(x)) == np.iscomplexobj(function(x))


def test_plain_complex_arrays_are_followed():
    factor = np.array([1j, 2.0, 3.0 - 1j])
    J = jc.jacobian(lambda x: x * factor)
    x = np.arange(3.0)
    same(J(x), np.diag(factor))
    factor[0] = 5.0
    same(J(x), np.diag(factor))


def test_copies_and_constants():
    z = Variable(np.ones(2)) * 1j
    for other in (copy.copy(z), copy.deepcopy(z)):
        other[0] = 3.0
        assert z[0].imag == 1.0
    constant = record(lambda x: (np.zeros(3, complex), np.asarray(np.ones(2, complex) * 2)), [np.ones(1)]).result
    assert isinstance(constant[0], ComplexVariable)
    np.testing.assert_array_equal(np.asarray(constant[0]), np.zeros(3))
    assert 1j in z
    assert complex(np.complex128(2j)) == 2j
    with pytest.raises(TypeError, match="no float"):
        float(z[0])
    with pytest.raises(TypeError):
        hash(z)
    with pytest.raises(TypeError):
        np.fabs(z)
    with pytest.raises(TypeError):
        z % 2
    with pytest.raises(TypeError):
        z + object()
    with pytest.raises(IndexError):
        z[7]
    with pytest.raises(ValueError, match="broadcast"):
        z + np.ones(3)
    with pytest.raises(ValueError, match="ambiguous"):
        bool(z)


# --- methods and functions that write ---------------------------------------------------------------------------------


def _complex(x):
    return x.reshape(2, 3) + 1j * x.reshape(2, 3)[::-1]


def _sorted(x):
    z = _complex(x)
    z[0].sort()
    z.T[::-1].sort(axis=0)
    return z


def _put(x):
    z = _complex(x)
    z.put([0, 4], [1j, 2])
    np.put(z, [1, -1], x[:2])
    np.place(z, np.array([[0, 0, 1], [1, 0, 0]], bool), [x[0] * 1j, 3.0])
    np.putmask(z, np.eye(2, 3, dtype=bool), x[:2] * (1 + 2j))
    np.put_along_axis(z, np.array([[2], [1]]), x[:2, None] * 1j, axis=1)
    return z


def _flat(x):
    z = _complex(x)
    z.flat[1] = x[0] * 1j
    z.flat[[0, -1]] = [x[1], 2j]
    z.flat[np.argsort(x)[:2]] = z.flat[3]
    z.T[0].flat = x[4] * 3j
    return z * next(z.flat)


def _viewed(x):
    z = _complex(x)
    np.asarray(z)[0] = x[0] * 2j
    z.view()[1, 1:] *= x[1]
    return z


@pytest.mark.parametrize("function", [_sorted, _put, _flat, _viewed])
def test_what_writes_into_complex_arrays(function):
    x = np.array([0.31, 0.72, 0.13, 0.88, 0.54, 0.43])

    def parts(x):
        z = function(x)
        return np.stack([z.real, z.imag])

    for point in (x, x[::-1].copy()):
        np.testing.assert_array_equal(jc.compile(function)(point), function(point))
        wanted = [(parts(point + h) - parts(point - h)) / 2e-6 for h in 1e-6 * np.eye(6)]
        np.testing.assert_allclose(jc.jacobian(parts)(point), np.stack(wanted, -1), atol=1e-8)


def test_flat_follows_the_order_of_the_values_it_is_written_by():
    def f(x):
        y = x * 1
        y.flat[np.argsort(x)] = np.arange(3.0) * x
        y.flat[x > 0.8] = x[0]
        return y

    compiled = jc.compile(f)
    for point in ([0.1, 0.9, 0.5], [0.9, 0.5, 0.1], [0.5, 0.1, 0.9]):
        np.testing.assert_array_equal(compiled(np.array(point)), f(np.array(point)))


def test_complex_numbers_are_not_put_into_real_arrays():
    with pytest.raises(TypeError, match="not 'complex'"):
        jc.jacobian(lambda x: np.insert(x, 1, 1j))(np.array([1.0, 2.0]))
    with pytest.warns(np.exceptions.ComplexWarning):
        found = jc.jacobian(lambda x: np.insert(np.array([1.0, 2.0]), 1, x * (2 + 1j)))(np.array(1.0))
    np.testing.assert_array_equal(found, [0.0, 2.0, 0.0])
    found = jc.jacobian(lambda x: np.insert(np.array([1j, 2.0]), 1, x * (2 + 1j)))(np.array(1.0))
    np.testing.assert_array_equal(found, [0.0, 2 + 1j, 0.0])
