"""Stock BentoML, without its batching or with it (variant "batch"). Its batching requires a single input array."""

import os
import sys

import bentoml
import numpy as np

from benchmarks.peers.servers.model import HOST, PORT, VARIANT, WORKERS, load

BATCHING = {"batchable": True, "max_batch_size": 64, "max_latency_ms": 1000} if VARIANT == "batch" else {}


@bentoml.service(workers=WORKERS, logging={"access": {"enabled": False}})
class Peer:
    def __init__(self) -> None:
        self.models = load()

    @bentoml.api(route="/mnist-cnn", **BATCHING)
    def classify(self, rows: np.ndarray) -> np.ndarray:
        model = self.models["mnist-cnn"]
        return model.run(model.from_rows(rows.astype(np.uint8)))

    @bentoml.api(route="/news-lstm", **BATCHING)
    def predict(self, rows: np.ndarray) -> np.ndarray:
        model = self.models["news-lstm"]
        return model.run(model.from_rows(rows.astype(np.int64)))


if __name__ == "__main__":
    serve = ["-m", "bentoml", "serve", "--host", HOST, "--port", str(PORT)]
    os.execv(sys.executable, [sys.executable, *serve, f"{__spec__.name}:Peer"])
