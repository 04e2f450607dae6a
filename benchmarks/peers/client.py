"""A closed-loop load generator for machines without wrk: slower, with the same line of JSON as output.

python -m benchmarks.peers.client URL FOLDER CONNECTIONS SECONDS
"""

import asyncio
import itertools
import json
import sys
import time
from pathlib import Path

import aiohttp
import numpy as np


def read_headers(path: Path) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in path.read_text().splitlines())


async def main(url: str, folder: Path, connections: int, seconds: float) -> None:
    files = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    requests = itertools.cycle([(path.read_bytes(), read_headers(path.with_suffix(".headers"))) for path in files])
    latencies_s, errors = [], 0
    begin = time.perf_counter()

    async def loop(session: aiohttp.ClientSession) -> None:
        nonlocal errors
        while (start := time.perf_counter()) < begin + seconds:
            try:
                body, headers = next(requests)
                async with session.post(url, data=body, headers=headers) as response:
                    await response.read()
                    errors += response.status != 200
                latencies_s.append(time.perf_counter() - start)
            except (aiohttp.ClientError, TimeoutError):
                errors += 1

    connector, timeout = aiohttp.TCPConnector(limit=connections), aiohttp.ClientTimeout(total=5)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        await asyncio.gather(*(loop(session) for _ in range(connections)))
    elapsed_s = time.perf_counter() - begin
    p50_ms, p99_ms = np.percentile(latencies_s or [float("nan")], [50, 99]) * 1e3
    result = {"requests": len(latencies_s), "seconds": elapsed_s, "p50_ms": p50_ms, "p99_ms": p99_ms, "errors": errors}
    print(json.dumps(result))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])))
