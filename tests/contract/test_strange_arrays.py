"""Arrays that hold more than numbers are understood, or refused with what to do."""

import warnings

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.backends import on
from _support.calls import WITH_TARGET, example, run
from _support.cases import SPIKES, close, raises
from _support.contract import FORMS

LABEL = np.asarray([0, 3, 1])
LOSS = sx.SpikeMax(time_axis=-1)


def matrix(values):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PendingDeprecationWarning)
        return np.matrix(values)


class Labelled:
    """An array with labels, as tables have them, in its own namespace."""

    method = "to_numpy"

    def __init__(self, values):
        self.values = np.asarray(values)
        self.shape, self.dtype, self.ndim = self.values.shape, self.values.dtype, self.values.ndim
        setattr(self, self.method, lambda: self.values)

    def __array_namespace__(self, api_version=None):
        raise AssertionError("asked for its namespace")

    def __array__(self, dtype=None, copy=None):
        return self.values


class SparseOfSciPy(Labelled):
    method = "toarray"


class SparseOfJAX(Labelled):  # and of the library called sparse
    method = "todense"


KINDS = Labelled, SparseOfSciPy, SparseOfJAX


@pytest.mark.parametrize(
    ("spikes", "remedy"),
    [
        (np.ma.masked_less(SPIKES, 0.5), r"pass x\.filled\(0\), and where="),
        (matrix(SPIKES[0]), r"pass numpy\.asarray\(x\)"),
        *((kind(SPIKES), rf"pass x\.{kind.method}\(\)") for kind in KINDS),
    ],
)
def test_input_that_is_no_plain_array_raises_with_a_remedy(spikes, remedy):
    for call, *target in (
        (LOSS, LABEL),
        (sx.SparsityEnforcer(time_axis=-1),),
        (sx.value_and_grad(LOSS), LABEL),
    ):
        with pytest.raises(TypeError, match=rf"(input|spikes) must be an array .*{remedy}"):
            call(spikes, *target)


@pytest.mark.parametrize("array", [np.ma.masked_array, matrix, SparseOfJAX])
def test_argument_that_is_no_plain_array_raises_with_a_remedy(backend, array):
    x = backend.asarray(SPIKES)
    with raises(TypeError, "target must be an array.*: pass"):
        LOSS(x, array(LABEL))
    for name in ("where", "lengths", "weight"):
        with raises(TypeError, f"{name} must be an array.*: pass"):
            LOSS(x, LABEL, **{name: array([5, 3, 1])})


def test_labels_of_a_table_are_read(backend):
    got, expected = run(backend, lambda x: [LOSS(x, Labelled(LABEL)), LOSS(x, LABEL)], SPIKES)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.filterwarnings("ignore")  # PyTorch warns that these tensors may change
def test_torch_tensors_that_are_not_dense_raise_with_a_remedy():
    torch = pytest.importorskip("torch")
    masked_tensor = torch.masked.masked_tensor
    dense = torch.tensor(SPIKES, dtype=torch.float32)
    tensors = {
        r"x\.to_dense\(\)": dense.to_sparse(),
        r"x\.dequantize\(\)": torch.quantize_per_tensor(dense, 0.1, 0, torch.quint8),
        "lengths=": torch.nested.nested_tensor([dense[0], dense[1]]),
        r"x\.get_data\(\), and where=x\.get_mask\(\)": masked_tensor(dense, dense > 0.5),
    }
    for remedy, spikes in tensors.items():
        for call in (LOSS, sx.value_and_grad(LOSS)):
            with pytest.raises(TypeError, match=f"input must be a dense tensor; .*{remedy}"):
                call(spikes, LABEL)
        with pytest.raises(TypeError, match=f"target must be a dense tensor; .*{remedy}"):
            sx.SpikeTime(time_axis=-1)(dense, spikes)
    mask = masked_tensor(dense > 0.2, dense > 0.5)
    with pytest.raises(TypeError, match="where must be a dense tensor; got a masked tensor"):
        LOSS(dense, LABEL, where=mask)
    with pytest.raises(TypeError, match="input must be a dense tensor; got a masked tensor"):
        sx.SparsityEnforcer(time_axis=-1)(masked_tensor(dense, dense > 0.5))


@pytest.mark.parametrize("label", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("spike", [np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_infinite_spike_gives_nan_in_value_and_gradient(backend, label, spike):
    spikes = SPIKES.copy()
    spikes[1, 2, 3] = spike
    target = np.full((3, 4), label)
    evaluate = sx.value_and_grad(sx.SpikeMoid(alpha=1, theta=0, time_axis=-1))
    value, gradient = run(backend, evaluate, spikes, target)
    assert not np.isfinite(value)
    # With a soft label the value is infinite, and the gradient that of any large reading.
    assert np.isnan(gradient[1, 2]).all() == (label != 0.5)


@pytest.mark.parametrize("form", WITH_TARGET)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["numpy", "torch", "jax-x64"])
@pytest.mark.filterwarnings("ignore:invalid value")  # NumPy warns of inf - inf
def test_nonfinite_entry_shows_in_the_terms_of_its_neuron_only(name, bad, form):
    call = example(FORMS[form]).with_loss_options(reduction="none")
    spikes = call.spikes.copy()
    spikes[1, 0, -1] = bad
    with on(name) as backend:
        expected, _ = call.on(backend)
        terms, _ = call.replace(spikes=spikes).on(backend)
        if call.loss.classes_compete:  # the classes of a sample share a term
            assert not np.isfinite(terms[1, ...]).all()
        else:
            assert not np.isfinite(terms[1, 0]).all()
            close(terms[1, 1:], expected[1, 1:], backend.rtol)
        close(terms[[0, 2]], expected[[0, 2]], backend.rtol)
