"""One row for each loss, one column for each thing PyTorch does to functions."""

import functools
import math

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import spikeloss_xp as sx
from spikeloss_xp.backends import _torch_filters

# What PyTorch itself loads when it first compiles, or takes a forward derivative.
pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

BATCH, CLASSES, STEPS = 3, 4, 30
LABELS = torch.tensor([0, 3, 2])
HOT = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)


def some_spikes(steps=STEPS):
    """Make spikes among which are a silent neuron, a saturated one and a silent labelled one."""
    spikes = torch.rand(BATCH, CLASSES, steps, generator=torch.Generator().manual_seed(0)) < 0.2
    spikes[0, 1], spikes[0, 2], spikes[1, 3] = False, True, False
    return spikes.double()


SPIKES = some_spikes()
DESIRED = SPIKES.roll(1, -1)
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


class Case:
    """A loss with its target, and what its gradient should be."""

    def __init__(self, row):
        self.loss, target = ROWS[row]
        self.targets = () if target is None else (target,)

    def __call__(self, spikes):
        return self.loss(spikes, *self.targets)

    def check(self, gradient, rtol=1e-12):
        """Compare a gradient with the closed form that NumPy gets."""
        targets = [target.numpy() for target in self.targets]
        _, expected = sx.value_and_grad(self.loss)(SPIKES.numpy(), *targets)
        expected = torch.tensor(expected)
        torch.testing.assert_close(
            gradient, expected, rtol=0, atol=rtol * expected.abs().max().item()
        )

    def graded(self):
        """Return spikes where the loss is as smooth as finite differences need it to be."""
        smooth = SPIKES.clone()
        if isinstance(self.loss, sx.SparsityEnforcer):
            smooth += 0.1  # |x| has a corner at 0
        return smooth.requires_grad_()


def gradient_of(function):
    leaf = SPIKES.clone().requires_grad_()
    function(leaf).backward()
    return leaf.grad


@pytest.fixture(autouse=True)
def forget_compiled_code():
    torch._dynamo.reset()


@pytest.fixture(autouse=True)
def warm():
    """Evaluate once: a compiler then finds the class of a tensor known and need not trace why."""
    Case("SpikeTime")(SPIKES)


@pytest.fixture(params=["small", "large"])
def size(request, monkeypatch):
    """Run once as large tensors are: in parts, and so in what is compiled."""
    if request.param == "large":
        monkeypatch.setattr(_torch_filters, "SMALL", 0)
        monkeypatch.setattr(_torch_filters, "CACHED", 100)


@every_loss
@pytest.mark.usefixtures("size")
def test_gradcheck(row):
    case = Case(row)
    assert torch.autograd.gradcheck(case, case.graded(), check_forward_ad=True)


@every_loss
@pytest.mark.usefixtures("size")
def test_gradgradcheck(row):
    case = Case(row)
    assert torch.autograd.gradgradcheck(case, case.graded())


@every_loss
@pytest.mark.usefixtures("size")
def test_grad(row):
    case = Case(row)
    case.check(gradient_of(case))
    case.check(torch.func.grad(case)(SPIKES))


@pytest.mark.parametrize("row", ["SpikeTime", "SpikeMax, window"])
@pytest.mark.usefixtures("size")
def test_transforms_that_do_not_touch_the_spikes(row):
    case = Case(row)
    slope = torch.func.grad(lambda factor: factor * case(SPIKES))(torch.tensor(2.0).double())
    torch.testing.assert_close(slope, case(SPIKES))


@every_loss
def test_vmap_grad(row):
    case = Case(row)

    def of_one(sample, *target):
        return case.loss(sample[None], *(t[None] for t in target))

    each = torch.func.vmap(torch.func.grad(of_one))(SPIKES, *case.targets)
    if isinstance(case.loss, sx.SparsityEnforcer):  # its mean is over the batch too
        alone = torch.stack([torch.func.grad(of_one)(sample) for sample in SPIKES])
        torch.testing.assert_close(each, alone)
    else:
        case.check(each)


@every_loss
def test_vmap(row):
    case = Case(row)
    several = torch.stack([SPIKES, 1 - SPIKES])
    alone = torch.stack([case(one) for one in several])
    torch.testing.assert_close(torch.func.vmap(case)(several), alone)


@every_loss
@pytest.mark.usefixtures("size")
def test_jvp(row):
    case = Case(row)
    tangent = torch.randn(SPIKES.shape, dtype=torch.float64, generator=torch.manual_seed(1))
    value, slope = torch.func.jvp(case, (SPIKES,), (tangent,))
    torch.testing.assert_close(value, case(SPIKES))
    torch.testing.assert_close(slope, torch.sum(gradient_of(case) * tangent))


@every_loss
@pytest.mark.parametrize("mode", ["jacrev", "jacfwd"])
def test_jacobian(row, mode):
    case = Case(row)
    case.check(getattr(torch.func, mode)(case)(SPIKES))


@every_loss
@pytest.mark.usefixtures("size")
def test_hessian(row):
    case = Case(row)
    hessian = torch.func.hessian(case)(SPIKES).reshape(SPIKES.numel(), -1)
    by_rows = torch.func.jacrev(torch.func.grad(case))(SPIKES).reshape(SPIKES.numel(), -1)
    assert hessian.isfinite().all()
    scale = hessian.abs().max().item()
    torch.testing.assert_close(hessian, hessian.T, rtol=0, atol=1e-12 * scale)
    torch.testing.assert_close(hessian, by_rows, rtol=0, atol=1e-12 * scale)


@every_loss
@pytest.mark.usefixtures("size")
def test_compile_the_object_and_its_backward(row):
    case = Case(row)
    compiled = torch.compile(case.loss, fullgraph=True)  # by inductor
    # Its fused sums run in another order.
    case.check(gradient_of(lambda spikes: compiled(spikes, *case.targets)))
    torch.testing.assert_close(compiled(SPIKES, *case.targets), case(SPIKES))


@pytest.mark.parametrize("row", ["SpikeTime", "SpikeTime, order 2", "SpikeMax, window"])
@pytest.mark.usefixtures("size")
def test_compile_a_transform(row):
    case = Case(row)
    tangent = torch.randn(SPIKES.shape, dtype=torch.float64, generator=torch.manual_seed(1))

    @functools.partial(torch.compile, fullgraph=True)  # by inductor, which runs on the memory
    def run(spikes, tangent):
        _, slope = torch.func.jvp(case, (spikes,), (tangent,))
        return torch.func.grad(case)(spikes), slope

    gradient, slope = run(SPIKES, tangent)
    case.check(gradient)
    torch.testing.assert_close(slope, torch.sum(gradient_of(case) * tangent))


@pytest.mark.parametrize("kernel", [(3.0, 20, 1), (math.inf, 7, 1), (3.0, 20, 2)])
@pytest.mark.parametrize("shape", [(3, 4, 50), (1, 2000, 50)])
def test_the_operator_that_a_compiler_calls(kernel, shape):
    x = torch.rand(shape, generator=torch.manual_seed(1), requires_grad=True)
    for axis, reverse in ((-1, False), (-1, True), (0, False)):
        torch.library.opcheck(_torch_filters._opaque_filter, (x, *kernel, reverse, axis))


@pytest.mark.parametrize("axis", [0, -1])
@pytest.mark.usefixtures("size")
def test_compile_a_filter_of_any_layout(axis):
    loss = sx.SpikeTime(3, 20, time_axis=axis, reduction="none")

    def filtered(x):
        return loss(x, torch.zeros_like(x))

    compiled = torch.compile(filtered, fullgraph=True)
    wide = torch.rand(30, 40, 50, dtype=torch.float64, generator=torch.manual_seed(1))
    for x in (wide, wide.permute(2, 0, 1), wide[::2, 1:, ::3], wide.float()):
        torch.testing.assert_close(compiled(x), filtered(x))


@every_loss
def test_compile_does_not_recompile_for_each_duration(row):
    case = Case(row)
    compilations = []

    def backend(graph, _):
        compilations.append(graph)
        return graph.forward

    compiled = torch.compile(case.loss, fullgraph=True, backend=backend)
    for steps in (130, 150, 170, 200, 333, 501):
        spikes = some_spikes(steps)
        targets = (
            (spikes.roll(1, -1),) if case.targets and case.targets[0].ndim == 3 else case.targets
        )
        torch.testing.assert_close(compiled(spikes, *targets), case.loss(spikes, *targets))
    # The first size, sizes as a symbol, and for filters once more for whole blocks.
    assert len(compilations) <= 3


@pytest.mark.parametrize("kind", ["kernel", "window"])
def test_compile_losses_with_other_hyper_parameters(kind):
    for tau, number in ((5, 20), (7, 30), (2.5, 40), (3.5, 50)):
        loss = sx.SpikeTime(tau, number) if kind == "kernel" else sx.SpikeRate(0.2, 0.03, number)
        target = DESIRED if kind == "kernel" else LABELS
        compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(SPIKES, target), loss(SPIKES, target))


@every_loss
@pytest.mark.usefixtures("size")
def test_checkpoint(row):
    case = Case(row)
    checkpoint = torch.utils.checkpoint.checkpoint
    case.check(gradient_of(lambda spikes: checkpoint(case, spikes, use_reentrant=False)))


@every_loss
@pytest.mark.usefixtures("size")
def test_export(row):
    case = Case(row)

    class Module(torch.nn.Module):
        def forward(self, spikes):
            return case(spikes)

    exported = torch.export.export(Module(), (SPIKES,))
    torch.testing.assert_close(exported.module()(SPIKES), case(SPIKES))
    assert "spikeloss_xp" not in exported.graph_module.code  # it runs where this is not installed


@every_loss
def test_export_for_batches_of_any_size(row):
    case = Case(row)

    class Module(torch.nn.Module):
        def forward(self, *arrays):
            return case.loss(*arrays)

    arrays = (SPIKES, *case.targets)
    sizes = ({0: torch.export.Dim("batch", min=1)},) * len(arrays)
    exported = torch.export.export(Module(), arrays, dynamic_shapes={"arrays": sizes}).module()
    for some in (arrays, [x.repeat(2000, *(1 for _ in x.shape[1:])) for x in arrays]):
        torch.testing.assert_close(exported(*some), case.loss(*some))


# With all that a call takes beside the target: lengths for each sample, a mask for each entry.
KEPT = torch.rand(SPIKES.shape, generator=torch.Generator().manual_seed(2)) < 0.8
OPTIONS = {"lengths": torch.tensor([STEPS, 0, 17]), "where": KEPT}
WEIGHT = torch.tensor([1.0, 0.5, 2.0, 0.0], dtype=torch.float64)
OPTIONAL = {
    "SpikeTime": (sx.SpikeTime(3, 20, reduction="mean"), DESIRED, None),
    "SpikeRate": (sx.SpikeRate((0.2, 0.3, 0.4, 0.5), 0, readout="count"), LABELS, WEIGHT),
    "SpikeMax": (sx.SpikeMax(label_smoothing=0.1, reduction="mean"), LABELS, WEIGHT),
    "SpikeMax, window": (sx.SpikeMax(7, pseudo_count=1.5), torch.tensor([0, 3, -100]), WEIGHT),
    "SpikeMax, softmax": (sx.SpikeMax(mode="softmax", readout="last", temperature=2.0,
        reduction="batchmean"), LABELS, WEIGHT),
    "SpikeMoid": (sx.SpikeMoid(num_classes=2), HOT[:, 2:], WEIGHT[:2]),
}  # fmt: skip


@pytest.mark.parametrize("row", OPTIONAL)
def test_options_compose(row):
    loss, target, weight = OPTIONAL[row]
    once = {} if weight is None else {"weight": weight}
    on_host = {name: x.numpy() for name, x in {**OPTIONS, **once}.items()}
    _, expected = sx.value_and_grad(loss)(SPIKES.numpy(), target.numpy(), **on_host)

    def whole(spikes):
        return loss(spikes, target, **OPTIONS, **once)

    def check(gradient):
        atol = 1e-12 * np.abs(expected).max()
        np.testing.assert_allclose(gradient.detach().numpy(), expected, rtol=0, atol=atol)

    check(torch.func.grad(whole)(SPIKES))
    check(torch.func.jacfwd(whole)(SPIKES))
    compiled = torch.compile(whole, fullgraph=True, backend="aot_eager")
    check(gradient_of(compiled))
    hessian = torch.func.hessian(whole)(SPIKES).reshape(SPIKES.numel(), -1)
    assert hessian.isfinite().all()
    torch.testing.assert_close(hessian, hessian.T)
    if loss.reduction == "sum":

        def of_one(sample, y, length, kept):
            return loss(sample[None], y[None], lengths=length[None], where=kept[None], **once)

        each = torch.func.vmap(torch.func.grad(of_one))
        check(each(SPIKES, target, OPTIONS["lengths"], OPTIONS["where"]))


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device"))]  # fmt: skip


@every_loss
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_autocast(row, dtype, device):
    case = Case(row)
    targets = [target.to(device) for target in case.targets]
    with torch.autocast(device, dtype=dtype):
        for given in (dtype, torch.float32):
            leaf = SPIKES.to(device, given).requires_grad_()
            value = case.loss(leaf, *targets)
            value.backward()
            assert value.dtype == torch.float32
            assert leaf.grad.dtype == given
            # Spikes are exact in 16 bits, and everything after them is in float32.
            torch.testing.assert_close(value.cpu().double(), case(SPIKES), rtol=1e-6, atol=0)


@every_loss
def test_shapes_without_values(row):
    case = Case(row)
    value = case.loss(SPIKES.to("meta"), *(target.to("meta") for target in case.targets))
    assert (value.shape, value.device.type) == ((), "meta")
    with torch._subclasses.FakeTensorMode() as mode:
        fake = [mode.from_tensor(array) for array in (SPIKES, *case.targets)]
        assert case.loss(*fake).shape == ()


@every_loss
def test_tensors_that_require_grad_stay_as_they_are(row):
    case = Case(row)
    leaf = SPIKES.clone().requires_grad_()
    value, gradient = sx.value_and_grad(case.loss)(leaf, *case.targets)
    assert leaf.grad is None
    assert leaf.requires_grad
    assert not value.requires_grad
    assert not gradient.requires_grad
    assert torch.equal(leaf, SPIKES)
    case.check(gradient)


@pytest.mark.parametrize("row", [row for row, (_, t) in ROWS.items() if t is LABELS])
def test_a_bad_label_in_a_trace_gives_nan(row):
    loss, _ = ROWS[row]
    bad = torch.tensor([0, CLASSES, 2])
    with pytest.raises(ValueError, match="between 0 and 3; got values from 0 to 4"):
        loss(SPIKES, bad)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    leaf = SPIKES.clone().requires_grad_()
    value = compiled(leaf, bad)
    value.backward()
    assert value.isnan()
    assert leaf.grad[1].isnan().all()
    assert leaf.grad[[0, 2]].isfinite().all()
    each = torch.func.vmap(lambda s, y: loss(s[None], y[None]))(SPIKES, bad)
    np.testing.assert_array_equal(each.isnan(), [False, True, False])
