"""Damaged and foreign data files: whatever the bytes are, they are data or an error that says so."""

from __future__ import annotations

import gzip
import io
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow.parquet import write_table as write_parquet

import gpunet
from gpunet.data import Preparation, archives, load_for_model, load_for_training, split_rows
from tests.helpers.mutation import mutants

MUTANTS = 150


CHOICES: list[dict[str, Any]] = [
    {},
    {"task": "classification"},
    {"task": "regression"},
    {"missing": "median"},
    {"missing": "mean", "categorical": ["auto"]},
]


def attempt(path: Path) -> bool:
    """Go the way of ``gpunet train`` and ``gpunet predict`` as far as the network; say whether there were data."""
    target = None if path.suffix == ".npz" else "y"
    learned = False
    for choice in CHOICES[: 4 if target is None else None]:
        try:
            data = load_for_training(str(path), target=target, **choice)
            preparation = Preparation.learn(data, split_rows(data, 0), 0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", gpunet.UnknownCategoryWarning)
                load_for_model(str(path), preparation, need_target=False)
                found = load_for_model(str(path), preparation, need_target=True)
        except (gpunet.GpunetError, OSError):
            continue
        learned = True
        assert np.isfinite(preparation.inputs_of(found)).all()
        assert found.fingerprint() == data.fingerprint() == preparation.fingerprint
    return learned


ROWS = 20
FEATURES = np.random.default_rng(0).standard_normal((ROWS, 3))


def table(target: str) -> bytes:
    lines = [f"{a},{b},{c},{target.split()[row % 2]}" for row, (a, b, c) in enumerate(FEATURES.tolist())]
    return "\n".join(["a,b,c,y", *lines, ""]).encode()


def archive(save: Any, X: Any, y: Any) -> bytes:
    file = io.BytesIO()
    save(file, X=X, y=y)
    return file.getvalue()


def parquet() -> bytes:
    file = io.BytesIO()
    columns = {name: FEATURES[:, place] for place, name in enumerate("abc")}
    columns |= {"text": ["u", None] * (ROWS // 2), "y": ["red", "blue"] * (ROWS // 2)}
    write_parquet(pyarrow.table(columns), file)
    return file.getvalue()


SEEDS = {
    "text.csv": table("red blue"),
    "missing.csv": b"a,b,y\n" + b"1,,red\n,u,blue\n2,v,red\n3,u,blue\n" * 5,
    "packed.csv.gz": gzip.compress(table("red blue"), mtime=0),
    "table.parquet": parquet(),
    "integers.csv": table("01 1"),
    "numbers.csv": table("1.5 2e-3"),
    "quoted.csv": b'\xef\xbb\xbf"a","b, c",y\r\n' + b'"1","2","x ""y"""\r\n3,4,"a\nb"\r\n' * 10,
    "stored.npz": archive(np.savez, FEATURES, np.arange(ROWS) % 2),
    "compressed.npz": archive(np.savez_compressed, FEATURES, np.array(["a", "b"] * (ROWS // 2))),
    "numbers.npz": archive(np.savez, np.asfortranarray(FEATURES.astype(">f4")), FEATURES[:, 0]),
    "booleans.npz": archive(np.savez, FEATURES > 0, FEATURES[:, 0] > 0),
}
PIECES = {
    ".gz": [b"\x1f\x8b", b"\0" * 8, b"\xff" * 8],
    ".parquet": [b"PAR1", b"\0" * 8, b"\xff" * 8],
    ".csv": [
        *(
            b",",
            b'"',
            b"\n",
            b"\r",
            b"\0",
            b"\xa0",
            b"\xc2\xa0",
            b"NaN",
            b"inf",
            b"1e999",
            b"1_0",
            b"y",
            b"True",
            b"\t",
        ),
        *(b"\xff\xfe", b"9" * 400, "٣".encode(), b"\x1b[2J", b"x" * 200_000),
    ],
    ".npz": [
        *(b"PK\x01\x02", b"PK\x05\x06", b"X.npy", b"\x93NUMPY\x02\x00", b"|O", b"f4,f4", b"<U9", b"<V8", b"'shape'"),
        *(b"(" * 500, b"9" * 400, b"-", b"True", b"\xff" * 8, b"\0" * 8, b"[", b"lambda: "),
    ],
}


@pytest.mark.parametrize("name", SEEDS)
def test_mutants_are_data_or_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(SEEDS[name])
    assert attempt(path)
    for mutant in mutants(SEEDS[name], MUTANTS, seed=0, pieces=PIECES[path.suffix]):
        path.write_bytes(mutant)
        attempt(path)


CELLS = st.one_of(
    st.text(max_size=6),
    st.floats().map(str),
    st.integers().map(str),
    st.sampled_from(["", "NA", "NAN", "1_0", "True", "\xa01", "٣", '"', "a\nb", " 5 ", "1e", "0x1", "1" * 30]),
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.lists(CELLS, min_size=1, max_size=4), max_size=30),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    quoted=st.booleans(),
)
def test_any_table_is_data_or_refused(rows: list[list[str]], end: str, quoted: bool, tmp_path: Path) -> None:
    cells = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' if quoted else cell for cell in row] for row in rows]
    content = end.join(["a,b,y", *map(",".join, cells)])
    (tmp_path / "table.csv").write_bytes(content.encode("utf-8", "surrogatepass"))
    attempt(tmp_path / "table.csv")


DESCRIPTIONS = ["<f8", "<f4", "<f2", "<f16", ">i2", "|u1", "|b1", "<c16", "<U3", "|S3", "|O", "<M8[s]", "|V8", "<U0"]
HEADERS = st.fixed_dictionaries(
    {
        "descr": st.one_of(
            st.sampled_from([*DESCRIPTIONS, "f4,f4", "nonsense", "", "bfloat16", [("a", "<f4"), ("b", "|O")], None, 3]),
            st.text(max_size=4),
        ),
        "fortran_order": st.one_of(st.booleans(), st.none()),
        "shape": st.one_of(
            st.lists(st.integers(-2, 30), max_size=3).map(tuple),
            st.sampled_from(
                [(2**40, 3), (20, 2**61), (10**400, 3), (20,), (20, 3), "text", None, (1.5, 2), (20, True)]
            ),
        ),
    }
)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    X=HEADERS,
    y=HEADERS,
    content=st.binary(max_size=600),
    version=st.sampled_from([b"\1\0", b"\2\0", b"\3\0", b"\4\0"]),
)
def test_any_archive_is_data_or_refused(
    X: dict[str, Any], y: dict[str, Any], content: bytes, version: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "arrays.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, header in (("X", X), ("y", y)):
            text = (repr(header) + "\n").encode()
            length = len(text).to_bytes(2 if version == b"\1\0" else 4, "little")
            file.writestr(f"{name}.npy", b"\x93NUMPY" + version + length + text + content)
    attempt(path)


def write_archive(path: Path, X: bytes, **others: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in {"X": X, **others}.items():
            file.writestr(f"{name}.npy", content)
    return path


def array_file(shape: tuple[int, ...], content: bytes, descr: str = "|u1") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}\n".encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + content


def most_allocated(path: Path, message: str) -> int:
    """Return the bytes that a refusal took at most."""
    tracemalloc.start()
    try:
        with pytest.raises(gpunet.FileFormatError, match=message):
            load_for_training(str(path))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_small_file_of_large_arrays_is_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "arrays.npz"
    claimed = write_archive(path, array_file((2**40, 3), b"\0" * 60), y=array_file((20,), bytes(20)))
    assert most_allocated(claimed, "has not the bytes that its shape") < 2**20
    # True to the last byte: 2^24 zeros, which Deflate makes 16 KB and float64 2^27 bytes.
    write_archive(path, array_file((2**16, 256), bytes(2**24)), y=array_file((2**16,), bytes(2**16)))
    monkeypatch.setattr(archives, "_UNQUESTIONED_BYTES", 2**20)
    assert most_allocated(path, r"X takes 134,217,728 bytes in float64, of a file of 16,\d+ bytes") < 2**20


def test_arrays_that_nobody_asks_for_are_not_read(tmp_path: Path) -> None:
    X = array_file((20, 3), bytes(range(60)))
    y = array_file((20,), bytes(range(2)) * 10)
    path = write_archive(tmp_path / "arrays.npz", X, y=y, other=b"rubbish", objects=array_file((1,), b"", "|O"))
    data = load_for_training(str(path))
    preparation = Preparation.learn(data, split_rows(data, 0), 0)
    write_archive(path, X, y=b"rubbish")
    assert load_for_model(str(path), preparation, need_target=False).rows == 20
    with pytest.raises(gpunet.FileFormatError, match="cannot be read as npz"):
        load_for_model(str(path), preparation, need_target=True)
