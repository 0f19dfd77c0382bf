"""Settings of JAX's compiler for a test run, for this process and those that it starts.

Most tests compare values, so their programs are compiled with few optimizations, and each program
is compiled once for all runs on a machine. `optimized` asks for the optimizations of a user's run.
"""

import functools
import importlib.util
import os
import platform
import zlib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any


def _cache_folder() -> Path:
    """Return the folder of compiled programs, which no other kind of installation can read.

    They depend on the version of JAX, on the processor, and on whether JAX finds Zstandard, with
    which it then compresses them: in Python since 3.14, or in a package.
    """
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text(encoding="utf-8").splitlines() if cpu.exists() else []
    features = sorted({line for line in lines if line.startswith(("model name", "flags"))})
    processor = zlib.crc32(repr((platform.machine(), platform.processor(), features)).encode())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    zstandard = any(map(importlib.util.find_spec, ("compression", "zstandard")))
    name = f"jaxlib-{metadata.version('jaxlib')}-{processor:08x}{'-zstd' * zstandard}"
    return cache / "spikeloss-xp-tests" / name


def configure() -> None:
    """Set the variables that the libraries read when they are imported, unless they are set."""
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of as many processes as there are cores
        os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("MALLOC_ARENA_MAX", "2")  # of processes to come: compilers have threads
    try:
        folder = _cache_folder()
    except metadata.PackageNotFoundError:
        return  # no JAX, no compiler
    for name, value in (
        ("JAX_COMPILATION_CACHE_DIR", str(folder)),
        ("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0"),
        ("JAX_DISABLE_MOST_OPTIMIZATIONS", "1"),
    ):
        os.environ.setdefault(name, value)


def optimized(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function by JAX with the optimizations that its users have."""
    import jax

    options = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    return functools.partial(jax.jit, compiler_options=options)(function)
