"""Valid, damaged and malicious input files for the command."""

import io
import struct
import zipfile
import zlib

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


# Arrays that both commands reject, each with a part of the error message.
REFUSED = [
    (member(header(shape="(1000000, 1000, 1000)")), "takes 4000000000000 bytes, and the file has"),
    (member(header(shape="(4294967296, 4294967296, 2)")), "`input` is damaged"),
    (member(header(shape=f"(1{'0' * 400}, 3, 40)")), "`input` is damaged"),
    (member(header(shape="(-4, 3, 40)")), "damaged: its header gives the shape (-4, 3, 40)"),
    (member(header(shape="(-1, -5, 96)")), "damaged: its header gives the shape (-1, -5, 96)"),
    (member(header(shape="(True, 12, 40)")), "damaged: its header gives the shape (True, 12, 40)"),
    (member(header("|b1"), bytes([7]) * 480), "a bool is 0 or 1, and it holds 7"),
    (member(header(shape=str((1,) * 99)), b"1234"), "cannot be read"),
    (member(header(shape="(4.0, 3, 40)")), "shape is not valid"),
    (member(header("<f8")), "takes 3840 bytes, and the file has 1920"),
    (member(header("|V2000000000")), "not an array of real numbers"),
    (member(header("|u1")), "takes 480 bytes, and the file has 1920"),
    (member("[" * 4000), "cannot be read"),
    (npy(SPIKES, (2, 0)), "as numpy.savez writes it"),
    (b"", "cannot be read"),
    (b"\x80\x04]\x94K\x01a.", "cannot be read"),  # a pickle
    (npy(np.float32(1)), "got shape ()"),
    (npy(SPIKES[..., :0]), "got shape (4, 3, 0)"),
]


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


def zarr_bombs(size):
    """Return small chunk files that decompress to `size` zeros, by the name of their codec."""
    import numcodecs

    zeros = bytes(size)
    names = ("blosc", "gzip", "lz4", "zlib", "zstd")
    return {name: numcodecs.get_codec({"id": name}).encode(zeros) for name in names}


def save_zarr_bomb(path, bomb, *, codec="zstd", zarr_format=3, **options):
    """Write a Zarr group whose first chunk is compressed by `codec` and decompresses to a bomb.

    With `shards` among the options, the bomb is a chunk inside the first shard.
    """
    import zarr
    from numcodecs.checksum32 import CRC32C

    if zarr_format == 2:
        import numcodecs

        compressor = numcodecs.get_codec({"id": codec})
    else:
        compressor = {"name": codec, "configuration": {}}
        if codec == "gzip":
            compressor["configuration"] = {"level": 1}
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    options = {"chunks": (2, 3, 40), "compressors": compressor, **options}
    group.create_array("input", data=SPIKES, **options)
    folder = path / "input"
    file = min(p for p in folder.rglob("*") if p.is_file() and p.name[0] in "0123456789")
    if "shards" not in options:
        file.write_bytes(bomb)
        return
    index = np.asarray([[0, len(bomb)], [2**64 - 1] * 2], "<u8").tobytes()
    file.write_bytes(bomb + bytes(CRC32C(location="end").encode(index)))


def mutants(data, count):
    """Yield truncated copies of data, and `count` copies with random damage."""
    rng = np.random.default_rng(1)
    for end in range(0, len(data), len(data) // 150):
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
