"""The functions of the adapters, on every array library."""

import importlib
import threading
import warnings

import numpy as np
import pytest

import spikeloss_xp as sx
from spikeloss_xp.backends._available import adapter

VALUES = {
    "bool": [True, False, True],
    "uint8": [0, 1, 255],
    "int32": [-(2**31), -1, 2**31 - 1],
    "int64": [-5, 0, 7],
    "float16": [-1.5, 0.0, 65504.0],
    "float32": [-1.5, 2.0**-126, 3e38],
    "float64": [-1.5, 0.1, 3e38],
}


@pytest.mark.parametrize("dtype", VALUES)
def test_from_host_and_to_host_keep_values(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    functions = adapter(backend.library)
    values = np.asarray(VALUES[dtype], dtype)
    x = functions.from_host(values, backend.device)
    back = functions.to_host(x)
    assert type(back) is np.ndarray
    narrowed = dtype.endswith("64") and not backend.has(dtype)
    assert back.dtype == (values.dtype.name.replace("64", "32") if narrowed else dtype)
    np.testing.assert_array_equal(back, values.astype(back.dtype))


def test_bfloat16_to_host_becomes_float32(backend):
    if not hasattr(backend.xp, "bfloat16"):
        pytest.skip(f"{backend.library} has no bfloat16")
    x = backend.xp.astype(backend.asarray([1.5, -(2.0**-100), 0.0], "float32"), backend.xp.bfloat16)
    back = adapter(backend.library).to_host(x)
    assert back.dtype == np.float32
    np.testing.assert_array_equal(back, [1.5, -(2.0**-100), 0.0])


ARRAYS = {
    "empty": np.zeros((0, 3)),
    "scalar": np.asarray(2.5),
    "reversed": np.arange(6.0).reshape(2, 3)[:, ::-1],
    "transposed": np.arange(6.0).reshape(2, 3).T,
    "strided": np.arange(12.0)[::3],
    "read-only": np.broadcast_to(np.arange(3.0), (2, 3)),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_from_host_accepts_any_memory_layout(backend, name):
    functions = adapter(backend.library)
    x = functions.from_host(ARRAYS[name], backend.device)
    assert tuple(x.shape) == ARRAYS[name].shape
    np.testing.assert_array_equal(functions.to_host(x), ARRAYS[name])


@pytest.mark.parametrize("size", [3, 4096])  # some libraries share only large, aligned memory
def test_from_host_and_to_host_copy(backend, size):
    functions = adapter(backend.library)
    raw = np.zeros(size * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    values = raw[start : start + size * 4].view(np.float32)
    x = functions.from_host(values, backend.device)
    functions.synchronize(x)
    values[:] = 7
    back = functions.to_host(x)
    np.testing.assert_array_equal(back, np.zeros(size))
    back[:] = 8
    np.testing.assert_array_equal(functions.to_host(x), np.zeros(size))


def test_to_host_detaches_torch_tensors():
    torch = pytest.importorskip("torch")
    x = torch.asarray([1.0, 2.0]).requires_grad_()
    np.testing.assert_array_equal(adapter("torch").to_host(2 * x), [2.0, 4.0])


def test_device_of_input_is_device_of_new_arrays(backend):
    functions = adapter(backend.library)
    x = backend.asarray([1.0, 2.0])
    for made in (
        backend.xp.zeros(3, device=functions.device(x)),
        functions.from_host(np.ones(3), functions.device(x)),
    ):
        assert backend.device_of(made) == backend.device_of(x)
    assert functions.device(backend.xp.exp(x)) == functions.device(x)


def test_devices_are_names_with_default_first(backend):
    functions = adapter(backend.library)
    names = functions.devices()
    assert all(isinstance(name, str) for name in names)
    placed = [functions.from_host(np.ones(3), name) for name in names]
    assert backend.device_of(placed[0]) == backend.device_of(backend.xp.asarray([1.0]))
    assert len({str(backend.device_of(x)) for x in placed}) == len(names)


def test_synchronize_keeps_values(backend):
    x = backend.xp.exp(backend.asarray([0.0]))
    assert adapter(backend.library).synchronize(x) is None
    np.testing.assert_array_equal(backend.numpy(x), [1.0])


def test_scope_enables_its_dtype(backend):
    functions = adapter(backend.library)
    if not hasattr(backend.xp, "float64"):
        pytest.skip(f"{backend.library} has no float64")

    def dtype_of_float64_values() -> str:
        with warnings.catch_warnings():  # JAX warns if it narrows a dtype that is not enabled
            warnings.simplefilter("ignore")
            x = functions.from_host(np.ones(1, np.float64), backend.device)
        return str(x.dtype).rpartition(".")[2]

    before = dtype_of_float64_values()
    with functions.scope("float64"):
        assert dtype_of_float64_values() == "float64"
        with functions.scope("float32"):
            assert dtype_of_float64_values() == "float64"  # an inner scope disables no dtype
    after = dtype_of_float64_values()
    assert after == before == ("float32" if backend.name == "jax" else "float64")


def test_scope_ends_after_an_error(backend):
    functions = adapter(backend.library)
    before = functions.from_host(np.ones(1), backend.device).dtype
    with pytest.raises(KeyError), functions.scope("float64"):
        raise KeyError
    assert functions.from_host(np.ones(1), backend.device).dtype == before


def test_scope_applies_to_one_thread():
    jnp = pytest.importorskip("jax.numpy")
    dtypes = []
    with adapter("jax").scope("float64"):
        thread = threading.Thread(target=lambda: dtypes.append(jnp.ones(1).dtype))
        thread.start()
        thread.join()
        dtypes.append(jnp.ones(1).dtype)
    assert dtypes == ["float32", "float64"]


def test_values_are_read_only_where_reading_is_free(backend):
    values = adapter(backend.library).concrete_or_none(backend.asarray([3, 4]))
    if backend.library in ("array_api_strict", "dpnp", "mlx") or backend.on_gpu:
        assert values is None
    else:
        np.testing.assert_array_equal(values, [3, 4])


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_values_are_not_read_in_jax_transforms(transform):
    jax = pytest.importorskip("jax")
    values = []

    def read_values(x):
        values.append(adapter("jax").concrete_or_none(x))
        return x.sum()

    getattr(jax, transform)(read_values)(jax.numpy.ones((2, 3)))
    assert values == [None]


@pytest.mark.filterwarnings("ignore:`torch.jit")  # from torch's jvp
@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
@pytest.mark.parametrize("closed_over", [False, True])
def test_values_are_not_read_in_torch_transforms(transform, closed_over):
    torch = pytest.importorskip("torch")
    values, outside = [], torch.ones(3)

    def read_values(x):
        values.append(adapter("torch").concrete_or_none(outside if closed_over else x))
        return x.sum()

    x = torch.ones((2, 3))
    if transform == "jvp":
        torch.func.jvp(read_values, (x,), (x,))
    else:
        getattr(torch.func, transform)(read_values)(x)
    # Reading a tensor that the transform has not wrapped is allowed but not required.
    assert values[0] is None or (closed_over and values[0].tolist() == [1, 1, 1])
    assert adapter("torch").concrete_or_none(x) is not None


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning")
def test_values_are_not_read_under_torch_compile():
    torch = pytest.importorskip("torch")
    peek = adapter("torch").concrete_or_none

    def read_values(x):
        return x + (1 if peek(x) is None else 2)

    assert read_values(torch.zeros(1)) == 2
    assert torch.compile(read_values, backend="eager", fullgraph=True)(torch.zeros(1)) == 1


def test_values_of_tensor_subclass_are_not_read():
    torch = pytest.importorskip("torch")
    assert adapter("torch").concrete_or_none(torch.nn.Parameter(torch.ones(2))) is None


def matrix_products(jaxpr):
    """Yield the `dot_general` equations of a jaxpr and of its nested jaxprs."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from matrix_products(inner)


def test_jax_filter_uses_highest_precision():
    jax = pytest.importorskip("jax")
    loss = sx.SpikeTime(length=100)
    x = jax.numpy.ones((2, 3, 300))
    highest = (jax.lax.Precision.HIGHEST,) * 2
    for program in (loss, sx.value_and_grad(loss)):
        products = list(matrix_products(jax.make_jaxpr(program)(x, x).jaxpr))
        assert products
        assert [product.params["precision"] for product in products] == [highest] * len(products)


def global_settings() -> dict[str, object]:
    """Return the global settings of the installed libraries that a loss might change."""
    settings: dict[str, object] = {"numpy": (np.geterr(), np.get_printoptions()["precision"])}
    settings["warnings"] = list(warnings.filters)
    for library in ("jax", "torch"):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        if library == "jax":
            settings["jax"] = dict(module.config.values), module.config.jax_enable_x64
        else:
            settings["torch"] = (
                module.get_float32_matmul_precision(),
                module.backends.cuda.matmul.allow_tf32,
                module.backends.cudnn.allow_tf32,
                module.backends.cudnn.benchmark,
                module.are_deterministic_algorithms_enabled(),
                module.get_default_dtype(),
                module.get_num_threads(),
                module.is_grad_enabled(),
                module.is_inference_mode_enabled(),
                module.get_rng_state().tolist(),
            )
    return settings


def test_global_settings_are_unchanged(backend):
    before = global_settings()
    spikes = backend.asarray(np.random.default_rng(2).integers(0, 2, (2, 3, 40)) * 1.0)
    label = np.asarray([0, 2])
    cases = [(sx.SpikeTime(), spikes), (sx.SpikeRate(0.5, 0.0, moving_window=5), label)]
    cases += [
        (sx.SpikeMax(), label),
        (sx.SpikeMoid(theta=0), np.eye(3)[label]),
        (sx.SparsityEnforcer(),),
    ]

    def run(spikes):
        values = [loss(spikes, *target) for loss, *target in cases]
        gradients = [sx.value_and_grad(loss)(spikes, *target) for loss, *target in cases]
        return values, gradients, sx.MovingWindow(5, time_axis=-1).confidence(spikes)

    backend.compiled(run)(spikes)
    assert global_settings() == before
