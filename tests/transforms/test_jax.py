"""Losses under each JAX transform.

The transforms run inside `jax.jit`, because compiling one operation at a time takes five times as
long, and results are compared with those of NumPy.
"""

import dataclasses
import functools
import math
import re
import warnings

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

import spikeloss_xp as sx
from _support import reference
from _support.cases import close
from _support.compilers import optimized
from _support.programs import run_python
from _support.root import ROOT
from _support.transforms import (
    LOSSES,
    QUICK,
    QUICK_OPTIONS,
    SPIKES,
    TANGENT,
    WITH_OPTIONS,
    Case,
    call_with_options,
    check_symmetric,
    slow,
)
from spikeloss_xp import _tuning

pytestmark = pytest.mark.compiles
VARIANTS = ("x64", "x32", "x64-chunks")


def each_variant(names, quick):
    """Run a test on each loss, and on the quick ones with 32 bits and in chunks too."""
    first, *others = VARIANTS
    cases = [pytest.param(first, name, marks=[] if name in quick else slow) for name in names]
    cases += [pytest.param(v, n, marks=slow) for v in others for n in names if n in quick]
    return pytest.mark.parametrize(("rtol", "name"), cases, indirect=["rtol"])


@pytest.fixture
def rtol(request, monkeypatch):
    """Run a test with 32 or 64 bits, or in chunks as large arrays are.

    Return the tolerance of its numbers.
    """
    chunks, wide = "chunks" in request.param, "x64" in request.param
    if chunks:
        monkeypatch.setattr(_tuning, "COMPILED_CHUNK", 2 * SPIKES[0].size)
        monkeypatch.setattr(_tuning, "COMPILED_LARGE", 0)
        jax.clear_caches()  # an equal loss would reuse the program without chunks
    with jax.enable_x64(wide):
        yield 1e-12 if wide else 1e-5
    if chunks:
        jax.clear_caches()


@pytest.fixture
def case(rtol, name):
    return Case(name, jnp.asarray, rtol)


@each_variant(("SpikeTime", "SpikeMax"), ("SpikeTime",))
def test_jit_with_static_loss_traces_once_and_equals_numpy(case):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(loss, *arrays):
        traced.append(loss)
        return loss(*arrays)

    for loss in (case.loss, dataclasses.replace(case.loss)):
        case.check_value(evaluate(loss, *case.arrays))
    assert len(traced) == 1
    value, gradient = optimized(sx.value_and_grad(case.loss))(*case.arrays)
    case.check_value(value)
    case.check(gradient)


@each_variant(LOSSES, QUICK)
def test_grad_equals_closed_form(case):
    """Also of a checkpoint, of each sample by itself, and along a tangent."""

    @jax.jit
    def derivatives(spikes, tangent):
        value, by_jvp = jax.jvp(case, (spikes,), (tangent,))
        along_tangent = by_jvp, jax.linearize(case, spikes)[1](tangent)
        gradients = [jax.grad(f)(spikes) for f in (case, jax.checkpoint(case))]
        of_samples = jax.vmap(jax.value_and_grad(case.of_sample))(spikes, *case.targets)
        return value, gradients, along_tangent, of_samples

    value, gradients, along_tangent, of_samples = derivatives(case.spikes, jnp.asarray(TANGENT))
    case.check_value(value)
    for gradient in gradients:
        case.check(gradient)
    for derivative in along_tangent:
        case.check_jvp(derivative)
    case.check_each(*of_samples)


@each_variant(WITH_OPTIONS, QUICK_OPTIONS)
def test_options_work_under_transforms(rtol, name):
    call = call_with_options(name)
    _, expected = sx.value_and_grad(call.loss)(call.spikes, call.target, **call.options)

    def derivatives(spikes, target, options):
        f = functools.partial(call.loss, target=target, **options)
        hessians = jax.hessian(f)(spikes), jax.jacrev(jax.grad(f))(spikes)
        return [jax.grad(f)(spikes), jax.jacfwd(f)(spikes)], hessians

    arrays = jax.tree.map(jnp.asarray, (call.spikes, call.target, call.options))
    gradients, (hessian, by_reverse) = jax.jit(derivatives)(*arrays)
    for gradient in gradients:
        close(gradient, expected, rtol)
    check_symmetric(hessian, rtol)
    close(by_reverse, np.asarray(hessian), rtol)


@pytest.mark.parametrize("transform", [lambda f: f, jax.grad], ids=["value", "gradient"])
def test_mean_of_one_sample_in_vmap_warns_if_weights_or_lengths_change_it(transform):
    spikes, labels, lengths = np.ones((4, 5, 3)), np.arange(4) % 3, np.asarray([1, 5, 2, 5])

    def run(loss, samples=1, **options):
        def of_sample(sample, label, length):
            sample, label = sample[:, None].repeat(samples, 1), label[None].repeat(samples)
            given = {"lengths": length[None].repeat(samples)} if "lengths" in options else {}
            return loss(sample, label, **(options | given))

        return jax.vmap(transform(of_sample))(spikes, labels, lengths)

    count, each = sx.CrossEntropy(time_axis=0), sx.CrossEntropy(time_axis=0, moving_window=1)
    for loss, options in ((count, {"weight": np.ones(3)}), (each, {"lengths": None})):
        with pytest.warns(UserWarning, match=r"in vmap, .*map loss\.sum_and_weight instead"):
            run(loss, **options)
    with warnings.catch_warnings(action="error"):
        run(count)
        run(each)
        run(count, lengths=None)
        run(count, samples=2, weight=np.ones(3))  # a whole batch for each of several networks
        run(dataclasses.replace(count, reduction="sum"), weight=np.ones(3))
        transform(lambda x: count(x, labels, weight=np.ones(3)))(spikes.swapaxes(0, 1))


@pytest.mark.parametrize("label", [-100, 7], ids=["ignored", "invalid"])
def test_second_derivatives_of_masked_samples_are_finite(label):
    spikes = np.random.default_rng(0).random((5, 3, 4))
    labels, where = np.asarray([0, label, 2]), np.asarray([True, label == -100, True])

    def value(spikes, weight, labels, where):
        return sx.CrossEntropy(time_axis=0)(spikes, labels, where=where, weight=weight)

    for gradient in (jax.grad(value, 0), jax.grad(value, 1)):
        second = jax.jit(jax.jacrev(gradient, (0, 1)))(spikes, np.ones(4), labels, where)
        assert all(bool(jnp.isfinite(derivative).all()) for derivative in second)


@pytest.mark.parametrize("name", ["SpikeTime", "SpikeRate, window"])
@pytest.mark.parametrize("rtol", VARIANTS[:1], indirect=True)
def test_export_with_symbolic_batch_equals_numpy(case):
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in case.arrays]
    exported = export.export(jax.jit(case.loss))(*shapes)
    for samples in (slice(0, 3), slice(1, 2)):
        arrays = [array[samples] for array in case.arrays]
        close(exported.call(*arrays), case.loss(*map(np.asarray, arrays)), case.rtol)


LARGE, SHORT, LONG = (
    jax.ShapeDtypeStruct(n, np.float32) for n in ((8, 500, 1000), SPIKES.shape, (4, 3, 300))
)
LABELS = [jax.ShapeDtypeStruct((samples,), np.int32) for samples in (8, len(SPIKES))]
MULTI_HOT = jax.ShapeDtypeStruct(SPIKES.shape[:2], np.float32)
DISTANCE = functools.partial(sx.distances.van_rossum, time_constant=20.0)
EXPORTED = {  # a function, its arguments, and whether it has a loop on a CPU
    "SpikeMax": (
        sx.SpikeMax(moving_window=100, time_axis=-1),
        [LARGE, LABELS[0]],
        True,
    ),
    "SpikeTime": (
        sx.SpikeTime(time_constant=30.0, length=500, time_axis=-1),
        [LARGE, LARGE],
        True,
    ),
    "SpikeTime, short": (
        sx.SpikeTime(time_constant=3, length=20, filter_order=2, time_axis=-1),
        [SHORT, SHORT],
        False,
    ),
    "SpikeTime, taps": (LOSSES["SpikeTime, taps"][0], [SHORT, SHORT], False),
    "SpikeMoid, window": (LOSSES["SpikeMoid, window"][0], [SHORT, MULTI_HOT], False),
    # Without a loop, first spikes of 100 steps take 1.5 seconds to compile.
    "SpikeLatency": (LOSSES["SpikeLatency"][0], [LONG, LABELS[1]], True),
    "causal_filter": (
        lambda x: jnp.sum(sx.causal_filter(x, jnp.ones(100), time_axis=-1)),
        [LARGE],
        False,
    ),
    "van_rossum": (lambda x: jnp.sum(DISTANCE(x[0, :9, :50])), [LARGE], False),
}


@pytest.mark.parametrize("name", EXPORTED)
@pytest.mark.parametrize("platforms", [["cpu"], ["cuda", "tpu", "rocm"]], ids=["cpu", "others"])
def test_export_from_a_cpu_loops_on_cpus_only(name, platforms):
    """No program rounds the factors of products, or calls back to the host, where JAX raises.

    By default a GPU may round these factors to 10 bits, and a TPU to 8.
    """
    function, arrays, loops = EXPORTED[name]
    for derived in map(jax.jit, (function, jax.value_and_grad(function))):
        program = export.export(derived, platforms=platforms)(*arrays).mlir_module()
        assert ("stablehlo.while" in program) == (loops and platforms == ["cpu"])
        for line in re.findall(r"stablehlo\.dot_general.*", program):
            assert "precision = [HIGHEST, HIGHEST]" in line, line


SHARDING_PROGRAM = """
import os

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import spikeloss_xp as sx
from _support.transforms import QUICK, SPIKES, Case

NARROW = SPIKES.astype(np.float32)

def sharded(count, axis_type):
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count,), ("batch",), axis_types=(axis_type,), devices=devices)
    return NamedSharding(mesh, PartitionSpec("batch"))

for sharding in sharded(4, AxisType.Auto), sharded(4, AxisType.Explicit):
    for name in QUICK:
        case = Case(name, np.asarray, 1e-5)
        with jax.set_mesh(sharding.mesh):
            arrays = jax.device_put([NARROW, *case.targets], sharding)
            value, gradient = jax.jit(jax.value_and_grad(case.loss))(*arrays)
            if name == "SpikeMax":
                counts = jax.jit(case.loss.confusion)(*arrays)
                np.testing.assert_array_equal(counts, case.loss.confusion(*case.arrays))
        case.check_value(value)
        case.check(gradient)
        assert gradient.sharding.is_equivalent_to(sharding, 3), (name, sharding)

# The loss moves labels from another device to the device of the spikes, or to all of its mesh.
first, second = jax.devices()[:2]
for name in ("SpikeTime", "SpikeMax", "SpikeMoid, window"):
    case = Case(name, np.asarray, 1e-5)
    for destination in (second, sharded(2, AxisType.Auto)):
        spikes = jax.device_put(NARROW, destination)
        target = jax.device_put(case.targets[0], first)
        value, gradient = sx.value_and_grad(case.loss)(spikes, target)
        case.check_value(value)
        assert value.devices() == gradient.devices() == spikes.devices()
"""


@slow
def test_sharded_batch_stays_sharded():
    """tests/processes/test_jax_devices.py tests options, `shard_map`, and what crosses devices."""
    run_python(SHARDING_PROGRAM, path=ROOT / "tests")


@pytest.mark.parametrize(
    ("time_axis", "shape"), [(0, (20, 30, 10)), pytest.param(-1, (30, 10, 20), marks=slow)]
)
def test_program_of_a_term_at_each_step_has_few_large_arrays(time_axis, shape):
    """Count the arrays of the size of the input: each is a pass over memory."""
    loss = sx.CrossEntropy(time_axis=time_axis, moving_window=1)
    arrays = jnp.zeros(shape), jnp.zeros(30, jnp.int32)
    program = optimized(jax.value_and_grad(loss)).lower(*arrays).compile().as_text()
    main = program[program.index("ENTRY") :].splitlines()[1:-2]
    large = f"f32[{','.join(map(str, shape))}]"
    made = [line for line in main if f"= {large}" in line and "parameter(" not in line]
    assert len(made) <= 2, "\n".join(made)  # the exponentials and the gradient


@pytest.mark.parametrize("wide", [False, True])
def test_counts_with_time_first_equal_numpy(wide, monkeypatch):
    """With fewer classes than samples, and by both ways to sum over a first axis on a CPU."""
    monkeypatch.setattr(_tuning, "WIDE_SUM", 1 if wide else math.inf)
    spikes, labels = (np.random.default_rng(0).random((20, 6, 3)) < 0.3).astype("f4"), [0, 1, 2] * 2
    loss = sx.CrossEntropy(time_axis=0)
    value, gradient = sx.value_and_grad(loss)(spikes, labels)
    got_value, got_gradient = jax.jit(jax.value_and_grad(loss))(spikes, jnp.asarray(labels))
    close(got_value, value, 1e-5)
    close(got_gradient, gradient, 1e-5)


@pytest.mark.parametrize("time_axis", [pytest.param(0, marks=slow), -1])
def test_derivatives_of_the_cross_entropy_equal_central_differences(time_axis):
    """Of logits and of class probabilities, and the second one: JAX has a rule for them."""
    random = np.random.default_rng(5)
    logit, direction = random.normal(size=(2, 2, 3, 4))
    q = random.uniform(size=logit[0].shape if time_axis == 0 else logit[..., 0].shape)
    loss = sx.CrossEntropy(time_axis=time_axis, moving_window=1)
    with jax.enable_x64(True):
        run, slope = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1)))
        of_logit, of_q = slope(logit, q)
        close(of_logit, reference.differences(lambda x: float(run(x, q)), logit), 1e-8)
        close(of_q, reference.differences(lambda x: float(run(logit, x)), q), 1e-8)
        hessian = jax.jit(jax.hessian(loss))(logit, q)
        along = reference.differences(lambda s: slope(logit + s * direction, q)[0], np.zeros(1))
        close(np.tensordot(hessian, direction, 3), along[0], 1e-8)
