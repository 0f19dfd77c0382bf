"""The programs of docs/recipes that train on several devices, or in segments of time."""

import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.processes import RECIPES, recipes
from _support.root import ROOT

TORCHRUN = "-m torch.distributed.run --standalone --no-python --nproc-per-node"
DOUBLE = "import runpy, torch; torch.set_default_dtype(torch.float64); runpy.run_path"
# A thread of the group that frees a tensor while Python ends aborts the process: none may be left.
NAMES = "open(p).read() for p in glob.glob('/proc/self/task/*/comm')"  # on Linux
THREADS = f"import glob; assert 'gloo' not in ' '.join({NAMES})"
PAGE = (ROOT / "docs" / "segments.md").read_text(encoding="utf-8")
RNG = np.random.default_rng(0)
SPIKES, LABELS = 1.0 * (RNG.random((4, 10, 200)) < 0.1), [0, 3, 1, 7]
MASK = np.arange(200) < np.asarray([200, 200, 170, 90])[:, None]


def printed(name, number):
    """Return what a program prints on so many devices or processes, in float64."""
    path, command = str(RECIPES / f"{name}.py"), [sys.executable]
    if name == "ddp_torch":
        command += [*TORCHRUN.split(), str(number), *command, "-c"]
        path = f"{DOUBLE}({path!r}, run_name='__main__'); {THREADS}"
    devices = f"--xla_force_host_platform_device_count={number}"
    variables = os.environ | {"OMP_NUM_THREADS": "1", "JAX_ENABLE_X64": "1", "XLA_FLAGS": devices}
    return subprocess.check_output([*command, path], env=variables, text=True, timeout=300)


@pytest.mark.slow
@pytest.mark.compiles
@pytest.mark.parametrize("name", ["devices_jax", "ddp_torch"])
def test_loss_and_accuracy_are_those_of_one_device(name):
    pytest.importorskip(name.rpartition("_")[-1])
    expected = printed(name, 1)
    assert float(expected.split()[-1].rstrip("%")) > 90
    assert printed(name, 2) == expected


@pytest.mark.compiles
@pytest.mark.parametrize(
    "name", ["segments", "truncated_torch", pytest.param("truncated_jax", marks=pytest.mark.slow)]
)
def test_errors_of_gradients_are_those_of_the_page(name, capsys):
    """Each program also raises an error if a gradient that should be exact is not."""
    for library in re.findall(r"^import (\w+)", (RECIPES / f"{name}.py").read_text(), flags=re.M):
        pytest.importorskip(library)
    recipes(name).main()
    errors = re.findall(r"([1-9]\d*)%", capsys.readouterr().out)
    assert len(errors) == 2
    for error in errors:
        assert f"{error} %" in " ".join(PAGE.split())


@pytest.mark.parametrize("name", ["truncated", "one_segment_later", "replayed"])
def test_segments_equal_the_whole_train(name):
    """The value, and where nothing is cut, the gradient."""
    torch = pytest.importorskip("torch")
    recipe = recipes("truncated_torch")

    class Stateless(recipe.Layer):
        def forward(self, x, state):
            return torch.sigmoid(self.input(x.mT)).mT, state

    torch.manual_seed(0)
    layer = recipe.Layer(10, 10) if name == "replayed" else Stateless(10, 10)
    inputs, mask = torch.tensor(SPIKES), torch.tensor(MASK)
    if name == "replayed":
        loss = sx.CrossEntropy(time_axis=-1, readout="sqrt_count")
        target, options, rest = LABELS, {}, (50, False)
    else:
        layer.recurrent = None
        loss = sx.SpikeTime(time_constant=5, length=20, reduction="mean", time_axis=-1)
        target, options, rest = inputs.flip(0), {"where": mask}, (mask, 50)
    found = getattr(recipe, name)(loss, layer, inputs, target, *rest)
    value = loss(layer(inputs, layer.silent(4))[0], target, **options)
    torch.testing.assert_close(found, value.detach())
    if name != "truncated":
        gradients = torch.autograd.grad(value, list(layer.parameters()))
        torch.testing.assert_close([p.grad for p in layer.parameters()], list(gradients))


@pytest.mark.parametrize(
    ("loss", "options"),
    [
        (sx.SpikeRate(0.15, 0.05, time_axis=-1), {}),
        (sx.SpikeMax(time_axis=-1), {"pseudo_count": 0.5 / 200}),
    ],
)
def test_mean_rates_have_the_gradient_of_each_step(loss, options):
    value, gradient = sx.value_and_grad(loss)(SPIKES, LABELS)
    of_rates = sx.value_and_grad(replace(loss, **options))
    same, signal = of_rates(SPIKES.mean(-1, keepdims=True), LABELS)
    np.testing.assert_allclose(same, value, rtol=1e-12)
    np.testing.assert_allclose(gradient, 0 * SPIKES + signal / 200, rtol=1e-9, atol=1e-15)


def test_online_gradient_equals_backpropagation_through_time():
    torch, recipe = pytest.importorskip("torch"), recipes("online")
    weights = torch.tensor(RNG.normal(size=(10, 10)), requires_grad=True)
    traces = sx.causal_filter(SPIKES, sx.exponential_kernel(20, 200), time_axis=-1)
    potential = weights @ torch.tensor(traces)  # [sample, class, step]
    sum(recipe.step_loss(x[..., None], LABELS) for x in potential.unbind(-1)).backward()
    found = recipe.online_gradient(weights.detach().numpy(), SPIKES, LABELS, np.exp(-1 / 20))
    np.testing.assert_allclose(found, weights.grad, rtol=1e-9, atol=1e-9)
