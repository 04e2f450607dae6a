"""A worker of the local engine: one process, one session, one shard at a time.

Jobs and shards come as JSON lines on standard input, events go as JSON lines to standard output. When the input ends,
because the coordinator is done or dead, the worker ends; a shard that it has begun is committed, which harms nobody.
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

from service.scoring.engine import attempt
from service.scoring.job import Job
from service.scoring.plan import Shard
from service.scoring.shard import Context

PROGRESS_S = 0.2


class Events:
    """Events to the coordinator; progress is bundled."""

    def __init__(self) -> None:
        self._out = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)  # a library that prints must not speak in our name
        self._rows = self._rejects = 0
        self._sent = 0.0

    def progress(self, rows: int, rejects: int) -> None:
        self._rows, self._rejects = self._rows + rows, self._rejects + rejects
        if time.monotonic() - self._sent > PROGRESS_S:
            self.send(event="progress")

    def send(self, **event: Any) -> None:
        self._out.write(json.dumps({**event, "rows": self._rows, "rejects": self._rejects}) + "\n")
        self._out.flush()
        self._rows = self._rejects = 0
        self._sent = time.monotonic()


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a person's Ctrl-C is the coordinator's to answer
    pa.set_cpu_count(1)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    events = Events()
    try:
        context = Context(Job.model_validate_json(sys.stdin.readline()))
    except Exception as error:  # noqa: BLE001 - the coordinator decides what becomes of it
        events.send(event="unfit", detail=str(error))
        return
    gc.collect()
    gc.freeze()  # what was imported is no garbage: collections need not look for it there
    events.send(event="ready")
    for line in sys.stdin:
        shard = Shard.from_json(json.loads(line))
        fate, detail = attempt(context, shard, events.progress)
        events.send(event=fate, detail=detail)
    context.close()


if __name__ == "__main__":
    main()
