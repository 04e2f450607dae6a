"""Tests that the certificate of batch invariance is checked on the machine that serves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.bundle import Bundle, GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_batch_invariance
from service.engine.verification.parity import replay_cases
from service.errors import BundleError
from tests.service.bundles import NAMES, example_inputs
from tests.service.engine.fakes import FakeSession, rows


class LeakingSession(FakeSession):
    """A session whose probabilities depend on the number of rows."""

    device = "cpu"

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        answer = super().run(inputs, outputs)
        return {**answer, "probabilities": answer["probabilities"] + np.float32(1e-3 * (len(inputs["h"]) > 1))}


def case() -> dict[int, GoldenCase]:
    return {4: GoldenCase(inputs=rows(3, 5, 1), outputs={})}


def test_a_row_that_depends_on_its_batch_is_named() -> None:
    name = NAMES["series-tagger"]
    message = rf"{name}/.*: golden case 4: .* row 0 .*: export .* on this processor \(`python -m export runs/{name}`\)"
    with pytest.raises(BundleError, match=message):
        check_batch_invariance(LeakingSession(), case())  # type: ignore[arg-type]


def test_rows_that_do_not_depend_on_their_batch_pass() -> None:
    session = FakeSession()
    session.device = "cpu"  # type: ignore[attr-defined]
    check_batch_invariance(session, case())  # type: ignore[arg-type]
    assert len(session.batches) == 4


@pytest.mark.parametrize("change", ["level", "device"])
def test_sessions_without_the_certificate_are_not_checked(change: str) -> None:
    session = LeakingSession()
    if change == "device":
        session.device = "cuda"
    else:
        invariance = session.manifest.invariance.model_copy(update={"level": "tolerance"})
        session.manifest = session.manifest.model_copy(update={"invariance": invariance})
    check_batch_invariance(session, case())  # type: ignore[arg-type]
    assert session.batches == []


def test_rows_that_depend_on_their_batch_are_refused_within_the_tolerance(
    bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The session reproduces every golden within its tolerance, but its bits depend on the batch."""
    bundle = bundles["series-tagger"]
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    run = session.run

    def run_with_noise(inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        return {name: value + np.float32(1e-6 * len(value)) for name, value in run(inputs, outputs).items()}

    cases = dict(enumerate(bundle.golden))
    check_batch_invariance(session, cases)
    monkeypatch.setattr(session, "run", run_with_noise)
    replay_cases(session, cases)
    with pytest.raises(BundleError, match="when the row is alone"):
        check_batch_invariance(session, cases)


class RecordingSession:
    """A session that runs the graph and records the shapes of the inputs of each run."""

    def __init__(self, session: Session) -> None:
        self.manifest, self.device = session.manifest, "cpu"
        self.shapes: list[dict[str, tuple[int, ...]]] = []
        self._session = session

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        self.shapes.append({name: value.shape for name, value in inputs.items()})
        return self._session.run(inputs, outputs)


def items(family: str, *sizes: int) -> dict[int, GoldenCase]:
    """Cases of these numbers of rows."""
    return {i: GoldenCase(inputs=example_inputs(family, batch=size), outputs={}) for i, size in enumerate(sizes)}


@pytest.mark.parametrize("sizes", [(2,), (1, 2), (3, 1, 4, 9), (12,)])
def test_eight_rows_are_compared_alone_and_in_their_batch(sizes: tuple[int, ...], sessions: dict[str, Session]) -> None:
    session = RecordingSession(sessions["image-classifier"])
    check_batch_invariance(session, items("image-classifier", *sizes))  # type: ignore[arg-type]
    num_rows = [shape["images"][0] for shape in session.shapes]
    batches = [size for size in sizes if size > 1]
    assert [rows for rows in num_rows if rows > 1] == batches
    assert num_rows.count(1) == min(sum(batches), 8)


def test_a_row_alone_has_no_padding(sessions: dict[str, Session]) -> None:
    session = RecordingSession(sessions["text-classifier"])
    inputs = example_inputs("text-classifier", batch=3) | {"lengths": np.array([5, 1, 3])}
    check_batch_invariance(session, {0: GoldenCase(inputs=inputs, outputs={})})  # type: ignore[arg-type]
    assert [shape["ids"] for shape in session.shapes] == [(3, 5), (1, 5), (1, 1), (1, 3)]


def test_only_decode_steps_of_a_language_model_are_batched(sessions: dict[str, Session]) -> None:
    session = RecordingSession(sessions["language-model"])
    ids = np.arange(12).reshape(2, 6)
    prefill = GoldenCase(inputs={"ids": ids, "past_lengths": np.array([0, 0])}, outputs={})
    check_batch_invariance(session, {0: prefill})  # type: ignore[arg-type]
    assert session.shapes == []
    decode = GoldenCase(inputs={"ids": ids, "past_lengths": np.array([5, 3])}, outputs={})
    check_batch_invariance(session, {0: decode})  # type: ignore[arg-type]
    prompts, steps = session.shapes[:2], session.shapes[2:]
    assert [shape["ids"] for shape in prompts] == [(1, 32), (1, 32)]
    assert [shape["ids"] for shape in steps] == [(2, 1), (1, 1), (1, 1)]
