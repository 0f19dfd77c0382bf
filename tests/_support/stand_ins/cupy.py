"""A stand-in for CuPy: NumPy's arrays on two devices, with counts of launches, copies and waits.

Only a process with this folder on its path finds it: ``PYTHONPATH=tests/_support/stand_ins``. It
has the names and keywords of CuPy that the array API needs, those in
tests/data/cupy_signatures.txt. It raises where CuPy does, for NumPy arrays as operands and for
implicit conversions to NumPy. It says nothing about the kernels of CuPy and their speed.
"""

import sys
import types

import cupy_numpy
from cupy_numpy import COUNTS, Device, reset_counts  # noqa: F401

globals().update(cupy_numpy.FUNCTIONS)
__version__ = "14.2.0"
__path__: list[str] = []
NUMBER_OF_DEVICES = 2


class _Stream:
    def synchronize(self):
        cupy_numpy.WAITS["synchronize"] += 1


def _module(name, **content):
    module = sys.modules[name] = types.ModuleType(name)
    module.__dict__.update(content, __path__=[])
    return module


_runtime = types.SimpleNamespace(
    getDeviceCount=lambda: NUMBER_OF_DEVICES,
    getDeviceProperties=lambda number: {"name": b"a stand-in on the CPU"},
    runtimeGetVersion=lambda: 12090,
)
cuda = _module(
    "cupy.cuda", Device=Device, Stream=_Stream, get_current_stream=_Stream, runtime=_runtime
)
_module("cupy.cuda.device", Device=Device)
fft, random = _module("cupy.fft", __all__=[]), _module("cupy.random")
linalg = _module("cupy.linalg", __all__=[], lstsq=None)
