"""`.npy` and safetensors files, valid and invalid."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from service.scoring.job import ScoringError
from tests.service.scoring.sources.conftest import Read, read_all, spans_of


def test_array_yields_its_rows(read: Read, tmp_path: Path) -> None:
    array = np.arange(40 * 6, dtype=np.float32).reshape(40, 2, 3)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal([values["array"] for _, values, _ in read(tmp_path / "a.npy", 7)], array)


def test_shards_of_an_array_have_equal_sizes_but_for_the_last(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(40_000))
    assert [span.rows for span in spans_of(tmp_path / "a.npy", 8192)] == [8192] * 4 + [7232]
    rows = read_all(tmp_path / "a.npy", 8192)
    assert [number for number, _, _ in rows] == list(range(40_000))


def test_safetensors_yields_rows_of_every_tensor(read: Read, tmp_path: Path) -> None:
    tensors = {"x": np.random.default_rng(0).integers(0, 256, (20, 4), dtype=np.uint8), "n": np.arange(20)}
    save_file(tensors, tmp_path / "a.safetensors")
    found = read(tmp_path / "a.safetensors", 6)
    for name, tensor in tensors.items():
        assert np.array_equal([values[name] for _, values, _ in found], tensor)


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.asfortranarray(np.zeros((3, 2))), "Fortran order"),
        (np.array([{}], object), "expected an array of numbers"),
        (np.array(["a"]), "expected an array of numbers"),
        (np.array(1.0), "expected an array of numbers with rows"),
    ],
)
def test_unsupported_arrays_are_refused(array: np.ndarray, reason: str, read: Read, tmp_path: Path) -> None:  # type: ignore[type-arg]
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(ScoringError, match=reason):
        read(tmp_path / "a.npy")


def test_truncated_file_is_an_error(read: Read, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((10, 10)))
    content = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(content[:-1])
    with pytest.raises(EOFError, match="1 bytes too early"):
        read(tmp_path / "a.npy")


@pytest.mark.parametrize("name", ["a.npy", "a.npy.gz", "a-ubyte"])
def test_second_array_in_a_file_is_an_error(name: str, read: Read, tmp_path: Path) -> None:
    if name == "a-ubyte":
        content = bytes([0, 0, 8, 1]) + np.array(10, ">u4").tobytes() + bytes(10)
    else:
        np.save(tmp_path / "one", np.zeros((10, 10)))
        content = (tmp_path / "one.npy").read_bytes()
    (tmp_path / name).write_bytes(gzip.compress(content * 2) if name.endswith(".gz") else content * 2)
    with pytest.raises(ValueError, match="bytes behind the array"):
        read(tmp_path / name, 3)


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY", b"PK\x03\x04 a zip", b"\xff" * 64])
@pytest.mark.parametrize("name", ["a.npy", "a.safetensors"])
def test_file_that_is_no_tensor_file_is_refused(content: bytes, name: str, read: Read, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ScoringError, match=r"not a (npy|safetensors) file"):
        read(tmp_path / name)


def test_header_with_wrong_sizes_is_refused(read: Read, tmp_path: Path) -> None:
    header = json.dumps({"x": {"dtype": "U8", "shape": [1000, 1000], "data_offsets": [0, 10]}}).encode()
    (tmp_path / "a.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(10))
    with pytest.raises(ScoringError, match="bytes, which does not match its shape"):
        read(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.idx", "t10k-images-idx3-ubyte", "t10k-images-idx3-ubyte.gz"])
@pytest.mark.parametrize(("kind", "dtype"), [(8, "u1"), (9, "i1"), (11, ">i2"), (12, ">i4"), (13, ">f4"), (14, ">f8")])
def test_idx_yields_its_rows(name: str, kind: int, dtype: str, read: Read, tmp_path: Path) -> None:
    array = np.arange(40 * 6).reshape(40, 2, 3).astype(dtype)
    content = bytes([0, 0, kind, 3]) + np.array(array.shape, ">u4").tobytes() + array.tobytes()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    found = [values["array"] for _, values, _ in read(tmp_path / name, 7)]
    assert np.array_equal(found, array)
    assert all(row.dtype.isnative for row in found)


@pytest.mark.parametrize("content", [b"\0\0\x08", b"\0\1\x08\1" + bytes(4), b"\0\0\x07\1" + bytes(4), b"\0\0\x08\0"])
def test_a_broken_idx_file_is_refused(content: bytes, read: Read, tmp_path: Path) -> None:
    (tmp_path / "a.idx").write_bytes(content)
    with pytest.raises(ScoringError, match="not a idx file"):
        read(tmp_path / "a.idx")


@pytest.mark.parametrize("kind", [">f4", ">i8", "<f2"])
def test_arrays_of_any_byte_order_are_read(kind: str, read: Read, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.arange(6).reshape(3, 2).astype(kind))
    found = [values["array"].tolist() for _, values, _ in read(tmp_path / "a.npy", 2)]
    assert found == [[0, 1], [2, 3], [4, 5]]
