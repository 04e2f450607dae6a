"""`python -m service.scoring` with the time from the planning of its first shard to its last commit.

That is what the raw loops are timed by too: programs and models are loaded, the work has not begun.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from service.scoring import local, run
from service.scoring.__main__ import main
from service.scoring.plan import Shard

began: list[float] = []


def timed(job: Any, shards: Iterator[Shard], **options: Any) -> Any:
    return local.run_local(job, shards, **options)


class FirstWork(local._Driver):
    """Notes when the first worker is ready."""

    def _start(self) -> bool:
        ready = super()._start()
        began.append(time.time())
        return ready


if __name__ == "__main__":
    local._Driver = FirstWork  # type: ignore[misc]
    run.ENGINES["local"] = timed
    arguments = sys.argv[1:]
    code = main(arguments)
    output = Path(arguments[arguments.index("--output") + 1])
    rows = int(arguments[arguments.index("--limit") + 1])
    last = max(path.stat().st_mtime for path in (output / "_ledger" / "shards").iterdir())
    print(f"RATE {rows} {last - min(began):.6f}")
    sys.exit(code)
