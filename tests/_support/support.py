"""The record of supported libraries and transforms, each with the tests that verify it.

``python tools/write_pages.py`` writes the tables of docs/support.md, docs/install.md and the README
from it. The tests run on the versions of pyproject.toml and of .ci/constraints.txt.
"""

import re
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from _support import gpu
from _support.pages import DOCS, ROOT, table, with_tables

EVERY_CHANGE = "on every change"


@dataclass(frozen=True)
class Library:
    """An array library."""

    what: str
    gradient: str
    tests: tuple[str, ...]
    """Its names in `_support.backends.BACKENDS`, or its tests; empty if it needs a GPU."""
    tested: str = EVERY_CHANGE

    @property
    def row(self) -> tuple[str, ...]:
        return (self.what, "yes", self.gradient, self.tested)


@dataclass(frozen=True)
class Transform:
    """A transform of a framework that is applied to losses."""

    what: str
    works: str
    where: str
    tests: tuple[str, ...]

    @property
    def row(self) -> tuple[str, ...]:
        return (self.what, self.works, self.where)


LIBRARIES = (
    Library("NumPy", "closed forms", ("numpy",)),
    Library("PyTorch, CPU", "its autograd", ("torch",)),
    Library("JAX, CPU, 32 and 64 bits", "its autodiff", ("jax", "jax-x64")),
    Library(
        "Dask, lazily, block by block",
        "closed forms",
        (
            "backends/test_dask.py::test_value_and_gradient_equal_numpy",
            "backends/test_dask.py::test_chunks_of_time_equal_numpy",
            "tools/test_dask_memory.py::test_workers_need_memory_for_a_few_chunks",
        ),
    ),
    Library(
        "array-api-strict",
        "closed forms",
        ("array-api-strict", "array-api-strict-device1"),
        f"{EVERY_CHANGE}, at its strictest",
    ),
    Library(
        "dpnp, on a CPU",
        "closed forms",
        ("dpnp",),
        f"{EVERY_CHANGE}, on the CPU as an OpenCL device of intel-opencl-rt",
    ),
    Library("MLX, on a CPU, 32 bits", "its autodiff", ("mlx",)),
    Library(
        "ndonnx, for ONNX files",
        "closed forms",
        ("backends/test_onnx.py::test_value_gradient_and_prediction_of_any_batch_equal_numpy",),
    ),
    Library("CuPy", "closed forms", (), gpu.cell("CuPy")),
    Library("PyTorch on a GPU", "as on the CPU", (), gpu.cell("PyTorch on a GPU")),
    Library("JAX on a GPU", "as on the CPU", (), gpu.cell("JAX on a GPU")),
    Library(
        "any other library that conforms to the standard",
        "closed forms",
        ("array-api-strict",),
        "array-api-strict stands in for it",
    ),
)

TORCH_PREFIX = "transforms/test_torch.py::test_"
PYTORCH = (
    Transform(
        "`backward`, `gradcheck`, `gradgradcheck`", "yes", "CPU",
        ("gradcheck_passes", "gradgradcheck_passes"),
    ),
    Transform(
        "`torch.func.grad`, `vmap`, `vmap(grad)`, `jvp`, `jacrev`, `jacfwd`, `hessian`",
        "yes", "CPU",
        (
            "grad_equals_closed_form",
            "vmap_equals_loop",
            "vmap_of_grad_equals_closed_form",
            "jvp_equals_gradient_times_tangent",
            "jacobian_equals_closed_form",
            "hessian_is_finite_and_symmetric",
        ),
    ),
    Transform(
        "`torch.compile(loss, fullgraph=True)` and its backward, by inductor", "yes", "CPU",
        ("compiled_loss_and_backward_equal_eager",),
    ),
    Transform(
        "the same for durations that change",
        "yes; at most three compilations, or with a latency one for each duration", "CPU",
        ("compile_count_for_many_durations_is_at_most_three",),
    ),
    Transform(
        "`torch.func.grad` and `jvp` inside `torch.compile`", "yes", "CPU",
        ("compiled_grad_and_jvp_equal_eager",),
    ),
    Transform(
        "`torch.utils.checkpoint`", "yes", "CPU",
        ("checkpoint_gradient_equals_closed_form",),
    ),
    Transform(
        "`torch.export`, for a fixed size and for batches of any size", "yes", "CPU",
        (
            "export_equals_eager_without_custom_operators",
            "export_with_dynamic_batch_equals_eager",
        ),
    ),
    Transform(
        "autocast with bfloat16 and float16", "yes; computed and returned in float32",
        f"CPU; CUDA {gpu.cell('autocast on CUDA')}",
        ("autocast_computes_in_float32",),
    ),
    Transform(
        "`torch.set_float32_matmul_precision`, for filters and distances",
        "yes; their products keep the digits of float32, in float64 if TF32 is allowed",
        "CPU, with factors rounded as on an Ampere GPU",
        (
            "transforms/test_modes.py::test_tf32_reaches_no_filter_and_no_distance",
            "transforms/test_modes.py::test_change_of_the_precision_of_products_compiles_anew",
        ),
    ),
    Transform(
        "compiled or exported, as the first call of a process", "yes", "CPU",
        ("transforms/test_modes.py::test_first_call_of_a_process_may_be_compiled_or_exported",),
    ),
    Transform(
        "`meta` and fake tensors, for shapes", "yes", "",
        ("meta_and_fake_tensors_give_the_shape",),
    ),
    Transform(
        "`DTensor`, replicated or sharded by sample, over 2 processes",
        "yes; only the sum and the weight are communicated", "CPU, gloo",
        ("processes/test_torch_processes.py::test_distributed_tensor_equals_one_process",),
    ),
    Transform(
        "tensors that require grad, in `value_and_grad`", "yes; their `grad` is not changed", "CPU",
        ("value_and_grad_leaves_tensors_that_require_grad_unchanged",),
    ),
    Transform(
        "`where`, `lengths`, `weight` and the options, under `grad`, `vmap(grad)`, `jacfwd`, "
        "`hessian` and `torch.compile(fullgraph=True)`",
        "yes", "CPU",
        ("options_work_under_transforms",),
    ),
)  # fmt: skip

JAX_PREFIX = "transforms/test_jax.py::test_"
JAX = (
    Transform(
        "`jit` of the loss itself, and with the loss as a static argument", "yes",
        "CPU, 32 and 64 bits",
        ("jit_of_loss_and_gradient_equals_eager", "jit_with_static_loss_traces_once"),
    ),
    Transform(
        "`grad`, `vmap(grad)`, `jvp`, `linearize`, `hessian`", "yes", "CPU, 32 and 64 bits",
        (
            "grad_equals_closed_form",
            "vmap_of_grad_equals_closed_form",
            "jvp_and_linearize_equal_gradient_times_tangent",
            "hessian_is_finite_and_symmetric",
        ),
    ),
    Transform(
        "`checkpoint`", "yes", "CPU, 32 and 64 bits",
        ("checkpoint_gradient_equals_closed_form",),
    ),
    Transform(
        "`jax.export`, for batches of any size", "yes", "CPU, 32 and 64 bits",
        ("export_with_symbolic_batch_equals_eager",),
    ),
    Transform(
        "`jax.export` on a CPU for CUDA, TPU and ROCm",
        "yes; without the loops that are for CPUs", "the programs, which did not run",
        ("export_from_a_cpu_loops_on_cpus_only",),
    ),
    Transform(
        "`jax_numpy_rank_promotion=\"raise\"`", "yes", "CPU, 32 and 64 bits",
        ("transforms/test_modes.py::test_jax_may_forbid_to_promote_ranks",),
    ),
    Transform(
        "`where`, `lengths`, `weight` and the options, under `jit` of `grad`, `jacfwd` and "
        "`hessian`",
        "yes", "CPU, 32 and 64 bits",
        ("options_work_under_transforms",),
    ),
    Transform(
        "`jit` with spikes or labels on a mesh of one device, with explicit axes", "yes", "CPU",
        ("mesh_of_one_device_equals_no_mesh",),
    ),
    Transform(
        "`jit` with the batch sharded over 2 and 4 devices, axes automatic or explicit",
        "yes; one scalar sum crosses devices, and no spikes", "virtual CPU devices",
        ("sharded_batch_stays_sharded",),
    ),
    Transform(
        "the same with `where`, `lengths` and `weight`", "yes; only sums cross devices",
        "4 virtual CPU devices",
        ("sharded_batch_stays_sharded",),
    ),
    Transform(
        "`shard_map` over the batch", "yes", "virtual CPU devices",
        ("sharded_batch_stays_sharded",),
    ),
    Transform(
        "labels on another device than the spikes",
        "yes; moved to the device or mesh of the spikes", "virtual CPU devices",
        ("sharded_batch_stays_sharded",),
    ),
)  # fmt: skip

MLX_PREFIX = "transforms/test_mlx.py::test_"
MLX = (
    Transform(
        "`grad`, `value_and_grad`, `checkpoint`", "yes", "CPU",
        ("grad_and_value_and_grad_equal_closed_form",),
    ),
    Transform(
        "`compile` of the loss, of `grad` and of `value_and_grad`",
        "yes, for each shape; not with `shapeless=True`", "CPU",
        (
            "grad_and_value_and_grad_equal_closed_form",
            "shapeless_compilation_and_export_raise",
        ),
    ),
    Transform(
        "`vmap(value_and_grad)`", "yes", "CPU", ("vmap_of_value_and_grad_equals_loop",)
    ),
    Transform(
        "`jvp`, and second derivatives by `jvp` and `vjp` of `grad`", "yes", "CPU",
        (
            "jvp_equals_gradient_times_tangent",
            "second_derivatives_are_finite_and_symmetric",
        ),
    ),
    Transform(
        "`where`, `lengths`, `weight` and the options, under `value_and_grad`, `compile` and "
        "second derivatives",
        "yes", "CPU",
        ("options_work_under_transforms",),
    ),
    Transform(
        "`export_function`", "no: MLX cannot save the custom gradient of a selection", "CPU",
        ("shapeless_compilation_and_export_raise",),
    ),
)  # fmt: skip


def tests() -> Iterable[str]:
    """Yield each test of the record as FILE::FUNCTION."""
    for library in LIBRARIES:
        yield from (test for test in library.tests if "::" in test)
    for prefix, transforms in ((TORCH_PREFIX, PYTORCH), (JAX_PREFIX, JAX), (MLX_PREFIX, MLX)):
        for test in (test for transform in transforms for test in transform.tests):
            yield test if "::" in test else prefix + test


def libraries() -> str:
    header = ("array library", "value", "gradient", "tested")
    return table(header, (library.row for library in LIBRARIES))


def _transforms(transforms: Iterable[Transform]) -> str:
    return table(("transform", "works", "tested on"), (t.row for t in transforms))


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
    "zarr": "Zarr, for `spikeloss-xp evaluate`",
}  # fmt: skip


def versions() -> str:
    lowest, newest = _lowest(), _newest()
    rows = []
    for package, name in VERSIONS.items():
        version, extra = lowest[package]
        tested = newest.get(package) or gpu.cell(name, version=True)
        rows.append((name, version, tested, f"`{extra}`" if extra not in ("", "test") else ""))
    return table(("package", "lowest", "newest tested", "extra"), rows)


TABLES = {  # of each page, by section
    DOCS / "support.md": {
        "## Array libraries": libraries,
        "## Versions": versions,
        "### PyTorch": lambda: _transforms(PYTORCH),
        "### JAX": lambda: _transforms(JAX),
        "### MLX": lambda: _transforms(MLX),
    },
    DOCS / "install.md": {"## Versions": versions},
    ROOT / "README.md": {"## What works where": libraries},
}


def page(path: Path) -> str:
    """Return the text of one of these pages with its tables replaced."""
    tables = {heading: [make()] for heading, make in TABLES[path].items()}
    return with_tables(path.read_text(encoding="utf-8"), tables)
