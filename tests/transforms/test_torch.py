"""Losses under each PyTorch transform: autograd, `torch.func`, `torch.compile` and others."""

import functools
import itertools
import warnings

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
    LOSSES,
    QUICK,
    QUICK_OPTIONS,
    WITH_OPTIONS,
    Case,
    call_with_options,
    check_symmetric,
    every,
    slow,
)
from spikeloss_xp import _tuning
from spikeloss_xp.distances import van_rossum
from spikeloss_xp.torch import LossModule

# PyTorch warns about code that it loads itself on the first compilation or forward derivative.
pytestmark = [pytest.mark.compiles, pytest.mark.filterwarnings("ignore:`torch.jit")]

SPIKES, DESIRED, LABELS = (
    torch.asarray(x) for x in (transforms.SPIKES, transforms.DESIRED, transforms.LABELS)
)
TANGENT = torch.asarray(transforms.TANGENT)


@pytest.fixture
def case(name):
    return Case(name, torch.asarray, 1e-12)


def gradient_of(function, spikes=SPIKES):
    leaf = spikes.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


@pytest.fixture(autouse=True)
def reset_dynamo():
    torch._dynamo.reset()


@pytest.fixture(params=[1 << 19, 30], ids=["whole", "in chunks"])
def chunk(request, monkeypatch):
    """Evaluate the small tensors of a test as they are, and in chunks as if they were large."""
    monkeypatch.setattr(_tuning, "AUTOGRAD_CHUNK", request.param)


def these(*names, others=()):
    """Run a test on these losses, and on the others, which are slow, with --slow only."""
    cases = [*names, *(pytest.param(name, marks=slow) for name in others)]
    return pytest.mark.parametrize("name", cases)


@these("SpikeTime", "SpikeMax")
@pytest.mark.usefixtures("chunk")
def test_gradgradcheck_passes(case):
    """On two samples of eight steps: the number of evaluations grows with that of the spikes."""
    spikes = SPIKES[:2, :, :8].clone().requires_grad_()
    targets = [y[:2, :, :8] if y.ndim == 3 else y[:2] for y in case.targets]
    assert torch.autograd.gradcheck(lambda x: case.loss(x, *targets), spikes, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(lambda x: case.loss(x, *targets), spikes)


@these("SpikeTime", "SpikeMax, window", "SparsityEnforcer", others=LOSSES)
@pytest.mark.usefixtures("chunk")
def test_gradient_of_transform_equals_closed_form(case):
    checkpointed = functools.partial(torch.utils.checkpoint.checkpoint, case, use_reentrant=False)
    for function in (case, checkpointed):
        case.check(gradient_of(function))
    for transform in (torch.func.grad, torch.func.jacrev, torch.func.jacfwd):
        case.check(transform(case)(SPIKES))
    value, derivative = torch.func.jvp(case, (SPIKES,), (TANGENT,))
    case.check_value(value)
    case.check_jvp(derivative)
    per_sample = torch.func.vmap(torch.func.grad_and_value(case.of_sample))
    gradients, values = per_sample(SPIKES, *case.targets)
    case.check_each(values, gradients)
    factor = torch.tensor(2.0, dtype=torch.float64)
    case.check_value(torch.func.grad(lambda factor: factor * case(SPIKES))(factor))
    two = torch.func.vmap(case)(torch.stack([SPIKES, 1 - SPIKES]))
    torch.testing.assert_close(two, torch.stack([case(SPIKES), case(1 - SPIKES)]))


@pytest.mark.parametrize(
    "name", ["SpikeMax", *(pytest.param(x, marks=slow) for x in ("SpikeTime", "SpikeRate, window"))]
)
def test_compiled_loss_and_backward_equal_eager(case):
    """The compiler is inductor, which writes C++."""
    leaf = SPIKES.clone().requires_grad_()
    value = torch.compile(case.loss, fullgraph=True)(leaf, *case.targets)
    value.backward()
    case.check_value(value.detach())
    case.check(leaf.grad)


@pytest.mark.parametrize(
    ("name", "compiler"),
    [
        ("SpikeTime", "aot_eager"),
        *(pytest.param(x, "inductor", marks=slow) for x in ("SpikeTime", "SpikeMax, window")),
    ],
)
def test_compiled_grad_and_jvp_equal_eager(case, compiler):
    """The code of inductor depends on the strides, which differ in a transform."""

    @functools.partial(torch.compile, fullgraph=True, backend=compiler)
    def grad_and_jvp(spikes, tangent):
        _, derivative = torch.func.jvp(case, (spikes,), (tangent,))
        return torch.func.grad(case)(spikes), derivative

    gradient, derivative = grad_and_jvp(SPIKES, TANGENT)
    case.check(gradient)
    case.check_jvp(derivative)


@slow
@pytest.mark.parametrize("axis", [-1, 0])
def test_compiled_filter_accepts_any_memory_layout(axis):
    loss = sx.SpikeTime(time_constant=3, length=20, time_axis=axis, reduction="none")

    def filter_and_square(x):
        return loss(x, torch.zeros_like(x))

    compiled = torch.compile(filter_and_square, fullgraph=True)
    base = torch.rand(30, 40, 50, dtype=torch.float64, generator=torch.manual_seed(1))
    for x in (base, base.permute(2, 0, 1), base[::2, 1:, ::3], base.float()):
        torch.testing.assert_close(compiled(x), filter_and_square(x))


@every("name", ["SpikeTime", "SpikeMax, window"], ["SpikeTime"])
def test_compile_count_for_many_durations_is_at_most_three(name):
    loss, target = LOSSES[name]
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(loss, fullgraph=True, backend=backend)
    for steps in (101, 150, 170, 200, 333, 501):
        spikes = torch.asarray(transforms.random_spikes(steps))
        y = spikes.roll(1, -1) if name == "SpikeTime" else torch.asarray(target)
        torch.testing.assert_close(compiled(spikes, y), loss(spikes, y))
    # One graph for the first duration, one with a symbolic duration and, for filters, one for
    # durations that are a multiple of the block length.
    assert len(graphs) <= 3


@every("name", LOSSES, ("SpikeTime", "SpikeMax"))
def test_export_of_any_batch_equals_eager_without_custom_operators(case):
    few = (SPIKES, *case.targets)
    any_number = {0: torch.export.Dim("batch", min=1)}
    any_size = {"input": any_number} | ({"target": (any_number,)} if case.targets else {})
    many = tuple(x.repeat(2000, *(1 for _ in x.shape[1:])) for x in few)
    exported = torch.export.export(LossModule(case.loss), few, dynamic_shapes=any_size)
    for batch in (few, many):
        torch.testing.assert_close(exported.module()(*batch), case.loss(*batch))
    assert "spikeloss_xp" not in exported.graph_module.code  # runs without this library


@every("form", WITH_OPTIONS, QUICK_OPTIONS)
def test_options_work_under_transforms(form):
    call = call_with_options(form)
    _, expected = sx.value_and_grad(call.loss)(call.spikes, call.target, **call.options)
    spikes, target = torch.asarray(call.spikes), torch.asarray(call.target)
    options = {name: torch.asarray(x) for name, x in call.options.items()}
    weight = options.pop("weight", None)
    given = {} if weight is None else {"weight": weight}

    def batch_loss(spikes):
        return call.loss(spikes, target, **options, **given)

    def sample_loss(sample, y, options):
        options = {name: x[None] for name, x in options.items()}
        return call.loss(sample[None], y[None], **options, **given)

    compiled = torch.compile(batch_loss, fullgraph=True, backend="aot_eager")
    for gradient in (
        torch.func.grad(batch_loss)(spikes),
        torch.func.jacfwd(batch_loss)(spikes),
        torch.func.vmap(torch.func.grad(sample_loss))(spikes, target, options),
        gradient_of(compiled, spikes),
    ):
        close(gradient.numpy(), expected, 1e-12)
    check_symmetric(torch.func.hessian(batch_loss)(spikes), 1e-12)


@pytest.mark.parametrize("label", [-100, 7], ids=["ignored", "invalid"])
def test_gradient_of_weights_of_a_transform_ignores_masked_samples(label):
    loss, kept = sx.CrossEntropy(time_axis=-1, label_smoothing=0.1), [0, 2, 3]
    labels, where = torch.tensor([0, label, 1, 2]), torch.tensor([1, label == -100, 1, 1]).bool()

    def value(weight):
        return loss(SPIKES, labels, where=where, weight=weight)

    weight = torch.asarray([0.5, 1.0, 2.0], dtype=torch.float64)
    expected = gradient_of(lambda w: loss(SPIKES[kept], labels[kept], weight=w), weight)
    compiled = torch.compile(value, fullgraph=True, backend="aot_eager")
    for gradient in (
        torch.func.grad(value)(weight),
        torch.func.vmap(torch.func.grad(value))(weight[None])[0],
        gradient_of(compiled, weight),
    ):
        close(gradient.numpy(), expected.numpy(), 1e-12)


def test_mean_of_one_sample_in_vmap_warns_if_weights_change_it():
    loss, spikes, labels = sx.CrossEntropy(time_axis=-1), SPIKES[:3], torch.arange(3)

    def run(transform, **options):
        def of_sample(sample, label):
            return loss(sample[None], label[None], **options)

        torch.func.vmap(transform(of_sample))(spikes, labels)

    for transform in (lambda f: f, torch.func.grad):
        with pytest.warns(UserWarning, match=r"in vmap, .*map loss\.sum_and_weight instead"):
            run(transform, weight=torch.ones(SPIKES.shape[1]))
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            run(transform)
            torch.func.hessian(lambda x: loss(x, labels[:1], weight=torch.ones(3)))(spikes[:1])


@every("name", LOSSES, QUICK)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["torch", "torch-cuda"], indirect=True)
def test_autocast_computes_in_float32(name, dtype, backend):
    case, device = Case(name, torch.asarray, 1e-6), backend.place.partition(":")[0]
    targets = [target.to(device) for target in case.targets]
    with torch.autocast(device, dtype=dtype):
        for input_dtype in (dtype, torch.float32):
            leaf = SPIKES.to(device, input_dtype).requires_grad_()
            value = case.loss(leaf, *targets)
            value.backward()
            assert value.dtype == torch.float32
            assert leaf.grad.dtype == input_dtype
            # 16-bit floats represent spikes exactly, and the loss computes in float32.
            case.check_value(value.detach().cpu())


@pytest.mark.parametrize("name", ["SpikeTime", "SpikeMax"])
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


def test_gradient_of_counts_is_a_view_inside_a_network_and_contiguous_at_a_leaf():
    leaf = torch.rand(4, 3, 50, requires_grad=True)
    inner = leaf * 1.0
    value = sx.CrossEntropy(time_axis=-1)(inner, torch.tensor([0, 1, 2, 0]))
    (gradient,) = torch.autograd.grad(value, inner, retain_graph=True)
    assert gradient.stride(-1) == 0
    value.backward()
    assert leaf.grad.is_contiguous()


def test_label_out_of_range_raises_and_in_a_trace_gives_nan():
    """Labels on the host are checked, also if the spikes are on a device."""
    loss, evaluate = (
        sx.SpikeMax(time_axis=-1),
        sx.value_and_grad(sx.SpikeMax(time_axis=-1)),
    )
    labels = torch.tensor([0, CLASSES, 1, 2])  # the second is out of range
    leaf = SPIKES.clone().requires_grad_()
    for spikes, run in itertools.product((SPIKES, leaf, SPIKES.to("meta")), (loss, evaluate)):
        with pytest.raises(ValueError, match="between 0 and 2; got values from 0 to 3"):
            run(spikes, labels)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    value = compiled(leaf, labels)
    value.backward()
    assert value.isnan()
    assert leaf.grad[1].isnan().all()
    assert leaf.grad[[0, 2, 3]].isfinite().all()
    per_sample = torch.func.vmap(lambda s, y: loss(s[None], y[None]))(SPIKES, labels)
    np.testing.assert_array_equal(per_sample.isnan(), [False, True, False, False])


@pytest.mark.parametrize("per", ["sample", "sample_neuron"])
def test_penalty_for_a_length_out_of_range_has_a_gradient_of_nan_in_a_trace(per):
    penalty = sx.SparsityEnforcer(max_rate=0.1, per=per, time_axis=-1)
    lengths = torch.tensor([[1, -1, 2, 2]])
    evaluate = torch.func.vmap(torch.func.grad_and_value(lambda s, n: penalty(s, lengths=n)))
    (gradient,), (value,) = evaluate(SPIKES[None], lengths)
    assert value.isnan()
    assert gradient[1].isnan().all()
    assert gradient[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("masked", [torch.nan, torch.inf, -3.0])
@pytest.mark.parametrize("options", [{"readout": "sqrt_count"}, {"rates": (0.5, 0.02)}], ids=str)
def test_masked_values_have_no_gradient_with_a_window_of_one_step(options, masked):
    loss = sx.CrossEntropy(time_axis=-1, moving_window=1, **options)
    where = torch.rand(SPIKES.shape, generator=torch.Generator().manual_seed(0)) < 0.6
    gradient = torch.func.grad(lambda x: loss(x, LABELS, where=where))
    clean, got = (gradient(torch.where(where, SPIKES, x)) for x in (0.0, masked))
    torch.testing.assert_close(got, clean)


@pytest.mark.parametrize("name", ["CrossEntropy, each step", "SparsityEnforcer"])
def test_second_derivative_of_a_compiled_loss_equals_eager(case):
    def penalty(function):
        x = (SPIKES + 0.25).requires_grad_()
        value = function(x, *case.targets)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        (value + gradient.square().sum()).backward()
        return x.grad

    compiled = torch.compile(case.loss, backend="eager", fullgraph=True)
    torch.testing.assert_close(penalty(compiled), penalty(case.loss), rtol=1e-10, atol=1e-12)


# Modes of PyTorch that change its results, such as TF32 and autocast, do not change ours ----------

RNG = np.random.default_rng(0)
TRAINS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
OTHERS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
MODE_RTOL = 3e-6  # some tens of roundings of float32; ten bits of a factor would be off by 5e-4
DISTANCE = functools.partial(van_rossum, time_constant=20.0, squared=True)
WITH_PRODUCTS = {
    "SpikeTime": (
        sx.SpikeTime(time_constant=20.0, length=100, time_axis=-1),
        TRAINS,
        OTHERS,
    ),
    "SpikeTime, order 2": (
        sx.SpikeTime(time_constant=20.0, length=100, filter_order=2, time_axis=-1),
        TRAINS,
        OTHERS,
    ),
    "SpikeMax, window": (
        sx.SpikeMax(moving_window=50, time_axis=-1),
        0.3 * TRAINS,
        np.arange(8) % 5,
    ),
    "distance": (DISTANCE, TRAINS[:, 0], OTHERS[:, 0]),
}


@pytest.fixture
def allowed_rounding():
    torch.set_float32_matmul_precision("high")
    yield
    torch.set_float32_matmul_precision("highest")


class TF32(TorchDispatchMode):
    """An Ampere GPU: it rounds the factors of float32 to 10 bits, if it is allowed to."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if str(function).startswith(("aten.mm", "aten.bmm", "aten.baddbmm", "aten.addmm")):
            args = [self.rounded(x) for x in args]
        return function(*args, **(kwargs or {}))

    @staticmethod
    def rounded(x):
        if getattr(x, "dtype", None) != torch.float32:
            return x
        bits = x.contiguous().view(torch.int32)
        return ((bits + 0xFFF + ((bits >> 13) & 1)) & ~0x1FFF).view(torch.float32)


@pytest.fixture
def rounded_products(allowed_rounding):
    a = torch.rand(8, 8, generator=torch.Generator().manual_seed(0))
    with TF32():
        assert ((a @ a).double() - a.double() @ a.double()).abs().max() > 1e-4
        yield


def error(got, expected):
    return np.max(np.abs(got.detach().double().numpy() - expected)) / np.max(np.abs(expected))


@pytest.mark.parametrize("name", WITH_PRODUCTS)
def test_tf32_reaches_no_filter_and_no_distance(rounded_products, name):
    function, x, y = WITH_PRODUCTS[name]
    cotangent = np.float64(1) if isinstance(function, sx.losses.Loss) else RNG.random((8, 8))
    value, gradient = sx.value_and_grad(function)(x.astype(float), y, cotangent=cotangent)
    leaf = torch.tensor(x, requires_grad=True)
    got = function(leaf, torch.tensor(y))
    got.backward(torch.tensor(cotangent, dtype=torch.float32))
    assert error(got, value) < MODE_RTOL
    assert error(leaf.grad, gradient) < MODE_RTOL


def test_other_precision_or_options_compile_anew(allowed_rounding):
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
    other = sx.SpikeTime(time_constant=2.5, length=40, time_axis=-1)
    compiled = torch.compile(other, fullgraph=True, backend=record)
    torch.testing.assert_close(compiled(x, y), other(x, y))
    assert products == [False, True, True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "call"),
    [
        ("export", "sx.SpikeMax(time_axis=-1), torch.tensor([0, 1])"),
        ("compile", "sx.CrossEntropy(time_axis=-1, moving_window=3), torch.tensor([0, 1])"),
        ("compile", "sx.SpikeTime(time_axis=-1), torch.zeros(2, 3, 8)"),
    ],
)
def test_first_call_of_a_process_may_be_compiled_or_exported(how, call):
    program = f"""
import torch, spikeloss_xp as sx
loss, target = {call}
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


@pytest.mark.parametrize("time_axis", [0, -1])
def test_window_of_several_blocks_has_its_gradient_in_a_transform(time_axis):
    """The blocks are joined there, and are written to one array elsewhere."""
    shape = (100, 3, 2) if time_axis == 0 else (3, 2, 100)
    spikes = torch.rand(shape, generator=torch.Generator().manual_seed(0)).double()
    loss = sx.SpikeRate(0.5, 0.1, moving_window=5, time_axis=time_axis)
    _, expected = sx.value_and_grad(loss)(spikes.numpy(), [0, 1, 1])
    close(torch.func.grad(loss)(spikes, [0, 1, 1]).numpy(), expected, 1e-12)
