"""scipy.special at complex numbers: derivatives of both orders against mpmath, and the zeta function beneath."""

import mpmath as mp
import numpy as np
import pytest
import scipy.special as sc

import jacana as jc
from jacana.graph.ops.complex_special import OrderParams, zeta

Z = np.array([0.3 + 0.7j, -1.2 + 0.4j, 2.1 - 0.8j])


def wofz(z):
    return mp.exp(-z * z) * mp.erfc(-1j * z)


def ndtr(z):
    return mp.erfc(-z / mp.sqrt(2)) / 2


FUNCTIONS = {
    "erf": mp.erf,
    "erfc": mp.erfc,
    "erfi": mp.erfi,
    "erfcx": lambda z: mp.exp(z * z) * mp.erfc(z),
    "dawsn": lambda z: mp.sqrt(mp.pi) / 2 * mp.exp(-z * z) * mp.erfi(z),
    "wofz": wofz,
    "ndtr": ndtr,
    "log_ndtr": lambda z: mp.log(ndtr(z)),
    "gamma": mp.gamma,
    "rgamma": mp.rgamma,
    "loggamma": mp.loggamma,
    "psi": mp.digamma,
    "exp1": mp.e1,
    "expi": mp.ei,
    "expm1": mp.expm1,
    "log1p": lambda z: mp.log(1 + z),
}


def exact(name, order):
    return np.array([complex(mp.diff(FUNCTIONS[name], mp.mpc(z), order)) for z in Z])


@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_derivatives_of_both_orders(name, executor):
    function = getattr(sc, name)
    with jc.executor(executor), mp.workdps(30):
        value, jacobian = jc.value_and_jacobian(function)(Z)
        np.testing.assert_array_equal(value, function(Z))
        np.testing.assert_allclose(jacobian, np.diag(exact(name, 1)), rtol=1e-12)
        # With z = x + i y, the second derivatives of Re f by x, x and by x, y are Re f'' and -Im f''.
        hessian = jc.hessian(lambda p: np.sum(function(p[0] + 1j * p[1]).real))(np.stack([Z.real, Z.imag]))
        second = exact(name, 2)
        np.testing.assert_allclose(hessian[0, :, 0], np.diag(second.real), rtol=1e-11, atol=1e-12)
        np.testing.assert_allclose(hessian[0, :, 1], np.diag(-second.imag), rtol=1e-11, atol=1e-12)


def test_what_is_complex_of_real_numbers_too():
    x = np.array([0.3, -1.2])
    slopes = [complex(mp.diff(wofz, v)) for v in x]
    np.testing.assert_allclose(jc.jacobian(lambda x: sc.wofz(x).imag)(x), np.diag(np.imag(slopes)), rtol=1e-13)


def test_single_precision():
    value, jacobian = jc.value_and_jacobian(sc.loggamma)(Z.astype(np.complex64))
    assert value.dtype == jacobian.dtype == np.complex64
    np.testing.assert_allclose(np.diag(jacobian), sc.psi(Z), rtol=1e-5)


@pytest.mark.parametrize("order", [2, 3, 6])
def test_zeta(order):
    z = np.array([0.3 + 0.7j, -50.3 + 0.2j, 40.0 + 3.0j, 1e5 + 1.0j, -30.0 + 100.0j, 0.001])
    parts = zeta.evaluate(OrderParams(order), z.real, z.imag)
    for v, found in zip(z, parts[:, 0] + 1j * parts[:, 1], strict=True):
        wanted = complex(mp.psi(order - 1, mp.mpc(v)) / ((-1) ** order * mp.factorial(order - 1)))
        assert abs(found / wanted - 1.0) < 1e-13
    assert np.isnan(zeta.evaluate(OrderParams(order), np.array(-1e6), np.array(0.5))).all()
