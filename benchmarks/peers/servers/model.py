"""The models as the peers run them, and the parameters that the benchmark passes in environment variables.

Every peer runs the same session: one thread, no spinning, all graph optimisations. Only the server around it differs.
"""

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

HOST = "127.0.0.1"
PORT = int(os.environ.get("PEER_PORT", "0"))
WORKERS = int(os.environ.get("PEER_WORKERS", "1"))
VARIANT = os.environ.get("PEER_VARIANT", "")
# An empty folder for the files of the server.
HOME = Path(os.environ.get("PEER_HOME", "."))
# The paths of the ONNX files by model.
FILES: dict[str, str] = json.loads(os.environ.get("PEER_MODELS", "{}"))

Feeds = dict[str, Any]


class Model:
    """An onnxruntime session whose `run` returns probabilities float32 [rows, labels]."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.is_image = [tensor.name for tensor in self.session.get_inputs()] == ["images"]
        self.shape = self.session.get_inputs()[0].shape[1:]
        self.path = path

    def __reduce__(self) -> tuple[type["Model"], tuple[str]]:
        """A session cannot be pickled: the other process opens the model again."""
        return Model, (self.path,)

    def run(self, feeds: Feeds) -> np.ndarray:
        return self.session.run(["probabilities"], feeds)[0]

    def run_many(self, requests: Sequence[Feeds]) -> list[np.ndarray]:
        """Run several requests, of one or more rows each, as one batch."""
        if len(requests) == 1:
            return [self.run(requests[0])]
        merged = {name: np.concatenate([feeds[name] for feeds in requests]) for name in requests[0]}
        bounds = np.cumsum([len(next(iter(feeds.values()))) for feeds in requests])[:-1]
        return np.split(self.run(merged), bounds)

    def from_json(self, document: dict[str, Any]) -> Feeds:
        """The feeds of {"images": [...]} or {"ids": [...], "lengths": [...]}."""
        if self.is_image:
            return {"images": np.array(document["images"], np.uint8)}
        return {"ids": np.array(document["ids"], np.int64), "lengths": np.array(document["lengths"], np.int64)}

    def from_rows(self, rows: np.ndarray) -> Feeds:
        """Images unchanged; a text is one row with its length and its ids."""
        if self.is_image:
            return {"images": rows}
        return {"ids": rows[:, 1:], "lengths": rows[:, 0]}

    def from_bytes(self, content: bytes) -> Feeds:
        """The feeds of uint8 images one after the other, or of int64: the number of texts, their lengths, their ids."""
        if self.is_image:
            return {"images": np.frombuffer(content, np.uint8).reshape(-1, *self.shape)}
        values = np.frombuffer(content, np.int64)
        count = values[0]
        return {"ids": values[1 + count :].reshape(count, -1), "lengths": values[1 : 1 + count]}


def load() -> dict[str, Model]:
    return {name: Model(path) for name, path in FILES.items()}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]
