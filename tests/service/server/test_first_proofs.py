"""The proofs that are made while the master starts are those that its workers would make."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

from service.bundle import open_bundle
from service.engine.process.zygote import shared_zygote
from service.engine.repository.load_records import LoadRecords, record_key
from service.engine.repository.loader import digest
from service.engine.repository.scan import scan_model
from service.server.first_proofs import prove_all
from service.settings import Settings
from tests.e2e.serving import ROOT, environment, start
from tests.service.bundles import NAMES
from tests.service.hosts import GRANIAN, wait_until

MODEL = NAMES["image-classifier"]


def key_of(folder: Path) -> str:
    found = scan_model(folder)
    return record_key(folder.name, found.version, found.fingerprint)


def test_every_bundle_is_proven_and_faults_are_left_to_the_workers(served_bundles: Path, tmp_path: Path) -> None:
    bundles, records = tmp_path / "bundles", tmp_path / "records"
    records.mkdir()
    for name in (MODEL, NAMES["text-classifier"]):
        shutil.copytree(served_bundles / name, bundles / name)
    shutil.copytree(bundles / MODEL, bundles / "broken")
    (bundles / "unfinished").mkdir()
    try:
        prove_all(Settings(bundles=bundles), records)
    finally:
        shared_zygote().close()
    for name in (MODEL, NAMES["text-classifier"]):
        outcome = LoadRecords(records).outcome(key_of(bundles / name))
        assert outcome is not None
        version = (bundles / name / "current").read_text().strip()
        assert outcome.digest == digest(open_bundle(bundles / name / version))
    broken = LoadRecords(records).outcome(key_of(bundles / "broken"))
    assert broken is not None
    assert broken.failure is not None
    assert "broken" in broken.failure


def test_the_process_that_proves_ends_by_itself(served_bundles: Path, tmp_path: Path) -> None:
    command = [*GRANIAN, "--workers", "1"]
    with start(command, env=environment(EKIBEN_BUNDLES=served_bundles), cwd=ROOT, log=tmp_path / "log") as host:
        master = psutil.Process(host.process.pid)
        wait_until(lambda: len(master.children()) == 1)  # the worker


def test_it_ends_with_its_master(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from service.server import first_proofs; "
        "from service.settings import Settings; first_proofs.prove_all = lambda *_: time.sleep(60); "
        "first_proofs.start_proofs(Settings()); print('started', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        (child,) = psutil.Process(process.pid).children()
        os.kill(process.pid, signal.SIGKILL)
    end = time.monotonic() + 30
    while child.is_running() and child.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < end
        time.sleep(0.02)
