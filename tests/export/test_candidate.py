"""A candidate has the manifest of its run before anything is measured."""

from dataclasses import replace

import pytest

from export.candidate import Candidate, build_candidate
from export.errors import ExportError
from export.graph.recurrent import OPSET
from export.sources.run import run_source
from service.manifest import TOKENIZER
from tests.export.conftest import Candidates
from tests.export.tiny import RECIPES


def test_the_manifest_repeats_the_values_of_the_run(candidate: Candidate) -> None:
    manifest, run = candidate.manifest, candidate.source.run
    assert run is not None
    assert manifest.name == run.folder.name
    assert manifest.provenance.recipe == run.recipe.name
    assert manifest.provenance.metrics == run.checkpoint.metrics
    assert manifest.provenance.opset == OPSET
    assert manifest.limits.max_steps == RECIPES[run.recipe.name].max_steps
    assert {tolerance.atol for tolerance in manifest.tolerance.values()} == {run.recipe.tolerance.atol}
    assert (TOKENIZER in manifest.files) == (run.tokenizer is not None)


def test_a_value_that_no_manifest_allows_is_refused_in_one_line(candidates: Candidates) -> None:
    """A metric that is NaN, and a folder whose name no model may have."""
    candidate = candidates("tiny-rnn")
    run = candidate.source.run
    assert run is not None
    nan = replace(run.checkpoint, metrics={"test_accuracy": float("nan")})
    with pytest.raises(ExportError, match=r"^manifest: field 'metrics.test_accuracy': .* finite number$"):
        build_candidate(run_source(replace(run, checkpoint=nan)), candidate.model)
    with pytest.raises(ExportError, match=r"^manifest: field 'name': String should match"):
        build_candidate(replace(candidate.source, name="Tiny_Rnn"), candidate.model)


def test_bytes_that_are_no_graph_raise_an_export_error(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    with pytest.raises(ExportError, match=r"structure: .*onnxruntime refuses"):
        _ = replace(candidate, model=b"no graph").session


def test_the_graph_of_another_model_raises_an_export_error(candidates: Candidates) -> None:
    with pytest.raises(ExportError, match=r"inputs '(ids|series)': the graph has"):
        _ = build_candidate(candidates("tiny-rnn").source, candidates("tiny-text").model).session
