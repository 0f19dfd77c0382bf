"""Documentation code runs, its links resolve, and it documents every public name."""

import contextlib
import doctest
import gc
import importlib
import importlib.util
import io
import re
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sizes

import spikeloss_xp as sx
from spikeloss_xp import losses

ROOT = Path(__file__).parents[2]
INSTALLED = Path(sx.__file__).parents[1]
"""The folder with the package: the checkout, or where a wheel was installed."""
DOCS = sorted(ROOT.glob("docs/**/*.md"))
PAGES = [ROOT / "README.md", *DOCS]
# Libraries that may not be installed: code blocks that import them are then skipped.
OPTIONAL = ("array_api_strict", "cupy", "dask", "distributed", "dpctl", "dpnp", "jax", "lava")
OPTIONAL += ("mlx", "optax", "torch", "cubed", "ndonnx", "onnxruntime", "scipy", "flax", "sklearn")
OPTIONAL += ("neurobench", "nir", "nirtorch", "norse", "snntorch", "spikingjelly", "torchmetrics")
MISSING = {library for library in OPTIONAL if importlib.util.find_spec(library) is None}
MODULES = (sx, sx.backends, sx.distances, sx.testing, losses)
PUBLIC = sorted(
    # Without the module `losses`.
    {name for part in MODULES for name in part.__all__}
    # Those of `spikeloss_xp.torch`, which imports PyTorch.
    | {"LossModule", "diagnose_network", "parameter_groups", "record", "scale_network"}
)


FENCE = r"^```(?P<language>\w+)[^\n]*\n(?P<text>.*?)^```$(?:\n\n```text\n(?P<output>.*?)^```$)?"
"""A code block. A block of text after one in Python is the output that the page shows."""

WORDS, LONGEST = 38_000, 1_700
"""The most words of all pages, and of one page: see docs/contributing/testing.md."""
NOT_COUNTED = {
    "docs/published-code.md",  # a table for looking up, which no one reads from beginning to end
    "docs/diagnosis-measured.md",  # tables of measurements, with an interval for each number
    "docs/repair-measured.md",  # tables of measurements
    "docs/guides/activity.md",
    "docs/guides/nir.md",
    "docs/guides/two-frameworks.md",
}
"""Pages besides those that the limit of all words is for."""


def blocks(page: Path, *languages: str) -> list[re.Match[str]]:
    """Return the code blocks of a page that are in one of the languages."""
    found = re.finditer(FENCE, page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in found if block["language"] in languages]


def _run(page: Path, block: re.Match[str], line: int, namespace: dict[str, Any]) -> None:
    if block["language"] == "python":
        code = compile("\n" * line + block["text"], str(page), "exec")
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, namespace)
        if block["output"]:
            _check_output(block["output"], printed.getvalue())
        return
    parser = doctest.DocTestParser()
    test = parser.get_doctest(block["text"], namespace, page.name, str(page), line)
    _check(test)
    namespace |= test.globs


def _check_output(shown: str, printed: str) -> None:
    """Compare word by word, and numbers to 5 %, or 0.05 below 1.

    Rounding, which depends on the number of threads, decides whether a membrane near its threshold
    fires, and training carries that on. One thread and two have differed by 2 % in such a loop.
    """
    number = r"\d+(?:\.\d+)?"
    assert re.sub(number, "#", printed) == re.sub(number, "#", shown)
    expected = [float(found) for found in re.findall(number, shown)]
    found = [float(found) for found in re.findall(number, printed)]
    assert found == pytest.approx(expected, rel=0.05, abs=0.05)


def _check(test: doctest.DocTest) -> None:
    """Run examples; the names that they define stay in `test.globs`."""
    try:
        doctest.DebugRunner(verbose=False).run(test, clear_globs=False)
    except doctest.UnexpectedException as error:
        raise error.exc_info[1] from None
    except doctest.DocTestFailure as error:
        pytest.fail(f"{error}: got {error.got!r}, and the page has {error.example.want!r}")


WITH_CODE = [page for page in PAGES if blocks(page, "python", "pycon")]


@pytest.fixture
def without_programs() -> Iterator[None]:
    """Free the programs that JAX has compiled for a page, which no other page uses."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()
        gc.collect()


@pytest.mark.compiles
@pytest.mark.usefixtures("without_programs")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_code_of_a_page_runs(page, monkeypatch):
    """Its blocks run in order, in one namespace, and from the root of the repository.

    Those that import a missing library, or need a name of such a block, are left out.
    """
    monkeypatch.chdir(ROOT)
    namespace: dict[str, Any] = {"__name__": "page"}
    skipped: list[str] = []
    for block in blocks(page, "python", "pycon"):
        line = block.string.count("\n", 0, block.start("text"))  # before the code
        try:
            _run(page, block, line, namespace)
        except (ModuleNotFoundError, NameError) as error:
            if not (skipped if isinstance(error, NameError) else error.name in MISSING):
                raise
            skipped.append(f"line {line} needs {error.name}")
    if skipped:  # not all pages can run in one environment; .ci/run has one for each library
        pytest.skip(f"the rest of the page ran; {', '.join(skipped)}")


def members(kind: type) -> set[str]:
    """Return the public names that a class defines itself."""
    return {name for name in vars(kind) if not name.startswith("_")}


def table_members(text: str) -> set[str]:
    """Return the names in the first cells of the tables of a text."""
    cells = re.findall(r"^\|([^|]*)\|", text, re.MULTILINE)
    return {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}


def test_adapter_members_are_documented():
    page = ROOT / "docs" / "contributing" / "adding-a-backend.md"
    adapter, *_ = sx.backends.ArrayAPIAdapter.__mro__
    assert table_members(page.read_text(encoding="utf-8")) == members(adapter)


def test_members_of_a_loss_are_documented():
    kinds = (*sx.losses.ClassLoss.__mro__, *sx.losses.TrainLoss.__mro__)
    found = {name for kind in kinds for name in vars(kind)}
    page = ROOT / "docs" / "contributing" / "adding-a-loss.md"
    documented = table_members(page.read_text(encoding="utf-8"))
    abstract = sx.losses.ClassLoss.__abstractmethods__ | sx.losses.TrainLoss.__abstractmethods__
    assert abstract <= documented <= found
    assert not {name for name in documented if name.startswith("_")}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_are_documented(name):
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"`(\w+\.)*{name}`", changelog), f"the changelog does not name {name}"
    names = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert re.search(rf"^   (\w+\.)*{name}$|`sx\.(\w+\.)*{name}`", names, flags=re.M), name


def test_constructor_does_not_hide_the_docstring_of_its_class():
    """Editors that ask pyright show a docstring of `__new__` or `__init__` first."""
    objects = [getattr(part, name) for part in (sx, sx.times, losses) for name in part.__all__]
    kinds = [kind for kind in objects if isinstance(kind, type)]
    assert sx.CrossEntropy in kinds
    for kind in kinds:
        hidden_by = [made.__doc__ for made in (kind.__new__, kind.__init__)]
        none = [None, object.__new__.__doc__, object.__init__.__doc__]
        assert all(text in none for text in hidden_by), kind.__name__


@pytest.mark.parametrize("page", [*DOCS, *ROOT.glob("*.md")], ids=lambda page: page.name)
def test_relative_links_resolve(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    text = re.sub(r"\$\$.*?\$\$", "", text, flags=re.S)
    defined = re.findall(r"^\[([^\]]+)\]: (\S+)$", text, flags=re.M)  # at the end of a page
    for name, _ in defined:
        assert re.search(rf"\[{re.escape(name)}\](?!: )", text, flags=re.I), f"{name} is not used"
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + [link for _, link in defined]:
        if re.match(r"\w+:", link):  # an absolute URL
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            linked = target.read_text(encoding="utf-8")
            headings = re.findall(r"^#+ (.*)$", linked.lower(), re.M)
            anchors = {re.sub(r"[^\w\- ]", "", x).replace(" ", "-") for x in headings}
            anchors.update(re.findall(r"\]\{#([\w-]+)\}", linked))
            assert anchor in anchors, f"{page.name} links to {link}"


def modules() -> list[str]:
    """Return the names of all modules of the package, without importing them."""
    found = set()
    for package in (sx, sx.backends):  # the folder of `backends` may lie outside the package
        for root in map(Path, package.__path__):
            for path in root.rglob("*.py"):
                within = path.relative_to(root).with_suffix("").parts
                found.add(".".join([package.__name__, *within]).removesuffix(".__init__"))
    return sorted(name for name in found if not name.endswith(".__main__"))


@pytest.mark.parametrize("module", modules())
def test_docstring_examples_pass(module):
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name not in MISSING:
            raise
        pytest.skip(f"needs {error.name}")
    for test in doctest.DocTestFinder(exclude_empty=True).find(found):
        _check(test)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.name)
def test_lines_of_code_fit_on_a_screen(page):
    """As docs/ruff.toml says for programs."""
    for block in blocks(page, "python", "pycon", "py"):
        assert max(map(len, block["text"].splitlines())) <= 85, page.name


def test_programs_that_pages_name_exist():
    for page in {*DOCS, *ROOT.glob("*.md")} - {ROOT / "CHANGELOG.md"}:
        text = page.read_text(encoding="utf-8")
        for name in re.findall(r"\b(?:tests|tools|docs|spikeloss_xp)/[\w/.-]+\.py\b", text):
            root = INSTALLED if name.startswith("spikeloss_xp/") else ROOT
            assert (root / name).exists(), f"{page.name} names {name}"


def test_documented_calls_of_the_typed_script_run():
    """`.ci/types` checks the script with mypy and pyright."""
    for needed in ("jax", "torch"):  # the script imports both
        pytest.importorskip(needed)
    script = runpy.run_path(str(ROOT / "tests" / "typed" / "user.py"))
    script["documented_numpy"]()
    script["documented_torch"]()


@pytest.mark.parametrize("page", ["trust.md", "contributing/testing.md"])
def test_share_of_mutants_is_the_record(page):
    record = (ROOT / "tests" / "mutants.md").read_text(encoding="utf-8")
    ((found, gaps),) = re.findall(r"^\| total \| (\d+) \|.* (\d+) \|$", record, flags=re.M)
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    assert f"found {found} of {int(found) + int(gaps)}" in " ".join(text.split())


def test_words_of_pages_are_within_their_limits():
    """`python tools/sizes.py --pages` prints them."""
    words = {page: n for page, n in sizes.words_of_pages().items() if page not in NOT_COUNTED}
    assert sum(words.values()) <= WORDS
    assert max(words.values()) <= LONGEST, max(words, key=words.get)


TITLE = r"(?:Can|How|Measured|My|Watch|What|When|Which|Why)\b[^\]]*|[^\]]*\?"
"""A link with such a title reads as a part of the sentence around it, unless it is marked."""
LINK = rf"\[(?:{TITLE})\](?:\(|\[|(?=[ .,;)]))"
MARKED = r"(?:\"|\b[Pp]ages? |\bguides? |\bsections? |(?:^|\n)\s*(?:[-*|] )?|[·|] )$"
OUR_WORDS = (
    r"\bplain lines?\b|\bhand-written\b|\bwritten by hand\b|\bread cheaply\b"
    r"|\bfindings of the call\b|\bshares? (?:a|one) term\b|\brooms\b"
)
"""Words that readers outside the project did not understand."""
ABOUT_US = {"glossary.md", "contributing"}


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_titles_in_sentences_are_marked(page):
    """A title that is a question or a sentence follows "the page", or is in quotation marks."""
    text = prose(page)
    for link in re.finditer(LINK, text):
        before = re.sub(r"(?<=\S)\s*\n *(?![-*|])", " ", text[: link.start()])
        assert re.search(MARKED, before[-40:]), f"write the page {link[0]}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_do_without_words_that_only_we_use(page):
    if not ABOUT_US & {page.name, page.parent.name}:
        found = re.findall(OUR_WORDS, " ".join(prose(page).split()))
        assert not found, f"{page.name}: {found}"
