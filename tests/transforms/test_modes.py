"""Modes of PyTorch that change its results, such as TF32 and autocast, do not change ours."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.utils._python_dispatch import TorchDispatchMode

import spikeloss_xp as sx
from _support.programs import run_python
from spikeloss_xp.distances import Similarity, VanRossum

RNG = np.random.default_rng(0)
TRAINS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
OTHERS = (RNG.random((8, 5, 300)) < 0.1).astype(np.float32)
RTOL = 3e-6  # some tens of roundings of float32; ten bits of a factor would be off by 5e-4
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
    assert error(got, value) < RTOL
    assert error(leaf.grad, gradient) < RTOL


@pytest.mark.compiles
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
        with torch.autocast("cpu", getattr(dtype)):
            got = compare(trains)
        assert got.dtype == torch.float32
        # A distance is the root of a difference of squares, which has half of their digits.
        np.testing.assert_allclose(got, compare(TRAINS[:, 0].astype(float)), rtol=0, atol=1e-3)


CALLS = {
    "SpikeMax": "sx.SpikeMax(), torch.tensor([0, 1])",
    "CrossEntropy, window": "sx.CrossEntropy(time_axis=-1, moving_window=3), torch.tensor([0, 1])",
    "SpikeTime": "sx.SpikeTime(), torch.zeros(2, 3, 8)",
}


@pytest.mark.compiles
@pytest.mark.slow
@pytest.mark.parametrize("how", ["compile", "export"])
@pytest.mark.parametrize("call", CALLS)
def test_first_call_of_a_process_may_be_compiled_or_exported(call, how):
    program = f"""
import torch, spikeloss_xp as sx
loss, target = {CALLS[call]}
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
