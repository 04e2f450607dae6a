"""No changed graph that the service accepts is read otherwise by the `onnx` package or by onnxruntime."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from benchmarks.proof.mutations import TEXTS, mutator, read_tree, write_tree, write_varint
from benchmarks.proof.seeds import machine_learning_graphs
from benchmarks.proof.views import differences, our_view, proto_view
from benchmarks.proof.wire import Runtime, accepted, compare, main, search, seed_graphs
from service.onnx_wire import read_model
from tests.service.bundles import FAMILIES, onnx_model

SEEDS = seed_graphs(None)
NUM_INPUTS = 4000


@pytest.fixture
def runtime(tmp_path: Path) -> Iterator[Runtime]:
    runtime = Runtime(str(tmp_path))
    yield runtime
    runtime.close()


def test_no_accepted_file_is_read_in_two_ways() -> None:
    counts, found = search(SEEDS, NUM_INPUTS, seed=11)
    assert found == []
    assert counts["inputs"] == NUM_INPUTS
    assert counts["loaded"] > NUM_INPUTS / 40


def careless(content: bytes) -> bytes | None:
    """Accept what a reader accepts that ignores unknown fields, as many do; return what it saw."""
    try:
        return accepted(write_tree(read_tree(content)))
    except (ValueError, IndexError):
        return None


def test_the_search_finds_what_a_careless_reader_misses() -> None:
    _, found = search(SEEDS, NUM_INPUTS // 2, seed=12, read=careless)
    problems = [problem for _, several in found for problem in several]
    assert any(problem.startswith("onnxruntime: ") for problem in problems)
    assert len(found) > 5


@pytest.mark.parametrize("content", SEEDS, ids=["subgraphs", *FAMILIES, *machine_learning_graphs(20)])
def test_unchanged_graphs_are_accepted_and_read_alike(content: bytes, runtime: Runtime) -> None:
    assert accepted(content) == content
    assert write_tree(read_tree(content)) == content
    assert compare(our_view(content), content, runtime) == ("loaded", [])


@pytest.mark.parametrize("kind", ["FLOAT", "INT", "STRING", "FLOATS", "INTS", "STRINGS"])
def test_absent_value_of_an_attribute_is_read_alike(kind: str) -> None:
    model = onnx.load_from_string(SEEDS[1])
    model.graph.node[0].attribute.append(
        onnx.AttributeProto(name="absent", type=onnx.AttributeProto.AttributeType.Value(kind))
    )
    content = model.SerializeToString()
    assert accepted(content)
    assert list(differences(our_view(content), proto_view(content))) == []


def test_every_difference_is_named() -> None:
    original = onnx_model("image-classifier")
    ours = our_view(original.SerializeToString())

    def named(change: onnx.ModelProto, *, is_runtime: bool = False) -> str:
        return "; ".join(differences(ours, proto_view(change.SerializeToString()), is_runtime=is_runtime))

    def copy() -> onnx.ModelProto:
        model = onnx.ModelProto()
        model.CopyFrom(original)
        return model

    model = copy()
    assert named(model) == ""
    model.ir_version = 9
    assert named(model) == "ir: 10 and 9"
    model = copy()
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    assert named(model).startswith("opsets: ")
    assert named(model, is_runtime=True) == ""
    model = copy()
    model.graph.input[0].name = "other"
    assert named(model) == "inputs: ['images'] and ['other']"
    model = copy()
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(model.graph.initializer[1]), "w"))
    assert named(model) == "tensor 'w'"
    model = copy()
    del model.graph.initializer[0]
    assert named(model) == "tensor 'w'"
    assert named(model, is_runtime=True) == ""
    model = copy()
    model.graph.node[0].domain = "com.microsoft"
    assert named(model).startswith("node (")
    model = copy()
    model.graph.node.append(helper.make_node("Relu", ["logits"], ["y"]))
    assert "4 and 5 nodes" in named(model)
    model = copy()
    model.graph.node[0].attribute[0].i = 7
    assert named(model) == "attribute 'to': 1 and 7"
    model = copy()
    model.graph.node[0].attribute.append(helper.make_attribute("saturate", 0))
    assert named(model).startswith("node (")
    assert named(model, is_runtime=True) == ""


def test_difference_in_a_subgraph_is_named() -> None:
    model = onnx.load_from_string(SEEDS[0])
    branch = next(node for node in model.graph.node if node.op_type == "If").attribute[0].g
    branch.node[0].op_type = "Abs"
    problems = list(differences(our_view(SEEDS[0]), proto_view(model.SerializeToString())))
    assert len(problems) == 1
    assert "Abs" in problems[0]


def test_data_that_our_view_cannot_show_is_an_error() -> None:
    for change in ("functions", "training_info"):
        model = onnx.load_from_string(SEEDS[1])
        getattr(model, change).add()
        with pytest.raises(ValueError, match="functions or training information"):
            proto_view(model.SerializeToString())
    model = onnx.load_from_string(SEEDS[1])
    model.graph.sparse_initializer.add()
    with pytest.raises(ValueError, match="sparse"):
        proto_view(model.SerializeToString())
    model = onnx.load_from_string(SEEDS[1])
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    with pytest.raises(ValueError, match="external data"):
        proto_view(model.SerializeToString())


def test_runtime_that_refuses_or_dies_is_reported(runtime: Runtime) -> None:
    model = onnx.load_from_string(SEEDS[1])
    model.graph.node[0].op_type = "Nonsense"
    content = model.SerializeToString()
    assert compare(our_view(content), content, runtime) == ("refused", [])
    assert runtime.process
    runtime.process.kill()
    runtime.process.join()
    assert compare(our_view(SEEDS[1]), SEEDS[1], runtime) == ("died", ["onnxruntime died or hangs"])
    assert compare(our_view(SEEDS[1]), SEEDS[1], runtime) == ("loaded", [])


def test_changed_files_are_reproducible_and_of_all_kinds() -> None:
    first, second, other = mutator(SEEDS, 1), mutator(SEEDS, 1), mutator(SEEDS, 2)
    contents = [first() for _ in range(1000)]
    assert contents == [second() for _ in range(1000)]
    assert contents != [other() for _ in range(1000)]
    reasons = set()
    for content in itertools.chain(contents, (other() for _ in range(1000))):
        try:
            read_model(content)
        except ValueError as error:
            reasons.add(str(error).split(" (")[0])
    for reason in ("a tag has more than 32 bits", "a number is longer than necessary", "Model has field 'graph' twice"):
        assert reason in reasons
    assert any("has wire type 3" in reason for reason in reasons)
    assert any("has no field" in reason for reason in reasons)
    assert any("not UTF-8" in reason for reason in reasons)
    assert b"w.bin" in TEXTS


def test_numbers_are_written_with_padding() -> None:
    assert write_varint(300) == b"\xac\x02"
    assert write_varint(3, 1) == b"\x83\x00"
    assert write_varint(3, 2) == b"\x83\x80\x00"


def test_command_reports_and_exits(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--inputs", "40", "--processes", "1", "--bundles", str(tmp_path)])
    assert caught.value.code == 0
    assert "11 graphs, {'inputs': 40" in capsys.readouterr().out
