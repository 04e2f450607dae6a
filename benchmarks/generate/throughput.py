"""CPU time of one token over HTTP, in separate requests, against the bare loop and `generate` of transformers.

    python -m benchmarks.generate.throughput [--bundles bundles] [--model text-transformer] [--rounds 3] [--whole]

All are measured in turn, on the same core; each figure is the median of the rounds. The service is its whole process
tree with one worker; the client is not counted. `--whole` asks for whole answers instead of streams.
"""

import argparse
import asyncio
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.connection import Connection
from benchmarks.engine.server import ROOT, pinned_to, serve, split_cores
from benchmarks.generate.client import post, read_stream
from benchmarks.requests import cpu_seconds

STREAMS = (1, 8, 32)
TOKENS = 128
REQUESTS = 3  # of each client


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundles", type=Path, default=ROOT / "bundles")
    parser.add_argument("--model", default="text-transformer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole", action="store_true")
    args = parser.parse_args()
    folder = args.bundles / args.model
    bundle = folder / (folder / "current").read_text().strip()
    cores, client_cores = split_cores(1)
    rows: dict[int, list[tuple[float, float, float]]] = {streams: [] for streams in STREAMS}
    with serve(args.bundles, 1, cores) as (server, port), pinned_to(client_cores):
        for _ in range(args.rounds):
            for streams, figures in rows.items():
                ours = measure(server, port, args.model, streams, is_whole=args.whole)
                figures.append(
                    (ours, *(baseline(bundle, streams, method, cores) for method in ("bare", "transformers")))
                )
    print("| streams | service, µs a token | bare loop | transformers | of the bare loop | of transformers |")
    print("| --- | --- | --- | --- | --- | --- |")
    for streams, figures in rows.items():
        ours, bare, other = (statistics.median(column) for column in zip(*figures, strict=True))
        ratios = (statistics.median(one[i] / one[0] for one in figures) for i in (1, 2))
        columns = " | ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"| {streams} | {ours:.0f} | {bare:.0f} | {other:.0f} | {columns} |")


def measure(server: Any, port: int, model: str, streams: int, *, is_whole: bool) -> float:
    """Microseconds of CPU a token, with as many clients that each send requests one after the other."""
    asyncio.run(_clients(port, model, streams, 1, is_whole))
    before_s = cpu_seconds(server)
    num_tokens = asyncio.run(_clients(port, model, streams, REQUESTS, is_whole))
    return (cpu_seconds(server) - before_s) / num_tokens * 1e6


def baseline(bundle: Path, rows: int, method: str, cores: list[int]) -> float:
    command = [sys.executable, "-m", "benchmarks.generate.baselines", str(bundle), "--rows", str(rows)]
    with pinned_to(cores):
        done = subprocess.run(
            [*command, "--tokens", str(TOKENS), "--method", method],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    return float(done.stdout)


async def _clients(port: int, model: str, streams: int, requests: int, is_whole: bool) -> int:
    return sum(await asyncio.gather(*(_client(port, model, seed, requests, is_whole) for seed in range(streams))))


async def _client(port: int, model: str, seed: int, requests: int, is_whole: bool) -> int:
    connection = await Connection.open(port)
    num_tokens = 0
    for number in range(requests):
        body = {"model": model, "prompt": f"Text {number}: The function", "max_tokens": TOKENS, "temperature": 0.8}
        body["seed"] = seed
        if is_whole:
            num_tokens += (await post(connection, "/generate", body))["completions"][0]["tokens"]
        else:
            stream = await read_stream(port, body)
            num_tokens += stream.events[-1]["completions"][0]["tokens"]
    connection.close()
    return num_tokens


if __name__ == "__main__":
    main()
