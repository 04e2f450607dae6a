"""What the manifest says about batches is looked at again where it serves."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from service.bundle import Bundle, GoldenCase
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_alone
from service.engine.verification.parity import replay
from service.errors import BundleError
from tests.service.bundles import NAMES
from tests.service.engine.fakes import FakeSession, rows


class Leaking(FakeSession):
    """Its scores hold a trace of how many rows there are."""

    device = "cpu"

    def run(self, inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        answer = super().run(inputs, outputs)
        return {**answer, "probabilities": answer["probabilities"] + np.float32(1e-3 * (len(inputs["h"]) > 1))}


def case() -> dict[int, GoldenCase]:
    return {4: GoldenCase(inputs=rows(3, 5, 1), outputs={})}


def test_a_row_that_changes_with_its_batch_is_named() -> None:
    name = NAMES["series-tagger"]
    said = rf"{name}/.*: golden case 4: .* of row 0 .*: run `python -m export runs/{name}` on this one"
    with pytest.raises(BundleError, match=said):
        check_alone(Leaking(), case())  # type: ignore[arg-type]


def test_rows_that_do_not_change_pass() -> None:
    honest = FakeSession()
    honest.device = "cpu"  # type: ignore[attr-defined]
    check_alone(honest, case())  # type: ignore[arg-type]
    assert len(honest.batches) == 4


@pytest.mark.parametrize("change", ["level", "device"])
def test_only_what_is_certified_is_held_to_it(change: str) -> None:
    session = Leaking()
    if change == "device":
        session.device = "cuda"
    else:
        invariance = session.manifest.invariance.model_copy(update={"level": "tolerance"})
        session.manifest = session.manifest.model_copy(update={"invariance": invariance})
    check_alone(session, case())  # type: ignore[arg-type]
    assert session.batches == []


def test_replay_looks(bundles: dict[str, Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that gives every golden answer within its tolerance, and yet depends on the batch."""
    bundle = bundles["series-tagger"]
    session = Session(bundle.model, manifest=bundle.manifest, device="cpu")
    honest = session.run

    def trembling(inputs: Mapping[str, Any], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        return {name: value + np.float32(1e-6 * len(value)) for name, value in honest(inputs, outputs).items()}

    replay(session, bundle)
    monkeypatch.setattr(session, "run", trembling)
    with pytest.raises(BundleError, match="when the row is alone"):
        replay(session, bundle)
