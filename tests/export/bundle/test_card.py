"""The card reports the measurements in well-formed tables."""

import re
from dataclasses import replace

from export.bundle.card import card_files, render_card
from export.gates.golden.gate import NUM_HEAVY_MUTANTS, NUM_MUTANTS
from export.gates.proof import prove
from tests.export.conftest import Candidates, Proofs


def test_every_output_has_a_parity_row(candidates: Candidates, proofs: Proofs) -> None:
    candidate, proof = candidates("tiny-tagger"), proofs("tiny-tagger")
    text = render_card(candidate, proof, pictures=[], samples="")
    for name in candidate.manifest.tolerance:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |") and "value" in line)
        assert f"{proof.parity.largest(name).max_difference:.2e}" in line
    # Training measured this test accuracy.
    assert "0.8333" in text


def test_metrics_are_shown_with_their_data_set(candidates: Candidates, proofs: Proofs) -> None:
    text = render_card(candidates("tiny-tagger"), proofs("tiny-tagger"), pictures=[], samples="")
    assert "| metric | on tiny |\n" in text
    assert "| on the test split of tiny | PyTorch | ONNX |\n" in text


def test_every_comparison_has_a_row_and_the_domain_is_named(candidates: Candidates, proofs: Proofs) -> None:
    candidate, proof = candidates("tiny-tagger"), proofs("tiny-tagger")
    text = render_card(candidate, proof, pictures=[], samples="")
    names = [coverage.name for coverage in proof.coverages]
    assert names == ["every length", "every batch size", "structured inputs", "the test split"]
    for coverage in proof.coverages:
        assert f"| {coverage.name} | {coverage.num_batches:,} | {coverage.num_items:,} |" in text
    for name, bound in proof.parity.domain.items():
        assert f"`{name}` {bound.low:g} to {bound.high:g}" in text
    assert "Domain:" not in render_card(candidates("tiny-text"), proofs("tiny-text"), pictures=[], samples="")


def test_initializers_are_counted_by_transformation(candidates: Candidates, proofs: Proofs) -> None:
    text = render_card(candidates("tiny-gan"), proofs("tiny-gan"), pictures=[], samples="")
    count = proofs("tiny-gan").weights.num_initializers
    assert f"{count} of {count} initializers are accounted for" in text
    assert "| folded | 2 |" in text
    assert "Folded weights are within 4.4e-08 of their values in float64" in text
    text = render_card(candidates("tiny-tagger"), proofs("tiny-tagger"), pictures=[], samples="")
    assert "Folded weights" not in text
    assert "| gates reordered and joined | 1 |" in text


def test_the_card_shows_the_mutation_score(candidates: Candidates, proofs: Proofs) -> None:
    score = proofs("tiny-lstm").goldens.score
    text = render_card(candidates("tiny-lstm"), proofs("tiny-lstm"), pictures=[], samples="")
    assert f"| {score.mutants} | {score.killed_at_export} | {score.killed_at_load} |" in text


def test_the_card_of_a_large_model_says_that_fewer_mutants_were_tried(candidates: Candidates, proofs: Proofs) -> None:
    candidate, proof = candidates("tiny-lstm"), proofs("tiny-lstm")
    adopted = replace(candidate, source=replace(candidate.source, run=None))
    for num_drawn, sentence in {
        NUM_MUTANTS: "",
        NUM_HEAVY_MUTANTS: "Only 24 were tried instead of 120, because each takes long on a model of this size.",
        7: "Only 7 were tried instead of 120, because the graph admits no more.",
        0: "None was tried, because the graph stores nothing that could be changed.",
    }.items():
        tried = replace(proof, goldens=replace(proof.goldens, num_drawn=num_drawn))
        text = render_card(adopted, tried, pictures=[], samples="")
        assert sentence in text
        assert ("tried" in text.partition("## Golden cases")[2].partition("## Invariance")[0]) == bool(sentence)
    assert proof.goldens.num_drawn == NUM_MUTANTS


def test_all_rows_of_a_table_have_as_many_cells_as_its_header(candidates: Candidates, proofs: Proofs) -> None:
    for name in ("tiny-tagger", "tiny-gan", "tiny-text"):
        text = card_files(candidates(name), proofs(name))["card.md"].decode()
        for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_card_shows_the_pictures_of_the_run(candidates: Candidates, proofs: Proofs) -> None:
    candidate = candidates("tiny-picture")
    curves = candidate.source.run.folder / "curves.png"
    curves.write_bytes(b"an image")
    try:
        files = card_files(candidate, proofs("tiny-picture"))
    finally:
        curves.unlink()
    assert files["curves.png"] == b"an image"
    linked = re.findall(r"!\[[^]]+\]\(([^)]+)\)", files["card.md"].decode())
    assert sorted(linked) == sorted(name for name in files if name.endswith(".png"))


def test_the_same_proof_makes_the_same_files(candidates: Candidates, proofs: Proofs) -> None:
    again = prove(candidates("tiny-lstm"), lambda stage: None)
    assert card_files(candidates("tiny-lstm"), again) == card_files(candidates("tiny-lstm"), proofs("tiny-lstm"))


def test_the_first_line_says_what_the_model_was_trained_on(candidates: Candidates, proofs: Proofs) -> None:
    candidate, proof = candidates("tiny-tagger"), proofs("tiny-tagger")
    title, blank, first, *_ = render_card(candidate, proof, pictures=[], samples="").splitlines()
    assert (title, blank, first) == (f"# {candidate.manifest.name}", "", "**Trained on tiny.** Drawn from a seed.")
    adopted = replace(candidate, source=replace(candidate.source, run=None))
    assert render_card(adopted, proof, pictures=[], samples="").splitlines()[2] == "**Data: tiny.** Drawn from a seed."
