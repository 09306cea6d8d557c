"""What byte code says about calls."""

import dis
import sys

from jacana.record.bytecode import called_name


def calls(a, b, f, g, n, args, kw, rng, xp):
    f.array(a * 2.0)
    f.zeros(3, dtype=float)
    f.empty(n if a else b)
    f.array([[c * d for c in a] for d in b])
    g(f.zeros(3), f.ones((n and 2) or 3))
    rng.normal(f.zeros(2), size=g(3))
    try:
        f.empty(a)
    except ValueError as e:
        f.array([e, 1])
    for _ in range(f.array(3)):
        while f.array(n):
            f.asarray(lambda: f.ones(3))
    f.zeros(*args, **kw)
    (xp if a else b).zeros(4)
    f.array((1, 2)).reshape(2)
    return f.array(1) + f.ones(2)


EXPECTED = [
    "array", "zeros", "empty", "array", "zeros", "ones", "g", "zeros", "g", "normal", "empty", "array", "array",
    "range", "array", "asarray", "zeros", "zeros", "array", "reshape", "array", "ones",
]  # fmt: skip


def test_names_of_calls():
    found = [
        called_name(calls.__code__, i.offset)
        for i in dis.get_instructions(calls)
        if i.opname in ("CALL", "CALL_KW", "CALL_FUNCTION_EX")
    ]
    missing = list(EXPECTED)
    for name in found:
        if name in missing:
            missing.remove(name)
    # Comprehensions are calls of their own before 3.12, handlers come last, loops may test twice.
    assert not missing


def test_a_frame_in_the_middle_of_a_call():
    def make(n):
        frame = sys._getframe(1)
        return called_name(frame.f_code, frame.f_lasti)

    assert make(3) == "make"
    assert [make(k) for k in range(2)] == ["make", "make"]
    assert sorted([3], key=make) == [3]
