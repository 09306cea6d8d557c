"""Every public function of NumPy and of parts of SciPy: differentiated, zero, or refused; never a silent zero."""

from __future__ import annotations

import numpy as np
import page
import pytest
from points import differences, function_of, turned_around

import jacana as jc

CASES = [(library, name) for library in page.LIBRARIES for name in library.calls]
REFUSED = [(library, name) for library in page.LIBRARIES for name in library.refused]
OWN_ERRORS = {"nditer", "__array_interface__", "__array_struct__"}  # NumPy asks for these before it asks for an array


def title(value):
    return value if isinstance(value, str) else value.name


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:numpy.fix")
@pytest.mark.parametrize(("library", "name"), CASES, ids=title)
def test_value_and_jacobian(library, name):
    if library.public is not None and name not in library.public:
        pytest.skip("this version of the library has no such function")
    function, point = function_of(library.calls[name], library.setup)
    expected = function(point)
    slopes = differences(function, point)
    assert bool(np.any(slopes)) == (name not in library.steps), "the table says otherwise"
    both = jc.value_and_jacobian(function)
    value, jacobian = both(point)
    np.testing.assert_allclose(value, expected, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(jacobian, slopes, rtol=1e-7, atol=1e-7)
    moved = point + 1e-6  # a replay of the same recording: nothing of the first numbers may have stayed in it
    np.testing.assert_allclose(both(moved)[0], function(moved), rtol=1e-10, atol=1e-11)
    # Other numbers in another order: what was looked at has changed, so it is another recording or none was needed.
    turned = turned_around(library.calls[name])
    value, jacobian = both(turned)
    np.testing.assert_allclose(value, function(turned), rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(jacobian, jc.jacobian(function)(turned), rtol=1e-9, atol=1e-9)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:numpy.fix", "ignore::RuntimeWarning")
@pytest.mark.parametrize("library", page.LIBRARIES, ids=title)
def test_single_precision(library):
    """dtypes are those of the library, and the numbers agree with double precision as far as they can."""
    for name, call in library.calls.items():
        # How long the remainder is depends on rounding; SciPy's own Mathieu functions are NaN in single precision.
        if (
            name == "polydiv"
            or name.startswith("mathieu")
            or (library.public is not None and name not in library.public)
        ):
            continue
        function, point = function_of(call, library.setup)
        single = point.astype(np.float32)
        try:
            expected = function(single)
        except (TypeError, ValueError):
            continue  # SciPy has no loop for it
        value, jacobian = jc.value_and_jacobian(function)(single)
        assert value.dtype == expected.dtype, name
        np.testing.assert_allclose(value, expected, rtol=2e-3, atol=1e-3, err_msg=name)
        if name not in ("itemsize", "nbytes", "strides"):
            wide = jc.jacobian(function)(point)
            np.testing.assert_allclose(jacobian, wide, rtol=3e-2, atol=2e-2, err_msg=name)


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")
@pytest.mark.parametrize(("library", "name"), REFUSED, ids=title)
def test_refused(library, name):
    if library.public is not None and name not in library.public:
        pytest.skip("this version of the library has no such function")
    function, point = function_of(library.refused[name], library.setup)
    with pytest.raises((TypeError, AttributeError) if name in OWN_ERRORS else jc.RecordingError):
        jc.jacobian(function)(point)


@pytest.mark.parametrize("library", [x for x in page.LIBRARIES if x.public is not None], ids=title)
def test_every_public_name_is_accounted_for(library):
    missing = library.public - library.listed() - page.GONE
    assert not missing
    assert not set(library.calls) & set(library.refused)
    assert library.steps <= set(library.calls)


def test_the_page_is_fresh():
    assert page.PAGE.read_text(encoding="utf-8") == page.text(), "run python tests/coverage/page.py"


def test_all_but_ten_functions_of_numpy_work():
    refused = [name for x in page.LIBRARIES[:3] for name in x.refused]
    assert len(refused) <= 10
