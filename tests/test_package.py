"""What is built for users is complete, and holds nothing else."""

import email
import email.message
import importlib.metadata
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import spikeloss_xp as sx

ROOT = Path(__file__).parents[1]
BACKENDS = "spikeloss_xp.backends"


class Built(NamedTuple):
    """The two distributions, and the tracked files that they were built from."""

    wheel: Path
    sdist: Path
    tracked: set[str]
    output: str


def _tracked() -> list[str]:
    """List the files under version control: a file that somebody forgot to add is to be missed."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("the tests do not lie in a git checkout of the source")
    command = ["git", "-C", str(ROOT), "ls-files", "-z"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.split("\0") if (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Build the sdist, and the wheel from that, so that the sdist is known to suffice."""
    # setuptools, because without isolation (and so without a network) it has to be here already.
    for tool, least in {"build": 1, "setuptools": 77}.items():
        try:
            version = importlib.metadata.version(tool)
        except importlib.metadata.PackageNotFoundError:
            version = "0"
        if int(version.partition(".")[0]) < least:
            pytest.skip(f"{tool}>={least} is not installed")
    tracked = _tracked()
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in tracked:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, source / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=out)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    (wheel,), (sdist,) = out.glob("*.whl"), out.glob("*.tar.gz")
    return Built(wheel, sdist, set(tracked), output)


@pytest.fixture
def metadata(built: Built) -> email.message.Message:
    with zipfile.ZipFile(built.wheel) as wheel:
        (name,) = (n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(wheel.read(name))


def test_the_build_tool_finds_nothing_deprecated(built):
    assert not re.search("deprecat|absent from", built.output, re.IGNORECASE), built.output


def test_the_wheel_holds_the_library_and_nothing_else(built):
    library = {name for name in built.tracked if name.startswith("spikeloss_xp/")}
    library |= {f"spikeloss_xp/{name}" for name in built.tracked if name.startswith("backends/")}
    info = f"spikeloss_xp-{sx.__version__}.dist-info"
    record = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE"}
    record.add("top_level.txt")
    with zipfile.ZipFile(built.wheel) as wheel:
        names = set(wheel.namelist())
        assert wheel.read(f"{info}/top_level.txt").split() == [b"spikeloss_xp"]
    assert names == library | {f"{info}/{name}" for name in record}
    assert {"spikeloss_xp/py.typed", "spikeloss_xp/backends/generic.py"} < names
    assert not any("test_" in name or name.startswith("backends") for name in names)


def test_the_wheel_works_without_the_source(built, tmp_path):
    with zipfile.ZipFile(built.wheel) as wheel:
        wheel.extractall(tmp_path)
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import spikeloss_xp as sx, spikeloss_xp.backends._numpy as adapter, numpy as np\n"
        "assert sx.__file__.startswith(sys.argv[1]) and adapter.__file__.startswith(sys.argv[1])\n"
        "value = sx.SpikeRate(0.5, 0.0)(np.asarray([[[1, 0, 1, 1], [0, 0, 1, 0]]]), [0])\n"
        "from importlib.metadata import distribution\n"
        "found = distribution('spikeloss-xp')\n"
        "assert str(found.locate_file('')).startswith(sys.argv[1])\n"
        "(script,) = found.entry_points.select(group='console_scripts')\n"
        "print(float(value), script.name, callable(script.load()))\n"
    )
    # -P keeps the current folder out of the path; -W error because an import may not warn.
    command = [sys.executable, "-P", "-W", "error", "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.125", "spikeloss-xp", "True"]


def test_the_sdist_holds_what_is_needed_to_test_and_to_change_it(built):
    with tarfile.open(built.sdist) as sdist:
        names = {m.name.partition("/")[2] for m in sdist.getmembers() if m.isfile()}
    ours = ("backends/", "docs/", "spikeloss_xp/", "tests/")
    alone = {".ci/run", "CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "pyproject.toml"}
    wanted = {name for name in built.tracked if name.startswith(ours) or name in alone}
    assert wanted - names == set()
    assert alone < wanted
    generated = {n for n in names if n.startswith("spikeloss_xp.egg-info/")}
    assert names - wanted - generated == {"PKG-INFO", "setup.cfg"}


def test_the_metadata_says_what_the_library_is_and_needs(metadata):
    assert metadata["Name"] == "spikeloss-xp"
    assert metadata["Version"] == sx.__version__
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "BSD-3-Clause"
    extras = set(metadata.get_all("Provides-Extra"))
    assert extras >= {"all", "cli", "cuda12", "cuda13", "docs", "jax", "test", "torch"}
    requirements = metadata.get_all("Requires-Dist")
    needed = {re.match(r"[\w.-]+", r).group() for r in requirements if "extra ==" not in r}
    assert needed == {"array-api-compat", "numpy"}


def test_every_package_on_disk_is_listed():
    if not (ROOT / "backends").exists():  # the wheel is being tested, away from its source
        pytest.skip("the tests do not lie in the source tree")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    on_disk = {
        ".".join((package, *init.parent.relative_to(ROOT / folder).parts))
        for folder, package in (("spikeloss_xp", "spikeloss_xp"), ("backends", BACKENDS))
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed["tool"]["setuptools"]["packages"]) == on_disk
