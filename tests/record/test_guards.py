"""Looks at values: guarded where they decide, refused where a derivative would be lost."""

import math
import operator

import numpy as np
import pytest
from record_helpers import check, evaluate, guards_hold

from jacana.errors import RecordingError
from jacana.record import Variable, current_recording, record

X = np.array([0.5, -1.5, 2.5])


def test_branches_are_guarded_by_what_they_saw():
    def f(x):
        return x * 2 if x[0] > 0 else x - 1

    r = check(f, X, others=[np.array([0.1, 0.2, 0.3])])
    assert len(r.guards) == 1
    assert not guards_hold(r, {r.inputs[0]: -X})
    assert record(f, [-X]).result.node.op.name == "subtract"


def test_the_same_look_is_noted_once():
    def f(x):
        for _ in range(5):
            if x[0] > 0:
                x = x * 1.0 + 0.0 * x
            if np.sum(X) > 0:
                pass
        return x

    assert len(record(lambda x: [bool(x[0] > 0) for _ in range(4)], [X]).guards) == 1
    assert len(record(f, [X]).guards) == 5


def test_truth_of_a_float_is_guarded_as_truth_only():
    r = record(lambda x: 1.0 * x if x[0] else x, [X])
    assert guards_hold(r, {r.inputs[0]: X + 3})
    assert not guards_hold(r, {r.inputs[0]: X - 0.5})


def test_int_is_guarded_as_the_whole_part():
    r = record(lambda x: x * int(x[2]), [X])
    assert r.result.data[2] == 5.0
    assert guards_hold(r, {r.inputs[0]: X + 0.3})
    assert not guards_hold(r, {r.inputs[0]: X + 1})


def test_floor_and_ceil_are_guarded_as_whole_numbers():
    def f(x):
        return x * math.floor(x[2]) + math.ceil(x[2]) - math.trunc(x[1])

    r = check(f, X, others=[X + 0.1])
    assert len(r.guards) == 3
    assert isinstance(record(lambda x: math.floor(x[0]), [X]).result, int)


def test_while_loops_run_until_they_stop():
    def f(x):
        y = x
        while np.linalg.norm(y) > 0.1:
            y = y * 0.5
        return y

    r = check(f, X, others=[X * 1.01])
    assert len(r.guards) > 3


def test_constants_are_not_guarded():
    def f(x):
        limit = np.zeros(3) + 1.0
        if limit[0] > 0 and float(limit[1]) and limit.tolist() and limit.any():
            x = x * limit[2]
        return x

    assert not record(f, [X]).guards


def test_indices_and_sizes():
    def f(x):
        k = np.argmax(x)
        return x[:k], list(range(k)), np.zeros(k + 1) + x[0], operator.index(k)

    r = record(f, [X])
    assert len(r.guards) == 2
    assert r.result[0].shape == (2,)


@pytest.mark.parametrize(
    "look",
    [float, complex, lambda v: v.item(), lambda v: np.atleast_1d(v).tolist(), math.sin, np.asarray,
     lambda v: v.__array__(), lambda v: np.zeros(3).__class__ and math.fsum([v])],
)  # fmt: skip
def test_losing_a_derivative_is_refused(look):
    def f(x):
        return look(x[0]) if look is not np.asarray else np.frombuffer(np.asarray(x[0]))

    with pytest.raises((RecordingError, TypeError), match=r"derivative|buffer|bytes-like") as caught:
        record(f, [X])
    if isinstance(caught.value, RecordingError):
        assert "test_guards.py:" in str(caught.value)
        assert "y.data" in str(caught.value)


def test_define_by_run_refuses_as_well():
    y = Variable(X) * 2
    with pytest.raises(RecordingError, match="derivative"):
        float(y[0])
    with pytest.raises(RecordingError, match="derivative"):
        math.exp(y[0])
    assert bool(y[0] > 0)
    assert int(y[2]) == 5


def test_data_is_the_way_out_and_is_guarded():
    def f(x):
        scale = float(np.max(np.abs(x.data)))
        return x * scale

    r = check_at_recorded_point(f)
    assert len(r.guards) == 1
    assert not guards_hold(r, {r.inputs[0]: X + 1})
    with pytest.raises(ValueError, match="read-only"):
        record(lambda x: (x * 2).data.__setitem__(0, 1.0), [X])


def check_at_recorded_point(f):
    r = record(f, [X])
    np.testing.assert_array_equal(evaluate([r.result.node], {r.inputs[0]: X})[0], r.result._value)
    return r


def test_text_is_guarded_by_the_numbers_that_it_shows():
    def f(x):
        assert repr(x) == "Variable([ 0.5, -1.5,  2.5])"
        assert str(x) == str(X)
        assert f"{x[0]:.2f} {x[0]}" == "0.50 0.5"
        assert "%.2f" % x[0] == "0.50" and "%g, %s, %d" % (x[1], x[2], x[2]) == "-1.5, 2.5, 2"  # noqa: UP031
        line = "%s is %.1f"
        line %= "x", x[0]
        assert line == "x is 0.5"
        assert np.array2string(x, precision=1) == np.array2string(X, precision=1)
        assert np.array_repr(x).startswith("Variable")
        return x

    r = record(f, [X])
    assert guards_hold(r, {r.inputs[0]: X}) and not guards_hold(r, {r.inputs[0]: X + 0.1})


def test_other_functions_of_a_float_beside_a_text_are_refused():
    for function in (lambda x: "%.2f" % math.sin(x[0]), lambda x: "%.2f" % float(x[0])):  # noqa: UP031
        with pytest.raises(RecordingError, match=r"float\(\)"):
            record(function, [X])


def test_whole_array_decisions():
    def f(x):
        if np.allclose(x, x + 1e-12) and not np.array_equal(x, 2 * x) and np.all(x < 9) and np.any(x < 0):
            return x * 2
        return x

    r = check(f, X)
    assert len(r.guards) == 4
    with pytest.raises(ValueError, match="ambiguous"):
        record(lambda x: x if x > 0 else 2 * x, [X])


def test_sorting_is_guarded_by_the_order():
    r = check(np.sort, X, others=[X * 1.5])
    assert not guards_hold(r, {r.inputs[0]: -X})


def test_value_dependent_structure_of_a_mask():
    r = record(lambda x: np.sum(x[x > 0]), [X])
    assert guards_hold(r, {r.inputs[0]: X * 2})
    assert not guards_hold(r, {r.inputs[0]: -X})


def test_contains_min_max_sorted():
    r = check(lambda x: (max(x), min(x), sorted(x)[0], sum(x)), X, others=[X * 1.1])
    assert r.guards
    assert record(lambda x: 0.5 in x, [X]).result


def test_nested_recordings():
    def outer(x):
        inner = record(lambda z: z * 2 if z[0] > 0 else z, [x.data])
        assert current_recording() is not inner
        return x * inner.result._value[0]

    r = record(outer, [X])
    assert current_recording() is None
    assert len(r.guards) == 1


def test_state_is_restored_after_an_error():
    zeros = np.zeros
    with pytest.raises(ZeroDivisionError):
        record(lambda x: 1 // 0, [X])
    assert current_recording() is None
    assert np.zeros is zeros
