"""Measure CPU time and latency of one request at each endpoint of a running service.

    make bench                      start a service on the bundles of this checkout and measure it
    python -m benchmarks.requests --url http://127.0.0.1:3000 --pid PID

One connection sends one request at a time, so the figures are those of an otherwise idle service. CPU time is that of
the server's process tree: other load on the machine changes it less than it changes latency.
"""

import argparse
import base64
import http.client
import io
import json
import statistics
import subprocess
import sys
import time
import urllib.parse
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

PORT = 3117


def example_requests() -> dict[str, tuple[str, dict[str, object]]]:
    """The path and body of each request, by title."""
    rng = np.random.default_rng(0)
    digit = rng.integers(0, 256, (28, 28), dtype=np.uint8)
    png = io.BytesIO()
    Image.fromarray(digit).save(png, "png")
    text = "The server accepts a connection, reads the request and sends the response. " * 3
    series = rng.normal(size=(20, 12)).round(4).tolist()
    return {
        "mnist-cnn, PNG": ("/classify", {"model": "mnist-cnn", "images": [base64.b64encode(png.getvalue()).decode()]}),
        "mnist-cnn, pixels": ("/classify", {"model": "mnist-cnn", "images": [digit.tolist()]}),
        "news-lstm, text": ("/sequence-predict", {"model": "news-lstm", "texts": [text]}),
        "vowels-lstm, 20 steps": ("/sequence-predict", {"model": "vowels-lstm", "sequences": [series]}),
        "text-transformer, 32 tokens": (
            "/generate",
            {"model": "text-transformer", "prompt": "The ", "max_tokens": 32, "seed": 0},
        ),
        "mnist-gan, 1 image": ("/generate", {"model": "mnist-gan", "count": 1, "seed": 0}),
    }


def cpu_seconds(root: psutil.Process) -> float:
    return sum(
        process.cpu_times().user + process.cpu_times().system for process in [root, *root.children(recursive=True)]
    )


def measure(url: str, root: psutil.Process, *, seconds: float) -> list[tuple[str, float, float, float]]:
    """Rows of title, CPU microseconds per request, median and 99th percentile of latency in milliseconds."""
    address = urllib.parse.urlsplit(url)
    assert address.hostname
    rows = []
    for title, (path, body) in example_requests().items():
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        content = json.dumps(body).encode()
        latencies_ms: list[float] = []
        warm_until = time.perf_counter() + seconds / 4
        end = warm_until + seconds
        cpu_before_s = 0.0
        while (start := time.perf_counter()) < end:
            if start < warm_until:
                latencies_ms, cpu_before_s = [], cpu_seconds(root)
            connection.request("POST", path, content, {"content-type": "application/json"})
            response = connection.getresponse()
            response_body = response.read()
            if response.status != 200:
                sys.exit(f"{title}: {response.status} {response_body.decode()}")
            latencies_ms.append((time.perf_counter() - start) * 1e3)
        cpu_us = (cpu_seconds(root) - cpu_before_s) / len(latencies_ms) * 1e6
        rows.append((title, cpu_us, statistics.median(latencies_ms), float(np.percentile(latencies_ms, 99))))
        connection.close()
    return rows


def wait_until_ready(url: str, *, timeout_s: float = 120) -> None:
    address = urllib.parse.urlsplit(url)
    assert address.hostname
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=5)
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"{url} was not ready within {timeout_s:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="address of a running service; by default one is started")
    parser.add_argument("--pid", type=int, help="with --url: the root of the process tree to measure")
    parser.add_argument("--seconds", type=float, default=4.0, help="duration of each measurement")
    args = parser.parse_args()
    server = None
    if args.url is None:
        command = [sys.executable, "-m", "bentoml", "serve", "service.app:Ekiben", "--host", "127.0.0.1"]
        server = subprocess.Popen(
            [*command, "--port", str(PORT)], cwd=Path(__file__).parent.parent, stdout=subprocess.DEVNULL
        )
    elif args.pid is None:
        parser.error("--url needs --pid")
    url = args.url or f"http://127.0.0.1:{PORT}"
    try:
        wait_until_ready(url)
        rows = measure(url, psutil.Process(server.pid if server else args.pid), seconds=args.seconds)
    finally:
        if server:
            server.terminate()
            server.wait(timeout=30)
    print("| request | CPU µs | p50 ms | p99 ms |\n| --- | --- | --- | --- |")
    for title, cpu_us, p50_ms, p99_ms in rows:
        print(f"| {title} | {cpu_us:,.0f} | {p50_ms:.2f} | {p99_ms:.2f} |")


if __name__ == "__main__":
    main()
