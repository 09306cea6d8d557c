"""Sums under a mask whose factors are contracted one after another."""

import math

import numpy as np
import pytest
import test_terms
from support import BOOL, F8, close, ramp
from test_terms import dense, stored

import jacana as jc
from jacana.graph.node import Term, new_input
from jacana.structure import terms
from jacana.structure.terms import normalise

SIZES = (6, 7, 3, 5)  # i and j are kept, k and l are summed


def masked_sum(axes_of_factors, axes_of_mask, *, infinite):
    """``sum over k, l`` of factors where a mask lets them in; ``infinite``: where only masked points read."""
    rng = np.random.default_rng(4)
    values = {}
    mask = new_input(tuple(SIZES[a] for a in axes_of_mask), BOOL)
    allowed = rng.random(mask.shape) < 0.6
    allowed[..., 2], allowed[1] = False, False
    values[mask] = allowed
    factors = []
    for axes in axes_of_factors:
        node = new_input(tuple(SIZES[a] for a in axes), F8)
        array = rng.uniform(0.5, 1.5, node.shape)
        absent = tuple(k for k, a in enumerate(axes_of_mask) if a not in axes)
        shared = [a for a in axes_of_mask if a in axes]
        if infinite and shared:
            seen = np.any(allowed, axis=absent) if absent else allowed
            order = [shared.index(a) for a in axes if a in shared]
            shape = [SIZES[a] if a in shared else 1 for a in axes]
            array = np.where(seen.transpose(order).reshape(shape), array, rng.choice([np.nan, np.inf]))
        values[node] = array
        factors.append((node, axes))
    term = Term(SIZES, (ramp(0),), (ramp(1),), tuple(factors), ((mask, axes_of_mask),))
    return term, values


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize(
    ("factors", "mask", "apart"),
    [
        ([(0, 2), (2, 3), (3, 1)], (2, 3), True),  # one factor has both axes of the mask
        ([(0, 2), (3, 1)], (2, 3), True),  # none has: the mask becomes one
        ([(0, 2, 3), (3, 1)], (0, 3), False),  # the mask has an axis of the result that a factor has not
        ([(0, 2, 3), (0, 3, 1)], (0, 3), True),  # which both have
        ([(0, 2, 3), (3, 1, 2)], (3,), True),
    ],
)
def test_masked_sums_are_what_the_definition_says(factors, mask, apart, infinite, monkeypatch):
    monkeypatch.setattr(terms, "ENLARGED", 1)
    term, values = masked_sum(factors, mask, infinite=infinite)
    found = normalise(term)
    largest = max(math.prod(node.shape) for node, _ in found.factors)
    assert largest <= 42  # nothing has all four axes
    with np.errstate(all="ignore"):
        expected = dense([term], (6,), (7,), values)
    assert np.isfinite(expected).all()
    close(stored([found], (6,), (7,), values), expected, 1e-14)
    summed = {2, 3}
    touching = [f for f in term.factors if not summed.isdisjoint(f[1])]
    assert (terms._selected_apart(touching, term.masks, summed, SIZES) is not None) == apart


def test_every_masked_sum_may_be_taken_apart(monkeypatch):
    # The properties of all terms, where even small products are not made.
    monkeypatch.setattr(terms, "ENLARGED", 0)
    test_terms.test_normal_form_is_the_same_matrix()
    test_terms.test_composition_is_the_matrix_product()


@pytest.mark.parametrize("order", ["forward", "reverse", "cost"])
def test_no_infinity_of_a_branch_not_taken(order):
    rng = np.random.default_rng(0)
    a, c, x = rng.standard_normal((6, 3)), rng.standard_normal((5, 7)), rng.uniform(0.5, 2.0, (3, 5))
    x[1, 2], x[:, 4] = 0.0, 0.0

    def f(p):
        return a @ np.where(p * x > 0.0, np.sqrt(p * x), 0.0) @ c

    expected = a @ np.where(x > 0.0, 0.5 * np.sqrt(x / 1.3), 0.0) @ c
    close(jc.jacobian(f, order=order)(np.array([1.3]))[..., 0], expected, 1e-14)


def test_a_gaussian_process_needs_nothing_larger_than_its_matrix():
    n = 9
    x = np.sort(np.random.default_rng(2).uniform(0.0, 10.0, n))
    y = np.sin(x)

    def cost(p):
        kernel = np.exp(p[1] - ((x[:, None] - x) / np.exp(p[0])) ** 2) + np.exp(p[2]) * np.eye(n)
        factor = np.linalg.cholesky(kernel)
        white = np.linalg.solve(factor, y)
        return 0.5 * white @ white + np.sum(np.log(np.diag(factor)))

    def closed(p):
        kernel = np.exp(p[1] - ((x[:, None] - x) / np.exp(p[0])) ** 2) + np.exp(p[2]) * np.eye(n)
        return 0.5 * y @ np.linalg.solve(kernel, y) + 0.5 * np.linalg.slogdet(kernel)[1]

    p = np.array([0.1, -0.2, -1.0])
    close(jc.hessian(cost)(p), jc.hessian(closed)(p), 1e-11)
