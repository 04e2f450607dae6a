"""A worker process of the local engine: one session for each model, one shard at a time.

The jobs and their shards arrive as JSON lines on standard input; events leave as JSON lines on standard output. The
worker ends when its input ends, which is when the coordinator is done or dead. It still commits the shard that it is
scoring; that is harmless because a shard's bytes follow from its key.
"""

import gc
import json
import logging
import os
import signal
import sys
import time
from typing import Any

import pyarrow as pa

from service.scoring.engines.engine import try_score
from service.scoring.job import JOBS
from service.scoring.plan import SharedShard
from service.scoring.shard import Context

PROGRESS_S = 0.2


class EventWriter:
    """Writes events to the coordinator. Progress is summed up and sent every PROGRESS_S seconds."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        # What a library prints must not be read as an event, so standard output becomes standard error.
        os.dup2(2, 1)
        self._rows = self._rejects = 0
        self._sent_at = 0.0

    def progress(self, rows: int, rejects: int) -> None:
        self._rows, self._rejects = self._rows + rows, self._rejects + rejects
        if time.monotonic() - self._sent_at > PROGRESS_S:
            self.send(event="progress")

    def send(self, **event: Any) -> None:
        self._out.write(json.dumps({**event, "rows": self._rows, "rejects": self._rejects}) + "\n")
        self._out.flush()
        self._rows = self._rejects = 0
        self._sent_at = time.monotonic()


def main() -> None:
    # Ctrl-C reaches the whole process group; the coordinator handles it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pa.set_cpu_count(1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    events = EventWriter()
    try:
        context = Context(JOBS.validate_json(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001 - the coordinator reports it and fails the job
        events.send(event="cannot-start", detail=str(error))
        return
    # The first array of Python values imports pandas, if it is installed.
    pa.array([None])
    # Imported modules are never garbage, so collections need not traverse them.
    gc.collect()
    gc.freeze()
    events.send(event="ready")
    for line in sys.stdin:
        outcome = try_score(context, SharedShard.from_json(json.loads(line)), events.progress)
        events.send(event=outcome.status, detail=outcome.detail, computed=outcome.computed)
    context.close()


if __name__ == "__main__":
    main()
