"""CIFAR-10, or any set in one of its two forms: by default ten drawn shapes of the same size.

Pixels stay uint8 [items, 32, 32, 3]. The official binary records and folders of JPEG images hold the same pictures, one
form exactly and the other not: a source that holds both is refused, so that no test image is ever learned from.
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

SEED = 2009  # of the cuts and the drawn shapes, whatever the training's own seed
LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
RECORD = 1 + 3 * 32 * 32  # label, then 1,024 red, green and blue bytes, row by row
PICTURES = (".jpg", ".jpeg", ".png")
Images = npt.NDArray[np.uint8]
Pair = tuple[Images, npt.NDArray[np.int64]]


def load(path: Path | None) -> Data:
    """Embedded: 5,000 drawn shapes. Real: a folder or archive of binary batches, or of `train|test/CLASS/*.jpg|png`."""
    if path is None:
        images, targets = shapes.draw(5_000, seed=SEED)
        train, test = (images[:4_000], targets[:4_000]), (images[4_000:], targets[4_000:])
        digest = {"drawn shapes": hashlib.sha256(images.tobytes() + targets.tobytes()).hexdigest()}
        note = "Not photographs: 5,000 shapes drawn from a seed in CIFAR-10's form, in any colour and place."
        return _data(
            name="Drawn shapes, 32 x 32",
            note=note,
            train=train,
            test=test,
            labels=tuple(shapes.SHAPES),
            sha256=digest,
        )
    source = Source(path)
    batches = [name for name in source.names if name.endswith(".bin")]
    pictures = [name for name in source.names if name.lower().endswith(PICTURES)]
    packed = [name for name in source.names if name.endswith((".tar", ".tar.xz", ".tgz", ".zip"))]
    if batches and pictures:
        raise ValueError(f"{path}: holds binary batches and image files: the same pictures twice; name one of the two")
    if batches:
        train, test, labels = _binary(source, batches)
        note = f"Official binary batches: {len(train[0]):,} training and {len(test[0]):,} test images."
    elif pictures:
        train, test, labels = _folders(source, pictures)
        note = f"Folders of image files: {len(train[0]):,} training and {len(test[0]):,} test images."
    else:
        hint = f"; it holds archives, name one of them: {', '.join(packed)}" if packed else ""
        raise ValueError(f"{path}: expected *_batch*.bin files or train|test/CLASS/*.jpg folders{hint}")
    return _data(name="CIFAR-10", note=note, train=train, test=test, labels=labels, sha256=source.sha256)


def _data(*, name: str, note: str, train: Pair, test: Pair, labels: tuple[str, ...], sha256: Mapping[str, str]) -> Data:
    kept, held = hold_out(train[1], share=0.08, seed=SEED)
    learned = train[0][kept]
    return Data(
        name=name,
        note=note,
        train=Split(inputs={"images": learned}, targets=train[1][kept]),
        validation=Split(inputs={"images": train[0][held]}, targets=train[1][held]),
        test=Split(inputs={"images": test[0]}, targets=test[1]),
        labels=labels,
        sha256=sha256,
        config=statistics(learned),
    )


def _binary(source: Source, batches: list[str]) -> tuple[Pair, Pair, tuple[str, ...]]:
    tests = [name for name in batches if "test" in Path(name).name]
    trains = [name for name in batches if name not in tests]
    if not tests or not trains:
        raise ValueError(f"{source.path}: expected data_batch_N.bin and test_batch.bin, found {', '.join(batches)}")
    meta = source.find("batches.meta.txt")
    labels = tuple(source.text(meta).split()) if meta else LABELS
    parts = [[read_batch(source.read(name), where=source.where(name)) for name in names] for names in (trains, tests)]
    train, test = ((np.concatenate([p[0] for p in part]), np.concatenate([p[1] for p in part])) for part in parts)
    return train, test, labels


def read_batch(content: bytes, *, where: str) -> Pair:
    """Images and labels of one binary batch; how many there are is told by its size alone."""
    if len(content) % RECORD or not content:
        raise ValueError(f"{where}: expected records of {RECORD} bytes, found {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, RECORD)
    wrong = np.flatnonzero(records[:, 0] >= len(LABELS))
    if len(wrong):
        raise ValueError(f"{where}, record {wrong[0]}: expected a label 0-9, found {records[wrong[0], 0]}")
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images), records[:, 0].astype(np.int64)


def _folders(source: Source, pictures: list[str]) -> tuple[Pair, Pair, tuple[str, ...]]:
    placed = [(*_place(source, name), name) for name in pictures]
    labels = tuple(sorted({label for part, label, _ in placed if part == "train"}))
    tested = {label for part, label, _ in placed if part == "test"}
    if len(labels) != len(LABELS) or tested != set(labels):
        raise ValueError(
            f"{source.path}: expected the same 10 class folders in train and test, found {labels} and {tested}"
        )
    pairs: list[Pair] = []
    for wanted in ("train", "test"):
        chosen = [(label, name) for part, label, name in placed if part == wanted]
        images = np.empty((len(chosen), 32, 32, 3), np.uint8)
        for row, (_, name) in enumerate(chosen):
            images[row] = read_picture(source.read(name), where=source.where(name))
        pairs.append((images, np.array([labels.index(label) for label, _ in chosen], np.int64)))
    return pairs[0], pairs[1], labels


def _place(source: Source, name: str) -> tuple[str, str]:
    parts = name.split("/")
    if len(parts) < 3 or parts[-3] not in ("train", "test"):
        raise ValueError(f"{source.where(name)}: expected the image at train/CLASS/ or test/CLASS/")
    return parts[-3], parts[-2]


def read_picture(content: bytes, *, where: str) -> Images:
    """RGB pixels [32, 32, 3] of an image file."""
    try:
        with Image.open(io.BytesIO(content), formats=("JPEG", "PNG")) as image:
            if image.size != (32, 32):
                raise ValueError(f"{where}: expected 32 x 32 pixels, found {image.width} x {image.height}")
            return np.asarray(image.convert("RGB"))
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{where}: expected a JPEG or PNG image: {error}") from error
