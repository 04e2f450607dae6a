"""A loop over the HTTP API: `python -m service` with a worker a core, 32 images a request, two connections a core.

The client does what a good client does: connections stay open, a connection is never idle for want of another's answer,
pixels go as JSON numbers, which costs both sides less than making and reading PNGs.
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

from benchmarks.scoring.rivals.common import arguments, told

ITEMS = 32
READY_S = 60
CORES = len(os.sched_getaffinity(0))


def serve(bundles: Path) -> tuple["subprocess.Popen[bytes]", str]:
    """A ready service with the model of `bundles` alone, and its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "EKIBEN_BUNDLES": str(bundles), "EKIBEN_DEVICE": "cpu"}
    command = [sys.executable, "-m", "service", "--port", str(port), "--workers", str(CORES)]
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url, until = f"http://127.0.0.1:{port}", time.monotonic() + READY_S
    while time.monotonic() < until and server.poll() is None:
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return server, url
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    server.kill()
    sys.exit(f"the service was not ready after {READY_S} s")


def ask(client: httpx.Client, batch: pa.RecordBatch) -> pa.RecordBatch:
    images = np.frombuffer(b"".join(batch["image"].to_pylist()), np.uint8).reshape(-1, 28, 28)
    body = {"model": "mnist-cnn", "images": images, "top_k": 1}
    content = orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    answer = client.post("/classify", content=content, headers={"Content-Type": "application/json"})
    answer.raise_for_status()
    predictions = orjson.loads(answer.content)["predictions"]
    columns = {name: pa.array([found[name] for found in predictions]) for name in ("label", "probability")}
    return pa.RecordBatch.from_pydict({"id": batch["id"], **columns})


def main() -> None:
    source, output, rows, bundles = arguments()
    output.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="ekiben-http-") as name:
        (Path(name) / "mnist-cnn").symlink_to((bundles / "mnist-cnn").absolute())
        server, url = serve(Path(name))
        try:
            told(rows, lambda: loop(source, output, rows, url))
        finally:
            server.terminate()
            server.wait()


def loop(source: Path, output: Path, rows: int, url: str) -> None:
    """Every row of the first file, up to `rows`, asked for and written."""
    batches = list(pq.ParquetFile(min(source.glob("*.parquet"))).iter_batches(ITEMS))[: -(-rows // ITEMS)]
    limits = httpx.Limits(max_connections=2 * CORES, max_keepalive_connections=2 * CORES)
    with httpx.Client(base_url=url, timeout=60, limits=limits) as client, ThreadPoolExecutor(2 * CORES) as pool:
        found = list(pool.map(lambda batch: ask(client, batch), batches))
    pq.write_table(pa.Table.from_batches(found)[:rows], output / "part.parquet")


if __name__ == "__main__":
    main()
