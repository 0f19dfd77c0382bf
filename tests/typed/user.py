"""A user's script, which mypy and pyright check against the installed library: see `.ci/types`.

Each call of `documented_*` must be accepted, with the type that `assert_type` states. Each line of
`mistakes` must be an error in both checkers: they report an ignored error that does not come.
"""

import math
from typing import Any, assert_type

import jax
import jax.numpy as jnp
import numpy as np
import torch

import spikeloss_xp as sx
from spikeloss_xp import slayer
from spikeloss_xp.slayer import published
from spikeloss_xp.torch import LossModule, parameter_groups, record

Floats = np.ndarray[tuple[Any, ...], np.dtype[np.float32]]  # as the spikes, whose dtype is inferred
Doubles = np.ndarray[tuple[Any, ...], np.dtype[np.float64]]
Bools = np.ndarray[tuple[Any, ...], np.dtype[np.bool]]  # the result has floats: see `Bools` below
Pairs = np.ndarray[tuple[int, int], np.dtype[np.float64]]
Integers = np.ndarray[Any, np.dtype[np.integer[Any]]]

LOSSES = (
    sx.SpikeRate(
        [0.5, 0.25],
        (0.0, 0.125),
        moving_window=3,
        reduction="mean",
        readout="count",
        num_classes=2,
        time_axis=-1,
    ),
    sx.SpikeRate(1.5, -1, reduction="batchmean", readout="last", ignore_index=-1, time_axis=0),
    sx.SpikeRate(0.5, 0.02, one_sided=True, time_axis=0, reduction="sum"),
    sx.CrossEntropy(temperature=0.5, label_smoothing=0.1, moving_window=5, time_axis=-1),
    sx.CrossEntropy(rates=(0.5, 0.02), rate_weight=1, time_axis=-1),
    sx.CrossEntropy(readout="softmax_sum", reduction="none", time_axis=0),
    published.SpikeMax(time_axis=-1, reduction="sum"),
    sx.SpikeLatency(0, false_time=4, tolerance=0.5, time_axis=-1, reduction="sum"),
    sx.SpikeMoid(
        moving_window=2,
        reduction="sum",
        alpha=0.25,
        theta=0.5,
        readout="rate",
        pos_weight=[1, 2],
        time_axis=-1,
    ),
    sx.SpikeTime(time_constant=5, length=100, filter_order=2, reduction="mean", time_axis=-1),
    sx.SpikeTime(kernel=np.asarray([1.0, 0.5]), time_axis=-1, reduction="sum"),
    sx.SpikeTime(length=3, kernel=lambda lag: math.exp(-lag / 2), time_axis=-1, reduction="sum"),
)


def documented_numpy() -> None:
    """Call everything with NumPy arrays."""
    spikes: Floats = np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]], dtype=np.float32)
    label = np.asarray([0])
    loss = sx.SpikeMax(reduction="none", time_axis=-1)
    assert_type(loss(spikes, [0]), Floats)
    assert_type(loss(spikes, (0,), where=[True], lengths=(4,), weight=[1.0, 2.0]), Floats)
    assert_type(loss(spikes > 0, label, weight=np.ones(2)), Bools)
    value, pullback = loss.value_and_pullback(spikes, label)
    assert_type(value, Floats)
    pullback(np.ones(1))
    assert_type(
        sx.SpikeMax(time_axis=-1, reduction="sum").sum_and_weight(spikes, label, where=None),
        tuple[Floats, Floats],
    )
    value, gradient = sx.value_and_grad(loss)(spikes, label, cotangent=[1.0], lengths=[3])
    assert_type(value, Floats)
    assert_type(gradient.round(3), Floats)
    assert_type(
        sx.SpikeTime(time_constant=5, time_axis=-1, reduction="sum")(spikes, spikes), Floats
    )
    assert_type(
        sx.SpikeMoid(alpha=1, theta=0, time_axis=-1, reduction="sum")(spikes, [[True, False]]),
        Floats,
    )

    entropy = sx.CrossEntropy(time_axis=-1, moving_window=2)
    assert_type(entropy(spikes, [[0.5, 0.5]]), Floats)
    assert_type(entropy.predict(spikes, per_step=True, lengths=[4]), Integers)
    assert_type(entropy.confusion(spikes, label), Floats)
    assert_type(entropy.accuracy(spikes, label, where=[True]), Floats)

    sx.SparsityEnforcer(1.0, power=1, per="sample", time_axis=-1)([spikes, spikes])
    enforcer = sx.SparsityEnforcer(0.1, rate_weight=2.0, min_rate=0.01, per="neuron", time_axis=-1)
    assert_type(enforcer(spikes), Floats)
    sx.SparsityEnforcer([0.5, 0.25], min_rate=(0.1, 0.0), per="neuron", time_axis=-1)(spikes)
    enforcer({"layer": spikes}, lengths=[4])

    assert_type(entropy.scores(spikes), Floats)

    taps = sx.exponential_kernel(5, 10)
    assert_type(sx.causal_filter(spikes, taps, time_axis=-1), Floats)
    assert_type(sx.causal_filter(spikes, [1.0, 0.5], time_axis=1), Floats)
    assert_type(sx.moving_average(spikes, 2, time_axis=-1), Floats)
    times: Doubles = np.asarray([0.5, 1.5], dtype=np.float64)
    assert_type(sx.bin_spikes(times, [0, 1], neurons=2, steps=3), Doubles)
    assert_type(sx.bin_spikes([[0.5], []], neurons=2, steps=3), Any)
    sx.bin_spikes([times, times], neurons=2, steps=3, time_step=1.0, start=0.0, binary=True)

    trains: Pairs = np.eye(3)
    assert_type(sx.distances.van_rossum(trains, time_constant=10), Pairs)
    assert_type(
        sx.distances.similarity(trains, trains, time_constant=1, other_lengths=[3, 2, 1]),
        Pairs,
    )
    evaluate = sx.value_and_grad(sx.distances.van_rossum)
    assert_type(
        evaluate(trains, time_constant=10, time_axis=-1, cotangent=trains), tuple[Pairs, Pairs]
    )
    assert_type(sx.distances.victor_purpura([[1.0, 5.0], [1.5], []], cost=0.5), Any)
    assert_type(sx.distances.coincidence_factor([times], precision=1, duration=5), Doubles)
    rows = sx.testing.assert_consistent(
        sx.SpikeMax(time_axis=-1, reduction="sum"), spikes, [0], backends=["numpy"]
    )
    assert_type(rows[0], dict[str, Any])
    assert_type(sx.scale_to_rate(lambda factors: [0.05 * factors[0]], layers=1), list[float])
    sx.scale_to_rate(lambda factors: {"a": spikes > 0.5}, 1, (0.5,), time_axis=2, lengths=[4])


def documented_torch() -> None:
    """Call functions of each kind with tensors, and those that are for PyTorch only."""
    spikes, label = torch.ones(1, 2, 4, requires_grad=True), torch.tensor([0])
    loss = sx.SpikeMax(mode="softmax", reduction="mean", time_axis=-1)
    assert_type(loss(spikes, label, lengths=torch.tensor([3]), weight=[1.0, 2.0]), torch.Tensor)
    assert_type(sx.value_and_grad(loss)(spikes, label), tuple[torch.Tensor, torch.Tensor])
    assert_type(sx.SparsityEnforcer(time_axis=-1)({"layer": spikes}), torch.Tensor)
    assert_type(sx.bin_spikes(torch.ones(2), [0, 1], neurons=2, steps=3), torch.Tensor)
    assert_type(sx.distances.van_rossum(spikes[0], time_constant=5), torch.Tensor)
    assert_type(sx.distances.victor_purpura([torch.ones(2)], cost=1), torch.Tensor)
    LossModule(loss, weight=[1.0, 2.0])
    network = torch.nn.Linear(2, 2)
    with record(network, modules=[network]) as seen:
        network(torch.ones(1, 2))
    assert_type(seen.spikes, dict[str, torch.Tensor])
    assert_type(seen.gradients, dict[str, torch.Tensor | None])
    torch.optim.Adam(parameter_groups(network, relative_step=0.01))
    slayer.loss.SpikeMax(reduction="mean", numerics="stable")
    assert_type(slayer.classifier.Rate.predict(spikes), torch.Tensor)


def documented_jax() -> None:
    """Call functions with JAX arrays."""
    spikes, label = jnp.ones((1, 2, 4)), jnp.asarray([0])
    loss = sx.SpikeRate(0.5, 0.0, moving_window=2, time_axis=-1, reduction="sum")
    assert_type(loss(spikes, label), jax.Array)
    assert_type(sx.value_and_grad(loss)(spikes, label), tuple[jax.Array, jax.Array])
    assert_type(loss.scores(spikes, per_step=True), jax.Array)


def mistakes(spikes: torch.Tensor, label: torch.Tensor) -> None:
    """Make twenty mistakes, of which all but the last are errors in both checkers."""
    sx.SpikeMax()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sx.SpikeRate(0.2, 0.03)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    sx.SpikeMax(20, time_axis=0)  # type: ignore[misc]  # pyright: ignore[reportCallIssue]
    sx.SpikeRate(0.5, 0.0, reduction="men", time_axis=-1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sx.SpikeRate("0.5", 0.0, time_axis=-1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sx.SpikeRate(0.5, 0.0, readout="latency", time_axis=-1)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sx.CrossEntropy(time_axis=0, ignore_index=None)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    slayer.loss.SpikeMax(reduction="men")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sx.diagnose(3, spikes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    sx.causal_filter(spikes, "kernel", time_axis=0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]

    loss = sx.SpikeMax(time_axis=-1)
    loss(spikes)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    loss(spikes, 0)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loss(spikes, "labels")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loss([[[1, 0, 1]]], [0])  # type: ignore[type-var]  # pyright: ignore[reportArgumentType]
    loss(spikes, [0], lengths="no")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loss(spikes, [0], lenghts=[3])  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loss.predict(spikes, weight=[1.0])  # type: ignore[call-overload]  # pyright: ignore[reportCallIssue]
    sx.SparsityEnforcer(time_axis=-1)(spikes, spikes)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    loss(spikes, [0]).revers()  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]
    loss(label, spikes)  # a type checker knows no shapes
