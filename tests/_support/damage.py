"""Valid and damaged .npz files for the command."""

import io
import struct
import zipfile

import numpy as np

SPIKES = (np.random.default_rng(0).random((4, 3, 40)) < 0.2).astype(np.float32)
LABEL = np.asarray([0, 2, 1, 0])


def npy(array, version=None):
    """Return an array as the bytes of an .npy file of this format version."""
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.asarray(array), version)
    return stream.getvalue()


def member(descr="<f4", shape="(4, 3, 40)", data=None, text=""):
    """Return an .npy file whose header has this dtype and shape, or this text."""
    text = text or f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}}}"
    header = text.encode("latin1") + b"\n"
    data = SPIKES.tobytes() if data is None else data
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def archive(input, method=zipfile.ZIP_STORED):
    """Return an .npz file with this `input` and a label."""
    return archive_of({"input": input, "label": npy(LABEL)}, method)


def archive_of(files, method=zipfile.ZIP_STORED, *, zip64=False):
    """Return an .npz file with these .npy files. Its bytes do not depend on the date."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, data in files.items():
            info = zipfile.ZipInfo(f"{name}.npy")
            info.compress_type = method
            with file.open(info, "w", force_zip64=zip64) as written:
                written.write(data)
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


def damaged_copies(data, count):
    """Yield copies of data with two bytes of the headers changed, and as many that lack a piece."""
    rng = np.random.default_rng(1)
    headers = [i for i in range(len(data)) if i < 180 or i > len(data) - 260]
    for i in range(count):
        changed = bytearray(data)
        for at in rng.choice(headers, 2):
            changed[at] = rng.choice([0, 1, 127, 128, 255])
        yield bytes(changed)
        first, last = sorted(rng.integers(len(data), size=2))
        yield data[:first] + (data[last:] if i % 2 else b"")
