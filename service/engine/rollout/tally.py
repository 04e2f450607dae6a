"""How the answers of a candidate compare with those of the serving version, over all workers of a host.

Invariant: a decision is final for its two versions, for all workers, until the host ends or one of them changes.
"""

import logging
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import orjson

from service.engine.process.identity import process_identity
from service.engine.rollout.decision import Decision, decide

# failed: the candidate gave an error, or an answer that cannot be read, where the serving version answered.
# skipped: there was no time to compare, or no answer of the serving version to compare with.
Outcome = Literal["same", "different", "failed", "skipped"]
MAX_EXAMPLES = 5
PUBLISH_INTERVAL_S = 0.5

log = logging.getLogger(__name__)


class Tally:
    """One small file for each worker, in a folder that they share; without a folder there is one worker."""

    def __init__(self, folder: Path | None, name: str, serving: str, candidate: str, *, share: float) -> None:
        """`share` of differing answers stops the candidate."""
        self.name, self.serving, self.candidate = name, serving, candidate
        self._share = share
        self._folder = None if folder is None else folder / "rollout"
        self._prefix = f"{name}-{serving}-{candidate}"
        self._counts: Counter[str] = Counter()
        self._examples: list[str] = []
        self._decision: Decision = "undecided"
        self._others: list[dict[str, Any]] = []
        self._shared_at = 0.0

    @property
    def decision(self) -> Decision:
        return self._decision

    def add(self, outcome: Outcome, example: str = "") -> bool:
        """Count one comparison; `example` says what differs. Returns whether it is among the first examples."""
        self._counts[outcome] += 1
        is_new = bool(example) and len(self._examples) < MAX_EXAMPLES
        if is_new:
            self._examples.append(example)
        self._decide()
        return is_new

    def share(self) -> None:
        """Exchange counts with the other workers, at most twice a second."""
        now = time.monotonic()
        if self._folder is None or now - self._shared_at < PUBLISH_INTERVAL_S:
            return
        self._shared_at = now
        self._others = list(self._read_others(self._folder))
        self._decide()
        with suppress(OSError):  # then the workers count apart for a while
            self._publish(self._folder)

    def describe(self) -> dict[str, Any]:
        """The counts of all workers, examples of what differs, and the decision; `here` are those of this worker.

        A worker that answers no request reports them up to date, too.
        """
        self.share()
        counts = self._totals()
        compared = self._compared(counts)
        examples = [*self._examples, *(example for other in self._others for example in other["examples"])]
        return {
            "with": self.serving,
            "compared": compared,
            "different": counts["different"],
            "failed": counts["failed"],
            "skipped": counts["skipped"],
            "decision": self._decision,
            "examples": examples[:MAX_EXAMPLES],
            "here": dict(self._counts),
        }

    def _decide(self) -> None:
        if self._decision == "stopped":
            return
        decisions = {other["decision"] for other in self._others}
        if "stopped" in decisions:
            self._decision = "stopped"
        elif self._decision == "undecided":
            counts = self._totals()
            found = decide(self._compared(counts), counts["different"] + counts["failed"], self._share)
            if found != "undecided" and found not in decisions:
                self._log(found, counts)
            self._decision = "passed" if found == "undecided" and "passed" in decisions else found

    def _log(self, decision: Decision, counts: Counter[str]) -> None:
        """Log what this worker decides; what it takes over, another has logged."""
        numbers = f"{counts['different']} answers of {self._compared(counts)} differ, {counts['failed']} failed"
        if decision == "stopped":
            log.error("%s: candidate %s is stopped: %s", self.name, self.candidate, numbers)
        else:
            log.info("%s: candidate %s has passed: %s", self.name, self.candidate, numbers)

    def _totals(self) -> Counter[str]:
        totals = Counter(self._counts)
        for other in self._others:
            totals.update(other["counts"])
        return totals

    @staticmethod
    def _compared(counts: Counter[str]) -> int:
        return counts["same"] + counts["different"] + counts["failed"]

    def _publish(self, folder: Path) -> None:
        content = {"counts": self._counts, "examples": self._examples, "decision": self._decision}
        folder.mkdir(mode=0o700, exist_ok=True)
        path = self._path(folder)
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(orjson.dumps(content))
        temporary.replace(path)

    def _path(self, folder: Path) -> Path:
        return folder / f"{self._prefix}.{process_identity(os.getpid())}"

    def _read_others(self, folder: Path) -> list[dict[str, Any]]:
        found = []
        with suppress(OSError):
            for path in sorted(folder.glob(f"{self._prefix}.*")):
                with suppress(OSError, ValueError):
                    if path != self._path(folder):
                        found.append(orjson.loads(path.read_bytes()))
        return found
