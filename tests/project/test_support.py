"""What pages say about signatures, findings, versions and array libraries is what the code has."""

import inspect
import operator
import re
import tomllib

import pytest

import spikeloss_xp as sx
from _support import backends
from _support.pages import DOCS, ROOT
from spikeloss_xp.diagnosis._report import texts

CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
LOSSES = sorted((DOCS / "losses").glob("*.md"))
SEVERITIES = {"Problems": "problem", "Possible causes": "cause", "Notes": "note"}
VERSIONS = {  # names in docs/install.md: names of the package
    **{"NumPy": "numpy", "PyTorch": "torch", "JAX": "jax", "MLX": "mlx", "Dask": "dask"},
    **{"CuPy for CUDA 12": "cupy-cuda12x", "CuPy for CUDA 13": "cupy-cuda13x", "Zarr": "zarr"},
}


def arguments(function):
    """Return the name and default of each argument, and whether it is keyword-only."""
    every = inspect.signature(function).parameters.values()
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        (x.name, x.default, x.kind == x.KEYWORD_ONLY)
        for x in every
        if x.name != "self" and x.kind not in variable
    ]


@pytest.mark.parametrize("page", LOSSES, ids=lambda page: page.stem)
def test_signatures_on_a_page_are_those_of_its_losses(page):
    text = page.read_text(encoding="utf-8")
    (block,) = re.findall(r"^## Signature\n\n```\w+\n(.*?)^```$", text, re.M | re.S)
    calls = re.findall(r"^\w+ = ([\w.]+)(\(.*?\))$", block, re.M | re.S)
    described = re.findall(r"^\.\. autoclass:: spikeloss_xp\.([\w.]+)$", text, re.M)
    assert [name for name, _ in calls] == [*(f"sx.{name}" for name in described), "loss"]
    losses = [operator.attrgetter(name)(sx) for name in described]
    for (_, given), function in zip(calls, [*losses, losses[0].__call__], strict=True):
        names = {}
        exec(f"def on_the_page{given}: pass", names)
        assert arguments(names["on_the_page"]) == arguments(function)


def test_findings_on_the_page_are_those_of_the_library():
    page = (DOCS / "guides" / "findings.md").read_text(encoding="utf-8")
    found = {}
    for title, section in re.findall(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", page, re.M | re.S):
        for code, words in re.findall(r"^### `([\w-]+)`\n(.*?)(?=^### |\Z)", section, re.M | re.S):
            found[code] = SEVERITIES[title], " ".join(words.replace("`", "").split())
    library = texts()
    assert {code: severity for code, (severity, _) in found.items()} == {
        code: text["severity"] for code, text in library.items()
    }
    for code, text in library.items():
        remedies = (text["remedy"], *text.get("options", {}).values())
        for sentence in (text["why"], *remedies):
            # The page has links instead of the words "see the guide" and "the layout above".
            if not re.search("see the guide|the layout above", sentence):
                assert sentence in found[code][1], code


def test_versions_on_the_page_are_those_of_the_requirements():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    pins = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    (python,) = re.findall(r"on Python (\d+\.\d+)", pins)
    page = (DOCS / "install.md").read_text(encoding="utf-8").split("\n## Versions\n")[1]
    rows = re.findall(r"^\| (.+?) \| ([\d.]+) \| (.+?) \| (?:`(\w+)` )?\|$", page, re.M)
    for name, lowest, newest, extra in rows:
        if name == "Python":
            assert (f">={lowest}", newest) == (project["requires-python"], python)
            continue
        package = VERSIONS.get(name, name)
        required = extras[extra] if extra else [*project["dependencies"], *extras["test"]]
        pattern = rf"{re.escape(package)}(\[\w+\])?>={re.escape(lowest)}(;.*)?"
        assert any(re.fullmatch(pattern, each) for each in required), name
        pinned = re.findall(rf"^{re.escape(package)}==(.+)$", pins, re.M)
        assert pinned == ([] if "not yet verified" in newest else [newest])
    assert {"Python", *VERSIONS} <= {name for name, *_ in rows}


def test_backends_without_a_gpu_are_required_in_ci():
    """The page "What works where" says that they are tested on every change."""
    required = " ".join(re.findall(r'REQUIRED_BACKENDS="([^"]*)"', CI)).split()
    assert set(required) == backends.BACKENDS.keys() - set(backends.ON_GPU)
