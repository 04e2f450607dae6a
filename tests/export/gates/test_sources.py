"""Every gate passes on an honest model of any reader and head, and each kind of corruption is refused."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from export.bundle.writer import write_bundle
from export.candidate import Candidate
from export.errors import ExportError
from export.gates.golden.gate import check_pool
from export.gates.metric import check_metric
from export.gates.parity import check_parity
from export.gates.proof import Proof
from export.gates.requests.gate import check_requests
from service.contract.readers import CategoryColumn
from service.engine.sessions.model import create_model
from service.engine.sessions.session import Session
from service.engine.verification.batch_invariance import check_batch_invariance
from service.engine.verification.parity import replay_cases
from service.tasks.replay import replay_requests
from tests.export.tiny_sources import TINY


def with_scaled_weight(candidate: Candidate) -> Candidate:
    """The candidate with the largest float constant of its graph 2 % larger."""
    model = onnx.load_from_string(candidate.model)
    floats = [one for one in model.graph.initializer if one.data_type == onnx.TensorProto.FLOAT]
    largest = max(floats, key=lambda one: numpy_helper.to_array(one).size)
    changed = numpy_helper.to_array(largest) * np.float32(1.02)
    largest.CopyFrom(numpy_helper.from_array(changed, largest.name))
    return replace(candidate, model=model.SerializeToString())


def with_head(candidate: Candidate, **fields: Any) -> Candidate:
    head = candidate.manifest.head.model_copy(update=fields)
    return replace(candidate, manifest=candidate.manifest.model_copy(update={"head": head}))


@pytest.mark.parametrize("name", TINY)
def test_an_honest_model_passes_all_gates_and_its_bundle_loads(
    name: str, sources: Callable[[str], Candidate], source_proofs: Callable[[str], Proof], tmp_path: Path
) -> None:
    candidate, proof = sources(name), source_proofs(name)
    bundle = write_bundle(candidate, proof, tmp_path)
    manifest = bundle.manifest
    assert manifest.pair == candidate.manifest.pair
    assert set(manifest.domain) == {spec.name for spec in manifest.inputs if spec.dtype == "float32"}
    assert manifest.mutation is not None
    assert manifest.mutation.killed_at_load >= 0.9 * manifest.mutation.mutants > 10
    assert len(proof.requests) >= 5
    session = Session(bundle.model, manifest=manifest, device="cpu")
    cases = dict(enumerate(bundle.golden))
    replay_cases(session, cases)
    check_batch_invariance(session, cases)
    replay_requests(create_model(bundle, session), bundle.requests)


@pytest.mark.parametrize("name", TINY)
def test_a_changed_weight_is_refused_by_every_gate_that_compares(
    name: str, sources: Callable[[str], Candidate]
) -> None:
    changed = with_scaled_weight(sources(name))
    for gate, check in {
        "parity": check_parity,
        "metric": check_metric,
        "goldens": check_pool,
        "requests": check_requests,
    }.items():
        with pytest.raises(ExportError, match=f"^{gate}: "):
            check(changed)


@pytest.mark.parametrize(
    ("name", "field", "message"),
    [
        ("tiny-resized", "labels", "label"),
        ("tiny-multilabel", "labels", "label"),
        ("tiny-regression", "names", "values"),
        ("tiny-table", "labels", "label"),
    ],
)
def test_names_in_another_order_are_refused(
    name: str, field: str, message: str, sources: Callable[[str], Candidate]
) -> None:
    candidate = sources(name)
    swapped = tuple(reversed(getattr(candidate.manifest.head, field)))
    with pytest.raises(ExportError, match=f"^requests: body .*{message}"):
        check_requests(with_head(candidate, **{field: swapped}))


def test_a_category_at_another_place_is_refused(sources: Callable[[str], Candidate]) -> None:
    candidate = sources("tiny-table")
    columns: Any = candidate.manifest.reader.columns  # type: ignore[union-attr]
    colour = CategoryColumn(name=columns[1].name, values=columns[1].values[::-1])
    reader = candidate.manifest.reader.model_copy(update={"columns": (columns[0], colour, columns[2])})
    with pytest.raises(ExportError, match=r"^requests: body .*label"):
        check_requests(replace(candidate, manifest=candidate.manifest.model_copy(update={"reader": reader})))


def test_another_resampling_is_refused(sources: Callable[[str], Candidate]) -> None:
    candidate = sources("tiny-resized")
    reader: Any = candidate.manifest.reader
    changed = reader.model_copy(update={"resize": reader.resize.model_copy(update={"resample": "nearest"})})
    with pytest.raises(ExportError, match=r"^requests: body "):
        check_requests(replace(candidate, manifest=candidate.manifest.model_copy(update={"reader": changed})))


def test_a_given_reference_is_called_by_its_name(
    sources: Callable[[str], Candidate], source_proofs: Callable[[str], Proof], tmp_path: Path
) -> None:
    """A graph from a file has no float64 and no module."""
    bundle = write_bundle(sources("tiny-unet"), source_proofs("tiny-unet"), tmp_path)
    card = (tmp_path / "tiny-unet" / bundle.manifest.version / "card.md").read_text()
    assert "PyTorch" not in card
    assert "The graph came as a file" in card
    assert "mode L (height from 8 to 20 in multiples of 4, width from 8 to 16 in multiples of 4)" in card
    with pytest.raises(ExportError) as caught:
        check_requests(with_scaled_weight(sources("tiny-unet")))
    assert "PyTorch" not in str(caught.value)


def test_a_model_without_a_batch_axis_says_so(
    sources: Callable[[str], Candidate], source_proofs: Callable[[str], Proof], tmp_path: Path
) -> None:
    bundle = write_bundle(sources("tiny-unbatched"), source_proofs("tiny-unbatched"), tmp_path)
    assert bundle.manifest.invariance.how == "the model has no batch axis, so every item runs alone"
    card = (tmp_path / "tiny-unbatched" / bundle.manifest.version / "card.md").read_text()
    assert "The model has no batch axis: every request has one item, which runs alone." in card
    assert all(len(array) == 1 for case in bundle.golden for array in case.inputs.values())


def test_scores_are_recorded_where_the_examples_have_targets(
    sources: Callable[[str], Candidate], source_proofs: Callable[[str], Proof], tmp_path: Path
) -> None:
    for name, metric in {
        "tiny-regression": "test_mean_absolute_error",
        "tiny-multilabel": "test_accuracy",
        "tiny-bi-tagger": "test_accuracy",
    }.items():
        bundle = write_bundle(sources(name), source_proofs(name), tmp_path)
        assert set(bundle.manifest.provenance.metrics) == {metric}
        targets = sources(name).source.examples.targets
        assert 0 < bundle.manifest.provenance.metrics[metric] < max(1.0, 3 * float(np.abs(targets).max()))
