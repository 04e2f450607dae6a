"""Unsafe models are refused from their bytes alone; the `onnx` package is the independent reader."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper

from service.operators import (
    ATTRIBUTE_FIELDS,
    MAX_AXES,
    MAX_ELEMENTS,
    MAX_NODES,
    MAX_RESHAPED,
    MAX_TEXT_BYTES,
    OPERATORS,
    RANDOM,
    SIZE_INPUTS,
    SUBGRAPHS,
    check_operators,
)
from tests.service.bundles import FAMILIES, OPSET, onnx_model

TINY = onnx_model("image-classifier")
HUGE = MAX_ELEMENTS + 1


def assert_refused(model: ModelProto | bytes, message: str, *, opset: int = OPSET, control_flow: bool = False) -> None:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    with pytest.raises(ValueError, match=message):
        check_operators(content, opset=opset, control_flow=control_flow)


def check(model: ModelProto, *, control_flow: bool = False) -> None:
    check_operators(model.SerializeToString(), opset=OPSET, control_flow=control_flow)


def copy_of_tiny() -> ModelProto:
    model = ModelProto()
    model.CopyFrom(TINY)
    return model


def tiny_with(*nodes: NodeProto, **constants: Any) -> ModelProto:
    """The tiny classifier with these nodes at its end, and initializers by name."""
    model = copy_of_tiny()
    model.graph.node.extend(nodes)
    model.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()
    )
    return model


def external_tensor() -> TensorProto:
    tensor = TensorProto(name="far", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def graph_with(*nodes: NodeProto, initializers: tuple[TensorProto, ...] = ()) -> onnx.GraphProto:
    return helper.make_graph(nodes, "branch", [], [], initializers)


def if_node(branch: onnx.GraphProto) -> NodeProto:
    return helper.make_node("If", ["logits"], ["chosen"], then_branch=branch)


@pytest.mark.parametrize("family", FAMILIES)
def test_valid_model_passes(family: str) -> None:
    check(onnx_model(family))


# Data outside of the file


@pytest.mark.parametrize(
    "attribute",
    [
        helper.make_attribute("value", external_tensor()),
        helper.make_attribute("many", [external_tensor()]),
        helper.make_attribute("then_branch", graph_with(initializers=(external_tensor(),))),
        AttributeProto(
            name="bodies", type=AttributeProto.GRAPHS, graphs=[graph_with(initializers=(external_tensor(),))]
        ),
    ],
    ids=lambda attribute: attribute.name,
)
def test_external_data_in_an_attribute_is_refused(attribute: AttributeProto) -> None:
    model = copy_of_tiny()
    model.graph.node[0].attribute.append(attribute)
    assert_refused(model, "external data|has type 10")


def test_external_data_in_an_initializer_is_refused() -> None:
    model = copy_of_tiny()
    model.graph.initializer.append(external_tensor())
    assert_refused(model, "external data")
    model = copy_of_tiny()
    model.graph.initializer[0].data_location = TensorProto.EXTERNAL
    assert_refused(model, "external data")
    model = copy_of_tiny()
    model.graph.initializer[0].external_data.add(key="location", value="*/_ORT_MEM_ADDR_/*")
    assert_refused(model, "external data")


def test_default_location_of_data_passes() -> None:
    model = copy_of_tiny()
    model.graph.initializer[0].data_location = TensorProto.DEFAULT
    check(model)


def test_sparse_tensors_are_refused() -> None:
    model = copy_of_tiny()
    model.graph.sparse_initializer.add()
    assert_refused(model, "it has sparse initializers")
    for value in (onnx.SparseTensorProto(), [onnx.SparseTensorProto(dims=[1 << 40])]):
        model = copy_of_tiny()
        model.graph.node[0].attribute.append(helper.make_attribute("sparse_value", value))
        assert_refused(model, "an attribute is a sparse tensor")


# Operators


def test_nonstandard_domains_are_refused_at_any_depth() -> None:
    node = helper.make_node("Gelu", ["logits"], ["y"], domain="com.microsoft")
    assert_refused(tiny_with(node), "operator domain 'com.microsoft'")
    assert_refused(tiny_with(if_node(graph_with(node))), "operator domain 'com.microsoft'", control_flow=True)
    model = copy_of_tiny()
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    assert_refused(model, r"operator domain 'my\.ops'")


def test_both_names_of_the_standard_domain_pass() -> None:
    model = copy_of_tiny()
    model.graph.node[0].domain = "ai.onnx"
    model.opset_import[0].domain = "ai.onnx"
    check(model)


@pytest.mark.parametrize("name", ["Affine", "MemcpyToHost", "SimplifiedLayerNormalization", "GRUUnit", "FusedConv", ""])
def test_operators_that_onnxruntime_adds_to_the_standard_domain_are_refused(name: str) -> None:
    node = helper.make_node(name, ["logits"], ["y"])
    assert_refused(tiny_with(node), rf"node '' \({name}\) is no standard ONNX operator on numbers")


@pytest.mark.parametrize("name", ["SequenceConstruct", "Optional", "StringConcat", "SequenceMap", "TfIdfVectorizer"])
def test_operators_on_anything_but_numbers_are_refused(name: str) -> None:
    assert_refused(tiny_with(helper.make_node(name, ["logits"], ["y"])), "is no standard ONNX operator on numbers")
    assert_refused(tiny_with(helper.make_node(name, ["logits"], ["y"])), "is no standard", control_flow=True)


def test_admitted_operators_are_those_of_the_onnx_package_on_numbers() -> None:
    theirs = {schema.name for schema in defs.get_all_schemas_with_history() if schema.domain == ""}
    words = ("Sequence", "Optional", "String")
    others = {"ImageDecoder", "RegexFullMatch", "TfIdfVectorizer"}
    assert theirs == OPERATORS | RANDOM | set(SUBGRAPHS) | others | {n for n in theirs if any(w in n for w in words)}
    assert set(SIZE_INPUTS) <= OPERATORS


@pytest.mark.parametrize("name", sorted(RANDOM))
def test_operators_that_draw_random_numbers_are_refused(name: str) -> None:
    assert_refused(tiny_with(helper.make_node(name, ["logits"], ["y"], name="dice")), "node 'dice' .* draws random")
    branch = graph_with(helper.make_node(name, ["logits"], ["y"]))
    assert_refused(tiny_with(if_node(branch)), "draws random numbers", control_flow=True)


def test_dropout_in_training_mode_is_refused() -> None:
    active = helper.make_node("Dropout", ["logits", "ratio", "yes"], ["y"])
    assert_refused(tiny_with(active, ratio=np.float32(0.5), yes=True), r"\(Dropout\) is in training mode")
    check(tiny_with(helper.make_node("Dropout", ["logits", "ratio"], ["y"]), ratio=np.float32(0.5)))
    check(tiny_with(helper.make_node("Dropout", ["logits", "", ""], ["y"])))


def test_batch_normalization_in_training_mode_is_refused() -> None:
    inputs = ["logits", "scale", "b", "mean", "var"]
    statistics = dict.fromkeys(("scale", "mean", "var"), np.ones(3, np.float32))
    training = helper.make_node("BatchNormalization", inputs, ["y"], training_mode=1)
    assert_refused(tiny_with(training, **statistics), r"\(BatchNormalization\) is in training mode")
    updating = helper.make_node("BatchNormalization", inputs, ["y", "new_mean", "new_var"])
    assert_refused(tiny_with(updating, **statistics), r"\(BatchNormalization\) is in training mode")
    check(tiny_with(helper.make_node("BatchNormalization", inputs, ["y"], training_mode=0), **statistics))


@pytest.mark.parametrize("name", sorted(SUBGRAPHS))
def test_control_flow_needs_the_manifest(name: str) -> None:
    bodies = dict.fromkeys(sorted(SUBGRAPHS[name]), graph_with())
    model = tiny_with(helper.make_node(name, ["logits"], ["y"], **bodies))
    assert_refused(model, rf"\({name}\) is control flow, which the manifest does not declare \(`control_flow`\)")
    check(model, control_flow=True)


def test_subgraph_of_any_other_operator_is_refused() -> None:
    node = helper.make_node("Relu", ["logits"], ["y"], body=graph_with())
    assert_refused(tiny_with(node), "has a subgraph in attribute 'body'")
    node = helper.make_node("If", ["logits"], ["y"], body=graph_with())
    assert_refused(tiny_with(node), "has a subgraph in attribute 'body'", control_flow=True)
    several = AttributeProto(name="bodies", type=AttributeProto.GRAPHS, graphs=[graph_with()])
    node = helper.make_node("Relu", ["logits"], ["y"])
    node.attribute.append(several)
    assert_refused(tiny_with(node), "attribute 'bodies' has type 10")


def test_local_functions_are_refused() -> None:
    model = copy_of_tiny()
    model.functions.append(helper.make_function("my", "f", ["x"], ["y"], [], []))
    assert_refused(model, "local functions")


def test_overload_of_a_function_is_refused() -> None:
    model = copy_of_tiny()
    model.graph.node[0].overload = "mine"
    assert_refused(model, "it names an overload")
    model.graph.node[0].overload = ""
    check(model)


def test_reference_to_an_attribute_of_a_function_is_refused() -> None:
    model = copy_of_tiny()
    model.graph.node[0].attribute[0].ref_attr_name = "to"
    assert_refused(model, "an attribute refers to that of a function")


def test_training_information_is_refused() -> None:
    model = copy_of_tiny()
    model.training_info.add()
    assert_refused(model, "training information")


def test_configurations_of_devices_are_refused() -> None:
    model = copy_of_tiny()
    model.configuration.add()
    assert_refused(model, "configurations of devices")
    model = copy_of_tiny()
    model.graph.node[0].device_configurations.add()
    assert_refused(model, "configurations of devices")


@pytest.mark.parametrize(
    "holder",
    [
        lambda model: model,
        lambda model: model.graph,
        lambda model: model.graph.node[0],
        lambda model: model.graph.input[0],
        lambda model: model.graph.initializer[0],
    ],
    ids=["model", "graph", "node", "value", "tensor"],
)
def test_metadata_is_refused(holder: Callable[[ModelProto], Any]) -> None:
    """Key `ort_config` of a model holds options of the session."""
    model = copy_of_tiny()
    holder(model).metadata_props.add(key="ort_config", value="{}")
    assert_refused(model, "it carries metadata")


def test_annotations_of_quantization_are_refused() -> None:
    model = copy_of_tiny()
    model.graph.quantization_annotation.add()
    assert_refused(model, "annotations of quantization")


# Versions


def test_opset_must_be_the_declared_one() -> None:
    model = copy_of_tiny()
    model.opset_import[0].version = 21
    assert_refused(model, "opset 21, expected 20")
    del model.opset_import[:]
    assert_refused(model, "opset missing, expected 20")
    model.opset_import.add(domain="")
    assert_refused(model, "opset 0, expected 20")


@pytest.mark.parametrize("domain", ["", "ai.onnx"])
def test_opset_imported_twice_is_refused_unless_equal(domain: str) -> None:
    """skl2onnx writes equal ones."""
    model = copy_of_tiny()
    model.opset_import.append(helper.make_opsetid(domain, 20))
    check(model)
    model.opset_import.append(helper.make_opsetid(domain, 21))
    assert_refused(model, "opset 20 and 20 and 21, expected 20")


@pytest.mark.parametrize("opset", [0, 1, 6, 27])
def test_opset_outside_of_what_onnxruntime_supports_is_refused(opset: int) -> None:
    model = copy_of_tiny()
    model.opset_import[0].version = opset
    assert_refused(model, f"opset {opset}, expected 7 to 26", opset=opset)
    for supported in (7, 26):
        model.opset_import[0].version = supported
        check_operators(model.SerializeToString(), opset=supported)


@pytest.mark.parametrize("version", [-1, 0, 3, 14])
def test_ir_version_outside_of_what_onnxruntime_reads_is_refused(version: int) -> None:
    model = copy_of_tiny()
    model.ir_version = version
    assert_refused(model, f"IR version {version}, expected 4 to 13")
    for supported in (4, 13):
        model.ir_version = supported
        check(model)


def test_model_without_a_graph_is_refused() -> None:
    assert_refused(b"", "no graph")


# Types, attributes and tensors


@pytest.mark.parametrize("kind", ["sequence_type", "map_type", "optional_type", "sparse_tensor_type"])
def test_value_that_is_no_tensor_is_refused(kind: str) -> None:
    for field in ("input", "output", "value_info"):
        model = copy_of_tiny()
        value = getattr(model.graph, field).add(name="other")
        getattr(value.type, kind).SetInParent()
        assert_refused(model, "a value is no tensor")
        if kind in {"sequence_type", "map_type"}:
            assert_refused(model, "a sequence or a map; convert with zipmap=False")


def test_tensor_of_strings_has_one_short_text_of_utf8_each() -> None:
    def with_words(*words: bytes, **fields: Any) -> ModelProto:
        model = copy_of_tiny()
        model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=[1], string_data=words, **fields)
        return model

    for word in ("駅".encode(), b"", b"a" * MAX_TEXT_BYTES):
        check(with_words(word))
    assert_refused(with_words(b"a" * (MAX_TEXT_BYTES + 1)), f"tensor 'words' has a text of {MAX_TEXT_BYTES + 1} bytes")
    for word in (b"\xff", b"a\0b"):
        assert_refused(with_words(word), "tensor 'words' has a text that is not UTF-8, or that holds a NUL")
    assert_refused(with_words(), r"tensor 'words' is string \[1\], but its string_data has 0 values")
    assert_refused(with_words(b"a", b"b"), r"tensor 'words' is string \[1\], but its string_data has 2 values")
    assert_refused(with_words(raw_data=b"a"), "tensor 'words' holds strings as raw bytes, expected string_data")
    assert_refused(with_words(b"a", int32_data=[1]), "string in string_data and also has")


def test_text_of_an_attribute_is_utf8() -> None:
    for texts in ({"s": b"\xff"}, {"strings": [b"a", b"\xff"]}, {"s": b"a\0"}):
        kind = AttributeProto.STRING if "s" in texts else AttributeProto.STRINGS
        model = copy_of_tiny()
        model.graph.node[0].attribute.append(AttributeProto(name="mode", type=kind, **texts))
        assert_refused(model, "attribute 'mode' has a text that is not UTF-8, or that holds a NUL character")


@pytest.mark.parametrize("data_type", [0, 14, 15, 17, 21, 22, 23, 99, -1])
def test_tensor_of_another_type_is_refused(data_type: int) -> None:
    model = tiny_with()
    model.graph.initializer.add(name="other", data_type=data_type, dims=[0])
    assert_refused(model, f"tensor 'other' has data type {data_type}, expected strings or numbers of")


@pytest.mark.parametrize("data_type", [0, TensorProto.COMPLEX64, TensorProto.INT4, -1])
def test_cast_to_another_type_is_refused(data_type: int) -> None:
    cast = helper.make_node("Cast", ["logits"], ["y"], to=data_type)
    assert_refused(tiny_with(cast), rf"\(Cast\) makes data type {data_type}, expected strings or numbers of whole")


@pytest.mark.parametrize("value", [{"value_string": "a"}, {"value_strings": ["a"]}])
def test_constant_of_strings_is_refused(value: dict[str, Any]) -> None:
    assert_refused(tiny_with(helper.make_node("Constant", [], ["y"], **value)), r"\(Constant\) makes strings")


def test_segment_of_a_tensor_is_refused() -> None:
    model = copy_of_tiny()
    model.graph.initializer[0].segment.begin = 0
    assert_refused(model, "a tensor is a segment")


@pytest.mark.parametrize("dims", [[16, 4], [4, 3], [16, 3, 0], [], [1 << 62, 4], [16, 3, 1 << 40]])
def test_tensor_whose_bytes_do_not_fill_its_axes_is_refused(dims: list[int]) -> None:
    model = copy_of_tiny()
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == "w")
    del tensor.dims[:]
    tensor.dims.extend(dims)
    assert_refused(model, "tensor 'w' is float32 .*, but its raw_data has 192 bytes")


def test_tensor_with_impossible_axes_is_refused() -> None:
    for dims in ([-16, -3], [-1], [1] * (MAX_AXES + 1)):
        model = copy_of_tiny()
        model.graph.initializer.add(name="odd", data_type=1, dims=dims)
        assert_refused(model, f"tensor 'odd' has the axes .*, expected at most {MAX_AXES} of 0 or more")
    check(tiny_with(deep=np.zeros([1] * MAX_AXES, np.float32), empty=np.zeros((0, 3), np.float32)))


LISTED = {
    "float32": ("float_data", [1.5]),
    "float64": ("double_data", [1.5]),
    "int64": ("int64_data", [-5]),
    "uint64": ("uint64_data", [5]),
    "uint32": ("uint64_data", [5]),
    "int32": ("int32_data", [-5]),
    "int16": ("int32_data", [-32768]),
    "int8": ("int32_data", [-128]),
    "uint8": ("int32_data", [255]),
    "uint16": ("int32_data", [65535]),
    "bool": ("int32_data", [1]),
    "float16": ("int32_data", [65535]),
    "bfloat16": ("int32_data", [65535]),
}


@pytest.mark.parametrize("dtype", sorted(LISTED))
def test_tensor_with_its_elements_in_a_list_has_one_value_each(dtype: str) -> None:
    field, values = LISTED[dtype]
    number = TensorProto.DataType.Value({"float32": "FLOAT", "float64": "DOUBLE"}.get(dtype, dtype.upper()))
    model = tiny_with()
    tensor = model.graph.initializer.add(name="listed", data_type=number, dims=[1])
    assert_refused(model, f"tensor 'listed' is {dtype} .*, but its {field} has 0 values")
    getattr(tensor, field).extend(values)
    check(model)
    getattr(tensor, field).extend(values)
    assert_refused(model, f"tensor 'listed' is {dtype} .*, but its {field} has 2 values")


@pytest.mark.parametrize(
    ("dtype", "value"),
    [
        ("BOOL", 2),
        ("INT8", 128),
        ("INT8", -129),
        ("UINT8", 256),
        ("UINT8", -1),
        ("INT16", 1 << 15),
        ("FLOAT16", 1 << 16),
    ],
)
def test_listed_value_beyond_the_type_of_its_tensor_is_refused(dtype: str, value: int) -> None:
    model = tiny_with()
    number = TensorProto.DataType.Value(dtype)
    model.graph.initializer.add(name="listed", data_type=number, dims=[1], int32_data=[value])
    assert_refused(model, "tensor 'listed' is .*, but a value of it is not in")


def test_tensor_with_its_elements_twice_is_refused() -> None:
    """A reader may take either; `double_data` and the like of another type also count."""
    for field in ("float_data", "int32_data", "int64_data", "double_data", "uint64_data"):
        model = copy_of_tiny()
        getattr(model.graph.initializer[0], field).append(1)
        assert_refused(model, rf"is float32 in raw_data and also has \['{field}'\]")
    model = tiny_with()
    model.graph.initializer.add(name="listed", data_type=1, dims=[1], float_data=[1], int64_data=[2])
    assert_refused(model, r"tensor 'listed' is float32 in float_data and also has \['int64_data'\]")


def test_byte_of_a_bool_that_is_neither_0_nor_1_is_refused() -> None:
    model = tiny_with(mask=np.array([True, False]))
    check(model)
    model.graph.initializer[-1].raw_data = b"\x02\x00"
    assert_refused(model, "tensor 'mask' is bool, but a byte of it is neither 0 nor 1")


def test_attribute_of_two_types_is_refused() -> None:
    for other in ({"i": 1}, {"s": b"x"}, {"ints": [1]}, {"floats": [1.0]}, {"t": TensorProto()}, {"strings": [b""]}):
        model = copy_of_tiny()
        attribute = AttributeProto(name="axis", type=AttributeProto.FLOAT, f=1.0, **other)
        model.graph.node[0].attribute.append(attribute)
        assert_refused(model, "attribute 'axis' is of type 1, but has|data type 0")


@pytest.mark.parametrize("kind", range(15))
def test_attribute_of_a_type_without_its_value_is_refused(kind: int) -> None:
    model = copy_of_tiny()
    model.graph.node[0].attribute.append(AttributeProto(name="axis", type=kind, f=1.0))
    if kind == AttributeProto.FLOAT:
        check(model)
    else:
        assert_refused(model, f"attribute 'axis' (has type {kind}, expected|is of type {kind}, but has)")
    model.graph.node[0].attribute[-1].ClearField("f")
    if kind in ATTRIBUTE_FIELDS and kind not in {AttributeProto.TENSOR, AttributeProto.GRAPH}:
        check(model)
    else:
        assert_refused(model, f"attribute 'axis' (has type {kind}, expected|is of type {kind}, but has no value)")


def test_attribute_that_is_a_type_is_refused() -> None:
    for value in ({"tp": onnx.TypeProto()}, {"type_protos": [onnx.TypeProto()]}):
        model = copy_of_tiny()
        model.graph.node[0].attribute.append(AttributeProto(name="type", type=AttributeProto.INT, **value))
        assert_refused(model, "an attribute is a type")


def test_attribute_that_comes_twice_is_refused() -> None:
    model = copy_of_tiny()
    model.graph.node[0].attribute.append(helper.make_attribute("to", 7))
    assert_refused(model, r"node '' \(Cast\) has attribute 'to' twice")


# Names


def test_name_that_is_defined_twice_is_refused() -> None:
    for model in (
        tiny_with(w=np.zeros((16, 3), np.float32)),
        tiny_with(images=np.zeros((1, 4, 4), np.uint8)),
        tiny_with(helper.make_node("Relu", ["logits"], ["logits"])),
        tiny_with(helper.make_node("Relu", ["logits"], ["w"])),
        tiny_with(helper.make_node("Relu", ["logits"], ["images"])),
        tiny_with(helper.make_node("Split", ["logits"], ["a", "a"])),
    ):
        assert_refused(model, "the name '.*' is defined twice")
    model = copy_of_tiny()
    model.graph.input.append(model.graph.input[0])
    assert_refused(model, "the name 'images' is defined twice")


def test_input_that_has_an_initializer_is_refused() -> None:
    """Callers of onnxruntime could replace such a weight."""
    model = copy_of_tiny()
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 3]))
    assert_refused(model, "the name 'w' is defined twice")


def test_name_of_a_subgraph_that_shadows_an_outer_name_is_refused() -> None:
    inner = graph_with(helper.make_node("Relu", ["logits"], ["probabilities"]))
    assert_refused(tiny_with(if_node(inner)), "the name 'probabilities' is defined twice", control_flow=True)
    inner = graph_with(initializers=(numpy_helper.from_array(np.zeros(3, np.float32), "b"),))
    assert_refused(tiny_with(if_node(inner)), "the name 'b' is defined twice", control_flow=True)
    check(tiny_with(if_node(graph_with(helper.make_node("Relu", ["logits"], ["inner"])))), control_flow=True)


def test_empty_name_is_refused() -> None:
    for field in ("input", "initializer"):
        model = copy_of_tiny()
        added = getattr(model.graph, field).add()
        if field == "initializer":
            added.CopyFrom(numpy_helper.from_array(np.zeros(1, np.float32)))
        assert_refused(model, "the name '' is empty")


def test_undefined_input_of_a_node_is_refused() -> None:
    assert_refused(tiny_with(helper.make_node("Relu", ["nowhere"], ["y"])), "is undefined before it: 'nowhere'")
    unsorted = (helper.make_node("Relu", ["b1"], ["a1"]), helper.make_node("Relu", ["a1"], ["b1"]))
    assert_refused(tiny_with(*unsorted), "is undefined before it: 'b1'")
    check(tiny_with(helper.make_node("Clip", ["logits", "", "high"], ["y"]), high=np.float32(1)))


def test_undefined_output_of_a_graph_is_refused() -> None:
    for field in ("output", "value_info"):
        model = copy_of_tiny()
        getattr(model.graph, field).append(helper.make_tensor_value_info("nowhere", TensorProto.FLOAT, [1]))
        assert_refused(model, f"the {field} 'nowhere' is undefined")


def test_value_that_is_described_twice_is_refused() -> None:
    for name in ("images", "logits", "pixels"):
        model = copy_of_tiny()
        model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]))
        if name == "pixels":
            check(model)
            model.graph.value_info.append(helper.make_tensor_value_info(name, TensorProto.INT64, [1]))
        assert_refused(model, f"the value_info '{name}' is described twice")
    model = copy_of_tiny()
    model.graph.output.append(model.graph.output[0])
    assert_refused(model, "the output 'logits' is described twice")


def test_initializer_that_is_described_as_another_is_refused() -> None:
    for data_type, shape in ((TensorProto.FLOAT, [3, 16]), (TensorProto.INT64, [16, 3]), (TensorProto.FLOAT, ["n", 3])):
        model = copy_of_tiny()
        model.graph.value_info.append(helper.make_tensor_value_info("w", data_type, shape))
        assert_refused(model, "the value_info 'w' is not of the type of its initializer")
    model = copy_of_tiny()
    model.graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [16, 3]))
    check(model)


# Declared sizes


def sized_nodes() -> Iterator[Any]:
    node = helper.make_node
    shape = np.array([3, HUGE // 2])
    yield "ConstantOfShape", node("ConstantOfShape", ["size"], ["y"]), shape
    yield "Expand", node("Expand", ["logits", "size"], ["y"]), shape
    yield "Tile", node("Tile", ["logits", "size"], ["y"]), shape
    yield "Range", node("Range", ["zero", "size", "one"], ["y"]), np.array(HUGE)
    yield "Range down", node("Range", ["size", "zero", "one"], ["y"]), np.array(-HUGE)
    yield "Range of floats", node("Range", ["zero", "size", "one"], ["y"]), np.float32(1e9)
    yield "Resize", node("Resize", ["logits", "", "", "size"], ["y"]), shape
    yield "Resize by scales", node("Resize", ["logits", "", "size"], ["y"]), np.array([1e5, 1e5], np.float32)
    yield "Pad", node("Pad", ["logits", "size"], ["y"]), np.array([0, 0, 0, HUGE])
    yield "OneHot", node("OneHot", ["logits", "size", "zero"], ["y"]), np.array(HUGE)
    yield "HannWindow", node("HannWindow", ["size"], ["y"]), np.array(HUGE)
    yield "int32", node("HannWindow", ["size"], ["y"]), np.array(HUGE, np.int32)


@pytest.mark.parametrize(("node", "size"), [pytest.param(*rest, id=name) for name, *rest in sized_nodes()])
def test_size_that_is_written_in_the_file_is_bounded(node: NodeProto, size: Any) -> None:
    model = tiny_with(node, size=size, zero=np.array(0), one=np.array(1))
    assert_refused(model, f"constant 'size' declares .* elements, expected at most {MAX_ELEMENTS}")
    small = np.asarray(size) // np.asarray(64, np.asarray(size).dtype)
    check(tiny_with(node, size=small, zero=np.array(0), one=np.array(1)))


def test_size_that_is_computed_from_a_large_constant_is_refused() -> None:
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Gather", ["shape", "zero"], ["batch"]),
        helper.make_node("Div", ["batch", "batch"], ["one"]),
        helper.make_node("Mul", ["one", "factor"], ["size"]),
        helper.make_node("ConstantOfShape", ["size"], ["y"]),
    ]
    constants = {"zero": np.array([0]), "factor": np.array([HUGE])}
    assert_refused(tiny_with(*nodes, **constants), "constant 'factor' declares .* elements")
    check(tiny_with(*nodes, zero=np.array([0]), factor=np.array([MAX_ELEMENTS])))


@pytest.mark.parametrize("operator", ["Gather", "Slice"])
def test_size_out_of_a_table_is_bounded_and_its_place_is_not(operator: str) -> None:
    def with_table(table: int, place: int) -> ModelProto:
        nodes = [
            helper.make_node(operator, ["table", "place"], ["size"]),
            helper.make_node("HannWindow", ["size"], ["y"]),
        ]
        return tiny_with(*nodes, table=np.array([3, table]), place=np.array(place))

    assert_refused(with_table(HUGE, 1), "constant 'table' declares .* elements")
    check(with_table(MAX_ELEMENTS, HUGE))


@pytest.mark.parametrize("value", [{"value_int": HUGE}, {"value_ints": [2, HUGE]}, {"value_float": 1e9}])
def test_size_in_a_constant_node_is_bounded(value: dict[str, Any]) -> None:
    constant = helper.make_node("Constant", [], ["size"], **value)
    window = helper.make_node("HannWindow", ["size"], ["y"])
    assert_refused(tiny_with(constant, window), "constant 'size' declares .* elements")
    tensor = numpy_helper.from_array(np.array([HUGE]))
    assert_refused(tiny_with(helper.make_node("Constant", [], ["size"], value=tensor), window), "constant 'size'")
    check(tiny_with(constant))


@pytest.mark.parametrize("name", ["pads", "output_shape", "kernel_shape", "output_padding"])
def test_size_in_an_attribute_is_bounded(name: str) -> None:
    def with_sizes(*sizes: int) -> ModelProto:
        return tiny_with(helper.make_node("ConvTranspose", ["logits", "w"], ["y"], **{name: sizes}))

    assert_refused(with_sizes(0, HUGE), f"attribute '{name}' declares .* elements")
    check(with_sizes(1 << 14, 1 << 14))
    if name.endswith("shape"):
        assert_refused(with_sizes(1 << 14, (1 << 14) + 1), f"attribute '{name}' declares .* elements")
    else:
        check(with_sizes(*[128] * 8))


SIZES = """
ConstantOfShape 0, BlackmanWindow 0, HammingWindow 0, HannWindow 0, Expand 1, Tile 1, OneHot 1, Pad 1, CenterCropPad 1,
Reshape 1, Upsample 1, Range 0, Range 1, Resize 2, Resize 3, Col2Im 1, MelWeightMatrix 0, MelWeightMatrix 1
"""


def test_weight_of_several_gigabytes_may_be_reshaped() -> None:
    reshape, size = helper.make_node("Reshape", ["logits", "size"], ["y"]), np.array([25_600, 25_600])
    check(tiny_with(reshape, size=size))
    check(tiny_with(reshape, size=np.array([MAX_RESHAPED])))
    assert_refused(tiny_with(reshape, size=np.array([MAX_RESHAPED, 2])), f"expected at most {MAX_RESHAPED}")
    # The same constant is no size of a new tensor.
    expand = helper.make_node("Expand", ["logits", "size"], ["z"])
    for nodes in ((reshape, expand), (expand, reshape)):
        assert_refused(tiny_with(*nodes, size=np.array([HUGE])), f"expected at most {MAX_ELEMENTS}")


@pytest.mark.parametrize("place", [place.strip() for place in SIZES.split(",")])
def test_input_that_decides_a_size_is_bounded(place: str) -> None:
    operator, _, index = place.partition(" ")
    limit = MAX_RESHAPED if operator == "Reshape" else MAX_ELEMENTS
    inputs = ["logits"] * int(index) + ["size"]
    node = helper.make_node(operator, inputs, ["y"])
    too_large = np.array([limit + 1])
    assert_refused(tiny_with(node, size=too_large), rf"\({operator}\): constant 'size' declares .* elements")
    check(tiny_with(node, size=np.array([limit])))
    check(tiny_with(helper.make_node(operator, ["logits"] * (int(index) + 2) + ["size"], ["y"]), size=np.array([1])))


def test_tensor_of_more_values_than_a_shape_is_no_shape() -> None:
    node = helper.make_node("Expand", ["logits", "size"], ["y"])
    assert_refused(tiny_with(node, size=np.array([HUGE] + [1] * 63)), "constant 'size' declares .* elements")
    check(tiny_with(node, size=np.array([HUGE] + [1] * 64)))


def test_paddings_are_no_shape() -> None:
    check(tiny_with(helper.make_node("Pad", ["logits", "size"], ["y"]), size=np.array([128] * 8)))


def test_large_number_that_is_no_size_passes() -> None:
    last = np.array([(1 << 63) - 1])
    nodes = [
        helper.make_node("Shape", ["images"], ["shape"]),
        helper.make_node("Slice", ["shape", "zero", "last"], ["some"]),
        helper.make_node("ConstantOfShape", ["some"], ["y"]),
        helper.make_node("Mod", ["shape", "last"], ["rest"]),
        helper.make_node("Transpose", ["y"], ["z"], perm=[*range(15)]),
    ]
    check(tiny_with(*nodes, zero=np.array([0]), last=last))
    assert_refused(tiny_with(helper.make_node("EyeLike", ["logits"], ["y"], k=HUGE)), "attribute 'k' declares")


def test_number_of_nodes_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_NODES == 20_000
    inner = if_node(graph_with(helper.make_node("Relu", ["logits"], ["y"])))
    num_nodes = len(TINY.graph.node) + 2
    monkeypatch.setattr("service.operators.MAX_NODES", num_nodes)
    check(tiny_with(inner), control_flow=True)
    monkeypatch.setattr("service.operators.MAX_NODES", num_nodes - 1)
    assert_refused(tiny_with(inner), f"more than {num_nodes - 1} nodes", control_flow=True)


def test_many_shapes_over_one_long_chain_are_checked_in_linear_time() -> None:
    long_path = [helper.make_node("Abs", [f"x{i}" if i else "size"], [f"x{i + 1}"]) for i in range(2_000)]
    windows = [helper.make_node("HannWindow", ["x2000"], [f"w{i}"]) for i in range(2_000)]
    check(tiny_with(*long_path, *windows, size=np.array(3)))


def test_large_weights_pass() -> None:
    check(tiny_with(big=np.zeros((1000, 1000), np.float32)))


# Any bytes


@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_only_value_errors(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        check_operators(content, opset=OPSET)


def test_every_truncated_model_is_refused() -> None:
    content = TINY.SerializeToString()
    for size in range(len(content)):
        assert_refused(content[:size], ".")


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    content = bytearray(onnx_model(draw(st.sampled_from(FAMILIES))).SerializeToString())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(content) - 1))
        match draw(st.sampled_from(["set", "cut", "copy"])):
            case "set":
                content[at] = draw(st.integers(0, 255))
            case "cut":
                del content[at : at + draw(st.integers(1, 20))]
            case "copy":
                content[at:at] = content[at : at + draw(st.integers(1, 60))]
        if not content:
            break
    return bytes(content)


@settings(max_examples=300)
@given(mutated())
def test_models_that_pass_are_safe_according_to_the_onnx_package(content: bytes) -> None:
    try:
        check_operators(content, opset=OPSET)
    except ValueError:
        return
    try:
        model = onnx.load_from_string(content)
    except DecodeError:
        pytest.fail("the onnx package cannot read what passed")
    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    assert not model.functions
    for node in model.graph.node:
        assert node.domain in {"", "ai.onnx"}
        assert not any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute)
    for tensor in model.graph.initializer:
        assert not tensor.external_data
        assert not tensor.data_location


def test_graph_behind_a_tag_above_32_bits_is_refused() -> None:
    """The attack is real: onnxruntime cuts the tag to 32 bits and merges a second graph into the first."""
    second = onnx.GraphProto(output=[helper.make_tensor_value_info("pixels", TensorProto.FLOAT, ["batch", 4, 4])])
    graph = second.SerializeToString()
    content = TINY.SerializeToString() + b"\xba\x80\x80\x80\x10" + bytes([len(graph)]) + graph
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == ["logits", "probabilities", "pixels"]
    assert_refused(content, "a tag has more than 32 bits")
