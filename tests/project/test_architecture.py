"""The structure of the code, read from its source, so that every adapter is checked."""

import ast
import contextlib
import graphlib
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import spikeloss_xp
from spikeloss_xp import backends

CORE = Path(spikeloss_xp.__file__).parent
BACKENDS = Path(backends.__file__).parent


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name of every module, without `spikeloss_xp.`, and its path."""
    for root, package in ((CORE, ""), (BACKENDS, "backends.")):
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root).with_suffix("").parts
            yield (package + ".".join(inside)).removesuffix("__init__").removesuffix("."), path


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules()}
FRAMEWORKS = {
    *("array_api_strict", "cupy", "dask", "dpctl", "dpnp", "jax", "jaxlib", "keras", "mlx"),
    *("ndonnx", "paddle", "tensorflow", "torch"),
}

# Modules and folders: each imports only from lines below its own.
DIRECTION = (
    {"__main__"},
    {"cli"},
    {"slayer", "torch", ""},
    {"diagnosis"},
    {"times"},
    {"_activity", "distances", "losses", "testing"},
    {"criteria", "filters", "gradients", "readouts", "softmax"},
    {"_input", "_runs", "_spike_pairs", "binning"},
    {"_arrays"},  # finds the adapter of an array; nothing else knows one
    {"backends"},
    {"primitives"},
    {"_checks"},
    {"_tolerance", "_tuning", "_typing"},
)
RANK = {name: rank for rank, names in enumerate(DIRECTION) for name in names}


def imports(tree: ast.AST) -> Iterator[str]:
    """Yield the full names of imported objects, also of those for types or inside functions."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            yield from imports(node)


def test_framework_is_imported_by_its_adapter_only():
    for name, tree in TREES.items():
        folder, _, module = name.partition(".")
        allowed = {"torch"} if folder in ("slayer", "torch") else set()
        if folder == "backends":
            adapter = module.removeprefix("_").partition("_")[0]  # _torch_filters is a part of one
            allowed = {adapter, "dpctl"} if adapter == "dpnp" else {adapter}
        imported = {found.partition(".")[0] for found in imports(tree)}
        assert imported & FRAMEWORKS <= allowed, name


def test_imports_between_folders_go_one_way():
    for name, tree in TREES.items():
        folder = name.partition(".")[0]
        assert folder in RANK, f"give {name} its place in DIRECTION"
        for found in imports(tree):
            package, _, inside = found.partition(".")
            if package == "spikeloss_xp":
                need = inside if inside in TREES else inside.rpartition(".")[0]
                need = need.partition(".")[0]
                assert need == folder or RANK[need] > RANK[folder], (name, found)


def test_modules_import_one_another_in_no_circle():
    own = {
        name: {
            inside if inside in TREES else inside.rpartition(".")[0]
            for package, _, inside in (found.partition(".") for found in imports(tree))
            if package == "spikeloss_xp"
        }
        for name, tree in TREES.items()
    }
    packages = {name.rpartition(".")[0] for name in TREES}  # they import the modules in them
    graph = {name: found - packages for name, found in own.items() if name not in packages}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) > 50


def test_module_state_is_only_caches():
    """A table of constants is in capitals."""
    for name in TREES:
        with contextlib.suppress(ModuleNotFoundError):  # of a library that is not installed
            importlib.import_module(f"spikeloss_xp.{name}".removesuffix("."))
    state = {
        f"{name}.{variable}"
        for name, module in sys.modules.items()
        if name.startswith("spikeloss_xp")
        for variable, value in vars(module).items()
        if isinstance(value, dict | list | set) and not variable.startswith("__")
        if not variable.isupper()
    }
    assert state == {"spikeloss_xp._arrays._adapters", "spikeloss_xp.backends._available._loaded"}


def test_function_fits_on_a_screen():
    """A body has at most 40 lines; numpydoc is read apart from it."""
    for name, tree in TREES.items():
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)):
            lines = function.end_lineno - function.lineno + 1
            documentation = ast.get_docstring(function, clean=False) or ""
            assert lines - len(documentation.splitlines()) <= 40, (name, function.name)
