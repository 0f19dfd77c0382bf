"""PoissonNLL and BernoulliNLL: corners, and scores, which peers/test_tables.py compares too."""

import contextlib
import dataclasses
import math
import warnings
from decimal import Decimal, localcontext

import numpy as np
import pytest

import spikeloss_xp as sx
from _support import cases
from _support.backends import on
from _support.calls import each, not_jax, run
from _support.cases import close, raises, reduced
from _support.peers import import_peer
from spikeloss_xp import criteria
from spikeloss_xp._arrays import adapter_of

RANDOM = np.random.default_rng(0)
LOG_RATES = RANDOM.normal(-1, 1, size=(6, 20, 4))  # [batch, time, neuron]
COUNTS = RANDOM.poisson(np.exp(LOG_RATES + 0.5 * RANDOM.normal(size=LOG_RATES.shape))).astype(float)
COUNTS[..., 3] = 0  # a silent neuron
SPIKES = np.minimum(COUNTS, 1)
OBSERVED = RANDOM.random(COUNTS.shape) < 0.75
MISSING = np.where(OBSERVED, COUNTS, np.nan)
for array in (LOG_RATES, COUNTS, SPIKES, OBSERVED, MISSING):
    array.flags.writeable = False  # a loss and its scores must not change their arguments
POISSON, RATES = sx.PoissonNLL(time_axis=1), sx.PoissonNLL(time_axis=1, link="identity")
LOGITS, HAZARD = sx.BernoulliNLL(time_axis=1), sx.BernoulliNLL(time_axis=1, link="hazard")
EVERY = (  # losses, with an input and a target
    (POISSON, LOG_RATES, COUNTS),
    (RATES, np.exp(LOG_RATES), COUNTS),
    (sx.PoissonNLL(time_axis=1, constant=True), LOG_RATES, COUNTS),
    (LOGITS, LOG_RATES, SPIKES),
    (HAZARD, LOG_RATES, SPIKES),
)
every = pytest.mark.parametrize(("loss", "input", "target"), EVERY, ids=lambda x: repr(x)[:60])


# Values ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "rtol"), [("float64", 2e-14), ("float32", 4e-6)])
def test_logarithm_of_factorials_equals_scipy(dtype, rtol):
    special = import_peer("scipy.special")
    n = np.concatenate([np.arange(3000), np.logspace(4, 30, 27).round()]).astype(dtype)
    got, expected = criteria.log_factorial(adapter_of(n), n), special.gammaln(n + 1.0)
    assert got.dtype == dtype
    assert not got[:2].any()
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=6e-14)


SOME_COUNTS, SOME_MEANS = [0, 1, 2, 30, 1_000, 10_000], [1e-12, 1e-3, 0.3, 1.0, 7.0, 1e3, 1e6]
DISPERSIONS = [1e-12, 1e-8, 1e-4, 0.1, 1.0, 10.0]


def negative_binomial(dispersion):
    """Return the negative logarithms of the probabilities of all counts (rows) and means.

    They are computed with 60 digits. If c is a count, the ratio of the gamma functions of c + 1/a
    and 1/a, multiplied by a to the power of c, is the product of 1 + a k over all k below c.
    """
    with localcontext(prec=60):
        a, one = Decimal(dispersion), Decimal(1)
        found = []
        for count in SOME_COUNTS:
            inverse = math.prod(((k + 1) / (1 + a * k) for k in range(count)), start=one).ln()
            logs = [(m.ln(), (1 + a * m).ln()) for m in map(Decimal, SOME_MEANS)]
            found.append([inverse - count * u + (count + 1 / a) * v for u, v in logs])
        return np.asarray(found, dtype=float)


@pytest.mark.parametrize("dispersion", DISPERSIONS)
def test_probability_of_counts_equals_60_digits(dispersion):
    expected, counts = negative_binomial(dispersion), np.asarray(SOME_COUNTS)[:, None, None]
    means = np.broadcast_to(SOME_MEANS, (len(SOME_COUNTS), len(SOME_MEANS)))[..., None]
    for link, given in (("log", np.log(means)), ("identity", means)):
        loss = sx.NegativeBinomialNLL(
            time_axis=1, dispersion=dispersion, constant=True, link=link, reduction="none"
        )
        target = np.broadcast_to(counts, means.shape)
        terms = loss(given, target)[..., 0]
        # The rounding of the logarithm of the mean changes the term by the gradient times it.
        rounding = 1e-16 * np.abs(np.log(means) * (means - counts) / (1 + dispersion * means))
        error = np.abs(terms - expected) / (np.abs(expected) + rounding[..., 0] / 1e-12)
        assert error.max() < 1e-12, link
        if dispersion == min(DISPERSIONS):
            poisson = sx.PoissonNLL(time_axis=1, constant=True, link=link, reduction="none")
            small = (counts < 100) & (means < 100)
            np.testing.assert_allclose(terms[small[..., 0]], poisson(given, target)[small], 1e-9)


def test_gradient_of_fractional_counts_reaches_the_target():
    torch = pytest.importorskip("torch")
    half = torch.tensor(COUNTS / 2, requires_grad=True)
    reduced(POISSON, "sum")(torch.tensor(LOG_RATES), half).backward()
    torch.testing.assert_close(half.grad, -torch.tensor(LOG_RATES))


# Corners -----------------------------------------------------------------------------------------

INF = math.inf
CORNERS = (  # a loss, an input and a target, the term and its derivative
    (POISSON, -INF, 0, 0, 0),
    (POISSON, -INF, 1, INF, -1),
    (POISSON, INF, 0, INF, INF),
    (RATES, 0, 0, 0, 1),
    (RATES, 0, 1, INF, -INF),
    (LOGITS, -INF, 0, 0, 0),
    (LOGITS, INF, 1, 0, 0),
    (LOGITS, -INF, 1, INF, -1),
    (LOGITS, INF, 0, INF, 1),
    (LOGITS, 0, 0, math.log(2), 0.5),
    (LOGITS, -80, 0, math.exp(-80), math.exp(-80)),
    (HAZARD, -INF, 0, 0, 0),
    (HAZARD, -INF, 1, INF, -1),
    (HAZARD, -200, 1, 200, -1),
    (HAZARD, 200, 1, 0, 0),
    (HAZARD, 1000, 0, INF, INF),
    (HAZARD, math.log(1e-9), 1, -math.log(-math.expm1(-1e-9)), -1),
    (HAZARD, math.log(1e-9), 0, 1e-9, 1e-9),
    (HAZARD, 0, 1, -math.log(-math.expm1(-1)), -1 / math.expm1(1)),
    (HAZARD, -1e-20, 1, -math.log(-math.expm1(-1)), -1 / math.expm1(1)),  # whose exp is 1
    (HAZARD, math.log(20), 1, math.exp(-20), -20 * math.exp(-20)),
)


def by_backward(loss):
    """Return a function for the value and gradient of a loss as one node of PyTorch's graph."""

    def evaluate(x, y, *, cotangent):
        leaf = x.clone().requires_grad_()
        value = loss(leaf, y)
        value.backward(cotangent)
        return value.detach(), leaf.grad

    return evaluate


def test_infinite_logarithm_of_a_rate_does_not_warn():
    with np.errstate(all="raise"):
        assert POISSON(np.full((1, 1, 1), INF), [[[0]]]) == INF


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ["numpy", "torch", "array-api-strict", "jax-x64"])
def test_corners_have_the_values_and_derivatives_of_their_limits(name, dtype):
    """Of the closed form and, in PyTorch and JAX, of automatic differentiation."""
    with on(name) as backend, np.errstate(all="ignore"):
        for loss in (POISSON, RATES, LOGITS, HAZARD):
            chosen = np.asarray([corner[1:] for corner in CORNERS if corner[0] is loss])
            x, y, terms, slopes = (column[None, :, None] for column in chosen.T)
            arrays = [backend.asarray(array, dtype) for array in (x, y)]
            of_terms = sx.value_and_grad(reduced(loss, "none"))  # PyTorch differentiates them
            closed_form = by_backward(reduced(loss, "none"))
            for way in (of_terms, closed_form) if name == "torch" else (of_terms,):
                one = backend.asarray(np.ones(x.shape), dtype)
                got = backend.compiled(way)(*arrays, cotangent=one)
                for array, expected in zip(got, (terms, slopes), strict=True):
                    np.testing.assert_allclose(backend.numpy(array), expected, rtol=2e-6)


def test_log_hazard_has_a_smooth_loss_across_the_ranges_of_its_formulas():
    u = np.linspace(-80, 7.5, 3001)[None, :, None]
    _, gradient = sx.value_and_grad(reduced(HAZARD, "sum"))(u, np.ones(u.shape))
    slopes = np.diff(reduced(HAZARD, "none")(u, np.ones(u.shape))[0, :, 0]) / np.diff(u[0, :, 0])
    middle = (gradient[0, 1:, 0] + gradient[0, :-1, 0]) / 2
    np.testing.assert_allclose(slopes, middle, rtol=0, atol=1e-4)
    for name in ("torch", "jax-x64", "jax"):
        with on(name) as backend:
            arrays = backend.asarray(u), backend.asarray(np.ones(u.shape))
            got = backend.numpy(sx.value_and_grad(reduced(HAZARD, "sum").value)(*arrays)[1])
            close(got, gradient, 10 * backend.rtol)


def test_count_in_the_context_is_not_checked():
    missing = np.where(np.arange(20)[:, None] < 2, np.nan, COUNTS)
    expected = POISSON.sum_and_weight(LOG_RATES[:, 2:], COUNTS[:, 2:])
    np.testing.assert_allclose(POISSON.sum_and_weight(LOG_RATES, missing, context=2), expected)
    with pytest.raises(ValueError, match="got nan"):
        POISSON.sum_and_weight(LOG_RATES, missing, context=1)
    with pytest.raises(ValueError, match="got -1"):  # a single wrong count
        POISSON(LOG_RATES, np.where(np.arange(COUNTS.size).reshape(COUNTS.shape) == 3, -1, COUNTS))
    jax = pytest.importorskip("jax")
    jax.eval_shape(lambda x: POISSON.sum_and_weight(x, missing, context=2), LOG_RATES)


def test_parameters_of_torch_are_checked():
    torch = pytest.importorskip("torch")
    rates = torch.nn.Parameter(torch.tensor(-np.exp(LOG_RATES)))
    with pytest.raises(ValueError, match="input must hold rates, which are not negative"):
        RATES(rates, torch.tensor(COUNTS))
    with pytest.raises(ValueError, match="target must hold spike counts"):
        POISSON(rates, rates)


# Scores ------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("error")
@every
def test_score_of_the_null_model_is_0_and_that_of_the_saturated_model_1(loss, input, target):
    exact, null, always = target, target.mean(axis=(0, 1)), target.copy()
    always[..., 1] = 1  # a null model with probability 1
    for counts in (target, always):
        null = loss._input_for(adapter_of(counts), counts.mean(axis=(0, 1), keepdims=True))
        null = np.broadcast_to(null, counts.shape)
        for score in (loss.bits_per_spike, loss.deviance_explained):
            np.testing.assert_allclose(score(null, counts), 0, atol=1e-12)
    exact = loss._input_for(adapter_of(target), target)
    np.testing.assert_allclose(loss.deviance_explained(exact, target), 1, rtol=1e-12)
    got = loss.deviance_explained(loss._input_for(adapter_of(always), always), always, per="neuron")
    np.testing.assert_array_equal(np.isnan(got), [False, True, False, True])


@pytest.mark.parametrize(
    ("loss", "probability"),
    [(LOGITS, lambda u: 1 / (1 + np.exp(-u))), (HAZARD, lambda u: -np.expm1(-np.exp(u)))],
    ids=["logit", "hazard"],
)
def test_score_of_binary_spikes_follows_from_their_probabilities(loss, probability):
    p, null, n = probability(LOG_RATES), np.array([0.25, 0.5, 0.125, 0.75]), SPIKES
    gain = n * np.log(p / null) + (1 - n) * np.log((1 - p) / (1 - null))
    expected = gain.sum() / n.sum() / np.log(2)
    np.testing.assert_allclose(loss.bits_per_spike(LOG_RATES, n, null=null), expected)
    always = np.ones_like(n)  # the null model is certain of these spikes, and right
    got = loss.bits_per_spike(LOG_RATES, always, null=[1.0] * 4)
    np.testing.assert_allclose(got, np.log(p).mean() / np.log(2))
    predicted = sx.diagnose(loss, LOG_RATES, n).numbers["mean rate"]
    np.testing.assert_allclose(predicted, p.mean())


@every
def test_gain_and_spikes_of_parts_add_up_to_bits_per_spike(loss, input, target):
    null = [0.25, 0.5, 0.125, 0.0]
    parts = [(slice(0, 2),), (slice(2, 6), slice(0, 7)), (slice(2, 6), slice(7, 20))]
    for per in ("all", "neuron"):
        options = {"null": null, "per": per}
        sums = [
            loss.gain_and_spikes(input[at], target[at], where=OBSERVED[at], **options)
            for at in parts
        ]
        gain, spikes = map(sum, zip(*sums, strict=True))
        expected = loss.bits_per_spike(input, target, where=OBSERVED, **options)
        some, axes = spikes > 0, (0, 1) if per == "neuron" else None
        np.testing.assert_allclose((gain / np.log(2))[some], (expected * spikes)[some], rtol=1e-12)
        np.testing.assert_array_equal(spikes, (target * OBSERVED).sum(axis=axes))


@pytest.mark.parametrize("axis", [0, 1, -1])
@every
def test_scores_agree_on_every_backend_and_layout(backend, loss, input, target, axis):
    null, lengths = np.asarray([0.25, 0.5, 0.125, 0.25]), np.asarray([20, 7, 0, 20, 20, 3])
    where = OBSERVED & (np.arange(20) < lengths[:, None])[..., None]
    expected = scores(loss, null)(input, np.where(where, target, np.nan), where=where)
    moved = (np.moveaxis(x, 1, axis) for x in (input, target))
    masks = {"where": np.moveaxis(OBSERVED, 1, axis), "lengths": lengths}
    got = run(backend, scores(dataclasses.replace(loss, time_axis=axis), null), *moved, **masks)
    for array, wanted in zip((got[0], got[1], *got[2]), (*expected[:2], *expected[2]), strict=True):
        np.testing.assert_allclose(array, wanted, rtol=100 * backend.rtol)


def scores(loss, null):
    """Return a function for each score, with the mean of the counts and with a null model."""
    return each(
        [
            lambda x, y, **masks: loss.bits_per_spike(x, y, **masks),
            lambda x, y, **masks: loss.deviance_explained(x, y, null=null, per="neuron", **masks),
            lambda x, y, **masks: loss.gain_and_spikes(x, y, null=null, **masks),
        ]
    )


@pytest.mark.filterwarnings("error")
def test_neuron_that_is_masked_is_left_out_of_the_scores():
    held_out = np.asarray([True, False, True, True])
    got = POISSON.bits_per_spike(LOG_RATES, COUNTS, where=held_out[None, None])
    kept = POISSON.bits_per_spike(LOG_RATES[..., held_out], COUNTS[..., held_out])
    np.testing.assert_allclose(got, kept, rtol=1e-12)


@not_jax
def test_no_spike_gives_nan_and_an_impossible_null_model_an_infinite_gain(backend):
    x, y = backend.asarray(LOG_RATES[..., :1]), backend.asarray(COUNTS[..., :1])
    for score in (POISSON.bits_per_spike, POISSON.deviance_explained):
        assert np.isnan(backend.numpy(score(x, 0 * y)))
        assert np.isnan(backend.numpy(score(x, 0 * y, null=[0.5])))
    says = pytest.warns(UserWarning, match="null is 0 for a neuron with spikes.*leave.*where=")
    with says if backend.reads_values else contextlib.nullcontext():
        assert backend.numpy(POISSON.bits_per_spike(x, y, null=[0.0])) == INF
    both = backend.asarray(np.repeat(LOG_RATES[..., :1], 2, axis=-1))
    with says if backend.reads_values else contextlib.nullcontext():  # one of them has no spike
        POISSON.bits_per_spike(both, COUNTS[..., :1] * np.arange(2), null=[0.0, 0.0])
    with says if backend.reads_values else contextlib.nullcontext():
        assert np.isnan(backend.numpy(POISSON.deviance_explained(x, y, null=[0.0])))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        POISSON.bits_per_spike(x, 0 * y, null=[0.0])
        mask = np.asarray([False])[None, None]
        POISSON.deviance_explained(x, y, null=[0.0], where=mask)


def test_findings_fit_the_link_and_ignore_nan():
    report = sx.diagnose(LOGITS, np.minimum(np.exp(LOG_RATES), 1), SPIKES)
    assert "every value of the input is at least 0" in str(report)
    report = sx.diagnose(sx.CrossEntropy(time_axis=1), MISSING, [0, 1, 2, 3, 0, 1])
    assert "temperature" not in [finding.code for finding in report.findings]


# Errors ------------------------------------------------------------------------------------------

MASK_THEM = "(to leave out missing entries, pass where=~isnan(counts), and join masks by &)"
LAST, HOT = {"time_axis": -1}, np.broadcast_to(cases.MULTI_HOT[..., None], cases.SPIKES.shape)


def test_wrong_arguments_of_a_score_raise(backend):
    loss, x = sx.PoissonNLL(**LAST), backend.asarray(cases.SPIKES)
    for null in (np.ones(3), np.ones((3, 4)), 0.5):
        with raises(
            ValueError, f"null must have shape (4,), one for each neuron; got {np.shape(null)}$"
        ):
            loss.bits_per_spike(x, HOT, null=null)
    with raises(TypeError, "null must hold numbers, one for each neuron; got bool"):
        loss.bits_per_spike(x, HOT, null=[True] * 4)
    with raises(ValueError, "per must be one of all, neuron; got 'sample'"):
        loss.deviance_explained(x, HOT, per="sample")
    with raises(TypeError, "null"):
        loss.gain_and_spikes(x, HOT)
    with raises(TypeError, "null must hold the mean count of each neuron.*got None"):
        loss.gain_and_spikes(x, HOT, null=None)


def test_wrong_rates_of_the_null_model_raise(backend, readable):
    x = backend.asarray(cases.SPIKES)
    for value in (-0.25, math.nan):
        with raises(ValueError, f"null must be finite and at least 0.*{value}"):
            sx.PoissonNLL(**LAST).bits_per_spike(x, HOT, null=readable([1, value, 1, 1.0]))
    with raises(ValueError, "spike probabilities, which are at most 1; got [1.0, 0.5, 0.0, 1.5]"):
        sx.BernoulliNLL(**LAST).gain_and_spikes(x, HOT, null=readable([1, 0.5, 0, 1.5]))


def test_target_that_is_not_a_count_or_a_binary_spike_raises(backend, readable):
    x, busy = backend.asarray(cases.SPIKES), cases.SPIKES > 0.9
    whole, bernoulli = sx.PoissonNLL(**LAST, constant=True), sx.BernoulliNLL(**LAST)
    for loss in (sx.PoissonNLL(**LAST), whole, bernoulli):
        for value in (-0.5, math.inf):
            with raises(ValueError, f"target must hold {loss.targets[0].name}, .*got {value}"):
                loss(x, readable(np.where(busy, value, 1)))
        with raises(ValueError, f"got nan {MASK_THEM}"):
            loss(x, readable(np.where(busy, math.nan, 1)))
    with raises(ValueError, "whole numbers of at least 0; got 2.5 (constant=False accepts"):
        whole(x, readable(np.full((3, 4, 5), 2.5)))
    for dtype in (int, float):
        with raises(ValueError, "target must hold binary spikes, 0 or 1; got 2.*PoissonNLL"):
            bernoulli(x, readable(np.full((3, 4, 5), 2, dtype)))


def test_scores_of_rates_in_hz_warn_of_the_unit():
    counts = np.asarray([[[0.0], [1.0], [2.0]]])
    hz = np.full(counts.shape, 300.0)
    for loss, rates in ((POISSON, np.log(hz)), (RATES, hz)):
        with pytest.warns(UserWarning, match="rate is 300 spikes in a time step.*time_step"):
            loss.bits_per_spike(rates, counts)
    with pytest.warns(UserWarning, match="rate is 300 spikes in a time step"):  # the largest one
        RATES.bits_per_spike(np.where(counts == 1, 300.0, 1.0), counts)
    RATES.bits_per_spike(hz / 1000, counts)
    RATES.bits_per_spike(hz, np.where(counts == 1, 4.0, counts))  # some counts are large too
    RATES.bits_per_spike(np.where(counts, 1.0, 300.0), counts, where=counts > 0)  # masked
