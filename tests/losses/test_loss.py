"""Tests of the interface that all losses share."""

import dataclasses
import pickle

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import example
from _support.contract import FORMS, ONE_OF_EACH

every_call = pytest.mark.parametrize("form", ["SpikeTime", "SpikeMax", "SparsityEnforcer-neuron"])
"""A loss of trains, one of labels, and one without a target: each has a call of its own."""


@every_call
def test_complex_or_list_input_raises(backend, form):
    call = example(FORMS[form])
    target = [] if call.target is None else [call.target]
    complex_spikes = backend.xp.astype(backend.asarray(call.spikes), backend.xp.complex64)
    with pytest.raises(TypeError, match=r"input must be bool, integer or real .*complex64"):
        call.loss(complex_spikes, *target)
    with pytest.raises(TypeError, match=r"input must be an array .*got builtins.(list|float)"):
        call.loss(call.spikes.tolist(), *target)


OBJECTS = (
    *(FORMS[form].loss() for form in ONE_OF_EACH),
    *(
        sx.times.CrossEntropy(temperature=1.0, silent_time=12.0),
        sx.times.SpikeLatency(silent_time=12.0),
    ),
    *(sx.times.SpikeTime(time_constant=2.5), sx.times.VictorPurpura(cost=0.35)),
    # Hyper-parameters at their bounds, and potentials in a window of one step.
    *(
        sx.SpikeTime(time_constant=1e-3, length=1, filter_order=1, time_axis=-1),
        sx.SpikeRate(1, 0, time_axis=-1),
        sx.SpikeRate(1.5, -2, moving_window=1, time_axis=-1),
    ),
    *(
        sx.SpikeMoid(alpha=1, theta=-2, time_axis=-1),
        sx.SparsityEnforcer(0, rate_weight=0, time_axis=-1),
    ),
    # Numbers and strings of NumPy become those of Python.
    sx.CrossEntropy(reduction=np.str_("mean"), readout=np.str_("count"), time_axis=-1),
    sx.SpikeMax(
        mode=np.str_("softmax"), time_axis=np.int64(0), moving_window=np.uint8(3), reduction="sum"
    ),
    sx.SpikeMoid(alpha=np.float32(0.5), theta=0, time_axis=-1),
    sx.SparsityEnforcer(per=np.str_("neuron"), time_axis=-1),
)


@pytest.mark.parametrize("loss", OBJECTS, ids=repr)
def test_losses_compare_hash_print_and_are_stored_by_value(loss):
    same = dataclasses.replace(loss)
    assert same is not loss
    assert same == loss
    assert hash(same) == hash(loss)
    assert eval(repr(loss), vars(sx)) == loss
    assert "np." not in repr(loss)
    assert type(loss)(**dataclasses.asdict(loss)) == loss
    assert pickle.loads(pickle.dumps(loss)) == loss
    with pytest.raises(dataclasses.FrozenInstanceError):
        loss.reduction = "mean"
    assert all(f"{f.name}=" in repr(loss) for f in dataclasses.fields(loss) if f.init)


# Names and arrays that come from habits with other libraries


def test_loss_may_have_such_an_option():
    @dataclasses.dataclass(frozen=True)
    class Windowed(sx.SpikeMax):
        window: int = 3

    class Named(Windowed):
        """A subclass that is no dataclass of its own."""

    assert Windowed(window=5, time_axis=0).window == Named(window=5, time_axis=0).window == 5


@pytest.mark.parametrize(
    "loss",
    [sx.SpikeTime(time_axis=-1), sx.SparsityEnforcer(time_axis=-1)],
    ids=repr,
)
def test_loss_that_is_moved_says_that_it_follows_its_input(loss):
    for name in ("to", "cuda"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'. A loss holds no arrays"):
            getattr(loss, name)
    with pytest.raises(AttributeError, match=r"no attribute 'shape'$"):
        _ = loss.shape


@pytest.mark.filterwarnings("ignore:invalid value")
def test_times_in_place_of_spikes_raise(backend):
    times = np.asarray([[[2.5], [7.25]]])
    loss = sx.SpikeLatency(time_axis=-1)
    if not backend.reads_values:
        pytest.skip(f"{backend.name} checks no spikes: reading their values is not free")
    with pytest.raises(ValueError, match=r"got 2.5: if these are spike times, .* bin_spikes"):
        loss(backend.asarray(times), [0])
    loss(backend.asarray(np.asarray([[[2.0, np.nan, np.inf], [0.5, 1.0, 3.0]]])), [0])
    loss(backend.asarray(np.asarray([[[np.nextafter(1, 2), 0.5], [0.5, 1.0]]])), [0])  # rounded


def test_list_of_labels_in_a_compiled_function_says_to_pass_an_array():
    jax = pytest.importorskip("jax")
    for labels in ([0, 1], [0]):
        spikes = jax.numpy.ones((3, len(labels), 4))
        with pytest.raises(TypeError, match="pass an array instead"):
            jax.jit(sx.CrossEntropy(time_axis=0))(spikes, labels)


def test_completion_offers_what_users_need():
    loss = sx.CrossEntropy(time_axis=-1)
    methods = {"value", "value_and_pullback", "sum_and_weight", "memory"}
    methods |= {"sum_weight_and_pullback", "predict", "scores", "accuracy", "confusion"}
    fields = {field.name for field in dataclasses.fields(loss)}
    assert {name for name in dir(loss) if not name.startswith("_")} == methods | fields
    assert {"__call__", "__class__", "__doc__"} < set(dir(loss))
    assert "events_and_entries" in dir(sx.SparsityEnforcer(time_axis=-1))
    assert {name for name in dir(sx) if name[0] != "_"} == {*sx.__all__, "losses"}
