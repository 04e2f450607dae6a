"""Bundles that hang, crash or kill workers, and shortages of the machine, while other models are loaded."""

import errno
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from service.bundle import RequestCase
from service.engine.process.zygote import Zygote
from service.engine.repository import prover as module
from service.engine.repository import reconciler as reconciler_module
from service.engine.repository.load_records import LoadRecords, record_key
from service.engine.repository.loader import Loader
from service.engine.repository.prover import Prover
from service.engine.repository.reconciler import ModelReconciler
from service.engine.repository.registry import ModelRegistry
from service.engine.repository.repository import Repository
from service.engine.repository.scan import scan_model
from service.engine.sessions.model import Model
from service.errors import EkibenError
from tests.service.bundles import write_bundle
from tests.service.engine.repository.test_load_records import die_while_loading
from tests.service.engine.versions import NAME, loader, publish, wait_until


def misbehave(model: Model, cases: Sequence[RequestCase]) -> None:
    """Do what the name of the model says."""
    name = model.manifest.name
    if "hang" in name:
        time.sleep(60)
    if "crash" in name:
        os.kill(os.getpid(), signal.SIGSEGV)


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(["tests.service.engine.repository.test_hostile_loads"])
    yield zygote
    zygote.close()


class Service:
    """A registry and a reconciler with child processes."""

    def __init__(
        self, root: Path, zygote: Zygote, *, records: Path | None = None, slots: int = 1, timeout_s: float = 60
    ) -> None:
        self.root = root
        self.registry = ModelRegistry("")
        loader = Loader(device="cpu", replay_requests=misbehave, timeout_s=timeout_s)
        prover = Prover(zygote=zygote, loader=loader, records=LoadRecords(records))
        self.reconciler = ModelReconciler(root, self.registry, loader, max_parallel_loads=slots, prover=prover)

    def poll(self) -> None:
        self.reconciler.scan()
        self.reconciler.reconcile(threading.Event())

    def states(self) -> dict[str, str]:
        return {entry.name: entry.display_version.state for entry in self.registry.entries()}

    def reason(self, name: str) -> str:
        return self.registry[name].display_version.reason or ""


MakeService = Callable[..., Service]


@pytest.fixture
def make_service(tmp_path: Path, zygote: Zygote) -> MakeService:
    (tmp_path / "records").mkdir()
    return lambda **options: Service(tmp_path / "bundles", zygote, records=tmp_path / "records", **options)


def write(root: Path, *names: str) -> None:
    for name in names:
        write_bundle(root / "bundles", "image-classifier", name=name)


def test_bundles_that_hang_do_not_hold_up_the_others(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More hang than there are slots; they come first by name."""
    monkeypatch.setattr(module, "PATIENCE_S", 0.5)
    write(tmp_path, "a-hang", "b-hang", "c-hang", "d-crash", "e-whole", "f-whole")
    service = make_service(timeout_s=4)
    service.reconciler.scan()
    service.reconciler.start_loads(threading.Event())
    wait_until(lambda: service.states()["f-whole"] == "READY")
    states = service.states()
    assert (states["d-crash"], states["e-whole"]) == ("FAILED", "READY")
    assert [state for name, state in states.items() if "hang" in name].count("LOADING") >= 2
    write(tmp_path, "g-whole")
    service.reconciler.scan()
    service.reconciler.start_loads(threading.Event())
    wait_until(lambda: service.states().get("g-whole") == "READY")
    service.reconciler.join_loads()
    for name in ("a-hang", "b-hang", "c-hang"):
        assert "made no progress within 4 s and was killed while answering the request cases" in service.reason(name)
    assert "ended by SIGSEGV" in service.reason("d-crash")


def test_a_version_is_proven_once_for_all_workers(make_service: MakeService, tmp_path: Path, zygote: Zygote) -> None:
    write(tmp_path, "a-whole", "b-crash")
    first = make_service()
    first.poll()
    assert first.states() == {"a-whole": "READY", "b-crash": "FAILED"}
    zygote.close()
    second = make_service()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Zygote, "run", lambda *_, **__: pytest.fail("proven again"))
        second.poll()
    assert second.states() == first.states()
    assert second.reason("b-crash") == first.reason("b-crash")


def test_two_workers_share_the_proofs(make_service: MakeService, tmp_path: Path) -> None:
    write(tmp_path, *(f"m{i}" for i in range(6)))
    services = [make_service(slots=2) for _ in range(2)]
    threads = [threading.Thread(target=service.poll) for service in services]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for service in services:
        assert set(service.states().values()) == {"READY"}


def test_files_that_change_after_the_proof_are_proven_again(
    make_service: MakeService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "a-whole")
    service = make_service()
    prove = Prover.prove
    monkeypatch.setattr(Prover, "prove", lambda *args, **kw: replace(prove(*args, **kw), digest="of other bytes"))
    service.poll()
    assert "its files changed after they were proven" in service.reason("a-whole")
    monkeypatch.setattr(Prover, "prove", prove)
    assert service.registry["a-whole"].retry_at is not None
    service.registry.update("a-whole", lambda entry: replace(entry, retry_at=time.monotonic()))
    service.poll()
    assert service.states() == {"a-whole": "READY"}


def deaths_of(service: Service, records: Path, name: str, number: int) -> None:
    found = scan_model(service.root / name)
    for _ in range(number):
        die_while_loading(records, record_key(name, found.version, found.fingerprint))


def test_a_version_that_killed_two_workers_is_not_loaded_until_asked(
    make_service: MakeService, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "a-whole", "b-whole")
    service = make_service()
    deaths_of(service, tmp_path / "records", "a-whole", 2)
    service.poll()
    service.poll()
    assert service.states() == {"a-whole": "FAILED", "b-whole": "READY"}
    assert "a worker died while loading it, 2 times" in service.reason("a-whole")
    assert caplog.text.count("a-whole") == caplog.text.count("a-whole/") + 1, "said once"
    service.reconciler.load("a-whole", None)
    assert service.states() == {"a-whole": "READY", "b-whole": "READY"}


def test_a_version_that_killed_workers_is_loaded_again_when_its_files_change(
    make_service: MakeService, tmp_path: Path
) -> None:
    write(tmp_path, "a-whole")
    service = make_service()
    deaths_of(service, tmp_path / "records", "a-whole", 2)
    service.poll()
    assert service.states() == {"a-whole": "FAILED"}
    shutil.rmtree(tmp_path / "bundles" / "a-whole")
    write(tmp_path, "a-whole")
    service.poll()
    assert service.states() == {"a-whole": "READY"}


def test_after_one_death_a_version_is_loaded_last_and_alone(make_service: MakeService, tmp_path: Path) -> None:
    write(tmp_path, "a-whole", "b-whole", "c-whole")
    service = make_service(slots=2)
    deaths_of(service, tmp_path / "records", "a-whole", 1)
    service.poll()
    assert set(service.states().values()) == {"READY"}
    since = {entry.name: entry.serving.state_since for entry in service.registry.entries() if entry.serving}
    assert max(since, key=since.__getitem__) == "a-whole"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENOMEM, errno.ENOSPC, errno.EIO])
def test_a_shortage_is_over_without_a_touch(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each pause is longer; a fault of the bundle is not tried again."""
    publish(tmp_path, 1)
    attempts = []

    def lack(model: Model, cases: Sequence[RequestCase]) -> None:
        attempts.append(1)
        if len(attempts) <= 3:
            raise OSError(number, os.strerror(number))

    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader(lack))
    pauses = []
    for _ in range(4):
        reconciler.scan()
        reconciler.reconcile(threading.Event())
        if (retry_at := registry[NAME].retry_at) is not None:
            pauses.append(round(retry_at - time.monotonic()))
            assert registry[NAME].display_version.state == "FAILED"
            reconciler.reconcile(threading.Event())
            registry.update(NAME, lambda entry: replace(entry, retry_at=time.monotonic()))
    assert (len(attempts), pauses) == (4, [5, 10, 20])
    assert registry[NAME].display_version.state == "READY"
    assert registry[NAME].retry_at is None
    assert os.strerror(number) in caplog.text


def test_a_fault_after_a_shortage_is_not_tried_again(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    errors: list[Exception] = [MemoryError(), ValueError("x"), ValueError("y")]

    def fail(model: Model, cases: Sequence[RequestCase]) -> None:
        raise errors.pop(0)

    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader(fail))
    for _ in range(3):
        reconciler.scan()
        reconciler.reconcile(threading.Event())
        if registry[NAME].retry_at is not None:
            registry.update(NAME, lambda entry: replace(entry, retry_at=time.monotonic()))
    assert len(errors) == 1
    assert registry[NAME].retry_at is None
    assert "ValueError: x" in (registry[NAME].display_version.reason or "")


def test_a_current_that_cannot_be_read_for_a_while_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, 1)
    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader())

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("service.bundle._read_regular_file", fail)
        reconciler.scan()
        reconciler.reconcile(threading.Event())
    assert "Too many open files" in (registry[NAME].display_version.reason or "")
    registry.update(NAME, lambda entry: replace(entry, retry_at=time.monotonic()))
    reconciler.reconcile(threading.Event())
    assert registry[NAME].model is not None


def test_a_folder_that_cannot_be_listed_at_first_still_has_the_required_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, 1)
    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader())

    def fail(root: Path) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(reconciler_module, "model_names", fail)
        reconciler.scan()
    assert "Too many open files" in (registry.not_ready_reason() or "")
    reconciler.scan()
    assert registry[NAME].required


def test_the_watch_survives_a_shortage_of_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    first = publish(tmp_path, 1)
    repository = Repository(tmp_path, loader(), poll_s=0.02)
    start, failures = ModelReconciler.start_loads, []

    def fail(self: ModelReconciler, closing: threading.Event) -> None:
        if len(failures) < 3:
            failures.append(1)
            raise RuntimeError("can't start new thread")
        start(self, closing)

    monkeypatch.setattr(ModelReconciler, "start_loads", fail)
    repository.start()
    wait_until(lambda: repository.ready)
    assert repository.get(NAME).manifest.version == first
    assert "could not be watched" in caplog.text
    repository.close()


def test_a_thread_that_cannot_start_leaves_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(tmp_path, 1)
    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader())
    reconciler.scan()

    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            reconciler.start_loads(threading.Event())
    reconciler.reconcile(threading.Event())
    assert registry[NAME].model is not None


def test_a_removed_model_may_be_reported_by_a_health_check(tmp_path: Path) -> None:
    publish(tmp_path, 1)
    registry = ModelRegistry("")
    reconciler = ModelReconciler(tmp_path, registry, loader())
    reconciler.report_failure("nobody", "1", "health check: x")
    with pytest.raises(EkibenError, match="no model 'nobody'"):
        registry["nobody"]
