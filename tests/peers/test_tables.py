"""The lines in the tables of the README and of some pages are equal, on random numbers.

So are the scores in the table of docs/guides/recordings.md, on its own data. Other files of this
folder have more of these losses, and networks of some of the frameworks.
"""

import importlib
import itertools
import re

import numpy as np
import pytest

import spikeloss_xp as sx
from _support.side_by_side import (
    DOCS,
    assert_match,
    evaluate_line,
    generator,
    import_peer,
    labels,
    losses_of_spyx,
    potentials,
    table_rows,
    torch,
    trains,
)
from spikeloss_xp import slayer

MODULES = {  # by the names that the lines have for them
    "F": "torch.nn.functional",
    "SF": "snntorch.functional",
    "functional": "spikingjelly.activation_based.functional",
    "optax": "optax",
    "fn": "spyx",
    "slayer": "lava.lib.dl.slayer",
}
SIZES = {"time": 100, "batch": 16, "class": 5}
STEPS, BATCH, CLASSES = SIZES.values()
GROUP = 2
LAYOUTS = {
    "snnTorch": "[time, batch, class]",
    "SpikingJelly": "[time, batch, class]",
    "lava-dl": "[batch, class, time]",
}
LABEL = labels(CLASSES, (BATCH,))


def rows_of(page, pattern):
    """Return the groups of each line of a page that matches."""
    return re.findall(f"^{pattern}$", (DOCS / page).read_text(encoding="utf-8"), re.M)


def rows_with_layouts():
    """Return the layout and both lines of the README and of small libraries, of known modules."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    section = (DOCS / "migrating.md").read_text(encoding="utf-8").split("\n## Norse, ")[1]
    text = readme + section.partition("\n## ")[0]
    rows, order = [], {"0": "time, batch, class", "1": "batch, time, class"}
    for there, here in re.findall(r"^\| [^|]+ \| `(.*)` \| `(.*)` \|$", text, re.M):
        axis = re.search(r"time_axis=(\d)", here)
        rows.append((f"[{order[axis[1]] if axis else 'batch, class, time'}]", there, here))
    return [row for row in rows if row[1].partition(".")[0] in MODULES]


# Where a penalty is from, and both lines; what a score is for, and its line.
PENALTIES = rows_of("guides/sparsity.md", r"\| ([^`|]+?) \| `(.*)` \| `(.*\(.*s.*\).*)` \|")
SCORES = dict(rows_of("guides/scores.md", r"\| ([^`|]+?) \| `(.*)` \|"))


def check(layout, there, here, **known):
    """Compare two lines on an output of the network, in the layout of the table."""
    shape = [SIZES[axis] for axis in re.search(r"\[(.*)\]", layout)[1].split(", ")]
    names = {
        "x": (potentials if re.search(r"membrane|x\.max\(", there) else trains)(shape),
        "y": LABEL,
        "w": torch.linspace(0.5, 3, CLASSES),
        "number": torch.rand((BATCH, CLASSES), generator=generator(5)),
        "signal": torch.rand(shape, generator=generator(6)),
        "hot": torch.rand((BATCH, CLASSES), generator=generator(3)) < 0.5,
        "spikes": (torch.rand(shape, generator=generator(4)) < 0.3).float(),
        "counts": torch.poisson(torch.ones(shape), generator=generator(4)),
        "one_hot": torch.nn.functional.one_hot(LABEL, CLASSES).float().expand(STEPS, -1, -1),
    }
    if "num_classes" in here:
        names["x"] = trains((STEPS, BATCH, CLASSES * GROUP))
    module = there.partition(".")[0]
    if module in ("fn", "optax"):
        array = pytest.importorskip("jax").numpy.asarray
        names = {name: array(tensor.numpy()) for name, tensor in names.items()}
    load = losses_of_spyx if module == "fn" else lambda: import_peer(MODULES[module])
    names |= {"F": torch.nn.functional, "sx": sx, "T": STEPS, "C": CLASSES, "G": GROUP}
    names |= known if module in known else {module: load()}
    theirs, ours = (
        lambda x, line=line: evaluate_line(line, names | {"x": x}) for line in (there, here)
    )
    assert_match(theirs, ours, names["x"])


@pytest.mark.parametrize(("layout", "there", "here"), rows_with_layouts())
def test_lines_with_a_layout_match(layout, there, here):
    check(layout, there, here)


@pytest.mark.parametrize(
    ("library", "there", "here"),
    [(library, *row) for library in LAYOUTS for row in table_rows(library)],
)
def test_migration_table_rows_match(library, there, here):
    ours = {"slayer": slayer} if library == "lava-dl" else {}  # its names are kept
    check(LAYOUTS[library], there, here, **ours)


def lines_of_pytorch():
    """Return the functions of PyTorch that pages of losses name, and our lines that equal them."""
    pages = [
        " ".join(page.read_text(encoding="utf-8").split())
        for page in sorted((DOCS / "losses").glob("*.md"))
    ]
    found = (re.findall(r"`(sx\.[^`]+)` equals `(F\.[^`]+)`", page) for page in pages)
    return [(there, here) for here, there in itertools.chain(*found)]


@pytest.mark.parametrize(("there", "here"), lines_of_pytorch())
def test_lines_on_the_pages_of_losses_match(there, here):
    check("[time, batch, class]", there, here)


def last_of(code, names):
    """Run statements, and return the value of the last one, which is an expression."""
    scope = dict(names)
    *before, last = code.split("; ")
    exec("\n".join(before), scope)
    return eval(last, scope)


@pytest.mark.parametrize(
    ("there", "here"),
    rows_of("migrating.md", r"\| `(SF\.\w+_temporal_loss\(.*\))` \| `(.*)` \|"),
)
def test_first_spike_losses_of_snntorch_have_the_same_value_if_all_fire(there, here):
    x = trains((STEPS, BATCH, CLASSES))
    x[-1] = torch.maximum(x[-1], 1 - x.amax(0))
    names = {"sx": sx, "SF": import_peer("snntorch.functional"), "T": STEPS, "x": x, "y": LABEL}
    theirs, ours = (evaluate_line(line, names) for line in (there, here))
    torch.testing.assert_close(ours, theirs.float())


@pytest.mark.parametrize(("source", "there", "here"), PENALTIES)
def test_penalties_match_at_silent_steps_too(source, there, here):
    spikes = (torch.rand((BATCH, STEPS, CLASSES), generator=generator(1)) < 0.2).float()
    spikes[:2], spikes[:, :, 3] = 0, 0  # two silent samples and a silent neuron
    jax = source == "Spyx"
    names = {"F": torch.nn.functional, "sx": sx, "B": BATCH, "T": STEPS}
    names["z"] = (torch.rand((BATCH, STEPS, 7), generator=generator(2)) < 0.5).float()
    if jax:
        names["fn"], spikes = losses_of_spyx(), import_peer("jax").numpy.asarray(spikes.numpy())
    if source == "snnTorch":
        names["SF"] = import_peer("snntorch.functional")

    theirs, ours = (lambda s, line=line: last_of(line, names | {"s": s}) for line in (there, here))
    assert_match(theirs, ours, spikes)


@pytest.mark.parametrize("row", SCORES)
def test_lines_of_scores_are_those_of_plain_counts(row):
    x, y = trains((50, 16, 10)), torch.arange(16) % 10
    loss, each = (sx.CrossEntropy(time_axis=0, moving_window=n) for n in (None, 5))
    names = {"x": x, "y": y, "each": each, "F": torch.nn.functional, "torch": torch}
    names |= {"words": y[:, None].expand(-1, 2) % 9 + 1, "teacher": torch.randn((16, 10))}
    if "(AUC)" in row:
        names["sklearn"] = import_peer("sklearn.metrics") and importlib.import_module("sklearn")
    by_loss, by_hand = (
        float(eval(SCORES[row], names | {"s": s})) for s in (loss.scores(x), x.sum(0))
    )
    assert by_loss == by_hand
    assert np.isfinite(by_loss)


@pytest.mark.compiles
def test_scores_in_the_table_of_recordings_are_those_of_the_fit():
    pytest.importorskip("jax")
    page, names = (DOCS / "guides" / "recordings.md").read_text(encoding="utf-8"), {}
    exec("import numpy as np\nimport spikeloss_xp as sx", names)  # as in the first example
    before = page.split("\n## Masks\n")[0]
    fits = {}
    for block in re.findall(r"^```python\n(.*?)^```$", before, re.M | re.S):
        exec(block, names)
        fits[id(names.get("fit"))] = names.get("fit")
    in_torch, in_jax = (fit for fit in fits.values() if fit is not None)
    np.testing.assert_allclose(in_torch, in_jax, atol=0.01)  # both stop near the minimum
    rows = re.findall(r"^\| [^|]+ \| `(.+)` \| ([\d.]+) \|$", page, re.M)
    assert len(rows) == 4
    for line, value in rows:
        assert eval(line, names) == pytest.approx(float(value), abs=1e-3), line


def rows_with_sources(heading):
    """Return the rows of the tables in a section of migrating.md: where from, and both lines."""
    page = (DOCS / "migrating.md").read_text(encoding="utf-8")
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([\w., -]+) \| `(.*)` \| `(.*)` \|$", section, re.M)
    headers = section.count("\n|:--|")
    assert len(rows) == len(re.findall(r"^\| ", section, re.M)) - headers > 0
    return rows


def null_model(n):
    """Return the rates of the null model: the mean count of each neuron."""
    return n.mean((0, 1), keepdim=True).expand(n.shape)


def neg_log_likelihood(rates, n):
    """Return the total negative log-likelihood, like nlb_tools."""
    return (rates - n * rates.log() + torch.lgamma(n + 1)).sum()


def bits_of_rates(rates, n):
    """Return the bits per spike, like nlb_tools."""
    gain = neg_log_likelihood(null_model(n), n) - neg_log_likelihood(rates, n)
    return gain / n.sum() / np.log(2)


def bits_of_log_rates(x, n):
    """Return the bits per spike, like lfads-torch."""
    options = {"full": True, "reduction": "sum"}
    null = torch.nn.functional.poisson_nll_loss(null_model(n), n, log_input=False, **options)
    return (null - torch.nn.functional.poisson_nll_loss(x, n, **options)) / n.sum() / np.log(2)


def mean_poisson_deviance(n, rates):
    """Return the mean deviance, like scikit-learn."""
    return 2 * (torch.xlogy(n, n) - n * rates.log() - n + rates).mean()


@pytest.mark.parametrize(
    ("source", "there", "here"),
    rows_with_sources("Likelihoods of recorded spikes"),
)
def test_likelihoods_match(source, there, here):
    shape, logarithms = (BATCH, STEPS, CLASSES), not re.search(r"\br\b", here)
    x = potentials(shape) - 1
    n = torch.poisson(x.exp(), generator=generator(2))
    names = {
        "sx": sx, "N": CLASSES, "n": n, "nn": torch.nn,
        "m": torch.rand(shape, generator=generator(3)) < 0.8,
        "loss": sx.PoissonNLL(time_axis=1, link="log" if logarithms else "identity"),
        "bits_per_spike": bits_of_log_rates if logarithms else bits_of_rates,
        "mean_poisson_deviance": mean_poisson_deviance,
    }  # fmt: skip
    given = x if logarithms else x.exp()
    if source == "nemos":
        names |= vars(import_peer("nemos.observation_models"))
        array = importlib.import_module("jax").numpy.asarray
        names["n"], given = array(n.numpy()), array(given.numpy())
    theirs, ours = (
        lambda u, line=line: eval(line, names | {"x" if logarithms else "r": u})
        for line in (there, here)
    )
    assert_match(theirs, ours, given)


def test_r2_on_the_page_of_regression_is_that_of_scikit_learn():
    metrics, names = import_peer("sklearn.metrics"), {}
    page = (DOCS / "guides" / "regression.md").read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", page, re.M | re.S)[:2]:
        exec(block, names)
    pairs = [names[name][names["kept"]] for name in ("signal", "output")]
    score = metrics.r2_score(*pairs, multioutput="variance_weighted")
    assert float(names["r2"]) == pytest.approx(score, rel=1e-5)  # in float32
