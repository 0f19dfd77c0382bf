"""Every loss under each PyTorch transform: autograd, `torch.func`, `torch.compile` and others."""

import functools
import importlib
import itertools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

import spikeloss_xp as sx
from _support import transforms
from _support.cases import close
from _support.programs import run_python
from _support.transforms import (
    CLASSES,
    EACH_READOUT,
    LOSSES,
    ONE_OF_EACH,
    Case,
    arguments,
    every,
    every_label_loss,
    every_loss,
    every_loss_with_options,
    slow,
)
from spikeloss_xp import _tuning
from spikeloss_xp.backends import _torch_filters
from spikeloss_xp.distances import Similarity, VanRossum

# PyTorch warns about code that it loads itself on the first compilation or forward derivative.
pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore:`torch.jit")]

SPIKES, DESIRED, LABELS = (
    torch.asarray(x) for x in (transforms.SPIKES, transforms.DESIRED, transforms.LABELS)
)
TANGENT = torch.asarray(transforms.TANGENT)


def smooth_input(loss):
    """Return an input at which a loss is smooth enough for finite differences."""
    smooth = SPIKES.clone()
    if isinstance(loss, sx.SparsityEnforcer):
        smooth += 0.1  # |x| has a corner at 0
    elif getattr(loss, "readout", "") == "latency":  # of spikes between 0 and 1
        smooth = 0.02 + 0.9 * smooth
    return smooth.requires_grad_()


@pytest.fixture
def case(name):
    return Case(name, torch.asarray, 1e-12)


def gradient_of(function):
    leaf = SPIKES.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


@pytest.fixture(autouse=True)
def reset_dynamo():
    torch._dynamo.reset()


@pytest.fixture(params=["small", pytest.param("large", marks=slow)])
def size(request, monkeypatch):
    """Run the test on the path of small tensors, and on the chunked path of large ones."""
    if request.param == "large":
        monkeypatch.setattr(_tuning, "CHUNKED_FILTER", 0)
        monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", 100)


@every_loss
@pytest.mark.usefixtures("size")
def test_gradcheck_passes(case):
    assert torch.autograd.gradcheck(case, smooth_input(case.loss), check_forward_ad=True)


@every_loss
@pytest.mark.usefixtures("size")
def test_gradgradcheck_passes(case):
    assert torch.autograd.gradgradcheck(case, smooth_input(case.loss))


def checkpoint(function):
    return lambda x: torch.utils.checkpoint.checkpoint(function, x, use_reentrant=False)


GRADIENTS = {
    "backward": gradient_of,
    "checkpoint": lambda f: gradient_of(checkpoint(f)),
    **{
        name: lambda f, name=name: getattr(torch.func, name)(f)(SPIKES)
        for name in ("grad", "jacrev", "jacfwd")
    },
}


@every_loss
@pytest.mark.usefixtures("size")
@pytest.mark.parametrize("transform", GRADIENTS)
def test_gradient_of_transform_equals_closed_form(case, transform):
    case.check(GRADIENTS[transform](case))


@pytest.mark.parametrize("name", ["SpikeTime", "SpikeMax, window"])
@pytest.mark.usefixtures("size")
def test_grad_of_factor_with_constant_spikes_equals_loss(case):
    derivative = torch.func.grad(lambda factor: factor * case(SPIKES))(torch.tensor(2.0).double())
    torch.testing.assert_close(derivative, case(SPIKES))


@every_loss
def test_vmap_of_grad_equals_closed_form(case):
    gradient = torch.func.grad(case.of_sample)
    per_sample = torch.func.vmap(gradient)(SPIKES, *case.targets)
    if isinstance(case.loss, sx.SparsityEnforcer):  # not a sum over samples: it averages the batch
        torch.testing.assert_close(per_sample, torch.stack([*map(gradient, SPIKES)]))
    else:
        case.check(per_sample)


@every_loss
def test_vmap_equals_loop(case):
    inputs = torch.stack([SPIKES, 1 - SPIKES])
    looped = torch.stack([case(spikes) for spikes in inputs])
    torch.testing.assert_close(torch.func.vmap(case)(inputs), looped)


@every_loss
@pytest.mark.usefixtures("size")
def test_jvp_equals_gradient_times_tangent(case):
    value, derivative = torch.func.jvp(case, (SPIKES,), (TANGENT,))
    torch.testing.assert_close(value, case(SPIKES))
    case.check_jvp(derivative, transforms.TANGENT)


BACKENDS = ("inductor", "aot_eager_decomp_partition")
"""PyTorch's compiler, and one that traces and splits the same graphs but writes no C++."""
WITHOUT_CPP = ("SpikeMoid, window", "CrossEntropy, each step")
"""Losses whose windows and criteria PyTorch's compiler writes for other losses too."""


@pytest.mark.parametrize(
    ("backend", "name", "size"),
    [
        *((BACKENDS[1], name, "small") for name in ONE_OF_EACH),
        ("inductor", "SpikeMax", "small"),
        *(pytest.param("inductor", name, "small", marks=slow)
          for name in EACH_READOUT if name not in ("SpikeMax", *WITHOUT_CPP)),
        # Chunks change the path of filters, which call an operator, and of windows.
        (BACKENDS[1], "SpikeTime", "large"),
        *(pytest.param(backend, name, "large", marks=slow)
          for backend, name in itertools.product(BACKENDS, ("SpikeTime", "SpikeRate, window"))
          if (backend, name) != (BACKENDS[1], "SpikeTime")),
    ],
    indirect=["size"],
)  # fmt: skip
@pytest.mark.usefixtures("size")
def test_compiled_loss_and_backward_equal_eager(case, backend, pytestconfig, monkeypatch):
    # C++ headers take as long as a few cases to compile, so the quick run, with one case, does not.
    if backend == "inductor" and not pytestconfig.getoption("--slow"):
        config = importlib.import_module("torch._inductor.config")
        monkeypatch.setattr(config, "cpp_cache_precompile_headers", False)
    compiled = torch.compile(case.loss, fullgraph=True, backend=backend)
    # Inductor adds in another order, so its results differ by rounding.
    case.check(gradient_of(lambda spikes: compiled(spikes, *case.targets)))
    torch.testing.assert_close(compiled(SPIKES, *case.targets), case(SPIKES))


@pytest.mark.parametrize(
    ("backend", "name"),
    [
        *(pytest.param("inductor", name, marks=slow)  # whose code depends on the strides
          for name in ("SpikeTime", "SpikeTime, order 2", "SpikeMax, window")),
        (BACKENDS[1], "SpikeTime"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("size")
def test_compiled_grad_and_jvp_equal_eager(case, backend):

    @functools.partial(torch.compile, fullgraph=True, backend=backend)
    def grad_and_jvp(spikes, tangent):
        _, derivative = torch.func.jvp(case, (spikes,), (tangent,))
        return torch.func.grad(case)(spikes), derivative

    gradient, derivative = grad_and_jvp(SPIKES, TANGENT)
    case.check(gradient)
    case.check_jvp(derivative, transforms.TANGENT)


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # of tensors that PyTorch makes
@pytest.mark.slow(but=3)
@pytest.mark.parametrize("kernel", [(3.0, 20, 1), (math.inf, 7, 1), (3.0, 20, 2)])
@pytest.mark.parametrize("shape", [(3, 4, 50), (1, 2000, 50)])
def test_filter_operator_passes_opcheck(kernel, shape):
    x = torch.rand(shape[::-1], generator=torch.manual_seed(1)).permute(2, 1, 0).requires_grad_()
    for axis, reverse in ((-1, False), (-1, True), (0, False)):
        torch.library.opcheck(_torch_filters._filter_operator, (x, *kernel, reverse, axis))


@pytest.mark.parametrize(
    ("backend", "axis", "size"),
    [
        *((BACKENDS[1], axis, size) for axis, size in ((0, "small"), (-1, "large"))),
        *(pytest.param("inductor", axis, size, marks=slow)
          for axis, size in ((-1, "small"), (0, "large"))),
    ],
    indirect=["size"],
)  # fmt: skip
@pytest.mark.usefixtures("size")
def test_compiled_filter_accepts_any_memory_layout(axis, backend):
    loss = sx.SpikeTime(3, 20, time_axis=axis, reduction="none")

    def filter_and_square(x):
        return loss(x, torch.zeros_like(x))

    compiled = torch.compile(filter_and_square, fullgraph=True, backend=backend)
    base = torch.rand(30, 40, 50, dtype=torch.float64, generator=torch.manual_seed(1))
    for x in (base, base.permute(2, 0, 1), base[::2, 1:, ::3], base.float()):
        torch.testing.assert_close(compiled(x), filter_and_square(x))


@every(  # a latency has six graphs
    [name for name in EACH_READOUT if name != "CrossEntropy, latency"],
    [name for name in ONE_OF_EACH if name != "SpikeLatency"],
)
def test_compile_count_for_many_durations_is_at_most_three(case, name):
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(case.loss, fullgraph=True, backend=backend)
    for steps in (130, 150, 170, 200, 333, 501):
        spikes = torch.asarray(transforms.random_spikes(steps))
        trains = case.targets and case.targets[0].ndim == 3
        targets = (spikes.roll(1, -1),) if trains else case.targets
        torch.testing.assert_close(compiled(spikes, *targets), case.loss(spikes, *targets))
    # One graph for the first duration, one with a symbolic duration and, for filters, one for
    # durations that are a multiple of the block length. A latency merges groups of steps, whose
    # number depends on the duration: it has one graph for each.
    assert len(graphs) <= (6 if "atency" in name else 3)


@pytest.mark.slow(but=1)
@pytest.mark.parametrize("kind", ["kernel", "window"])
def test_compiled_losses_with_other_hyperparameters_equal_eager(kind):
    for tau, length in ((5, 20), (7, 30), (2.5, 40), (3.5, 50)):
        loss = sx.SpikeTime(tau, length) if kind == "kernel" else sx.SpikeRate(0.2, 0.03, length)
        target = DESIRED if kind == "kernel" else LABELS
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(SPIKES, target), loss(SPIKES, target))


class AsModule(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.forward = lambda *arrays: function(*arrays)


@every_loss
@pytest.mark.usefixtures("size")
def test_export_of_any_batch_equals_eager_without_custom_operators(case):
    arrays = (SPIKES, *case.targets)
    any_size = {"arrays": ({0: torch.export.Dim("batch", min=1)},) * len(arrays)}
    many = [x.repeat(2000, *(1 for _ in x.shape[1:])) for x in arrays]
    for sizes, batches in ((None, [arrays]), (any_size, [arrays, many])):
        exported = torch.export.export(AsModule(case.loss), arrays, dynamic_shapes=sizes)
        for batch in batches:
            torch.testing.assert_close(exported.module()(*batch), case.loss(*batch))
        assert "spikeloss_xp" not in exported.graph_module.code  # runs without this library


@every_loss_with_options
def test_options_work_under_transforms(name):
    loss, target, options = arguments(name)
    _, expected = sx.value_and_grad(loss)(SPIKES.numpy(), target, **options)
    target, options = torch.asarray(target), {k: torch.asarray(x) for k, x in options.items()}
    weights = {k: options.pop(k) for k in ("weight",) if k in options}

    def batch_loss(spikes):
        return loss(spikes, target, **options, **weights)

    compiled = torch.compile(batch_loss, fullgraph=True, backend="aot_eager")
    gradients = [torch.func.grad(batch_loss)(SPIKES), torch.func.jacfwd(batch_loss)(SPIKES)]
    gradients.append(gradient_of(compiled))
    transforms.check_symmetric(torch.func.hessian(batch_loss)(SPIKES), 1e-12)
    if loss.reduction == "sum":

        def sample_loss(sample, y, length, mask):
            return loss(sample[None], y[None], lengths=length[None], where=mask[None], **weights)

        per_sample = torch.func.vmap(torch.func.grad(sample_loss))
        gradients.append(per_sample(SPIKES, target, *options.values()))
    for gradient in gradients:
        close(gradient.detach().numpy(), expected, 1e-12)


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["torch", "torch-cuda"], indirect=True)
def test_autocast_computes_in_float32(name, dtype, backend):
    case, device = Case(name, torch.asarray, 1e-12), backend.place.partition(":")[0]
    targets = [target.to(device) for target in case.targets]
    with torch.autocast(device, dtype=dtype):
        for input_dtype in (dtype, torch.float32):
            leaf = SPIKES.to(device, input_dtype).requires_grad_()
            value = case.loss(leaf, *targets)
            value.backward()
            assert value.dtype == torch.float32
            assert leaf.grad.dtype == input_dtype
            # 16-bit floats represent spikes exactly, and the loss computes in float32.
            torch.testing.assert_close(value.cpu().double(), case(SPIKES), rtol=1e-6, atol=0)


def test_label_out_of_range_on_the_host_raises_for_spikes_on_a_device():
    loss, spikes, bad = sx.SpikeMax(), torch.ones(2, 3, 8, device="meta"), torch.tensor([0, 7])
    for evaluate in (loss, sx.value_and_grad(loss)):
        with pytest.raises(ValueError, match="target must be between 0 and 2"):
            evaluate(spikes, bad)


@every_loss
def test_value_and_grad_leaves_tensors_that_require_grad_unchanged(case):
    leaf = SPIKES.clone().requires_grad_()
    for given in (leaf, leaf * 1.0, SPIKES.clone()):
        before = given.requires_grad
        value, gradient = sx.value_and_grad(case.loss)(given, *case.targets)
        assert leaf.grad is None
        assert given.requires_grad == before
        assert not value.requires_grad
        assert not gradient.requires_grad
        assert torch.equal(leaf, SPIKES)
        case.check(gradient)


@every_label_loss
def test_label_out_of_range_in_trace_gives_nan(name):
    loss, _ = LOSSES[name]
    labels = torch.tensor([0, CLASSES, 1, 2])  # the second is out of range
    leaf = SPIKES.clone().requires_grad_()
    for spikes in (SPIKES, leaf):
        with pytest.raises(ValueError, match="between 0 and 2; got values from 0 to 3"):
            loss(spikes, labels)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(leaf, labels)
    value.backward()
    assert value.isnan()
    assert leaf.grad[1].isnan().all()
    assert leaf.grad[[0, 2, 3]].isfinite().all()
    per_sample = torch.func.vmap(lambda s, y: loss(s[None], y[None]))(SPIKES, labels)
    np.testing.assert_array_equal(per_sample.isnan(), [False, True, False, False])


@pytest.mark.parametrize("probabilities", [False, True])
def test_second_derivative_of_a_compiled_cross_entropy_equals_eager(probabilities):
    loss = sx.CrossEntropy(time_axis=-1, moving_window=2)
    random = torch.Generator().manual_seed(0)
    spikes = torch.rand(3, 4, 6, dtype=torch.float64, generator=random)
    target = torch.tensor([0, 2, 3])
    if probabilities:
        target = torch.rand(3, 4, dtype=torch.float64, generator=random)

    def penalty(function):
        x = spikes.clone().requires_grad_()
        value = function(x, target)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        (value + gradient.square().sum()).backward()
        return x.grad

    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(penalty(compiled), penalty(loss), rtol=1e-10, atol=1e-12)


# Modes of PyTorch that change its results, such as TF32 and autocast, do not change ours ----------

RNG = np.random.default_rng(0)
TRAINS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
OTHERS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
MODE_RTOL = 3e-6  # some tens of roundings of float32; ten bits of a factor would be off by 5e-4
WITH_PRODUCTS = {
    "SpikeTime": (sx.SpikeTime(20.0, 100), TRAINS, OTHERS),
    "SpikeTime, order 2": (sx.SpikeTime(20.0, 100, 2), TRAINS, OTHERS),
    "SpikeMax, window": (sx.SpikeMax(50), 0.3 * TRAINS, np.arange(8) % 5),
    "distance": (VanRossum(20.0, squared=True), TRAINS[:, 0], OTHERS[:, 0]),
    "similarity": (Similarity(20.0), TRAINS[:, 0], OTHERS[:, 0]),
}


@pytest.fixture
def allowed_rounding():
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


@pytest.fixture
def rounded_products(allowed_rounding):
    """PyTorch on an Ampere GPU: it rounds float32 factors to 10 bits, if it is allowed to."""

    def rounded(x):
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)

    class TF32(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if str(function).startswith(("aten.mm", "aten.bmm", "aten.baddbmm", "aten.addmm")):
                is_float = [getattr(x, "dtype", None) == torch.float32 for x in args]
                args = [rounded(x) if is_float[i] else x for i, x in enumerate(args)]
            return function(*args, **(kwargs or {}))

    a = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    with TF32():
        assert ((a @ a).double() - a.double() @ a.double()).abs().max() > 1e-4
        yield


def error(got, expected):
    return np.max(np.abs(got.detach().double().numpy() - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("name", WITH_PRODUCTS)
@pytest.mark.parametrize("large", [False, True])
def test_tf32_reaches_no_filter_and_no_distance(rounded_products, name, large, monkeypatch):
    if large:
        monkeypatch.setattr("spikeloss_xp._tuning.CHUNKED_FILTER", 0)
        monkeypatch.setattr("spikeloss_xp._tuning.TRAINS_IN_BLOCKS", 0)
    function, x, y = WITH_PRODUCTS[name]
    cotangent = np.float64(1) if isinstance(function, sx.losses.Loss) else RNG.random((8, 8))
    value, gradient = sx.value_and_grad(function)(x.astype(float), y, cotangent=cotangent)
    leaf = torch.tensor(x, requires_grad=True)
    got = function(leaf, torch.tensor(y))
    got.backward(torch.tensor(cotangent, dtype=torch.float32))
    assert error(got, value) < MODE_RTOL
    assert error(leaf.grad, gradient) < MODE_RTOL


def test_change_of_the_precision_of_products_compiles_anew(allowed_rounding):
    function, x, y = WITH_PRODUCTS["SpikeTime"]
    x, y = torch.tensor(x), torch.tensor(y)
    products = []

    def record(graph, _):
        products.append("double" in {str(node.target) for node in graph.graph.nodes})
        return graph

    compiled = torch.compile(function, fullgraph=True, backend=record)
    for precision in ("highest", "high", "highest", "high"):
        torch.set_float32_matmul_precision(precision)
        compiled(x, y)
    assert products == [False, True]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_distances_under_autocast_are_in_float32(dtype):
    trains = torch.tensor(TRAINS[:, 0])
    for compare in (VanRossum(20.0), Similarity(20.0)):
        with torch.autocast("cpu", getattr(torch, dtype)):
            got = compare(trains)
        assert got.dtype == torch.float32
        # A distance is the root of a difference of squares, which has half of their digits.
        np.testing.assert_allclose(got, compare(TRAINS[:, 0].astype(float)), rtol=0, atol=1e-3)


FIRST_CALLS = {
    "SpikeMax": "sx.SpikeMax(), torch.tensor([0, 1])",
    "CrossEntropy, window": "sx.CrossEntropy(time_axis=-1, moving_window=3), torch.tensor([0, 1])",
    "SpikeTime": "sx.SpikeTime(), torch.zeros(2, 3, 8)",
}


@pytest.mark.slow
@pytest.mark.parametrize("how", ["compile", "export"])
@pytest.mark.parametrize("call", FIRST_CALLS)
def test_first_call_of_a_process_may_be_compiled_or_exported(call, how):
    program = f"""
import torch, spikeloss_xp as sx
loss, target = {FIRST_CALLS[call]}
spikes, graphs = torch.ones(2, 3, 8), []
if {how == "export"}:
    class Module(torch.nn.Module):
        def forward(self, spikes, target):
            return loss(spikes, target)
    traced = torch.export.export(Module(), (spikes, target), strict=True).module()
else:
    def backend(graph, _):
        graphs.append(graph)
        return graph
    traced = torch.compile(loss, fullgraph=True, backend=backend)
assert traced(spikes, target) == traced(spikes, target) == loss(spikes, target)
assert len(graphs) <= 1, "compiled again"
"""
    run_python(program)
