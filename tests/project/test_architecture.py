"""The structure of the code, read from its source without importing it."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import sizes

import spikeloss_xp
from spikeloss_xp import backends
from spikeloss_xp.backends import ArrayAPIAdapter

CORE = Path(spikeloss_xp.__file__).parent
BACKENDS = Path(backends.__file__).parent


def modules() -> Iterator[tuple[str, Path]]:
    """Yield the name of every module, without `spikeloss_xp.`, and its path."""
    for root, package in ((CORE, ""), (BACKENDS, "backends.")):
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if root == CORE and inside.parts[0] == "backends":
                continue  # an installation has the adapters there
            name = ".".join(part for part in inside.with_suffix("").parts if part != "__init__")
            yield (package + name).removesuffix("."), path


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules()}
LIBRARIES = ("cupy", "dask", "dpnp", "jax", "mlx", "ndonnx", "numpy", "torch")
ADAPTERS = {f"backends._{library}" for library in LIBRARIES}
PARTS = {  # of adapters that have several modules
    "backends._torch_distributed",
    "backends._torch_filters",
    "backends._torch_state",
}
MODULES = {"backends.torch"}  # modules of PyTorch for users, which no array needs
MATHEMATICS = {name for name in TREES if name.partition(".")[0] in ("distances", "losses", "times")}
MATHEMATICS |= {"_spike_pairs", "classifiers", "criteria", "gradients", "readouts"}
MATHEMATICS |= {"primitives.block_filter", "primitives.survival"}

# Modules and folders: each imports only from lines below its own. docs/architecture.md says why.
DIRECTION = (
    {"__main__"},
    {"cli", "slayer", ""},
    {"times"},
    {"classifiers", "distances", "losses", "testing"},
    {"criteria", "filters", "gradients", "predictions", "readouts"},
    {"_input", "_spike_pairs", "binning"},
    {"_arrays"},  # finds the adapter of an array; nothing else knows one
    {"backends"},
    {"primitives"},
    {"_checks", "_tuning", "_typing"},
)
RANK = {name: rank for rank, names in enumerate(DIRECTION) for name in names}

# Modules that handle host values: kernels, labels that come as NumPy arrays or sequences, and the
# subclasses of NumPy arrays that are refused.
HOST = {
    *("_arrays", "_input.labels", "_typing", "filters", "primitives.kernels", "slayer.loss"),
    *("binning", "testing"),
}

FRAMEWORKS = ("cupy", "dask", "dpnp", "jax", "keras", "mlx", "ndonnx", "paddle", "tensorflow")
FRAMEWORKS += ("api_strict", "torch")


def imports(tree: ast.AST, *, deep: bool = True) -> Iterator[str]:
    """Yield the full names of imported objects; those of functions too, if `deep`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue  # nothing that runs
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, deep=deep)


def own(name: str) -> str | None:
    """Return the module of this library that an imported name is, or belongs to."""
    if name.partition(".")[0] != "spikeloss_xp":
        return None
    inside = name.removeprefix("spikeloss_xp").removeprefix(".")
    return inside if inside in TREES else inside.rpartition(".")[0]


def docstrings(tree: ast.AST) -> set[int]:
    """Return the ids of the nodes that are docstrings: strings that are statements."""
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.Expr))
    return {id(node.value) for node in statements}


def words(tree: ast.AST) -> Iterator[str]:
    """Yield every identifier, and every string constant that is not a docstring."""
    skipped = docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) not in skipped:
                yield node.value
            continue
        for field in ("id", "attr", "name", "asname", "arg", "module"):
            if isinstance(word := getattr(node, field, None), str):
                yield word


def top_level_packages(tree: ast.AST) -> set[str]:
    return {name.partition(".")[0] for name in imports(tree)}


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def may_name(name: str) -> str:
    """Return the only framework that a module may name; PyTorch in all that holds its modules."""
    if name.partition(".")[0] == "slayer" or name in MODULES:
        return "torch"
    library = name.removeprefix("backends._")
    return library.partition("_")[0] if name in PARTS else library


core = pytest.mark.parametrize("name", [n for n in TREES if n.partition(".")[0] != "backends"])
every = pytest.mark.parametrize("name", TREES)


@core
def test_core_names_no_framework(name):
    others = [framework for framework in FRAMEWORKS if framework != may_name(name)]
    named = {w for w in words(TREES[name]) if any(framework in w.lower() for framework in others)}
    assert named == set()


@pytest.mark.parametrize("name", sorted(MATHEMATICS))
def test_mathematics_names_no_array_library(name):
    named = {w for w in words(TREES[name]) if w == "np" or "numpy" in w.lower()}
    assert named == set()
    assert "array_api_compat" not in top_level_packages(TREES[name])


@pytest.mark.parametrize(
    ("package", "users"), {"numpy": HOST, "array_api_compat": {"_arrays"}}.items()
)
def test_numpy_and_namespaces_are_imported_by_listed_modules_only(package, users):
    found = {name for name, tree in TREES.items() if package in top_level_packages(tree)}
    # The command reads files, so all of it is on the host.
    assert {name for name in found if name.partition(".")[0] not in ("backends", "cli")} == users


@every
def test_framework_is_imported_by_its_adapter_only(name):
    found = top_level_packages(TREES[name]) & {*FRAMEWORKS, "array_api_strict", "jaxlib"}
    assert found <= {may_name(name)}


@every
def test_imports_are_absolute(name):
    assert [found for found in imports(TREES[name]) if found.startswith(".")] == []


@every
def test_imports_between_folders_go_one_way(name):
    folder = name.partition(".")[0]
    assert folder in RANK, "give a new module or folder its place in DIRECTION"
    needs = {own(found) for found in imports(TREES[name], deep=False)} - {None}
    folders = {need.partition(".")[0] for need in needs} - {folder}
    assert {need for need in folders if RANK[need] <= RANK[folder]} == set()


@pytest.mark.parametrize("name", sorted(ADAPTERS | PARTS))
def test_adapters_import_only_the_base_and_the_filters(name):
    needs = {own(found) for found in imports(TREES[name])} - {None}
    allowed = {found for found in TREES if found.startswith("primitives")}
    allowed |= {"_tuning", "_typing", "backends", "backends.base"}
    library = name.removeprefix("backends._").partition("_")[0]
    own_parts = {part for part in PARTS if part.startswith(f"backends._{library}_")}
    assert needs <= allowed | own_parts


@core
def test_adapters_are_reached_through_the_registry_only(name):
    needs = {own(found) for found in imports(TREES[name])} - {None}
    assert needs & (ADAPTERS | PARTS | MODULES) == set()


@every
def test_private_functions_of_pytorch_are_in_one_module(name):
    private = [
        ast.unparse(node)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and ast.unparse(node.value).startswith("torch")
    ]
    assert bool(private) == (name == "backends._torch_state"), private


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = {"Counter", "OrderedDict", "defaultdict", "deque", "dict", "list", "set"}
MUTATORS = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "setdefault", "update"}


def containers(tree: ast.Module) -> set[str]:
    """Return the variables of modules and classes that hold a mutable container."""
    bodies = [tree.body, *(c.body for c in ast.walk(tree) if isinstance(c, ast.ClassDef))]
    found = set()
    for statement in (statement for body in bodies for statement in body):
        if not isinstance(statement, ast.Assign | ast.AnnAssign | ast.AugAssign):
            continue
        value = statement.value
        made = isinstance(value, ast.Call) and getattr(value.func, "id", "") in MUTABLE_TYPES
        if made or isinstance(value, MUTABLE):
            targets = getattr(statement, "targets", None) or [statement.target]
            found |= {ast.unparse(target) for target in targets}
    return found - {"__all__"}


def written(tree: ast.Module) -> set[str]:
    """Return the names of variables that are changed in place, by a subscript or a method."""
    found = set()
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if stored or (isinstance(node, ast.Attribute) and node.attr in MUTATORS):
            found.add(ast.unparse(node.value))
    return found


@every
def test_module_state_is_only_caches(name):
    # A table of constants is in capitals, and is not written.
    state = containers(TREES[name])
    kept = {variable for variable in state if not variable.isupper()} | state & written(TREES[name])
    caches = {
        "_arrays": {"_adapters"},
        "primitives.kernels": {"_cached"},  # the sizes of the cached matrices
        "backends._available": {"_loaded"},
    }
    assert kept == caches.get(name, set())
    caches = {w for w in words(TREES[name]) if w in ("cache", "lru_cache", "cached_property")}
    assert caches == (
        {"lru_cache"} if name == "primitives.kernels" else set()
    )  # bounded, of host arrays
    assert not any(isinstance(node, ast.Global) for node in ast.walk(TREES[name]))


def test_private_methods_of_a_loss_are_abstract_or_final():
    assert sizes.overridden() == ["_score"]


BASE = {
    name: list(inspect.signature(member).parameters)
    for name, member in vars(ArrayAPIAdapter).items()
    if inspect.isfunction(member) and not name.startswith("_")
}


def methods(name: str) -> Iterator[ast.FunctionDef]:
    """Yield the methods of the adapter classes of a module."""
    for node in TREES[name].body:
        bases = {ast.unparse(base) for base in getattr(node, "bases", ())}
        if bases & {"ArrayAPIAdapter", "TorchFilters"}:
            yield from (item for item in node.body if isinstance(item, ast.FunctionDef))


# From the source, so that the adapter of a library that is not installed is checked as well.
@pytest.mark.parametrize("name", sorted(ADAPTERS | {"backends._torch_filters"}))
def test_adapter_methods_have_the_signature_of_the_base_class(name):
    found = {method.name: method.args for method in methods(name)}
    assert found, "there is an adapter class"
    for method, arguments in found.items():
        if method in BASE:
            names = [*arguments.posonlyargs, *arguments.args, arguments.vararg]
            names += [*arguments.kwonlyargs, arguments.kwarg]
            assert [argument.arg for argument in names if argument] == BASE[method], method


@every
def test_function_fits_on_a_screen(name):
    # A public function has up to 40 lines of numpydoc, which is read apart from its body: the body
    # has at most half a screen, and both together a tall one.
    for function in functions(TREES[name]):
        whole = function.end_lineno - function.lineno + 1
        documentation = ast.get_docstring(function, clean=False) or ""
        assert whole <= 75, function.name
        assert whole - len(documentation.splitlines()) <= 40, function.name
