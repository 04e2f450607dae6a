"""Open and check a version in a child process with limits, before a worker touches it.

The child opens the bundle, creates the session on the CPU, runs every check and the largest batches. Invariant: a
worker loads only bytes that passed all of this, and whatever a bundle does to the child, the worker reports why.
"""

import os
import pkgutil
import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from service.bundle import open_bundle
from service.engine.limits import Limits
from service.engine.process.call_timeout import CallTimeoutError
from service.engine.process.load_slots import PATIENCE_S, Slot
from service.engine.process.resource_limits import (
    disable_core_dumps,
    limit_cpu,
    limit_memory,
    memory_limit_was_reached,
)
from service.engine.process.shortage import ShortageError, is_out_of_memory, is_shortage
from service.engine.process.zygote import ChildError, Job, Message, Zygote, ZygoteLostError, reference
from service.engine.repository.load_records import LoadRecords, Outcome
from service.engine.repository.loader import Loader, Proof, digest, failure_reason, replay_golden
from service.engine.verification.shapes import largest_shapes, zero_inputs
from service.errors import BundleError

# The default memory limit: room for onnxruntime and activations, for several copies of weights that are read into
# memory, and for what is made of mapped ones: a prepacked copy, and the copies of one tensor with other values. A
# mapping that is only read is not charged to the limit.
BASE_MEMORY_BYTES, COPIES, MAPPED_COPIES = 1 << 30, 8, 4
CHILD_NICENESS = 5  # requests to other models go first
MAX_REASON = 4000


class SlowProofError(RuntimeError):
    """The child was stopped to let others go first: it is slow, and no slow slot is free."""


@dataclass(frozen=True, kw_only=True)
class Prover:
    """`memory_bytes`: what a child may allocate beside the data file that it maps; 0: a limit by the bundle's size."""

    zygote: Zygote
    loader: Loader
    records: LoadRecords
    memory_bytes: int = 0

    def prove(self, label: str, key: str, folder: Path, *, num_bytes: int, mapped_bytes: int = 0, slot: Slot) -> Proof:
        """Return the proof for the files of this key, recorded or new; `mapped_bytes` is the size of the data file.

        Raises BundleError if they fail, ShortageError, and ProofBusyError or SlowProofError: try again later.
        """
        outcome = self.records.outcome(key)
        if outcome is None:
            with self.records.proving(key):
                outcome = self.records.outcome(key)
                if outcome is None:
                    outcome = self._prove_in_child(label, folder, self._allowance(num_bytes, mapped_bytes), slot)
                    self.records.store(key, outcome)
        if outcome.digest is None:
            raise BundleError(outcome.failure)
        return Proof(digest=outcome.digest, device="cpu", max_inline_bytes=outcome.max_inline_bytes)

    def _allowance(self, num_bytes: int, mapped_bytes: int) -> int:
        return self.memory_bytes or BASE_MEMORY_BYTES + COPIES * num_bytes + MAPPED_COPIES * mapped_bytes

    def _prove_in_child(self, label: str, folder: Path, allowance: int, slot: Slot) -> Outcome:
        doing = ["being started"]
        arguments = {
            "label": label,
            "folder": str(folder),
            "allowance": allowance,
            "replay": reference(self.loader.replay_requests),
            "threads": self.loader.intra_op_threads,
            "timeout_s": self.loader.timeout_s,
            "limits": asdict(self.loader.limits),
            "prepack": self.loader.prepack,
        }
        try:
            with self.zygote.run(check_bundle, **arguments) as job:
                return self._wait(job, slot, doing)
        except (CallTimeoutError, ChildError) as error:
            reason = f"{label}: the process that checks it {self._ending(error)}"
            # A child that has not started has read nothing of the bundle.
            if len(doing) == 1 or (isinstance(error, ChildError) and error.signal_number == signal.SIGKILL):
                raise ShortageError(f"{reason}, perhaps for lack of memory, while {doing[-1]}") from error
            return Outcome(failure=f"{reason} while {doing[-1]}")
        except (ShortageError, SlowProofError):
            raise
        except (OSError, RuntimeError) as error:
            if not isinstance(error, ZygoteLostError) and not is_shortage(error):
                raise
            raise ShortageError(f"{label}: no process could be started to check it: {error}") from error

    def _ending(self, error: CallTimeoutError | ChildError) -> str:
        if isinstance(error, CallTimeoutError):
            return f"made no progress within {self.loader.timeout_s:g} s and was killed"
        if error.signal_number == signal.SIGXCPU:
            return f"was killed after {self.loader.timeout_s:g} s of CPU time"
        return str(error)

    def _wait(self, job: Job, slot: Slot, doing: list[str]) -> Outcome:
        """Follow the child to its end; the last of `doing` is what it does."""
        while True:
            message = self._receive(job, slot, is_started=len(doing) > 1)
            if "doing" in message:
                doing.append(message["doing"])
            elif "shortage" in message:
                raise ShortageError(message["shortage"])
            else:
                return Outcome(**message)

    def _receive(self, job: Job, slot: Slot, *, is_started: bool) -> Message:
        """Return the next message; once the child has started, a fast slot is exchanged or given up."""
        if is_started and not slot.is_slow and self.loader.timeout_s > PATIENCE_S:
            try:
                return job.receive(PATIENCE_S)
            except CallTimeoutError:
                if not slot.move_to_slow():
                    raise SlowProofError from None
        return job.receive(self.loader.timeout_s)


def check_bundle(
    report: Callable[[Message], None],
    *,
    label: str,
    folder: str,
    allowance: int,
    replay: str,
    threads: int,
    timeout_s: float,
    limits: dict[str, Any],
    prepack: bool = False,
) -> Message:
    """Run every check in this process, which is a child with limits; return an Outcome's fields, or `shortage`.

    On the CPU: on a GPU, each child would need seconds to initialise CUDA. `replay` names `Loader.replay_requests`.
    """
    loader = Loader(
        device="cpu",
        replay_requests=pkgutil.resolve_name(replay),
        intra_op_threads=threads,
        timeout_s=timeout_s,
        limits=Limits(**limits),
        prepack=prepack,
    )
    doing = "being started"

    def begin(stage: str) -> None:
        nonlocal doing
        doing = stage
        report({"doing": stage})
        limit_cpu(timeout_s * threads)

    try:
        _limit_this_process(allowance)
        proof = run_checks(loader, Path(folder), begin)
        return {"digest": proof.digest, "max_inline_bytes": proof.max_inline_bytes}
    except Exception as error:  # noqa: BLE001 - the worker reports it
        if is_out_of_memory(error) and memory_limit_was_reached():
            limit = f"more than {allowance >> 20} MiB of memory (EKIBEN_LOAD_MEMORY_BYTES)"
            return {"failure": f"{label}: it needs {limit} while {doing}"}
        reason = failure_reason(error, f"{label}: {doing}")[:MAX_REASON]
        return {"shortage" if is_shortage(error) else "failure": reason}


def run_checks(loader: Loader, folder: Path, begin: Callable[[str], None]) -> Proof:
    """Run every check; return the proof of what passed. `begin` is told what follows."""
    begin("opening the bundle")
    bundle = open_bundle(folder)
    begin("creating the session")
    model = loader.create_model(bundle)
    begin("replaying the golden cases")
    replay_golden(model, bundle)
    for stage, check in loader.checks().items():
        begin(stage)
        check(model, bundle)
    begin("running the largest batches")
    for shape in largest_shapes(bundle.manifest, loader.limits):
        model.session.run(zero_inputs(bundle.manifest, shape))
    return Proof(digest=digest(bundle), device=loader.device, max_inline_bytes=model.max_inline_bytes)


def _limit_this_process(num_bytes: int) -> None:
    os.nice(CHILD_NICENESS)
    disable_core_dumps()
    limit_memory(num_bytes)
