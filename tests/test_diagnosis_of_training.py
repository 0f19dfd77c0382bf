"""`diagnose` on networks that learn, that have learned, and in which a fault is planted then."""

import functools
import itertools
import math

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.diagnoses import gradients

torch = pytest.importorskip("torch")

LOSS = sx.CrossEntropy(time_axis=0)
ABOUT_SIZES = {"vanishing-gradient", "exploding-gradient", "zero-gradient", "no-gradient"}
ENOUGH = 0.95


class Spike(torch.autograd.Function):
    """A spike above the threshold, with the derivative of a fast sigmoid."""

    @staticmethod
    def forward(ctx, above, slope):
        ctx.save_for_backward(above)
        ctx.slope = slope
        return (above > 0).to(above.dtype)

    @staticmethod
    def backward(ctx, cotangent):
        (above,) = ctx.saved_tensors
        return cotangent / (1 + ctx.slope * above.abs()) ** 2, None


def fire(current, slope):
    """Return the spikes of leaky neurons, ``[time, sample, neuron]``."""
    membrane, spikes = torch.zeros_like(current[0]), []
    for now in current:
        membrane = 0.9 * membrane + now
        spikes.append(Spike.apply(membrane - 1, slope))
        membrane = membrane - spikes[-1].detach()
    return torch.stack(spikes)


def network_of(seed, inputs):
    """Return the weights of a random network, and the slope of its surrogate."""
    random = np.random.default_rng(seed)
    sizes = (inputs, *[int(random.choice([50, 100]))] * int(random.integers(1, 3)), 10)
    torch.manual_seed(seed)
    layers = [torch.nn.Linear(*pair) for pair in itertools.pairwise(sizes)]
    for layer in layers:
        layer.weight.data *= float(random.choice([1, 1.5, 2]))
    return torch.nn.ModuleList(layers), float(random.choice([1, 2, 5]))


def layers_of(network, slope, x, label, detached=None):
    """Return the spikes of each layer. The gradients are left in the network."""
    layers = []
    for place, layer in enumerate(network):
        x = fire(layer(x), slope)
        layers.append(x.detach() if place == detached else x)
        x = layers[-1]
    network.zero_grad()
    LOSS(x, label).backward()
    return layers


def report_of(network, slope, x, label, detached=None):
    """Return the report on a batch, whose gradients are left in the network."""
    *hidden, output = layers_of(network, slope, x, label, detached)
    found = {name: p.grad for name, p in network.named_parameters()}
    return sx.diagnose(LOSS, output, label, hidden=hidden, gradients=found)


def codes(report):
    return {finding.code for finding in report.findings if finding.severity == "problem"}


@functools.cache
def digits():
    """Return 64 digits of scikit-learn as random spikes, and their labels."""
    grey, labels = pytest.importorskip("sklearn.datasets").load_digits(return_X_y=True)
    chance = np.random.default_rng(0).random((15, 64, 64))
    return torch.tensor((chance < grey[:64] / 16).astype("float32")), torch.tensor(labels[:64])


@functools.cache
def timing():
    """Return 60 samples of ten classes. Each input fires once, at a time of its class."""
    random = np.random.default_rng(0)
    label = np.arange(60) % 10
    times = random.integers(2, 18, size=(10, 40))[label] + random.integers(-2, 3, size=(60, 40))
    spikes = 3.0 * (np.arange(20)[:, None, None] == times)
    return torch.tensor(spikes, dtype=torch.float32), torch.tensor(label)


@pytest.fixture
def batch(seed):
    """Return the batch for a seed, which takes long if scikit-learn is imported for it."""
    return (digits if seed // 2 % 2 else timing)()


@pytest.mark.slow(but=4)
@pytest.mark.parametrize("seed", range(200))
def test_network_that_has_learned_gets_no_problem_until_a_fault_is_planted(seed, batch):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, label = batch
    network, slope = network_of(seed, x.shape[-1])
    optimizer = torch.optim.Adam(network.parameters(), lr=0.005)
    accuracy = 0.0
    for epoch in range(101):
        if epoch > 60 and accuracy >= ENOUGH:
            break
        if epoch % 5:
            layers_of(network, slope, x, label)
        else:
            report = report_of(network, slope, x, label)
            accuracy = report.numbers["accuracy"]
            assert accuracy <= 0.9 or not codes(report) & ABOUT_SIZES, str(report)
        optimizer.step()
    torch.set_num_threads(threads)
    assert accuracy >= ENOUGH
    report = report_of(network, slope, x, label, detached=seed % (len(network) - 1))
    assert "no-gradient" in codes(report)
    network[-1].weight.data[0, 0] = math.nan
    assert "not-finite" in codes(report_of(network, slope, x, label))


def test_busy_layers_of_a_network_that_has_learned_are_a_note():
    label = np.arange(16) % 4
    right = (label[:, None] == np.arange(4)) * np.ones((20, 1, 1))
    half = 1.0 * (np.arange(50) < 25) + 0 * WIDE
    for busy, code in ((1 + 0 * WIDE, "saturated"), (half, "stuck-hidden")):
        for spikes, severity in ((right, "note"), (np.roll(right, 1, axis=2), "problem")):
            report = sx.diagnose(LOSS, spikes, label, hidden=[busy])
            assert {x.code: x.severity for x in report.findings}.get(code) == severity, code


EXACT = np.zeros((20, 8, 4)) + (np.arange(8)[:, None] % 4 == np.arange(4))
ALL_ZERO = [np.zeros((5, 4)), np.zeros((4, 4))]
AT_ITS_MINIMUM = {
    "rates": (sx.SpikeRate(1.0, 0.0, time_axis=0), EXACT, np.arange(8) % 4),
    "trains": (sx.SpikeTime(time_axis=0), EXACT, EXACT),
    "numbers": (sx.SquaredError(time_axis=0), EXACT, EXACT.mean(axis=0)),
    "a range": (sx.SparsityEnforcer(0.5, time_axis=0), EXACT / 4, None),
    "another function": (lambda x, y: 0.0 * x.sum(), EXACT, np.arange(8)),
}


@pytest.mark.parametrize("name", AT_ITS_MINIMUM)
def test_gradients_of_0_at_the_minimum_of_a_loss_are_no_problem(name):
    loss, spikes, target = AT_ITS_MINIMUM[name]
    axis = None if isinstance(loss, sx.losses.Loss) else 0
    report = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=ALL_ZERO)
    assert not codes(report) & ABOUT_SIZES, str(report)
    some = [ALL_ZERO[0], np.ones((4, 4))]
    report = sx.diagnose(loss, spikes, target, time_axis=axis, gradients=some)
    assert "no-gradient" in codes(report)  # something is detached


def regression(scale):
    """Return a report on a regression with targets in another unit."""
    random = np.random.default_rng(0)
    potentials = random.normal(size=(20, 64, 3))
    target = scale * random.normal(size=(64, 3))
    weights = [scale * random.normal(size=shape) for shape in ((5, 4), (4, 3))]
    loss = sx.SquaredError(time_axis=0, readout="last")
    return sx.diagnose(loss, scale * potentials, target, gradients=weights)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_unit_of_the_target_changes_no_finding(scale):
    assert codes(regression(scale)) == codes(regression(1.0)) == set()


@pytest.mark.parametrize(("factor", "code"), [(1e-8, "vanishing"), (1e3, "exploding")])
@pytest.mark.parametrize("reduction", ["mean", "sum", "batchmean"])
def test_gradients_are_compared_with_that_of_the_loss(factor, code, reduction):
    loss = sx.CrossEntropy(time_axis=0, reduction=reduction)
    random, label = np.random.default_rng(0), np.arange(16) % 4
    spikes = (random.random((20, 16, 4)) < 0.2).astype(float)
    gradient = sx.value_and_grad(loss)(spikes, label)[1]
    of_loss = np.abs(gradient).max(axis=2).sum()
    for size, found in ((1.0, set()), (factor, {f"{code}-gradient"})):
        report = sx.diagnose(loss, spikes, label, gradients=gradients(*2 * [size * of_loss]))
        assert codes(report) == found


@pytest.mark.parametrize("learned", [False, True])
def test_rows_of_an_embedding_that_are_not_used_change_no_finding(learned):
    random, label = np.random.default_rng(0), np.arange(16) % 4
    spikes = (random.random((20, 16, 4)) < 0.2) | (label[:, None] == np.arange(4)) & learned
    used = 1e-2 * random.normal(size=(80, 50))
    unused = np.zeros((20_000, 50))
    found = []
    for embedding in (used, np.concatenate([used, unused])):
        given = {"emb.weight": embedding, "out.weight": random.normal(size=(4, 50))}
        report = sx.diagnose(LOSS, spikes.astype(float), label, gradients=given)
        assert report.gradients[0].rms == pytest.approx(np.sqrt((used**2).mean()))
        found.append(codes(report))
    assert found[0] == found[1]


def test_event_inputs_that_never_fire_change_no_size():
    torch.manual_seed(0)
    events = torch.zeros(20, 16, 2048)
    events[:, :, :60] = (torch.rand(20, 16, 60) < 0.3).float()
    network = torch.nn.ModuleList([torch.nn.Linear(2048, 50), torch.nn.Linear(50, 10)])
    network[0].weight.data *= 8
    report = report_of(network, 1.0, events, torch.arange(16) % 10)
    used = network[0].weight.grad[:, :60]
    assert report.gradients[0].rms == pytest.approx(used.square().mean().sqrt().item(), rel=1e-4)


# Any loss, or none --------------------------------------------------------------------------------

SPIKES = (np.random.default_rng(0).random((20, 16, 4)) < 0.2).astype("float32")
WIDE = (np.random.default_rng(1).random((20, 16, 50)) < 0.1).astype("float32")


def test_without_a_loss_layers_and_gradients_are_reported(backend):
    hidden = [backend.asarray(WIDE), backend.asarray(0 * WIDE)]
    weights = [backend.asarray(np.full((3, 3), x, "float32")) for x in (1e-9, 1e3)]
    report = sx.diagnose(
        None, backend.asarray(SPIKES), time_axis=0, hidden=hidden, gradients=weights
    )
    assert [layer.name for layer in report.layers] == ["hidden.0", "hidden.1", "output"]
    assert report.layers[-1].rate == pytest.approx(SPIKES.mean())
    assert report.numbers == {"output, as it is read": "[time, batch, neuron] = (20, 16, 4)"}
    assert [(x.code, x.severity) for x in report.findings] == [
        ("vanishing-gradient", "problem"), ("silent-hidden", "note"),
    ]  # fmt: skip
    assert "class" not in str(report)
    assert "loss" not in report.scalars()


def test_size_of_all_gradients_is_no_problem_without_a_loss_of_ours():
    for size in (1e-12, 1e6):
        report = sx.diagnose(None, SPIKES, time_axis=0, gradients=[np.full((2, 2), size)] * 2)
        assert not codes(report)
    for bad, code in ((math.nan, "not-finite"), (0.0, "no-gradient"), (None, "no-gradient")):
        weight = None if bad is None else np.full((2, 2), bad)
        report = sx.diagnose(None, SPIKES, time_axis=0, gradients=[weight, np.ones((2, 2))])
        assert codes(report) == {code}


def test_another_loss_is_called_once_with_spikes_and_target():
    calls, target = [], torch.arange(16) % 4

    def loss(*given):
        calls.append(given)
        return torch.nn.functional.cross_entropy(given[0].sum(0), given[1])

    spikes = torch.tensor(SPIKES, requires_grad=True)
    report = sx.diagnose(loss, spikes, target, time_axis=0, hidden=[torch.tensor(WIDE)])
    ((first, second),) = calls
    assert torch.equal(first, spikes)
    assert second is target
    assert report.numbers["loss"] == pytest.approx(loss(spikes, target).item())
    assert report.scalars()["loss"] == report.numbers["loss"]
    assert spikes.grad is None


def test_gradients_are_compared_with_that_of_another_loss():
    def mean(x, y):
        return torch.nn.functional.cross_entropy(x.sum(0), y)

    def of_one_entry(x, y):  # as snnTorch's losses of each step
        return mean(x, y)[None]

    spikes, target = torch.tensor(SPIKES), torch.arange(16) % 4
    found = {}
    sizes = [(mean, 1e-12), (mean, 1e-2), (mean, 1e4)]
    for loss, size in (*sizes, (of_one_entry, 1e-12), (lambda x, y: 2.3, 1e-12)):
        weights = [np.full((2, 2), size)] * 2
        report = sx.diagnose(loss, spikes, target, time_axis=0, gradients=weights)
        found[loss.__name__, size] = codes(report)
    assert found == {
        ("mean", 1e-12): {"vanishing-gradient"},
        ("mean", 1e-2): set(),
        ("mean", 1e4): {"exploding-gradient"},
        ("of_one_entry", 1e-12): {"vanishing-gradient"},
        ("<lambda>", 1e-12): set(),  # the loss cannot be differentiated
    }


def failing(x):
    raise RuntimeError("no such file")


@pytest.mark.parametrize(
    ("loss", "seen"),
    [
        (failing, "RuntimeError: no such file"),
        (lambda x: x, "the loss must be a number; got an array of shape (20, 16, 4)"),
        (lambda x: float("nan"), "the loss is nan"),
    ],
)
def test_loss_that_fails_is_a_finding_and_the_layers_are_shown(loss, seen):
    report = sx.diagnose(loss, SPIKES, time_axis=0, hidden=[0 * WIDE])
    assert report.findings[0].seen == seen
    assert report.layers[0].silent == 1
    assert "silent-hidden" in codes(report)


def test_loss_may_compute_gradients_of_its_own():
    def loss(x):
        (slope,) = torch.autograd.grad(x.square().sum(), x, create_graph=True)
        return slope.abs().mean()

    spikes = torch.tensor(SPIKES, requires_grad=True)
    report = sx.diagnose(loss, spikes, time_axis=0)
    assert report.numbers["loss"] == pytest.approx(2 * SPIKES.mean())


def test_module_with_a_loss_is_inspected_as_its_loss():
    from spikeloss_xp.torch import LossModule

    spikes, label = torch.tensor(SPIKES), torch.arange(16) % 4
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = sx.diagnose(LOSS, spikes, label, weight=weight)
    assert sx.diagnose(LossModule(LOSS, weight=weight), spikes, label) == expected
    assert sx.diagnose(LossModule(LOSS), spikes, label, weight=weight) == expected


def test_several_outputs_are_layers():
    heads = {"boxes": SPIKES, "classes": np.zeros((20, 16, 7))}
    lengths = [10] * 16
    report = sx.diagnose(None, heads, time_axis=0, hidden=[WIDE], lengths=lengths)
    assert [layer.name for layer in report.layers] == ["hidden.0", "output.boxes", "output.classes"]
    assert report.layers[1].rate == pytest.approx(SPIKES[:10].mean())
    assert [x.code for x in report.findings] == ["silent-output"]
    assert report.findings[0].names == ("output.classes",)


def test_half_of_an_image_of_pixels_is_read_as_neurons():
    pixels = SPIKES.reshape(20, 16, 2, 2)
    report = sx.diagnose(None, pixels, time_axis=0)
    assert report.layers == sx.diagnose(None, SPIKES, time_axis=0).layers


@pytest.mark.parametrize(
    ("loss", "options", "error", "words"),
    [
        (sx.SpikeRate, {"time_axis": 0}, TypeError, "loss must be a loss of this library"),
        ("mean", {"time_axis": 0}, TypeError, "another function of spikes and target, or None"),
        (None, {}, TypeError, "time_axis must be given"),
        (None, {"time_axis": 0, "weight": [1, 1]}, TypeError, "weight"),
        (None, {"time_axis": 3}, ValueError, "time_axis=3 is not an axis of output"),
        (LOSS, {"time_axis": 1}, ValueError, r"time_axis must be that of the loss \(0\); got 1"),
    ],
)
def test_wrong_combination_raises(loss, options, error, words):
    with pytest.raises(error, match=words):
        sx.diagnose(loss, SPIKES, None if loss is None else np.arange(16) % 4, **options)


def test_array_with_a_single_axis_raises():
    with pytest.raises(ValueError, match=r"output must have a batch .* axis; got shape \(5,\)"):
        sx.diagnose(None, np.ones(5), time_axis=0)


def test_time_axis_may_repeat_that_of_the_loss():
    label = np.arange(16) % 4
    expected = sx.diagnose(LOSS, SPIKES, label)
    for axis in (0, -3):
        assert sx.diagnose(LOSS, SPIKES, label, time_axis=axis) == expected


# Times, numbers and recordings --------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:no spike in the batch")
def test_layers_of_spike_times_have_a_row():
    times = np.where(np.arange(6) < 3, np.inf, 4.0 + np.arange(8)[:, None]) + np.zeros((8, 6))
    output = np.full((8, 3), 15.0) + np.arange(3)
    loss = sx.times.CrossEntropy(silent_time=17.0)
    report = sx.diagnose(loss, output, np.arange(8) % 3, hidden={"first": times})
    first, last = report.layers
    assert (first.name, first.silent, first.first_spike) == ("hidden.first", 0.5, 7.5)
    assert (last.name, last.silent, last.first_spike) == ("output", pytest.approx(1 / 3), 15.5)
    assert math.isnan(first.rate)
    lines = str(report).splitlines()
    assert lines[0].split()[:2] == ["layer", "first"]
    assert lines[1].split()[:3] == ["hidden.first", "7.5", "50%"]
    scalars = report.scalars()
    assert scalars["hidden.first/first_spike"] == 7.5
    assert "hidden.first/rate" not in scalars
    assert "7.5" in report._repr_html_()


def test_report_on_a_recording_speaks_of_neurons_and_shows_its_score():
    random = np.random.default_rng(0)
    log_rates = random.normal(-1.5, 0.5, size=(2, 30, 100))
    counts = random.poisson(np.exp(log_rates)).astype(float)
    loss = sx.PoissonNLL(time_axis=-1)
    report = sx.diagnose(loss, log_rates, counts)
    assert report.numbers["input, as it is read"] == "[batch, neuron, time] = (2, 30, 100)"
    assert report.numbers["neurons"] == 30
    expected = {
        "bits_per_spike": float(loss.bits_per_spike(log_rates, counts)),
        "mean_rate": np.exp(log_rates).mean(),
        "mean_count": counts.mean(),
    }
    scalars = report.scalars()
    for name, number in expected.items():
        assert scalars[name] == pytest.approx(number), name
    assert "class" not in str(report)
    lines = [line for line in str(report).splitlines() if line.startswith("largest gradient")]
    assert not lines or re_range(lines[0])
    kept = random.random(counts.shape) < 0.25  # coordinated dropout
    masked = sx.diagnose(loss, log_rates, counts, where=kept)
    assert not masked.findings
    assert masked.scalars()["mean_count"] == pytest.approx(counts[kept].mean())
    assert masked.scalars()["mean_rate"] == pytest.approx(np.exp(log_rates[kept]).mean())


def re_range(line):
    """Return whether a line gives the range of its numbers."""
    return " from " in line and " to " in line


def test_long_lists_are_shown_as_ranges():
    potentials = np.random.default_rng(0).normal(size=(20, 4, 30))
    loss = sx.SquaredError(time_axis=0, readout="last")
    report = sx.diagnose(loss, potentials, potentials[-1] + 1)
    (line,) = [line for line in str(report).splitlines() if line.startswith("largest gradient")]
    assert line.startswith("largest gradient of each neuron  from ")
    assert "class" not in str(report)


def test_model_of_a_recording_that_explains_it_has_no_vanishing_gradient():
    random = np.random.default_rng(0)
    log_rates = random.normal(-1.5, 1.0, size=(8, 30, 100))
    counts = random.poisson(np.exp(log_rates)).astype(float)
    loss, weights = sx.PoissonNLL(time_axis=-1), gradients(1e-6, 1e-1)
    assert not codes(sx.diagnose(loss, log_rates, counts, gradients=weights))
    unrelated = log_rates[::-1]
    assert codes(sx.diagnose(loss, unrelated, counts, gradients=weights)) == {"vanishing-gradient"}


# The figure and the text --------------------------------------------------------------------------


def test_figure_has_a_bar_for_each_layer_and_weight():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    weights = {"a": np.full((2, 2), 1e-9), "b": np.ones((2, 2)), "bias": np.ones(2)}
    report = sx.diagnose(None, SPIKES, time_axis=0, hidden=[WIDE], gradients=weights)
    figure = report.plot()
    rate, silent, gradient = figure.axes
    assert [bar.get_width() for bar in rate.patches] == pytest.approx([WIDE.mean(), SPIKES.mean()])
    assert [bar.get_width() for bar in silent.patches] == [0, 0]
    assert [text.get_text() for text in gradient.get_yticklabels()] == ["a", "b"]
    bad, good = (bar.get_facecolor() for bar in gradient.patches)
    assert bad != good
    assert gradient.get_xlim() == pytest.approx((1e-10, 10), rel=1e-12, abs=0)
    assert len(sx.diagnose(None, SPIKES, time_axis=0).plot().axes) == 2


@pytest.mark.parametrize("size", [0.0, math.nan, math.inf])
def test_figure_of_gradients_without_a_size_can_be_drawn(size):
    pytest.importorskip("matplotlib").use("Agg")
    report = sx.diagnose(None, 0 * SPIKES, time_axis=0, gradients=[np.full((2, 2), size), None])
    report.plot().canvas.draw()


def test_figure_without_layers_can_be_drawn():
    pytest.importorskip("matplotlib").use("Agg")
    rates = sx.PoissonNLL(time_axis=0, log_rates=False)  # an input of rates is no layer
    sx.diagnose(rates, SPIKES + 0.1, SPIKES, gradients=[np.ones((2, 2))]).plot().canvas.draw()


def test_report_on_six_layers_fits_40_lines_and_80_columns():
    hidden = [WIDE, *[0 * WIDE] * 5]
    weights = {f"{i}.weight": np.full((2, 2), 10.0**-i) for i in range(6, -1, -1)}
    label = np.arange(16) % 4
    text = str(sx.diagnose(LOSS, 0 * SPIKES, label, hidden=hidden, gradients=weights))
    assert len(text.splitlines()) <= 40, text
    assert max(map(len, text.splitlines())) <= 80
    assert text.endswith('The guide "My network does not learn" describes all findings.')


def test_each_remedy_is_printed_once():
    ones = np.ones_like(WIDE)
    weights = {f"{i}.weight": np.full((2, 2), 10.0**i) for i in range(4)}
    report = sx.diagnose(
        None, 0 * SPIKES, time_axis=0, hidden=[0 * WIDE, ones, 0 * WIDE, ones], gradients=weights
    )
    words = " ".join(str(report).split())
    for remedy in {finding.remedy for finding in report.findings}:
        assert words.count(remedy) == 1, remedy
