"""Names and arrays that come from habits with other libraries get an answer."""

import dataclasses
import pickle

import numpy as np
import pytest

import spikeloss_xp as sx

LOSSES = (sx.SpikeTime(), sx.CrossEntropy(time_axis=0), sx.SparsityEnforcer())


def test_loss_may_have_such_an_option():
    @dataclasses.dataclass(frozen=True)
    class Windowed(sx.SpikeMax):
        window: int = 3

    class Named(Windowed):
        """A subclass that is no dataclass of its own."""

    assert Windowed(window=5).window == Named(window=5).window == 5


@pytest.mark.parametrize("loss", LOSSES, ids=repr)
def test_loss_that_is_moved_says_that_it_follows_its_input(loss):
    for name in ("to", "cuda"):
        with pytest.raises(AttributeError, match=f"no attribute '{name}'. A loss holds no arrays"):
            getattr(loss, name)
    with pytest.raises(AttributeError, match=r"no attribute 'shape'$"):
        _ = loss.shape
    assert pickle.loads(pickle.dumps(loss)) == loss
    assert dataclasses.replace(loss) == loss


@pytest.mark.filterwarnings("ignore:invalid value")
def test_times_in_place_of_spikes_raise(backend):
    times = np.asarray([[[2.5], [7.25]]])
    loss = sx.SpikeLatency(time_axis=-1)
    if not backend.reads_values:
        pytest.skip("the values cannot be read")
    with pytest.raises(ValueError, match=r"Got 2.5: spike times become spikes with bin_spikes"):
        loss(backend.asarray(times), [0])
    loss(backend.asarray(np.asarray([[[2.0, np.nan, np.inf], [0.5, 1.0, 3.0]]])), [0])


def test_list_of_labels_in_a_compiled_function_says_to_pass_an_array():
    jax = pytest.importorskip("jax")
    spikes = jax.numpy.ones((3, 2, 4))
    with pytest.raises(TypeError, match="pass an array to a compiled function"):
        jax.jit(sx.CrossEntropy(time_axis=0))(spikes, [0, 1])
