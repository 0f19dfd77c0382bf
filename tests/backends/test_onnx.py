"""ONNX files of losses, written with ndonnx: ONNX Runtime computes the numbers of NumPy."""

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.calls import take_samples, with_everything
from _support.cases import close
from _support.contract import FORMS, ONE_OF_EACH, REDUCTIONS
from _support.peers import import_peer

ndx = import_peer("ndonnx")
ort = import_peer("onnxruntime")

RTOL = {"float32": 1e-5, "float64": 1e-12}


def session(function, arrays, batch):
    """Write a function of arrays as one file, whose first axes have a size or a name; open it."""
    given = {}
    for name, x in arrays.items():
        shape = x.shape if name == "weight" or not x.ndim else (batch or len(x), *x.shape[1:])
        given[name] = ndx.argument(shape=shape, dtype=getattr(ndx, x.dtype.name))
    results = dict(zip(("value", "gradient", "prediction"), function(**given), strict=False))
    return ort.InferenceSession(ndx.build(given, results).SerializeToString())


def compare(function, samples, batch="batch"):
    """Compare a file with NumPy, on batches of several sizes, the first of which is traced."""
    opened = session(function, samples[0], batch)
    read = {given.name for given in opened.get_inputs()}
    for arrays in samples:
        got = opened.run(None, {name: x for name, x in arrays.items() if name in read})
        with np.errstate(all="ignore"):
            expected = function(**arrays)
        for of_file, of_numpy in zip(got, expected, strict=True):
            assert of_file.shape == of_numpy.shape
            assert of_file.dtype == of_numpy.dtype
            close(of_file, of_numpy, RTOL[arrays["spikes"].dtype.name])


def outputs(loss):
    """Return a function of the arguments of a loss: its value, its gradient, its prediction."""

    def function(spikes, target=None, **options):
        targets = () if target is None else (target,)
        results = sx.value_and_grad(loss)(spikes, *targets, **options)
        without = (sx.SpikeTime, sx.losses.TrainLoss, sx.SquaredError, sx.times.SpikeTime)
        if target is None or isinstance(loss, without):
            return results
        masks = {name: options[name] for name in ("where", "lengths") if name in options}
        return *results, loss.predict(spikes, **masks)

    return function


def arguments(call, dtype):
    given = {"spikes": call.spikes, "target": call.target, "cotangent": call.cotangent}
    arrays = {k: np.asarray(x) for k, x in {**given, **call.options}.items() if x is not None}
    return {k: x.astype(dtype) if x.dtype.kind == "f" else x for k, x in arrays.items()}


CASES = [
    (form, ("float32", "float64")[i % 2], REDUCTIONS[(i // 2) % 4])
    for i, form in enumerate([*ONE_OF_EACH, *(f for f in FORMS if "Sparsity" in f)])
]


@pytest.mark.parametrize(("form", "dtype", "reduction"), CASES)
def test_value_gradient_and_prediction_of_any_batch_equal_numpy(form, dtype, reduction):
    call = with_everything(FORMS[form])
    if call.target is not None:
        call = call.with_loss_options(reduction=reduction)
    whole, part = (arguments(c, dtype) for c in (call, take_samples(call, [3, 0])))
    compare(outputs(call.loss), (whole, part))


RANDOM = np.random.default_rng(0)
TRAINS = (RANDOM.random((5, 6, 301)) < 0.2).astype(np.float32)
SHORT = TRAINS[:, :, :40]
TIMES = RANDOM.random((5, 6, 4)).astype(np.float32) * 50
TIMES[0, 0, 2:] = np.inf
TIMES[1, 1] = np.nan
LABELS = np.asarray([3, 0, 5, 1, 1])
MULTI_HOT = np.eye(6, dtype=bool)[LABELS]
FIRST_TIMES = sx.times.CrossEntropy(temperature=2.0, silent_time=60.0)
MORE = {  # a loss, its spikes and its target
    "long trains": (
        sx.SpikeTime(time_constant=5, reduction="mean", time_axis=-1),
        TRAINS,
        TRAINS[::-1].copy(),
    ),
    "taps": (
        sx.SpikeTime(kernel=[0.5] * 100, time_axis=-1, reduction="sum"),
        TRAINS,
        TRAINS[::-1].copy(),
    ),
    "window": (sx.SpikeMax(moving_window=20, reduction="batchmean", time_axis=-1), TRAINS, LABELS),
    "latency": (sx.SpikeLatency(time_axis=-1), TRAINS, LABELS),
    "saturated": (
        sx.SpikeMoid(alpha=1e-3, theta=0.1, time_axis=-1, reduction="sum"),
        TRAINS,
        MULTI_HOT,
    ),
    "space": (
        sx.SpikeMax(moving_window=3, reduction="mean", time_axis=-1),
        SHORT.reshape(5, 2, 3, 40),
        LABELS,
    ),
    "time second": (
        sx.SpikeMax(moving_window=3, time_axis=1, reduction="sum"),
        np.swapaxes(SHORT, 1, 2).copy(),
        LABELS,
    ),
    "first times": (FIRST_TIMES, TIMES, LABELS),
    "times": (sx.times.SpikeTime(time_constant=2.0), TIMES, TIMES[::-1, :, :3].copy()),
}


@pytest.mark.parametrize(
    ("name", "batch"),
    [(name, None if name == "times" else "batch") for name in MORE]
    + [("window", None), ("saturated", None)],
)
def test_long_trains_spike_times_and_other_layouts_equal_numpy(name, batch):
    loss, spikes, target = MORE[name]
    parts = (0, 4, 2) if batch else (0,)
    samples = [{"spikes": spikes[n:], "target": target[n:]} for n in parts]
    compare(outputs(loss), samples, batch)
