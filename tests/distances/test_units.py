"""Arguments with a unit of measurement raise an error that says how to convert them."""

import numpy as np
import pytest

from spikeloss_xp.distances import coincidence_factor, similarity, van_rossum, victor_purpura


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
