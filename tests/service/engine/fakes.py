"""A session with known results that can be blocked, counted and made to fail."""

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from service.manifest import Manifest
from tests.service.bundles import manifest_fields

POISON, NOT_FINITE = -113, -114
# For futures that no test awaits.
LOOP = asyncio.new_event_loop()
LOOP.close()


def manifest(family: str, **fields: Any) -> Manifest:
    names = ("model.onnx", "golden.safetensors", "requests.jsonl", "tokenizer.json")
    files = {name: {"sha256": "0" * 64, "bytes": 1} for name in names}
    return Manifest.versioned(**{**manifest_fields(family), **fields}, files=files)


class FakeSession:
    """A series tagger whose scores are the cumulative sums of the row, and whose states grow by one and two.

    Scores beyond a row's length are -1, so a result shows the length of its batch. A row that begins with POISON makes
    the run fail; the state of a row that begins with NOT_FINITE becomes NaN.
    """

    def __init__(self, *, max_steps: int = 64, seconds: float = 0.0, blocker: threading.Event | None = None) -> None:
        limits = {"max_items": 4096, "max_steps": max_steps}
        self.manifest = manifest("series-tagger", limits=limits)
        self.began = threading.Event()
        self.batches: list[list[float]] = []  # the first number of each row
        self.steps: list[int] = []  # of each batch
        self.threads: set[str] = set()
        self._blocker = blocker
        self._seconds = seconds

    @property
    def rows(self) -> list[float]:
        return [row for batch in self.batches for row in batch]

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], outputs: Sequence[str] | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        series_BTC, lengths_B = inputs["series"], inputs["lengths"]
        assert series_BTC.dtype == np.float32
        assert lengths_B.max() <= series_BTC.shape[1]
        self.threads.add(threading.current_thread().name)
        self.batches.append(series_BTC[:, 0, 0].tolist())
        self.steps.append(series_BTC.shape[1])
        self.began.set()
        if self._blocker is not None:
            assert self._blocker.wait(30)
        time.sleep(self._seconds)
        if POISON in series_BTC[:, 0, 0]:
            raise RuntimeError("poisoned")
        scores_BTC = np.cumsum(series_BTC, axis=1).repeat([2, 1], axis=2)
        scores_BTC[np.arange(series_BTC.shape[1]) >= lengths_B[:, None]] = -1
        answer = {
            "logits": scores_BTC,
            "probabilities": scores_BTC / 2,
            "next_h": inputs["h"] + 1,
            "next_c": inputs["c"] + 2,
        }
        answer["next_c"][series_BTC[:, 0, 0] == NOT_FINITE] = np.nan
        return {name: answer[name] for name in (answer if outputs is None else outputs)}


def rows(*lengths: int, first: float = 1.0, seed: int = 0) -> dict[str, npt.NDArray[Any]]:
    """Return inputs of a tagger with rows of these lengths; the first number of row i is `first` + i."""
    rng = np.random.default_rng(seed)
    series_BTC = rng.integers(-9, 9, (len(lengths), max(lengths), 2)).astype(np.float32)
    series_BTC[:, 0, 0] = first + np.arange(len(lengths))
    h, c = rng.integers(-9, 9, (2, len(lengths), 1, 3)).astype(np.float32)
    return {"series": series_BTC, "lengths": np.array(lengths), "h": h, "c": c}
