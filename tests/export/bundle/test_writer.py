"""A bundle is written completely or not at all, and writing it again changes nothing."""

from pathlib import Path

import pytest

from export.bundle import writer
from export.bundle.writer import write_bundle
from export.candidate import Candidate
from service.bundle import current_version, open_bundle
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from tests.export.conftest import Candidates, Proofs


def read_files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_written_bundle_replays_its_golden_cases(candidate: Candidate, proofs: Proofs, tmp_path: Path) -> None:
    name = candidate.manifest.name
    write_bundle(candidate, proofs(name), tmp_path)
    bundle = open_bundle(tmp_path / name / current_version(tmp_path / name))
    assert bundle.model == candidate.model
    assert bundle.tokenizer == candidate.source.tokenizer
    assert bundle.manifest.invariance == proofs(name).certificate.invariance
    assert bundle.manifest.domain == proofs(name).parity.domain
    for output, measured in replay_cases(candidate.session, dict(enumerate(bundle.golden))).items():
        assert measured <= 2 * bundle.manifest.tolerance[output].measured + 1e-6
    assert bundle.tokens == proofs(name).tokens
    assert bundle.manifest.mutation == proofs(name).goldens.score
    for output, rounding in proofs(name).goldens.rounding.items():
        assert bundle.manifest.tolerance[output].rounding == rounding
    assert [case.request for case in bundle.requests] == [case.request for case in proofs(name).requests]


def test_writing_again_gives_the_same_bytes_and_leaves_no_temporary_file(
    candidates: Candidates, proofs: Proofs, tmp_path: Path
) -> None:
    candidate, proof = candidates("tiny-text"), proofs("tiny-text")
    write_bundle(candidate, proof, tmp_path / "one")
    first = read_files(tmp_path / "one")
    write_bundle(candidate, proof, tmp_path / "one")
    write_bundle(candidate, proof, tmp_path / "two")
    assert read_files(tmp_path / "one") == read_files(tmp_path / "two") == first
    assert not any(part.startswith(".") for name in first for part in Path(name).parts)


def test_a_new_bundle_needs_no_signature(
    candidates: Candidates, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EKIBEN_TRUSTED_KEYS", "ab" * 32)
    write_bundle(candidates("tiny-rnn"), proofs("tiny-rnn"), tmp_path)
    with pytest.raises(BundleError, match=r"there is no signature.json"):
        open_bundle(tmp_path / "tiny-rnn" / current_version(tmp_path / "tiny-rnn"))


@pytest.mark.parametrize(
    "error", [BundleError("refused"), KeyboardInterrupt("refused")], ids=lambda e: type(e).__name__
)
def test_a_bundle_that_is_refused_or_interrupted_leaves_no_files(
    error: BaseException,
    candidates: Candidates,
    proofs: Proofs,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    candidate, proof = candidates("tiny-rnn"), proofs("tiny-rnn")
    existing = write_bundle(candidate, proof, tmp_path)
    before = read_files(tmp_path)

    def fail(folder: Path) -> None:
        raise error

    monkeypatch.setattr(writer, "open_bundle", fail)
    changed = Candidate(
        source=candidate.source,
        model=candidate.model,
        manifest=candidate.manifest.model_copy(update={"summary": "Another one."}),
    )
    with pytest.raises(type(error), match="refused"):
        write_bundle(changed, proof, tmp_path)
    assert read_files(tmp_path) == before
    assert current_version(tmp_path / "tiny-rnn") == existing.manifest.version
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-rnn"]


def test_a_new_version_becomes_current_and_keeps_the_old_one(
    candidates: Candidates, proofs: Proofs, tmp_path: Path
) -> None:
    candidate, proof = candidates("tiny-rnn"), proofs("tiny-rnn")
    old = write_bundle(candidate, proof, tmp_path).manifest.version
    changed = Candidate(
        source=candidate.source,
        model=candidate.model,
        manifest=candidate.manifest.model_copy(update={"summary": "Another one."}),
    )
    new = write_bundle(changed, proof, tmp_path).manifest.version
    assert new != old
    assert current_version(tmp_path / "tiny-rnn") == new
    assert {path.name for path in (tmp_path / "tiny-rnn").iterdir()} == {old, new, "current"}
