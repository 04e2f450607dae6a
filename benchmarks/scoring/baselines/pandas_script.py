"""A script as users write it: pandas reads, onnxruntime scores, pandas writes.

It reports bad rows and resumes after a crash file by file. It does not notice a changed row, a partly written file, or
a second copy of itself.
"""

import json
import logging
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pandas as pd

from benchmarks.scoring.baselines.common import bundle_folder, parse_arguments, timed

SHAPE = (28, 28)
BATCH = 256

log = logging.getLogger("score")


def load_model(folder: Path) -> tuple[ort.InferenceSession, list[str]]:
    """A session with default settings (one thread per core), and the labels."""
    session = ort.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    manifest = json.loads((folder / "manifest.json").read_text())
    return session, manifest["head"]["labels"]


def read_images(frame: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, list[dict[str, object]]]:  # type: ignore[type-arg]
    """All images of a frame as one array, their row numbers, and the reasons of the other rows."""
    images, good, bad = [], [], []
    for index, content in enumerate(frame["image"]):
        if content is None:
            bad.append({"row": index, "reason": "no image"})
            continue
        if len(content) != SHAPE[0] * SHAPE[1]:
            bad.append({"row": index, "reason": f"{len(content)} bytes"})
            continue
        images.append(np.frombuffer(content, np.uint8).reshape(SHAPE))
        good.append(index)
    return np.stack(images), np.array(good), bad


def predict(session: ort.InferenceSession, images: np.ndarray) -> np.ndarray:  # type: ignore[type-arg]
    """The probabilities [rows, labels]."""
    parts = []
    for begin in range(0, len(images), BATCH):
        [part] = session.run(["probabilities"], {"images": images[begin : begin + BATCH]})
        parts.append(part)
    return np.concatenate(parts)


def score_file(path: Path, output: Path, session: ort.InferenceSession, labels: list[str], rows: int) -> int:
    """Score one file into one file; return its number of rows."""
    frame = pd.read_parquet(path).head(rows)
    images, good, bad = read_images(frame)
    probabilities = predict(session, images)
    best = probabilities.argmax(axis=1)
    result = pd.DataFrame(
        {
            "file": path.name,
            "row": good,
            "id": frame["id"].to_numpy()[good],
            "label": [labels[i] for i in best],
            "probability": probabilities.max(axis=1),
        }
    )
    result.to_parquet(output / path.name)
    if bad:
        pd.DataFrame(bad).to_json(output / f"{path.stem}.rejects.jsonl", orient="records", lines=True)
        log.warning("%s: %d rows rejected", path.name, len(bad))
    return len(frame)


def score_folder(source: Path, output: Path, rows: int, folder: Path) -> None:
    """Score every file that has no result yet."""
    session, labels = load_model(folder)
    left = rows
    for path in sorted(source.glob("*.parquet")):
        if left <= 0:
            return
        if (output / path.name).exists():
            log.info("%s: already there", path.name)
            continue
        left -= score_file(path, output, session, labels, left)
        log.info("%s: done, %d rows left", path.name, left)


def main() -> None:
    source, output, rows, bundles = parse_arguments()
    if not list(source.glob("*.parquet")):
        sys.exit(f"no Parquet files in {source}")
    output.mkdir(parents=True)
    timed(rows, lambda: score_folder(source, output, rows, bundle_folder(bundles, "mnist-cnn")))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    main()
