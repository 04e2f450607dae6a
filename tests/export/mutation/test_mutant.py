"""A mutant changes a candidate and leaves the original as it is."""

from export.mutation.mutant import SINGLE_WEIGHT, graph_mutant
from tests.export.conftest import Candidates


def test_a_graph_mutant_changes_only_the_graph(candidates: Candidates) -> None:
    candidate = candidates("tiny-rnn")
    before = candidate.model
    mutant = graph_mutant("row", "weight, row 3", lambda model: model + b"!", 0.25)
    changed = mutant.apply(candidate)
    assert changed.model == before + b"!"
    assert candidate.model == before
    assert (changed.source, changed.manifest, changed.tokenizer) == (
        candidate.source,
        candidate.manifest,
        candidate.tokenizer,
    )
    assert str(mutant) == "row: weight, row 3 by 0.25"


def test_single_weights_are_the_only_kind_that_is_not_structured() -> None:
    kinds = ("row", SINGLE_WEIGHT, "labels")
    assert [graph_mutant(kind, "", bytes).is_structured for kind in kinds] == [True, False, True]
    assert str(graph_mutant("operator", "Relu 3, as Elu", bytes)) == "operator: Relu 3, as Elu"
