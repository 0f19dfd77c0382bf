"""One row for each loss, one column for each thing JAX does to functions.

Compiled as a whole, because compiling one operation after the other takes five times as long; the
tests of the losses run them that way.
"""

import functools
import os
import subprocess
import sys

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp
from jax import export

import spikeloss_xp as sx
from spikeloss_xp.backends import _jax

BATCH, CLASSES, STEPS = 4, 3, 30
LABELS = np.asarray([0, 2, 1, 2])
HOT = np.asarray([[1.0, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1]])


def some_spikes():
    """Make spikes among which are a silent neuron, a saturated one and a silent labelled one."""
    spikes = np.random.default_rng(0).random((BATCH, CLASSES, STEPS)) < 0.2
    spikes[0, 1], spikes[0, 2], spikes[1, 2] = False, True, False
    return spikes.astype(float)


SPIKES = some_spikes()
DESIRED = np.roll(SPIKES, 1, axis=-1)
ROWS = {
    "SpikeTime": (sx.SpikeTime(), DESIRED),
    "SpikeTime, order 2": (sx.SpikeTime(3, 20, 2), DESIRED),
    "SpikeTime, order 3": (sx.SpikeTime(3, 20, 3), DESIRED),
    "SpikeRate": (sx.SpikeRate(0.2, 0.03), LABELS),
    "SpikeRate, window": (sx.SpikeRate(0.2, 0.03, 7), LABELS),
    "SpikeMax": (sx.SpikeMax(), LABELS),
    "SpikeMax, window": (sx.SpikeMax(7), LABELS),
    "SpikeMax, softmax": (sx.SpikeMax(mode="softmax"), LABELS),
    "SpikeMax, softmax, window": (sx.SpikeMax(7, "softmax"), LABELS),
    "SpikeMoid": (sx.SpikeMoid(alpha=0.2, theta=0.1), HOT),
    "SpikeMoid, window": (sx.SpikeMoid(7), HOT),
    "SparsityEnforcer": (sx.SparsityEnforcer(), None),
}
every_loss = pytest.mark.parametrize("row", ROWS)


@pytest.fixture(params=[True, False], ids=["x64", "x32"])
def case(request, row):
    """A loss on JAX arrays, with 64 bits and without."""
    with jax.enable_x64(request.param):
        yield Case(row, rtol=1e-12 if request.param else 1e-5)


class Case:
    """A loss with its arrays, and what its gradient should be."""

    def __init__(self, row, rtol):
        self.loss, target = ROWS[row]
        self.rtol = rtol
        self.spikes = jnp.asarray(SPIKES)
        self.targets = () if target is None else (jnp.asarray(target),)
        on_host = () if target is None else (target,)
        _, self.gradient = sx.value_and_grad(self.loss)(SPIKES, *on_host)

    def __call__(self, spikes):
        return self.loss(spikes, *self.targets)

    def check(self, gradient):
        """Compare a gradient with the closed form that NumPy gets in float64."""
        close(gradient, self.gradient, self.rtol)


def close(got, expected, rtol):
    np.testing.assert_allclose(got, expected, rtol=0, atol=rtol * np.abs(expected).max())


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Run what is compiled once as large arrays are, two samples at a time."""
    if request.param == "large":
        monkeypatch.setattr(_jax, "CACHED", SPIKES.size // 2)
        monkeypatch.setattr(_jax, "LARGE", 0)
    jax.clear_caches()  # equal losses are compiled once
    yield
    jax.clear_caches()


@every_loss
@pytest.mark.usefixtures("size")
def test_jit_of_the_object(case):
    close(jax.jit(case.loss)(case.spikes, *case.targets), case(case.spikes), case.rtol)
    value, gradient = jax.jit(sx.value_and_grad(case.loss))(case.spikes, *case.targets)
    close(value, case(case.spikes), case.rtol)
    case.check(gradient)


@every_loss
def test_jit_with_the_loss_as_a_static_argument(case):
    traced = []

    @functools.partial(jax.jit, static_argnums=0)
    def evaluate(loss, *arrays):
        traced.append(loss)
        return loss(*arrays)

    for _ in range(2):
        close(evaluate(case.loss, case.spikes, *case.targets), case(case.spikes), case.rtol)
    assert len(traced) == 1


@every_loss
@pytest.mark.usefixtures("size")
def test_grad(case):
    case.check(jax.jit(jax.grad(case.loss))(case.spikes, *case.targets))


@every_loss
def test_vmap_grad(case):
    def of_one(sample, *target):
        return case.loss(sample[None], *(t[None] for t in target))

    each = jax.jit(jax.vmap(jax.grad(of_one)))(case.spikes, *case.targets)
    if isinstance(case.loss, sx.SparsityEnforcer):  # its mean is over the batch too
        alone = jax.jit(jax.grad(of_one))
        close(each, jnp.stack([alone(sample) for sample in case.spikes]), case.rtol)
    else:
        case.check(each)


@every_loss
@pytest.mark.usefixtures("size")
def test_jvp_and_linearize(case):
    tangent = jnp.asarray(np.random.default_rng(1).normal(size=SPIKES.shape))
    value, slope = jax.jit(lambda s, t: jax.jvp(case, (s,), (t,)))(case.spikes, tangent)
    close(value, case(case.spikes), case.rtol)
    # The sum over the tangent may cancel, so its scale is that of its terms.
    expected = np.sum(case.gradient * tangent)
    scale = np.sum(np.abs(case.gradient * tangent))
    assert abs(slope - expected) <= case.rtol * scale
    slope = jax.jit(lambda s, t: jax.linearize(case, s)[1](t))(case.spikes, tangent)
    assert abs(slope - expected) <= case.rtol * scale


@every_loss
@pytest.mark.usefixtures("size")
def test_hessian(case):
    hessian, reverse = (
        np.asarray(jax.jit(of(case))(case.spikes)).reshape(SPIKES.size, -1)
        for of in (jax.hessian, lambda function: jax.jacrev(jax.grad(function)))
    )
    assert np.isfinite(hessian).all()
    close(hessian, hessian.T, case.rtol)
    close(hessian, reverse, case.rtol)


@every_loss
@pytest.mark.usefixtures("size")
def test_checkpoint(case):
    case.check(jax.jit(jax.grad(jax.checkpoint(case)))(case.spikes))


@pytest.mark.parametrize("spread", [(0, 1), (1,)])
@pytest.mark.parametrize("row", ROWS)
@pytest.mark.usefixtures("size")
def test_a_mesh_of_one_device(row, spread):
    case = Case(row, rtol=1e-5)
    split = jax.NamedSharding(jax.make_mesh((1,), ("batch",)), jax.P("batch"))
    arrays = [
        jax.device_put(array, split) if i in spread else array
        for i, array in enumerate((case.spikes, *case.targets))
    ]
    value, gradient = jax.jit(jax.value_and_grad(case.loss))(*arrays)
    close(value, case(case.spikes), case.rtol)
    case.check(gradient)


@every_loss
def test_export_for_batches_of_any_size(case):
    (batch,) = export.symbolic_shape("batch")
    shapes = [
        jax.ShapeDtypeStruct((batch, *array.shape[1:]), array.dtype)
        for array in (case.spikes, *case.targets)
    ]
    exported = export.export(jax.jit(case.loss))(*shapes)
    for some in (slice(0, 3), slice(1, 2)):
        arrays = [array[some] for array in (case.spikes, *case.targets)]
        close(exported.call(*arrays), case.loss(*arrays), case.rtol)


@pytest.mark.parametrize("row", [row for row, (_, target) in ROWS.items() if target is LABELS])
@pytest.mark.usefixtures("size")
def test_a_bad_label_in_a_trace_gives_nan(row):
    loss, _ = ROWS[row]
    spikes, bad = jnp.asarray(SPIKES), jnp.asarray([0, CLASSES, 1, 2])
    with pytest.raises(ValueError, match="between 0 and 2; got values from 0 to 3"):
        loss(spikes, bad)
    value, gradient = jax.jit(jax.value_and_grad(loss))(spikes, bad)
    assert np.isnan(value)
    assert np.isnan(gradient[1]).all()
    assert np.isfinite(gradient[jnp.asarray([0, 2, 3])]).all()


# With all that a call takes beside the target: lengths for each sample, a mask for each entry.
KEPT = np.random.default_rng(2).random(SPIKES.shape) < 0.8
OPTIONS = {"lengths": np.asarray([STEPS, 0, 17, 30]), "where": KEPT}
WEIGHT = np.asarray([1.0, 0.5, 0.0])
OPTIONAL = {
    "SpikeTime": (sx.SpikeTime(3, 20, reduction="mean"), DESIRED, None),
    "SpikeRate": (sx.SpikeRate((0.2, 0.3, 0.4), 0, readout="count"), LABELS, WEIGHT),
    "SpikeMax": (sx.SpikeMax(label_smoothing=0.1, reduction="mean"), LABELS, WEIGHT),
    "SpikeMax, window": (sx.SpikeMax(7), np.asarray([0, 1, -100, 2]), WEIGHT),
    "SpikeMax, softmax": (sx.SpikeMax(mode="softmax", readout="last", temperature=2.0,
        reduction="batchmean"), LABELS, WEIGHT),
    "SpikeMoid": (sx.SpikeMoid(num_classes=1), HOT[:, 2:], WEIGHT[:1]),
}  # fmt: skip


@pytest.mark.parametrize("row", OPTIONAL)
@pytest.mark.parametrize("x64", [True, False], ids=["x64", "x32"])
@pytest.mark.usefixtures("size")
def test_options_compose(row, x64):
    loss, target, weight = OPTIONAL[row]
    options = {**OPTIONS} if weight is None else {**OPTIONS, "weight": weight}
    _, expected = sx.value_and_grad(loss)(SPIKES, target, **options)

    def transformed(spikes, target, options):
        def whole(spikes):
            return loss(spikes, target, **options)

        return jax.grad(whole)(spikes), jax.jacfwd(whole)(spikes), jax.hessian(whole)(spikes)

    with jax.enable_x64(x64):
        placed = jax.tree.map(jnp.asarray, (SPIKES, target, options))
        reverse, forward, hessian = map(np.asarray, jax.jit(transformed)(*placed))
    rtol = 1e-12 if x64 else 1e-5
    close(reverse, expected, rtol)
    close(forward, expected, rtol)
    hessian = hessian.reshape(SPIKES.size, -1)
    assert np.isfinite(hessian).all()
    close(hessian, hessian.T, rtol)


SHARDED = """
import re

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

import spikeloss_xp as sx
from test_jax import OPTIONAL, OPTIONS, ROWS, SPIKES, close

COLLECTIVES = "all-gather|all-to-all|collective-permute|all-reduce|reduce-scatter"

def mesh_of(devices, kind):
    some = jax.devices()[:devices]
    return jax.make_mesh((devices,), ("batch",), axis_types=(kind,), devices=some)

for devices in (2, 4):
    for kind in (AxisType.Auto, AxisType.Explicit):
        mesh = mesh_of(devices, kind)
        split = NamedSharding(mesh, PartitionSpec("batch"))
        for row, (loss, target) in ROWS.items():
            arrays = [SPIKES] if target is None else [SPIKES, target]
            value, gradient = sx.value_and_grad(loss)(*arrays)
            arrays = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in arrays]
            with jax.set_mesh(mesh):
                placed = [jax.device_put(array, split) for array in arrays]
                evaluate = jax.jit(jax.value_and_grad(loss)).lower(*placed).compile()
                got, slope = evaluate(*placed)
            close(got, value, 1e-5)
            close(np.asarray(slope), gradient, 1e-5)
            assert slope.sharding.is_equivalent_to(split, 3), (row, kind)
            program = evaluate.as_text()
            crossing = set(re.findall(COLLECTIVES, program))
            assert crossing <= {"all-reduce"}, (row, kind, crossing)
            sums = re.findall(r"= (\\S+) all-reduce\\(", program)
            assert all(re.fullmatch(r"f32\\[\\].*", shape) for shape in sums), (row, kind, sums)

    mesh = mesh_of(devices, AxisType.Auto)
    for row, (loss, target) in ROWS.items():
        if target is None:
            continue  # a mean of means squared is not the square of the mean
        arrays = [SPIKES.astype(np.float32), target]
        expected, _ = sx.value_and_grad(loss)(SPIKES, target)
        parts = PartitionSpec("batch")
        total = jax.jit(jax.shard_map(
            lambda *local: jax.lax.psum(loss(*local), "batch"),
            mesh=mesh, in_specs=(parts, parts), out_specs=PartitionSpec(),
        ))
        close(total(*arrays), expected, 1e-5)
    for row, (loss, target, weight) in OPTIONAL.items():
        options = {**OPTIONS} if weight is None else {**OPTIONS, "weight": weight}
        expected, gradient = sx.value_and_grad(loss)(SPIKES, target, **options)
        split = NamedSharding(mesh, PartitionSpec("batch"))
        placed = jax.device_put((SPIKES.astype(np.float32), target, OPTIONS), split)
        weights = {} if weight is None else {"weight": weight.astype(np.float32)}

        def evaluate(spikes, target, options):
            return sx.value_and_grad(loss)(spikes, target, **options, **weights)

        compiled = jax.jit(evaluate).lower(*placed).compile()
        got, slope = compiled(*placed)
        close(got, expected, 1e-5)
        close(np.asarray(slope), gradient, 1e-5)
        crossing = set(re.findall(COLLECTIVES, compiled.as_text()))
        assert crossing <= {"all-reduce"}, (row, crossing)

# Labels go where the spikes are, from another device, and to all of a mesh.
here, there = jax.devices()[:2]
mesh = mesh_of(2, AxisType.Auto)
for row in ("SpikeTime", "SpikeMax", "SpikeMoid, window"):
    loss, target = ROWS[row]
    expected, _ = sx.value_and_grad(loss)(SPIKES, target)
    for place in (there, NamedSharding(mesh, PartitionSpec("batch"))):
        spikes = jax.device_put(SPIKES.astype(np.float32), place)
        value, slope = sx.value_and_grad(loss)(spikes, jax.device_put(target, here))
        close(value, expected, 1e-5)
        assert value.devices() == slope.devices() == spikes.devices()
print("sharded")
"""


def test_a_sharded_batch_stays_sharded():
    """On a mesh of virtual devices, which have to be asked for before JAX starts."""
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.path.dirname(__file__),
    }
    command = [sys.executable, "-W", "error", "-c", SHARDED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "sharded\n", done.stderr
