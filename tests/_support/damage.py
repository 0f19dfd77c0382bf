"""Valid, damaged and malicious .npz files for the command."""

import io
import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np

SPIKES = (np.random.default_rng(0).random((4, 3, 40)) < 0.2).astype(np.float32)
LABEL = np.asarray([0, 2, 1, 0])


def npy(array, version=None):
    """Return an array as the bytes of an .npy file of this format version."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version)
    return stream.getvalue()


def member(header, data=None):
    """Return an .npy file with this header text. The data is `SPIKES` by default."""
    text = header.encode("latin1") + b"\n"
    values = SPIKES.tobytes() if data is None else data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + values


def header(descr="<f4", shape="(4, 3, 40)"):
    """Return the text of an .npy header."""
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}"


def archive(input, method=zipfile.ZIP_STORED):
    """Return an .npz file with this `input` and a label."""
    return archive_of({"input": input, "label": npy(LABEL)}, method)


def archive_of(files, method=zipfile.ZIP_STORED):
    """Return an .npz file with these .npy files. Its bytes do not depend on the date."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in files.items():
            file.writestr(zipfile.ZipInfo(f"{name}.npy"), data, method)
    return stream.getvalue()


def patched(data, local=(), central=()):
    """Return an archive with changes to the local and central headers of its first member.

    Each change is an offset in the header, a `struct` format and a value.
    """
    patched = bytearray(data)
    for start, changes in ((0, local), (data.index(b"PK\x01\x02"), central)):
        for offset, form, value in changes:
            struct.pack_into(form, patched, start + offset, value)
    return bytes(patched)


def bomb(first, size):
    """Return a small archive that decompresses to a large `input`: `first`, then zeros.

    The headers give `size` as the decompressed size.
    """
    deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
    start = deflate.compress(first) + deflate.flush(zlib.Z_FULL_FLUSH)
    zeros = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    data = start + zeros * (size >> 20) + deflate.flush()
    return patched(
        archive(data), [(8, "<H", 8), (22, "<I", size)], [(10, "<H", 8), (24, "<I", size)]
    )


def mutants(data, count, cuts=75):
    """Yield about `cuts` truncated copies of data, and `count` copies with random damage."""
    rng = np.random.default_rng(1)
    for end in range(0, len(data), max(len(data) // cuts, 1)):
        yield data[:end]
    structure = [i for i in range(len(data)) if i < 180 or i > len(data) - 260]
    for i in range(count):
        changed = bytearray(data)
        first, last = sorted(rng.integers(len(data), size=2))
        match i % 4:
            case 0:
                changed[first] ^= 1 << rng.integers(8)
            case 1:  # in the headers or in the central directory
                for at in rng.choice(structure, 2):
                    changed[at] = rng.choice([0, 1, 127, 128, 255])
            case 2:
                del changed[first:last]
            case 3:
                changed[first:last] = bytes(last - first)
        yield bytes(changed)


class TouchWhenUnpickled:
    """An object that creates the file `mark` when it is unpickled."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)
