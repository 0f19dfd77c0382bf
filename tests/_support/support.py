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


CALL_OPTIONS = "`where`, `lengths`, `weight` and the options"


def _row(what: str, *tests: str, works: str = "yes", where: str = "CPU") -> Transform:
    return Transform(what, works, where, tests)


LIBRARIES = (
    Library("NumPy", "closed forms", ("numpy",)),
    Library("PyTorch, CPU", "its autograd", ("torch",)),
    Library("JAX, CPU, 32 and 64 bits", "its autodiff", ("jax", "jax-x64")),
    Library(
        "Dask, lazily, block by block",
        "closed forms",
        (
            "backends/test_dask.py::test_value_and_gradient_equal_numpy",
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
    _row("`backward`, `gradcheck`, `gradgradcheck`", "gradcheck_passes", "gradgradcheck_passes"),
    _row(
        "`torch.func.grad`, `vmap`, `vmap(grad)`, `jvp`, `jacrev`, `jacfwd`, `hessian`",
        *("gradient_of_transform_equals_closed_form", "vmap_equals_loop"),
        *("vmap_of_grad_equals_closed_form", "jvp_equals_gradient_times_tangent"),
        "contract/test_gradients.py::test_hessian_matches_differences_of_the_gradient",
    ),
    _row(
        "`torch.compile(loss, fullgraph=True)` and its backward, by inductor",
        "compiled_loss_and_backward_equal_eager",
    ),
    _row(
        "the same for durations that change",
        "compile_count_for_many_durations_is_at_most_three",
        works="yes; at most three compilations, or with a latency one for each duration",
    ),
    _row("`torch.func.grad` and `jvp` inside `torch.compile`", "compiled_grad_and_jvp_equal_eager"),
    _row("`torch.utils.checkpoint`", "gradient_of_transform_equals_closed_form"),
    _row(
        "`torch.export`, for a fixed size and for batches of any size",
        "export_of_any_batch_equals_eager_without_custom_operators",
    ),
    _row(
        "autocast with bfloat16 and float16",
        "autocast_computes_in_float32",
        works="yes; computed and returned in float32",
        where=f"CPU; CUDA {gpu.cell('autocast on CUDA')}",
    ),
    _row(
        "`torch.set_float32_matmul_precision`, for filters and distances",
        "tf32_reaches_no_filter_and_no_distance",
        "change_of_the_precision_of_products_compiles_anew",
        works="yes; their products keep the digits of float32, in float64 if TF32 is allowed",
        where="CPU, with factors rounded as on an Ampere GPU",
    ),
    _row(
        "compiled or exported, as the first call of a process",
        "first_call_of_a_process_may_be_compiled_or_exported",
    ),
    _row(
        "`meta` and fake tensors, for shapes",
        "backends/test_transfers.py::test_meta_and_fake_tensors_give_the_shape",
        where="",
    ),
    _row(
        "`DTensor`, replicated or sharded by sample, over 2 processes",
        "processes/test_torch_processes.py::test_distributed_tensor_equals_one_process",
        works="yes; only the sum and the weight are communicated",
        where="CPU, gloo",
    ),
    _row(
        "tensors that require grad, in `value_and_grad`",
        "value_and_grad_leaves_tensors_that_require_grad_unchanged",
        works="yes; their `grad` is not changed",
    ),
    _row(
        f"{CALL_OPTIONS}, under `grad`, `vmap(grad)`, `jacfwd`, `hessian` and "
        "`torch.compile(fullgraph=True)`",
        "options_work_under_transforms",
    ),
)

JAX_PREFIX = "transforms/test_jax.py::test_"
BITS, DEVICES = "CPU, 32 and 64 bits", "virtual CPU devices"
SHARDED = "sharded_batch_stays_sharded"
ON_DEVICES = "processes/test_jax_devices.py::test_devices_equal_one_process"
JAX = (
    _row(
        "`jit` of the loss itself, and with the loss as a static argument",
        *("jit_of_loss_and_gradient_equals_eager", "jit_with_static_loss_traces_once"),
        where=BITS,
    ),
    _row(
        "`grad`, `vmap(grad)`, `jvp`, `linearize`, `hessian`",
        *("grad_equals_closed_form", "vmap_of_grad_equals_closed_form"),
        *("jvp_and_linearize_equal_gradient_times_tangent", "hessian_is_finite_and_symmetric"),
        where=BITS,
    ),
    _row("`checkpoint`", "grad_equals_closed_form", where=BITS),
    _row(
        "`jax.export`, for batches of any size",
        "export_with_symbolic_batch_equals_eager",
        where=BITS,
    ),
    _row(
        "`jax.export` on a CPU for CUDA, TPU and ROCm",
        "export_from_a_cpu_loops_on_cpus_only",
        works="yes; without the loops that are for CPUs",
        where="the programs, which did not run",
    ),
    _row(
        '`jax_numpy_rank_promotion="raise"`',
        "contract/test_contract.py::test_loss_matches_the_reference",  # see `backends.on`
        where=BITS,
    ),
    _row(
        f"{CALL_OPTIONS}, under `jit` of `grad`, `jacfwd` and `hessian`",
        "options_work_under_transforms",
        where=BITS,
    ),
    _row(
        "`jit` with spikes or labels on a mesh of one device, with explicit axes",
        "mesh_of_one_device_equals_no_mesh",
    ),
    *(
        _row(what, test, works=works, where=where)
        for what, test, works, where in (
            (
                "`jit` with the batch sharded over 2 and 4 devices, axes automatic or explicit",
                SHARDED,
                "yes; one scalar sum crosses devices, and no spikes",
                DEVICES,
            ),
            (
                "the same with `where`, `lengths` and `weight`",
                ON_DEVICES,
                "yes; only sums cross devices",
                f"4 {DEVICES}",
            ),
            ("`shard_map` over the batch", ON_DEVICES, "yes", DEVICES),
            (
                "labels on another device than the spikes",
                SHARDED,
                "yes; moved to the device or mesh of the spikes",
                DEVICES,
            ),
        )
    ),
)

MLX_PREFIX = "transforms/test_mlx.py::test_"
MLX = (
    _row("`grad`, `value_and_grad`, `checkpoint`", "grad_and_value_and_grad_equal_closed_form"),
    _row(
        "`compile` of the loss, of `grad` and of `value_and_grad`",
        *("grad_and_value_and_grad_equal_closed_form", "shapeless_compilation_and_export_raise"),
        works="yes, for each shape; not with `shapeless=True`",
    ),
    _row("`vmap(value_and_grad)`", "vmap_of_value_and_grad_equals_loop"),
    _row(
        "`jvp`, and second derivatives by `jvp` and `vjp` of `grad`",
        *("jvp_equals_gradient_times_tangent", "second_derivatives_are_finite_and_symmetric"),
    ),
    _row(
        f"{CALL_OPTIONS}, under `value_and_grad`, `compile` and second derivatives",
        "options_work_under_transforms",
    ),
    _row(
        "`export_function`",
        "shapeless_compilation_and_export_raise",
        works="no: MLX cannot save the custom gradient of a selection",
    ),
)


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
