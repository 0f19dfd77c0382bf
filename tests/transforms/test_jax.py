"""Every loss under each JAX transform.

The transforms run inside `jax.jit`, because compiling one operation at a time takes five times as
long. The tests of the losses evaluate them without `jit`.
"""

import dataclasses
import functools
import math
import re

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

import spikeloss_xp as sx
from _support import reference
from _support.backends import on
from _support.calls import with_everything
from _support.cases import close
from _support.compilers import optimized
from _support.contract import FORMS
from _support.contract import ONE_OF_EACH as ONE_FORM_OF_EACH
from _support.programs import run_python
from _support.root import ROOT
from _support.transforms import (
    CLASSES,
    LOSSES,
    SPIKES,
    TANGENT,
    Case,
    arguments,
    check_symmetric,
    every_label_loss,
    every_loss,
    every_loss_with_options,
    every_readout,
    slow,
)
from spikeloss_xp import _tuning

pytestmark = pytest.mark.compiles


@pytest.fixture(params=[True, pytest.param(False, marks=slow)], ids=["x64", "x32"])
def case(request, name):
    """A loss on JAX arrays, once with 64-bit types enabled and once without."""
    with jax.enable_x64(request.param):
        yield Case(name, jnp.asarray, rtol=1e-12 if request.param else 1e-5)


@pytest.fixture
def size(request, monkeypatch):
    """Run the test on the path of small arrays, and in chunks of two samples as large ones do."""
    if request.param == "small":
        yield
        return
    monkeypatch.setattr(_tuning, "COMPILED_CHUNK", SPIKES.size // 2)
    monkeypatch.setattr(_tuning, "COMPILED_LARGE", 0)
    jax.clear_caches()  # an equal loss would reuse the program of the other size
    yield
    jax.clear_caches()


both_sizes = pytest.mark.parametrize(
    "size", ["small", pytest.param("large", marks=slow)], indirect=True
)
# Chunks do not depend on the dtype, so that large arrays need no case of 32 bits.
SIZES_AND_DTYPES = [
    pytest.param("small", True, id="small-x64"),
    pytest.param("small", False, id="small-x32", marks=slow),
    pytest.param("large", True, id="large-x64", marks=slow),
]
sizes_and_dtypes = pytest.mark.parametrize(("size", "case"), SIZES_AND_DTYPES, indirect=True)


@every_loss
@sizes_and_dtypes
@pytest.mark.usefixtures("size")
def test_jit_of_loss_and_gradient_equals_eager(case):
    close(jax.jit(case.loss)(*case.arrays), case(case.spikes), case.rtol)
    value, gradient = optimized(sx.value_and_grad(case.loss))(*case.arrays)
    close(value, case(case.spikes), case.rtol)
    case.check(gradient)


@every_loss
def test_jit_with_static_loss_traces_once(case):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(loss, *arrays):
        traced.append(loss)
        return loss(*arrays)

    for loss in (case.loss, dataclasses.replace(case.loss)):
        close(evaluate(loss, *case.arrays), case(case.spikes), case.rtol)
    assert len(traced) == 1


@every_loss
@sizes_and_dtypes
@pytest.mark.usefixtures("size")
def test_grad_equals_closed_form(case):
    functions = case, jax.checkpoint(case)
    for gradient in jax.jit(lambda x: [jax.grad(f)(x) for f in functions])(case.spikes):
        case.check(gradient)


@every_loss
def test_vmap_of_grad_equals_closed_form(case):
    gradient = jax.grad(case.of_sample)
    per_sample = jax.jit(jax.vmap(gradient))(*case.arrays)
    if isinstance(case.loss, sx.SparsityEnforcer):  # not a sum over samples: it averages the batch
        close(per_sample, np.stack([*map(jax.jit(gradient), case.spikes)]), case.rtol)
    else:
        case.check(per_sample)


@every_readout
@sizes_and_dtypes
@pytest.mark.usefixtures("size")
def test_jvp_and_linearize_equal_gradient_times_tangent(case):
    @jax.jit
    def derivatives(spikes, tangent):
        value, by_jvp = jax.jvp(case, (spikes,), (tangent,))
        return value, by_jvp, jax.linearize(case, spikes)[1](tangent)

    value, *found = derivatives(case.spikes, jnp.asarray(TANGENT))
    close(value, case(case.spikes), case.rtol)
    for derivative in found:
        case.check_jvp(derivative, TANGENT)


@every_readout
@sizes_and_dtypes
@pytest.mark.usefixtures("size")
def test_hessian_is_finite_and_symmetric(case):
    transforms = jax.hessian, lambda function: jax.jacrev(jax.grad(function))
    hessian, other = (np.asarray(jax.jit(t(case))(case.spikes)) for t in transforms)
    check_symmetric(hessian, case.rtol)
    close(other, hessian, case.rtol)


@pytest.mark.parametrize("sharded", [(0, 1), pytest.param((1,), marks=slow)])
@every_readout
@both_sizes
@pytest.mark.usefixtures("size")
def test_mesh_of_one_device_equals_no_mesh(name, sharded):
    case = Case(name, jnp.asarray, rtol=1e-5)
    sharding = jax.NamedSharding(jax.make_mesh((1,), ("batch",)), jax.P("batch"))
    for i in {*sharded} & {*range(len(case.arrays))}:
        case.arrays[i] = jax.device_put(case.arrays[i], sharding)
    value, gradient = jax.jit(jax.value_and_grad(case.loss))(*case.arrays)
    close(value, case(case.spikes), case.rtol)
    case.check(gradient)


@every_loss
def test_export_with_symbolic_batch_equals_eager(case):
    (batch,) = export.symbolic_shape("batch")
    shapes = [jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype) for array in case.arrays]
    exported = export.export(jax.jit(case.loss))(*shapes)
    for samples in (slice(0, 3), slice(1, 2)):
        arrays = [array[samples] for array in case.arrays]
        close(exported.call(*arrays), case.loss(*arrays), case.rtol)


GPUS = ("cuda", "tpu", "rocm")


def lowered(function, *arguments, platforms=GPUS):
    """Return the module that `jax.export` makes of a function, for all platforms at once.

    JAX raises an error if the function calls back to the host. By default a GPU may round the
    factors of a product to 10 bits, and a TPU to 8.
    """
    module = export.export(jax.jit(function), platforms=platforms)(*arguments).mlir_module()
    for line in re.findall(r"stablehlo\.dot_general.*", module):
        assert "precision = [HIGHEST, HIGHEST]" in line, line
    return module


@pytest.mark.parametrize(
    "form", [f if f in ONE_FORM_OF_EACH else pytest.param(f, marks=slow) for f in FORMS]
)
def test_export_for_gpus_has_exact_products_and_no_callbacks(form):
    with on("jax") as backend:
        call = with_everything(FORMS[form])
        target, options = call.arguments(backend)
        evaluate = sx.value_and_grad(call.loss)
        lowered(lambda *x: evaluate(*x, **options), backend.asarray(call.spikes), *target)


LARGE, SHORT = (jax.ShapeDtypeStruct(n, np.float32) for n in ((8, 500, 1000), SPIKES.shape))
LABELS = [jax.ShapeDtypeStruct((samples,), np.int32) for samples in (8, len(SPIKES))]
EXPORTED = {  # a function, its arguments, and whether it has a loop on a CPU
    "SpikeMax": (sx.SpikeMax(100), [LARGE, LABELS[0]], True),
    "SpikeTime": (sx.SpikeTime(30.0, 500), [LARGE, LARGE], True),
    "SpikeLatency": (LOSSES["SpikeLatency"][0], [SHORT, LABELS[1]], True),
    "causal_filter": (lambda x: jnp.sum(sx.causal_filter(x, jnp.ones(100))), [LARGE], False),
    "VanRossum": (lambda x: jnp.sum(sx.distances.VanRossum(20.0)(x[0, :9, :50])), [LARGE], False),
}


@pytest.mark.parametrize("name", EXPORTED)
def test_export_from_a_cpu_loops_on_cpus_only(name):
    function, arrays, loops = EXPORTED[name]
    for derived in (function, jax.value_and_grad(function)):
        assert "stablehlo.while" not in lowered(derived, *arrays)
        assert ("stablehlo.while" in lowered(derived, *arrays, platforms=["cpu"])) == loops


@every_label_loss
@both_sizes
@pytest.mark.usefixtures("size")
def test_label_out_of_range_in_trace_gives_nan(name):
    (loss, _), spikes = LOSSES[name], jnp.asarray(SPIKES)
    labels = jnp.asarray([0, CLASSES, 1, 2])  # the second is out of range
    with pytest.raises(ValueError, match="between 0 and 2; got values from 0 to 3"):
        loss(spikes, labels)
    value, gradient = jax.jit(jax.value_and_grad(loss))(spikes, labels)
    assert np.isnan(value)
    assert np.isnan(gradient[1]).all()
    assert np.isfinite(gradient[jnp.asarray([0, 2, 3])]).all()


@every_loss_with_options
@pytest.mark.parametrize(("size", "x64"), SIZES_AND_DTYPES, indirect=["size"])
@pytest.mark.usefixtures("size")
def test_options_work_under_transforms(name, x64):
    loss, target, options = arguments(name)
    _, expected = sx.value_and_grad(loss)(SPIKES, target, **options)

    def derivatives(spikes, target, options):
        f = functools.partial(loss, target=target, **options)
        return [transform(f)(spikes) for transform in (jax.grad, jax.jacfwd, jax.hessian)]

    with jax.enable_x64(x64):
        arrays = jax.tree.map(jnp.asarray, (SPIKES, target, options))
        *gradients, hessian = jax.jit(derivatives)(*arrays)
    rtol = 1e-12 if x64 else 1e-5
    for gradient in gradients:
        close(gradient, expected, rtol)
    check_symmetric(hessian, rtol)


SHARDING_PROGRAM = """
import os
import re

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
os.environ["JAX_PLATFORMS"] = "cpu"
import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import spikeloss_xp as sx
from _support.cases import close
from _support.transforms import EACH_READOUT, LOSSES, SPIKES

COLLECTIVES = "all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter"
NARROW = SPIKES.astype(np.float32)

def mesh(count, axis_type):
    devices = jax.devices()[:count]
    return jax.make_mesh((count,), ("batch",), axis_types=(axis_type,), devices=devices)

meshes = mesh(2, AxisType.Explicit), mesh(4, AxisType.Auto), mesh(4, AxisType.Explicit)
for case in ((name, mesh) for name in EACH_READOUT for mesh in meshes):
    (loss, target), sharding = LOSSES[case[0]], NamedSharding(case[1], PartitionSpec("batch"))
    targets = [] if target is None else [target.astype("f4" if target.dtype.kind == "f" else "i4")]
    value, gradient = sx.value_and_grad(loss)(SPIKES, *targets)
    with jax.set_mesh(case[1]):
        arrays = jax.device_put([NARROW, *targets], sharding)
        compiled = jax.jit(jax.value_and_grad(loss)).lower(*arrays).compile()
        got_value, got_gradient = compiled(*arrays)
        if case[0] == "SpikeMax":
            counts = jax.jit(loss.confusion)(*arrays)
            np.testing.assert_array_equal(counts, loss.confusion(NARROW, *targets))
    close(got_value, value, 1e-5)
    close(np.asarray(got_gradient), gradient, 1e-5)
    assert got_gradient.sharding.is_equivalent_to(sharding, 3), case
    program = compiled.as_text()
    found = set(re.findall(COLLECTIVES, program))
    assert found <= {"all-reduce"}, (case, found)
    shapes = re.findall(r"= (\\S+) all-reduce\\(", program)
    assert all(re.fullmatch(r"f32\\[\\].*", shape) for shape in shapes), (case, shapes)

# The loss moves labels from another device to the device of the spikes, or to all of its mesh.
first, second = jax.devices()[:2]
of_two = NamedSharding(mesh(2, AxisType.Auto), PartitionSpec("batch"))
for name in ("SpikeTime", "SpikeMax", "SpikeMoid, window"):
    loss, target = LOSSES[name]
    expected, _ = sx.value_and_grad(loss)(SPIKES, target)
    for destination in (second, of_two):
        spikes = jax.device_put(NARROW, destination)
        value, gradient = sx.value_and_grad(loss)(spikes, jax.device_put(target, first))
        close(value, expected, 1e-5)
        assert value.devices() == gradient.devices() == spikes.devices()
"""


@slow
def test_sharded_batch_stays_sharded():
    """Options and `shard_map` are tested in tests/processes/test_jax_devices.py."""
    run_python(SHARDING_PROGRAM, path=ROOT / "tests")


@pytest.mark.parametrize(("time_axis", "shape"), [(0, (20, 30, 10)), (-1, (30, 10, 20))])
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


def test_program_of_a_latency_does_not_grow_with_its_steps():
    """First spikes are found in a loop: without it, 100 steps took 1.5 seconds to compile."""
    gradient = jax.jit(jax.grad(sx.SpikeLatency(time_axis=0)))
    programs = [
        gradient.lower(jnp.zeros((steps, 3, 4)), jnp.zeros(3, jnp.int32)).compile().as_text()
        for steps in (20, 300)
    ]
    short, long = (len(program.splitlines()) for program in programs)
    assert long < 1.1 * short  # the loops' constants differ


@pytest.mark.parametrize("time_axis", [0, -1])
def test_derivatives_of_the_cross_entropy_equal_central_differences(time_axis):
    """Of logits and of class probabilities, and the second one: JAX has a rule for them."""
    random = np.random.default_rng(5)
    logit, direction = random.normal(size=(2, 2, 3, 4))
    q = random.uniform(size=logit[0].shape if time_axis == 0 else logit[..., 0].shape)
    loss = sx.CrossEntropy(time_axis=time_axis, moving_window=1, reduction="sum")
    with jax.enable_x64(True):
        run, slope = jax.jit(loss), jax.jit(jax.grad(loss, (0, 1)))
        of_logit, of_q = slope(logit, q)
        close(of_logit, reference.differences(lambda x: float(run(x, q)), logit), 1e-8)
        close(of_q, reference.differences(lambda x: float(run(logit, x)), q), 1e-8)
        hessian = jax.jit(jax.hessian(loss))(logit, q)
        along = reference.differences(lambda s: slope(logit + s * direction, q)[0], np.zeros(1))
        close(np.tensordot(hessian, direction, 3), along[0], 1e-8)
