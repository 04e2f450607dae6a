"""Latency of one model while clients send adversarial texts to another.

    python -m benchmarks.engine.adversarial_texts [--bundles bundles] [--workers 1 2] [--seconds 10]

Four clients send texts of 8 KB and 100 KB, each a run of one character or of markup, to a text model without a pause.
Meanwhile one client classifies one image at a time. Service and clients share all cores.
"""

import argparse
import http.client
import json
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.engine.server import HOST, ROOT, serve, split_cores

NUM_CLIENTS = 4
TEXT_BYTES = (8_192, 102_400)
RUNS = ("&lt;", "&", "!", " ", "a", "#1", "\ufdfa", "\u0301", "😀")
HEADERS = {"content-type": "application/json"}


def adversarial_bodies(model: str) -> list[bytes]:
    """Requests of one text each, by run and size; the service cuts texts that are too long."""
    texts = [(run * size)[: size // len(run[:1].encode())] for size in TEXT_BYTES for run in RUNS]
    return [json.dumps({"model": model, "texts": [text], "truncate": True}).encode() for text in texts]


def image_body(model: str) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (28, 28))
    return json.dumps({"model": model, "images": [pixels.tolist()]}).encode()


def post(connection: http.client.HTTPConnection, path: str, body: bytes) -> int:
    connection.request("POST", path, body, HEADERS)
    response = connection.getresponse()
    response.read()
    return response.status


class TextClient(threading.Thread):
    """Sends the bodies in turn until it is stopped, and counts the responses by status."""

    def __init__(self, port: int, bodies: list[bytes], first: int) -> None:
        super().__init__(daemon=True)
        self.statuses: dict[int, int] = {}
        self.stopped = threading.Event()
        self._bodies = bodies[first:] + bodies[:first]
        self._connection = http.client.HTTPConnection(HOST, port, timeout=60)

    def run(self) -> None:
        while not self.stopped.is_set():
            for body in self._bodies:
                status = post(self._connection, "/sequence-predict", body)
                self.statuses[status] = self.statuses.get(status, 0) + 1
                if self.stopped.is_set():
                    break


def latencies_ms(port: int, body: bytes, seconds: float) -> list[float]:
    """The latency of each image that one client classifies in this time, ascending."""
    connection = http.client.HTTPConnection(HOST, port, timeout=60)
    end, measured = time.monotonic() + seconds, list[float]()
    while time.monotonic() < end:
        began = time.monotonic()
        status = post(connection, "/classify", body)
        assert status == http.HTTPStatus.OK, status
        measured.append(1e3 * (time.monotonic() - began))
    return sorted(measured)


def measure(args: Any, workers: int) -> list[list[str]]:
    """Rows of the table: without and with adversarial texts."""
    body, bodies = image_body(args.image_model), adversarial_bodies(args.text_model)
    rows = []
    with serve(args.bundles, workers, split_cores(workers, shared=True)[0]) as (_, port):
        latencies_ms(port, body, 1.0)
        for num_clients in (0, NUM_CLIENTS):
            clients = [TextClient(port, bodies, first) for first in range(0, 2 * num_clients, 2)]
            for client in clients:
                client.start()
            measured = latencies_ms(port, body, args.seconds)
            for client in clients:
                client.stopped.set()
            for client in clients:
                client.join()
            p50, p99 = (f"{np.percentile(measured, share):.2f}" for share in (50, 99))
            counts = {status: sum(client.statuses.get(status, 0) for client in clients) for status in (200, 500, 503)}
            answered = ", ".join(f"{count} × {status}" for status, count in counts.items() if count) or "none"
            rows.append([str(workers), str(num_clients), answered, str(len(measured)), p50, p99, f"{measured[-1]:.1f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description="Latency of one model beside adversarial texts to another.")
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--text-model", default="news-lstm")
    parser.add_argument("--image-model", default="mnist-cnn")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=10.0)
    args = parser.parse_args()
    header = ["workers", "text clients", "text responses", "images", "p50, ms", "p99, ms", "maximum, ms"]
    for cells in (header, ["---"] * len(header), *(row for workers in args.workers for row in measure(args, workers))):
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
