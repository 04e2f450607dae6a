"""Checks the graph of an ONNX file: standard, stateless operators at the declared opset, and no data from elsewhere.

Invariant: onnxruntime runs exactly the nodes that this module saw. Where onnxruntime would choose between two
definitions of a name, read another file, or follow metadata, the file is refused.
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from math import prod
from struct import iter_unpack

from service.data_files.external import check_external, is_external
from service.onnx_wire import DATA_TYPES, Message, data_type, read_model
from service.opsets import machine_learning, microsoft
from service.opsets.imports import (
    MACHINE_LEARNING,
    METADATA,
    MICROSOFT,
    STANDARD,
    check_metadata,
    check_versions,
    domain_of,
)

MAX_NODES = 20_000
MAX_AXES = 16
# Elements of a tensor whose size is written in the file: 1 GiB of float32, more than any layer of a served model.
MAX_ELEMENTS = 1 << 28
# The shape that a tensor is given; it has its elements already, and may be a weight.
MAX_RESHAPED = 1 << 31
# Bytes of one text.
MAX_TEXT_BYTES = 1 << 16

# Every operator of the standard domain on numbers, up to opset 26, but for those that draw random numbers. A list of
# what is allowed, because onnxruntime adds operators of its own to this domain, such as Affine and MemcpyToHost.
_STANDARD = """
Abs Acos Acosh Add AffineGrid And ArgMax ArgMin Asin Asinh Atan Atanh Attention AveragePool BatchNormalization BitCast
BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor BlackmanWindow Cast CastLike CausalConvWithState Ceil Celu
CenterCropPad Clip Col2Im Compress Concat Constant ConstantOfShape Conv ConvInteger ConvTranspose Cos Cosh CumProd
CumSum DFT DeformConv DepthToSpace DequantizeLinear Det Div Dropout DynamicQuantizeLinear Einsum Elu Equal Erf Exp
Expand EyeLike Flatten Floor GRU Gather GatherElements GatherND Gelu Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool
Greater GreaterOrEqual GridSample GroupNormalization HammingWindow HannWindow HardSigmoid HardSwish Hardmax Identity
InstanceNormalization IsInf IsNaN LRN LSTM LayerNormalization LeakyRelu Less LessOrEqual LinearAttention Log
LogSoftmax LpNormalization LpPool MatMul MatMulInteger Max MaxPool MaxRoiPool MaxUnpool Mean MeanVarianceNormalization
MelWeightMatrix Min Mish Mod Mul Neg NegativeLogLikelihoodLoss NonMaxSuppression NonZero Not OneHot Or PRelu Pad Pow
QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum
ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize
ReverseSequence RoiAlign RotaryEmbedding Round STFT Scatter ScatterElements ScatterND Selu Shape Shrink Sigmoid Sign
Sin Sinh Size Slice Softmax SoftmaxCrossEntropyLoss Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum SwiGLU
Swish Tan Tanh TensorScatter ThresholdedRelu Tile TopK Transpose Trilu Unique Unsqueeze Upsample Where Xor
"""
OPERATORS = frozenset(_STANDARD.split())
RANDOM = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"}
)
# The attributes that hold the subgraphs of each operator with control flow.
SUBGRAPHS = {"If": {"then_branch", "else_branch"}, "Loop": {"body"}, "Scan": {"body"}}

# Fields that two readers could interpret differently, or that name data outside the file. Default values are allowed.
FORBIDDEN_FIELDS = {
    "Model": {
        "training_info": "it carries training information",
        "functions": "it defines local functions",
        "configuration": "it carries configurations of devices",
    },
    "Graph": {
        "sparse_initializer": "it has sparse initializers",
        "quantization_annotation": "it has annotations of quantization",
    },
    "Node": {"overload": "it names an overload", "device_configurations": "it carries configurations of devices"},
    "Attribute": {
        "ref_attr_name": "an attribute refers to that of a function",
        **dict.fromkeys(("sparse_tensor", "sparse_tensors"), "an attribute is a sparse tensor"),
        **dict.fromkeys(("tp", "type_protos"), "an attribute is a type"),
    },
    "Tensor": {
        "segment": "a tensor is a segment",
    },
    "Type": {
        **dict.fromkeys(("opaque_type", "sparse_tensor_type", "optional_type"), "a value is no tensor"),
        **dict.fromkeys(
            ("sequence_type", "map_type"), "a value is no tensor, but a sequence or a map; convert with zipmap=False"
        ),
    },
}

# The field that holds the value of each type of attribute.
ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings", 9: "tensors"}
# The field that holds the elements of a tensor without raw_data; smaller integers are stored as int32.
TENSOR_FIELDS = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
    "string": "string_data",
}
# The inputs that decide the size of an operator's output.
SIZE_INPUTS = {
    **dict.fromkeys(("ConstantOfShape", "BlackmanWindow", "HammingWindow", "HannWindow"), (0,)),
    **dict.fromkeys(("Expand", "Tile", "OneHot", "Pad", "CenterCropPad", "Reshape", "Upsample"), (1,)),
    "Range": (0, 1),
    "Resize": (2, 3),
    "Col2Im": (1,),
    "MelWeightMatrix": (0, 1),
}
NO_DATA_FILES: Mapping[str, int] = {}
SHAPE_ATTRIBUTES = {"output_shape", "kernel_shape"}
# The types of tensors that hold shapes, as characters of `struct`, and the most values of one.
SIZE_FORMATS = {"int64": "q", "int32": "i", "float32": "f", "float64": "d"}
MAX_SIZE_VALUES = 64


def check_operators(
    content: bytes, *, opset: int, control_flow: bool = False, data_files: Mapping[str, int] = NO_DATA_FILES
) -> None:
    """Raise ValueError unless the ONNX file is self-contained and uses only standard operators at `opset`.

    `control_flow` admits the operators If, Loop and Scan, whose running time depends on values. `data_files` are the
    names and sizes of the files in which initializers may lie.
    """
    model = read_model(content)
    check_external(model, data_files)
    for message in model.walk():
        _check_fields(message)
        if message.kind == "Tensor" and not is_external(message):
            _check_tensor(message, content)
        elif message.kind == "Attribute":
            _check_attribute(message, content)
    check_metadata(model)
    domains = check_versions(model, opset)
    num_nodes = 0
    pending = [(graph, ChainMap[str, Message]()) for graph in model.messages("graph")]
    while pending:
        graph, outer = pending.pop()
        nodes = graph.messages("node")
        num_nodes += len(nodes)
        if num_nodes > MAX_NODES:
            raise ValueError(f"it has more than {MAX_NODES} nodes")
        scope = outer.new_child()
        _define_names(graph, scope)
        for node in nodes:
            pending += [(subgraph, scope) for subgraph in _check_node(node, control_flow, domains, scope, content)]
        _check_sizes(graph, content)


def _check_fields(message: Message) -> None:
    forbidden = FORBIDDEN_FIELDS.get(message.kind, {})
    for name, values in message.values.items():
        if name == "metadata_props" and message.kind != "Model":
            raise ValueError(METADATA)
        if name in forbidden and any(values):
            raise ValueError(forbidden[name])


def _check_tensor(tensor: Message, content: bytes) -> None:
    """Raise ValueError unless a tensor has exactly the elements that its type and its axes declare."""
    label = f"tensor {tensor.text('name')[:80]!r}"
    dtype, item_bytes = data_type(tensor)
    dims = tensor.numbers("dims")
    if len(dims) > MAX_AXES or any(size < 0 for size in dims):
        raise ValueError(f"{label} has the axes {dims[:20]}, expected at most {MAX_AXES} of 0 or more")
    num_elements, raw = prod(dims), tensor.span("raw_data")
    listed = TENSOR_FIELDS.get(dtype, "int32_data")
    if raw and dtype == "string":
        raise ValueError(f"{label} holds strings as raw bytes, expected string_data")
    name = "raw_data" if raw else listed
    if extra := {field for field in tensor.values if field.endswith("_data")} - {name}:
        raise ValueError(f"{label} is {dtype} in {name} and also has {sorted(extra)}")
    actual, expected = (
        (raw.stop - raw.start, num_elements * item_bytes) if raw else (len(tensor.values.get(listed, ())), num_elements)
    )
    if actual != expected:
        raise ValueError(f"{label} is {dtype} {dims}, but its {name} has {actual} {'bytes' if raw else 'values'}")
    if dtype == "string":
        _check_texts(label, tensor, name, content)
    if raw and dtype == "bool" and content[raw].strip(b"\0\1"):
        raise ValueError(f"{label} is bool, but a byte of it is neither 0 nor 1")
    if not raw and listed == "int32_data":
        limits = {"bool": (0, 1), "int8": (-128, 127), "int16": (-32768, 32767)}
        low, high = limits.get(dtype, (0, (1 << 8 * item_bytes) - 1))
        if dtype != "int32" and not all(low <= value <= high for value in tensor.numbers(listed)):
            raise ValueError(f"{label} is {dtype}, but a value of it is not in {low} to {high}")


def _check_attribute(attribute: Message, content: bytes) -> None:
    """Raise ValueError unless an attribute has a value of its declared type and of no other."""
    label, kind = f"attribute {attribute.text('name')[:80]!r}", attribute.number("type")
    if kind not in ATTRIBUTE_FIELDS:
        raise ValueError(f"{label} has type {kind}, expected one of {sorted(ATTRIBUTE_FIELDS)}")
    name = ATTRIBUTE_FIELDS[kind]
    present = set(attribute.values) - {"name", "type", "doc_string", "ref_attr_name"}
    if not present <= {name} or (name in {"t", "g"} and not present):
        raise ValueError(f"{label} is of type {kind}, but has {sorted(present) or 'no value'}, expected {name!r}")
    _check_texts(label, attribute, name, content)


def _check_texts(label: str, holder: Message, name: str, content: bytes) -> None:
    """Raise ValueError unless the texts of a field are short, of UTF-8, and without the NUL that ends them in C."""
    for span in holder.values.get(name, ()):
        if isinstance(span, slice) and span.stop - span.start > MAX_TEXT_BYTES:
            raise ValueError(f"{label} has a text of {span.stop - span.start} bytes, expected at most {MAX_TEXT_BYTES}")
        if isinstance(span, slice) and not _is_text(content[span]):
            raise ValueError(f"{label} has a text that is not UTF-8, or that holds a NUL character")


def _is_text(encoded: bytes) -> bool:
    try:
        return "\0" not in str(encoded, "utf-8")
    except UnicodeDecodeError:
        return False


def _define_names(graph: Message, scope: MutableMapping[str, Message]) -> None:
    """Put the names that a graph defines into the scope. Raises ValueError if two have one name, or a node has none."""

    def define(name: str, definition: Message) -> None:
        if not name or name in scope:
            raise ValueError(f"the name {name[:80]!r} is {'defined twice' if name else 'empty'}")
        scope[name] = definition

    for field in ("input", "initializer"):
        for value in graph.messages(field):
            define(value.text("name"), value)
    for node in graph.messages("node"):
        if undefined := {name for name in node.texts("input") if name and name not in scope}:
            raise ValueError(f"an input of {_label(node)} is undefined before it: {min(undefined)[:80]!r}")
        for name in filter(None, node.texts("output")):
            define(name, node)
    described = {value.text("name") for value in graph.messages("input")}
    for field in ("output", "value_info"):
        for value in graph.messages(field):
            name = value.text("name")
            if name not in scope:
                raise ValueError(f"the {field} {name[:80]!r} is undefined")
            if name in described:
                raise ValueError(f"the {field} {name[:80]!r} is described twice")
            described.add(name)
            if scope[name].kind == "Tensor" and _type(value) != (
                scope[name].number("data_type"),
                *scope[name].numbers("dims"),
            ):
                raise ValueError(f"the {field} {name[:80]!r} is not of the type of its initializer")


def _type(value: Message) -> tuple[object, ...]:
    """Return the data type and the axes of the tensor that a ValueInfo describes."""
    tensors = [tensor for kind in value.messages("type") for tensor in kind.messages("tensor_type")]
    axes = [axis for tensor in tensors for shape in tensor.messages("shape") for axis in shape.messages("dim")]
    return (*(tensor.number("elem_type") for tensor in tensors), *(axis.number("dim_value", -1) for axis in axes))


def _label(node: Message) -> str:
    return f"node {node.text('name')[:80]!r} ({node.text('op_type')[:80]})"


def _check_node(
    node: Message, control_flow: bool, domains: Mapping[str, int], scope: Mapping[str, Message], content: bytes
) -> list[Message]:
    """Return the subgraphs of a node. Raises ValueError unless its operator is admitted, and of an imported domain."""
    domain, attributes = domain_of(node.text("domain")), dict[str, Message]()
    for attribute in node.messages("attribute"):
        if attributes.setdefault(attribute.text("name"), attribute) is not attribute:
            raise ValueError(f"{_label(node)} has attribute {attribute.text('name')[:80]!r} twice")
    if domain == MICROSOFT:
        microsoft.check_name(_label(node), node.text("op_type"))
    if domain not in domains:
        raise ValueError(f"{_label(node)} is of domain {domain!r}, of which no opset is imported")
    if domain == MACHINE_LEARNING:
        machine_learning.check_operator(_label(node), node.text("op_type"), attributes, content)
    elif domain == MICROSOFT:
        inputs = node.texts("input")
        stored = {name: scope[name] for name in inputs if name in scope and scope[name].kind == "Tensor"}
        microsoft.check_product(_label(node), attributes, inputs, stored)
    else:
        _check_standard_operator(node, attributes, control_flow)
    subgraphs = []
    for name, attribute in attributes.items():
        if graphs := attribute.messages("g"):
            if domain != STANDARD or name not in SUBGRAPHS.get(node.text("op_type"), ()):
                raise ValueError(f"{_label(node)} has a subgraph in attribute {name[:80]!r}")
            subgraphs += graphs
    return subgraphs


def _check_standard_operator(node: Message, attributes: Mapping[str, Message], control_flow: bool) -> None:
    """Raise ValueError unless an operator is standard, stateless and admitted."""
    operator = node.text("op_type")
    if operator in RANDOM:
        raise ValueError(f"{_label(node)} draws random numbers")
    if operator in SUBGRAPHS and not control_flow:
        raise ValueError(f"{_label(node)} is control flow, which the manifest does not declare (`control_flow`)")
    if operator not in OPERATORS and operator not in SUBGRAPHS:
        raise ValueError(f"{_label(node)} is no standard ONNX operator on numbers")
    if makes := _other_type(operator, attributes):
        raise ValueError(f"{_label(node)} makes {makes}, expected strings or numbers of whole bytes")
    if _is_training(node, attributes):
        raise ValueError(f"{_label(node)} is in training mode")


def _other_type(operator: str, attributes: Mapping[str, Message]) -> str | None:
    """Name the type that a node makes if it is not one of DATA_TYPES."""
    if operator == "Cast" and "to" in attributes and attributes["to"].number("i") not in DATA_TYPES:
        return f"data type {attributes['to'].number('i')}"
    if operator == "Constant" and ({"value_string", "value_strings"} & attributes.keys()):
        return "strings"
    return None


def _is_training(node: Message, attributes: Mapping[str, Message]) -> bool:
    """Whether a node may drop values at random (its third input says so), or update statistics (its other outputs)."""
    mode = attributes.get("training_mode")
    match node.text("op_type"):
        case "Dropout":
            may_train = any(node.texts("input")[2:])
        case "BatchNormalization":
            may_train = len(node.texts("output")) > 1
        case _:
            may_train = False
    return may_train or (mode is not None and mode.number("i") != 0)


def _check_sizes(graph: Message, content: bytes) -> None:
    """Raise ValueError if a number in the file makes a tensor of more than MAX_ELEMENTS.

    Numbers that are computed from inputs are not known here: only a limit on memory stops what they make.
    """
    producers = {name: node for node in graph.messages("node") for name in node.texts("output")}
    constants = {tensor.text("name"): _values(tensor, content) for tensor in graph.messages("initializer")}
    constants |= {name: _constant(node, content) for name, node in producers.items() if _is_constant(node)}
    visited = {limit: set[str]() for limit in (MAX_ELEMENTS, MAX_RESHAPED)}
    for node in graph.messages("node"):
        operator, inputs = node.text("op_type"), node.texts("input")
        limit = MAX_RESHAPED if operator == "Reshape" else MAX_ELEMENTS
        sizes = [inputs[i] for i in SIZE_INPUTS.get(operator, ()) if i < len(inputs)]
        for name in sizes:
            # Each value of a padding is added to one axis.
            is_shape = operator != "Pad"
            _check_size(f"{_label(node)}: constant {name[:80]!r}", constants.get(name, ()), limit, is_shape=is_shape)
        for name in _sources(sizes, producers, visited[limit]):
            _check_size(f"{_label(node)}: constant {name[:80]!r}", constants.get(name, ()), limit, is_shape=False)
            if name in producers and producers[name].text("domain") == MACHINE_LEARNING:
                raise ValueError(f"{_label(node)}: a size is computed by {_label(producers[name])}")
        if operator not in {"Constant", "Slice"} and domain_of(node.text("domain")) != MACHINE_LEARNING:
            for attribute in node.messages("attribute"):
                label = f"{_label(node)}: attribute {attribute.text('name')[:80]!r}"
                is_shape = attribute.text("name") in SHAPE_ATTRIBUTES
                _check_size(label, attribute.numbers("i") + attribute.numbers("ints"), MAX_ELEMENTS, is_shape=is_shape)


def _check_size(label: str, values: Sequence[float], limit: int, *, is_shape: bool) -> None:
    """Raise ValueError if a value, or the product of a shape's values, is above the limit."""
    sizes = [abs(value) for value in values if value]
    declared = prod(sizes) if is_shape else max(sizes, default=0)
    if declared > limit:
        raise ValueError(f"{label} declares {declared:g} elements, expected at most {limit}")


def _sources(names: Sequence[str], producers: Mapping[str, Message], visited: set[str]) -> Iterator[str]:
    """Yield the values, not visited before, from which the values of these names are computed."""
    pending = list(names)
    while pending:
        name = pending.pop()
        node = producers.get(name)
        operator = node.text("op_type") if node else ""
        if name in visited or operator in {"Shape", "Size"}:
            continue
        visited.add(name)
        yield name
        if node:
            # The other inputs of these two are positions, not values.
            pending += node.texts("input")[:1] if operator in {"Gather", "Slice"} else node.texts("input")


def _is_constant(node: Message) -> bool:
    return node.text("op_type") == "Constant"


def _constant(node: Message, content: bytes) -> Sequence[float]:
    values: list[float] = []
    for attribute in node.messages("attribute"):
        for name in ("i", "ints", "f", "floats"):
            values += [value for value in attribute.values.get(name, ()) if isinstance(value, int | float)]
        for tensor in attribute.messages("t"):
            values += _values(tensor, content)
    return values


def _values(tensor: Message, content: bytes) -> Sequence[float]:
    """Return the numbers of a tensor that may be a shape; of a larger tensor, or one of another type, none."""
    dtype, _ = data_type(tensor)
    if dtype not in SIZE_FORMATS or prod(tensor.numbers("dims")) > MAX_SIZE_VALUES:
        return ()
    if raw := tensor.span("raw_data"):
        return [value for (value,) in iter_unpack(f"<{SIZE_FORMATS[dtype]}", content[raw])]
    listed = tensor.values.get(TENSOR_FIELDS.get(dtype, "int32_data"), ())
    return [value for value in listed if isinstance(value, int | float)]
