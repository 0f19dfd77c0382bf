"""The wheel and the sdist have exactly the right files. `.ci/run` runs the tests on the wheel."""

import email
import email.message
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


class Built(NamedTuple):
    """Both distributions, the tracked files that they were built from, and the build output."""

    wheel: Path
    sdist: Path
    tracked: set[str]
    output: str


def _tracked() -> list[str]:
    """List the files under version control, so that a file not added to git fails the tests."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tests do not lie in a git checkout of the source")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from the sdist, which shows that the sdist is complete."""
    # The build runs without isolation, and so without a network: setuptools must be installed.
    for tool, minimum in {"build": 1, "setuptools": 77}.items():
        try:
            version = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            version = "0"
        if int(version.partition(".")[0]) < minimum:
            pytest.skip(f"{tool}>={minimum} is not installed")
    tracked = _tracked()
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    output = process.stdout + process.stderr
    assert process.returncode == 0, output
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist, set(tracked), output)


@pytest.fixture
def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def test_build_output_has_no_deprecation_warnings(built):
    assert not re.search("deprecat|absent from", built.output, re.IGNORECASE), built.output


def test_wheel_contains_exactly_the_library(built):
    library = {name for name in built.tracked if name.startswith("spikeloss_xp/")}
    library |= {f"spikeloss_xp/{name}" for name in built.tracked if name.startswith("backends/")}
    info = f"spikeloss_xp-{sx.__version__}.dist-info"
    record = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    record.add("top_level.txt")
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
        assert wheel.read(f"{info}/top_level.txt").split() == [b"spikeloss_xp"]
    assert names == library | {f"{info}/{name}" for name in record}
    assert {"spikeloss_xp/py.typed", "spikeloss_xp/backends/base.py"} < names
    assert not any("test_" in name or name.startswith("backends") for name in names)


def test_sdist_contains_source_docs_and_tests(built):
    with tarfile.open(built.sdist) as sdist:
        names = {m.name.partition("/")[2] for m in sdist.getmembers() if m.isfile()}
    folders = (".ci/", "backends/", "docs/", "spikeloss_xp/", "tests/", "tools/")
    files = {
        *(".ci/run", ".pre-commit-config.yaml", "CHANGELOG.md", "CITATION.cff", "CONTRIBUTING.md"),
        *("LICENSE", "MANIFEST.in", "README.md", "SECURITY.md", "pyproject.toml"),
    }
    expected = {name for name in built.tracked if name.startswith(folders) or name in files}
    assert expected - names == set()
    assert files < expected
    generated = {n for n in names if n.startswith("spikeloss_xp.egg-info/")}
    assert names - expected - generated == {"PKG-INFO", "setup.cfg"}


def test_metadata_states_name_version_license_and_requirements(metadata):
    assert metadata["Name"] == "spikeloss-xp"
    assert metadata["Version"] == sx.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras >= {"all", "cuda12", "cuda13", "docs", "jax", "test", "torch"}
    requirements = metadata.get_all("Requires-Dist")
    required = {re.match(r"[\w.-]+", r).group() for r in requirements if "extra ==" not in r}
    assert required == {"array-api-compat", "numpy"}


def test_citation_has_the_version():
    citation = ROOT / "CITATION.cff"
    if not citation.exists():
        pytest.skip("the tests do not lie in the source tree")
    assert f"\nversion: {sx.__version__}\n" in citation.read_text(encoding="utf-8")
