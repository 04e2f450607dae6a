"""A version is proven in a child process; whatever it does there becomes a reason here."""

import dataclasses
import errno
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from onnx import numpy_helper, parser

from service.bundle import RequestCase, open_bundle
from service.engine.limits import Limits
from service.engine.process.load_slots import LoadSlots
from service.engine.process.shortage import ShortageError
from service.engine.process.zygote import Message, Zygote, ZygoteLostError
from service.engine.repository import prover as module
from service.engine.repository.load_records import LoadRecords, Outcome, ProofBusyError
from service.engine.repository.loader import Loader, Proof, digest
from service.engine.repository.prover import Prover, SlowProofError, check_bundle
from service.engine.sessions.model import Model
from service.errors import BundleError
from tests.service.bundles import FAMILIES, OPSET, write_bundle
from tests.service.engine.versions import accept, wait_until

HUGE = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  dimensions = Mul (side, side)
  zeros = ConstantOfShape (dimensions)
  total = ReduceSum <keepdims = 0> (zeros)
  start = Gemm (flat, w, b)
  logits = Add (start, total)
  probabilities = Softmax <axis = -1> (logits)
}"""


def crash(model: Model, cases: Sequence[RequestCase]) -> None:
    os.kill(os.getpid(), signal.SIGSEGV)


def be_killed(model: Model, cases: Sequence[RequestCase]) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def exit_silently(model: Model, cases: Sequence[RequestCase]) -> None:
    os._exit(0)


def sleep(model: Model, cases: Sequence[RequestCase]) -> None:
    time.sleep(60)


def nap(model: Model, cases: Sequence[RequestCase]) -> None:
    time.sleep(1)


def spin(model: Model, cases: Sequence[RequestCase]) -> None:
    while True:
        pass


def allocate(model: Model, cases: Sequence[RequestCase]) -> None:
    np.ones(1 << 30)  # 8 GB


def lack_descriptors(model: Model, cases: Sequence[RequestCase]) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


def raise_fault(model: Model, cases: Sequence[RequestCase]) -> None:
    raise BundleError(f"{model.manifest.name}: case 0 of {len(cases)}: no")


def divide(model: Model, cases: Sequence[RequestCase]) -> None:
    raise ZeroDivisionError("by zero")


def end_before_the_start(report: Callable[[Message], None], **_: Any) -> Message:
    raise MemoryError


def crash_before_the_start(report: Callable[[Message], None], **_: Any) -> Message:
    os.kill(os.getpid(), signal.SIGABRT)
    return {}


def hang_before_the_start(report: Callable[[Message], None], **_: Any) -> Message:
    time.sleep(60)
    return {}


def check_process(model: Model, cases: Sequence[RequestCase]) -> None:
    assert model.session.device == "cpu"
    assert os.nice(0) > 0
    assert model.session.manifest.limits.max_items


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote(["tests.service.engine.repository.test_prover"])
    yield zygote
    zygote.close()


Prove = Callable[..., Proof]


@pytest.fixture
def prove(zygote: Zygote, tmp_path: Path) -> Prove:
    """Prove the tiny image classifier with this replay of request cases, in a slow slot."""

    def run(
        replay: Callable[[Model, Sequence[RequestCase]], None] = accept,
        *,
        folder: Path | None = None,
        timeout_s: float = 20,
        memory_bytes: int = 0,
        records: LoadRecords | None = None,
    ) -> Proof:
        loader = Loader(device="cpu", replay_requests=replay, timeout_s=timeout_s)
        prover = Prover(zygote=zygote, loader=loader, records=records or LoadRecords(None), memory_bytes=memory_bytes)
        folder = folder or write_bundle(tmp_path / "bundles", "image-classifier")
        return prover.prove("m/1", "key", folder, num_bytes=1000, slot=LoadSlots(1).unlimited())

    return run


@pytest.mark.parametrize("family", FAMILIES)
def test_a_proof_names_the_bytes(family: str, prove: Prove, tmp_path: Path) -> None:
    folder = write_bundle(tmp_path, family)
    bundle = open_bundle(folder)
    proof = prove(check_process, folder=folder)
    assert (proof.digest, proof.device) == (digest(bundle), "cpu")
    assert proof.max_inline_bytes is not None
    assert (proof.max_inline_bytes > 0) == (bundle.tokenizer is not None)
    changed = dataclasses.replace(bundle, manifest=bundle.manifest.model_copy(update={"summary": "Another."}))
    assert digest(changed) != digest(bundle)


@pytest.mark.parametrize(
    ("replay", "reason"),
    [
        (crash, "m/1: the process that checks it ended by SIGSEGV while answering the request cases"),
        (exit_silently, "m/1: the process that checks it exited without an answer while answering the request cases"),
        (raise_fault, "tiny-images: case 0 of 1: no"),
        (divide, "m/1: answering the request cases failed: ZeroDivisionError: by zero"),
        (allocate, "m/1: it needs more than 1024 MiB of memory (EKIBEN_LOAD_MEMORY_BYTES) while answering the"),
    ],
)
def test_a_fault_of_the_bundle_is_recorded(
    replay: Callable[[Model, Sequence[RequestCase]], None], reason: str, prove: Prove
) -> None:
    records = LoadRecords(None)
    with pytest.raises(BundleError) as caught:
        prove(replay, records=records)
    assert str(caught.value).startswith(reason)
    recorded = records.outcome("key")
    assert recorded == Outcome(failure=str(caught.value))
    with pytest.raises(BundleError):
        prove(accept, records=records)


def children_of_zygotes() -> list[psutil.Process]:
    mine, me = "tests.service.engine.repository.test_prover", psutil.Process()
    descendants = set(me.children(recursive=True))
    found = [process for process in psutil.process_iter(["cmdline", "nice"]) if process in descendants]
    return [one for one in found if one.info["nice"] > me.nice() and mine in " ".join(one.info["cmdline"] or [])]


def test_a_child_that_hangs_is_killed(prove: Prove) -> None:
    with pytest.raises(BundleError, match=r"made no progress within 5 s and was killed while answering the request"):
        prove(sleep, timeout_s=5)
    wait_until(lambda: children_of_zygotes() == [])


def test_a_child_that_computes_for_too_long_is_killed_by_the_kernel(
    prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    receive = module.Job.receive
    monkeypatch.setattr(module.Job, "receive", lambda job, timeout_s: receive(job, 120))
    with pytest.raises(BundleError, match=r"was killed after 1 s of CPU time while answering the request cases"):
        prove(spin, timeout_s=1)


def test_a_graph_that_allocates_too_much_is_refused(prove: Prove, tmp_path: Path) -> None:
    model = parser.parse_model(f'<ir_version: 10, opset_import: ["" : {OPSET}]>\ntiny_images {HUGE.strip()}')
    rng = np.random.default_rng(0)
    constants = {
        "w": rng.normal(size=(16, 3)).astype(np.float32),
        "b": rng.normal(size=3).astype(np.float32),
        "side": np.array([46_341], np.int64),
    }
    model.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
    folder = write_bundle(tmp_path, "image-classifier", files={**files(tmp_path), "model.onnx": onnx_bytes(model)})
    with pytest.raises(BundleError) as caught:
        prove(folder=folder)
    assert str(caught.value)


def files(root: Path) -> dict[str, bytes]:
    folder = write_bundle(root / "whole", "image-classifier")
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}


def onnx_bytes(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def test_the_setting_limits_the_memory(prove: Prove) -> None:
    with pytest.raises(BundleError, match="more than 20 MiB of memory"):
        prove(allocate, memory_bytes=20 << 20)


@pytest.mark.parametrize(
    ("replay", "reason"),
    [
        (be_killed, "m/1: the process that checks it ended by SIGKILL, perhaps for lack of memory, while answering"),
        (lack_descriptors, "m/1: answering the request cases failed: OSError: .* Too many open files"),
    ],
)
def test_a_shortage_is_not_recorded(
    replay: Callable[[Model, Sequence[RequestCase]], None], reason: str, prove: Prove
) -> None:
    records = LoadRecords(None)
    with pytest.raises(ShortageError, match=f"^{reason}"):
        prove(replay, records=records)
    assert records.outcome("key") is None
    assert prove(accept, records=records)


@pytest.mark.parametrize(
    ("check", "timeout_s", "reason"),
    [
        (end_before_the_start, 20, "exited without an answer"),
        (crash_before_the_start, 20, "ended by SIGABRT"),
        (hang_before_the_start, 2, "made no progress within 2 s and was killed"),
    ],
)
def test_a_child_that_has_read_nothing_says_nothing_about_the_bundle(
    check: Callable[..., Message], timeout_s: float, reason: str, prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = LoadRecords(None)
    monkeypatch.setattr(module, "check_bundle", check)
    with pytest.raises(ShortageError) as caught:
        prove(records=records, timeout_s=timeout_s)
    monkeypatch.undo()
    assert f"{reason}, perhaps for lack of memory, while being started" in str(caught.value)
    assert records.outcome("key") is None
    assert prove(records=records)


def test_without_a_process_there_is_a_shortage(prove: Prove, monkeypatch: pytest.MonkeyPatch, zygote: Zygote) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Zygote, "run", fail)
    with pytest.raises(ShortageError, match=r"no process could be started to check it: .*Too many open files"):
        prove()


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (ZygoteLostError("it ended"), ShortageError),
        (RuntimeError("can't start new thread"), ShortageError),
        (FileNotFoundError(errno.ENOENT, "no interpreter"), FileNotFoundError),
        (RuntimeError("a fault of ours"), RuntimeError),
    ],
)
def test_only_a_shortage_is_one(
    error: Exception, raised: type[Exception], prove: Prove, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Zygote, "run", fail)
    with pytest.raises(raised) as caught:
        prove()
    assert type(caught.value) is raised


def test_another_worker_that_proves_is_waited_for(prove: Prove, tmp_path: Path) -> None:
    records, other = LoadRecords(tmp_path), LoadRecords(tmp_path)
    with other.proving("key"), pytest.raises(ProofBusyError):
        prove(records=records)
    other.store("key", Outcome(digest="of the other"))
    assert prove(crash, records=records) == Proof(digest="of the other", device="cpu")


def test_a_slow_proof_moves_aside_or_gives_up(zygote: Zygote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE_S", 0.3)
    loader = Loader(device="cpu", replay_requests=nap, timeout_s=20)
    prover = Prover(zygote=zygote, loader=loader, records=LoadRecords(None))
    folder = write_bundle(tmp_path, "image-classifier")
    slots = LoadSlots(1)
    with slots.hold_fast(slots.fast.enter()) as slot:
        assert prover.prove("m/1", "first", folder, num_bytes=1, slot=slot)
        assert slot.is_slow
    with slots.hold_slow(), slots.hold_fast(slots.fast.enter()) as slot:
        with pytest.raises(SlowProofError):
            prover.prove("m/2", "second", folder, num_bytes=1, slot=slot)
        assert not slot.is_slow


def test_the_largest_batches_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_limit_this_process", lambda num_bytes: None)
    monkeypatch.setattr(module, "limit_cpu", lambda seconds: None)
    shapes: list[tuple[int, ...]] = []
    run = module.Loader.create_model

    def spy(loader: Loader, bundle: module.open_bundle) -> Model:  # type: ignore[valid-type]
        model = run(loader, bundle)
        compute = model.session.run
        model.session.run = lambda inputs, names=None: (  # type: ignore[method-assign]
            shapes.append(inputs["images"].shape) or compute(inputs, names)
        )
        return model

    monkeypatch.setattr(module.Loader, "create_model", spy)
    doing: list[str] = []
    found = check_bundle(
        lambda message: doing.append(message["doing"]),
        label="m/1",
        folder=str(write_bundle(tmp_path, "image-classifier")),
        allowance=1 << 30,
        replay="tests.service.engine.versions:accept",
        threads=1,
        timeout_s=20,
        limits=dataclasses.asdict(Limits(max_batch_items=5)),
    )
    assert set(found) == {"digest", "max_inline_bytes"}
    assert shapes[-1] == (5, 4, 4)
    assert doing == [
        "opening the bundle",
        "creating the session",
        "replaying the golden cases",
        "comparing golden rows alone and in their batch",
        "replaying golden cases on shuffled weights",
        "answering the request cases",
        "running the largest batches",
    ]
