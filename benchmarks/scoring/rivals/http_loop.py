"""A loop over the HTTP API of a running service: 32 images a request, one connection a core."""

import base64
import io
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from benchmarks.scoring.rivals.common import arguments, told

ITEMS = 32


def png(content: bytes) -> str:
    buffer = io.BytesIO()
    Image.frombytes("L", (28, 28), content).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


def serve(bundles: Path) -> tuple["subprocess.Popen[bytes]", str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    only = Path(os.environ.get("TMPDIR", "/tmp")) / f"ekiben-http-{port}"
    only.mkdir()
    (only / "mnist-cnn").symlink_to((bundles / "mnist-cnn").absolute())
    environment = {**os.environ, "EKIBEN_BUNDLES": str(only), "BENTOML_DO_NOT_TRACK": "True"}
    command = [Path(sys.executable).with_name("bentoml"), "serve", "service.app:Ekiben", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--host", "127.0.0.1"], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            if httpx.get(f"{url}/readyz").status_code == 200:
                return server, url
        except httpx.HTTPError:
            pass
        time.sleep(0.1)
    sys.exit("the service did not become ready")


def main() -> None:
    source, output, rows, bundles = arguments()
    output.mkdir(parents=True)
    server, url = serve(bundles)

    def ask(client: httpx.Client, batch: pa.RecordBatch) -> list[dict[str, object]]:
        images = [png(content) for content in batch["image"].to_pylist()]
        answer = client.post(f"{url}/classify", json={"model": "mnist-cnn", "images": images, "top_k": 1})
        answer.raise_for_status()
        predictions = answer.json()["predictions"]
        return [
            {"id": own, "label": found["label"], "probability": found["probability"]}
            for own, found in zip(batch["id"].to_pylist(), predictions, strict=True)
        ]

    def work() -> None:
        path = min(source.glob("*.parquet"))
        batches = list(pq.ParquetFile(path).iter_batches(ITEMS))[: -(-rows // ITEMS)]
        cores = len(os.sched_getaffinity(0))
        with httpx.Client(timeout=60) as client, ThreadPoolExecutor(cores) as pool:
            found = [row for part in pool.map(lambda batch: ask(client, batch), batches) for row in part]
        pq.write_table(pa.Table.from_pylist(found[:rows]), output / "part.parquet")

    try:
        told(rows, work)
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
