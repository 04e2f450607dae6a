import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.data.test_source import make_tar
from training.data import cifar10

Contents = dict[str, bytes]


def binary_record(label: int, image: np.ndarray) -> bytes:
    """A record in the official format: label, 1,024 red, 1,024 green, 1,024 blue bytes, row by row."""
    return bytes([label]) + b"".join(image[:, :, channel].tobytes() for channel in range(3))


def binary_files(images: np.ndarray) -> Contents:
    """40 training records in two files of different sizes, and 20 test records."""
    rows = [binary_record(i % 10, image) for i, image in enumerate(images)]
    return {
        "cifar-10-batches-bin/data_batch_1.bin": b"".join(rows[:30]),
        "cifar-10-batches-bin/data_batch_2.bin": b"".join(rows[30:40]),
        "cifar-10-batches-bin/test_batch.bin": b"".join(rows[40:]),
    }


def image_folders(images: np.ndarray, kind: str) -> Contents:
    contents = {}
    for i, image in enumerate(images):
        file = io.BytesIO()
        Image.fromarray(image).save(file, kind.upper())
        part = "train" if i < 40 else "test"
        contents[f"set/{part}/{cifar10.LABELS[i % 10]}/{i:04}.{kind}"] = file.getvalue()
    return contents


def write(folder: Path, contents: Contents) -> None:
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (60, 32, 32, 3), np.uint8)


def test_load_reads_binary_batches(tmp_path: Path, images: np.ndarray) -> None:
    make_tar(tmp_path / "cifar.tar.gz", binary_files(images))
    data = cifar10.load(tmp_path / "cifar.tar.gz")
    assert np.array_equal(data.test.inputs["images"], images[40:])
    assert data.test.targets.tolist() == [i % 10 for i in range(20)]
    assert len(data.train) + len(data.validation) == 40
    assert data.labels == cifar10.LABELS


def test_image_folders_give_the_same_data_as_binary_batches(tmp_path: Path, images: np.ndarray) -> None:
    write(tmp_path / "bin", binary_files(images))
    write(tmp_path / "png", image_folders(images, "png"))
    from_binary, from_folders = cifar10.load(tmp_path / "bin"), cifar10.load(tmp_path / "png")
    for part in ("train", "validation", "test"):
        pairs = [
            {(image.tobytes(), target) for image, target in zip(split.inputs["images"], split.targets, strict=True)}
            for split in (getattr(from_binary, part), getattr(from_folders, part))
        ]
        assert part != "test" or pairs[0] == pairs[1]
        assert len(pairs[0]) == len(pairs[1])


def test_jpeg_is_decoded_to_rgb(tmp_path: Path) -> None:
    colours = np.zeros((60, 32, 32, 3), np.uint8) + np.array([200, 100, 20], np.uint8)
    make_tar(tmp_path / "set.tar.xz", image_folders(colours, "jpeg"))
    data = cifar10.load(tmp_path / "set.tar.xz")
    np.testing.assert_allclose(data.test.inputs["images"], colours[40:], atol=4)


def test_source_with_both_forms_is_refused(tmp_path: Path, images: np.ndarray) -> None:
    write(tmp_path, {**binary_files(images), **image_folders(images, "png")})
    with pytest.raises(ValueError, match="which are the same images; pass the path of one of them"):
        cifar10.load(tmp_path)


def test_folder_of_archives_is_refused_with_hint(tmp_path: Path) -> None:
    (tmp_path / "cifar10-jpeg.tar.xz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"it holds archives, pass the path of one of them: cifar10-jpeg\.tar\.xz"):
        cifar10.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cifar-10-batches-bin/test_batch.bin": b"\x01" * 3074}, r"test_batch\.bin: expected records of 3073 bytes"),
        ({"cifar-10-batches-bin/test_batch.bin": b"\x0b" * 3073}, "record 0: expected a label 0-9, found 11"),
    ],
)
def test_damaged_batch_is_named(tmp_path: Path, images: np.ndarray, change: Contents, message: str) -> None:
    write(tmp_path, {**binary_files(images), **change})
    with pytest.raises(ValueError, match=message):
        cifar10.load(tmp_path)


def test_damaged_or_misplaced_image_is_named(tmp_path: Path, images: np.ndarray) -> None:
    good = image_folders(images, "png")
    name = next(iter(good))
    small = io.BytesIO()
    Image.new("RGB", (16, 32)).save(small, "PNG")
    for content, message in [
        (b"not a picture", "0000.png: expected a JPEG or PNG image"),
        (good[name][:200], "0000.png: expected a JPEG or PNG image"),
        (small.getvalue(), "0000.png: expected 32 x 32 pixels, found 16 x 32"),
    ]:
        write(tmp_path, {**good, name: content})
        with pytest.raises(ValueError, match=message):
            cifar10.load(tmp_path)
    write(tmp_path, {name: good[name], "stray.png": good[name]})
    with pytest.raises(ValueError, match="expected the image at train/CLASS/ or test/CLASS/"):
        cifar10.load(tmp_path)


def test_embedded_shapes_are_described_as_drawn_and_splits_are_disjoint() -> None:
    data = cifar10.load(None)
    assert data.name == "drawn-shapes (synthetic)"
    assert "not photographs" in data.note
    assert [len(data.train) + len(data.validation), len(data.test), len(data.labels)] == [4_000, 1_000, 10]
    train_images = {image.tobytes() for image in data.train.inputs["images"]}
    assert not any(image.tobytes() in train_images for image in data.test.inputs["images"])


def test_real_binary_batches_are_read(real: Callable[[str], Path]) -> None:
    data = cifar10.load(real("cifar10/cifar-10-binary-subset.tar.gz"))
    assert [len(data.train) + len(data.validation), len(data.test)] == [7_319, 1_017]
    assert data.test.targets[:6].tolist() == [3, 8, 8, 0, 6, 6]
    np.testing.assert_allclose(data.config["mean"], [0.4914, 0.4822, 0.4465], atol=0.01)
