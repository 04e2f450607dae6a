"""Rows for every tiny model, written in every format that can hold them."""

import gzip
import io
import json
import lzma
import tarfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pyarrow import feather, orc
from safetensors.numpy import save_file

from tests.service.bundles import LETTERS, NAMES, WORDS

FIELD = {
    "image-classifier": "image",
    "text-classifier": "text",
    "series-classifier": "sequence",
    "series-tagger": "sequence",
    "language-model": "prompt",
    "image-generator": "seed",
}


def images(count: int, *, seed: int = 0) -> npt.NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, 4, 4), dtype=np.uint8)


def texts(count: int, *, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS[1:], rng.integers(1, 7))) for _ in range(count)]


def series(count: int, *, seed: int = 0, steps: int | None = None) -> list[npt.NDArray[np.float32]]:
    rng = np.random.default_rng(seed)
    return [rng.normal(size=(steps or rng.integers(1, 13), 2)).astype(np.float32) for _ in range(count)]


def prompts(count: int, *, seed: int = 0) -> list[str]:
    rng = np.random.default_rng(seed)
    return ["".join(rng.choice(list(LETTERS[:26]), rng.integers(1, 8))) for _ in range(count)]


def items(family: str, count: int, *, seed: int = 0) -> list[Any]:
    """Rows in the form that a request holds them."""
    match family:
        case "image-classifier":
            return [image.tolist() for image in images(count, seed=seed)]
        case "text-classifier":
            return list(texts(count, seed=seed))
        case "series-classifier" | "series-tagger":
            return [row.astype(float).tolist() for row in series(count, seed=seed)]
        case "language-model":
            return list(prompts(count, seed=seed))
        case _:
            return [seed + i for i in range(count)]


def requests(family: str, rows: Sequence[Any]) -> list[dict[str, Any]]:
    """One request body per row."""
    model = {"model": NAMES[family]}
    match family:
        case "image-classifier":
            return [{**model, "images": [row], "top_k": 1} for row in rows]
        case "text-classifier":
            return [{**model, "texts": [row], "top_k": 1} for row in rows]
        case "series-classifier" | "series-tagger":
            return [{**model, "sequences": [row], "top_k": 1} for row in rows]
        case "language-model":
            return [{**model, "prompt": row, "seed": 0, "max_tokens": 5} for row in rows]
        case _:
            return [{**model, "count": 1, "seed": row} for row in rows]


def png(image: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(path: Path, columns: Mapping[str, Any], *, group: int = 1000) -> Path:
    pq.write_table(pa.table(dict(columns)), path, row_group_size=group)
    return path


def write_csv(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    def cell(value: Any) -> str:
        return '"' + str(value).replace('"', '""') + '"'

    lines = [",".join(columns), *(",".join(map(cell, row)) for row in zip(*columns.values(), strict=True))]
    content = ("\n".join(lines) + "\n").encode()
    return _write(path, content)


def write_jsonl(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    rows = (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))
    return _write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_text(path: Path, lines: Sequence[str]) -> Path:
    return _write(path, "".join(line + "\n" for line in lines).encode())


def write_folder(path: Path, array: npt.NDArray[np.uint8]) -> Path:
    for i, image in enumerate(array):
        target = path / f"class{i // 20}" / f"{i:05d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(png(image))
    return path


def write_tar(path: Path, array: npt.NDArray[np.uint8]) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for i, image in enumerate(array):
            content = png(image)
            member = tarfile.TarInfo(f"pictures/{i:05d}.png")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return _write(path, buffer.getvalue())


def _write(path: Path, content: bytes) -> Path:
    match path.suffix:
        case ".gz" | ".tgz":
            content = gzip.compress(content, mtime=0)
        case ".zst":
            content = pa.compress(content, codec="zstd", asbytes=True)
        case ".xz":
            content = lzma.compress(content)
    path.write_bytes(content)
    return path


def arrow_images(array: npt.NDArray[np.uint8]) -> pa.Array:
    """Raw pixels, 16 bytes per row."""
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(array), [None, pa.py_buffer(array.tobytes())])


def arrow_series(rows: Sequence[npt.NDArray[np.float32]]) -> pa.Array:
    return pa.array([row.tolist() for row in rows], pa.list_(pa.list_(pa.float32())))


# Name -> family of model, and writer(folder, rows).
FORMATS: dict[str, tuple[str, Callable[[Path, int], Path]]] = {
    "parquet-pixels": (
        "image-classifier",
        lambda to, n: write_parquet(
            to / "images.parquet",
            {"id": [f"r{i}" for i in range(n)], "image": arrow_images(images(n))},
            group=n // 3 + 1,
        ),
    ),
    "parquet-lists": (
        "image-classifier",
        lambda to, n: write_parquet(
            to / "images.parquet",
            {"image": pa.array([image.reshape(-1) for image in images(n)], pa.list_(pa.uint8()))},
        ),
    ),
    "parquet-encoded": (
        "image-classifier",
        lambda to, n: write_parquet(
            to / "images.parquet", {"image": [{"bytes": png(image), "path": "x"} for image in images(n)]}
        ),
    ),
    "parquet-series": (
        "series-classifier",
        lambda to, n: write_parquet(to / "series.parquet", {"series": arrow_series(series(n))}),
    ),
    "parquet-tags": (
        "series-tagger",
        lambda to, n: write_parquet(to / "series.parquet", {"series": arrow_series(series(n))}),
    ),
    "csv": ("text-classifier", lambda to, n: write_csv(to / "texts.csv", {"id": range(n), "text": texts(n)})),
    "csv-gzip": ("text-classifier", lambda to, n: write_csv(to / "texts.csv.gz", {"id": range(n), "text": texts(n)})),
    "jsonl": ("text-classifier", lambda to, n: write_jsonl(to / "texts.jsonl", {"id": range(n), "text": texts(n)})),
    "jsonl-zstd": (
        "image-classifier",
        lambda to, n: write_jsonl(to / "images.jsonl.zst", {"image": images(n).tolist()}),
    ),
    "jsonl-series": (
        "series-tagger",
        lambda to, n: write_jsonl(to / "series.jsonl", {"sequence": items("series-tagger", n)}),
    ),
    "text": ("text-classifier", lambda to, n: write_text(to / "texts.txt", texts(n))),
    "text-gzip": ("text-classifier", lambda to, n: write_text(to / "texts.txt.gz", texts(n))),
    "npy": ("image-classifier", lambda to, n: _npy(to / "images.npy", images(n))),
    "safetensors": ("image-classifier", lambda to, n: _safetensors(to / "images.safetensors", {"images": images(n)})),
    "folder": ("image-classifier", lambda to, n: write_folder(to / "pictures", images(n))),
    "tar": ("image-classifier", lambda to, n: write_tar(to / "pictures.tar", images(n))),
    "tar-gzip": ("image-classifier", lambda to, n: write_tar(to / "pictures.tgz", images(n))),
    "idx": ("image-classifier", lambda to, n: _idx(to / "images-idx3-ubyte.gz", images(n))),
    "feather": (
        "text-classifier",
        lambda to, n: _feather(to / "texts.feather", {"id": range(n), "text": texts(n)}),
    ),
    "arrow-stream": (
        "image-classifier",
        lambda to, n: _stream(
            to / "data.arrow", {"image": [{"bytes": png(image), "path": None} for image in images(n)]}
        ),
    ),
    "orc": ("series-classifier", lambda to, n: _orc(to / "series.orc", {"series": arrow_series(series(n))})),
    "csv-xz": ("text-classifier", lambda to, n: write_csv(to / "texts.csv.xz", {"id": range(n), "text": texts(n)})),
    "prompts": ("language-model", lambda to, n: write_jsonl(to / "prompts.jsonl", {"prompt": prompts(n)})),
    "seeds": ("image-generator", lambda to, n: write_csv(to / "seeds.csv", {"seed": range(n)})),
}


def _idx(path: Path, array: npt.NDArray[np.uint8]) -> Path:
    return _write(path, bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.tobytes())


def _feather(path: Path, columns: Mapping[str, Any]) -> Path:
    feather.write_feather(pa.table(dict(columns)), str(path), chunksize=7)
    return path


def _stream(path: Path, columns: Mapping[str, Any]) -> Path:
    """As `save_to_disk` of Hugging Face writes it."""
    table = pa.table(dict(columns))
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=7)
    return path


def _orc(path: Path, columns: Mapping[str, Any]) -> Path:
    orc.write_table(pa.table(dict(columns)), path)
    return path


def _npy(path: Path, array: npt.NDArray[Any]) -> Path:
    np.save(path, array)
    return path


def _safetensors(path: Path, tensors: dict[str, npt.NDArray[Any]]) -> Path:
    save_file(tensors, path)
    return path
