"""CIFAR-10, or any data set in one of its two forms: by default, drawn shapes of the same size.

Pixels stay uint8 [items, 32, 32, 3]. A source with both forms (official binary batches and folders of images) is
refused: JPEG changes pixels, so duplicates would be missed and a test image could be trained on.
"""

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from training.data import shapes
from training.data.holdout import hold_out
from training.data.pixels import statistics
from training.data.source import Source
from training.recipe import Data, Split

# The seed of the splits and the drawn shapes, independent of the seed of the run.
SEED = 2009
NOT_FOR = "Not for other classes or larger pictures."
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

# A record is the label, then 1,024 bytes each of red, green and blue, row by row.
RECORD_BYTES = 1 + 3 * 32 * 32
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
Images = npt.NDArray[np.uint8]
Pair = tuple[Images, npt.NDArray[np.int64]]


def load(path: Path | None) -> Data:
    """Load 5,000 drawn shapes, or CIFAR-10 from a folder or archive: binary batches or train|test/CLASS/ images."""
    if path is None:
        images, targets = shapes.draw(5_000, seed=SEED)
        train, test = (images[:4_000], targets[:4_000]), (images[4_000:], targets[4_000:])
        digest = {"drawn shapes": hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()}
        note = (
            "5,000 synthetic images of ten shapes in the format of CIFAR-10, with random colours and positions; "
            "they are not photographs. Not for any other picture: the labels are the names of drawn shapes."
        )
        return _data(
            name="drawn-shapes (synthetic)",
            note=note,
            train=train,
            test=test,
            labels=tuple(shapes.SHAPES),
            sha256=digest,
        )
    source = Source(path)
    batches = [name for name in source.names if name.endswith(".bin")]
    image_files = [name for name in source.names if name.lower().endswith(IMAGE_SUFFIXES)]
    archives = [name for name in source.names if name.endswith((".tar", ".tar.xz", ".tgz", ".zip"))]
    if batches and image_files:
        raise ValueError(
            f"{path}: holds binary batches and image files, which are the same images; pass the path of one of them"
        )
    if batches:
        train, test, labels = _binary(source, batches)
        note = f"Official binary batches: {len(train[0]):,} training and {len(test[0]):,} test images. {NOT_FOR}"
    elif image_files:
        train, test, labels = _folders(source, image_files)
        note = f"Folders of image files: {len(train[0]):,} training and {len(test[0]):,} test images. {NOT_FOR}"
    else:
        hint = f"; it holds archives, pass the path of one of them: {', '.join(archives)}" if archives else ""
        raise ValueError(f"{path}: expected *_batch*.bin files or train|test/CLASS/*.jpg folders{hint}")
    return _data(name=source.name, note=note, train=train, test=test, labels=labels, sha256=source.sha256)


def _data(*, name: str, note: str, train: Pair, test: Pair, labels: tuple[str, ...], sha256: Mapping[str, str]) -> Data:
    train_items, validation_items = hold_out(train[1], share=0.08, seed=SEED)
    train_images = train[0][train_items]
    return Data(
        name=name,
        note=note,
        train=Split(inputs={"images": train_images}, targets=train[1][train_items]),
        validation=Split(inputs={"images": train[0][validation_items]}, targets=train[1][validation_items]),
        test=Split(inputs={"images": test[0]}, targets=test[1]),
        labels=labels,
        sha256=sha256,
        config=statistics(train_images),
    )


def _binary(source: Source, batches: list[str]) -> tuple[Pair, Pair, tuple[str, ...]]:
    tests = [name for name in batches if "test" in Path(name).name]
    trains = [name for name in batches if name not in tests]
    if not tests or not trains:
        raise ValueError(f"{source.path}: expected data_batch_N.bin and test_batch.bin, found {', '.join(batches)}")
    meta = source.first_match("batches.meta.txt")
    labels = tuple(source.read_text(meta).split()) if meta else LABELS
    parts = [
        [read_batch(source.read(name), location=source.location(name)) for name in names] for names in (trains, tests)
    ]
    train, test = ((np.concatenate([p[0] for p in part]), np.concatenate([p[1] for p in part])) for part in parts)
    return train, test, labels


def read_batch(content: bytes, *, location: str) -> Pair:
    """The images and labels of one binary batch; the number of records follows from its size."""
    if len(content) % RECORD_BYTES or not content:
        raise ValueError(f"{location}: expected records of {RECORD_BYTES} bytes, found {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD_BYTES)
    invalid = np.flatnonzero(records[:, 0] >= len(LABELS))
    if len(invalid):
        raise ValueError(f"{location}, record {invalid[0]}: expected a label 0-9, found {records[invalid[0], 0]}")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _folders(source: Source, image_files: list[str]) -> tuple[Pair, Pair, tuple[str, ...]]:
    items = [(*_part_and_label(source, name), name) for name in image_files]
    labels = tuple(sorted({label for part, label, _ in items if part == "train"}))
    test_labels = {label for part, label, _ in items if part == "test"}
    if len(labels) != len(LABELS) or test_labels != set(labels):
        raise ValueError(
            f"{source.path}: expected the same 10 class folders in train and test, found {labels} and {test_labels}"
        )
    pairs: list[Pair] = []
    for wanted_part in ("train", "test"):
        part_items = [(label, name) for part, label, name in items if part == wanted_part]
        images = np.empty((len(part_items), 32, 32, 3), np.uint8)
        for row, (_, name) in enumerate(part_items):
            images[row] = read_image(source.read(name), location=source.location(name))
        pairs.append((images, np.array([labels.index(label) for label, _ in part_items], np.int64)))
    return pairs[0], pairs[1], labels


def _part_and_label(source: Source, name: str) -> tuple[str, str]:
    parts = name.split("/")
    if len(parts) < 3 or parts[-3] not in ("train", "test"):
        raise ValueError(f"{source.location(name)}: expected the image at train/CLASS/ or test/CLASS/")
    return parts[-3], parts[-2]


def read_image(content: bytes, *, location: str) -> Images:
    """RGB pixels [32, 32, 3] of an image file."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.size != (32, 32):
                raise ValueError(f"{location}: expected 32 x 32 pixels, found {image.width} x {image.height}")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{location}: expected a JPEG or PNG image: {error}") from error
