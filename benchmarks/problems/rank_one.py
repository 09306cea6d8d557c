"""A diagonal plus a rank one: every row has n entries, and no two columns can share a colour."""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Call, Contender, Problem, Target, as_float64, jax_double, torch_double, ways


def function(x: Any, xp: Any = np) -> Any:
    return x**2 * xp.sum(x)


def build_jax(mode: str) -> Call:
    jax = jax_double()
    jacobian = jax.jit(getattr(jax, mode)(lambda x: function(x, jax.numpy)))
    return lambda x: as_float64(jacobian(x))


def build_torch(mode: str) -> Call:
    torch = torch_double()
    jacobian = getattr(torch.func, mode)(lambda x: function(x, torch))
    return lambda x: jacobian(torch.from_numpy(x)).numpy()


def build_asdex(n: int) -> Call:
    jax = jax_double()
    # It warns that as many colours as columns are no gain, which is the point of this problem.
    import warnings

    import asdex

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        jacobian = jax.jit(asdex.jacobian(lambda x: function(x, jax.numpy), jax.numpy.zeros(n), output_format="dense"))
    return lambda x: as_float64(jacobian(x))


def build_casadi(n: int) -> Call:
    import casadi as ca

    x = ca.MX.sym("x", n)
    jacobian = ca.densify(ca.jacobian(x**2 * ca.sum1(x), x))
    transposed = ways.casadi_buffered(ca.Function("jacobian", [x], [jacobian.T]))
    return lambda point: transposed(point).reshape(n, n)


def problem(n: int, format: str, name: str) -> Problem:
    """The whole matrix, dense or as a CSR matrix that is full."""
    rng = np.random.default_rng(9)
    sparse = format == "csr"

    def contender(title: str, module: str, build: Any, **more: Any) -> Contender:
        return Contender(title, module, build, ways.sp.csr_array if sparse else lambda result: result, **more)

    return Problem(
        name=name,
        title=f"diagonal plus rank one, n = {n:,}, {'CSR' if sparse else 'dense'} Jacobian",
        function=function,
        format=format,
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=(
            contender("JAX jit(jacfwd), dense", "jax", lambda: build_jax("jacfwd")),
            contender("JAX jit(jacrev), dense", "jax", lambda: build_jax("jacrev")),
            contender("asdex, dense", "asdex", lambda: build_asdex(n), slow=True, note=f"{n:,} colours"),
            contender("CasADi MX, dense", "casadi", lambda: build_casadi(n)),
            contender("PyTorch jacfwd, dense", "torch", lambda: build_torch("jacfwd")),
            contender("PyTorch jacrev, dense", "torch", lambda: build_torch("jacrev")),
        ),
        target=Target(ratio=1.0),
    )


# --- as an operator ------------------------------------------------------------------------------------------------


def vector(n: int) -> np.ndarray:
    return np.random.default_rng(10).standard_normal(n)


def build_operator(n: int) -> Call:
    import jacana as jc

    jacobian, v = jc.jacobian(function, format="operator"), vector(n)
    return lambda x: jacobian(x) @ v


def build_jax_product(n: int) -> Call:
    jax = jax_double()
    v = jax.numpy.asarray(vector(n))
    product = jax.jit(lambda x: jax.jvp(lambda y: function(y, jax.numpy), (x,), (v,))[1])
    return lambda x: as_float64(product(x))


def build_torch_product(n: int) -> Call:
    torch = torch_double()
    v = torch.from_numpy(vector(n))
    return lambda x: torch.func.jvp(lambda y: function(y, torch), (torch.from_numpy(x),), (v,))[1].numpy()


def build_casadi_product(n: int) -> Call:
    import casadi as ca

    x, v = ca.MX.sym("x", n), ca.DM(vector(n))
    return ways.casadi_buffered(ca.Function("product", [x], [ca.jtimes(x**2 * ca.sum1(x), x, v)]))


def operator_problem(n: int, name: str) -> Problem:
    """The matrix made at a point and applied to a vector once."""
    rng = np.random.default_rng(9)
    return Problem(
        name=name,
        title=f"diagonal plus rank one, n = {n:,}, operator made and applied to a vector",
        function=function,
        format="operator",
        ours=lambda: build_operator(n),
        inputs=tuple(rng.standard_normal(n) for _ in range(4)),
        peers=(
            Contender("JAX jit(jvp)", "jax", lambda: build_jax_product(n), note="a product only, there is no operator"),
            Contender("CasADi MX jtimes", "casadi", lambda: build_casadi_product(n), note="a product only"),
            Contender("PyTorch jvp", "torch", lambda: build_torch_product(n), note="a product only"),
        ),
        target=Target(ratio=1.0),
    )
