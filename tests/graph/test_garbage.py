"""The garbage collector is back to what it was, whoever planned, nested or at once."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pytest

import jacana as jc
from jacana.graph.garbage import OBJECTS, seldom_collected


@pytest.fixture(autouse=True)
def _usual():
    before = gc.get_threshold()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)


def test_nested():
    with seldom_collected():
        with seldom_collected():
            assert gc.get_threshold() == (OBJECTS, 10, 10)
        assert gc.get_threshold() == (OBJECTS, 10, 10)
    assert gc.get_threshold() == (700, 10, 10)


def test_restored_after_an_error():
    with pytest.raises(ValueError, match="planning"), seldom_collected():
        raise ValueError("planning")
    assert gc.get_threshold() == (700, 10, 10)


def test_a_collector_that_is_off_or_set_meanwhile_is_left_alone():
    gc.set_threshold(0)
    with seldom_collected():
        assert gc.get_threshold()[0] == 0
    assert gc.get_threshold()[0] == 0
    gc.set_threshold(700, 10, 10)
    with seldom_collected():
        gc.set_threshold(800, 10, 10)
    assert gc.get_threshold() == (800, 10, 10)


def test_threads_that_overlap():
    inside, leave = threading.Event(), threading.Event()

    def other():
        with seldom_collected():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    thread.start()
    assert inside.wait(10)
    with seldom_collected():
        pass
    assert gc.get_threshold() == (OBJECTS, 10, 10)  # the other one is at it still
    leave.set()
    thread.join()
    assert gc.get_threshold() == (700, 10, 10)


def test_a_transform_leaves_it_as_it_was():
    np.testing.assert_array_equal(jc.jacobian(lambda x: 3.0 * x)(np.ones(2)), 3.0 * np.eye(2))
    assert gc.get_threshold() == (700, 10, 10)
