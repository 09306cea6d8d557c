"""Writing into arrays: NumPy's aliasing, one assemble node for a filled array, and random programs of writes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from record_helpers import check, evaluate

import jacana as jc
from jacana.errors import RecordingError
from jacana.graph import topological
from jacana.graph.index import Affine
from jacana.graph.printing import program_text
from jacana.record import Variable, as_node, record

X = np.array([0.5, 1.5, 2.5, 3.5])


def operations(recording):
    return [n.op.name for n in topological([as_node(recording.result)])]


def test_preallocate_and_fill_is_one_node():
    def f(x):
        out = np.zeros(4)
        for k in range(4):
            out[k] = x[k] * x[3 - k]
        return out

    r = check(f, X)
    node = r.result.node
    assert node.op.name == "assemble"
    assert node.params.disjoint and node.params.full
    assert [p.shape for p in node.inputs] == [()] * 4
    assert operations(r).count("assemble") == 1


def test_reading_back_single_elements_makes_no_node():
    def f(x):
        u = np.empty(4)
        u[0] = x[0]
        for k in range(1, 4):
            u[k] = u[k - 1] * x[k]
        return u

    r = check(f, X)
    assert operations(r).count("assemble") == 1


def test_rows_that_were_written_are_read_without_a_node_of_the_whole():
    def f(x):
        u = np.zeros((6, 4))
        u[0] = x
        for k in range(5):
            u[k + 1, 1:] = np.sin(u[k, :-1])
            u[k + 1, 0] = u[k, 3] * 2.0
        return u

    r = check(f, X)
    (shapes,) = {tuple(sorted(n.shape for n in topological([as_node(r.result)]) if n.op.name == "assemble"))}
    assert shapes == ((1, 4),) * 4 + ((6, 4),)


def test_reading_much_of_an_array_gives_the_same():
    def f(x):
        u = np.zeros((30, 8))
        for k in range(30):
            u[k] = np.arange(8.0) * x[k % 4]
        total = 0.0
        for _ in range(2):
            for k in range(30):
                for j in range(8):
                    total = total + u[k, j] * x[j % 4]
        return total

    check(f, X)


def test_what_is_not_written_is_structurally_zero():
    def f(x):
        out = np.zeros((3, 4))
        out[1] = x
        return out

    r = check(f, X)
    assert r.result.node.inputs == r.inputs
    assert not r.result.node.params.full


def test_what_is_not_written_in_ones_stays():
    def f(x):
        out = np.ones((3, 4))
        out[1, 1:3] = x[1:3]
        return out * 2

    check(f, X)


def test_empty_shows_what_was_never_written():
    def f(x):
        out = np.empty(3)
        out[0] = x[0]
        return out

    assert np.isnan(record(f, [X]).result.data[1:]).all()


def test_writes_that_are_overwritten_vanish():
    def f(x):
        y = np.sin(x)
        y[0] = x[1] * 2
        y[:2] = x[2:]
        y[:] = x[::-1]
        return y

    r = check(f, X)
    assert operations(r) == ["input", "index"]


def test_leftovers_stay_affine():
    def f(x):
        y = x * 2.0
        y[1:-1] = x[2:] + x[:-2]
        return y

    r = check(f, np.arange(10.0))
    assert all(isinstance(e, Affine) for rows in r.result.node.params.rows for e in rows)

    def g(x):
        y = x * 2.0
        y[1:-1, 1:-1] = 0.0
        y[2, 3] = x[0, 0]
        return y

    r = check(g, np.arange(30.0).reshape(5, 6))
    assert all(isinstance(e, Affine) for rows in r.result.node.params.rows for e in rows)


def test_partly_overwritten_parts():
    def f(x):
        y = np.zeros(6)
        y[:4] = x
        y[2:] = x * 3
        y[[0, 5]] = x[:2]
        return y

    check(f, X)


def test_repeated_index_in_assignment_keeps_the_last():
    def f(x):
        y = np.zeros(3)
        y[[0, 1, 0, 2, 1]] = np.concatenate([x, x[:1]])
        return y

    check(f, X)


ALIASING = {
    "row view": lambda y, x: y[0].__setitem__(1, x[0]),
    "view of view": lambda y, x: y[1:][:, ::-1].__setitem__((0, 0), x[1]),
    "transpose": lambda y, x: y.T.__setitem__(1, x[2]),
    "ravel": lambda y, x: y.ravel().__setitem__(slice(1, 4), x[:3]),
    "reshape": lambda y, x: y.reshape(4, 2).__setitem__((slice(None), 0), x),
    "reshape of transpose is a copy": lambda y, x: y.T.reshape(-1).__setitem__(0, x[0]),
    "flatten is a copy": lambda y, x: y.flatten().__setitem__(0, x[0]),
    "copy": lambda y, x: y.copy().__setitem__(0, x[0]),
    "fancy is a copy": lambda y, x: y[[0, 1]].__setitem__(0, x[0]),
    "swapaxes": lambda y, x: np.swapaxes(y, 0, 1).__setitem__((3, 1), x[0]),
    "expand_dims": lambda y, x: np.expand_dims(y, 0).__setitem__((0, 1), x),
    "squeeze": lambda y, x: np.squeeze(y[None]).__setitem__((0, 0), x[0]),
    "flip": lambda y, x: np.flip(y).__setitem__((0, 0), x[3]),
    "split": lambda y, x: np.split(y, 2, axis=1)[1].__setitem__((0, 0), x[3]),
    "moveaxis": lambda y, x: np.moveaxis(y, 0, 1).__setitem__(0, x[:2]),
    "iteration": lambda y, x: [row.__setitem__(0, x[0]) for row in y],
    "whole": lambda y, x: y[...].__setitem__(0, x),
    "asarray": lambda y, x: np.asarray(y).__setitem__(0, x),
    "array": lambda y, x: np.array(y).__setitem__(0, x),
    "atleast": lambda y, x: np.atleast_3d(y).__setitem__((0, 0, 0), x[0]),
}  # fmt: skip


@pytest.mark.parametrize("write", ALIASING.values(), ids=ALIASING)
@pytest.mark.parametrize("start", ["zeros", "computed"])
def test_who_sees_a_write(write, start):
    def f(x):
        y = np.zeros((2, 4)) if start == "zeros" else np.outer(x[:2], x)
        before = y[1]
        late = y[:, 1:3]
        write(y, x)
        y[1, 1] *= 2.0
        return y, before * 1.0, late.T + 0.0

    check(f, X, constant=True)


def test_view_of_a_view_written_after_its_base_changed():
    def f(x):
        y = x * 1.0
        v = y[1:]
        w = v[::-1]
        y[2] = x[0]
        w[0] = x[1] * 5
        v += 1.0
        return y, v, w

    check(f, X)


def test_in_place_operators():
    def f(x):
        y = x * 1.0
        z = y
        y += x
        y -= 0.5
        y *= x
        y /= 2
        y **= 2
        y %= 3.0
        y //= 0.25
        return y, z

    check(f, X, others=[X])
    check(lambda x: _in_place_matmul(x), np.arange(4.0).reshape(2, 2))


def _in_place_matmul(x):
    y = x + 1.0
    y @= x
    return y


def test_scalars_are_not_shared():
    def f(x):
        s = x[0]
        t = s
        s += 1.0
        s *= x[1]
        return s, t

    check(f, X)


def test_in_place_keeps_the_dtype():
    def f(x):
        y = x.astype(np.float32)
        y += x
        y[0] = x[1]
        return y

    check(f, X)


def test_input_is_not_changed():
    value = X.copy()

    def f(x):
        x[0] = 7.0
        x += 1
        return x

    r = record(f, [value])
    assert np.array_equal(value, X)
    assert np.array_equal(r.result.data, [8.0, 2.5, 3.5, 4.5])


def test_broadcast_views_cannot_be_written():
    with pytest.raises(ValueError, match="read-only"):
        record(lambda x: np.broadcast_to(x, (2, 4)).__setitem__((0, 0), 1.0), [X])


def test_shape_errors_are_numpys():
    with pytest.raises(ValueError, match="could not broadcast"):
        record(lambda x: np.zeros(3).__setitem__(slice(None), x), [X])
    with pytest.raises(ValueError, match="broadcast"):
        record(lambda x: (x * 2).__iadd__(np.ones((2, 4))), [X])


def test_add_at():
    index = np.array([0, 2, 0, 2])

    def f(x):
        y = np.zeros(3)
        np.add.at(y, index, x)
        return y

    r = check(f, X)
    assert operations(r) == ["input", "assemble"]

    def g(x):
        y = x * 2
        np.add.at(y, (index,), x)
        np.subtract.at(y, [1, 1], 0.5)
        np.add.at(y[1:], [0, 0], x[:2])
        return y

    check(g, X)


def test_out():
    def f(x):
        y = np.empty(4)
        np.multiply(x, 2.0, out=y)
        z = np.zeros_like(x)
        np.add(y, 1.0, out=z)
        np.cumsum(z, out=z)
        np.sum(np.outer(x, x), axis=0, out=y)
        return y, z

    check(f, X)


def test_copyto_and_fill():
    def f(x):
        y = np.zeros((2, 4))
        np.copyto(y, x)
        y[0].fill(3.0)
        z = np.zeros(4)
        np.copyto(z, x, where=[True, False, True, False])
        return y, z

    check(f, X)


def test_augmented_item_assignment_in_loops():
    def f(x):
        y = np.zeros(3)
        for k in range(4):
            y[k % 3] += x[k] ** 2
            y[1:] -= x[k]
        return y

    check(f, X)


def test_overlapping_shift():
    def f(x):
        y = x * 2.0
        y[1:] = y[:-1]
        y[:-1] += y[1:]
        return y

    check(f, X)


def test_time_stepping():
    def f(u):
        u = u.copy()
        for _ in range(5):
            new = u.copy()
            new[1:-1] = u[1:-1] + 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2])
            new[0] = new[1]
            new[-1] = 0.0
            u = new
        return u

    check(f, np.linspace(0.0, 1.0, 9) ** 2)


def test_leaves_are_not_written_to():
    x = Variable(X)
    with pytest.raises(RecordingError, match=r"copy\(\)"):
        x[0] = 1.0
    y = x
    with pytest.raises(RecordingError, match=r"copy\(\)"):
        y += 1.0  # NumPy would write into x
    assert np.array_equal(x.data, X)
    s = t = Variable(2.0)
    s += 1.0  # a number cannot change: this is another one
    assert (s.data, t.data) == (3.0, 2.0)


def test_define_by_run_buffers():
    x = Variable(X.copy())
    y = x * 2.0
    y[1] = x[0]
    y[2:] += x[:2]
    (value,) = evaluate([y.node], {x.node: X + 1})
    z = (X + 1) * 2.0
    z[1] = X[0] + 1
    z[2:] += (X + 1)[:2]
    np.testing.assert_array_equal(value, z)


def test_recorded_programs_are_the_same_twice():
    def f(x):
        y = np.zeros(3)
        y[0] = x[0]
        y[1:] = np.sin(x[:2])
        return y

    first, second = (program_text([record(f, [X]).result.node]) for _ in range(2))
    assert first == second


# --- random programs --------------------------------------------------------------------------------------------------

KEYS2 = st.sampled_from(
    [0, 1, -1, slice(None), slice(1, None), slice(None, None, -1), slice(0, 2), (0, 1), (-1, -2), (slice(None), 0),
     (slice(None), slice(1, 3)), (Ellipsis, 2), [0, 2], ([0, 1], [1, 1]), (slice(None), [2, 0]),
     np.array([[True, False, True, False], [False, True, False, True], [True, True, False, False]])]
)  # fmt: skip
VIEWS = st.sampled_from(
    [lambda y: y.T, lambda y: y[1:], lambda y: y[:, ::-1], lambda y: y[..., 1:], lambda y: y.reshape(-1),
     lambda y: y.reshape(y.shape[::-1]), lambda y: y[None], lambda y: y[0], lambda y: np.flip(y), lambda y: y.copy(),
     lambda y: y.ravel()]
)  # fmt: skip


@st.composite
def programs(draw):
    return [
        draw(
            st.one_of(
                st.tuples(st.just("view"), st.integers(0, 5), VIEWS),
                st.tuples(st.just("set"), st.integers(0, 5), KEYS2, st.integers(0, 3)),
                st.tuples(st.just("add"), st.integers(0, 5), KEYS2, st.integers(0, 3)),
                st.tuples(st.just("read"), st.integers(0, 5), KEYS2),
                st.tuples(st.just("scale"), st.integers(0, 5), st.integers(0, 3)),
                st.tuples(st.just("move"), st.integers(0, 5), st.integers(0, 5)),
            )
        )
        for _ in range(draw(st.integers(1, 9)))
    ]


def run(program, x):
    arrays = [x * 1.0, np.zeros((3, 4)), np.ones((3, 4)) * 2.0]
    for step in program:
        try:
            target = arrays[step[1] % len(arrays)]
            match step[0]:
                case "view":
                    arrays.append(step[2](target))
                case "set":
                    target[step[2]] = x[step[3] % 3, step[3]]
                case "add":
                    target[step[2]] += x[step[3] % 3, step[3]] * 3.0
                case "read":
                    arrays.append(target[step[2]] * x[0, 0])
                case "scale":
                    target *= x[step[2] % 3, step[2]] if target.ndim else 1.0
                case "move":
                    source = arrays[step[2] % len(arrays)]
                    target[...] = source
        except (IndexError, ValueError, TypeError):
            continue
    return arrays


@settings(max_examples=400, deadline=None)
@given(programs())
def test_random_programs_of_views_and_writes(program):
    values = np.arange(12.0).reshape(3, 4) / 7.0 + 0.1
    check(lambda x: run(program, x), values, constant=True)


# --- sums by index arrays ----------------------------------------------------------------------------------------

ELEMENTS = np.array([[0, 1, 3], [1, 4, 3], [1, 2, 4], [2, 5, 4]])


def _vector(u):
    r = np.zeros(6)
    for e in ELEMENTS:
        r[e] += u[e] ** 2 * np.sum(u[e])
    return r


def _matrix(u):
    K = np.zeros((6, 7))
    for e in ELEMENTS:
        K[np.ix_(e, e + 1)] += np.exp(u[e])[:, None] * u[e]
        K[e, 0] -= u[e]
    return K


def _repeated(u):
    r = u * 2.0
    r[[0, 2, 2]] += u[:3] ** 2  # the last one stays
    r[np.array([5, 4])] -= u[1] * u[2]
    return r


def _written_before(u):
    r = np.empty(6)
    for k in range(6):
        r[k] = u[k] * k
    r[[1, 3]] += u[0]
    r[[3, 5]] = r[[3, 5]] - u[1:3]
    r[[3, 5]] += r[[3, 5]]
    r[2] = 7.0
    r[[2, 0]] += u[4:]
    return r


def _kept_views(u):
    r = u**2
    view, copy = r[1:4], r[[1, 2]]
    r[[2, 3]] += u[0]
    return np.concatenate([view, copy, r])


def _others(u):
    r = np.zeros(6) + u
    before = r[[0, 1]]
    r[[0, 1]] += u[2:4]
    r[[0, 1]] = before + u[4:]  # the sum with what was there before the last write
    r[[3, 2]] += 1.0
    r[np.array([True, False, False, False, True, True])] += u[:3]
    return r


@pytest.mark.parametrize("f", [_vector, _matrix, _repeated, _written_before, _kept_views, _others])
def test_sums_by_index_arrays(f):
    u = 0.3 + np.modf(np.arange(1.0, 7.0) * 0.618034)[0]
    y, J = jc.value_and_jacobian(f, format="csr")(u)
    np.testing.assert_allclose(y, f(u), rtol=1e-15, atol=0)
    numeric = []
    for k in range(6):
        h = np.zeros(6)
        h[k] = 1e-5
        numeric.append((np.ravel(f(u + h)) - np.ravel(f(u - h))) / 2e-5)
    np.testing.assert_allclose(J.toarray(), np.stack(numeric, axis=1), atol=1e-8)
    with jc.executor("native"):
        np.testing.assert_allclose(jc.jacobian(f, format="csr")(u).toarray(), J.toarray(), rtol=1e-13)


def test_a_loop_that_adds_up_elements_is_one_node_of_sums():
    def f(u):
        K = np.zeros((9, 9))
        for k in range(8):
            e = np.array([k, k + 1])
            K[np.ix_(e, e)] += u[k] * np.array([[1.0, -1.0], [-1.0, 1.0]])
        return K @ u

    assert (
        operations(check(f, np.linspace(0.5, 1.5, 9))).count("assemble") <= 9
    )  # the last one, and each start of a sum
