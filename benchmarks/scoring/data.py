"""The inputs of the benchmark, generated from a seed."""

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

FILE_ROWS = 131_072
PIXELS = 28 * 28
WORDS = [
    "the", "a", "of", "to", "in", "and", "for", "on", "with", "is", "as", "by", "at", "from", "that", "it", "be",
    "are", "this", "an", "was", "not", "or", "have", "has", "which", "will", "stock", "market", "game", "team",
    "player", "minister", "government", "court", "file", "object", "list", "string", "return", "value", "socket",
    "request", "server", "thread", "process", "module", "class", "function", "error", "oil", "price", "bank", "win",
    "league", "cup", "space", "software", "network", "mobile",
]  # fmt: skip


def images(rows: int, *, seed: int = 0) -> np.ndarray:  # type: ignore[type-arg]
    """Random pixels, four fifths of them black as in MNIST: uint8 [rows, 784]."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (rows, PIXELS), dtype=np.uint8)
    pixels[rng.integers(0, 5, (rows, PIXELS), dtype=np.uint8) > 0] = 0
    return pixels


def write_images(folder: Path, rows: int) -> None:
    """Write Parquet files with the columns `id` and `image` (784 bytes per row)."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, begin in enumerate(range(0, rows, FILE_ROWS)):
        count = min(FILE_ROWS, rows - begin)
        block = images(count, seed=number)
        column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(PIXELS), count, [None, pa.py_buffer(block)])
        table = pa.table({"id": np.arange(begin, begin + count), "image": column})
        pq.write_table(
            table,
            folder / f"{number:04}.parquet",
            compression="none",
            use_dictionary=False,
            row_group_size=FILE_ROWS // 4,
        )


def texts(rows: int, *, seed: int = 0) -> list[str]:
    """Texts of 10 to 60 words, as long as the texts of AG News."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(10, 61))) for _ in range(rows)]


def write_texts(folder: Path, rows: int) -> None:
    """Write a CSV file with the columns `id` and `text`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "news.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("id", "text"))
        writer.writerows(enumerate(texts(rows)))
