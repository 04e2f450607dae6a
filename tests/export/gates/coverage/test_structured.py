"""A graph that goes off at one pixel, value, token or magnitude is refused, and honest graphs pass."""

import numpy as np
import onnx
import pytest

from export.candidate import Candidate
from export.errors import ExportError
from export.gates.coverage.comparison import Coverage
from export.gates.coverage.domain import choose_domain
from export.gates.coverage.row import Row
from export.gates.coverage.structured import check_structured, structured_rows
from service.contract.readers import TextReader
from tests.export.conftest import Candidates
from tests.export.edits import Condition, constant, is_positive, node, row_has, triggered
from tests.export.gates.coverage.test_sizes import passes_the_grid


def check(candidate: Candidate) -> Coverage:
    return check_structured(candidate, choose_domain(candidate.source, candidate.manifest))


def rows_of(candidate: Candidate) -> list[Row]:
    return list(structured_rows(candidate, choose_domain(candidate.source, candidate.manifest)))


def test_honest_graphs_of_every_family_pass(candidate: Candidate) -> None:
    coverage = check(candidate)
    rows = rows_of(candidate)
    assert coverage.num_items == len(rows) > 50
    assert isinstance(candidate.manifest.reader, TextReader) or len({row.name for row in rows}) == len(rows)
    assert set(coverage.max_differences) == set(candidate.manifest.tolerance)


def blue_above_200(graph: onnx.GraphProto) -> str:
    """The mean of a picture's third channel is more than 200 above that of its first."""
    number = node(graph, "Cast", ["images"], to=onnx.TensorProto.FLOAT)
    mean = node(graph, "ReduceMean", [number, constant(graph, [1, 2], "int64")], keepdims=0)
    first, third = (node(graph, "Gather", [mean, constant(graph, [channel], "int64")], axis=1) for channel in (0, 2))
    excess = node(graph, "Sub", [node(graph, "Sub", [third, first]), constant(graph, 200.0, "float32")])
    return is_positive(graph, excess)


def one_bright_pixel(graph: onnx.GraphProto) -> str:
    """The pixel [6, 2] has all the light of the picture."""
    number = node(graph, "Flatten", [node(graph, "Cast", ["images"], to=onnx.TensorProto.FLOAT)])
    total = node(graph, "ReduceSum", [number, constant(graph, [1], "int64")])
    pixel = node(graph, "Gather", [number, constant(graph, [6 * 8 + 2], "int64")], axis=1)
    others = node(graph, "Sub", [total, pixel])
    return is_positive(
        graph, node(graph, "Sub", [node(graph, "Clip", [pixel, "", constant(graph, 1, "float32")]), others])
    )


@pytest.mark.parametrize(
    ("name", "condition", "expected"),
    [
        ("tiny-picture", one_bright_pixel, r"pixel \[6, 2\] alone at 255"),
        ("tiny-colour", blue_above_200, r"channel 2 of all pixels 2\d\d"),
        ("tiny-lstm", row_has("series", "Greater", 40.0, "float32"), r"(all values|step|random|a test item|channel)"),
        ("tiny-tagger", row_has("h", "Equal", 2.0, "float32", 3), r"state h: value \d alone at 2"),
        ("tiny-tagger", row_has("c", "Greater", 5.0, "float32", 3), r"state c: value \d alone at"),
        ("tiny-text", row_has("ids", "Equal", 17, "int64"), "token 17 alone"),
    ],
)
def test_a_graph_that_goes_off_at_one_input_is_refused(
    candidates: Candidates, name: str, condition: Condition, expected: str
) -> None:
    mutant = triggered(candidates(name), condition)
    assert name == "tiny-text" or passes_the_grid(mutant)
    with pytest.raises(ExportError, match=rf"parity: .*'logits' differs by .* on structured inputs, .*: {expected}"):
        check(mutant)


def test_series_reach_both_ends_of_the_domain_and_every_step(candidates: Candidates) -> None:
    candidate = candidates("tiny-tagger")
    domain = choose_domain(candidate.source, candidate.manifest)
    rows = rows_of(candidate)
    for name, bound in domain.items():
        values = np.concatenate([row.inputs[name].ravel() for row in rows])
        assert (values.min(), values.max()) == (bound.low, bound.high)
        assert ((values != 0) & (np.abs(values) < 1e-38)).any()
    lengths = {len(row.inputs["series"]) for row in rows}
    assert max(lengths) == candidate.manifest.limits.max_steps
    largest = np.abs(candidate.source.examples.inputs["series"]).max()
    for row in rows:
        if np.abs(row.inputs["series"]).max() > largest:
            assert row.is_extreme


def test_every_token_is_alone_first_last_and_throughout(candidates: Candidates) -> None:
    candidate = candidates("tiny-text")
    ids = [row.inputs["ids"] for row in rows_of(candidate)]
    tokens = set(range(candidate.source.vocabulary))
    assert {int(row[0]) for row in ids if len(row) == 1} == tokens
    assert {int(row[0]) for row in ids if len(row) == 3} == tokens
    assert {int(row[-1]) for row in ids if len(row) == 4} == tokens
    assert {int(row[0]) for row in ids if len(set(row.tolist())) == 1 and len(row) == 5} == tokens
    assert max(map(len, ids)) == candidate.manifest.limits.max_steps


def test_pictures_have_every_value_in_every_pixel(candidates: Candidates) -> None:
    for name in ("tiny-picture", "tiny-colour"):
        images = np.stack([row.inputs["images"] for row in rows_of(candidates(name))]).reshape(-1, 64)
        for pixel in range(64):
            ramps = [row.inputs["images"].ravel()[pixel] for row in rows_of(candidates(name)) if "ramp" in row.name]
            assert set(map(int, ramps)) == set(range(256))
        assert images.dtype == np.uint8
