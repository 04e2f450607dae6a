"""A graph between the tensors of a reader and of a head: what the head reads, and what the reader must give."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.sources.onnx_file.adaptation import Answers, adapt_graph, as_payload, with_output
from export.sources.onnx_file.goldens import Golden, Goldens
from export.sources.onnx_file.graph import ForeignGraph, read_graph
from export.sources.onnx_file.reference import Reference
from export.spec import Spec, parse_spec
from tests.export.sources.onnx_file.graphs import linear, linear_case, written

COLUMNS = [{"kind": "number", "name": name} for name in "abcd"]
TABLE = {"kind": "table", "columns": COLUMNS}


def spec_of(head: dict[str, Any], reader: dict[str, Any] | None = None) -> Spec:
    return parse_spec({"reader": reader or TABLE, "head": head}, Path("spec.toml"))


def goldens_of(*batches: int) -> Goldens:
    cases = []
    for number, batch in enumerate(batches):
        case = linear_case(batch)
        outputs = {name: case[name] for name in ("label", "scores")}
        cases.append(Golden(number=number, inputs={"numbers": case["X"]}, outputs=outputs, targets=None))
    return Goldens(path=Path("golden.npz"), names=("numbers",), cases=tuple(cases))


@pytest.fixture
def graph(tmp_path: Path) -> ForeignGraph:
    return read_graph(written(tmp_path, linear()))


def adapt(spec: Spec, graph: ForeignGraph, *batches: int) -> Answers:
    return adapt_graph(spec, graph, goldens_of(*batches), Reference(graph.path))[0]


def test_contract_and_reference(graph: ForeignGraph) -> None:
    spec = with_output(spec_of({"kind": "labels", "labels": ["x", "y", "z"]}), graph, goldens_of(9, 2))
    answers = adapt(spec, graph, 9, 2)
    assert [tensor.name for tensor in answers.payload.inputs] == ["numbers"]
    assert [tensor.name for tensor in answers.outputs] == ["logits", "probabilities"]
    case = linear_case(4)
    found = answers.predict({"numbers": case["X"]})
    expected = np.exp(case["scores"]) / np.exp(case["scores"]).sum(1, keepdims=True)
    np.testing.assert_allclose(found["probabilities"], expected, rtol=1e-5)
    assert answers.metrics == {}


def test_targets_are_scored(graph: ForeignGraph) -> None:
    spec = with_output(spec_of({"kind": "labels", "labels": 3}), graph, goldens_of(9, 2))
    goldens = goldens_of(9, 2)
    cases = tuple(replace(case, targets=case.outputs["label"]) for case in goldens.cases)
    answers, _ = adapt_graph(spec, graph, replace(goldens, cases=cases), Reference(graph.path))
    assert answers.metrics == {"test_accuracy": 1.0}


def test_one_batch_size_is_refused(graph: ForeignGraph) -> None:
    spec = with_output(spec_of({"kind": "values", "names": ["x", "y", "z"]}), graph, goldens_of(9))
    with pytest.raises(ValueError, match="the axis 'batch' of input 'X' has the size 9 in every golden case"):
        adapt(spec, graph, 9, 9)


@pytest.mark.parametrize(
    ("head", "output"),
    [
        ({"kind": "labels", "labels": 3}, "scores"),
        ({"kind": "values", "names": ["x", "y", "z"], "output": "scores"}, "scores"),
        ({"kind": "values", "names": ["x", "y", "z"], "output": 1}, "scores"),
    ],
)
def test_head_reads_floats(graph: ForeignGraph, head: dict[str, Any], output: str) -> None:
    chosen: Any = with_output(spec_of(head), graph, goldens_of(9, 2)).head
    assert chosen.output == output


@pytest.mark.parametrize("output", ["label", "nothing", 0, 7])
def test_output_that_the_head_cannot_read_is_refused(graph: ForeignGraph, output: str | int) -> None:
    spec = spec_of({"kind": "values", "names": ["x"], "output": output})
    with pytest.raises(
        ValueError, match=r"\[head\] output is .*, the graph gives label int64, scores float32; expected"
    ):
        with_output(spec, graph, goldens_of(9, 2))


def test_output_without_a_golden_is_refused(graph: ForeignGraph) -> None:
    goldens = goldens_of(9, 2)
    cases = tuple(replace(case, outputs={"label": case.outputs["label"]}) for case in goldens.cases)
    with pytest.raises(ValueError, match=r"golden\.npz lacks the output 'scores' of the graph, which the head reads"):
        with_output(spec_of({"kind": "values", "names": ["x"]}), graph, replace(goldens, cases=cases))


def test_probabilities_get_no_activation_unless_the_spec_says_so(graph: ForeignGraph) -> None:
    goldens = goldens_of(9, 2)
    even = [np.full_like(case.outputs["scores"], 1 / 3) for case in goldens.cases]
    cases = tuple(replace(case, outputs={"scores": one}) for case, one in zip(goldens.cases, even, strict=True))

    def activation(head: dict[str, Any], given: Goldens) -> str:
        chosen: Any = with_output(spec_of({"kind": "labels", "labels": 3, **head}), graph, given).head
        return str(chosen.activation)

    assert activation({}, replace(goldens, cases=cases)) == "none"
    assert activation({"activation": "softmax"}, replace(goldens, cases=cases)) == "softmax"
    assert activation({}, goldens) == "softmax"


def test_head_of_tensors_reads_all(graph: ForeignGraph) -> None:
    spec = spec_of({"kind": "tensors"})
    assert with_output(spec, graph, goldens_of(9, 2)) is spec


def test_own_input_that_is_the_table_is_renamed() -> None:
    goldens = goldens_of(9, 2)
    cases = tuple(replace(case, inputs={"X": case.inputs["numbers"]}) for case in goldens.cases)
    renamed = replace(goldens, names=("X",), cases=cases)
    assert as_payload(renamed, spec_of({"kind": "labels", "labels": 3})).names == ("numbers",)
    assert as_payload(goldens, spec_of({"kind": "labels", "labels": 3})) is goldens
    series = spec_of({"kind": "labels", "labels": 3}, {"kind": "series", "channels": 2})
    with pytest.raises(ValueError, match="holds X, the inputs of the graph; with the reader series, cases hold series"):
        as_payload(renamed, series)


def test_input_that_the_reader_does_not_give_is_refused(tmp_path: Path) -> None:
    model = linear()
    model.graph.input.add().CopyFrom(model.graph.input[0])
    model.graph.input[1].name = "second"
    graph = read_graph(written(tmp_path, model))
    spec = with_output(spec_of({"kind": "labels", "labels": 3}), graph, goldens_of(9, 2))
    with pytest.raises(
        ValueError, match="the graph needs the input 'second', which the reader does not give; it gives X"
    ):
        adapt(spec, graph, 9, 2)
