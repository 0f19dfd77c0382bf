"""Wrong arguments, and those with a unit of measurement, raise an error that says what to do."""

from functools import partial

import numpy as np
import pytest
from numpy import inf

from _support.cases import raises
from spikeloss_xp.distances import coincidence_factor, similarity, van_rossum, victor_purpura


class Quantity(np.ndarray):
    """Numbers with a unit of measurement, as those of neo."""

    dimensionality = "ms"


def quantity(values):
    return np.asarray(values, dtype=float).view(Quantity)


rossum = partial(van_rossum, time_constant=1)
purpura = partial(victor_purpura, cost=1)
factor = partial(coincidence_factor, precision=1, duration=1)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, x: victor_purpura([t], cost=1e-9), ValueError, "cost.*1e-06"),
        (lambda t, x: purpura([]), ValueError, "input has no trains.*list"),
        (lambda t, x: purpura(t), ValueError, "input must be a sequence.*(3,): pass.*[input]"),
        (lambda t, x: purpura([1.0, 2.0], [t]), ValueError, "input[0] must.*(): pass.*[input]"),
        (lambda t, x: purpura([t[None, :]]), ValueError, "input[0] must.*(1, 3)"),
        (lambda t, x: purpura([[t, t[:1]], [t]]), ValueError, "input[0] holds several.*trials[0]"),
        (lambda t, x: rossum([t, [[1.0], [2.0, 3.0]]], times=True), ValueError, "input[1] holds"),
        (lambda t, x: purpura(x), ValueError, "input must hold.*3, 5).*van_rossum with times=F"),
        (lambda t, x: rossum(x, 0 * x, times=True), ValueError, "input must hold spike.*binned"),
        (lambda t, x: purpura([t, ["a"]]), TypeError, "input[1] must hold numbers"),
        (lambda t, x: purpura([t], [t, 2.0]), ValueError, "other[1] must.*()"),
        (lambda t, x: purpura([t], "abc"), TypeError, "other must hold numbers.*str"),
        (lambda t, x: factor([t], precision=0), ValueError, "precision.*0"),
        (lambda t, x: factor([t], duration=0), ValueError, "duration.*0"),
        (lambda t, x: rossum([[0.0]]), TypeError, "pass times=True"),
        (lambda t, x: rossum(t[None], times=True, lengths=[3]), ValueError, "pad spike times with"),
        (lambda t, x: rossum(t[None, None], times=True), ValueError, "shape (1, 1, 3)"),
        (lambda t, x: rossum([t], times=1), TypeError, "times must be True or"),
        (lambda t, x: rossum(x, time_constant=0), ValueError, "time_constant.*0"),
        (lambda t, x: similarity(x, time_constant=1, cosine=1.5), ValueError, "cosine.*1.5"),
        (lambda t, x: rossum(x * inf), ValueError, "input.*infinity.*pass times=True"),
        (
            lambda t, x: similarity(x, x * inf, time_constant=1),
            ValueError,
            "other must hold binned",
        ),
        (lambda t, x: rossum(x, squared=1), TypeError, "squared.*1"),
        (lambda t, x: rossum(x[0, :]), ValueError, "input must.*(5,).*input[None]"),
        (lambda t, x: rossum(x[:, :4], x), ValueError, "other must.*(3, 5).*(3, 4)"),
        (lambda t, x: rossum(x[:, :0]), ValueError, "input has no.*(3, 0)"),
        (lambda t, x: rossum(x, time_axis=2), ValueError, "time_axis=2.*(3, 5)"),
        (lambda t, x: rossum(x, time_axis=1.0), TypeError, "time_axis must be an integer"),
        (lambda t, x: rossum(x, "y"), TypeError, "other must hold numbers.*str"),
        (lambda t, x: rossum(x, where=[1, 1, 1]), TypeError, "where.*bool"),
        (lambda t, x: rossum(x, lengths=[6, 1, 1]), ValueError, "lengths.*6"),
        (lambda t, x: rossum(x, x, other_lengths=[6] * 3), ValueError, "other_lengths"),
        (lambda t, x: rossum(x, other_lengths=[1] * 3), ValueError, "pass other too"),
        (lambda t, x: purpura([t], cost=quantity(1.0)), TypeError, "cost must be a number.*magn"),
        (lambda t, x: factor([t], precision=[quantity(1)]), TypeError, "precision must be a.*magn"),
        (lambda t, x: rossum(x, time_constant=quantity(1)), TypeError, "time_constant must.*magn"),
        (lambda t, x: rossum(quantity(x)), TypeError, "input must be.*: pass x.magnitude"),
        (lambda t, x: rossum(x, quantity(x)), TypeError, "other must be.*: pass x.magnitude"),
        (lambda t, x: rossum(x, [[0.0, quantity(1)]]), TypeError, "other.*must.*pass x.magnitude"),
    ],
)
def test_errors_name_the_argument(call, error, message):
    """With a train of three spike times, and with three trains in five bins."""
    with raises(error, message):
        call(np.asarray([1.0, 2.0, 3.0]), np.ones((3, 5)))


def test_hint_at_a_single_train_is_given_for_a_single_train():
    for shape, hint in (((5,), True), ((1, 1, 3, 5), False)):
        with pytest.raises(ValueError, match="must have the axes") as raised:
            rossum(np.ones(shape))
        assert ("for a single train" in str(raised.value)) == hint


@pytest.mark.parametrize("function", [purpura, factor, partial(rossum, times=True)])
def test_unit_of_spike_times_raises(function):
    """Of a whole train, of an entry of a list, and of one after entries without a unit."""
    for given in (
        quantity([[1.0, 2.0]]),
        [quantity([1.0, 2.0])],
        [[1.0], quantity([2.0])],
        [[quantity(1.0)]],
        [[1.0, np.float32(2.0), quantity(3.0)]],
        (np.asarray([1.0]), (2.0, quantity(3.0))),
    ):
        for argument, trains in (("input", [given]), ("other", [[[1.0, 2.0], [3.0]], given])):
            message = rf"^{argument}(\[\d\])? must be .*: pass x\.magnitude"
            with pytest.raises(TypeError, match=message):
                function(*trains)
