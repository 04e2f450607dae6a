"""The mutation score of a bundle is measured again with other mutants and other inputs."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from export import mutate
from export.bundle.writer import write_bundle
from export.diff import main as diff_main
from export.mutate import Assessment, Assessor, assess_mutants, is_passed, main, new_assessor, table
from export.mutation.mutant import SINGLE_WEIGHT, Mutant, graph_mutant
from export.pipeline import export_model
from tests.export.conftest import Candidates, Proofs
from tests.export.sources.onnx_file.graphs import golden, linear, linear_case, options, written
from tests.export.tiny import RECIPES
from training.checkpoint import Run, load_run


def new_tiny_assessor(
    name: str, candidates: Candidates, proofs: Proofs, bundles: Path, monkeypatch: pytest.MonkeyPatch
) -> Assessor:
    write_bundle(candidates(name), proofs(name), bundles)

    def load_tiny_run(folder: Path) -> Run:
        return load_run(folder, RECIPES)

    monkeypatch.setattr(mutate, "load_run", load_tiny_run)
    return new_assessor(name, runs=candidates(name).source.run.folder.parent, bundles=bundles, seed=5)


@pytest.mark.parametrize("name", ["tiny-picture", "tiny-tagger", "tiny-text", "tiny-prenorm"])
def test_mutants_that_differ_are_refused(
    name: str, candidates: Candidates, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessor = new_tiny_assessor(name, candidates, proofs, tmp_path, monkeypatch)
    assessments = [
        assessment
        for assessment in assess_mutants(assessor, count=40, seed=5)
        if assessment.mutant.kind not in {"labels", "tokenizer"}
    ]
    different = [assessment for assessment in assessments if not assessment.is_equivalent]
    assert len(different) > len(assessments) / 2
    assert all(assessment.refused_at_export for assessment in different), table(assessments)
    assert sum(assessment.refused_at_load for assessment in different) >= 0.95 * len(different), table(assessments)


def test_an_unchanged_candidate_is_equivalent(
    candidates: Candidates, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessor = new_tiny_assessor("tiny-text", candidates, proofs, tmp_path, monkeypatch)
    for change in (replace, lambda candidate: replace(candidate, tokenizer=(candidate.tokenizer or "") + " ")):
        assessment = assessor.assess(Mutant(kind="none", location="", apply=change))
        assert assessment.is_equivalent
        assert not assessment.refused_at_load


def test_a_graph_that_export_refuses_may_pass_the_goldens(
    candidates: Candidates, proofs: Proofs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assessor = new_tiny_assessor("tiny-picture", candidates, proofs, tmp_path, monkeypatch)
    blind = replace(assessor, bundle=replace(assessor.bundle, golden=()))
    assessment = next(
        assessment
        for assessment in assess_mutants(blind, count=40, seed=5)
        if assessment.deviation > 100 and assessment.mutant.kind == SINGLE_WEIGHT
    )
    assert assessment.refused_at_export


def assessment(kind: str, *, deviation: float = 9.0, export: bool = True, load: bool = True) -> Assessment:
    mutant = graph_mutant(kind, "place", bytes, 0.5)
    return Assessment(
        mutant=mutant,
        deviation=deviation,
        refused_at_load=load,
        refused_by_behaviour=export and load,
        refused_at_export=export,
    )


def test_the_table_counts_kinds_and_names_survivors() -> None:
    text = table(
        [
            assessment("row"),
            assessment("row", deviation=0.5, export=False, load=False),
            assessment(SINGLE_WEIGHT, load=False),
            assessment(SINGLE_WEIGHT, export=False, load=False),
        ]
    )
    assert "| row | 2 | 1 | 1 of 1 | 1 | 1 |" in text
    assert "| single weight | 2 | 0 | 1 of 2 | 0 | 0 |" in text
    assert "| all | 4 | 1 | 2 of 3 | 1 | 1 |" in text
    assert "- accepted at load: single weight: place by 0.5; 9 times the tolerance" in text
    assert "- accepted at export and load: single weight: place by 0.5; 9 times the tolerance" in text


def test_structured_mutants_must_all_be_refused_and_single_weights_nearly_all() -> None:
    refused = [assessment(SINGLE_WEIGHT) for _ in range(100)]
    missed = assessment(SINGLE_WEIGHT, export=False)
    assert is_passed([*refused, assessment("row"), assessment("row", deviation=1.0, export=False)])
    assert is_passed([*refused, missed])
    assert not is_passed([*refused, missed, missed])
    assert not is_passed([*refused, assessment("row", export=False)])


def test_a_bundle_that_is_absent_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nothing", "--bundles", str(tmp_path), "--runs", str(tmp_path)]) == 2
    assert "nothing" in capsys.readouterr().err


def test_a_model_from_elsewhere_needs_the_words_of_its_export(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, file = written(tmp_path, linear()), golden(tmp_path, linear_case(40), linear_case(2))
    bundles = tmp_path / "bundles"
    export_model("onnx", options(path, file, name="linear"), bundles, lambda _: None)
    words = ["linear", "--bundles", str(bundles), "--mutants", "12"]
    assert main([*words, "onnx", str(path), "--golden", str(file)]) == 0
    assert re.search(r"\| all \| \d+ \| \d+ \| (\d+) of \1 \|", capsys.readouterr().out)
    assert main(words) == 2
    assert "linear came from elsewhere: add the words of its export, onnx MODEL" in capsys.readouterr().err
    assert diff_main([str(tmp_path / "run"), str(bundles / "linear")]) == 2
    assert "linear came in by `python -m export onnx`; export.diff compares bundles of runs" in capsys.readouterr().err
