"""How long do others wait while texts are generated?

    python -m benchmarks.generate.latency [--bundles bundles] [--model text-transformer] [--streams 32] [--seconds 20]

One worker generates texts of 200 tokens for as many clients as there are streams. Meanwhile one client classifies an
image, pauses, and so on, and another begins a stream and waits for its first token. Prints p50, p99 and the maximum.
"""

import argparse
import asyncio
import json
import time
from pathlib import Path

import numpy as np

from benchmarks.connection import Connection
from benchmarks.engine.server import ROOT, serve, split_cores
from benchmarks.generate.client import JSON, post, read_stream

PAUSE_S = 0.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--model", default="text-transformer")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20)
    args = parser.parse_args()
    print(f"| amid {args.streams} streams | count | p50 ms | p99 ms | max ms |\n| --- | --- | --- | --- | --- |")
    cores, _ = split_cores(1)
    with serve(args.bundles, 1, cores) as (_, port):
        classified, first_tokens = asyncio.run(measure(port, args.model, args.streams, args.seconds))
    for title, times_s in (("POST /classify", classified), ("first token", first_tokens)):
        p50, p99, largest = (np.percentile(times_s, share) * 1e3 for share in (50, 99, 100))
        print(f"| {title} | {len(times_s)} | {p50:.1f} | {p99:.1f} | {largest:.1f} |")


async def measure(port: int, model: str, streams: int, seconds: float) -> tuple[list[float], list[float]]:
    end = time.perf_counter() + seconds

    async def generate(seed: int) -> None:
        connection = await Connection.open(port)
        body = {"model": model, "prompt": "The function ", "max_tokens": 200, "seed": seed}
        while time.perf_counter() < end:
            await post(connection, "/generate", body)
        connection.close()

    async def classify() -> list[float]:
        connection, times_s = await Connection.open(port), []
        body = json.dumps({"model": "mnist-mlp", "images": [np.zeros((28, 28), int).tolist()]}).encode()
        while (began := time.perf_counter()) < end:
            response = await connection.request("POST", "/classify", body, JSON)
            assert response.status == 200, response.body
            times_s.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
        connection.close()
        return times_s

    async def first_token() -> list[float]:
        times_s = []
        while time.perf_counter() < end:
            stream = await read_stream(port, {"model": model, "prompt": "The value ", "max_tokens": 4, "seed": 1})
            times_s.append(stream.first_token_s)
            await asyncio.sleep(PAUSE_S)
        return times_s

    load = [asyncio.create_task(generate(seed)) for seed in range(streams)]
    await asyncio.sleep(1.0)
    results = await asyncio.gather(classify(), first_token())
    await asyncio.gather(*load)
    return results[0], results[1]


if __name__ == "__main__":
    main()
