"""The record of supported libraries and transforms, each with the tests that verify it.

``python tools/write_pages.py`` writes the tables of docs/support.md and docs/install.md from it,
and the findings of `diagnose` in docs/guides/findings.md from the texts of the library.
The tests run on the versions of pyproject.toml and of .ci/constraints.txt.
"""

import itertools
import re
import textwrap
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _support import gpu
from _support.pages import DOCS, ROOT, table, with_tables
from spikeloss_xp.diagnosis._report import texts


@dataclass(frozen=True)
class Library:
    """An array library."""

    what: str
    tests: tuple[str, ...]
    """Its names in `_support.backends.BACKENDS`, or its tests; empty if it needs a GPU."""
    tested: str = "yes"


STRICT = ("array-api-strict", "array-api-strict-device1")
LIBRARIES = (
    Library("NumPy", ("numpy",)),
    Library("PyTorch, CPU", ("torch",)),
    Library("JAX, CPU, 32 and 64 bits", ("jax", "jax-x64")),
    Library(
        "Dask",
        (
            "backends/test_dask.py::test_value_and_gradient_equal_numpy",
            "tools/test_dask_memory.py::test_workers_need_memory_for_a_few_chunks",
        ),
    ),
    Library("dpnp", ("dpnp",), "yes, on a CPU"),
    Library("MLX, 32 bits", ("mlx",), "yes, on a CPU"),
    Library(
        "ndonnx, for ONNX files",
        ("backends/test_onnx.py::test_value_gradient_and_prediction_of_any_batch_equal_numpy",),
    ),
    Library(
        "cubed",
        ("backends/test_cubed.py::test_losses_of_whole_trains_equal_numpy",),
        "yes, [with an adapter for filters](contributing/adding-a-backend.md#an-example-cubed)",
    ),
    Library(
        "sparse arrays",
        (
            "contract/test_strange_arrays.py::test_input_that_is_no_plain_array_raises_with_a_remedy",
        ),
        "no: the error message names the method that converts them to dense arrays",
    ),
    *(Library(x, (), gpu.cell(x)) for x in ("CuPy", "PyTorch on a GPU", "JAX on a GPU")),
    Library(
        "others with array API standard 2024.12 or later", STRICT, "yes, with array-api-strict"
    ),
)

# Of each framework, transforms of losses, and the tests of each.
PYTORCH = {
    "`backward`, `gradcheck`, `gradgradcheck`, `torch.utils.checkpoint`, `torch.func.grad`, "
    "`vmap`, `vmap(grad)`, `jvp`, `jacrev`, `jacfwd`, `hessian`": (
        *("gradgradcheck_passes", "gradient_of_transform_equals_closed_form"),
        "options_work_under_transforms",
        "contract/test_gradients.py::test_hessian_matches_differences_of_the_gradient",
    ),
    "`torch.compile(fullgraph=True)` of a loss, its backward pass, `torch.func.grad` and `jvp`, if "
    "all arguments are tensors. Durations above 100 steps lead to at most three compilations, "
    "however many different durations there are. With a window or a filter, shorter trains may "
    "lead to more compilations, so pad these trains to a few durations": (
        "compiled_loss_and_backward_equal_eager",
        "compile_count_for_many_durations_is_at_most_three",
        "compiled_grad_and_jvp_equal_eager",
        "first_call_of_a_process_may_be_compiled_or_exported",
    ),
    "`torch.export` for batches of any size": (
        "export_of_any_batch_equals_eager_without_custom_operators",
    ),
    f"autocast, within which losses compute in float32. On CUDA: {gpu.cell('autocast on CUDA')}": (
        "autocast_computes_in_float32",
    ),
    "`torch.set_float32_matmul_precision`, which does not affect the precision of filters and "
    "distances": (
        "tf32_reaches_no_filter_and_no_distance",
        "other_precision_or_options_compile_anew",
    ),
    "`meta` and fake tensors, which give the shape of the result": (
        "backends/test_transfers.py::test_meta_and_fake_tensors_give_the_shape",
    ),
    "`DTensor`, if the array is replicated, or sharded by sample": (
        "processes/test_torch_processes.py::test_distributed_tensor_equals_one_process",
    ),
}
JAX = {
    "`jit`, `grad`, `vmap(grad)`, `jvp`, `linearize`, `hessian`, `checkpoint`. The loss may be a "
    "static argument of the `jit` function": (
        "jit_with_static_loss_traces_once_and_equals_numpy",
        *("grad_equals_closed_form", "options_work_under_transforms"),
    ),
    "`jax.export` for batches of any size. Functions are also exported for CUDA, TPUs and ROCm, "
    "but they have not been run there": (
        *("export_with_symbolic_batch_equals_numpy", "export_from_a_cpu_loops_on_cpus_only"),
    ),
    "a batch sharded over devices, under `jit` or `shard_map`. The devices exchange only sums": (
        "sharded_batch_stays_sharded",
        "processes/test_jax_devices.py::test_devices_equal_one_process",
    ),
}
MLX = {
    "`grad`, `value_and_grad`, `checkpoint`, `vmap(value_and_grad)`, `jvp`, and second "
    "derivatives as `jvp` and `vjp` of `grad`": (
        *("grad_and_value_and_grad_equal_closed_form", "options_work_under_transforms"),
        "derivatives_along_a_tangent_and_of_each_sample_equal_closed_form",
    ),
    "`compile` of these transforms, with a compilation for each shape. `shapeless=True` and "
    "`export_function` raise an error": (
        *("grad_and_value_and_grad_equal_closed_form", "shapeless_compilation_and_export_raise"),
    ),
}


def tests() -> Iterable[str]:
    """Yield each test of the record as FILE::FUNCTION."""
    for library in LIBRARIES:
        yield from (test for test in library.tests if "::" in test)
    for library, transforms in (("torch", PYTORCH), ("jax", JAX), ("mlx", MLX)):
        for test in itertools.chain(*transforms.values()):
            yield test if "::" in test else f"transforms/test_{library}.py::test_{test}"


def libraries() -> str:
    header = ("array library", "tested on every change")
    return table(header, ((x.what, x.tested) for x in LIBRARIES))


def _transforms(transforms: Iterable[str]) -> str:
    return table(("what works",), ((what,) for what in transforms))


def _lowest() -> dict[str, tuple[str, str]]:
    """Return the lowest version and the extra of each package, from pyproject.toml."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found = {"python": (project["requires-python"].removeprefix(">="), "")}
    extras = project["optional-dependencies"].items()
    for extra, requirements in (("", project["dependencies"]), *extras):
        for package, lowest in (re.findall(r"^([\w-]+).*>=([\d.]+)", r)[0] for r in requirements
                                if ">=" in r):  # fmt: skip
            found.setdefault(package, (lowest, extra))
    return found


def _newest() -> dict[str, str]:
    """Return the newest tested version of each package, from .ci/constraints.txt."""
    text = (ROOT / ".ci" / "constraints.txt").read_text(encoding="utf-8")
    found = dict(re.findall(r"^([\w-]+)==([\d.]+)$", text, flags=re.M))
    (found["python"],) = re.findall(r"on Python (\d+\.\d+)", text)
    return found


VERSIONS = {  # how the table names a package
    "python": "Python", "numpy": "NumPy", "array-api-compat": "array-api-compat",
    "torch": "PyTorch", "jax": "JAX", "cupy-cuda12x": "CuPy for CUDA 12",
    "cupy-cuda13x": "CuPy for CUDA 13", "dpnp": "dpnp", "mlx": "MLX", "dask": "Dask",
    "array-api-strict": "array-api-strict",
    "zarr": "Zarr",
}  # fmt: skip


def versions() -> str:
    lowest, newest = _lowest(), _newest()
    rows = []
    for package, name in VERSIONS.items():
        version, extra = lowest[package]
        tested = newest.get(package) or gpu.cell(name, version=True)
        rows.append((name, version, tested, f"`{extra}`" if extra not in ("", "test") else ""))
    return table(("package", "lowest", "newest tested", "extra"), rows)


def _with_code(text: str) -> str:
    """Return a text with its expressions as code, in which quotation marks stay straight."""
    expressions = r"""not-finite|\w+=(?:\([^)]*\)|"\w+"|[\w.~]*\w)|"\w+"|\w+\(\)|\w+_\w+"""
    expressions += r"|loss\(input, target\)|CrossEntropy|slayer\.published"
    return re.sub(expressions, lambda found: f"`{found[0]}`", text)


ON_THE_PAGE = {  # what the page says instead of words in a report
    "Use a wide surrogate, such as a fast sigmoid with slope 1 / threshold (5 / threshold in "
    "recurrent networks), and scale the layers, from first to last, to a firing rate of about 5 % "
    "with scale_network or scale_to_rate: see the guide Initialisation.": (
        "[Use a wide surrogate, and scale the layers](not-learning.md#start-from-here)."
    ),
    "see the guide Initialisation": "see [Initialisation](initialisation.md)",
    "the layout above": "the layout in the report",
}


def _of_page(text: str) -> str:
    for in_report, words in ON_THE_PAGE.items():
        text = text.replace(in_report, words)
    return text


def _in_lines(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def findings() -> str:
    """Return the sections about the findings of `diagnose`, each with its remedy in full."""
    sections = {
        "problem": ["## Problems", PROBLEMS],
        "cause": ["## Possible causes", CAUSES],
        "note": ["## Notes"],
    }
    for code, text in texts().items():
        remedies = " ".join((text["remedy"], *text.get("options", {}).values()))
        paragraphs = (_in_lines(_with_code(each)) for each in (text["why"], _of_page(remedies)))
        sections[text["severity"]] += [f"### `{code}`", *paragraphs]
    return "\n\n".join(itertools.chain(*sections.values())) + "\n"


PROBLEMS = "These findings make learning from the batch impossible, meaningless or very slow."
CAUSES = _in_lines(
    "Networks with these findings may learn, so the findings are usually notes. There are three "
    "cases in which they are problems: the network has hardly improved on the batch (`not-moved`), "
    "nothing connects a weight to the loss, or all gradients are below 1e-8, which is too small "
    "for Adam."
)
FINDINGS = DOCS / "guides" / "findings.md"
TABLES = {  # of each page, by section
    DOCS / "support.md": {
        "## Array libraries": libraries,
        "### PyTorch": lambda: _transforms(PYTORCH),
        "### JAX": lambda: _transforms(JAX),
        "### MLX": lambda: _transforms(MLX),
    },
    DOCS / "install.md": {"## Versions": versions},
}


def page(path: Path) -> str:
    """Return the text of one of these pages with its tables replaced."""
    tables = {heading: [make()] for heading, make in TABLES[path].items()}
    return with_tables(path.read_text(encoding="utf-8"), tables)


def page_of_findings(text: str) -> str:
    """Return the page of findings with everything after its introduction replaced."""
    introduction, _, _ = text.partition("## Problems\n")
    return introduction + findings()
