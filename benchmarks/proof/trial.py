"""Run the tests of a module against a mutant of it, in a copy of the checkout.

The checkout itself is never changed. Tests that start processes run the mutant as well, since they start them in the
copy.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.e2e.serving import ends_with_parent

Outcome = Literal["killed", "timeout", "survived"]
# Bytecode would outlive a mutant that is replaced within a second. Options of pytest that a caller set do not apply.
ENVIRONMENT = {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "PYTEST_ADDOPTS": ""}
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly")
# The limit of a trial is this many times the time of the tests without a mutant, and some seconds.
SLOWDOWN, MIN_LIMIT_S = 3.0, 20.0


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A copy of a checkout's files in `folder`, without those that git ignores."""

    folder: Path

    @classmethod
    def of(cls, checkout: Path, folder: Path) -> "Copy":
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
        names = subprocess.run(listed, cwd=checkout, check=True, capture_output=True, text=True).stdout
        for name in filter(None, names.split("\0")):
            if (checkout / name).is_file():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(checkout / name, folder / name)
        return cls(folder=folder)

    def time_tests(self, test: str) -> float:
        """The seconds that the tests take without a mutant. Raises ValueError if they fail."""
        start = time.monotonic()
        if self._run(test, limit_s=None) != 0:
            raise ValueError(f"{test} fails without a mutant; repair it first")
        return time.monotonic() - start

    def try_mutant(self, path: str, source: str, *, test: str, baseline_s: float) -> Outcome:
        """Run the tests with `source` as the module at `path`."""
        module = self.folder / path
        original = module.read_bytes()
        module.write_text(source)
        try:
            status = self._run(test, limit_s=SLOWDOWN * baseline_s + MIN_LIMIT_S)
        finally:
            module.write_bytes(original)
        if status is None:
            return "timeout"
        return "survived" if status == 0 else "killed"

    def _run(self, test: str, *, limit_s: float | None) -> int | None:
        """The exit status of the tests, or None after `limit_s`."""
        command = [sys.executable, "-m", "pytest", *OPTIONS, test]
        process = subprocess.Popen(
            ends_with_parent(command),
            cwd=self.folder,
            env=os.environ | ENVIRONMENT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            return process.wait(limit_s)
        except subprocess.TimeoutExpired:
            return None
        finally:
            # Also ends processes that the tests started and did not stop.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
