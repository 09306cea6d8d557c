"""What a recording notices of functions and objects that answer in their own way."""

import numpy as np

import jacana as jc


def test_attributes_of_functions():
    def scaled(x):
        return x * scaled.factor

    scaled.factor = 1.0
    derivative = jc.jacobian(scaled)
    np.testing.assert_array_equal(derivative(np.ones(2)), np.eye(2))
    scaled.factor = 3.0
    np.testing.assert_array_equal(derivative(np.ones(2)), 3.0 * np.eye(2))

    def uses(x):
        return scaled.factor * x

    other = jc.jacobian(uses)
    other(np.ones(2))
    scaled.factor = 5.0
    np.testing.assert_array_equal(other(np.ones(2)), 5.0 * np.eye(2))


def test_objects_whose_attributes_fail_in_their_own_way():
    store = {"factor": 2.0}

    class Lazy:
        def __getattr__(self, name):
            return store[name]

    lazy = Lazy()
    np.testing.assert_array_equal(jc.jacobian(lambda x: x * lazy.factor)(np.ones(2)), 2.0 * np.eye(2))
