"""Wrong arguments, and those with a unit of measurement, raise an error that says what to do."""

import re
from functools import partial

import numpy as np
import pytest

from spikeloss_xp.distances import coincidence_factor, similarity, van_rossum, victor_purpura

rossum = partial(van_rossum, time_constant=1)
purpura = partial(victor_purpura, cost=1)
factor = partial(coincidence_factor, precision=1, duration=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, x: victor_purpura([t], cost=1e-9), ValueError, "cost.*1e-06"),
        (lambda t, x: purpura([]), ValueError, "times has no trains.*list"),
        (lambda t, x: purpura(t), ValueError, "times must be a sequence.*(3,)"),
        (lambda t, x: purpura([t[None, :]]), ValueError, "times[0] must.*(1, 3)"),
        (lambda t, x: purpura([t, ["a"]]), TypeError, "times[1] must hold numbers"),
        (lambda t, x: purpura([t], [t, 2.0]), ValueError, "other[1] must.*()"),
        (lambda t, x: purpura([t], "abc"), TypeError, "other must hold numbers.*str"),
        (lambda t, x: factor([t], precision=0), ValueError, "precision.*0"),
        (lambda t, x: factor([t], duration=0), ValueError, "duration.*0"),
        (lambda t, x: rossum([t]), TypeError, "pass times=True"),
        (lambda t, x: rossum([[0.0]]), TypeError, "pass times=True"),
        (lambda t, x: rossum(t[None], times=True, lengths=[3]), ValueError, "pad spike times with"),
        (lambda t, x: rossum(t[None, None], times=True), ValueError, "shape (1, 1, 3)"),
        (lambda t, x: rossum([t], times=1), TypeError, "times must be True or"),
        (lambda t, x: rossum(x, time_constant=0), ValueError, "time_constant.*0"),
        (lambda t, x: similarity(x, time_constant=1, cosine=1.5), ValueError, "cosine.*1.5"),
        (lambda t, x: rossum(x, squared=1), TypeError, "squared.*1"),
        (lambda t, x: rossum(x[0, :]), ValueError, "x must.*(5,).*x[None]"),
        (lambda t, x: rossum(x[:, :4], x), ValueError, "y must.*(3, 5).*(3, 4)"),
        (lambda t, x: rossum(x[:, :0]), ValueError, "x has no.*(3, 0)"),
        (lambda t, x: rossum(x, time_axis=2), ValueError, "time_axis=2.*(3, 5)"),
        (lambda t, x: rossum(x, "y"), TypeError, "y must hold numbers.*str"),
        (lambda t, x: rossum(x, where=[1, 1, 1]), TypeError, "where.*bool"),
        (lambda t, x: rossum(x, lengths=[6, 1, 1]), ValueError, "lengths.*6"),
        (lambda t, x: rossum(x, x, y_lengths=[6] * 3), ValueError, "y_lengths"),
        (lambda t, x: rossum(x, y_lengths=[1] * 3), ValueError, "pass y too"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    """With a train of three spike times, and with three trains in five bins."""
    pattern = ".*".join(map(re.escape, message.split(".*")))
    with pytest.raises(error, match=pattern):
        call(np.asarray([1.0, 2.0, 3.0]), np.ones((3, 5)))


# Units of measurement ------------------------------------------------------------------------


class Quantity(np.ndarray):
    """Numbers with a unit, as those of neo."""

    dimensionality = "ms"


def quantity(values):
    return np.asarray(values, dtype=float).view(Quantity)


PLAIN = [[1.0, 2.0], [3.0]]
# A whole train, an entry of a list, and one after entries without a unit.
LISTS = (
    [quantity([1.0, 2.0])],
    [[1.0], quantity([2.0])],
    [[quantity(1.0)]],
    [[1.0, np.float32(2.0), quantity(3.0)]],
    (np.asarray([1.0]), (2.0, quantity(3.0))),
)
OPTIONS = {
    victor_purpura: {"cost": 1.0},
    coincidence_factor: {"precision": 1.0, "duration": 9.0},
    van_rossum: {"time_constant": 1.0, "times": True},
    similarity: {"time_constant": 1.0, "times": True},
}


def refuses(argument):
    return pytest.raises(TypeError, match=rf"^{argument}(\[\d\])? must be .*: pass x\.magnitude")


@pytest.mark.parametrize("function", OPTIONS)
def test_unit_of_spike_times_raises(function):
    first, second = ("x", "y") if "times" in OPTIONS[function] else ("times", "other")
    for given in (*LISTS, quantity([[1.0, 2.0]])):
        with refuses(first):
            function(given, **OPTIONS[function])
        with refuses(second):
            function(PLAIN, given, **OPTIONS[function])


def test_unit_of_trains_in_bins_raises():
    trains = np.eye(2)
    with refuses("x"):
        van_rossum(quantity(trains), time_constant=1.0)
    for y in (quantity(trains), [[0.0, 1.0], [0.0, quantity(1)]]):
        with refuses("y"):
            van_rossum(trains, y, time_constant=1.0)


@pytest.mark.parametrize("function", [victor_purpura, coincidence_factor, van_rossum])
def test_unit_of_a_number_raises(function):
    for name in OPTIONS[function].keys() - {"times"}:
        for given in (quantity(1.0), [quantity(1.0)]):
            with pytest.raises(TypeError, match=rf"^{name} must be a number.*x\.magnitude"):
                function(PLAIN, **{**OPTIONS[function], name: given})
