"""A bundle with a data file is opened, proven under a memory limit, and served; a corrupted one is refused."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from service.bundle import RequestCase, open_bundle
from service.engine.process.load_slots import LoadSlots
from service.engine.process.zygote import Zygote
from service.engine.repository.load_records import LoadRecords
from service.engine.repository.loader import Loader, digest
from service.engine.repository.prover import BASE_MEMORY_BYTES, COPIES, MAPPED_COPIES, Prover
from service.engine.repository.version import Version
from service.engine.sessions.model import Model
from service.errors import BundleError
from service.manifest import MODEL_DATA
from tests.service.data_files.models import initializer, split_files, split_model, write_split_bundle


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_split_bundle(tmp_path)


def accept(model: Model, cases: Sequence[RequestCase]) -> None:
    """A replay of request cases that always succeeds."""
    assert cases


def test_the_data_file_is_mapped_and_not_read(folder: Path) -> None:
    bundle = open_bundle(folder)
    _, data = split_model()
    assert bundle.data is not None
    assert bytes(bundle.data.content) == data
    assert bundle.data.sha256 == bundle.manifest.files[MODEL_DATA].sha256
    assert bundle.model_bytes == len(bundle.model) + len(data)
    assert len(bundle.model) < len(data)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\0" + split_model()[1][1:], "model.onnx.data has sha256 .* but the manifest says"),
        (split_model()[1][:-1], "model.onnx.data has 73727 bytes, but the manifest says 73728"),
        (split_model()[1] + b"\0", "model.onnx.data has 73729 bytes, expected 1 to 73728"),
        (b"", "model.onnx.data has 0 bytes"),
        (None, "cannot read model.onnx.data: No such file"),
    ],
)
def test_another_data_file_is_refused(folder: Path, content: bytes | None, message: str) -> None:
    (folder / MODEL_DATA).unlink()
    if content is not None:
        (folder / MODEL_DATA).write_bytes(content)
    with pytest.raises(BundleError, match=message):
        open_bundle(folder)


def test_a_link_to_the_data_file_is_refused(folder: Path) -> None:
    (folder / MODEL_DATA).rename(folder.parent / "elsewhere")
    (folder / MODEL_DATA).symlink_to(folder.parent / "elsewhere")
    with pytest.raises(BundleError, match=r"cannot read model\.onnx\.data: Too many levels of symbolic links"):
        open_bundle(folder)


def test_a_graph_that_leaves_bytes_of_the_file_unread_is_refused(tmp_path: Path) -> None:
    folder = write_split_bundle(tmp_path, lambda model: model.graph.initializer.remove(initializer(model, "second")))
    with pytest.raises(BundleError, match=r"model\.onnx: model\.onnx\.data has 73728 bytes, but the tensors"):
        open_bundle(folder)


def test_a_bundle_with_a_data_file_is_proven_in_little_memory_and_becomes_ready(folder: Path) -> None:
    """Opened, replayed, compared in batches and with shuffled weights by a child with 64 MiB, and then served."""
    zygote = Zygote(["service.engine.repository.prover"])
    try:
        loader = Loader(device="cpu", replay_requests=accept, timeout_s=60)
        prover = Prover(zygote=zygote, loader=loader, records=LoadRecords(None), memory_bytes=64 << 20)
        proof = prover.prove("m/1", "key", folder, num_bytes=1, mapped_bytes=1, slot=LoadSlots(1).unlimited())
    finally:
        zygote.close()
    assert proof.digest == digest(open_bundle(folder))
    *_, ready = loader.stages(Version(name=folder.parent.name, version=folder.name), folder, proof)
    assert ready.state == "READY"
    assert ready.memory is not None
    assert ready.memory["model_bytes"] == sum(len(split_files()[name]) for name in ("model.onnx", MODEL_DATA))


def test_the_default_limit_has_room_for_copies(tmp_path: Path) -> None:
    loader = Loader(device="cpu", replay_requests=accept)
    prover = Prover(zygote=Zygote(), loader=loader, records=LoadRecords(None))
    assert prover._allowance(10, 1000) == BASE_MEMORY_BYTES + COPIES * 10 + MAPPED_COPIES * 1000
