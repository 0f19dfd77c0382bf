"""A graph in NIR's format has the same spikes in several frameworks: see docs/guides/nir.md."""

import re

import pytest

from _support.pages import DOCS
from _support.peers import import_peer
from _support.side_by_side import torch
from spikeloss_xp.testing import compare_runs
from spikeloss_xp.torch import record

pytestmark = pytest.mark.compiles  # or imports a large package, which takes as long

PAGE = (DOCS / "guides" / "nir.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def page():
    """Return the names that the page defines with the graph, and runs of it in one framework."""
    import_peer("nir")
    names = {}
    for block in BLOCKS[:2]:
        exec(block, names)
    return names


def spikes_of(network, forward):
    with record(network) as seen, torch.no_grad():
        forward()
    return seen


def in_framework(page, name):
    """Return the spikes in a framework of the page, for the graph in `page`."""
    import_peer(name)
    (block,) = (block for block in BLOCKS if f"in_{name} = " in block)
    exec(block, page)
    return spikes_of(*page[f"in_{name}"])


@pytest.mark.parametrize("name", ["snntorch", "spikingjelly"])
def test_graph_has_the_same_spikes_as_in_norse(page, name):
    result = compare_runs(in_framework(page, "norse"), in_framework(page, name), time_axis=0)
    assert result.agrees
    assert [row.spikes for row in result.rows] == [(1071, 1071), (99, 99)]


def with_default_dt(page):
    network = import_peer("norse.torch").from_nir(page["graph"])
    return spikes_of(network, lambda: page["run"](network))


def without_the_state(page):
    network = import_peer("norse.torch").from_nir(page["graph"], dt=page["dt"])
    return spikes_of(network, lambda: [network(step) for step in page["inputs"]])


def with_another_resistance(page):
    """Norse ignores it, so its spikes are those of the first run."""
    nir, graph = import_peer("nir"), page["graph"]
    nodes = dict(graph.nodes)
    for name in ("lif1", "lif2"):
        options = {key: getattr(graph.nodes[name], key) for key in ("tau", "v_leak", "v_threshold")}
        nodes[name] = nir.LIF(r=1.5 * graph.nodes[name].r, **options)
    changed = page | {"graph": nir.NIRGraph(nodes, graph.edges)}
    ignored = compare_runs(in_framework(page, "norse"), in_framework(changed, "norse"), time_axis=0)
    assert ignored.agrees
    with pytest.raises(ValueError, match="r must equal 1"):
        in_framework(changed, "spikingjelly")
    return in_framework(changed, "snntorch")


def in_sinabs(page):
    sinabs, inputs = import_peer("sinabs"), page["inputs"].swapaxes(0, 1)
    network = sinabs.from_nir(page["graph"], batch_size=len(inputs))
    return spikes_of(network, lambda: network(inputs))


@pytest.mark.parametrize(
    ("fault", "differ", "step", "axes"),
    [
        (with_default_dt, 1391, 0, 0),
        (without_the_state, 340, 1, 0),
        (with_another_resistance, 367, 0, 0),
        (in_sinabs, 2460, 0, (0, 1)),
    ],
)
def test_fault_of_the_page_is_found(page, fault, differ, step, axes):
    result = compare_runs(in_framework(page, "norse"), fault(page), time_axis=axes)
    assert (result.first.layer, result.first.step) == ("lif1", step)
    assert result.rows[0].differ == differ
    assert f"| {differ:,} | {step} |" in (DOCS / "guides" / "two-frameworks.md").read_text("utf-8")
