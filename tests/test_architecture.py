"""The structure that the code keeps to, read from the source: nothing is imported for it."""

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

import spikeloss_xp
from spikeloss_xp import backends
from spikeloss_xp.backends import Adapter

CORE = Path(spikeloss_xp.__file__).parent
BACKENDS = Path(backends.__file__).parent


def modules() -> Iterator[tuple[str, Path]]:
    """Name every module, less the `spikeloss_xp.` in front; a package has its own name."""
    for root, package in ((CORE, ""), (BACKENDS, "backends.")):
        for path in sorted(root.rglob("*.py")):
            inside = path.relative_to(root)
            if root == CORE and inside.parts[0] in ("backends", "data"):
                continue  # where an installation has the adapters; scripts that made the data
            name = ".".join(part for part in inside.with_suffix("").parts if part != "__init__")
            yield (package + name).removesuffix("."), path


TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in modules()}
LINES = {name: len(path.read_text(encoding="utf-8").splitlines()) for name, path in modules()}
ADAPTERS = {f"backends._{library}" for library in ("cupy", "dask", "jax", "numpy", "torch")}
FILTERS = {"backends._torch_filters"}  # of an adapter that would be too long with them
MATHEMATICS = {"_plain", "_layout", "readouts", "criteria", "classifiers", "gradients"} | {
    name for name in TREES if name.partition(".")[0] == "losses"
}

# Each module imports only from layers above its own in this list.
LAYERS = (
    {"_typing", "_checks"},
    {"_plain"},
    {"_kernels"},
    {"backends._protocol"},
    {"backends._available", "backends.generic"},
    {"_dispatch", "backends"},
    {"_arrays"},
    {"_layout", "filters"},
    {"_targets", "readouts", "criteria"},
    {"_masks", "losses._reduction"},
    {"losses._parts"},
    {"losses._loss"},
    {"losses._rate_loss"},
    {name for name in TREES if name.startswith("losses.") and not name.startswith("losses._")},
    {"losses"},
    {"classifiers", "gradients"},
    {"slayer._fir"},
    {"slayer.classifier"},
    {"slayer.loss"},
    {"slayer"},
    {"_consistency"},
    {"testing"},
    {""},
    {"cli._recording", "cli._table", "cli._terminal"},
    {"cli._hyper", "cli._places", "cli._results", "cli._rows", "cli._zarr"},
    {"cli._source"},
    {"cli._task"},
    {"cli._compare", "cli._evaluate"},
    {"cli"},
    {"__main__"},
    FILTERS,
    ADAPTERS,  # last: nothing imports them, the registry loads the one that is asked for
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

# What handles values on the host: kernels and labels that come as NumPy arrays or sequences.
HOST = {"_arrays", "_consistency", "_kernels", "_targets", "filters", "testing"}

FRAMEWORKS = ("cupy", "dask", "jax", "keras", "mlx", "ndonnx", "paddle", "tensorflow")
FRAMEWORKS += ("api_strict", "torch")


def imports(tree: ast.AST, *, deep: bool = True) -> Iterator[str]:
    """Yield the full names of what is imported; inside functions too, if `deep`."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            yield from (f"{source}.{alias.name}" for alias in node.names)
        elif deep or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from imports(node, deep=deep)


def own(name: str) -> str | None:
    """Return which module of this library an imported name is, or is in."""
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
    """Return the only framework that a module may name; `slayer` is made of PyTorch modules."""
    return (
        "torch"
        if name.partition(".")[0] == "slayer"
        else name.removeprefix("backends._").removesuffix("_filters")
    )


core = pytest.mark.parametrize("name", [n for n in TREES if n.partition(".")[0] != "backends"])
every = pytest.mark.parametrize("name", TREES)


@core
def test_the_core_names_no_framework(name):
    others = [framework for framework in FRAMEWORKS if framework != may_name(name)]
    named = {w for w in words(TREES[name]) if any(framework in w.lower() for framework in others)}
    assert named == set()


@pytest.mark.parametrize("name", sorted(MATHEMATICS))
def test_the_mathematics_names_no_array_library(name):
    named = {w for w in words(TREES[name]) if w == "np" or "numpy" in w.lower()}
    assert named == set()
    assert "array_api_compat" not in top_level_packages(TREES[name])


@pytest.mark.parametrize(
    ("package", "users"), {"numpy": HOST, "array_api_compat": {"_dispatch"}}.items()
)
def test_what_knows_of_the_host_and_of_namespaces_is_known(package, users):
    found = {name for name, tree in TREES.items() if package in top_level_packages(tree)}
    # The command reads files, so all of it is on the host.
    assert {name for name in found if name.partition(".")[0] not in ("backends", "cli")} == users


@every
def test_a_framework_is_imported_by_its_adapter_only(name):
    found = top_level_packages(TREES[name]) & {*FRAMEWORKS, "array_api_strict", "jaxlib"}
    assert found <= {may_name(name)}


@every
def test_imports_are_absolute(name):
    assert [found for found in imports(TREES[name]) if found.startswith(".")] == []


@every
def test_imports_go_one_way(name):
    assert name in RANK, "give a new module its place in LAYERS"
    needs = {own(found) for found in imports(TREES[name], deep=False)} - {None}
    assert {need for need in needs if RANK[need] >= RANK[name]} == set()


def test_layers_hold_no_module_that_is_gone():
    assert set(RANK) == set(TREES)


@pytest.mark.parametrize("name", sorted(ADAPTERS | FILTERS))
def test_adapters_stand_on_little_and_not_on_each_other(name):
    needs = {own(found) for found in imports(TREES[name])} - {None}
    assert needs <= {"_kernels", "_plain", "_typing", "backends.generic", f"{name}_filters"}


@core
def test_adapters_are_reached_through_the_registry_only(name):
    needs = {own(found) for found in imports(TREES[name])} - {None}
    assert needs & (ADAPTERS | FILTERS | {"backends.generic"}) == set()


MUTABLE = (ast.List, ast.Dict, ast.Set, ast.ListComp, ast.DictComp, ast.SetComp)
MUTABLE_TYPES = {"Counter", "OrderedDict", "defaultdict", "deque", "dict", "list", "set"}
MUTATORS = {"add", "append", "clear", "extend", "insert", "pop", "popitem", "setdefault", "update"}


def containers(tree: ast.Module) -> set[str]:
    """Name the module-level variables, and those of classes, that hold a mutable container."""
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
    """Name what is changed in place, by a subscript or a method."""
    found = set()
    for node in ast.walk(tree):
        stored = isinstance(node, ast.Subscript) and not isinstance(node.ctx, ast.Load)
        if stored or (isinstance(node, ast.Attribute) and node.attr in MUTATORS):
            found.add(ast.unparse(node.value))
    return found


@every
def test_there_is_no_state_but_caches(name):
    # A table of constants is in capitals and stays as it is.
    state = containers(TREES[name])
    kept = {variable for variable in state if not variable.isupper()} | state & written(TREES[name])
    caches = {"backends._available": {"_loaded"}, "_dispatch": {"_namespaces", "_adapters"}}
    assert kept == caches.get(name, set())
    caches = {w for w in words(TREES[name]) if w in ("cache", "lru_cache", "cached_property")}
    assert caches == ({"lru_cache"} if name == "_kernels" else set())  # bounded, of host arrays
    assert not any(isinstance(node, ast.Global) for node in ast.walk(TREES[name]))


PROTOCOL = {
    name: list(inspect.signature(member).parameters)[1:]  # without `self`
    for name, member in vars(Adapter).items()
    if inspect.isfunction(member) and not name.startswith("_")
} | dict.fromkeys(inspect.get_annotations(Adapter))


AROUND = FILTERS | {"backends.generic"}  # what an adapter may take over from


def provided(name: str) -> dict[str, list[str] | None]:
    """Return what an adapter defines or takes over, and with which parameters, if it says so."""
    found: dict[str, list[str] | None] = {}
    for node in TREES[name].body:
        if isinstance(node, ast.FunctionDef):
            arguments = node.args
            assert not arguments.kwonlyargs, f"{node.name} is called by position"
            found[node.name] = [a.arg for a in (*arguments.posonlyargs, *arguments.args)]
        elif isinstance(node, ast.Assign):
            found |= {ast.unparse(target): None for target in node.targets}
        elif isinstance(node, ast.ImportFrom) and own(node.module or "") in AROUND:
            theirs = provided(own(node.module or ""))
            found |= {alias.name: theirs[alias.name] for alias in node.names}
    return found


# From the source, so that the adapter of a library that is not installed is held to it as well.
@pytest.mark.parametrize("name", sorted(ADAPTERS | {"backends.generic"}))
def test_an_adapter_provides_the_protocol(name):
    found = provided(name)
    assert set(PROTOCOL) - set(found) == set()
    wrong = {
        member: found[member]
        for member, parameters in PROTOCOL.items()
        if parameters is not None and found[member] != parameters
    }
    assert wrong == {}


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_an_adapter_exports_the_protocol(name):
    (exported,) = (
        ast.literal_eval(node.value)
        for node in TREES[name].body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    assert exported == sorted(PROTOCOL)


@every
def test_a_module_holds_one_idea(name):
    assert LINES[name] <= 300


@every
def test_a_function_fits_on_a_screen(name):
    # A public function has some 40 lines of numpydoc, which nobody reads together with its body:
    # the body gets half a screen, and both together no more than a tall one.
    for function in functions(TREES[name]):
        whole = function.end_lineno - function.lineno + 1
        documentation = ast.get_docstring(function, clean=False) or ""
        assert whole <= 75, function.name
        assert whole - len(documentation.splitlines()) <= 40, function.name
