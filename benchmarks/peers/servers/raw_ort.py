"""A lower bound of the cost: onnxruntime in a loop, with the data in memory.

Prints the same JSON as the load generator.

python -m benchmarks.peers.servers.raw_ort MODEL FOLDER SECONDS      FOLDER: the raw bytes of requests 1, 2, ...
"""

import itertools
import json
import sys
import threading
import time
from pathlib import Path

import numpy as np

from benchmarks.peers.servers.model import FILES, WORKERS, Model

if __name__ == "__main__":
    name, folder, seconds = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3])
    model = Model(FILES[name])
    files = sorted((path for path in folder.iterdir() if path.name.isdigit()), key=lambda path: int(path.name))
    feeds = [model.from_bytes(path.read_bytes()) for path in files]
    latencies_s: list[float] = []
    end = 0.0

    def loop() -> None:
        for request in itertools.cycle(feeds):
            if (start := time.perf_counter()) >= end:
                break
            model.run(request)
            latencies_s.append(time.perf_counter() - start)

    # The first round is the warm-up.
    for duration_s in (seconds / 5, seconds):
        latencies_s.clear()
        threads = [threading.Thread(target=loop) for _ in range(WORKERS)]
        cpu_s, begin = time.process_time(), time.perf_counter()
        end = begin + duration_s
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        cpu_s, elapsed_s = time.process_time() - cpu_s, time.perf_counter() - begin
    p50_ms, p99_ms = np.percentile(latencies_s, [50, 99]) * 1e3
    result = {"requests": len(latencies_s), "seconds": elapsed_s, "p50_ms": p50_ms, "p99_ms": p99_ms, "errors": 0}
    print(json.dumps({**result, "cpu_s": cpu_s, "worst": 0}))
