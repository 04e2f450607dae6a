"""Examples are found under the names that people give them, and a file that cannot be used is one sentence."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from export.sources import examples as examples_module
from export.sources.examples import read_arrays, read_examples

X, Y = np.arange(30, dtype=np.float32).reshape(10, 3), np.arange(10)


def save(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "e.npz", **arrays)
    return folder / "e.npz"


def test_both_kinds_of_files_are_read(tmp_path: Path) -> None:
    save_file({"x": X}, tmp_path / "e.safetensors")
    for path in (save(tmp_path, x=X), tmp_path / "e.safetensors"):
        np.testing.assert_array_equal(read_arrays(path)["x"], X)


@pytest.mark.parametrize("names", [("images", "y"), ("x", "labels"), ("whatever", "targets"), ("X", "target")])
def test_the_only_array_of_items_may_have_any_name(names: tuple[str, str], tmp_path: Path) -> None:
    items, target = names
    examples = read_examples(save(tmp_path, **{items: X, target: Y, "mean": 0.5}), {"images": True})
    assert examples.names == ["images"]
    np.testing.assert_array_equal(examples.targets[0], Y)


def test_groups_are_items_of_other_sizes(tmp_path: Path) -> None:
    path = save(tmp_path, **{"x": X, "y": Y, "x.1": X[:, :2], "y.1": Y})
    examples = read_examples(path, {"series": True, "lengths": False})
    assert [group["series"].shape for group in examples.groups] == [(10, 3), (10, 2)]
    assert len(examples.targets) == 2


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"a": X, "b": X}, "lacks images; it holds a, b"),
        ({"x": X[:3]}, "holds 3 items, expected 8 or more"),
        ({"x": X, "y": Y[:9]}, "holds 10 images, 9 targets in group 0"),
        ({"x": np.full((10, 2), np.nan)}, "item 0 of images has a value that is not finite"),
        ({"x": X, "x.1": X[:0]}, "holds no items in group 1"),
        ({"x": X, "y": Y, "x.1": X}, "has targets for 1 of 2 groups"),
        ({}, "holds no items|lacks images"),
    ],
)
def test_examples_that_cannot_be_used(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=sentence):
        read_examples(save(tmp_path, **arrays), {"images": True})


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no file"):
        read_arrays(tmp_path / "absent.npz")
    with pytest.raises(ValueError, match="holds Python objects"):
        read_arrays(save(tmp_path, x=np.array([{}, None], object)))
    for name in ("e.safetensors", "e.csv", "f.npz"):
        (tmp_path / name).write_bytes(b"no")
    with pytest.raises(ValueError, match="cannot be read"):
        read_arrays(tmp_path / "e.safetensors")
    with pytest.raises(ValueError, match=r"is no \.safetensors or \.npz file"):
        read_arrays(tmp_path / "e.csv")
    with pytest.raises(ValueError, match=r"f\.npz"):
        read_arrays(tmp_path / "f.npz")


def npz(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def npy(shape: str, content: bytes = b"") -> bytes:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".ljust(117)
    return b"\x93NUMPY\x01\x00\x76\x00" + f"{header}\n".encode() + content


WHOLE = npz(**{"x.npy": npy("(2, 2)", bytes(16))})


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "cannot be read: File is not a zip file"),
        (b"\x80\x04K\x01.", "cannot be read: File is not a zip file"),
        (npy("(2, 2)", bytes(16)), "cannot be read: File is not a zip file"),
        (WHOLE[: len(WHOLE) // 2], "cannot be read: File is not a zip file"),
        (WHOLE.replace(bytes(16), b"1" * 16), "cannot be read: Bad CRC-32"),
        (npz(**{"x.npy": npy("(1000000, 1000000)")}), "'x' cannot be read: "),
        (npz(**{"x.npy": npy("(2, 2)", b"short")}), "'x' cannot be read: "),
        (npz(**{"../x.py": b"import os"}), r"holds '\.\./x\.py', expected arrays alone"),
    ],
)
def test_archives_that_cannot_be_read(content: bytes, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "e.npz").write_bytes(content)
    with pytest.raises(ValueError, match=rf"e\.npz:? {sentence}") as caught:
        read_arrays(tmp_path / "e.npz")
    assert "\n" not in str(caught.value)


def test_an_archive_that_inflates_beyond_memory_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examples_module, "MAX_BYTES", 1 << 20)
    np.savez_compressed(tmp_path / "e.npz", x=np.zeros(1 << 20))
    assert (tmp_path / "e.npz").stat().st_size < 1 << 20
    with pytest.raises(ValueError, match="holds 0 GiB of arrays, this machine has 0 GiB of memory"):
        read_arrays(tmp_path / "e.npz")


def test_numbers_of_another_byte_order_are_read(tmp_path: Path) -> None:
    found = read_arrays(save(tmp_path, x=X.astype(">f4")))["x"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
