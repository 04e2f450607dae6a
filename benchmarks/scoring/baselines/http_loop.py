"""A loop over the HTTP API: `python -m service`, one worker and two connections per core, 32 images per request.

The client is efficient: connections stay open, no connection waits for the answer to another, and pixels are JSON
numbers, which cost both sides less than encoding and decoding PNGs.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.scoring.baselines.common import parse_arguments, timed

ITEMS = 32
READY_S = 60
CORES = len(os.sched_getaffinity(0))


def serve(bundles: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """Start a service with the models of `bundles`; return its process and its address when it is ready."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    environment = {**os.environ, "EKIBEN_BUNDLES": str(bundles), "EKIBEN_DEVICE": "cpu"}
    command = [sys.executable, "-m", "service", "--port", str(port), "--workers", str(CORES)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + READY_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return server, url
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    server.kill()
    sys.exit(f"the service was not ready after {READY_S} s")


def classify(client: httpx.Client, batch: pa.RecordBatch) -> pa.RecordBatch:
    images = np.frombuffer(b"".join(batch["image"].to_pylist()), np.uint8).reshape(-1, 28, 28)
    body = {"model": "mnist-cnn", "images": images, "top_k": 1}
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    answer = client.post("/classify", content=content, headers={"Content-Type": "application/json"})
    answer.raise_for_status()
    predictions = orjson.loads(answer.content)["predictions"]
    columns = {name: pa.array([prediction[name] for prediction in predictions]) for name in ("label", "probability")}
    return pa.RecordBatch.from_pydict({"id": batch["id"], **columns})


def main() -> None:
    source, output, rows, bundles = parse_arguments()
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ekiben-http-") as name:
        (Path(name) / "mnist-cnn").symlink_to((bundles / "mnist-cnn").absolute())
        server, url = serve(Path(name))
        try:
            timed(rows, lambda: loop(source, output, rows, url))
        finally:
            server.terminate()
            server.wait()


def loop(source: Path, output: Path, rows: int, url: str) -> None:
    """Classify up to `rows` rows of the first file and write the predictions."""
    batches = list(pq.ParquetFile(min(source.glob("*.parquet"))).iter_batches(ITEMS))[: -(-rows // ITEMS)]
    limits = httpx.Limits(max_connections=2 * CORES, max_keepalive_connections=2 * CORES)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client, ThreadPoolExecutor(2 * CORES) as pool:
        answers = list(pool.map(lambda batch: classify(client, batch), batches))
    pq.write_table(pa.Table.from_batches(answers)[:rows], output / "part.parquet")


if __name__ == "__main__":
    main()
