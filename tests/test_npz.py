"""Reading NPZ files that are damaged, foreign, or written to harm."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from gpunet.errors import FileFormatError
from gpunet.npz import UNQUESTIONED_BYTES, open_npz


def read(path, *names, **limits):
    with open_npz(path, called=str(path), **limits) as archive:
        return {name: archive.read(name) for name in names or archive.names}


def member(header: bytes | str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """Return an array file with any text for a header."""
    header = header if isinstance(header, bytes) else header.encode()
    return (
        b"\x93NUMPY" + version + len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little") + header + content
    )


def header(shape: object = (3,), descr: object = "<f4") -> str:
    return f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}}}\n"


def write(path, compression=zipfile.ZIP_STORED, **members):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_what_numpy_writes(tmp_path, save):
    arrays = {
        "a": np.arange(12.0).reshape(3, 4),
        "fortran": np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3)),
        "text": np.array("näme"),
        "empty": np.empty((0, 3)),
    }
    save(tmp_path / "file.npz", **arrays)
    found = read(tmp_path / "file.npz")
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)
    with open_npz(tmp_path / "file.npz", called="it") as archive:
        assert archive.kind("a") == (np.dtype(float), (3, 4))


ENOUGH = b"\0" * 12


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (member(header((2**40,)), ENOUGH), "has not the bytes"),
        (member(header((2,)), ENOUGH), "has not the bytes"),
        (member(header((-3,)), ENOUGH), "has not the bytes"),
        (member(header((-3, -1)), ENOUGH), "has not the bytes"),
        (member(header((10**400,)), ENOUGH), "has not the bytes"),
        (member(header(descr="|O"), ENOUGH), "holds Python objects"),
        (member(header(descr=[("a", "O"), ("b", "<f4")]), ENOUGH), "holds Python objects"),
        (member(header(descr="nonsense"), ENOUGH), ""),
        (member("-" * 9000 + "1"), ""),
        (member("(" * 9000), ""),
        (member("[" * 60 + "]" * 60), ""),
        (member("{'descr': '<f4'}\n"), ""),
        (member(b"\xff\xfe\0"), ""),
        (member("{'descr': '''"), ""),
        (member(header() + " " * 60_000, ENOUGH), ""),
        (member(header(), ENOUGH, b"\x09\x00"), ""),
        (b"\x93NUMPY", ""),
        (b"", ""),
    ],
)
def test_a_broken_header(tmp_path, content, reason):
    path = write(tmp_path / "file.npz", a=content, b=member(header(), ENOUGH))
    with pytest.raises(FileFormatError, match=f"file.npz cannot be read as npz .*{reason}") as caught:
        read(path, "a")
    assert "\n" not in str(caught.value)
    assert read(path, "b")["b"].tolist() == [0, 0, 0]


def test_an_encrypted_member_and_an_unknown_compression(tmp_path):
    path = write(tmp_path / "file.npz", a=member(header(), ENOUGH))
    whole = path.read_bytes()
    central = whole.index(b"PK\x01\x02")
    for place, flag in ((8, 1), (10, 77)):  # the general flags, the method
        damaged = bytearray(whole)
        damaged[central + place] |= flag
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="cannot be read as npz"):
            read(path)


def test_a_checksum_is_compared(tmp_path):
    path = write(tmp_path / "file.npz", a=member(header(), ENOUGH))
    path.write_bytes(path.read_bytes().replace(ENOUGH, b"\0" * 11 + b"\1"))
    with pytest.raises(FileFormatError, match="CRC"):
        read(path)


def test_a_small_file_that_claims_much_is_refused_before_it_is_decompressed(tmp_path):
    zeros = io.BytesIO()
    np.save(zeros, np.zeros(UNQUESTIONED_BYTES // 8))
    path = write(tmp_path / "bomb.npz", zipfile.ZIP_DEFLATED, a=zeros.getvalue())
    assert path.stat().st_size < 20_000
    np.testing.assert_array_equal(read(path, largest_ratio=2000)["a"], 0)
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match=r"claims to hold 16,777,\d+, expected at most 16,777,216"):
            read(path, largest_ratio=20)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_what_nobody_asks_for_is_not_read(tmp_path):
    path = write(tmp_path / "file.npz", a=member(header(), ENOUGH), b=b"rubbish", c=member(header((2**50,))))
    assert list(read(path, "a")) == ["a"]
    with open_npz(path, called="it") as archive, pytest.raises(KeyError):
        archive.read("d")


def test_no_archive(tmp_path):
    path = tmp_path / "file.npz"
    path.write_bytes(b"hello")
    with pytest.raises(FileFormatError, match="not a zip archive"):
        read(path)
    with pytest.raises(FileNotFoundError):
        read(tmp_path / "none.npz")
