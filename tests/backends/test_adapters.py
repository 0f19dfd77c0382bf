"""What the adapters promise one by one, on every array library."""

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


def same_device(x, y):
    return str(x.device) == str(y.device)


@pytest.mark.parametrize("dtype", VALUES)
def test_arrays_go_there_and_back(backend, dtype):
    if not hasattr(backend.xp, dtype):
        pytest.skip(f"{backend.library} has no {dtype}")
    found = adapter(backend.library)
    values = np.asarray(VALUES[dtype], dtype)
    there = found.from_host(backend.xp, values, backend.device)
    back = found.to_host(there)
    assert type(back) is np.ndarray
    narrowed = backend.name == "jax" and dtype.endswith("64")  # which has no 64 bits by default
    assert back.dtype == (values.dtype.name.replace("64", "32") if narrowed else dtype)
    np.testing.assert_array_equal(back, values.astype(back.dtype))


def test_bfloat16_comes_back_as_float32(backend):
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
def test_arrays_of_any_layout_are_taken(backend, name):
    found = adapter(backend.library)
    there = found.from_host(backend.xp, ARRAYS[name], backend.device)
    assert tuple(there.shape) == ARRAYS[name].shape
    np.testing.assert_array_equal(found.to_host(there), ARRAYS[name])


@pytest.mark.parametrize("size", [3, 4096])  # some libraries borrow large and aligned memory only
def test_arrays_are_copied(backend, size):
    found = adapter(backend.library)
    raw = np.zeros(size * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    values = raw[start : start + size * 4].view(np.float32)
    there = found.from_host(backend.xp, values, backend.device)
    found.synchronize(there)
    values[:] = 7
    back = found.to_host(there)
    np.testing.assert_array_equal(back, np.zeros(size))
    back[:] = 8
    np.testing.assert_array_equal(found.to_host(there), np.zeros(size))


def test_the_gradient_stays_behind():
    torch = pytest.importorskip("torch")
    x = torch.asarray([1.0, 2.0]).requires_grad_()
    np.testing.assert_array_equal(adapter("torch").to_host(2 * x), [2.0, 4.0])


def test_what_is_created_is_where_the_array_is(backend):
    found = adapter(backend.library)
    x = backend.asarray([1.0, 2.0])
    assert same_device(backend.xp.zeros(3, device=found.device(x)), x)
    assert same_device(found.from_host(backend.xp, np.ones(3), found.device(x)), x)
    assert found.device(backend.xp.exp(x)) == found.device(x)


def test_devices_are_named_and_the_default_comes_first(backend):
    found = adapter(backend.library)
    names = found.devices(backend.xp)
    assert all(isinstance(name, str) for name in names)
    placed = [found.from_host(backend.xp, np.ones(3), name) for name in names]
    assert same_device(placed[0], backend.xp.asarray([1.0]))
    assert len({str(x.device) for x in placed}) == len(names)


def test_waiting_changes_nothing(backend):
    x = backend.xp.exp(backend.asarray([0.0]))
    assert adapter(backend.library).synchronize(x) is None
    np.testing.assert_array_equal(backend.numpy(x), [1.0])


def test_a_scope_makes_its_dtype_exist(backend):
    found = adapter(backend.library)

    def made() -> str:
        with warnings.catch_warnings():  # where it does not exist, JAX says that it gives another
            warnings.simplefilter("ignore")
            x = found.from_host(backend.xp, np.ones(1, np.float64), backend.device)
        return str(x.dtype).rpartition(".")[2]

    before = made()
    with found.scope("float64"):
        assert made() == "float64"
        with found.scope("float32"):
            assert made() == "float64"  # one dtype more, not one dtype instead
    assert made() == before == ("float32" if backend.name == "jax" else "float64")


def test_a_scope_ends_with_an_error_too(backend):
    found = adapter(backend.library)
    before = found.from_host(backend.xp, np.ones(1), backend.device).dtype
    with pytest.raises(KeyError), found.scope("float64"):
        raise KeyError
    assert found.from_host(backend.xp, np.ones(1), backend.device).dtype == before


def test_a_scope_is_of_one_thread():
    jnp = pytest.importorskip("jax.numpy")
    seen = []
    with adapter("jax").scope("float64"):
        thread = threading.Thread(target=lambda: seen.append(jnp.ones(1).dtype))
        thread.start()
        thread.join()
        seen.append(jnp.ones(1).dtype)
    assert seen == ["float32", "float64"]


def test_values_are_seen_where_that_is_free(backend):
    seen = adapter(backend.library).peek(backend.asarray([3, 4]))
    if backend.library in ("array_api_strict", "cupy") or backend.name == "torch-cuda":
        assert seen is None
    else:
        np.testing.assert_array_equal(seen, [3, 4])


@pytest.mark.parametrize("transform", ["jit", "grad", "vmap"])
def test_values_are_not_seen_inside_a_trace_of_jax(transform):
    jax = pytest.importorskip("jax")
    seen = []

    def look(x):
        seen.append(adapter("jax").peek(x))
        return x.sum()

    getattr(jax, transform)(look)(jax.numpy.ones((2, 3)))
    assert seen == [None]


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")  # within torch's jvp
@pytest.mark.parametrize("transform", ["grad", "jvp", "vmap"])
@pytest.mark.parametrize("closed_over", [False, True])
def test_values_are_not_seen_inside_a_transform_of_torch(transform, closed_over):
    torch = pytest.importorskip("torch")
    seen, outside = [], torch.ones(3)

    def look(x):
        seen.append(adapter("torch").peek(outside if closed_over else x))
        return x.sum()

    x = torch.ones((2, 3))
    if transform == "jvp":
        torch.func.jvp(look, (x,), (x,))
    else:
        getattr(torch.func, transform)(look)(x)
    # What the transform has not wrapped may be read, and need not.
    assert seen[0] is None or (closed_over and seen[0].tolist() == [1, 1, 1])
    assert adapter("torch").peek(x) is not None


@pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::DeprecationWarning")
def test_values_are_not_seen_while_torch_compiles():
    torch = pytest.importorskip("torch")
    peek = adapter("torch").peek

    def look(x):
        return x + (1 if peek(x) is None else 2)

    assert look(torch.zeros(1)) == 2
    assert torch.compile(look, backend="eager", fullgraph=True)(torch.zeros(1)) == 1


def test_values_of_a_tensor_subclass_are_not_seen():
    torch = pytest.importorskip("torch")
    assert adapter("torch").peek(torch.nn.Parameter(torch.ones(2))) is None


def products(jaxpr):
    """Yield the matrix products of a program, those of what it calls included."""
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            yield equation
        for value in equation.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from products(inner)


def test_jax_filters_in_full_precision():
    jax = pytest.importorskip("jax")
    loss = sx.SpikeTime(length=100)
    x = jax.numpy.ones((2, 3, 300))
    highest = (jax.lax.Precision.HIGHEST,) * 2
    for program in (loss, sx.value_and_grad(loss)):
        found = list(products(jax.make_jaxpr(program)(x, x).jaxpr))
        assert found
        assert [equation.params["precision"] for equation in found] == [highest] * len(found)


def switches() -> dict[str, object]:
    """Return every setting of the libraries here that a loss could be tempted to change."""
    found: dict[str, object] = {"numpy": (np.geterr(), np.get_printoptions()["precision"])}
    found["warnings"] = list(warnings.filters)
    for library in ("jax", "torch"):
        try:
            module = importlib.import_module(library)
        except ImportError:
            continue
        if library == "jax":
            found["jax"] = dict(module.config.values), module.config.jax_enable_x64
        else:
            found["torch"] = (
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
    return found


def test_no_global_switch_is_flipped(backend):
    before = switches()
    spikes = backend.asarray(np.random.default_rng(2).integers(0, 2, (2, 3, 40)) * 1.0)
    label = np.asarray([0, 2])
    cases = [(sx.SpikeTime(), spikes), (sx.SpikeRate(0.5, 0.0, moving_window=5), label)]
    cases += [(sx.SpikeMax(), label), (sx.SpikeMoid(), np.eye(3)[label]), (sx.SparsityEnforcer(),)]
    for loss, *target in cases:
        loss(spikes, *target)
        backend.compiled(sx.value_and_grad(loss))(spikes, *target)
    sx.MovingWindow(5).confidence(spikes)
    assert switches() == before
