"""What is known of a model before anything is measured."""

from dataclasses import replace

import pytest

from export.candidate import Candidate, ExportError, draft
from export.recurrent import OPSET
from service.manifest import TOKENIZER
from tests.export.conftest import Candidates
from tests.export.tiny import RECIPES


def test_the_draft_says_what_the_run_says(candidate: Candidate) -> None:
    manifest, run = candidate.manifest, candidate.run
    assert manifest.name == run.folder.name
    assert manifest.provenance.recipe == run.recipe.name
    assert manifest.provenance.metrics == run.checkpoint.metrics
    assert manifest.provenance.opset == OPSET
    assert manifest.limits.max_steps == RECIPES[run.recipe.name].max_steps
    assert {tolerance.atol for tolerance in manifest.tolerance.values()} == {run.recipe.tolerance.atol}
    assert (TOKENIZER in manifest.files) == (run.tokenizer is not None)


def test_what_no_manifest_can_say_is_refused_in_one_line(candidates: Candidates) -> None:
    """Weights that became NaN, and a folder that is named as no model may be."""
    candidate = candidates("tiny-rnn")
    run = candidate.run
    nan = replace(run.checkpoint, metrics={"test_accuracy": float("nan")})
    with pytest.raises(ExportError, match=r"^manifest: field 'metrics.test_accuracy': .* finite number$"):
        draft(replace(run, checkpoint=nan), candidate.model)
    with pytest.raises(ExportError, match=r"^manifest: field 'name': String should match"):
        draft(replace(run, folder=run.folder.with_name("Tiny_Rnn")), candidate.model)


def test_bytes_that_are_no_graph_are_an_export_error(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    with pytest.raises(ExportError, match=r"structure: .*onnxruntime refuses"):
        _ = replace(candidate, model=b"no graph").session


def test_a_graph_of_another_model_does_not_fit_the_draft(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"inputs '(ids|series)': the graph has"):
        _ = draft(candidates("tiny-rnn").run, candidates("tiny-text").model).session


def test_the_error_names_its_gate() -> None:
    error = ExportError("parity", "output 'logits' differs")
    assert error.gate == "parity"
    assert str(error) == "parity: output 'logits' differs"
