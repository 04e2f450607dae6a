"""The card says what was measured, in tables that are tables."""

import re

from export.card import card, card_files, table
from export.prove import prove
from tests.export.conftest import Candidates, Proofs


def test_every_output_has_its_line_of_parity(candidates: Candidates, proofs: Proofs) -> None:
    candidate, proof = candidates("tiny-tagger"), proofs("tiny-tagger")
    text = card(candidate, proof, pictures=[], samples="")
    for name in candidate.manifest.tolerance:
        line = next(line for line in text.splitlines() if line.startswith(f"| `{name}` |") and "value" in line)
        assert f"{proof.parity.worst(name).worst:.2e}" in line
    assert "0.8333" in text  # the test accuracy that training measured


def test_all_rows_of_a_table_have_the_cells_of_its_head(candidates: Candidates, proofs: Proofs) -> None:
    for name in ("tiny-tagger", "tiny-gan", "tiny-text"):
        text = card_files(candidates(name), proofs(name))["card.md"].decode()
        for block in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
            assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_pictures_of_the_run_are_copied_and_shown(candidates: Candidates, proofs: Proofs) -> None:
    candidate = candidates("tiny-picture")
    curves = candidate.run.folder / "curves.png"
    curves.write_bytes(b"a picture")
    try:
        files = card_files(candidate, proofs("tiny-picture"))
    finally:
        curves.unlink()
    assert files["curves.png"] == b"a picture"
    shown = re.findall(r"!\[[^]]+\]\(([^)]+)\)", files["card.md"].decode())
    assert sorted(shown) == sorted(name for name in files if name.endswith(".png"))


def test_the_same_proof_makes_the_same_files(candidates: Candidates, proofs: Proofs) -> None:
    again = prove(candidates("tiny-lstm"), lambda gate: None)
    assert card_files(candidates("tiny-lstm"), again) == card_files(candidates("tiny-lstm"), proofs("tiny-lstm"))


def test_a_table() -> None:
    assert table(("a", "b"), [("1", "2")]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
