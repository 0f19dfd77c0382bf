"""Valid targets work in every form; values that cannot be checked give NaN."""

import functools

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import IGNORED, Call, each, run
from _support.cases import close
from spikeloss_xp.slayer import published

SPIKES = np.random.default_rng(0).uniform(0.1, 1, (2, 3, 5))
LABEL, IGNORING = np.asarray([1, 0]), np.asarray([IGNORED, 1])
NUMBERS = np.asarray([[0.0, 1.0, 0.25], [0.5, 0.875, 0.0]])
TRAINS = (SPIKES > 0.5).astype(float)
WEIGHT = np.asarray([1.0, 2.0, 0.5])
NEURONS = np.arange(30).reshape(SPIKES.shape) % 7 != 3
MASKED_CLASS = "the class that a bad label is computed as"
FIRST_CLASS = np.arange(6).reshape(2, 3, 1) + 0 * SPIKES > 0  # masked in the first sample
OPTIONS = {
    "": {},
    "weight": {"weight": WEIGHT},
    MASKED_CLASS: {"where": FIRST_CLASS},
    "lengths": {"lengths": np.asarray([5, 4]), "weight": WEIGHT},
    "samples": {"where": np.asarray([True, True])},
    "steps": {"where": np.arange(10).reshape(2, 5) != 3, "weight": WEIGHT},
    "neurons": {"where": NEURONS},
    "both": {"lengths": np.asarray([5, 4]), "where": NEURONS, "weight": WEIGHT},
}
entropy = functools.partial(sx.CrossEntropy, time_axis=-1)
latency = functools.partial(sx.SpikeLatency, time_axis=-1)


def with_entry(x, value, *index):
    """Return a copy with another value at an index of the first sample."""
    x = x.copy()
    x[0, *index] = value
    return x


BAD_VALUES = [  # losses, their targets, and what makes the first sample bad
    *(
        (loss, IGNORING, {"target": np.asarray([bad, 1])})
        for loss, bad in (
            (sx.SpikeRate(0.75, 0.125, time_axis=-1), 7),
            (sx.SpikeRate(0.75, 0.125, moving_window=3, time_axis=-1), -1),
            (sx.SpikeMax(time_axis=-1), 3),
            (sx.SpikeMax(moving_window=3, time_axis=-1), 120),
            (sx.SpikeMax(mode="softmax", time_axis=-1), 7),
            (published.SpikeMax(time_axis=-1), -1),
            (entropy(label_smoothing=0.25, readout="rate"), 6),  # computed as class 0
            (entropy(readout="last"), -1),
        )
    ),
    *(
        (loss, NUMBERS, {"target": with_entry(NUMBERS, bad, 1)})
        for loss, bad in (
            (entropy(), -0.25),
            (entropy(label_smoothing=0.25), -0.25),
            (sx.SpikeMoid(alpha=1, theta=0, time_axis=-1), 1.5),
            (
                sx.SpikeMoid(moving_window=3, alpha=1, theta=0, time_axis=-1),
                np.nan,
            ),
            (latency(), -1.0),
        )
    ),
    *(
        (loss, TRAINS, {"target": with_entry(TRAINS, bad, 1)})
        for loss, bad in (
            (sx.PoissonNLL(time_axis=-1), -1.0),
            (sx.PoissonNLL(time_axis=-1, link="identity"), np.nan),
            (sx.PoissonNLL(time_axis=-1, constant=True), 0.5),
            (sx.NegativeBinomialNLL(time_axis=-1, dispersion=0.5), -1.0),
            (sx.NegativeBinomialNLL(time_axis=-1, dispersion=0.5, constant=True), 0.5),
            (sx.BernoulliNLL(time_axis=-1), 2.0),
            (sx.BernoulliNLL(time_axis=-1, link="hazard"), np.nan),
        )
    ),
    (
        sx.PoissonNLL(time_axis=-1, link="identity"),
        TRAINS,
        {"spikes": with_entry(SPIKES, -0.25, 1)},
    ),
    (entropy(readout="sqrt_count"), LABEL, {"spikes": with_entry(SPIKES, -9.0, 1, 0)}),
    (entropy(rates=(0.5, 0.02)), LABEL, {"spikes": with_entry(SPIKES, -9.0, 1, 0)}),
    (latency(), LABEL, {"spikes": with_entry(SPIKES, -0.25, 1, 0)}),
    *(
        (loss, target, {"lengths": np.asarray([bad, 5])})
        for bad in (-1, 6)
        for loss, target in (
            (sx.SpikeTime(time_axis=-1), SPIKES[::-1]),
            (sx.SpikeMax(time_axis=-1), LABEL),
            (sx.SpikeRate(0.5, 0.125, moving_window=3, time_axis=-1), LABEL),
            (
                sx.SpikeMoid(readout="count", alpha=1, theta=0, time_axis=-1),
                NUMBERS,
            ),
            (entropy(readout="last"), LABEL),
        )
    ),
]


@pytest.mark.parametrize(("loss", "target", "bad"), BAD_VALUES)
@pytest.mark.parametrize("name", ["array-api-strict", "jax-x64"])
def test_bad_value_that_cannot_be_read_makes_its_sample_nan(name, loss, target, bad):
    """With every mask, in the terms and in the mean. The other sample keeps its gradient."""
    options = [""] if "lengths" in bad else ["weight"] if name == "jax-x64" else OPTIONS
    with on(name) as backend, np.errstate(invalid="ignore"):  # NumPy warns of logaddexp at NaN
        for option in options:
            call = Call(loss, SPIKES, target, **OPTIONS[option])
            good, mean = (call.with_loss_options(reduction=name) for name in ("none", "mean"))
            expected, (terms, gradient) = good.on(backend), good.replace(**bad).on(backend)
            assert np.isnan(gradient[0]).any(), option
            assert np.isnan(terms[0]).any(), option
            all_steps = {"", "weight"} | ({MASKED_CLASS} if loss.classes_compete else set())
            if "lengths" in bad or (target is IGNORING and option in all_steps):
                assert np.isnan(terms[0]).all(), option
            elif target is not IGNORING and not loss.classes_compete:
                assert not np.isnan(terms[0, [0, 2]]).any(), option
            close(terms[1], expected[0][1], backend.rtol)
            close(gradient[1], expected[1][1], backend.rtol)
            value, gradient = mean.replace(**bad).on(backend)
            assert np.isnan(value), option
            if target is IGNORING and "weight" in OPTIONS[option]:
                close(gradient[1], mean.on(backend)[1][1], backend.rtol)
            if target is NUMBERS and loss.classes_compete and "target" in bad:
                without = mean.replace(target=NUMBERS * [[0], [1]])  # no part of the divisor
                close(gradient[1], without.on(backend)[1][1], backend.rtol)


@pytest.mark.parametrize("name", ["jax-x64", "array-api-strict"])
def test_label_out_of_range_is_nan_at_its_step(name):
    label = np.asarray([[0, 1, 2, 1, 0], [0, 3, 2, -1, 0]])
    with on(name) as backend:
        terms = run(
            backend, sx.SpikeMax(moving_window=3, reduction="none", time_axis=-1), SPIKES, label
        )
    np.testing.assert_array_equal(np.isnan(terms), (label < 0) | (label > 2))


@pytest.mark.parametrize("bad", [-1, 120])
def test_label_on_the_host_of_a_masked_sample_is_not_checked(backend, bad):
    evaluate = sx.value_and_grad(sx.SpikeMax(time_axis=-1))
    expected = evaluate(SPIKES, [0, 1], where=[False, True])
    given = [  # outside of the trace, so that the labels are checked
        functools.partial(evaluate, target=[bad, 1], **mask)
        for mask in ({"where": np.asarray([False, True])}, {"lengths": [0, 5]})
    ]
    for got in run(backend, each(given), SPIKES):
        for array, expected_array in zip(got, expected, strict=True):
            close(array, expected_array, backend.rtol)
    if backend.reads_values:
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            sx.SpikeMax(time_axis=-1)(backend.asarray(SPIKES), [0, bad], where=[False, True])


def test_int8_labels_work_with_more_than_128_classes(backend):
    spikes = np.zeros((2, 200, 1))
    spikes[:, [3, 199]] = 1
    compiled_loss = backend.compiled(sx.SpikeMax(reduction="none", time_axis=-1))
    terms = compiled_loss(backend.asarray(spikes), backend.asarray([3, 127], "int8"))
    # the label is one of two active neurons, then a silent one: -log(1/2) + 1 + log(2 + 200/2)
    expected = np.asarray([np.log(2 + 1e-6), np.log(2) + 1 + np.log(102 + 1e-6)])
    close(backend.numpy(terms), expected, backend.rtol)


@pytest.mark.parametrize("bad", [2**32, -(2**32) + 1, 2**63 - 1])
def test_wide_label_does_not_wrap_around_to_a_class(bad):
    """In a trace the mask has no values, so the labels are checked where they are used."""
    with on("jax") as backend:
        spikes, where = backend.asarray(SPIKES), backend.asarray([True, True])
        loss = sx.SpikeMax(reduction="none", time_axis=-1)

        def terms(where):
            return loss(spikes, np.asarray([bad, 1]), where=where)

        np.testing.assert_array_equal(np.isnan(backend.compiled(terms)(where)), [True, False])
        with pytest.raises(ValueError, match=f"target must be between 0 and 2; got .*{bad}"):
            terms(where)


@pytest.mark.parametrize("dtype", [">i2", ">i4", "<i2", ">i8"])
def test_integers_have_their_value_in_any_byte_order(backend, dtype):
    """256 and 0 have the same bytes as 1 and 0 in the other order."""
    label, loss = np.asarray([2, 0]), sx.SpikeMax(time_axis=-1)
    got, expected = run(backend, lambda x: [loss(x, label.astype(dtype)), loss(x, label)], SPIKES)
    assert got == expected
    wrong, spikes = np.asarray([256, 0]).astype(dtype), backend.asarray(SPIKES)
    for loss in (
        sx.CrossEntropy(time_axis=-1),
        sx.SpikeMax(time_axis=-1),
        sx.SpikeRate(0.5, 0.1, time_axis=-1),
    ):
        for call in (loss, loss.confusion):
            with pytest.raises(ValueError, match=r"target must be .*; got .* 256"):
                call(spikes, wrong)
            with pytest.raises(ValueError, match=r"lengths must be .*; got .* 256"):
                call(spikes, [2, 0], lengths=wrong)
    with pytest.raises(ValueError, match=r"lengths must be .*; got .* 256"):
        sx.distances.van_rossum(spikes, time_constant=3.0, lengths=wrong)
