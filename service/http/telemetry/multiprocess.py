"""Metrics of several worker processes, summed through files in a shared folder.

Invariant: a scrape of any worker covers all workers, and a counter never decreases. Each worker writes its samples once
a second, and the counters of a worker that has ended stay in the sum.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orjson

from service.http.telemetry.exposition import FAMILIES, LARGEST, Samples

PUBLISH_INTERVAL_S = 1.0

log = logging.getLogger(__name__)


class MultiprocessMetrics:
    """One file of samples for each worker, named by its process id."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / f"{os.getpid()}.json"
        self._healthy = True

    def publish(self, samples: Samples) -> None:
        """Write the samples of this worker for the others, and log a failure once."""
        temporary = self._path.with_suffix(".tmp")
        try:
            # A cleaner of temporary files may have deleted the folder.
            self._path.parent.mkdir(mode=0o700, exist_ok=True)
            temporary.write_bytes(orjson.dumps([[*key, value] for key, value in samples.items()]))
            temporary.replace(self._path)
        except OSError as error:
            if self._healthy:
                log.error("cannot write %s, so other workers report stale metrics for this one: %s", self._path, error)
            self._healthy = False
        else:
            if not self._healthy:
                log.info("wrote %s again, so other workers report current metrics for this one", self._path)
            self._healthy = True

    def merge(self, samples: Samples) -> Samples:
        """Return `samples` plus those of the other workers, without the gauges of workers that have ended."""
        total = dict(samples)
        for path in set(self._path.parent.glob("*.json")) - {self._path}:
            alive = Path(f"/proc/{path.stem}").exists()
            for family, suffix, labels, value in orjson.loads(path.read_bytes()):
                key = family, suffix, tuple(map(tuple, labels))
                kind = FAMILIES[family].kind
                if kind == "info":
                    total[key] = value  # every worker says the same
                elif family in LARGEST:
                    total[key] = max(total.get(key, 0.0), value)
                elif alive or kind != "gauge":
                    total[key] = total.get(key, 0.0) + value
        return total

    async def run(self, collect: Callable[[], Samples]) -> None:
        """Publish the samples of this worker once a second until cancelled, and once more on cancellation."""
        with suppress(asyncio.CancelledError):
            while True:
                self.publish(collect())
                await asyncio.sleep(PUBLISH_INTERVAL_S)
        self.publish(collect())
