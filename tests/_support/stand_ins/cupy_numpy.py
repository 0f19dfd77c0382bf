"""What `cupy` of this folder is made of: NumPy's arrays and functions, on devices that count."""

import functools
from collections import Counter
from pathlib import Path

import numpy as np

SIGNATURES = Path(__file__).resolve().parents[2] / "data" / "cupy_signatures.txt"

LAUNCHES: Counter[str] = Counter()
"""Operations that run on the device, by name. CuPy may need several kernels for one."""
COPIES: Counter[str] = Counter()
"""Copies from the host."""
WAITS: Counter[str] = Counter()
"""Reads of a value, for which the host waits until the device has computed it."""
FOREIGN: Counter[str] = Counter()
"""Operands of operations that are not on the current device."""
COUNTS = {"launches": LAUNCHES, "copies": COPIES, "waits": WAITS, "foreign": FOREIGN}


def reset_counts():
    for count in COUNTS.values():
        count.clear()


_entered = [0]  # the numbers of the devices that were entered: the last one is current


class Device:
    """A device by its number, by default the current one."""

    def __init__(self, device=None):
        self.id = _entered[-1] if device is None else int(getattr(device, "id", device))

    def __enter__(self):
        _entered.append(self.id)
        return self

    def __exit__(self, *_):
        _entered.pop()

    def __eq__(self, other):
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self):
        return hash(self.id)

    def __repr__(self):
        return f"<CUDA Device {self.id}>"

    def synchronize(self):
        WAITS["synchronize"] += 1


# Arrays ------------------------------------------------------------------------------------------


def _refuse(x):
    raise TypeError(f"Unsupported type {type(x)}")


def _check_arrays(*operands):
    for x in operands:
        if not isinstance(x, ndarray):
            _refuse(x)


def _values(x, name):
    """Return the values of an operand: an array or a number, but no array of NumPy."""
    if isinstance(x, ndarray):
        if x.device != Device():
            FOREIGN[name] += 1
        return x._values
    return x if isinstance(x, bool | int | float | complex | np.generic) else _refuse(x)


def _array(values, device=None):
    made = object.__new__(ndarray)
    made._values, made.device = np.asarray(values), device or Device()
    return made


def _attribute(name):
    return property(lambda self: getattr(self._values, name))


class ndarray(np.lib.mixins.NDArrayOperatorsMixin):  # noqa: N801, which is CuPy's name
    """An array on a device, whose operators call elementwise operations."""

    shape, ndim, size, dtype = map(_attribute, ("shape", "ndim", "size", "dtype"))

    def __array__(self, *_, **__):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_ufunc__(self, function, method, *args, **options):
        return FUNCTIONS[function.__name__](*args, **options)

    def __array_function__(self, function, types, args, options):
        return FUNCTIONS[function.__name__](*args, **options)

    def _index(self, key):
        keys = key if isinstance(key, tuple) else (key,)
        for part in keys:
            if isinstance(part, np.ndarray | list):
                COPIES["index"] += 1
            elif isinstance(part, ndarray) and part.dtype == bool:
                WAITS["index of bools"] += 1  # the size of the result
        gathers = any(isinstance(part, ndarray | np.ndarray | list) for part in keys)
        return tuple(_values(k, "index") if isinstance(k, ndarray) else k for k in keys), gathers

    def __getitem__(self, key):
        index, gathers = self._index(key)
        LAUNCHES["take"] += gathers
        return _array(self._values[index], self.device)

    def __setitem__(self, key, value):
        index, scatters = self._index(key)
        if scatters and not isinstance(value, ndarray):
            COPIES["number"] += 1
        LAUNCHES["setitem"] += 1
        self._values[index] = _values(value, "setitem")

    def __len__(self):
        return len(self._values)

    def get(self, stream=None, order="C", out=None, blocking=True):
        WAITS["get"] += 1
        return self._values.copy()

    def astype(self, dtype, order="K", casting=None, subok=None, copy=True):
        if not copy and np.dtype(dtype) == self.dtype:
            return self
        return launch("astype", lambda x: x.astype(dtype), self)

    def copy(self):
        return launch("copy", np.copy, self)

    def reshape(self, *shape):
        return _view("reshape", self, shape[0] if len(shape) == 1 else shape)

    T = property(lambda self: _view("transpose", self))


def _read(name):
    return lambda self: getattr(self.get(), name)()


for _name in ("__bool__", "__float__", "__index__", "__int__", "__repr__", "item", "tolist"):
    setattr(ndarray, _name, _read(_name))


def launch(name, function, *args, out=None, **options):
    """Run an operation of NumPy on arrays and numbers as one on the current device."""
    LAUNCHES[name] += 1
    values = [_values(x, name) for x in args]
    if out is not None:
        options["out"] = _values(out, name)
    with np.errstate(all="ignore"):
        result = function(*values, **options)
    return _array(result) if out is None else out


def _view(name, x, *args, **options):
    """Return a view on the device of an array, or a copy where NumPy needs one too."""
    _check_arrays(x)
    found = getattr(np, name)(x._values, *args, **options)
    if found.size and not np.may_share_memory(found, x._values):
        LAUNCHES[f"copy for {name}"] += 1
    return _array(found, x.device)


# Functions ---------------------------------------------------------------------------------------


class ufunc:  # noqa: N801, which is CuPy's name
    """An elementwise operation. NumPy's promotes dtypes, as CuPy's does since version 14."""

    def __init__(self, name):
        self.__name__, self._function = name, getattr(np, name)

    def __call__(self, *args, out=None, dtype=None, casting="same_kind"):
        options = {"casting": casting, "out": out[0] if isinstance(out, tuple) else out}
        options |= {} if dtype is None else {"dtype": dtype}
        return launch(self.__name__, self._function, *args, **options)


def array(obj, dtype=None, copy=True):
    """Copy an array to the current device, from the host or from another device."""
    if isinstance(obj, ndarray):
        if obj.device == Device():
            return obj.astype(dtype or obj.dtype, copy=copy)
        LAUNCHES["copy between devices"] += 1
        return _array(obj._values.astype(dtype or obj.dtype))
    if isinstance(obj, list | tuple) and any(isinstance(x, ndarray) for x in obj):
        return _joined("stack", obj).astype(dtype or obj[0].dtype, copy=False)
    values = np.array(obj, dtype=dtype)
    if values.dtype.kind not in "biufc":
        raise ValueError(f"Unsupported dtype {values.dtype}")
    COPIES["array"] += 1
    return _array(values)


def where(condition, x=None, y=None):
    _check_arrays(condition)
    return launch("where", np.where, condition.astype(bool, copy=False), x, y)


def copyto(dst, src, casting="same_kind", where=None):
    _check_arrays(dst)
    launch("copyto", lambda x, *rest: np.copyto(x, rest[0], casting, *rest[1:]), dst, src, where)


def matmul(*factors, out=None):
    _check_arrays(*factors)
    return launch("matmul", np.matmul, *factors, out=out)


def _joined(name, tup, **options):
    LAUNCHES[name] += 1
    return _array(getattr(np, name)([_values(x, name) for x in tup], **options))


IMPLEMENTED = {
    "array": array,
    "asarray": lambda a, dtype=None, order=None, copy=None: array(a, dtype, copy=bool(copy)),
    "asnumpy": lambda a, **_: a.get() if isinstance(a, ndarray) else np.asarray(a),
    "astype": lambda x, dtype, copy=True: x.astype(dtype, copy=copy),
    "broadcast_arrays": lambda *args: [
        _view("broadcast_to", x, np.broadcast_shapes(*(x.shape for x in args))) for x in args
    ],
    "empty": lambda *args, **options: _array(np.empty(*args, **options)),
    "matmul": matmul,
    "where": where,
    "copyto": copyto,
}
IMPLEMENTED |= {name: functools.partial(_joined, name) for name in ("concat", "concatenate")}
IMPLEMENTED["stack"] = functools.partial(_joined, "stack")
VIEWS = (
    *("broadcast_to", "expand_dims", "flip", "matrix_transpose", "moveaxis", "permute_dims"),
    *("reshape", "squeeze", "swapaxes", "transpose"),
)
OF_DTYPES = ("can_cast", "isdtype", "issubdtype", "result_type")
METHODS = ("all", "any", "argmax", "max", "mean", "min", "sum")
SAME = (
    "bool_ int8 int16 int32 int64 uint8 uint16 uint32 uint64 intp float16 float32 float64 "
    "complex64 complex128 dtype finfo iinfo number integer signedinteger unsignedinteger floating "
    "complexfloating pi e inf nan newaxis"
)


def _function(signature):
    """Return a function of CuPy, which takes the arguments of CuPy's signature only."""
    name = signature.partition("(")[0]
    scope = {"float": float}
    exec(f"def {signature}: pass", scope)
    bind, run = scope[name], IMPLEMENTED.get(name)

    @functools.wraps(bind)
    def function(*args, **options):
        bind(*args, **options)
        if run:
            return run(*args, **options)
        if name in VIEWS:
            return _view(name, *args, **options)
        if name in OF_DTYPES:
            dtypes = (x.dtype if isinstance(x, ndarray) else x for x in args)
            return getattr(np, name)(*dtypes, **options)
        if args and isinstance(args[0], list | np.ndarray):
            _refuse(args[0])
        arrays = [x for x in args if isinstance(x, ndarray)]
        rest = args[len(arrays) :]
        return launch(name, lambda *x: getattr(np, name)(*x, *rest, **options), *arrays)

    return function


def namespace():
    """Return the functions, dtypes and constants of CuPy, by name."""
    ufuncs, *signatures = SIGNATURES.read_text(encoding="utf-8").splitlines()
    functions = {name: ufunc(name) for name in ufuncs.split()[1:]}
    functions |= {line.partition("(")[0]: _function(line) for line in signatures}
    for name in METHODS:
        setattr(ndarray, name, functions[name])
    same = {name: getattr(np, name) for name in SAME.split()}
    classes = {"Device": Device, "ndarray": ndarray, "ufunc": ufunc, "bool": np.bool_}
    return functions | same | classes


FUNCTIONS = namespace()
