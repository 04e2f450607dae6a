"""Measure CPU time and latency of one inference over gRPC and over HTTP, in turn, at one worker.

    python -m benchmarks.grpc_calls [--bundles bundles] [--rounds 5] [--calls 2000]

One connection sends one call at a time: an image of mnist-cnn as raw bytes. CPU time is that of the service, without
its client, in the fastest round, because whatever else the machine does only adds time. `metadata` computes nothing,
so it is the price of a call.
"""

import argparse
import http.client
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import psutil

from benchmarks.requests import cpu_seconds
from service.grpc.messages import write_message
from service.grpc.server import SERVICE
from tests.e2e.serving import ROOT, environment, free_port, start
from tests.service.hosts import GRANIAN

MODEL, IMAGE = "mnist-cnn", np.random.default_rng(0).integers(0, 256, (1, 28, 28), dtype=np.uint8)
TENSOR = {"name": "images", "datatype": "UINT8", "shape": [1, 28, 28]}
SendCall = Callable[[], object]


def http_calls(port: int) -> dict[str, SendCall]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    head = json.dumps({"inputs": [{**TENSOR, "parameters": {"binary_data_size": IMAGE.nbytes}}],
                       "parameters": {"binary_data_output": True}}).encode()  # fmt: skip
    headers = {"inference-header-content-length": str(len(head)), "content-type": "application/octet-stream"}

    def ask(method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        assert response.status == 200
        return response.read()

    return {
        "HTTP, infer": lambda: ask("POST", f"/v2/models/{MODEL}/infer", head + IMAGE.tobytes(), headers),
        "HTTP, metadata": lambda: ask("GET", "/v2"),
    }


def grpc_calls(channel: grpc.Channel) -> dict[str, SendCall]:
    fields = {"model_name": MODEL, "inputs": [TENSOR], "raw_input_contents": [IMAGE.tobytes()]}
    infer, metadata = (channel.unary_unary(f"/{SERVICE}/{name}") for name in ("ModelInfer", "ServerMetadata"))
    return {
        "gRPC, infer": lambda: infer(write_message("ModelInferRequest", fields), timeout=30),
        "gRPC, metadata": lambda: metadata(b"", timeout=30),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the cost of gRPC and HTTP.")
    parser.add_argument("--bundles", type=Path, default=Path("bundles"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=2_000)
    args = parser.parse_args()
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        folder_of_bundles = Path(folder) / "bundles"
        folder_of_bundles.mkdir()
        (folder_of_bundles / MODEL).symlink_to(
            args.bundles.resolve() / MODEL
        )  # others would load beside the measurement
        env = environment(EKIBEN_BUNDLES=str(folder_of_bundles), EKIBEN_GRPC_PORT=str(port))
        with start(GRANIAN, env=env, cwd=ROOT, log=Path(folder) / "log") as server:
            root = psutil.Process(server.process.pid)
            with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                calls = http_calls(server.port) | grpc_calls(channel)
                cpu_us: dict[str, list[float]] = {name: [] for name in calls}
                latency_ms: dict[str, list[float]] = {name: [] for name in calls}
                for _ in range(args.rounds):
                    for name, call in calls.items():
                        measure(call, root, args.calls, cpu_us[name], latency_ms[name])
    print("| call | CPU µs | median ms | 99th percentile ms |\n| --- | ---: | ---: | ---: |")
    for name, figures in cpu_us.items():
        low, high = np.percentile(latency_ms[name], (50, 99))
        print(f"| {name} | {min(figures):.0f} | {low:.2f} | {high:.2f} |")


def measure(call: SendCall, root: psutil.Process, num_calls: int, cpu_us: list[float], latency_ms: list[float]) -> None:
    for _ in range(50):
        call()
    before = cpu_seconds(root)
    for _ in range(num_calls):
        started_at = time.perf_counter()
        call()
        latency_ms.append(1e3 * (time.perf_counter() - started_at))
    cpu_us.append(1e6 * (cpu_seconds(root) - before) / num_calls)


if __name__ == "__main__":
    main()
