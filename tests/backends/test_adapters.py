"""The functions of the adapters, on every array library."""

import contextlib
import operator
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.backends._available import adapter

ARRAYS = {
    "bool": np.asarray([True, False, True]),
    "uint8": np.asarray([0, 1, 255], np.uint8),
    "int32": np.asarray([-(2**31), -1, 2**31 - 1], np.int32),
    "int64": np.asarray([-5, 0, 7], np.int64),
    "float16": np.asarray([-1.5, 0.0, 65504.0], np.float16),
    "float32": np.asarray([-1.5, 2.0**-126, 3e38], np.float32),
    "float64": np.asarray([-1.5, 0.1, 3e38]),
    "empty": np.zeros((0, 3)),
    "scalar": np.asarray(2.5),
    "reversed": np.arange(6.0).reshape(2, 3)[:, ::-1],
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(12.0)[::3],
    "read-only": np.broadcast_to(np.arange(3.0), (2, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_from_host_and_to_host_keep_values(backend, name):
    values, dtype = ARRAYS[name], ARRAYS[name].dtype.name
    if name == dtype and not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    x = backend.adapter.from_host(values, backend.device)
    assert tuple(x.shape) == values.shape
    back = backend.numpy(x)
    assert type(back) is np.ndarray
    narrowed = dtype.endswith("64") and not backend.has(dtype)
    assert back.dtype == (dtype.replace("64", "32") if narrowed else dtype)
    np.testing.assert_array_equal(back, values.astype(back.dtype))


def test_bfloat16_to_host_becomes_float32(backend):
    if not hasattr(backend.xp, "bfloat16"):
        pytest.skip(f"{backend.library} has no bfloat16")
    back = backend.numpy(backend.asarray([1.5, -(2.0**-100), 0.0], "bfloat16"))
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, [1.5, -(2.0**-100), 0.0])


@pytest.mark.parametrize("size", [3, 4096])  # some libraries share only large, aligned memory
def test_from_host_and_to_host_copy(backend, size):
    raw = np.zeros(size * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    values = raw[start : start + size * 4].view(np.float32)
    x = backend.adapter.from_host(values, backend.device)
    backend.adapter.synchronize(x)
    values[:] = 7
    back = backend.numpy(x)
    np.testing.assert_array_equal(back, np.zeros(size))
    back[:] = 8
    np.testing.assert_array_equal(backend.numpy(x), np.zeros(size))


def test_to_host_detaches_torch_tensors_and_no_values_of_a_subclass_are_read():
    torch = pytest.importorskip("torch")
    x = torch.asarray([1.0, 2.0]).requires_grad_()
    np.testing.assert_array_equal(adapter("torch").to_host(2 * x), [2.0, 4.0])
    np.testing.assert_array_equal(adapter("torch").concrete_or_none(torch.nn.Parameter(x)), [1, 2])
    own = type("Own", (torch.Tensor,), {})
    assert adapter("torch").concrete_or_none(x.as_subclass(own)) is None


def test_device_of_input_is_device_of_new_arrays(backend):
    functions, x = backend.adapter, backend.asarray([0.0, 0.0])
    place = functions.device(x)
    for made in (backend.xp.zeros(3, device=place), functions.from_host(np.ones(3), place)):
        assert backend.device_of(made) == backend.device_of(x)
    computed = backend.xp.exp(x)
    assert functions.device(computed) == place
    assert functions.synchronize(computed) is None
    np.testing.assert_array_equal(backend.numpy(computed), [1.0, 1.0])


def test_devices_are_names_with_default_first(backend):
    names = backend.adapter.devices()
    assert all(isinstance(name, str) for name in names)
    placed = [backend.device_of(backend.adapter.from_host(np.ones(3), name)) for name in names]
    assert placed[0] == backend.device_of(backend.xp.asarray([1.0]))
    assert len(set(map(str, placed))) == len(names)


def test_scope_enables_its_dtype_in_its_thread(backend):
    if not hasattr(backend.xp, "float64"):
        pytest.skip(f"{backend.library} has no float64")

    def dtype_of_float64_values() -> str:
        with warnings.catch_warnings():  # JAX warns if it narrows a dtype that is not enabled
            warnings.simplefilter("ignore")
            x = backend.adapter.from_host(np.ones(1, np.float64), backend.device)
        return str(x.dtype).rpartition(".")[2]

    outside = "float32" if backend.name == "jax" else "float64"
    assert dtype_of_float64_values() == outside
    with contextlib.suppress(KeyError), backend.adapter.scope("float64"):
        assert dtype_of_float64_values() == "float64"
        with ThreadPoolExecutor() as others:
            dtype = others.submit(dtype_of_float64_values).result()
        assert dtype == ("float32" if backend.library == "jax" else "float64")
        with backend.adapter.scope("float32"):
            assert dtype_of_float64_values() == "float64"  # an inner scope disables no dtype
        raise KeyError
    assert dtype_of_float64_values() == outside


def test_values_are_read_only_where_reading_is_free(backend):
    values = backend.adapter.concrete_or_none(backend.asarray([3, 4]))
    if backend.library in ("array_api_strict", "dpnp", "mlx") or backend.on_gpu:
        assert values is None
    else:
        np.testing.assert_array_equal(values, [3, 4])


@pytest.mark.compiles
@pytest.mark.filterwarnings("ignore:`torch.jit")  # from torch's jacfwd
@pytest.mark.parametrize("closed_over", [False, True])
@pytest.mark.parametrize(
    ("library", "transform"),
    [
        *(("jax", name) for name in ("jit", "grad", "vmap")),
        *(("torch", name) for name in ("func.grad", "func.vmap", "func.jacfwd")),
    ],
)
def test_values_are_not_read_in_transforms(library, transform, closed_over):
    module, functions = pytest.importorskip(library), adapter(library)
    x, outside = (functions.from_host(np.ones(n, np.float32), None) for n in ((2, 3), 3))
    values = []

    def read_values(x):
        values.append(functions.concrete_or_none(outside if closed_over else x))
        return x.sum()

    operator.attrgetter(transform)(module)(read_values)(x)
    # Reading a tensor that the transform has not wrapped is allowed but not required.
    assert values[0] is None or (closed_over and values[0].tolist() == [1, 1, 1])
    assert functions.concrete_or_none(x) is not None


TORCH_SETTINGS = (
    *("get_float32_matmul_precision", "are_deterministic_algorithms_enabled", "get_default_dtype"),
    *("get_num_threads", "is_grad_enabled", "is_inference_mode_enabled", "get_rng_state"),
    *("backends.cuda.matmul.allow_tf32", "backends.cudnn.allow_tf32", "backends.cudnn.benchmark"),
)


def global_settings() -> dict[str, object]:
    """Return the global settings of the imported libraries that a loss might change."""
    settings = {"numpy": (np.geterr(), np.get_printoptions()), "warnings": list(warnings.filters)}
    if jax := sys.modules.get("jax"):
        settings["jax"] = dict(jax.config.values), jax.config.jax_enable_x64
    if torch := sys.modules.get("torch"):
        found = {name: operator.attrgetter(name)(torch) for name in TORCH_SETTINGS}
        settings |= {name: x() if callable(x) else x for name, x in found.items()}
        settings["get_rng_state"] = settings["get_rng_state"].tolist()
    return settings


def test_global_settings_are_unchanged(backend):
    before = global_settings()
    spikes = backend.asarray(np.random.default_rng(2).integers(0, 2, (2, 3, 40)) * 1.0)
    cases = (
        (sx.SpikeTime(time_axis=-1), spikes),
        (sx.SpikeMax(moving_window=5, time_axis=-1), np.asarray([0, 2])),
    )

    def run(spikes):
        return [sx.value_and_grad(loss)(spikes, target) for loss, target in cases]

    backend.compiled(run)(spikes)
    assert global_settings() == before
