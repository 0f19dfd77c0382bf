"""The wheel and the sdist have exactly the right files, and a run of the tests has a budget.

`.ci/run` runs the tests on the wheel, and depends on the budget.
"""

import email
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import spikeloss_xp as sx

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow
NOT_IN_SDIST = (".git", "docs/images/", "tests/data/lava_dl.npz", "tests/test_golden.py")
NOT_IN_SDIST += ("tests/slayer/test_slayer.py", "tests/project/test_docs.py")


class Built(NamedTuple):
    """Both distributions, and the tracked files that they were built from."""

    wheel: Path
    sdist: Path
    tracked: set[str]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from the sdist, which shows that the sdist is complete."""
    # The build runs without isolation, and so without a network: setuptools must be installed.
    pytest.importorskip("build")
    if int(importlib.metadata.version("setuptools").partition(".")[0]) < 77:  # as pyproject.toml
        pytest.skip("setuptools>=77 is not installed")
    if not (ROOT / ".git").exists() or shutil.which("git") is None:  # git lists the files below
        pytest.skip("the tests do not lie in a git checkout of the source")
    # Files under version control: a file that was not added to git then fails the tests.
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    tracked = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    tracked -= {"spikeloss_xp/backends"}  # the link, which is a file if git could not create links
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    assert not re.search("deprecat|absent from", output, re.IGNORECASE), output
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist, tracked)


def test_wheel_contains_exactly_the_library(built):
    library = {name for name in built.tracked if name.startswith("spikeloss_xp/")}
    library |= {f"spikeloss_xp/{name}" for name in built.tracked if name.startswith("backends/")}
    info = f"spikeloss_xp-{sx.__version__}.dist-info"
    record = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    record.add("top_level.txt")
    with zipfile.ZipFile(built.wheel) as wheel:
        assert set(wheel.namelist()) == library | {f"{info}/{name}" for name in record}
        metadata = email.message_from_bytes(wheel.read(f"{info}/METADATA"))
    assert {"spikeloss_xp/py.typed", "spikeloss_xp/backends/base.py"} < library
    requirements = [x for x in metadata.get_all("Requires-Dist") if "extra ==" not in x]
    assert {re.match(r"[\w.-]+", x).group() for x in requirements} == {"array-api-compat", "numpy"}


def test_sdist_contains_all_small_files(built):
    with tarfile.open(built.sdist) as sdist:
        names = {m.name.partition("/")[2] for m in sdist.getmembers() if m.isfile()}
    expected = {name for name in built.tracked if not name.startswith(NOT_IN_SDIST)}
    generated = {n for n in names if n.startswith("spikeloss_xp.egg-info/")}
    assert names - generated == expected | {"PKG-INFO", "setup.cfg"}
    assert built.sdist.stat().st_size < 1e6


def test_citation_has_the_version_and_the_papers_of_docstrings():
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"\nversion: {sx.__version__}\n" in citation
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "spikeloss_xp").rglob("*.py"))
    text = " ".join(" ".join(sources).split())
    titles = set(re.findall(r'\.\. \[\d\] [^"]*, "([^"]*)"', text))
    assert titles == set(re.findall(r'    title: "(.*)"', citation))
