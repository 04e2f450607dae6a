"""Prove the bundles of a start while the master still imports the application.

A process of its own runs the checks one after the other and leaves the records that the workers of this master read.
Invariant: it decides nothing. What it does not prove, because a bundle is slow, broken or not there yet, the workers
prove or report as they would without it.
"""

import os
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from service.engine.process.identity import shared_folder
from service.engine.process.load_slots import LoadSlots, Slot
from service.engine.process.parent_death import signal_on_parent_death
from service.engine.process.shortage import ShortageError
from service.engine.process.zygote import shared_zygote
from service.engine.repository.load_records import LoadRecords, ProofBusyError, record_key
from service.engine.repository.loader import Loader
from service.engine.repository.prover import Prover, SlowProofError
from service.engine.repository.scan import model_names, place_of, scan_model
from service.errors import BundleError
from service.settings import Settings
from service.tasks.replay import replay_requests


def start_proofs(settings: Settings) -> None:
    """Start the process, unless the workers of this master share no folder."""
    folder = shared_folder(os.getpid())
    if folder is None:
        return
    master = os.getpid()
    pid = os.fork()
    if not pid:
        _become_prover(settings, folder, master)
    threading.Thread(target=os.waitpid, args=(pid, 0), name="first-proofs", daemon=True).start()  # leaves no zombie


def prove_all(settings: Settings, folder: Path) -> None:
    """Prove the version that each `current` and `candidate` names, and record the outcome."""
    loader = Loader(
        device="cpu",  # as in every child
        intra_op_threads=settings.intra_op_threads,
        timeout_s=settings.hang_s,
        replay_requests=replay_requests,
        limits=settings.limits,
        prepack=settings.prepack,
    )
    prover = Prover(
        zygote=shared_zygote(), loader=loader, records=LoadRecords(folder), memory_bytes=settings.load_memory_bytes
    )
    for name in model_names(settings.bundles)[0]:
        place, pointer = place_of(settings.bundles, name)
        found = scan_model(place, pointer)
        if found.version is None:
            continue
        # Without a free slow slot, a slow bundle is left to the workers, so that it delays no other.
        slot = Slot(LoadSlots(0), is_slow=False, size=0)
        with suppress(BundleError, ShortageError, SlowProofError, ProofBusyError):
            prover.prove(
                f"{name}/{found.version}",
                record_key(name, found.version, found.fingerprint),
                place / found.version,
                num_bytes=found.num_bytes,
                mapped_bytes=found.mapped_bytes,
                slot=slot,
            )


def _become_prover(settings: Settings, folder: Path, master: int) -> NoReturn:
    with suppress(BaseException):  # the workers report what is wrong
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal_on_parent_death(signal.SIGKILL)
        if os.getppid() == master:
            prove_all(settings, folder)
    os._exit(0)
