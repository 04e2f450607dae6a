"""Runs `python -m service.scoring` and prints the time from the first ready worker to the last commit.

The raw loops are timed in the same way: programs and models are loaded, and the work has not started.
"""

import sys
import time
from pathlib import Path

from service.scoring.__main__ import main
from service.scoring.engines import local

ready_at: list[float] = []


class TimedDriver(local._WorkerDriver):
    """Notes when its worker is ready."""

    def _start_worker(self) -> bool:
        ready = super()._start_worker()
        ready_at.append(time.time())
        return ready


if __name__ == "__main__":
    local._WorkerDriver = TimedDriver  # type: ignore[misc]
    arguments = sys.argv[1:]
    code = main(arguments)
    output = Path(arguments[arguments.index("--output") + 1])
    rows = int(arguments[arguments.index("--limit") + 1])
    last = max(path.stat().st_mtime for path in (output / "_ledger" / "shards").iterdir())
    print(f"RATE {rows} {last - min(ready_at):.6f}")
    sys.exit(code)
