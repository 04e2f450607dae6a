"""A small classifier whose first weights lie in a data file, and bundles of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper, parser

from service.bundle import GoldenCase
from service.manifest import MODEL_DATA
from tests.service.bundles import OPSET, bundle_files, example_inputs, write_bundle

FAMILY = "image-classifier"
HIDDEN = 128
GRAPH = """
(uint8[batch, 4, 4] images) => (float[batch, 3] logits, float[batch, 3] probabilities) {
  pixels = Cast <to = 1> (images)
  flat = Flatten (pixels)
  hidden = Gemm (flat, first, bias)
  active = Relu (hidden)
  mixed = MatMul (active, second)
  logits = MatMul (mixed, third)
  probabilities = Softmax <axis = -1> (logits)
}"""


def weights() -> dict[str, npt.NDArray[np.float32]]:
    rng = np.random.default_rng(0)
    scale = np.float32(0.02)
    shapes = {"first": (16, HIDDEN), "bias": (HIDDEN,), "second": (HIDDEN, HIDDEN), "third": (HIDDEN, 3)}
    return {name: scale * rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def whole_model() -> onnx.ModelProto:
    """The classifier with all weights inside."""
    graph = parser.parse_graph(f"classifier {GRAPH}")
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights().items())
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)


def split_model() -> tuple[onnx.ModelProto, bytes]:
    """The classifier with `first` and `second` in a data file, and the content of that file."""
    model, data = whole_model(), b""
    for tensor in model.graph.initializer:
        if tensor.name in {"first", "second"}:
            data += b"\0" * (-len(data) % 4096)
            refer(tensor, offset=len(data), length=len(tensor.raw_data))
            data += tensor.raw_data
            tensor.ClearField("raw_data")
    return model, data


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def refer(tensor: TensorProto, **entries: object) -> None:
    """Let the tensor refer to external data in MODEL_DATA; `entries` replace or add to what the reference says."""
    tensor.data_location = TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in {"location": MODEL_DATA, **entries}.items():
        tensor.external_data.add(key=key, value=str(value))


def split_files(change: Callable[[onnx.ModelProto], None] = lambda model: None) -> dict[str, bytes]:
    """The files of a valid bundle of the split classifier; `change` may make its graph another one."""
    model, data = split_model()
    session = ort.InferenceSession(whole_model().SerializeToString(), providers=["CPUExecutionProvider"])
    inputs = [example_inputs(FAMILY, batch=batch, seed=batch) for batch in (1, 3, 8)]
    names = ["logits", "probabilities"]
    golden = [GoldenCase(inputs=one, outputs=dict(zip(names, session.run(names, one), strict=True))) for one in inputs]
    change(model)
    return {**bundle_files(FAMILY, golden=golden, model=model.SerializeToString()), MODEL_DATA: data}


def write_split_bundle(root: Path, change: Callable[[onnx.ModelProto], None] = lambda model: None) -> Path:
    # Without prepacking, a batch of one runs other kernels than a larger batch.
    invariance = {"level": "bitwise", "measured": 0.0, "how": "in tests", "strategy": "minimum-batch-2"}
    return write_bundle(root, FAMILY, files=split_files(change), invariance=invariance)
